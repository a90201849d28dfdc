//! Queues and pipes whose users are killed: at every point, in the middle of large messages, at random.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;
#[path = "support/words.rs"]
mod words;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crash::{Before, alone, in_child, kill_at, killed_at};
use tenfold_shm::connection::pipe;
use tenfold_shm::kill_point::KillPoint;
use tenfold_shm::message::{Outgoing, Payload};
use tenfold_shm::queue::{Doorbell, Queue, QueueError};
use tenfold_shm::{Handle, Heap, ObjectKind};
use tenfold_sys::clock::Deadline;
use tenfold_sys::poll::wait_readable;
use words::until;

const NEVER: Deadline = Deadline::never();
/// Messages of one run: enough for several segments.
const COUNT: u64 = 90;

/// Atomics that parent and children share, apart from the heap.
fn shared<A>(count: usize) -> &'static [A] {
    let length = count * size_of::<A>();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping of that many bytes, zero-filled, aligned, never unmapped; used for
    // atomics only.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        std::slice::from_raw_parts(base.cast(), count)
    }
}

/// Message number `n`: every third is long, every fifth has a handle.
fn put_number(queue: &Queue, held: &Handle, n: u64) -> Result<(), QueueError> {
    let padding = vec![n as u8; if n.is_multiple_of(3) { 300 } else { n as usize % 40 }];
    let handles = if n.is_multiple_of(5) { std::slice::from_ref(held) } else { &[] };
    queue.put(Outgoing { parts: &[&n.to_le_bytes(), &padding], handles }, NEVER)
}

/// The number of a message, whose content must be whole.
fn number(payload: &Payload) -> u64 {
    let bytes = payload.to_vec().unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes.len() - 8, if n.is_multiple_of(3) { 300 } else { n as usize % 40 });
    assert!(bytes[8..].iter().all(|byte| *byte == n as u8));
    assert_eq!(payload.handles().unwrap().len(), usize::from(n % 5 == 0));
    n
}

fn get_number(queue: &Queue) -> Result<u64, QueueError> {
    queue.get(NEVER).map(|payload| number(&payload))
}

fn event(heap: Heap) -> Handle {
    Handle::create(heap, ObjectKind::Event, 64, |_| Ok(())).unwrap()
}

/// Does something at every pass of a point: all of the first ones, then fewer and fewer.
fn at_all_passes(point: KillPoint, mut run: impl FnMut(u32) -> bool) {
    let (mut passes, mut kills) = (0, 0);
    while run(passes) {
        kills += 1;
        passes += 1 + passes / 4;
        assert!(passes < 100_000);
    }
    assert!(kills > 0, "{} was never reached", point.name());
}

/// Kills a producer; what it had put, and nothing else, is in the queue.
fn producer_killed(point: KillPoint) {
    alone(|heap| {
        let words = shared::<AtomicU64>(1);
        let before = Before::of(heap);
        at_all_passes(point, |passes| {
            let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
            words[0].store(0, SeqCst);
            let killed = killed_at(point, passes, || {
                for n in 0..COUNT {
                    put_number(&queue, &held, n).unwrap();
                    words[0].store(n + 1, SeqCst);
                }
            });
            let done = words[0].load(SeqCst);
            // The survivor goes on at once; it may be the one that finds the lock's owner dead.
            put_number(&queue, &held, COUNT).unwrap();
            let there = queue.len() - 1;
            assert!(there == done || there == done + 1, "{done} were put, {there} are there");
            (0..there).for_each(|n| assert_eq!(get_number(&queue).unwrap(), n));
            assert_eq!(get_number(&queue).unwrap(), COUNT);
            assert_eq!(queue.try_get().unwrap_err(), QueueError::Empty);
            drop((queue, held));
            before.assert_unchanged();
            killed
        });
    });
}

