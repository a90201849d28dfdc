//! Large payloads that are looked at where they lie: as private as a process's own memory, and held as long
//! as any process, forked ones included, looks.

#[path = "support/crash.rs"]
mod crash;

use crash::{Before, alone, in_child};
use tenfold_shm::message::{self, Outgoing, Payload};
use tenfold_shm::object::{Handle, ObjectKind};
use tenfold_shm::participant::{self, HeldCell};
use tenfold_shm::private_view::PrivateView;
use tenfold_shm::{Heap, HeapError};
use tenfold_sys::limits::{self, Resource};

const LARGE: usize = 3 << 20;

fn send(heap: Heap, bytes: &[u8], handles: &[Handle]) -> Payload {
    let cell = HeldCell::take(heap).unwrap();
    let seat = participant::seat(heap).unwrap();
    message::write(heap, seat, Outgoing { parts: &[bytes], handles }, cell.word()).unwrap();
    Payload::held(heap, cell).unwrap()
}

/// What it shows now.
fn shown(view: &PrivateView) -> &[u8] {
    // SAFETY: mapped as long as the view lives, and only written to by `write`, between looks.
    unsafe { core::slice::from_raw_parts(view.address().as_ptr(), view.len()) }
}

fn write(view: &PrivateView, at: usize, byte: u8) {
    assert!(at < view.len());
    // SAFETY: inside the view's memory, to which nobody has a reference now.
    unsafe { view.address().add(at).write_volatile(byte) };
}

/// Takes the blocks that were freed last and fills them with something else.
fn overwrite_what_is_free(heap: Heap) {
    drop([(); 3].map(|()| send(heap, &[0xee; LARGE], &[])));
}

#[test]
fn a_view_is_private_and_holds_its_block() {
    alone(|heap| {
        let before = Before::of(heap);
        let bytes: Vec<u8> = (0..LARGE).map(|n| n as u8).collect();
        let payload = send(heap, &bytes, &[]);
        let view = payload.look_privately(5, LARGE - 10).unwrap().unwrap();
        let second = payload.look_privately(0, LARGE).unwrap().unwrap();
        assert!(shown(&view) == &bytes[5..LARGE - 5]);
        write(&view, 10_000, 99);
        assert_eq!(shown(&view)[10_000], 99);
        assert!(shown(&second) == bytes);
        assert!(payload.with(|now| now == bytes).unwrap());
        drop(payload);
        overwrite_what_is_free(heap);
        assert!(shown(&second) == bytes);
        drop(second);
        overwrite_what_is_free(heap);
        assert!(shown(&view)[10_001..] == bytes[10_006..LARGE - 5]);
        drop(view);
        before.assert_unchanged();
    });
}

#[test]
fn nonsense_and_small_payloads_have_no_view() {
    alone(|heap| {
        let before = Before::of(heap);
        let payload = send(heap, &[1; LARGE], &[]);
        for (from, len) in [(0, LARGE + 1), (LARGE, 1), (usize::MAX, 2), (2, usize::MAX)] {
            assert!(matches!(payload.look_privately(from, len), Err(HeapError::Corrupt { .. })), "{from} {len}");
        }
        assert!(Payload::inline(heap, b"abc").look_privately(0, 3).unwrap().is_none());
        drop(payload);
        before.assert_unchanged();
    });
}

/// For a child of fork that has a view of sevens, the second of them written over: once it may, it looks and writes.
fn look_and_write(place: &mut Option<PrivateView>, mut may: &std::io::PipeReader) {
    std::io::Read::read_exact(&mut may, &mut [0]).unwrap();
    let view = place.take().unwrap();
    assert_eq!(shown(&view)[..3], [7, 1, 7]);
    assert!(shown(&view)[2..].iter().all(|byte| *byte == 7));
    write(&view, 2, 2);
    assert!(shown(&view)[3..].iter().all(|byte| *byte == 7));
}

