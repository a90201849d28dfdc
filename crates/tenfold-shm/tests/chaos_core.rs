//! Kills at every point of the core: locks, heap, objects, messages, participants, sweeps.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;

use crash::{Before, alone, killed_at};
use tenfold_shm::Heap;
use tenfold_shm::kill_point::KillPoint;
use tenfold_shm::message::{self, Outgoing};
use tenfold_shm::object::{self, Handle, ObjectKind};
use tenfold_shm::participant;

/// One of everything that the core does.
fn everything(heap: Heap) {
    let seat = participant::seat(heap).unwrap();
    let cell = seat.transit(1);
    for bytes in [1, 100, 5_000, 50_000, 1_500_000] {
        let block = heap.take(seat, bytes, ObjectKind::Bytes, cell).unwrap();
        block.write(heap, 0, &[7]).unwrap();
        heap.give_back(seat, block.id(), cell).unwrap();
    }
    let event = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
    let lock = Handle::create(heap, ObjectKind::Lock, 8, |_| Ok(())).unwrap();
    let outgoing = Outgoing { parts: &[b"ab", b"c"], handles: &[event, lock] };
    message::write(heap, seat, outgoing, cell).unwrap();
    object::release(heap, seat, cell).unwrap();
}

fn survives(point: KillPoint) {
    alone(|heap| {
        everything(heap);
        let before = Before::of(heap);
        let mut passes = 0;
        // `killed_at` forks, which copies what the parent holds: let it hold something.
        let held = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
        while killed_at(point, passes, || everything(heap)) {
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
}