/// Kills a producer that puts many at a time; the queue holds a beginning of what it had.
fn producer_of_many_killed(point: KillPoint) {
    alone(|heap| {
        let before = Before::of(heap);
        at_all_passes(point, |passes| {
            let queue = Queue::create(heap, Some(COUNT * 2)).unwrap();
            let killed = killed_at(point, passes, || {
                let contents: Vec<Vec<u8>> =
                    (0..COUNT).map(|n| vec![n as u8; if n % 4 == 3 { 200 } else { 20 }]).collect();
                let parts: Vec<[&[u8]; 1]> = contents.iter().map(|content| [&content[..]]).collect();
                let messages: Vec<_> = parts.iter().map(|parts| Outgoing { parts, handles: &[] }).collect();
                queue.put_many(&messages, NEVER).unwrap();
            });
            queue.put(Outgoing { parts: &[&[255]], handles: &[] }, NEVER).unwrap();
            let all = queue.get_many(usize::MAX, NEVER).unwrap();
            let (last, rest) = all.split_last().unwrap();
            assert_eq!(last.to_vec().unwrap(), [255]);
            for (n, payload) in rest.iter().enumerate() {
                assert_eq!(payload.to_vec().unwrap(), vec![n as u8; if n % 4 == 3 { 200 } else { 20 }]);
            }
            drop(all);
            drop(queue);
            before.assert_unchanged();
            killed
        });
    });
}

/// Kills a consumer; it takes at most the message with it that it was taking.
fn consumer_killed(point: KillPoint) {
    alone(|heap| {
        let words = shared::<AtomicU64>(1);
        let before = Before::of(heap);
        at_all_passes(point, |passes| {
            let (queue, held) = (Queue::create(heap, Some(COUNT + 1)).unwrap(), event(heap));
            words[0].store(0, SeqCst);
            (0..COUNT).for_each(|n| put_number(&queue, &held, n).unwrap());
            let killed = killed_at(point, passes, || {
                for n in 0..COUNT {
                    assert_eq!(get_number(&queue).unwrap(), n);
                    words[0].store(n + 1, SeqCst);
                }
            });
            let done = words[0].load(SeqCst);
            put_number(&queue, &held, COUNT).unwrap();
            let mut next = get_number(&queue).unwrap();
            assert!(next == done || next == done + 1, "{done} were got, then came {next}");
            while next < COUNT {
                next += 1;
                assert_eq!(get_number(&queue).unwrap(), next);
            }
            assert_eq!(queue.try_get().unwrap_err(), QueueError::Empty);
            drop((queue, held));
            before.assert_unchanged();
            killed
        });
    });
}

/// Kills a consumer that gets many at a time; it takes at most the run with it that it was taking, and what is
/// left begins where that ended.
fn consumer_of_many_killed(point: KillPoint) {
    const RUN: u64 = 7;
    alone(|heap| {
        let words = shared::<AtomicU64>(1);
        let before = Before::of(heap);
        at_all_passes(point, |passes| {
            let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
            words[0].store(0, SeqCst);
            (0..COUNT).for_each(|n| put_number(&queue, &held, n).unwrap());
            let killed = killed_at(point, passes, || {
                let mut next = 0;
                while next < COUNT {
                    for payload in queue.get_many(RUN as usize, NEVER).unwrap() {
                        assert_eq!(number(&payload), next);
                        next += 1;
                    }
                    words[0].store(next, SeqCst);
                }
            });
            let done = words[0].load(SeqCst);
            put_number(&queue, &held, COUNT).unwrap();
            let first = get_number(&queue).unwrap();
            assert!((done..=done + RUN).contains(&first), "{done} were got, then came {first}");
            (first + 1..=COUNT).for_each(|n| assert_eq!(get_number(&queue).unwrap(), n));
            assert_eq!(queue.try_get().unwrap_err(), QueueError::Empty);
            drop((queue, held));
            before.assert_unchanged();
            killed
        });
    });
}

/// Kills a process that is the last one to hold a queue with all sorts of things in it.
fn last_holder_killed(point: KillPoint) {
    alone(|heap| {
        let before = Before::of(heap);
        at_all_passes(point, |passes| {
            let killed = killed_at(point, passes, || {
                let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
                let (here, there) = pipe(heap).unwrap();
                (0..COUNT).for_each(|n| put_number(&queue, &held, n).unwrap());
                (0..COUNT / 2).for_each(|n| assert_eq!(get_number(&queue).unwrap(), n));
                put_number(here.outgoing().unwrap(), &held, 3).unwrap();
                here.send(Outgoing { parts: &[], handles: std::slice::from_ref(queue.handle()) }).unwrap();
                drop((queue, held, there));
                drop(here);
            });
            before.assert_unchanged();
            killed
        });
    });
}

