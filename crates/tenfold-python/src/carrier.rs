//! Which shared objects a pickle mentions.
//!
//! The heap cannot see into a pickle, so whoever makes one that travels opens a *carrier* first; an object of ours that
//! is pickled meanwhile puts its handle into it and its id into the pickle. The message then holds the objects until its
//! receiver has taken references of its own. Without a carrier such objects refuse to be pickled, as in the standard
//! library: bytes alone would not keep the object alive.
//!
//! ```text
//!  put(obj) ─ open carrier ─ pickle ─▶ Lock.__getstate__ ─ mention(handle) ─▶ id in the bytes
//!           ◀ handles ───────────────────────────────────┘
//!  get()    ─ unpickle ─▶ Lock.__setstate__ ─ found(id) ─▶ handle, while the message still holds the object
//! ```

use std::cell::RefCell;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tenfold_engine::shm::heap::BlockId;
use tenfold_engine::{Handle, Heap, HeapError};

use crate::errors;

thread_local! {
    /// The carriers that are open on this thread, innermost last.
    static OPEN: RefCell<Vec<Vec<Handle>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with a carrier open; returns the handles that were mentioned, too.
pub(crate) fn carrying<R>(f: impl FnOnce() -> R) -> (R, Vec<Handle>) {
    struct Close;
    impl Drop for Close {
        fn drop(&mut self) {
            OPEN.with_borrow_mut(Vec::pop);
        }
    }
    OPEN.with_borrow_mut(|open| open.push(Vec::new()));
    let close = Close;
    let result = f();
    let handles = OPEN.with_borrow_mut(|open| open.last_mut().map(core::mem::take)).unwrap_or_default();
    drop(close);
    (result, handles)
}

/// An object is being pickled: its id, for the pickle.
///
/// # Errors
/// If nothing carries the pickle; `name` is the object's type.
pub(crate) fn mention(handle: &Handle, name: &str) -> PyResult<u64> {
    if mention_if_carried(handle) {
        Ok(handle.id().bits())
    } else {
        Err(PyRuntimeError::new_err(format!(
            "{name} objects should only be shared between processes through inheritance, or inside of what tenfold \
             itself carries: arguments, queues, pools, managers; a bare pickle does not keep the object alive"
        )))
    }
}

/// An object is being pickled that may do without a carrier. Returns whether there is one.
pub(crate) fn mention_if_carried(handle: &Handle) -> bool {
    OPEN.with_borrow_mut(|open| match open.last_mut() {
        Some(handles) => {
            if !handles.contains(handle) {
                handles.push(handle.clone());
            }
            true
        }
        None => false,
    })
}

/// The object whose id a pickle contained.
///
/// # Errors
/// If it is gone, or the id nonsense.
pub(crate) fn found(id: u64) -> PyResult<Handle> {
    let find = || -> Result<Handle, HeapError> {
        let heap = Heap::existing().ok_or(HeapError::Stale)?;
        Handle::from_id(heap, BlockId::from_bits(id).ok_or(HeapError::Stale)?)
    };
    find().map_err(errors::heap)
}

/// Handles that are kept alive from Python: what a process that is being started was given.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct Parcel {
    handles: Vec<Handle>,
}

impl Parcel {
    /// The objects.
    pub(crate) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

#[pymethods]
impl Parcel {
    fn __len__(&self) -> usize {
        self.handles.len()
    }
}

/// Calls `function()` with a carrier open. Returns its result and the parcel of objects that were pickled meanwhile,
/// which must be kept until the receiver has unpickled them.
#[pyfunction]
fn carry(function: &Bound<'_, PyAny>) -> PyResult<(Py<PyAny>, Parcel)> {
    let (result, handles) = carrying(|| function.call0());
    Ok((result?.unbind(), Parcel { handles }))
}

/// Calls `function()`, which pickles objects that may do without a carrier: then somebody else must keep them alive until
/// they are unpickled.
#[pyfunction]
fn uncarried(function: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let open = OPEN.with_borrow(|open| !open.is_empty());
    let result = if open { function.call0() } else { carrying(|| function.call0()).0 };
    Ok(result?.unbind())
}

/// Puts the functions into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Parcel>()?;
    module.add_function(wrap_pyfunction!(carry, module)?)?;
    module.add_function(wrap_pyfunction!(uncarried, module)?)
}
