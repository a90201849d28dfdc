//! `Queue` and `JoinableQueue`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use tenfold_engine::shm::queue::QueueError;
use tenfold_engine::sys::process;

use super::channel::{Channel, failed_get, failed_put};
use super::ends::{Reader, Writer};
use crate::arguments::Truth;
use crate::shell::Shell;
use crate::waiting::{blocking, deadline};
use crate::{codec, errors};

/// A first-in first-out queue of objects among processes.
///
/// What only a joinable queue has is here with an underscore.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Queue {
    channel: Shell<Arc<Channel>>,
    /// The process that has closed the queue for itself; a child that it forks later may use it.
    closed_in: AtomicU32,
    /// Whether something was put by this process: the close of an unused queue leaves it readable, as in the standard
    /// library, where it is the feeder thread that closes the pipe.
    used: AtomicBool,
}

impl Queue {
    #[inline]
    fn channel(&self) -> PyResult<&Arc<Channel>> {
        self.channel.get()
    }

    /// The channel of a queue that is not closed.
    #[inline]
    fn open<'a>(slf: &'a Bound<'_, Self>) -> PyResult<&'a Arc<Channel>> {
        let queue = slf.get();
        if queue.closed_in.load(Ordering::Relaxed) != 0 && queue.is_closed() {
            return Err(PyValueError::new_err(format!("Queue {} is closed", slf.repr()?)));
        }
        queue.channel()
    }

    fn is_closed(&self) -> bool {
        self.closed_in.load(Ordering::Relaxed) == process::pid()
    }

    #[inline]
    fn put_object(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>, block: bool, timeout: Option<f64>) -> PyResult<()> {
        let channel = Queue::open(slf)?;
        slf.get().used.store(true, Ordering::Relaxed);
        if !block && channel.queue().is_full() {
            return Err(failed_put(slf.py(), QueueError::Full));
        }
        match codec::encode(object) {
            Ok(encoded) => channel.put(slf.py(), &encoded, block, timeout),
            Err(error) => Queue::cannot_be_pickled(slf, object, error),
        }
    }

    /// Raises the error in the caller, or gives it to the hook that a subclass has put in the place of
    /// `_on_queue_feeder_error`: concurrent.futures has the future fail there.
    #[cold]
    fn cannot_be_pickled(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        if error.is_instance_of::<PyException>(py) {
            let hook = slf.getattr("_on_queue_feeder_error")?;
            let plain = py.import("tenfold.queues")?.getattr("Queue")?.getattr("_on_queue_feeder_error")?;
            if !hook.is(&plain) {
                return hook.call1((error.value(py), object)).map(drop);
            }
        }
        Err(error)
    }
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Queue {
        Queue { channel: Shell::empty(), closed_in: AtomicU32::new(0), used: AtomicBool::new(false) }
    }

    /// Makes the shared queue, for at most `maxsize` objects; without a limit if that is not positive.
    fn _create(&self, maxsize: i64) -> PyResult<()> {
        self.channel.fill(Channel::create(maxsize)?);
        Ok(())
    }

    /// The queue's id, while something carries the pickle. A tuple, to which subclasses may add.
    fn __getstate__(&self) -> PyResult<(u64,)> {
        Ok((self.channel()?.mention("Queue")?,))
    }

    fn __setstate__(&self, state: (u64,)) -> PyResult<()> {
        self.channel.find(state.0, Channel::open)
    }

    /// Put an object at the end. It is pickled here and now: what cannot be is an error of this call.
    ///
    /// Waits while a bounded queue is full, for at most `timeout` seconds; raises `queue.Full` then, or at once without
    /// `block`. When it returns the object is in the queue, whatever happens to this process.
    #[pyo3(signature = (obj, block=Truth(true), timeout=None), text_signature = "($self, obj, block=True, timeout=None)")]
    fn put(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>, block: Truth, timeout: Option<f64>) -> PyResult<()> {
        Queue::put_object(slf, obj, block.0, timeout)
    }

    /// `put(obj, False)`.
    fn put_nowait(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        Queue::put_object(slf, obj, false, None)
    }