macro_rules! kills {
    ($($name:ident: $with:ident($point:ident);)*) => {
        $(#[test] fn $name() { $with(KillPoint::$point); })*
    };
}

kills! {
    a_producer_with_a_record_written: producer_killed(QueueSlotWritten);
    a_producer_that_has_committed: producer_killed(QueueCommitted);
    a_producer_with_a_fresh_segment: producer_killed(QueueSegmentTaken);
    a_producer_with_a_segment_linked: producer_killed(QueueSegmentLinked);
    a_producer_with_a_message_written: producer_killed(MessageWritten);
    a_producer_with_a_lock: producer_killed(LockTaken);
    a_producer_with_a_record_to_redo: producer_killed(RedoCommitted);
    a_producer_with_a_record_half_redone: producer_killed(RedoHalfApplied);
    a_producer_with_a_record_redone: producer_killed(RedoApplied);
    a_producer_of_many_with_a_record_written: producer_of_many_killed(QueueSlotWritten);
    a_producer_of_many_that_has_committed: producer_of_many_killed(QueueCommitted);
    a_producer_of_many_with_a_record_half_redone: producer_of_many_killed(RedoHalfApplied);
    a_consumer_that_has_taken: consumer_killed(QueueTaken);
    a_consumer_that_has_left_a_segment: consumer_killed(QueueSegmentLeft);
    a_consumer_with_a_lock: consumer_killed(LockTaken);
    a_consumer_with_a_record_to_redo: consumer_killed(RedoCommitted);
    a_consumer_with_a_record_half_redone: consumer_killed(RedoHalfApplied);
    a_consumer_with_a_record_redone: consumer_killed(RedoApplied);
    a_consumer_of_many_that_has_taken: consumer_of_many_killed(QueueTaken);
    a_consumer_of_many_with_a_lock: consumer_of_many_killed(LockTaken);
    a_consumer_of_many_with_a_record_half_redone: consumer_of_many_killed(RedoHalfApplied);
    a_last_holder_with_the_messages_freed: last_holder_killed(QueueEmptied);
    a_last_holder_that_has_closed: last_holder_killed(QueueClosed);
    a_last_holder_with_an_object_dying: last_holder_killed(ObjectDying);
    a_last_holder_with_a_message_half_dropped: last_holder_killed(MessageHandleDropped);
    a_last_holder_with_a_record_half_redone: last_holder_killed(RedoHalfApplied);
}

/// Forks one that waits for `wait`, and gives it time to fall asleep.
fn asleep(wait: impl FnOnce()) -> crash::Child {
    let child = in_child(wait);
    std::thread::sleep(Duration::from_millis(30));
    child
}

// Fault 9.
#[test]
fn a_producer_killed_before_it_rang_does_not_leave_a_consumer_asleep() {
    alone(|heap| {
        let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
        let consumer = asleep(|| assert_eq!(get_number(&queue).unwrap(), 7));
        kill_at(KillPoint::QueueCommitted, 0, || put_number(&queue, &held, 7).unwrap());
        crash::sweep(heap);
        consumer.succeeds();
    });
}

// Fault 10.
#[test]
fn a_consumer_killed_after_the_take_does_not_leave_a_producer_asleep() {
    alone(|heap| {
        let (queue, held) = (Queue::create(heap, Some(1)).unwrap(), event(heap));
        put_number(&queue, &held, 1).unwrap();
        let producer = asleep(|| put_number(&queue, &held, 2).unwrap());
        kill_at(KillPoint::QueueTaken, 0, || drop(get_number(&queue)));
        crash::sweep(heap);
        producer.succeeds();
        assert_eq!(get_number(&queue).unwrap(), 2);
    });
}

// Fault 8.
#[test]
fn a_consumer_killed_in_its_sleep_does_not_take_the_wake_of_another() {
    alone(|heap| {
        let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
        for round in 0..5 {
            // It is enlisted first, so the wake-up of the put could go to it.
            kill_at(KillPoint::QueueEnlisted, 0, || drop(get_number(&queue)));
            let first = asleep(|| drop(get_number(&queue)));
            let second = asleep(|| assert_eq!(get_number(&queue).unwrap(), round));
            first.kill();
            put_number(&queue, &held, round).unwrap();
            second.succeeds();
        }
    });
}

// Fault 8.
#[test]
fn a_consumer_killed_while_it_wakes_does_not_take_the_wake_with_it() {
    alone(|heap| {
        let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
        for round in 0..10 {
            let first = asleep(|| drop(get_number(&queue)));
            let second = asleep(|| drop(get_number(&queue)));
            first.signal(libc::SIGSTOP);
            // The wake-up goes to the first, which cannot act on it.
            put_number(&queue, &held, round).unwrap();
            first.kill();
            crash::sweep(heap);
            second.succeeds();
            assert!(queue.is_empty());
        }
    });
}

// Fault 9.
#[test]
fn a_producer_killed_while_it_rings_the_bell_is_heard_and_not_for_longer_than_there_is_a_message() {
    alone(|heap| {
        let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
        let bell = Doorbell::new(&queue).unwrap();
        let silent = || assert_eq!(wait_readable(&[bell.fd()], Deadline::after(Duration::from_millis(20))), Ok(vec![]));
        for point in [KillPoint::QueueRinging, KillPoint::QueueRung] {
            kill_at(point, 0, || put_number(&queue, &held, 7).unwrap());
            crash::sweep(heap);
            assert_eq!(wait_readable(&[bell.fd()], NEVER), Ok(vec![0]));
            assert_eq!(get_number(&queue).unwrap(), 7);
            bell.rearm().unwrap();
            silent();
            in_child(|| put_number(&queue, &held, 8).unwrap()).succeeds();
            assert_eq!(wait_readable(&[bell.fd()], NEVER), Ok(vec![0]));
            assert_eq!(get_number(&queue).unwrap(), 8);
            bell.rearm().unwrap();
        }
        // Nobody is called to an empty queue because somebody has died.
        kill_at(KillPoint::QueueTaken, 0, || {
            put_number(&queue, &held, 9).unwrap();
            drop(get_number(&queue));
        });
        bell.rearm().unwrap();
        crash::sweep(heap);
        silent();
    });
}

#[test]
fn one_killed_after_the_last_task_does_not_leave_a_joiner_asleep() {
    alone(|heap| {
        let (queue, held) = (Queue::create(heap, None).unwrap(), event(heap));
        put_number(&queue, &held, 1).unwrap();
        let joiner = asleep(|| queue.join(NEVER).unwrap());
        kill_at(KillPoint::QueueTaskDone, 0, || {
            get_number(&queue).unwrap();
            queue.task_done().unwrap();
        });
        crash::sweep(heap);
        joiner.succeeds();
        assert_eq!(queue.unfinished(), 0);
    });
}

#[test]
fn one_killed_after_the_closing_does_not_leave_anybody_asleep() {
    alone(|heap| {
        let queue = Queue::create(heap, None).unwrap();
        let consumers: Vec<_> =
            (0..3).map(|_| asleep(|| assert_eq!(get_number(&queue).unwrap_err(), QueueError::Closed))).collect();
        kill_at(KillPoint::QueueClosed, 0, || queue.close().unwrap());
        crash::sweep(heap);
        consumers.into_iter().for_each(|consumer| consumer.succeeds());
    });
}

#[test]
fn an_end_killed_while_it_closes_is_noticed() {
    alone(|heap| {
        let before = Before::of(heap);
        let (here, there) = pipe(heap).unwrap();
        let child = in_child(|| {
            // The child's holding of `here` would keep the parent's closing from being noticed.
            drop(here.clone());
            tenfold_shm::kill_point::arm(KillPoint::QueueClosed, 0);
            std::thread::sleep(Duration::from_millis(50));
            drop(there.clone());
            std::process::abort();
        });
        drop(there);
        let _ = child.wait();
        crash::sweep(heap);
        assert_eq!(here.receive(NEVER).unwrap_err(), QueueError::Closed);
        drop(here);
        before.assert_unchanged();
    });
}

// Fault 9.
#[test]
fn producers_killed_in_the_middle_of_fifty_megabytes() {
    alone(|heap| {
        const LENGTH: usize = 50 << 20;
        let before = Before::of(heap);
        let queue = Queue::create(heap, Some(2)).unwrap();
        let mut whole = 0;
        for round in 0..12_u8 {
            let child = in_child(|| {
                let content = vec![round; LENGTH];
                loop {
                    queue.put(Outgoing { parts: &[&content], handles: &[] }, NEVER).unwrap();
                }
            });
            let check = |payload: Payload| {
                assert!(payload.with(|bytes| bytes.len() == LENGTH && bytes.iter().all(|b| *b == round)).unwrap());
            };
            if round >= 6 {
                check(queue.get(NEVER).unwrap());
                whole += 1;
            }
            std::thread::sleep(Duration::from_millis(3 + 13 * u64::from(round % 6)));
            child.kill();
            crash::sweep(heap);
            while let Ok(payload) = queue.try_get() {
                whole += 1;
                check(payload);
            }
            assert!(queue.is_empty());
        }
        assert!(whole >= 6);
        drop(queue);
        before.assert_unchanged();
    });
}

// Faults 9, 10.
#[test]
fn random_kills_lose_and_double_nothing() {
    alone(|heap| {
        const PRODUCERS: usize = 3;
        const EACH: u64 = 1 << 23;
        let (acked, seen) = (shared::<AtomicU64>(PRODUCERS), shared::<AtomicU8>(PRODUCERS * EACH as usize));
        // How many children have begun: the slot of one that is killed before that stays claimed for ten seconds.
        let begun = &shared::<AtomicU64>(1)[0];
        let before = Before::of(heap);
        let (queue, held) = (Queue::create(heap, Some(100)).unwrap(), event(heap));
        let produce = |producer: usize| {
            let (queue, held) = (&queue, &held);
            in_child(move || {
                begun.fetch_add(1, SeqCst);
                // Goes on where its predecessor was killed. Whether the message after the last one that
                // was acknowledged had been put is not known: it is skipped.
                let first = acked[producer].load(SeqCst) + 1;
                acked[producer].store(first, SeqCst);
                for n in first..EACH {
                    put_number(queue, held, producer as u64 * EACH + n).unwrap();
                    acked[producer].store(n + 1, SeqCst);
                }
            })
        };
        let consume = || {
            in_child(|| {
                begun.fetch_add(1, SeqCst);
                loop {
                    match get_number(&queue) {
                        Ok(n) => assert_eq!(seen[n as usize].fetch_add(1, SeqCst), 0, "{n} came twice"),
                        Err(error) => return assert_eq!(error, QueueError::Closed),
                    }
                }
            })
        };
        let mut producers: Vec<_> = (0..PRODUCERS).map(|p| (p, produce(p))).collect();
        let mut consumers: Vec<_> = (0..3).map(|_| consume()).collect();
        let (mut skipped, mut consumers_killed) = (PRODUCERS as u64, 0);
        let end = Instant::now() + Duration::from_secs(4);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        // Longer on busy cores, where each takes its time to be killed and swept.
        while Instant::now() < end || consumers_killed <= 10 || skipped <= 10 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros(500 + (random >> 40) % 8000));
            until(|| begun.load(SeqCst) == 3 + skipped + consumers_killed);
            let which = (random >> 33) as usize % 3;
            if random >> 63 == 0 {
                let (number, producer) = producers.swap_remove(which);
                producer.kill();
                producers.push((number, produce(number)));
                skipped += 1;
            } else {
                consumers.swap_remove(which).kill();
                consumers.push(consume());
                consumers_killed += 1;
            }
            crash::sweep(heap);
        }
        for (_, producer) in producers {
            producer.kill();
            skipped += 1;
        }
        crash::sweep(heap);
        queue.close().unwrap();
        consumers.into_iter().for_each(|consumer| consumer.succeeds());
        let put: u64 = acked.iter().map(|a| a.load(SeqCst)).sum();
        let got = seen.iter().filter(|s| s.load(SeqCst) == 1).count() as u64;
        // Each killed producer leaves one message in doubt, each killed consumer takes one with it.
        assert!(got <= put + skipped && got + skipped + consumers_killed >= put, "{put} put, {got} got");
        assert!(got > 1000, "{got}");
        drop((queue, held));
        before.assert_unchanged();
    });
}
