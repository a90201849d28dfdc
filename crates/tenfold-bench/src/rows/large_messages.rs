//! How many bytes a second go through a queue in messages of 1 MiB.
//!
//! Every system begins with the producer's own copy and ends with bytes that the consumer owns.

use std::thread;

use tenfold::{Process, Queue};

use super::ipc::{self, Ends};
use super::{Failure, Row, Unit};
use crate::cell::Cell;
use crate::clock::{now, seconds_since};

pub(crate) const ROW: Row = Row {
    name: "large-messages",
    title: "messages of 1 MiB",
    unit: Unit::BytesPerSecond,
    cells: &[
        Cell { system: "tenfold", measure: tenfold },
        Cell { system: "crossbeam-channel (threads, cloned)", measure: crossbeam },
        Cell { system: "ipc-channel (bytes channel)", measure: ipc_channel },
    ],
};

/// Bytes of a message.
pub(crate) const LEN: usize = 1 << 20;
const MESSAGES: u64 = 2_000;

/// Gets `count` messages and returns bytes a second.
fn consume(count: u64, mut get: impl FnMut() -> Result<Vec<u8>, Failure>) -> Result<f64, Failure> {
    get()?;
    let start = now();
    for _ in 1..count {
        let message = get()?;
        if message.len() != LEN || message.first() != Some(&7) || message.last() != Some(&7) {
            return Err("a message has changed on its way".into());
        }
    }
    Ok((count - 1) as f64 * LEN as f64 / seconds_since(start))
}

fn produce(queue: Queue<Vec<u8>>) -> tenfold::Result<()> {
    let message = vec![7; LEN];
    Ok((0..MESSAGES).try_for_each(|_| queue.put(message.clone()))?)
}

/// Bounded, as anybody would have it who sends large messages.
fn tenfold() -> Result<f64, Failure> {
    let queue = Queue::bounded(8)?;
    let child = Process::spawn(produce, queue.clone())?;
    let rate = consume(MESSAGES, || Ok(queue.get()?))?;
    child.join()?;
    Ok(rate)
}

fn crossbeam() -> Result<f64, Failure> {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(8);
    thread::spawn(move || {
        let message = vec![7; LEN];
        (0..MESSAGES).try_for_each(|_| sender.send(message.clone()))
    });
    consume(MESSAGES, || Ok(receiver.recv()?))
}

fn ipc_channel() -> Result<f64, Failure> {
    let (mut child, ends) = ipc::start("large")?;
    let Ends::Large(receiver) = ends else { return Err("the child has another role".into()) };
    let rate = consume(ipc::LARGE_PRODUCED, || receiver.recv().map_err(|error| format!("{error:?}").into()))?;
    child.wait()?;
    Ok(rate)
}
