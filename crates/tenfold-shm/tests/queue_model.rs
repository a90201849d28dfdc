//! The queue against `VecDeque`, in random sequences of everything that does not block.

#[path = "support/crash.rs"]
mod crash;

use std::collections::VecDeque;

use crash::{Before, alone};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenfold_shm::Heap;
use tenfold_shm::message::Outgoing;
use tenfold_shm::participant::HeldCell;
use tenfold_shm::queue::{Queue, QueueError};
use tenfold_sys::clock::Deadline;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>),
    PutMany(Vec<Vec<u8>>),
    Get,
    GetMany(usize),
    Done,
    Close,
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..60),
        2 => prop::collection::vec(any::<u8>(), 57..400),
        1 => (any::<u8>(), 4000..20_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => message().prop_map(Step::Put),
        6 => prop::collection::vec(message(), 0..40).prop_map(Step::PutMany),
        25 => Just(Step::Get),
        6 => (0..50_usize).prop_map(Step::GetMany),
        10 => Just(Step::Done),
        1 => Just(Step::Close),
    ]
}

/// What the queue should do.
struct Model {
    messages: VecDeque<Vec<u8>>,
    capacity: usize,
    unfinished: usize,
    closed: bool,
}

impl Model {
    fn put(&mut self, message: &[u8]) -> Result<(), QueueError> {
        if self.closed {
            return Err(QueueError::Closed);
        }
        if self.messages.len() >= self.capacity {
            return Err(QueueError::Full);
        }
        self.messages.push_back(message.to_vec());
        self.unfinished += 1;
        Ok(())
    }

    fn get(&mut self) -> Result<Vec<u8>, QueueError> {
        let nothing = if self.closed { QueueError::Closed } else { QueueError::Empty };
        self.messages.pop_front().ok_or(nothing)
    }
}

fn now() -> Deadline {
    Deadline::after(std::time::Duration::ZERO)
}

fn run(heap: Heap, capacity: Option<u64>, steps: &[Step]) {
    let queue = Queue::create(heap, capacity).unwrap();
    let most = capacity.map_or(usize::MAX, |c| c as usize);
    let mut model = Model { messages: VecDeque::new(), capacity: most, unfinished: 0, closed: false };
    for step in steps {
        match step {
            Step::Put(bytes) => {
                let put = queue.try_put(Outgoing { parts: &[bytes], handles: &[] });
                assert_eq!(put, model.put(bytes));
            }
            Step::PutMany(many) => {
                let parts: Vec<[&[u8]; 1]> = many.iter().map(|bytes| [&bytes[..]]).collect();
                let outgoing: Vec<_> = parts.iter().map(|parts| Outgoing { parts, handles: &[] }).collect();
                let put = match queue.put_many(&outgoing, now()) {
                    Ok(()) => many.len(),
                    Err(error) => error.put,
                };
                let expected = many.iter().take_while(|bytes| model.put(bytes).is_ok()).count();
                assert_eq!(put, expected);
            }
            Step::Get => {
                let got = queue.try_get().map(|payload| payload.to_vec().unwrap());
                assert_eq!(got, model.get());
            }
            Step::GetMany(max) => {
                let got = queue
                    .get_many(*max, now())
                    .map_or_else(|_| Vec::new(), |all| all.iter().map(|payload| payload.to_vec().unwrap()).collect());
                let expected: Vec<_> = (0..*max).map_while(|_| model.get().ok()).collect();
                assert_eq!(got, expected);
            }
            Step::Done => {
                assert_eq!(queue.task_done().is_ok(), model.unfinished > 0);
                model.unfinished = model.unfinished.saturating_sub(1);
            }
            Step::Close => {
                queue.close().unwrap();
                model.closed = true;
            }
        }
        assert_eq!(queue.len(), model.messages.len() as u64);
        assert_eq!(queue.is_empty(), model.messages.is_empty());
        assert_eq!(queue.is_full(), model.messages.len() >= model.capacity);
        assert_eq!(queue.unfinished(), model.unfinished as u64);
        assert_eq!(queue.is_closed(), model.closed);
    }
}

#[test]
fn it_does_what_a_vec_deque_does() {
    alone(|heap| {
        // A process's ledger, once grown, stays.
        drop((0..500).map(|_| HeldCell::take(heap).unwrap()).collect::<Vec<_>>());
        let before = Before::of(heap);
        let capacity = prop_oneof![Just(None), (1..60_u64).prop_map(Some)];
        let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 200, ..Config::default() });
        runner
            .run(&(capacity, prop::collection::vec(step(), 1..200)), |(capacity, steps)| {
                run(heap, capacity, &steps);
                Ok(())
            })
            .unwrap();
        before.assert_unchanged();
    });
}
