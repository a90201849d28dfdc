//! Many values on their way into a container at once.
//!
//! ```text
//!  bytes    ┌ value 0 ┬ value 1 ┬ value 2 … ┐
//!  ends     where each ends in the bytes, and in the list of handles
//! ```

use pyo3::prelude::*;
use tenfold_engine::Handle;
use tenfold_engine::shm::item::Item;
use tenfold_engine::shm::message::Outgoing;

use crate::codec;

/// Encoded values, laid end to end.
#[derive(Default)]
pub(crate) struct Many {
    bytes: Vec<u8>,
    handles: Vec<Handle>,
    ends: Vec<(usize, usize)>,
}

impl Many {
    /// The values of an iterable.
    ///
    /// # Errors
    /// What iterating or pickling raises.
    pub(crate) fn of(values: &Bound<'_, PyAny>) -> PyResult<Many> {
        let mut many = Many::default();
        for value in values.try_iter()? {
            many.push(&value?, &[])?;
        }
        Ok(many)
    }

    /// Appends a value, and handles that are to be kept with it.
    ///
    /// # Errors
    /// What pickling raises.
    pub(crate) fn push(&mut self, value: &Bound<'_, PyAny>, handles: &[Handle]) -> PyResult<()> {
        self.handles.extend_from_slice(handles);
        if let Some((word, len)) = codec::encode_short(value) {
            self.bytes.extend_from_slice(&word.to_le_bytes()[..len]);
            self.ends.push((self.bytes.len(), self.handles.len()));
            return Ok(());
        }
        codec::encode(value)?.with(value.py(), |outgoing| {
            self.handles.extend_from_slice(outgoing.handles);
            for part in outgoing.parts {
                self.bytes.extend_from_slice(part);
            }
        })?;
        self.ends.push((self.bytes.len(), self.handles.len()));
        Ok(())
    }

    /// Appends a value that is encoded already.
    pub(crate) fn push_item(&mut self, item: &Item) {
        self.bytes.extend_from_slice(&item.bytes);
        self.handles.extend_from_slice(&item.handles);
        self.ends.push((self.bytes.len(), self.handles.len()));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Calls `f` with all of them.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&[Outgoing<'_>]) -> R) -> R {
        let starts = core::iter::once((0, 0)).chain(self.ends.iter().copied());
        let ranges = || starts.clone().zip(self.ends.iter().copied());
        let parts: Vec<[&[u8]; 1]> = ranges().map(|((from, _), (to, _))| [&self.bytes[from..to]]).collect();
        let outgoing: Vec<Outgoing<'_>> = ranges()
            .zip(&parts)
            .map(|(((_, from), (_, to)), parts)| Outgoing { parts, handles: &self.handles[from..to] })
            .collect();
        f(&outgoing)
    }
}
