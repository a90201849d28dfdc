//! Whatever a rogue process writes into descriptors, messages, dicts, lists and queues, the others get errors:
//! they do not crash, panic or hang.

#[path = "support/crash.rs"]
mod crash;
#[path = "support/garbage.rs"]
mod garbage;

use crash::alone;
use garbage::{Input, Scene};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenfold_shm::internal_lock::InternalLock;
use tenfold_shm::participant::{self, HeldCell};
use tenfold_shm::{Heap, ObjectKind};
use tenfold_sys::process::{self, ExitStatus, Fork};

/// How a process ends in which `body` ruins a heap of its own.
fn end_of(bytes: &[u8], body: fn(&mut Input<'_>, Scene)) -> ExitStatus {
    // This process must not have a heap yet, or the child would ruin it for all.
    assert_eq!(Heap::existing(), None);
    // SAFETY: the child uses the allocator and its own heap only, which survive a fork.
    let child = match unsafe { process::fork() }.unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            // SAFETY: takes a number; the signal ends a child that hangs.
            unsafe { libc::alarm(20) };
            let scene = Scene::new(Heap::get().unwrap());
            body(&mut Input::new(bytes), scene);
            process::exit_now(0);
        }
    };
    process::reap_blocking(child).unwrap()
}

/// Runs `body` over much garbage, each time in a process with a heap of its own, which it ruins.
fn survives(body: fn(&mut Input<'_>, Scene)) {
    let cases = std::env::var("TENFOLD_GARBAGE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(any::<u8>(), 12..80), |bytes| {
            let ended = end_of(&bytes, body);
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
fn garbage_in_a_list_that_was_waited_for_once() {
    let bytes = [
        135, 130, 248, 38, 254, 99, 218, 215, 172, 12, 213, 197, 0, 186, 21, 71, 129, 193, 165, 66, 53, 3, 234, 51,
        190, 225, 227, 54, 122, 35, 103, 6, 238, 77, 253, 95, 205, 254, 4, 169, 173, 168, 22, 72, 186, 181, 102, 188,
        165,
    ];
    assert_eq!(end_of(&bytes, garbage::list), ExitStatus::Exited(0));
}

// Fault 24.
#[test]
fn garbage_in_a_queue_is_an_error() {
    survives(garbage::queue);
}

// Fault 24.
#[test]
fn a_lock_whose_owner_cannot_be_is_not_waited_for_forever() {
    alone(|heap| {
        let (seat, cell) = (participant::seat(heap).unwrap(), HeldCell::take(heap).unwrap());
        let block = heap.take(seat, size_of::<InternalLock>() as u64, ObjectKind::Bytes, cell.word()).unwrap();
        block.zero(heap, u64::MAX).unwrap();
        let lock = block.view::<InternalLock>(heap, 0).unwrap();
        for garbage in [0x8000_0000_u32, 0x7fff_ffff, 0xffff_ffff, 0xb171_ad31] {
            block.write(heap, 0, &garbage.to_ne_bytes()).unwrap();
            drop(lock.lock(heap).unwrap());
            drop(lock.lock(heap).unwrap());
        }
        heap.give_back(seat, block.id(), cell.word()).unwrap();
    });
}
