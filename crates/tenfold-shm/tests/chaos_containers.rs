//! Kills at every point of Dict and List, and at every point of the core that they pass: afterwards an
//! operation has happened whole or not at all, and nothing is left over.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;
#[path = "support/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crash::{Before, KILLED, alone, in_child};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenfold_shm::Heap;
use tenfold_shm::dict::Dict;
use tenfold_shm::kill_point::{self, KillPoint};
use tenfold_shm::list::List;
use tenfold_shm::participant;
use tenfold_sys::process::ExitStatus;
use world::{Model, Op, World, plain};

/// Does `op` in a child that is killed at `point`; says whether it got there. The child is swept at
/// once, since we know how it ended.
fn killed(heap: Heap, world: &World, op: &Op, point: KillPoint, passes: u32) -> bool {
    let child = in_child(|| {
        kill_point::arm(point, passes);
        world.apply(op);
        kill_point::disarm();
    });
    let pid = child.pid();
    let status = child.wait();
    for slot in 0..tenfold_shm::heap::SLOTS {
        if participant::roster(slot, heap).pid() == pid {
            participant::sweep(heap, slot, Some(status));
        }
    }
    match status {
        KILLED => true,
        ExitStatus::Exited(0) => false,
        other => panic!("{op:?} at {} after {passes} passes: the child ended with {other:?}", point.name()),
    }
}

/// Kills each operation at each passage of `point`.
fn survives(point: KillPoint) {
    alone(|heap| {
        // What is made once, and kept.
        World::new(heap, &Model::sample(40));
        let before = Before::of(heap);
        let mut kills = 0;
        for op in Op::all() {
            let start = Model::sample(op.size());
            let states = start.states(&op);
            let mut passes = 0;
            loop {
                let world = World::new(heap, &start);
                let was_killed = killed(heap, &world, &op, point, passes);
                let found = world.contents();
                let place = || format!("{op:?} killed at {} after {passes} passes", point.name());
                if was_killed {
                    kills += 1;
                    assert!(states.contains(&found), "{}: {found:?}", place());
                } else {
                    assert_eq!(Some(&found), states.last(), "{}", place());
                }
                world.still_works();
                assert_eq!(world.contents(), found, "{}", place());
                drop(world);
                before.assert_unchanged();
                if !was_killed {
                    break;
                }
                // Of hundreds of passages in one operation, some will do.
                passes += 1 + passes / 6;
            }
        }
        assert!(kills > 0, "{} was never reached", point.name());
        println!("{}: {kills} kills", point.name());
    });
}