#[test]
fn a_child_of_fork_sees_what_was_there_whatever_becomes_of_the_parent() {
    alone(|heap| {
        let before = Before::of(heap);
        let payload = send(heap, &[7; LARGE], &[]);
        let view = payload.look_privately(0, LARGE).unwrap().unwrap();
        drop(payload);
        write(&view, 1, 1);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut place = Some(view);
        let child = in_child(|| look_and_write(&mut place, &reader));
        // The parent's mapping and its hold are gone before the child looks.
        write(place.as_ref().unwrap(), 0, 0);
        drop(place);
        overwrite_what_is_free(heap);
        std::io::Write::write_all(&mut writer, &[1]).unwrap();
        child.succeeds();
        crash::sweep(heap);
        before.assert_unchanged();
    });
}

#[test]
fn a_killed_holder_gives_the_block_back() {
    alone(|heap| {
        let before = Before::of(heap);
        for inherited in [false, true] {
            let payload = inherited.then(|| send(heap, &[7; LARGE], &[]));
            let view = payload.as_ref().map(|payload| payload.look_privately(0, LARGE).unwrap().unwrap());
            let (mut reader, writer) = std::io::pipe().unwrap();
            let child = in_child(|| {
                let own = send(heap, &[3; LARGE], &[]).look_privately(9, 100).unwrap().unwrap();
                std::io::Write::write_all(&mut &writer, &[1]).unwrap();
                std::thread::sleep(std::time::Duration::from_secs(60));
                drop(own);
            });
            std::io::Read::read_exact(&mut reader, &mut [0]).unwrap();
            drop((payload, view));
            assert!(heap.stats().live_blocks > 0);
            child.kill();
            crash::sweep(heap);
            before.assert_unchanged();
        }
    });
}

#[test]
fn what_the_payload_mentions_goes_with_the_payload_not_with_its_views() {
    alone(|heap| {
        let before = Before::of(heap);
        let event = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
        let id = event.id();
        let payload = send(heap, &[5; LARGE], &[event]);
        let view = payload.look_privately(0, LARGE).unwrap().unwrap();
        assert_eq!(view.address().as_ptr() as usize % 64, 0);
        assert_eq!(payload.handles().unwrap().len(), 1);
        drop(payload);
        assert_eq!(Handle::from_id(heap, id).unwrap_err(), HeapError::Stale);
        assert!(shown(&view).iter().all(|byte| *byte == 5));
        drop(view);
        before.assert_unchanged();
    });
}

/// The child cannot hold what its parent does: then what it has looks at is its own by the time it is born.
#[test]
fn a_fork_without_room_for_holdings_copies_the_pages() {
    alone(|heap| {
        // The ledger's further entries stay once they are there.
        drop((0..200).map(|_| HeldCell::take(heap).unwrap()).collect::<Vec<_>>());
        let before = Before::of(heap);
        let limit = heap.stats().limit_bytes;
        // More than lie in the slot, so that the child needs a block for its ledger.
        let mut views: Vec<PrivateView> =
            (0..200).map(|_| send(heap, &[1; 300_000], &[]).look_privately(0, 300_000).unwrap().unwrap()).collect();
        views.push(send(heap, &[7; LARGE], &[]).look_privately(3, LARGE - 3).unwrap().unwrap());
        // No block of that size is free, and none can be made.
        let ledger = |_| {
            let cell = HeldCell::take(heap).unwrap();
            let seat = participant::seat(heap).unwrap();
            let block = heap.take(seat, 256 * 16, ObjectKind::Bytes, cell.word());
            block.map(|_| Payload::held(heap, cell).unwrap())
        };
        heap.set_limit(heap.stats().committed_bytes);
        let fill: Vec<Payload> = (0..10_000).map_while(|n| ledger(n).ok()).collect();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let child = in_child(|| {
            let mut reader = &reader;
            std::io::Read::read_exact(&mut reader, &mut [0]).unwrap();
            assert!(shown(&views[200]).iter().all(|byte| *byte == 7));
        });
        heap.set_limit(limit);
        drop((views, fill));
        overwrite_what_is_free(heap);
        std::io::Write::write_all(&mut writer, &[1]).unwrap();
        child.succeeds();
        crash::sweep(heap);
        before.assert_unchanged();
    });
}

