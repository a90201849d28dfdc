//! Many messages with one call.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};
use smallvec::SmallVec;
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::shm::queue::PutManyError;

use super::channel::{Channel, failed_get, failed_put};
use crate::codec::{self, Encoded};
use crate::waiting::{blocking, deadline};

/// Objects that are encoded before they are put, and bytes.
const RUN: usize = 256;
const RUN_BYTES: usize = 1 << 20;

impl Channel {
    /// Puts what `objects` yields, in runs; whoever reads may have the first before the last is encoded. The error of
    /// an object that cannot be encoded may be answered by `hook`.
    ///
    /// # Errors
    /// As [`Channel::put`], of the iteration, of the encoding, each with how many were put as its attribute `put`.
    pub(super) fn put_many(
        &self,
        objects: &Bound<'_, PyAny>,
        block: bool,
        timeout: Option<f64>,
        hook: impl Fn(&Bound<'_, PyAny>, PyErr) -> PyResult<()>,
    ) -> PyResult<()> {
        let py = objects.py();
        // Without a wait: as much as there is room for now.
        let deadline = deadline(if block { timeout } else { Some(0.0) })?;
        let mut objects = objects.try_iter()?;
        let mut put = 0;
        loop {
            let (run, failure) = encode_run(&mut objects, &hook);
            let parts: Vec<_> = run.iter().map(|encoded| encoded.parts(py)).collect::<PyResult<_>>()?;
            let messages: Vec<Outgoing<'_>> =
                run.iter().zip(&parts).map(|(encoded, parts)| encoded.outgoing(parts)).collect();
            let result = blocking(py, || self.queue().put_many(&messages, deadline), |_, _| ());
            match result.map_err(|error| counted(py, error, put))? {
                Ok(()) => put += run.len(),
                Err(PutManyError { put: more, error }) => return Err(counted(py, failed_put(py, error), put + more)),
            }
            match failure {
                Some(error) => return Err(counted(py, error, put)),
                None if run.is_empty() => return Ok(()),
                None => {}
            }
        }
    }

    /// Takes as many objects as there are, `most` at the most; waits for the first one.
    ///
    /// # Errors
    /// As [`Channel::get`]. If some do not unpickle, the first of their errors has the others in its attribute
    /// `received`.
    pub(super) fn get_many<'py>(
        &self,
        py: Python<'py>,
        most: Option<usize>,
        block: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        if most == Some(0) {
            return Err(PyValueError::new_err("get_many() takes at least one message"));
        }
        let deadline = deadline(if block { timeout } else { Some(0.0) })?;
        let take = || {
            if self.queue().is_empty() {
                self.queue().wait_message(deadline)?;
            }
            // Those that arrive meanwhile are for the next call: producers could keep this one busy for ever.
            let there = self.queue().len().max(1) as usize;
            self.queue().get_many(there.min(most.unwrap_or(usize::MAX)), deadline)
        };
        let got = blocking(py, take, |_, _| ())?;
        self.settle();
        let mut first_error = None;
        let mut objects = Vec::new();
        for payload in got.map_err(|error| failed_get(py, error))? {
            match codec::decode_payload(py, payload) {
                Ok(object) => objects.push(object),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let objects = PyList::new(py, objects)?;
        match first_error {
            None => Ok(objects),
            Some(error) => {
                // An exception without a place for attributes is raised all the same.
                let _ = error.value(py).setattr("received", objects);
                Err(error)
            }
        }
    }
}

/// Encodes the next few objects; also returns what was wrong with the one behind them.
fn encode_run(
    objects: &mut Bound<'_, PyIterator>,
    hook: impl Fn(&Bound<'_, PyAny>, PyErr) -> PyResult<()>,
) -> (SmallVec<[Encoded; 1]>, Option<PyErr>) {
    let py = objects.py();
    let mut run = SmallVec::new();
    let mut bytes = 0;
    while run.len() < RUN && bytes < RUN_BYTES {
        let object = match objects.next() {
            None => break,
            Some(Ok(object)) => object,
            Some(Err(error)) => return (run, Some(error)),
        };
        match codec::encode(&object) {
            Ok(encoded) => {
                bytes += encoded.len(py);
                run.push(encoded);
            }
            Err(error) => match hook(&object, error) {
                Ok(()) => {}
                Err(error) => return (run, Some(error)),
            },
        }
    }
    (run, None)
}

/// The error, with how many objects were put.
fn counted(py: Python<'_>, error: PyErr, put: usize) -> PyErr {
    // An exception without a place for attributes is raised all the same.
    let _ = error.value(py).setattr("put", put);
    error
}
