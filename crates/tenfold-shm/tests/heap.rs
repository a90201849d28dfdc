//! The heap's allocator: against a model, at its limits, and with its file taken away.

#[path = "support/crash.rs"]
mod crash;

use std::os::fd::AsRawFd;
use std::time::Instant;

use crash::{Before, alone, in_child};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenfold_shm::heap::block::Block;
use tenfold_shm::message::{self, Outgoing, Payload};
use tenfold_shm::object::{self, Handle, ObjectKind};
use tenfold_shm::participant::{self, HeldCell};
use tenfold_shm::{Heap, HeapError};
use tenfold_sys::limits::{self, Resource};

const MIB: u64 = 1 << 20;

/// A block in an entry of this process's ledger.
struct Held {
    heap: Heap,
    block: Block,
    cell: HeldCell,
}

impl Held {
    fn take(heap: Heap, bytes: u64) -> Result<Held, HeapError> {
        let cell = HeldCell::take(heap)?;
        let block = heap.take(participant::seat(heap)?, bytes, ObjectKind::Bytes, cell.word());
        assert_eq!(block.is_err(), cell.word().load(std::sync::atomic::Ordering::Relaxed) == 0, "half made");
        Ok(Held { heap, block: block?, cell })
    }

    fn fill(&self, seed: u64) {
        self.block.write(self.heap, 0, &pattern(self.block.len(), seed)).unwrap();
    }

    fn assert_filled(&self, seed: u64) {
        let mut found = vec![0; self.block.len() as usize];
        self.block.read(self.heap, 0, &mut found).unwrap();
        assert!(found == pattern(self.block.len(), seed), "the contents of {:?} have changed", self.block);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let seat = participant::seat(self.heap).unwrap();
        self.heap.give_back(seat, self.block.id(), self.cell.word()).unwrap();
    }
}

fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state.to_le_bytes()
    });
    words.take(len as usize).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Take(u64),
    Free(usize),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..600).prop_map(Step::Take),
        3 => (0_u64..70_000).prop_map(Step::Take),
        1 => (0_u64..3 * MIB).prop_map(Step::Take),
        9 => any::<usize>().prop_map(Step::Free),
        1 => Just(Step::Trim),
    ]
}

#[test]
fn blocks_keep_their_contents_and_the_count_is_exact() {
    alone(|heap| {
        let before = Before::of(heap);
        let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
        let steps = proptest::collection::vec(step(), 1..120);
        let run = runner.run(&steps, |steps| {
            let start = heap.stats();
            let mut model: Vec<(u64, Held)> = Vec::new();
            for (seed, step) in (1..).zip(steps) {
                match step {
                    Step::Take(bytes) => {
                        let held = Held::take(heap, bytes).unwrap();
                        held.fill(seed);
                        model.push((seed, held));
                    }
                    Step::Free(which) if !model.is_empty() => {
                        let (seed, held) = model.swap_remove(which % model.len());
                        held.assert_filled(seed);
                    }
                    Step::Free(_) => {}
                    Step::Trim => heap.trim(participant::seat(heap).unwrap()).unwrap(),
                }
                let now = heap.stats();
                prop_assert_eq!(now.live_blocks - start.live_blocks, model.len() as u64);
                let asked: u64 = model.iter().map(|(_, held)| held.block.len()).sum();
                prop_assert!(now.live_bytes - start.live_bytes >= asked);
                prop_assert!(now.live_bytes - start.live_bytes <= asked / 4 * 5 + 64 * model.len() as u64);
            }
            for (seed, held) in &model {
                held.assert_filled(*seed);
            }
            drop(model);
            prop_assert_eq!(heap.stats().live_bytes, start.live_bytes);
            Ok(())
        });
        run.unwrap();
        before.assert_unchanged();
    });
}

#[test]
fn the_block_freed_last_is_taken_first() {
    alone(|heap| {
        for bytes in [10, 1000, 100_000, 2 * MIB] {
            let blocks: Vec<Held> = (0..3).map(|_| Held::take(heap, bytes).unwrap()).collect();
            let offsets: Vec<u64> = blocks.iter().map(|held| held.block.offset()).collect();
            drop(blocks);
            let again: Vec<Held> = (0..3).map(|_| Held::take(heap, bytes).unwrap()).collect();
            let again: Vec<u64> = again.iter().rev().map(|held| held.block.offset()).collect();
            assert_eq!(again, offsets, "{bytes} bytes");
        }
    });
}

