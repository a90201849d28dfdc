//! The queue among processes: order, capacity, waiting, closing, large messages, handles.

#[path = "support/crash.rs"]
mod crash;

use std::sync::OnceLock;
use std::time::Duration;

use crash::{Before, alone, in_child};
use tenfold_shm::message::{Outgoing, Payload};
use tenfold_shm::participant::HeldCell;
use tenfold_shm::queue::{Doorbell, Queue, QueueError};
use tenfold_shm::{Handle, Heap, HeapError, ObjectKind};
use tenfold_sys::clock::Deadline;
use tenfold_sys::interrupt;
use tenfold_sys::poll::wait_readable;

const NEVER: Deadline = Deadline::never();

fn bytes<'a>(parts: &'a [&'a [u8]]) -> Outgoing<'a> {
    Outgoing { parts, handles: &[] }
}

fn put(queue: &Queue, number: u64) {
    queue.put(bytes(&[&number.to_le_bytes()]), NEVER).unwrap();
}

fn number(payload: &Payload) -> u64 {
    payload.with(|b| u64::from_le_bytes(b[..8].try_into().unwrap())).unwrap()
}

fn get(queue: &Queue) -> u64 {
    number(&queue.get(NEVER).unwrap())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(30))
}

fn queue(heap: Heap) -> Queue {
    Queue::create(heap, None).unwrap()
}

#[test]
fn messages_of_all_lengths_arrive_in_order() {
    alone(|heap| {
        let before = Before::of(heap);
        let queue = queue(heap);
        let lengths: Vec<usize> = (0..200).chain([1000, 4096, 100_000, 1 << 20, (1 << 20) + 1, 3 << 20]).collect();
        for (index, len) in lengths.iter().enumerate() {
            let content = vec![index as u8; *len];
            let (left, right) = content.split_at(len / 3);
            queue.put(bytes(&[left, right]), NEVER).unwrap();
        }
        assert_eq!(queue.len(), lengths.len() as u64);
        for (index, len) in lengths.iter().enumerate() {
            let payload = queue.get(NEVER).unwrap();
            assert_eq!(payload.len(), *len);
            assert_eq!(payload.to_vec().unwrap(), vec![index as u8; *len]);
        }
        assert_eq!(queue.try_get().unwrap_err(), QueueError::Empty);
        drop(queue);
        before.assert_unchanged();
    });
}

#[test]
fn what_is_left_in_a_queue_goes_with_it() {
    alone(|heap| {
        let before = Before::of(heap);
        let (outer, inner) = (queue(heap), queue(heap));
        for n in 0..5000_u64 {
            put(&inner, n);
            inner.put(bytes(&[&[1; 100]]), NEVER).unwrap();
        }
        outer.put(Outgoing { parts: &[b"q"], handles: std::slice::from_ref(inner.handle()) }, NEVER).unwrap();
        for _ in 0..700 {
            inner.get(NEVER).unwrap();
        }
        drop(inner);
        drop(outer);
        before.assert_unchanged();
    });
}

#[test]
fn a_child_sends_to_its_parent() {
    alone(|heap| {
        let queue = queue(heap);
        let child = in_child(|| (0..100_000).for_each(|n| put(&queue, n)));
        (0..100_000).for_each(|n| assert_eq!(get(&queue), n));
        child.succeeds();
        assert!(queue.is_empty());
    });
}

