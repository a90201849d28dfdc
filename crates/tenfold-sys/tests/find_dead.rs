//! `find_dead` finds whichever child there is, so it has a test process to itself.

use tenfold_sys::process::{ExitStatus, Fork, exit_now, find_dead, fork, reap};

#[test]
fn reaps_all_children_and_then_none() {
    assert_eq!(find_dead(), None);
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
        match find_dead() {
            Some((pid, status)) => {
                assert_eq!(find_dead(), Some((pid, status)), "still there");
                assert_eq!(reap(pid), Ok(Some(status)));
                reaped.push((pid, status));
            }
            None => std::thread::yield_now(),
        }
    }
    reaped.sort_by_key(|&(pid, _)| pid);
    expected.sort_by_key(|&(pid, _)| pid);
    assert_eq!(reaped, expected);
    assert_eq!(find_dead(), None);
}
