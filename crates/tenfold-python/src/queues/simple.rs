//! `SimpleQueue`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::channel::Channel;
use super::ends::{Reader, Writer};
use crate::codec;
use crate::shell::Shell;

/// A queue with nothing but `put`, `get`, `empty` and `close`.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct SimpleQueue {
    channel: Shell<Arc<Channel>>,
}

impl SimpleQueue {
    #[inline]
    fn channel(&self) -> PyResult<&Arc<Channel>> {
        self.channel.get()
    }
}

#[pymethods]
impl SimpleQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> SimpleQueue {
        SimpleQueue { channel: Shell::empty() }
    }

    /// Makes the shared queue.
    fn _create(&self) -> PyResult<()> {
        self.channel.fill(Channel::create(0)?);
        Ok(())
    }

    /// The queue's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<(u64,)> {
        Ok((self.channel()?.mention("SimpleQueue")?,))
    }

    fn __setstate__(&self, state: (u64,)) -> PyResult<()> {
        self.channel.find(state.0, Channel::open)
    }

    /// Put an object at the end. Never waits.
    fn put(&self, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let channel = self.channel()?;
        channel.check_writer()?;
        channel.put(obj.py(), &codec::encode(obj)?, true, None)
    }

    /// Take the next object; waits until there is one.
    fn get(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let channel = self.channel()?;
        channel.check_reader()?;
        channel.get(py, true, None)
    }

    /// Return whether there is nothing in the queue. Exact, at some moment of the call.
    fn empty(&self) -> PyResult<bool> {
        self.channel()?.is_empty()
    }

    /// Say that this process puts and gets nothing more.
    fn close(&self) -> PyResult<()> {
        let channel = self.channel()?;
        channel.close_reader();
        channel.close_writer();
        Ok(())
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
