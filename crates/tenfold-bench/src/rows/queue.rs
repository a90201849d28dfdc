//! How many 64-bit numbers a second go through a queue.
//!
//! A consumer looks at the clock after its first and after its last message; the rate is that of all
//! messages in the time from the earliest first to the latest last.

use std::collections::VecDeque;
use std::thread;

use tenfold::{Process, Queue};

use super::ipc::{self, Ends};
use super::{Failure, Row, Unit};
use crate::cell::Cell;
use crate::clock::now;

pub(crate) const ONE_TO_ONE: Row = Row {
    name: "queue-1-1",
    title: "queue of u64, 1 producer, 1 consumer",
    unit: Unit::PerSecond,
    cells: &[
        Cell { system: "tenfold", measure: || tenfold(1) },
        Cell { system: "tenfold, 64 at a time", measure: tenfold_many },
        Cell { system: "crossbeam-channel (threads)", measure: || crossbeam(1) },
        Cell { system: "ipc-channel", measure: || ipc_channel(1) },
    ],
};

pub(crate) const FOUR_TO_FOUR: Row = Row {
    name: "queue-4-4",
    title: "queue of u64, 4 producers, 4 consumers",
    unit: Unit::PerSecond,
    cells: &[
        Cell { system: "tenfold", measure: || tenfold(4) },
        Cell { system: "crossbeam-channel (threads)", measure: || crossbeam(4) },
        Cell { system: "ipc-channel (4 separate channels)", measure: || ipc_channel(4) },
    ],
};

/// Messages of one run, for those who are fast.
const MESSAGES: u64 = 4_000_000;

/// When a consumer got its first and its last message.
type Span = (u64, u64);

/// Gets `count` messages.
fn consume<E: Into<Failure>>(count: u64, mut get: impl FnMut() -> Result<u64, E>) -> Result<Span, Failure> {
    get().map_err(Into::into)?;
    let first = now();
    for _ in 1..count {
        get().map_err(Into::into)?;
    }
    Ok((first, now()))
}

fn rate(messages: u64, spans: impl IntoIterator<Item = Span>) -> f64 {
    let (first, last) = spans.into_iter().fold((u64::MAX, 0), |all, one| (all.0.min(one.0), all.1.max(one.1)));
    messages as f64 * 1e9 / (last - first) as f64
}

type Numbers = Queue<u64>;

fn produce((queue, count): (Numbers, u64)) -> tenfold::Result<()> {
    Ok((0..count).try_for_each(|i| queue.put(i))?)
}

fn consume_apart((queue, spans, count): (Numbers, Queue<Span>, u64)) -> Result<(), String> {
    let span = consume(count, || queue.get()).map_err(|error| error.to_string())?;
    spans.put(span).map_err(|error| error.to_string())
}

/// All producers and consumers are processes of their own.
fn tenfold(pairs: u64) -> Result<f64, Failure> {
    let (queue, spans) = (Queue::new()?, Queue::new()?);
    let each = MESSAGES / pairs;
    let mut children = Vec::new();
    for _ in 0..pairs {
        children.push(Process::spawn(consume_apart, (queue.clone(), spans.clone(), each))?);
    }
    for _ in 0..pairs {
        children.push(Process::spawn(produce, (queue.clone(), each))?);
    }
    for child in children {
        child.join()?;
    }
    let spans: Vec<Span> = (0..pairs).map(|_| spans.get()).collect::<tenfold::Result<_>>()?;
    Ok(rate(MESSAGES, spans))
}

const BATCH: u64 = 64;

fn produce_many((queue, count): (Numbers, u64)) -> tenfold::Result<()> {
    Ok((0..count / BATCH).try_for_each(|i| queue.put_many(i * BATCH..(i + 1) * BATCH))?)
}

fn tenfold_many() -> Result<f64, Failure> {
    let queue: Numbers = Queue::new()?;
    let child = Process::spawn(produce_many, (queue.clone(), MESSAGES))?;
    let mut batch = VecDeque::new();
    let span = consume(MESSAGES / BATCH * BATCH, || {
        loop {
            match batch.pop_front() {
                Some(number) => return tenfold::Result::Ok(number),
                None => batch = queue.get_many(BATCH as usize)?.into(),
            }
        }
    })?;
    child.join()?;
    Ok(rate(MESSAGES, [span]))
}

fn crossbeam(pairs: u64) -> Result<f64, Failure> {
    let (sender, receiver) = crossbeam_channel::unbounded::<u64>();
    let each = MESSAGES / pairs;
    let consumers: Vec<_> = (0..pairs)
        .map(|_| {
            let receiver = receiver.clone();
            thread::spawn(move || consume(each, || receiver.recv()))
        })
        .collect();
    for _ in 0..pairs {
        let sender = sender.clone();
        thread::spawn(move || (0..each).try_for_each(|i| sender.send(i)));
    }
    let mut spans = Vec::new();
    for consumer in consumers {
        spans.push(consumer.join().map_err(|_| "a consumer has panicked")??);
    }
    Ok(rate(MESSAGES, spans))
}

/// One receiver cannot be shared, so each pair has a channel of its own.
fn ipc_channel(pairs: u64) -> Result<f64, Failure> {
    let mut consumers = Vec::new();
    for _ in 0..pairs {
        let (mut child, ends) = ipc::start("numbers")?;
        let Ends::Numbers(receiver) = ends else { return Err("the child has another role".into()) };
        consumers.push(thread::spawn(move || -> Result<Span, Failure> {
            let span = consume(ipc::PRODUCED, || receiver.recv().map_err(|error| format!("{error:?}")))?;
            child.wait()?;
            Ok(span)
        }));
    }
    let mut spans = Vec::new();
    for consumer in consumers {
        spans.push(consumer.join().map_err(|_| "a consumer has panicked")??);
    }
    Ok(rate(ipc::PRODUCED * pairs, spans))
}
