//! Kills at every point of the core: locks, heap, objects, messages, participants, sweeps.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;

use crash::{Before, alone, in_child, kill_at, killed_at};
use tenfold_shm::Heap;
use tenfold_shm::kill_point::KillPoint;
use tenfold_shm::message::{self, Outgoing, Payload};
use tenfold_shm::object::{self, Handle, ObjectKind};
use tenfold_shm::participant::{self, HeldCell};

/// One of everything that the core does.
fn everything(heap: Heap) {
    let seat = participant::seat(heap).unwrap();
    let cell = seat.transit(1);
    for bytes in [1, 100, 5_000, 50_000, 1_500_000] {
        let block = heap.take(seat, bytes, ObjectKind::Bytes, cell).unwrap();
        block.write(heap, 0, &[7]).unwrap();
        heap.give_back(seat, block.id(), cell).unwrap();
    }
    let (event, lock) = (object(heap, ObjectKind::Event), object(heap, ObjectKind::Lock));
    let outgoing = Outgoing { parts: &[b"ab", b"c"], handles: &[event, lock] };
    message::write(heap, seat, outgoing, cell).unwrap();
    object::release(heap, seat, cell).unwrap();
    let held = HeldCell::take(heap).unwrap();
    let large = Outgoing { parts: &[&[3; 2_000_000]], ..outgoing };
    message::write(heap, seat, large, held.word()).unwrap();
    let payload = Payload::held(heap, held).unwrap();
    let view = payload.look_privately(1, 1_000_000).unwrap();
    drop(payload);
    drop(view);
}

fn object(heap: Heap, kind: ObjectKind) -> Handle {
    Handle::create(heap, kind, 8, |_| Ok(())).unwrap()
}

/// What a process has at its death: objects, a message in its ledger, one on the move.
fn hold_some_of_everything(heap: Heap) {
    let seat = participant::seat(heap).unwrap();
    let (event, lock) = (object(heap, ObjectKind::Event), object(heap, ObjectKind::Lock));
    let cell = HeldCell::take(heap).unwrap();
    let outgoing = Outgoing { parts: &[&[1; 2000]], handles: &[event.clone(), lock.clone()] };
    message::write(heap, seat, outgoing, cell.word()).unwrap();
    message::write(heap, seat, outgoing, seat.transit(2)).unwrap();
    heap.take(seat, 3_000_000, ObjectKind::Bytes, seat.transit(3)).unwrap();
    core::mem::forget((event, lock, cell));
}

fn survives(point: KillPoint) {
    alone(|heap| {
        everything(heap);
        let before = Before::of(heap);
        let mut passes = 0;
        // `killed_at` forks, which copies what the parent holds: let it hold something.
        let held = object(heap, ObjectKind::Event);
        while killed_at(point, passes, || everything(heap)) {
            // The survivor goes on without having been told of any death.
            everything(heap);
            passes += 1;
            assert!(passes < 1000);
        }
        assert!(passes > 0, "{} was never reached", point.name());
        drop(held);
        before.assert_unchanged();
        everything(heap);
        before.assert_unchanged();
    });
}

