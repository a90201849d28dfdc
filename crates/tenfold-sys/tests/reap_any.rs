//! `reap_any` takes whichever child there is, so it has a test process to itself.

use tenfold_sys::process::{ExitStatus, Fork, exit_now, fork, reap_any};

#[test]
fn reaps_all_children_and_then_none() {
    assert_eq!(reap_any(), None);
    let mut expected = Vec::new();
    for code in 1..=5 {
        // SAFETY: the child exits at once.
        match unsafe { fork() }.expect("fork") {
            Fork::Child => exit_now(code),
            Fork::Parent(pid) => expected.push((pid, ExitStatus::Exited(code))),
        }
    }
    let mut reaped = Vec::new();
    while reaped.len() < expected.len() {
        match reap_any() {
            Some(child) => reaped.push(child),
            None => std::thread::yield_now(),
        }
    }
    reaped.sort_by_key(|&(pid, _)| pid);
    expected.sort_by_key(|&(pid, _)| pid);
    assert_eq!(reaped, expected);
    assert_eq!(reap_any(), None);
}
