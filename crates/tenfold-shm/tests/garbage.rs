//! Whatever a rogue process writes into descriptors, messages, dicts, lists and queues, the others get errors:
//! they do not crash, panic or hang.

#[path = "support/garbage.rs"]
mod garbage;

use garbage::{Input, Scene};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenfold_shm::Heap;
use tenfold_sys::process::{self, ExitStatus, Fork};

/// Runs `body` over much garbage, each time in a process with a heap of its own, which it ruins.
fn survives(body: fn(&mut Input<'_>, Scene)) {
    let cases = std::env::var("TENFOLD_GARBAGE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(any::<u8>(), 12..80), |bytes| {
            // This process must not have a heap yet, or the child would ruin it for all.
            assert_eq!(Heap::existing(), None);
            // SAFETY: the child uses the allocator and its own heap only, which survive a fork.
            let child = match unsafe { process::fork() }.unwrap() {
                Fork::Parent(pid) => pid,
                Fork::Child => {
                    // SAFETY: takes a number; the signal ends a child that hangs.
                    unsafe { libc::alarm(4) };
                    let scene = Scene::new(Heap::get().unwrap());
                    body(&mut Input::new(&bytes), scene);
                    process::exit_now(0);
                }
            };
            let ended = process::reap_blocking(child).unwrap();
            prop_assert_eq!(ended, ExitStatus::Exited(0));
            Ok(())
        })
        .unwrap();
}

// Fault 24.
#[test]
fn garbage_in_descriptors_is_an_error() {
    survives(garbage::blocks);
}

// Fault 24.
#[test]
fn garbage_in_messages_is_an_error() {
    survives(garbage::messages);
}

// Fault 24.
#[test]
fn garbage_in_a_dict_is_an_error() {
    survives(garbage::dict);
}

// Fault 24.
#[test]
fn garbage_in_a_list_is_an_error() {
    survives(garbage::list);
}

// Fault 24.
#[test]
fn garbage_in_a_queue_is_an_error() {
    survives(garbage::queue);
}