macro_rules! kills {
    ($($name:ident: $point:ident,)*) => {
        $(#[test] fn $name() { survives(KillPoint::$point); })*
    };
}

kills! {
    killed_with_a_lock_taken: LockTaken,
    killed_with_a_record_written: RedoWritten,
    killed_with_a_record_committed: RedoCommitted,
    killed_with_a_record_half_applied: RedoHalfApplied,
    killed_with_a_record_applied: RedoApplied,
    killed_with_a_record_cleared: RedoCleared,
    killed_with_a_lock_released: LockReleased,
    killed_with_a_block_taken: HeapTaken,
    killed_with_an_object_built: ObjectBuilt,
    killed_with_an_object_dying: ObjectDying,
    killed_with_a_message_written: MessageWritten,
    killed_with_a_handle_dropped: MessageHandleDropped,
    killed_with_a_segment_taken: SpineSegmentTaken,
    killed_with_an_item_freed: SpineItemFreed,
    killed_with_an_entry_built: DictEntryBuilt,
    killed_with_an_entry_replaced: DictEntryReplaced,
    killed_with_an_entry_removed: DictEntryRemoved,
    killed_with_many_half_inserted: DictManyHalf,
    killed_with_a_dict_cleared: DictCleared,
    killed_with_an_index_built: DictIndexBuilt,
    killed_with_an_index_published: DictIndexPublished,
    killed_with_an_item_built: ListItemBuilt,
    killed_with_an_item_removed: ListItemRemoved,
    killed_with_many_items_copied: ListManyCopied,
    killed_with_a_spine_built: ListSpineBuilt,
    killed_with_a_spine_published: ListSpinePublished,
}

#[test]
fn survivors_need_no_sweep_to_go_on() {
    alone(|heap| {
        for (point, op) in [
            (KillPoint::LockTaken, Op::Insert(1)),
            (KillPoint::RedoCommitted, Op::Push(1)),
            (KillPoint::DictIndexBuilt, Op::InsertMany(100)),
            (KillPoint::ListSpineBuilt, Op::Reverse),
        ] {
            let start = Model::sample(20);
            let world = World::new(heap, &start);
            crash::kill_at(point, 0, || world.apply(&op));
            // The dead one's locks are found held, and recovered, by whoever wants them next.
            world.still_works();
            assert!(start.states(&op).contains(&world.contents()));
        }
    });
}

#[test]
fn a_large_dict_whose_dismantling_is_killed_is_freed_in_the_end() {
    alone(|heap| {
        World::new(heap, &Model::sample(40));
        let before = Before::of(heap);
        for passes in [0, 1, 1000, 150_000] {
            crash::kill_at(KillPoint::SpineItemFreed, passes, || {
                let dict = Dict::create(heap).unwrap();
                for key in 0..200_000_u64 {
                    dict.insert(&key.to_le_bytes(), plain(&[b"value"])).unwrap();
                }
                drop(dict);
            });
            before.assert_unchanged();
        }
    });
}

#[test]
fn random_operations_and_kills_leave_what_a_model_leaves() {
    alone(|heap| {
        World::new(heap, &Model::sample(40));
        let before = Before::of(heap);
        let mut runner =
            TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::with_source_file(file!()) });
        let kill = prop_oneof![
            2 => Just(None),
            1 => (0..kill_point::ALL.len(), 0..40_u32).prop_map(|(point, passes)| Some((kill_point::ALL[point], passes))),
        ];
        let steps = proptest::collection::vec((Op::any(), kill), 1..60);
        runner
            .run(&(0..30_u64, steps), |(size, steps)| {
                let mut model = Model::sample(size);
                let world = World::new(heap, &model);
                for (op, kill) in steps {
                    let states = model.states(&op);
                    let was_killed = match kill {
                        Some((point, passes)) => killed(heap, &world, &op, point, passes),
                        None => {
                            world.apply(&op);
                            false
                        }
                    };
                    let found = world.contents();
                    if was_killed {
                        prop_assert!(states.contains(&found), "{:?} killed at {:?}: {:?}", op, kill, found);
                    } else {
                        prop_assert_eq!(Some(&found), states.last(), "{:?}", op);
                    }
                    model = found;
                }
                drop(world);
                before.assert_unchanged();
                Ok(())
            })
            .unwrap();
    });
}

/// What a writer of the soak has done, in memory that outlives it.
struct Progress {
    /// Steps that are certainly done.
    done: &'static AtomicU64,
}

/// Words that forked processes share, beside the heap.
fn shared_words(count: usize) -> &'static [AtomicU64] {
    // SAFETY: a fresh anonymous mapping; the result is checked.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            count * 8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(base, libc::MAP_FAILED);
    // SAFETY: mapped above, zeroed, page-aligned, never unmapped.
    unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), count) }
}

fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    number ^ number >> 29
}

/// One step of writer `who`: it works on keys of its own, on a counter that all share, and on the list.
fn step(dict: &Dict, list: &List, who: u64, number: u64) {
    let key = ((who << 32) | (mix(number) % 500)).to_le_bytes();
    match mix(number ^ who) % 8 {
        0..=2 => {
            dict.insert(&key, plain(&[&number.to_le_bytes()])).unwrap();
        }
        3 => {
            dict.remove(&key).unwrap();
        }
        4..=5 => loop {
            let (stamp, old) = dict.get_stamped(b"counter").unwrap();
            let count = old.map_or(0, |old| u64::from_le_bytes(old.bytes.try_into().unwrap())) + 1;
            if dict.insert_if(b"counter", plain(&[&count.to_le_bytes()]), stamp).unwrap() {
                break;
            }
        },
        6 => list.push(plain(&[&(who << 32 | number).to_le_bytes()])).unwrap(),
        _ if who == 0 && number.is_multiple_of(16) => list.sort_by(|a, b| a.bytes.cmp(&b.bytes)).unwrap(),
        _ => list.reverse().unwrap(),
    }
}

/// What the steps of one writer should have left.
#[derive(Default, Clone)]
struct Expected {
    keys: std::collections::HashMap<u64, u64>,
    counted: u64,
    pushed: Vec<u64>,
}

impl Expected {
    fn step(&mut self, who: u64, number: u64) {
        let key = (who << 32) | (mix(number) % 500);
        match mix(number ^ who) % 8 {
            0..=2 => drop(self.keys.insert(key, number)),
            3 => drop(self.keys.remove(&key)),
            4..=5 => self.counted += 1,
            6 => self.pushed.push(who << 32 | number),
            _ => {}
        }
    }
}