#[test]
fn a_freed_block_is_stale_under_its_old_id() {
    alone(|heap| {
        let held = Held::take(heap, 100).unwrap();
        let id = held.block.id();
        assert!(heap.block(id).is_ok());
        drop(held);
        assert_eq!(heap.block(id).unwrap_err(), HeapError::Stale);
        let again = Held::take(heap, 100).unwrap();
        assert_ne!(again.block.id(), id);
        assert_eq!(heap.block(id).unwrap_err(), HeapError::Stale);
        assert_eq!(Handle::from_id(heap, again.block.id()).unwrap_err(), HeapError::Stale);
    });
}

// Fault 23.
#[test]
fn at_the_limit_there_is_an_error_and_nothing_half_made() {
    alone(|heap| {
        // A ledger that has grown stays so.
        drop((0..2000).map(|_| HeldCell::take(heap).unwrap()).collect::<Vec<_>>());
        let before = Before::of(heap);
        let start = heap.stats();
        heap.set_limit(start.committed_bytes + 4 * MIB);
        let seat = participant::seat(heap).unwrap();

        for bytes in [5 * MIB, 1 << 30, 1 << 39] {
            assert!(matches!(Held::take(heap, bytes), Err(HeapError::OutOfMemory { .. })));
            let sent =
                message::write(heap, seat, Outgoing { parts: &[&vec![1; 5 << 20]], handles: &[] }, seat.transit(0));
            assert!(matches!(sent, Err(HeapError::OutOfMemory { .. })));
            before.assert_unchanged();
        }
        assert!(matches!(Held::take(heap, u64::MAX), Err(HeapError::TooLarge { .. })));

        // Small ones until nothing more goes in.
        let mut blocks = Vec::new();
        let error = loop {
            match Held::take(heap, 3000) {
                Ok(held) => blocks.push(held),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, HeapError::OutOfMemory { .. }), "{error}");
        assert!(blocks.len() > 1000, "{}", blocks.len());
        assert!(heap.stats().committed_bytes <= start.committed_bytes + 4 * MIB);
        assert!(matches!(
            Handle::create(heap, ObjectKind::Event, 100_000, |_| Ok(())),
            Err(HeapError::OutOfMemory { .. })
        ));

        // What was freed can be taken again, and a raised limit counts at once.
        blocks.truncate(blocks.len() - 1);
        blocks.push(Held::take(heap, 3000).unwrap());
        heap.set_limit(start.limit_bytes);
        blocks.push(Held::take(heap, 8 * MIB).unwrap());
        drop(blocks);
        before.assert_unchanged();
    });
}

#[test]
fn pages_of_freed_blocks_go_to_whoever_needs_them_at_the_limit() {
    alone(|heap| {
        let start = heap.stats();
        heap.set_limit(start.committed_bytes + 40 * MIB);
        for bytes in [30 * MIB, 20 * MIB, 36 * MIB, 11 * MIB] {
            Held::take(heap, bytes).unwrap().fill(bytes);
            assert!(heap.stats().committed_bytes <= start.committed_bytes + 40 * MIB);
        }
        heap.trim(participant::seat(heap).unwrap()).unwrap();
        assert!(heap.stats().committed_bytes <= start.committed_bytes + 2 * MIB);
    });
}

