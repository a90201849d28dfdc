//! What all classes of queues do: objects in, objects out.
//!
//! Whatever may block lets go of the GIL; what need not does not, since that costs more than the rest of the call. A
//! message is never taken for a caller that a signal handler has just interrupted: the engine's waits see to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use tenfold_engine::shm::message::{Outgoing, Payload};
use tenfold_engine::shm::queue::{Arrival, Queue, QueueError};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, HeapError};

use super::bell::Bell;
use crate::codec::{self, Encoded};
use crate::waiting::{blocking, deadline};
use crate::{carrier, errors, family};

/// Copying more than this takes longer than letting go of the GIL and taking it again.
const LARGE: usize = 32 * 1024;

/// A queue, as this process sees it.
#[derive(Debug)]
pub(super) struct Channel {
    queue: Queue,
    bell: Bell,
    reader_closed: AtomicBool,
    writer_closed: AtomicBool,
}

impl Channel {
    /// A channel to a new queue for `maxsize` messages; without a limit if that is not positive.
    ///
    /// # Errors
    /// If the heap has no room.
    pub(super) fn create(maxsize: i64) -> PyResult<Arc<Channel>> {
        let capacity = u64::try_from(maxsize).ok().filter(|most| *most > 0);
        Ok(Channel::of(Queue::create(family::heap()?, capacity).map_err(errors::heap)?))
    }

    /// A channel to the queue behind a handle.
    ///
    /// # Errors
    /// If it is something else.
    pub(super) fn open(handle: Handle) -> Result<Arc<Channel>, HeapError> {
        Queue::from_handle(handle).map(Channel::of)
    }

    fn of(queue: Queue) -> Arc<Channel> {
        Arc::new(Channel {
            queue,
            bell: Bell::default(),
            reader_closed: AtomicBool::new(false),
            writer_closed: AtomicBool::new(false),
        })
    }

    /// The queue's id, for the pickle that mentions it.
    ///
    /// # Errors
    /// If nothing carries the pickle.
    pub(super) fn mention(&self, name: &str) -> PyResult<u64> {
        carrier::mention(self.queue.handle(), name)
    }

    /// The engine's queue.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Puts an encoded object.
    ///
    /// # Errors
    /// `queue.Full`; if the heap has no room; what a signal handler has raised.
    #[inline]
    pub(super) fn put(&self, py: Python<'_>, encoded: &Encoded, block: bool, timeout: Option<f64>) -> PyResult<()> {
        let put = encoded.with(py, |outgoing| {
            if outgoing.len() <= LARGE {
                match self.queue.try_put(outgoing) {
                    Err(QueueError::Full) if block => {}
                    result => return Ok(result),
                }
            }
            let deadline = if block { Some(deadline(timeout)?) } else { None };
            self.put_detached(py, outgoing, deadline)
        })??;
        put.map_err(|error| failed_put(py, error))
    }

    #[cold]
    fn put_detached(
        &self,
        py: Python<'_>,
        outgoing: Outgoing<'_>,
        deadline: Option<Deadline>,
    ) -> PyResult<Result<(), QueueError>> {
        let put = || match deadline {
            Some(deadline) => self.queue.put(outgoing, deadline),
            None => self.queue.try_put(outgoing),
        };
        blocking(py, put, |_, _| ())
    }

    /// Takes the next object.
    ///
    /// # Errors
    /// `queue.Empty`; what unpickling raises (the message is gone then); what a signal handler has raised.
    #[inline]
    pub(super) fn get(&self, py: Python<'_>, block: bool, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let got = self.queue.get_with(None, |arrival| match arrival {
            Arrival::Short(bytes) => codec::decode(py, bytes),
            Arrival::Long(payload) => codec::decode_payload(py, payload),
        });
        self.settle();
        match got {
            Ok(object) => object,
            Err(QueueError::Empty) if block => codec::decode_payload(py, self.wait_and_take(py, timeout)?),
            Err(error) => Err(failed_get(py, error)),
        }
    }

    /// Takes the next message as it is.
    ///
    /// # Errors
    /// `queue.Empty`; what a signal handler has raised.
    #[cold]
    pub(super) fn wait_and_take(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Payload> {
        let deadline = deadline(timeout)?;
        let got = blocking(py, || self.queue.get(deadline), |_, _| ())?;
        self.settle();
        got.map_err(|error| failed_get(py, error))
    }

    /// Waits until there is a message, without taking it; whether there is one by the deadline.
    ///
    /// # Errors
    /// If the end for reading is closed; what a signal handler has raised.
    pub(super) fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        if !self.is_empty()? {
            return Ok(true);
        }
        let deadline = deadline(timeout)?;
        while self.queue.is_empty() {
            match blocking(py, || self.queue.wait_message(deadline), |_, _| ())? {
                Ok(()) => {}
                Err(QueueError::TimedOut) => return Ok(false),
                Err(error) => return Err(failed_get(py, error)),
            }
        }
        Ok(true)
    }

    /// Somebody has looked for messages: see [`Bell::settle`].
    #[inline]
    pub(super) fn settle(&self) {
        self.bell.settle(&self.queue);
    }

    /// Whether there is no message.
    ///
    /// # Errors
    /// If the end for reading is closed.
    pub(super) fn is_empty(&self) -> PyResult<bool> {
        self.check_reader()?;
        let empty = self.queue.is_empty();
        if empty {
            self.settle();
        }
        Ok(empty)
    }

    /// The descriptor that is readable while there is a message.
    ///
    /// # Errors
    /// If the end for reading is closed; if there is none to be had.
    pub(super) fn fileno(&self) -> PyResult<i32> {
        self.check_reader()?;
        self.bell.fd(&self.queue).map_err(errors::heap)
    }

    /// Lets go of the end for reading: for this process, reading is an error from now on.
    pub(super) fn close_reader(&self) {
        self.reader_closed.store(true, Ordering::Relaxed);
        self.bell.remove();
    }

    /// Lets go of the end for writing.
    pub(super) fn close_writer(&self) {
        self.writer_closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn reader_is_closed(&self) -> bool {
        self.reader_closed.load(Ordering::Relaxed)
    }

    pub(super) fn writer_is_closed(&self) -> bool {
        self.writer_closed.load(Ordering::Relaxed)
    }

    /// # Errors
    /// If the end for reading is closed.
    #[inline]
    pub(super) fn check_reader(&self) -> PyResult<()> {
        if self.reader_is_closed() { Err(handle_is_closed()) } else { Ok(()) }
    }

    /// # Errors
    /// If the end for writing is closed.
    #[inline]
    pub(super) fn check_writer(&self) -> PyResult<()> {
        if self.writer_is_closed() { Err(handle_is_closed()) } else { Ok(()) }
    }
}

/// What a closed connection of the standard library says.
#[cold]
fn handle_is_closed() -> PyErr {
    PyOSError::new_err("handle is closed")
}

#[cold]
pub(super) fn failed_put(py: Python<'_>, error: QueueError) -> PyErr {
    match error {
        QueueError::TimedOut => errors::queue(py, QueueError::Full),
        error => errors::queue(py, error),
    }
}

#[cold]
pub(super) fn failed_get(py: Python<'_>, error: QueueError) -> PyErr {
    match error {
        QueueError::TimedOut => errors::queue(py, QueueError::Empty),
        error => errors::queue(py, error),
    }
}