#[test]
fn nothing_is_lost_or_seen_twice_among_many() {
    alone(|heap| {
        const EACH: u64 = 20_000;
        for capacity in [None, Some(1), Some(7), Some(1000)] {
            let (work, results) = (Queue::create(heap, capacity).unwrap(), queue(heap));
            let each = if capacity == Some(1) { EACH / 10 } else { EACH };
            let producers: Vec<_> =
                (0..3).map(|p| in_child(|| (0..each).for_each(|n| put(&work, p * each + n)))).collect();
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    in_child(|| {
                        let mut last = [None; 3];
                        loop {
                            match work.get(NEVER) {
                                Ok(message) => {
                                    let n = number(&message);
                                    let from = (n / each) as usize;
                                    assert!(last[from] < Some(n), "a producer's messages overtake each other");
                                    last[from] = Some(n);
                                    put(&results, n);
                                }
                                Err(QueueError::Closed) => return,
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            producers.into_iter().for_each(|p| p.succeeds());
            work.close().unwrap();
            consumers.into_iter().for_each(|c| c.succeeds());
            let mut all: Vec<u64> = results.get_many(usize::MAX, NEVER).unwrap().iter().map(number).collect();
            all.sort_unstable();
            assert_eq!(all, (0..3 * each).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_full_queue_makes_wait() {
    alone(|heap| {
        let queue = Queue::create(heap, Some(2)).unwrap();
        assert_eq!(queue.capacity(), Some(2));
        put(&queue, 1);
        assert!(!queue.is_full());
        put(&queue, 2);
        assert!(queue.is_full());
        assert_eq!(queue.try_put(bytes(&[b"x"])), Err(QueueError::Full));
        assert_eq!(queue.try_put(bytes(&[&[0; 1000]])), Err(QueueError::Full));
        assert_eq!(queue.put(bytes(&[b"x"]), soon()), Err(QueueError::TimedOut));
        assert_eq!(queue.put(bytes(&[&[0; 1000]]), soon()), Err(QueueError::TimedOut));
        let child = in_child(|| {
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(get(&queue), 1);
        });
        put(&queue, 3);
        child.succeeds();
        assert_eq!((get(&queue), get(&queue)), (2, 3));
        assert!(queue.try_get().is_err());
    });
}

#[test]
fn an_empty_queue_makes_wait() {
    alone(|heap| {
        let queue = queue(heap);
        assert_eq!(queue.try_get().unwrap_err(), QueueError::Empty);
        assert_eq!(queue.get(soon()).unwrap_err(), QueueError::TimedOut);
        assert_eq!(queue.wait_message(soon()), Err(QueueError::TimedOut));
        let child = in_child(|| {
            std::thread::sleep(Duration::from_millis(50));
            put(&queue, 7);
        });
        queue.wait_message(NEVER).unwrap();
        assert_eq!(get(&queue), 7);
        child.succeeds();
    });
}

#[test]
fn one_who_only_looks_does_not_swallow_the_wake_of_another() {
    alone(|heap| {
        let (queue, ready) = (queue(heap), queue(heap));
        let looker = in_child(|| {
            put(&ready, 0);
            // The getter may be quicker: then there is nothing to see.
            let _ = queue.wait_message(Deadline::after(Duration::from_millis(500)));
            // Stays alive without taking the message.
            std::thread::sleep(Duration::from_millis(200));
        });
        get(&ready);
        std::thread::sleep(Duration::from_millis(20));
        let getter = in_child(|| assert_eq!(get(&queue), 5));
        std::thread::sleep(Duration::from_millis(30));
        put(&queue, 5);
        getter.succeeds();
        // The getter may have been so quick that there was nothing left to look at.
        put(&queue, 6);
        looker.succeeds();
    });
}

#[test]
fn a_closed_queue_is_drained_and_then_fails() {
    alone(|heap| {
        let queue = Queue::create(heap, Some(2)).unwrap();
        put(&queue, 1);
        put(&queue, 2);
        let producer = in_child(|| assert_eq!(queue.put(bytes(&[b"x"]), NEVER), Err(QueueError::Closed)));
        std::thread::sleep(Duration::from_millis(30));
        queue.close().unwrap();
        queue.close().unwrap();
        producer.succeeds();
        assert_eq!(queue.try_put(bytes(&[&[0; 100]])), Err(QueueError::Closed));
        assert_eq!((get(&queue), get(&queue)), (1, 2));
        assert_eq!(queue.try_get().unwrap_err(), QueueError::Closed);
        assert_eq!(queue.get(NEVER).unwrap_err(), QueueError::Closed);
        assert_eq!(queue.get_many(3, NEVER).unwrap_err(), QueueError::Closed);
        assert!(queue.is_closed());

        let queue = self::queue(heap);
        let consumers: Vec<_> =
            (0..3).map(|_| in_child(|| assert_eq!(queue.get(NEVER).unwrap_err(), QueueError::Closed))).collect();
        std::thread::sleep(Duration::from_millis(30));
        queue.close().unwrap();
        consumers.into_iter().for_each(|c| c.succeeds());
    });
}

#[test]
fn many_at_once_keep_their_order() {
    alone(|heap| {
        // A process's ledger, once grown, stays.
        drop((0..500).map(|_| HeldCell::take(heap).unwrap()).collect::<Vec<_>>());
        let before = Before::of(heap);
        let queue = Queue::create(heap, Some(1000)).unwrap();
        let long = vec![9_u8; 3000];
        let numbers: Vec<[u8; 8]> = (0..5000_u64).map(u64::to_le_bytes).collect();
        // Long and short ones in changing patterns.
        let parts: Vec<Vec<&[u8]>> = numbers
            .iter()
            .enumerate()
            .map(|(n, b)| if n % 7 < n % 5 { vec![&b[..], &long[..]] } else { vec![&b[..]] })
            .collect();
        let messages: Vec<Outgoing<'_>> = parts.iter().map(|parts| bytes(parts)).collect();
        let child = in_child(|| queue.put_many(&messages, NEVER).unwrap());
        let mut got = Vec::new();
        while got.len() < messages.len() {
            let some = queue.get_many(333, NEVER).unwrap();
            assert!(!some.is_empty() && some.len() <= 333);
            got.extend(some.iter().map(|p| (number(p), p.len())));
        }
        child.succeeds();
        let expected: Vec<_> = messages.iter().enumerate().map(|(n, m)| (n as u64, m.len())).collect();
        assert_eq!(got, expected);
        assert!(queue.get_many(0, NEVER).unwrap().is_empty());

        let error = queue.put_many(&messages, soon()).unwrap_err();
        assert_eq!((error.put, error.error), (1000, QueueError::TimedOut));
        assert_eq!(queue.get_many(2000, NEVER).unwrap().len(), 1000);
        queue.close().unwrap();
        let error = queue.put_many(&messages, soon()).unwrap_err();
        assert_eq!((error.put, error.error), (0, QueueError::Closed));
        drop(queue);
        before.assert_unchanged();
    });
}

#[test]
fn tasks_are_unfinished_until_they_are_done() {
    alone(|heap| {
        let queue = queue(heap);
        assert_eq!(queue.task_done(), Err(QueueError::TooManyDone));
        queue.join(NEVER).unwrap();
        (0..100).for_each(|n| put(&queue, n));
        assert_eq!(queue.unfinished(), 100);
        assert_eq!(queue.join(soon()), Err(QueueError::TimedOut));
        let child = in_child(|| {
            for _ in 0..100 {
                get(&queue);
                std::thread::sleep(Duration::from_micros(200));
                queue.task_done().unwrap();
            }
        });
        queue.join(NEVER).unwrap();
        assert!(queue.is_empty());
        assert_eq!(queue.unfinished(), 0);
        assert_eq!(queue.task_done(), Err(QueueError::TooManyDone));
        child.succeeds();
    });
}

#[test]
fn a_message_keeps_alive_what_it_refers_to() {
    alone(|heap| {
        let before = Before::of(heap);
        let outer = queue(heap);
        let child = in_child(|| {
            let inner = queue(heap);
            put(&inner, 11);
            let lock = Handle::create(heap, ObjectKind::Event, 64, |_| Ok(())).unwrap();
            outer.put(Outgoing { parts: &[b"two"], handles: &[inner.handle().clone(), lock] }, NEVER).unwrap();
        });
        child.succeeds();
        crash::sweep(heap);
        let message = outer.get(NEVER).unwrap();
        assert_eq!(message.to_vec().unwrap(), b"two");
        let handles = message.handles().unwrap();
        drop(message);
        let wrong = Queue::from_handle(handles[1].clone());
        assert!(matches!(wrong, Err(HeapError::WrongKind { .. })), "{wrong:?}");
        let inner = Queue::from_handle(handles[0].clone()).unwrap();
        assert_eq!(get(&inner), 11);
        drop((inner, handles, outer));
        before.assert_unchanged();
    });
}

#[test]
fn a_message_of_a_gibibyte_passes() {
    alone(|heap| {
        let queue = queue(heap);
        let mut content = vec![0_u8; 1 << 30];
        for (n, chunk) in content.chunks_mut(4096).enumerate() {
            chunk[..8].copy_from_slice(&(n as u64).to_le_bytes());
        }
        queue.put(bytes(&[&content]), NEVER).unwrap();
        let payload = queue.get(NEVER).unwrap();
        assert!(payload.to_vec().unwrap() == content);
    });
}

#[test]
fn a_queue_without_memory_says_so_and_stays_whole() {
    alone(|heap| {
        let queue = queue(heap);
        put(&queue, 1);
        heap.set_limit(heap.stats().committed_bytes + (2 << 20));
        let error = queue.put(bytes(&[&vec![0; 64 << 20]]), NEVER).unwrap_err();
        assert!(matches!(error, QueueError::Heap(HeapError::OutOfMemory { .. })), "{error}");
        // Short messages need segments.
        let mut put = 1;
        while queue.put(bytes(&[&u64::to_le_bytes(put + 1)]), NEVER).is_ok() {
            put += 1;
        }
        assert_eq!(queue.len(), put);
        (1..=put).for_each(|n| assert_eq!(get(&queue), n));
        assert_eq!(queue.try_get().unwrap_err(), QueueError::Empty);
    });
}

#[test]
fn threads_of_one_process_share_a_queue() {
    alone(|heap| {
        let queue = Queue::create(heap, Some(64)).unwrap();
        std::thread::scope(|scope| {
            for t in 0..4 {
                let queue = queue.clone();
                scope.spawn(move || (0..5000).for_each(|n| put(&queue, t * 5000 + n)));
            }
            let gets: Vec<_> = (0..4)
                .map(|_| {
                    let queue = queue.clone();
                    scope.spawn(move || (0..5000).map(|_| get(&queue)).collect::<Vec<_>>())
                })
                .collect();
            let mut all: Vec<u64> = gets.into_iter().flat_map(|g| g.join().unwrap()).collect();
            all.sort_unstable();
            assert_eq!(all, (0..20_000).collect::<Vec<_>>());
        });
    });
}

fn readable(bell: &Doorbell, deadline: Deadline) -> bool {
    !wait_readable(&[bell.fd()], deadline).unwrap().is_empty()
}

#[test]
fn a_doorbell_is_readable_while_there_are_messages() {
    alone(|heap| {
        let queue = queue(heap);
        let bell = Doorbell::new(&queue).unwrap();
        assert!(!readable(&bell, soon()));
        for round in 0..20 {
            let child = in_child(|| {
                assert!(!bell.is_ours());
                put(&queue, round);
                put(&queue, round + 1);
            });
            assert!(readable(&bell, NEVER));
            child.succeeds();
            assert_eq!(get(&queue), round);
            bell.rearm().unwrap();
            assert!(readable(&bell, NEVER), "there is one more");
            assert_eq!(get(&queue), round + 1);
            bell.rearm().unwrap();
            assert!(!readable(&bell, Deadline::after(Duration::ZERO)));
        }
        put(&queue, 1);
        let second = Doorbell::new(&queue).unwrap();
        assert!(readable(&second, NEVER) && readable(&bell, NEVER));
        get(&queue);
        second.rearm().unwrap();
        drop(bell);
        queue.close().unwrap();
        assert!(readable(&second, NEVER), "the end is worth a look");
    });
}

#[test]
fn a_sole_consumer_may_rely_on_its_doorbell() {
    alone(|heap| {
        let (queue, back) = (queue(heap), queue(heap));
        let bell = Doorbell::new(&queue).unwrap();
        let child = in_child(|| {
            for round in 0..10_000 {
                put(&queue, round);
                // Now and then the consumer is ahead, now and then behind.
                if round % 3 == 0 {
                    get(&back);
                }
            }
        });
        for round in 0..10_000 {
            bell.rearm().unwrap();
            assert!(readable(&bell, NEVER));
            assert_eq!(queue.try_get().map(|payload| number(&payload)), Ok(round));
            if round % 3 == 0 {
                put(&back, round);
            }
        }
        child.succeeds();
    });
}

#[test]
fn doorbells_of_the_dead_make_room() {
    alone(|heap| {
        let queue = queue(heap);
        let bells: Vec<_> = (0..15).map(|_| Doorbell::new(&queue).unwrap()).collect();
        for _ in 0..3 {
            in_child(|| std::mem::forget(Doorbell::new(&queue).unwrap())).succeeds();
            crash::sweep(heap);
        }
        let last = Doorbell::new(&queue).unwrap();
        assert!(matches!(Doorbell::new(&queue), Err(HeapError::Os { .. })));
        put(&queue, 1);
        assert!(readable(&last, NEVER));
        assert!(bells.iter().all(|bell| readable(bell, NEVER)));
    });
}

/// The queue that a listener changes.
static HEARD: OnceLock<Queue> = OnceLock::new();

fn put_one_and_give_up() -> bool {
    put(HEARD.get().unwrap(), 1);
    true
}

fn take_one_and_give_up() -> bool {
    get(HEARD.get().unwrap());
    true
}

/// One way to take a message out of a queue, or to wait for one.
type Take = fn(&Queue, Deadline) -> Result<(), QueueError>;

#[test]
fn nothing_is_taken_for_a_caller_that_has_given_up() {
    alone(|heap| {
        let queue = HEARD.get_or_init(|| queue(heap));
        let long = Deadline::after(Duration::from_secs(1000));
        let gets: [Take; 3] = [
            |queue, until| queue.get(until).map(drop),
            |queue, until| queue.get_many(9, until).map(drop),
            |queue, until| queue.wait_message(until),
        ];
        for take in gets {
            assert_eq!(interrupt::listen(put_one_and_give_up, || take(queue, long)), Err(QueueError::TimedOut));
            assert_eq!(queue.len(), 1, "the message is still there");
            get(queue);
        }
    });
}

#[test]
fn nothing_is_put_for_a_caller_that_has_given_up() {
    alone(|heap| {
        let queue = HEARD.get_or_init(|| Queue::create(heap, Some(1)).unwrap());
        let long = Deadline::after(Duration::from_secs(1000));
        for content in [&[7; 8][..], &[7; 5000]] {
            put(queue, 1);
            let failed = interrupt::listen(take_one_and_give_up, || queue.put(bytes(&[content]), long));
            assert_eq!(failed, Err(QueueError::TimedOut));
            assert!(queue.is_empty());
        }
    });
}