macro_rules! kills {
    ($($name:ident: $point:ident,)*) => {
        $(#[test] fn $name() { survives(KillPoint::$point); })*
    };
}

kills! {
    killed_with_a_lock_just_taken: LockTaken,
    killed_before_the_redo_record_is_committed: RedoWritten,
    killed_after_the_redo_record_is_committed: RedoCommitted,
    killed_with_the_redo_record_half_applied: RedoHalfApplied,
    killed_with_the_redo_record_applied: RedoApplied,
    killed_with_the_redo_record_cleared: RedoCleared,
    killed_with_the_lock_released_but_named: LockReleased,
    killed_with_a_block_taken: HeapTaken,
    killed_with_a_large_block_taken: HeapLargeTaken,
    killed_with_an_object_built: ObjectBuilt,
    killed_with_an_object_dying: ObjectDying,
    killed_with_a_message_written: MessageWritten,
    killed_with_a_handle_of_a_message_dropped: MessageHandleDropped,
    killed_with_a_message_counted: MessageCounted,
    killed_with_a_message_shared: MessageShared,
}

#[test]
fn killed_in_the_growth_of_the_heap() {
    alone(|heap| {
        everything(heap);
        for bytes in [3_000, 7_000, 70_000, 700_000, 5_000_000] {
            let before = Before::of(heap);
            let committed = heap.stats().committed_bytes;
            let take = || {
                let seat = participant::seat(heap).unwrap();
                heap.take(seat, bytes, ObjectKind::Bytes, seat.transit(0)).unwrap();
            };
            for _ in 0..5 {
                kill_at(KillPoint::HeapGrown, 0, take);
                before.assert_unchanged();
                assert_eq!(heap.stats().committed_bytes, committed);
            }
            in_child(take).succeeds();
            before.assert_unchanged();
        }
    });
}

/// Pages that nobody has told of are those of the block's next owner, and go back with them.
#[test]
fn killed_with_pages_that_no_account_tells_of() {
    alone(|heap| {
        let pages = || heap_file_bytes(heap);
        for bytes in [1_500_000, 5_000_000, 20_000_000] {
            let take = || {
                let seat = participant::seat(heap).unwrap();
                let block = heap.take(seat, bytes, ObjectKind::Bytes, seat.transit(0)).unwrap();
                for at in [0, bytes / 2, bytes - 3] {
                    block.write(heap, at, b"abc").unwrap();
                    let mut found = [0; 3];
                    block.read(heap, at, &mut found).unwrap();
                    assert_eq!(&found, b"abc");
                }
            };
            let trim = || heap.trim(participant::seat(heap).unwrap()).unwrap();
            let before = Before::of(heap);
            in_child(take).succeeds();
            before.assert_unchanged();
            trim();
            let (committed, had) = (heap.stats().committed_bytes, pages());
            for _ in 0..3 {
                kill_at(KillPoint::HeapPagesTaken, 0, take);
                before.assert_unchanged();
                assert_eq!(heap.stats().committed_bytes, committed);
            }
            assert!((had + bytes..had + bytes + (1 << 20)).contains(&pages()), "of {bytes}: {had}, now {}", pages());
            in_child(take).succeeds();
            before.assert_unchanged();
            trim();
            assert!(pages() < had + (1 << 20), "of {bytes}: {had}, now {}", pages());
        }
    });
}

/// Bytes that have pages.
fn heap_file_bytes(heap: Heap) -> u64 {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/self/fd/{}", heap.fd().as_raw_fd())).unwrap().blocks() * 512
}

/// Each fork of a process that is killed in the fork handlers leaves a slot that no child adopts.
#[test]
fn killed_in_a_fork() {
    alone(|heap| {
        let before = Before::of(heap);
        let held = object(heap, ObjectKind::Event);
        for point in [KillPoint::SlotClaimed, KillPoint::BirthPrepared] {
            kill_at(point, 0, || in_child(|| ()).succeeds());
        }
        drop(held);
        before.assert_unchanged();
        in_child(|| everything(heap)).succeeds();
        before.assert_unchanged();
    });
}

#[test]
fn killed_in_a_sweep() {
    alone(|heap| {
        everything(heap);
        let before = Before::of(heap);
        for point in [KillPoint::SweepClaimed, KillPoint::SweepLocksDone, KillPoint::SweepDone] {
            for victim in [KillPoint::HeapTaken, KillPoint::RedoCommitted] {
                kill_at(victim, 30, || {
                    hold_some_of_everything(heap);
                    (0..10).for_each(|_| everything(heap));
                });
                kill_at(point, 0, || crash::sweep(heap));
                everything(heap);
                before.assert_unchanged();
            }
        }
    });
}

#[test]
fn killed_in_the_sweep_of_a_killed_sweeper() {
    alone(|heap| {
        everything(heap);
        let before = Before::of(heap);
        let points = [KillPoint::SweepClaimed, KillPoint::SweepLocksDone, KillPoint::SweepDone];
        for (first, second) in points.into_iter().flat_map(|first| points.map(|second| (first, second))) {
            for passes in 0..2 {
                kill_at(KillPoint::RedoHalfApplied, 40, || {
                    hold_some_of_everything(heap);
                    (0..10).for_each(|_| everything(heap));
                });
                kill_at(first, 0, || crash::sweep(heap));
                // Two are dead; the next sweeper dies over the first of them, or over the second.
                kill_at(second, passes, || crash::sweep(heap));
                everything(heap);
                before.assert_unchanged();
            }
        }
    });
}

/// Whoever waits for the victim's lock may hold one itself, or need that lock for the sweep of the sweeper.
#[test]
fn a_sweeper_is_killed_over_a_lock_that_others_wait_for() {
    alone(|heap| {
        everything(heap);
        let before = Before::of(heap);
        for passes in 0..40 {
            kill_at(KillPoint::SweepClaimed, 0, || {
                hold_some_of_everything(heap);
                kill_at(KillPoint::RedoCommitted, passes, || (0..10).for_each(|_| everything(heap)));
                crash::sweep(heap);
            });
            everything(heap);
            before.assert_unchanged();
        }
    });
}

/// A sweeper killed at each of the stores that it does for the dead.
#[test]
fn killed_at_any_store_of_a_sweep() {
    alone(|heap| {
        everything(heap);
        let before = Before::of(heap);
        for point in [KillPoint::RedoCommitted, KillPoint::RedoHalfApplied, KillPoint::LockReleased] {
            let mut passes = 0;
            loop {
                let victim = in_child(|| {
                    hold_some_of_everything(heap);
                    tenfold_sys::process::kill_self();
                });
                victim.wait();
                let killed = killed_at(point, passes, || crash::sweep(heap));
                everything(heap);
                before.assert_unchanged();
                if !killed {
                    break;
                }
                passes += 1;
            }
            assert!(passes > 5, "{}: {passes}", point.name());
        }
    });
}