    /// Put the objects that an iterable yields, in order; those of others may come in between. Costs less than a `put`
    /// for each.
    ///
    /// An error (`queue.Full`; one that cannot be pickled) has the number of those that were put as its attribute `put`.
    #[pyo3(signature = (objects, block=Truth(true), timeout=None),
           text_signature = "($self, objects, block=True, timeout=None)")]
    fn put_many(slf: &Bound<'_, Self>, objects: &Bound<'_, PyAny>, block: Truth, timeout: Option<f64>) -> PyResult<()> {
        let channel = Queue::open(slf)?;
        slf.get().used.store(true, Ordering::Relaxed);
        let hook = |object: &Bound<'_, PyAny>, error| Queue::cannot_be_pickled(slf, object, error);
        channel.put_many(objects, block.0, timeout, hook)
    }

    /// Take the next object.
    ///
    /// Waits while the queue is empty, for at most `timeout` seconds; raises `queue.Empty` then, or at once without
    /// `block`. If the object does not unpickle, that error is raised, and the object is gone.
    #[pyo3(signature = (block=Truth(true), timeout=None), text_signature = "($self, block=True, timeout=None)")]
    fn get(slf: &Bound<'_, Self>, block: Truth, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        Queue::open(slf)?.get(slf.py(), block.0, timeout)
    }

    /// `get(False)`.
    fn get_nowait(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Queue::open(slf)?.get(slf.py(), false, None)
    }

    /// Take all objects that there are, but at most `max_items`, as a list. Waits for the first as `get` does.
    ///
    /// If some do not unpickle, the first of their errors is raised, with the other objects in its attribute `received`.
    #[pyo3(signature = (max_items=None, block=Truth(true), timeout=None),
           text_signature = "($self, max_items=None, block=True, timeout=None)")]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        max_items: Option<usize>,
        block: Truth,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        Queue::open(slf)?.get_many(slf.py(), max_items, block.0, timeout)
    }

    /// Return how many objects are in the queue. Exact, at some moment of the call.
    fn qsize(&self) -> PyResult<u64> {
        Ok(self.channel()?.queue().len())
    }

    /// Return whether there is nothing in the queue. Exact, at some moment of the call.
    fn empty(&self) -> PyResult<bool> {
        self.channel()?.is_empty()
    }

    /// Return whether a put would have to wait. Exact, at some moment of the call.
    fn full(&self) -> PyResult<bool> {
        Ok(self.channel()?.queue().is_full())
    }

    /// Say that this process puts and gets nothing more. What is in the queue stays there for others.
    fn close(&self) -> PyResult<()> {
        let channel = self.channel()?;
        self.closed_in.store(process::pid(), Ordering::Relaxed);
        if self.used.load(Ordering::Relaxed) {
            channel.close_reader();
            channel.close_writer();
        }
        Ok(())
    }

    /// Report that one object that was taken has been dealt with.
    fn _task_done(&self, py: Python<'_>) -> PyResult<()> {
        self.channel()?.queue().task_done().map_err(|error| errors::queue(py, error))
    }

    /// Wait until all objects that were put have been reported done.
    fn _join(&self, py: Python<'_>) -> PyResult<()> {
        let queue = self.channel()?.queue();
        while queue.unfinished() != 0 {
            let deadline = deadline(None)?;
            blocking(py, || queue.join(deadline), |_, _| ())?.map_err(|error| failed_get(py, error))?;
        }
        Ok(())
    }

    /// Whether this process has closed the queue.
    fn _is_closed(&self) -> bool {
        self.is_closed()
    }

    /// The most objects that the queue holds; None if there is no limit.
    fn _capacity(&self) -> PyResult<Option<u64>> {
        Ok(self.channel()?.queue().capacity())
    }

    /// An end to take objects from, which can be polled.
    fn _make_reader(&self) -> PyResult<Reader> {
        Ok(Reader::of(self.channel()?.clone()))
    }

    /// An end to put objects in.
    fn _make_writer(&self) -> PyResult<Writer> {
        Ok(Writer::of(self.channel()?.clone()))
    }
}