/// Several processes grow at once: the limit holds, and each gets its block or an error.
// Fault 23.
#[test]
fn the_limit_holds_for_all_processes_together() {
    alone(|heap| {
        let start = heap.stats();
        heap.set_limit(start.committed_bytes + 64 * MIB);
        let children: Vec<_> = (0..4)
            .map(|_| {
                in_child(|| {
                    for round in 0..50 {
                        match Held::take(heap, (20 + round % 7) * MIB) {
                            Ok(held) => held.block.write(heap, held.block.len() - 1, &[1]).unwrap(),
                            Err(error) => assert!(matches!(error, HeapError::OutOfMemory { .. }), "{error}"),
                        }
                        assert!(heap.stats().committed_bytes <= start.committed_bytes + 64 * MIB);
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.succeeds());
        assert!(heap.stats().high_water_bytes <= start.committed_bytes + 64 * MIB);
        heap.trim(participant::seat(heap).unwrap()).unwrap();
        assert!(heap.stats().committed_bytes <= start.committed_bytes + 2 * MIB);
    });
}

#[test]
fn a_block_of_a_gibibyte() {
    alone(|heap| {
        let start = heap.stats();
        let held = Held::take(heap, 1 << 30).unwrap();
        for at in [0, MIB - 1, 777 * MIB + 5, (1 << 30) - 3] {
            held.block.write(heap, at, b"abc").unwrap();
            let mut found = [0; 3];
            held.block.read(heap, at, &mut found).unwrap();
            assert_eq!(&found, b"abc");
        }
        assert!(held.block.write(heap, (1 << 30) - 2, b"abc").is_err());
        // What is taken beyond it can be looked at.
        assert!(Held::take(heap, 200).unwrap().block.word(heap, 0).is_ok());
        drop(held);
        heap.trim(participant::seat(heap).unwrap()).unwrap();
        assert!(heap.stats().committed_bytes < start.committed_bytes + 2 * MIB);
    });
}

/// Blocks that straddle windows, among small ones.
#[test]
fn many_large_blocks_do_not_overlap() {
    alone(|heap| {
        let sizes = (0..100).map(|n| if n % 3 == 0 { 5000 } else { MIB + 4097 * n });
        let blocks: Vec<Held> = sizes.map(|bytes| Held::take(heap, bytes).unwrap()).collect();
        for (seed, held) in (0..).zip(&blocks) {
            held.fill(seed);
        }
        for (seed, held) in (0..).zip(&blocks) {
            held.assert_filled(seed);
        }
    });
}

/// Blocks of whole huge pages, and of a little more or less, with small and huge pages in them as they grow.
#[test]
fn large_blocks_keep_their_bytes_whatever_pages_they_have() {
    alone(|heap| {
        for bytes in [2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 7 * MIB, 40 * MIB + 4097] {
            // The same block with fewer bytes at first, if one is kept of its class.
            for part in [bytes - bytes / 9, bytes] {
                let held = Held::take(heap, part).unwrap();
                held.fill(part);
                in_child(|| {
                    held.assert_filled(part);
                    held.fill(part + 1);
                })
                .succeeds();
                held.assert_filled(part + 1);
            }
            heap.trim(participant::seat(heap).unwrap()).unwrap();
            let held = Held::take(heap, bytes).unwrap();
            let mut end = [1; 100];
            held.block.read(heap, bytes - 100, &mut end).unwrap();
            assert_eq!(end, [0; 100], "pages that went back are new");
        }
    });
}

// Fault 23.
#[test]
fn under_an_address_space_limit_everything_goes_through_the_file() {
    alone(|heap| {
        let large = Held::take(heap, 2 << 30).unwrap();
        let parts: Vec<Held> = (0..300).map(|_| Held::take(heap, MIB).unwrap()).collect();
        let held = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
        large.block.write(heap, 1 << 30, b"from outside").unwrap();
        in_child(|| {
            limits::set_soft(Resource::AddressSpace, Some(1 << 30)).unwrap();
            let mut found = [0; 12];
            large.block.read(heap, 1 << 30, &mut found).unwrap();
            assert_eq!(&found, b"from outside");
            large.block.write(heap, (2 << 30) - 12, b"from a child").unwrap();
            // Windows of this process are used up some time; bytes go through all the same.
            for (seed, part) in (0..).zip(&parts) {
                part.fill(seed);
            }
            let clone = Handle::from_id(heap, held.id()).unwrap();
            drop(clone);
            let payload = vec![3; 5 << 20];
            let seat = participant::seat(heap).unwrap();
            let cell = HeldCell::take(heap).unwrap();
            message::write(
                heap,
                seat,
                Outgoing { parts: &[&payload], handles: std::slice::from_ref(&held) },
                cell.word(),
            )
            .unwrap();
            let received = Payload::held(heap, cell).unwrap();
            assert_eq!(received.to_vec().unwrap(), payload);
            assert_eq!(received.handles().unwrap(), std::slice::from_ref(&held));
        })
        .succeeds();
        for (seed, part) in (0..).zip(&parts) {
            part.assert_filled(seed);
        }
        let mut found = [0; 12];
        large.block.read(heap, (2 << 30) - 12, &mut found).unwrap();
        assert_eq!(&found, b"from a child");
    });
}

/// A process without any address space left cannot sweep: it leaves the dead to others.
#[test]
fn who_cannot_map_leaves_the_sweep_to_others() {
    alone(|heap| {
        let before = Before::of(heap);
        // The descriptors of these lie in a table that the poor process has never mapped.
        let poor = in_child(|| {
            let status = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
            tenfold_sys::process::kill(tenfold_sys::process::pid(), libc::SIGSTOP).unwrap();
            limits::set_soft(Resource::AddressSpace, Some(pages * 4096)).unwrap();
            for _ in 0..20 {
                participant::sweep_all(heap);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let many: Vec<Held> = (0..20_000).map(|_| Held::take(heap, 8).unwrap()).collect();
        in_child(|| {
            let held = Held::take(heap, 9).unwrap();
            core::mem::forget(held);
            tenfold_sys::process::kill_self();
        })
        .wait();
        poor.signal(libc::SIGCONT);
        poor.succeeds();
        drop(many);
        // The ledger that held so many has grown and stays; all else is gone.
        crash::sweep(heap);
        let rest = heap.census().into_iter().filter(|((slot, _), _)| *slot != 0).count();
        assert_eq!(rest, 0, "{:?}", heap.census());
        drop(before);
    });
}

// Fault 23.
#[test]
fn under_a_file_size_limit_there_are_errors_and_no_signal() {
    alone(|heap| {
        let large = Held::take(heap, 40 * MIB).unwrap();
        drop(Held::take(heap, 300_000).unwrap());
        in_child(|| {
            limits::set_soft(Resource::FileSize, Some(10 * MIB)).unwrap();
            // What exists can be used to the full.
            large.fill(5);
            drop(Held::take(heap, 300_000).unwrap());
            let mut blocks = Vec::new();
            let error = loop {
                match Held::take(heap, 300_000) {
                    Ok(held) => blocks.push(held),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, HeapError::FileSize { .. }), "{error}");
        })
        .succeeds();
        large.assert_filled(5);
        drop(Held::take(heap, 300_000).unwrap());
    });
}

// Fault 23.
#[test]
fn a_closed_and_reused_descriptor_is_noticed() {
    alone(|heap| {
        for bytes in [8, 100] {
            drop(Held::take(heap, bytes).unwrap());
        }
        drop(Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap());
        let before = Before::of(heap);
        let large = Held::take(heap, 3 * MIB).unwrap();
        large.fill(9);
        // Read at length, it is mapped from now on.
        large.assert_filled(9);
        // Too small for huge pages, which are got through a mapping.
        let never_seen = Held::take(heap, MIB + MIB / 2).unwrap();
        let path = std::env::temp_dir().join(format!("tenfold-stranger-{}", std::process::id()));
        std::fs::write(&path, vec![7; 4 << 20]).unwrap();
        let work = |stranger: i32| {
            // What is mapped works on.
            drop(Held::take(heap, 8).unwrap());
            drop(Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap());
            let mut blocks = Vec::new();
            let error = loop {
                match Held::take(heap, 8000) {
                    Ok(held) => blocks.push(held),
                    Err(error) => break error,
                }
            };
            assert_eq!(error, HeapError::FileTaken, "with {stranger}");
            assert_eq!(Held::take(heap, 200 * MIB).err(), Some(HeapError::FileTaken));
            large.assert_filled(9);
            assert_eq!(never_seen.block.write(heap, 0, &vec![1; 1 << 20]), Err(HeapError::FileTaken));
            assert_eq!(never_seen.block.read(heap, 0, &mut vec![1; 1 << 20]), Err(HeapError::FileTaken));
            let seat = participant::seat(heap).unwrap();
            let sent =
                message::write(heap, seat, Outgoing { parts: &[&vec![1; 3 << 20]], handles: &[] }, seat.transit(0));
            assert_eq!(sent.unwrap_err(), HeapError::FileTaken);
        };
        for reuse in [false, true] {
            in_child(|| {
                let number = heap.fd().as_raw_fd();
                let stranger = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
                // SAFETY: closing the heap's descriptor behind its back is what this test is about.
                unsafe { libc::close(number) };
                if reuse {
                    // SAFETY: as above.
                    unsafe { libc::dup2(stranger.as_raw_fd(), number) };
                }
                // A large block freed: its pages cannot be given back, and nobody else's are.
                let cell = HeldCell::take(heap).unwrap();
                let seat = participant::seat(heap).unwrap();
                let again = heap.take(seat, 100, ObjectKind::Bytes, cell.word()).unwrap();
                heap.give_back(seat, again.id(), cell.word()).unwrap();
                assert!(heap.trim(seat).is_err() || heap.stats().committed_bytes > 0);
                work(number);
            })
            .succeeds();
        }
        // Whoever has a mapping of the stranger's file would have left a trace in it.
        assert!(std::fs::read(&path).unwrap() == vec![7; 4 << 20], "the stranger's file has changed");
        std::fs::remove_file(&path).unwrap();
        large.assert_filled(9);
        drop((large, never_seen));
        before.assert_unchanged();
    });
}

// Fault 15.
#[test]
fn ten_thousand_cycles_leave_the_heap_where_it_was() {
    alone(|heap| {
        let cycle = |n: usize| {
            let event = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
            let cell = HeldCell::take(heap).unwrap();
            let seat = participant::seat(heap).unwrap();
            let bytes = vec![1; n * 37 % 5000];
            let outgoing = Outgoing { parts: &[&bytes], handles: std::slice::from_ref(&event) };
            message::write(heap, seat, outgoing, cell.word()).unwrap();
            drop(event);
            let received = Payload::held(heap, cell).unwrap();
            let handles = received.handles().unwrap();
            drop(received);
            assert!(handles[0].view::<std::sync::atomic::AtomicU64>().is_ok());
        };
        (0..5000).for_each(cycle);
        let before = Before::of(heap);
        let committed = heap.stats().committed_bytes;
        let start = Instant::now();
        (0..10_000).for_each(cycle);
        println!("10 000 cycles in {:?}", start.elapsed());
        before.assert_unchanged();
        assert_eq!(heap.stats().committed_bytes, committed);
    });
}

/// A core dump holds nothing that others sent: no mapping of the heap is in it, small or large, shared or private.
#[test]
fn the_heap_is_not_in_core_dumps() {
    alone(|heap| {
        let blocks = [Held::take(heap, 100).unwrap(), Held::take(heap, 8 * MIB).unwrap()];
        blocks.iter().for_each(|held| held.fill(1));
        blocks.iter().for_each(|held| held.assert_filled(1));
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut ours, mut mappings) = (false, 0);
        for line in all.lines() {
            let is_range = line.split(' ').next().is_some_and(|word| word.contains('-'));
            if is_range {
                ours = line.contains("memfd:tenfold");
                mappings += u32::from(ours);
            } else if ours && line.starts_with("VmFlags:") {
                assert!(line.split(' ').any(|flag| flag == "dd"), "{line}");
            }
        }
        assert!(mappings > 0);
    });
}

#[test]
fn the_census_tells_who_took_what() {
    alone(|heap| {
        let count = |slot: u32, kind: ObjectKind| heap.census().get(&(slot, kind.name())).copied().unwrap_or(0);
        let me = participant::me(heap).unwrap().slot();
        let bytes = count(me, ObjectKind::Bytes);
        let held = Held::take(heap, 100).unwrap();
        let event = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
        assert_eq!((count(me, ObjectKind::Bytes), count(me, ObjectKind::Event)), (bytes + 1, 1));
        in_child(|| {
            let child = participant::me(heap).unwrap().slot();
            assert_ne!(child, me);
            let before = count(child, ObjectKind::Bytes);
            let _held = Held::take(heap, 100).unwrap();
            assert_eq!(count(child, ObjectKind::Bytes), before + 1);
        })
        .succeeds();
        drop((held, event));
        // The child had a hold on the event too.
        crash::sweep(heap);
        assert_eq!((count(me, ObjectKind::Bytes), count(me, ObjectKind::Event)), (bytes, 0));
    });
}

// Fault 24.
#[test]
fn a_corrupt_message_is_an_error() {
    alone(|heap| {
        let event = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
        let cell = HeldCell::take(heap).unwrap();
        let seat = participant::seat(heap).unwrap();
        let outgoing = Outgoing { parts: &[&[1; 100]], handles: &[event] };
        let id = message::write(heap, seat, outgoing, cell.word()).unwrap();
        let block = heap.block(id).unwrap();
        for count in [20, 1000, u64::MAX, u64::MAX / 8] {
            block.word(heap, 0).unwrap().store(count, std::sync::atomic::Ordering::Relaxed);
            assert!(matches!(message::read_in_place(heap, id), Err(HeapError::Corrupt { .. })), "{count}");
        }
        block.word(heap, 0).unwrap().store(1, std::sync::atomic::Ordering::Relaxed);
        for handle in [3, 1 << 31, (7 << 32) | 1, u64::MAX] {
            let table = block.word(heap, 8).unwrap();
            let kept = table.swap(handle, std::sync::atomic::Ordering::Relaxed);
            assert!(message::read_in_place(heap, id).is_err(), "{handle:#x}");
            table.store(kept, std::sync::atomic::Ordering::Relaxed);
        }
        object::release(heap, seat, cell.word()).unwrap();
    });
}