#[test]
fn without_address_space_there_is_no_view_and_nothing_is_lost() {
    alone(|heap| {
        let before = Before::of(heap);
        let payload = send(heap, &vec![7; 200 << 20], &[]);
        in_child(|| {
            let size = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = size.split(' ').next().unwrap().parse().unwrap();
            limits::set_soft(Resource::AddressSpace, Some(pages * 4096 + (64 << 20))).unwrap();
            let mine = send(heap, &[9; LARGE], &[]);
            assert_eq!(mine.with(|bytes| bytes.len()).unwrap(), LARGE);
            let mine = send(heap, &vec![9; 16 << 20], &[]);
            let views: Vec<PrivateView> =
                (0..100).map_while(|_| mine.look_privately(0, 16 << 20).ok().flatten()).collect();
            assert!((1..40).contains(&views.len()), "{}", views.len());
            assert_eq!(mine.look_privately(0, 16 << 20).unwrap_err(), HeapError::AddressSpace { length: 16 << 20 });
            drop(views);
            assert!(mine.look_privately(0, 16 << 20).is_ok());
        })
        .succeeds();
        drop(payload);
        crash::sweep(heap);
        before.assert_unchanged();
    });
}

/// The message's bytes through a view of a payload that is the only one with its block, which must be had.
fn alone_with(payload: &Payload) -> PrivateView {
    payload.look_alone(0, LARGE).unwrap().expect("nobody else has the block")
}

#[test]
fn a_view_of_what_nobody_else_has_is_as_private() {
    alone(|heap| {
        let before = Before::of(heap);
        // The same block again and again, so that what was written before would show.
        for round in 0..3 {
            let bytes: Vec<u8> = (0..LARGE).map(|n| (n + round) as u8).collect();
            let payload = send(heap, &bytes, &[]);
            let view = alone_with(&payload);
            assert!(payload.look_alone(0, LARGE).unwrap().is_none(), "it is held by count now");
            drop(payload);
            assert!(shown(&view) == bytes);
            write(&view, 0, 99);
            overwrite_what_is_free(heap);
            assert!(shown(&view)[0] == 99 && shown(&view)[1..] == bytes[1..]);
        }
        let shared = send(heap, &[1; LARGE], &[]);
        let second = shared.look_privately(0, LARGE).unwrap();
        assert!(shared.look_alone(0, LARGE).unwrap().is_none());
        assert!(matches!(send(heap, &[1; LARGE], &[]).look_alone(1, LARGE), Err(HeapError::Corrupt { .. })));
        drop((shared, second));
        before.assert_unchanged();
    });
}

#[test]
fn after_a_fork_parent_and_child_write_to_pages_of_their_own() {
    alone(|heap| {
        let before = Before::of(heap);
        let view = alone_with(&send(heap, &[7; LARGE], &[]));
        write(&view, 1, 1);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut place = Some(view);
        let child = in_child(|| look_and_write(&mut place, &reader));
        let view = place.take().unwrap();
        write(&view, 0, 0);
        std::io::Write::write_all(&mut writer, &[1]).unwrap();
        child.succeeds();
        assert_eq!(shown(&view)[..3], [0, 1, 7]);
        drop(view);
        crash::sweep(heap);
        // What was private is not taken for a look at the block's next message.
        let bytes = vec![3; LARGE];
        let next = send(heap, &bytes, &[]);
        assert!(next.with(|now| now == bytes).unwrap());
        assert!(shown(&alone_with(&next)) == bytes);
        drop(next);
        before.assert_unchanged();
    });
}

#[test]
fn where_private_memory_is_limited_it_is_asked_for_at_once() {
    alone(|heap| {
        let before = Before::of(heap);
        limits::set_soft(Resource::Data, Some(1 << 30)).unwrap();
        let payload = send(heap, &[7; LARGE], &[]);
        assert!(payload.look_alone(0, LARGE).unwrap().is_none());
        assert!(payload.look_privately(0, LARGE).unwrap().is_some());
        drop(payload);
        before.assert_unchanged();
    });
}
