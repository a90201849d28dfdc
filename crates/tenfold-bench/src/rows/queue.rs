//! How many 64-bit numbers a second go through a queue.
//!
//! A consumer looks at the clock after its first and after its last message; the rate is that of all
//! messages in the time from the earliest first to the latest last.

use std::thread;

use super::ipc::{self, Ends};
use super::{Failure, Row, Unit};
use crate::cell::Cell;
use crate::clock::now;

pub(crate) const ONE_TO_ONE: Row = Row {
    name: "queue-1-1",
    title: "queue of u64, 1 producer, 1 consumer",
    unit: Unit::PerSecond,
    cells: &[
        Cell { system: "crossbeam-channel (threads)", measure: || crossbeam(1) },
        Cell { system: "ipc-channel", measure: || ipc_channel(1) },
    ],
};

pub(crate) const FOUR_TO_FOUR: Row = Row {
    name: "queue-4-4",
    title: "queue of u64, 4 producers, 4 consumers",
    unit: Unit::PerSecond,
    cells: &[
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