#[test]
fn writers_that_are_killed_at_random_lose_and_repeat_nothing() {
    alone(|heap| {
        World::new(heap, &Model::sample(40));
        let before = Before::of(heap);
        let seconds = std::env::var("TENFOLD_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
        const WRITERS: u64 = 4;
        let (dict, list) = (Dict::create(heap).unwrap(), List::create(heap).unwrap());
        let words = shared_words(WRITERS as usize);
        let progress: Vec<Progress> = words.iter().map(|done| Progress { done }).collect();
        let mut expected = vec![Expected::default(); WRITERS as usize];
        let mut replayed = vec![0; WRITERS as usize];
        // Steps of which nobody knows whether they are done, since the writer died in them.
        let mut unsure: Vec<(u64, u64)> = Vec::new();
        let start = |who: u64, from: u64| {
            // A writer that dies before its first step is done leaves that one unsure.
            words[who as usize].store(from, Ordering::Release);
            in_child(|| {
                for number in from.. {
                    step(&dict, &list, who, number);
                    words[who as usize].store(number + 1, Ordering::Release);
                }
            })
        };
        let mut children: Vec<_> = (0..WRITERS).map(|who| Some(start(who, 0))).collect();
        let (end, mut kills) = (Instant::now() + Duration::from_secs(seconds), 0_u64);
        while Instant::now() < end || children.iter().any(Option::is_some) {
            let who = mix(kills ^ 0x5eed) % WRITERS;
            std::thread::sleep(Duration::from_micros(300 + mix(kills) % 6000));
            let over = Instant::now() >= end;
            for at in 0..WRITERS {
                if at != who && !over {
                    continue;
                }
                let Some(child) = children[at as usize].take() else { continue };
                let pid = child.pid();
                child.kill();
                kills += 1;
                // Found dead by the others, or swept here, half of the times each.
                if kills % 2 == 0 {
                    for slot in 0..tenfold_shm::heap::SLOTS {
                        if participant::roster(slot, heap).pid() == pid {
                            participant::sweep(heap, slot, Some(KILLED));
                        }
                    }
                }
                let done = progress[at as usize].done.load(Ordering::Acquire);
                for number in replayed[at as usize]..done {
                    expected[at as usize].step(at, number);
                }
                // The step it died in is left out from now on.
                unsure.push((at, done));
                replayed[at as usize] = done + 1;
                if !over {
                    children[at as usize] = Some(start(at, done + 1));
                }
            }
        }
        crash::sweep(heap);
        check_soak(&dict, &list, &expected, &unsure);
        let steps: u64 = replayed.iter().sum();
        println!("soak: {steps} steps, {kills} kills, {} keys, {} items", dict.len(), list.len());
        drop((dict, list));
        before.assert_unchanged();
    });
}

fn check_soak(dict: &Dict, list: &List, expected: &[Expected], unsure: &[(u64, u64)]) {
    let items = dict.items().unwrap();
    assert_eq!(items.len() as u64, dict.len());
    let mut found: std::collections::HashMap<u64, u64> = Default::default();
    let mut counter = 0;
    for (key, value) in items {
        let value = u64::from_le_bytes(value.bytes.try_into().unwrap());
        match <[u8; 8]>::try_from(key) {
            Ok(key) => assert_eq!(found.insert(u64::from_le_bytes(key), value), None),
            Err(_) => counter = value,
        }
    }
    // An unsure step may have changed its one key; any other key is as the model says.
    let doubtful: std::collections::HashSet<u64> =
        unsure.iter().map(|(who, number)| (who << 32) | (mix(*number) % 500)).collect();
    let sure: u64 = expected.iter().map(|e| e.counted).sum();
    assert!(counter >= sure && counter <= sure + unsure.len() as u64, "{counter} of {sure}");
    for (who, expected) in (0..).zip(expected) {
        for (key, value) in &expected.keys {
            assert!(found.get(key) == Some(value) || doubtful.contains(key), "writer {who}, key {key:#x}");
        }
    }
    for key in found.keys() {
        assert!(expected.iter().any(|e| e.keys.contains_key(key)) || doubtful.contains(key), "key {key:#x}");
    }
    let mut pushed: Vec<u64> =
        list.to_vec().unwrap().into_iter().map(|item| u64::from_le_bytes(item.bytes.try_into().unwrap())).collect();
    pushed.sort_unstable();
    assert!(pushed.windows(2).all(|pair| pair[0] != pair[1]), "an item is there twice");
    let mut certain: Vec<u64> = expected.iter().flat_map(|e| e.pushed.clone()).collect();
    certain.sort_unstable();
    assert!(certain.iter().all(|item| pushed.binary_search(item).is_ok()), "an item is lost");
    for item in &pushed {
        let known = certain.binary_search(item).is_ok() || unsure.contains(&(item >> 32, item & 0xffff_ffff));
        assert!(known, "an item that nobody pushed: {item:#x}");
    }
}
