//! Going through a dict's keys, batch by batch.

use std::collections::VecDeque;

use pyo3::prelude::*;
use tenfold_engine::HeapError;
use tenfold_engine::shm::dict::Dict;

use super::{dict, key};

/// Keys of the first batch; each further one has twice as many.
const FIRST: u64 = 16;
const MOST: u64 = 4096;

/// An iterator over the keys of a shared dict. Keys that come or go meanwhile are a RuntimeError.
#[pyclass(module = "tenfold._native")]
pub(crate) struct DictIterator {
    dict: Dict,
    version: u64,
    keys: VecDeque<Vec<u8>>,
    /// Where the next batch begins.
    next: Option<u64>,
    limit: u64,
}

impl DictIterator {
    pub(super) fn new(dict: Dict) -> DictIterator {
        let version = dict.version();
        DictIterator { dict, version, keys: VecDeque::new(), next: Some(0), limit: FIRST }
    }
}

#[pymethods]
impl DictIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.keys.is_empty() && self.next.is_none() {
            return Ok(None);
        }
        if self.dict.version() != self.version {
            return Err(dict::raised(HeapError::KeysChanged));
        }
        if let (true, Some(from)) = (self.keys.is_empty(), self.next) {
            let batch = self.dict.batch_of_keys(from, Some(self.version), self.limit).map_err(dict::raised)?;
            (self.keys, self.next) = (batch.items.into(), batch.next);
            self.limit = (self.limit * 2).min(MOST);
        }
        self.keys.pop_front().map(|bytes| key::decode(py, &bytes)).transpose()
    }

    fn __length_hint__(&self) -> usize {
        match self.next {
            Some(0) => self.dict.len() as usize,
            _ => self.keys.len(),
        }
    }
}
