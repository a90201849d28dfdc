//! What the objects of one manager have in common: that it may be shut down.
//!
//! ```text
//!  closed   an event: set once; every use of an object looks at it first
//!  members  a dict: number of a block ▶ its id, for each container that the manager handed out
//! ```
//!
//! The members are not held: an object dies with its last holder, and its entry is overwritten when the block is used
//! again. They are there for the shutdown, which empties what is left, cycles included.

use pyo3::exceptions::{PyBrokenPipeError, PyValueError};
use pyo3::prelude::*;
use tenfold_engine::shm::dict::Dict;
use tenfold_engine::shm::heap::BlockId;
use tenfold_engine::shm::list::List;
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::shm::queue::Queue;
use tenfold_engine::shm::sync::Event;
use tenfold_engine::{Handle, Heap, HeapError, ObjectKind};

use crate::{carrier, errors, family};

/// The shared half of a manager.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct Manager {
    closed: Event,
    members: Dict,
}

#[pymethods]
impl Manager {
    #[new]
    fn new() -> PyResult<Manager> {
        let heap = family::heap()?;
        let closed = Event::create(heap).map_err(errors::heap)?;
        Ok(Manager { closed, members: Dict::create(heap).map_err(errors::heap)? })
    }

    /// Whether it was shut down, by any process.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.is_set()
    }

    /// Makes all further uses of its objects errors, and empties its containers.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.closed.set();
        py.detach(|| {
            for member in self.living()? {
                empty(member)?;
            }
            self.members.clear()
        })
        .map_err(errors::heap)
    }

    /// How many of its containers are alive.
    fn __len__(&self) -> PyResult<usize> {
        Ok(self.living().map_err(errors::heap)?.len())
    }

    /// Raises an error if it was shut down.
    fn check(&self) -> PyResult<()> {
        check(&self.closed)
    }

    /// A name for it that means something in the whole program, while something holds it.
    #[getter]
    fn name(&self) -> u64 {
        self.closed.handle().id().bits()
    }
}

impl Manager {
    /// The event that says that the manager was shut down.
    pub(crate) fn closing(&self) -> &Event {
        &self.closed
    }

    /// Notes that it has handed out an object.
    ///
    /// # Errors
    /// If the heap has no room.
    pub(crate) fn enrol(&self, member: &Handle) -> Result<(), HeapError> {
        let id = member.id();
        let value = id.bits().to_le_bytes();
        // The low half is the block, the high half how often it was used.
        self.members.insert(&(id.bits() as u32).to_le_bytes(), Outgoing { parts: &[&value], handles: &[] })?;
        Ok(())
    }

    fn living(&self) -> Result<Vec<Handle>, HeapError> {
        let heap = self.members.handle().heap();
        let ids = self.members.values()?.into_iter().filter_map(|item| {
            let bits = u64::from_le_bytes(item.bytes.try_into().ok()?);
            BlockId::from_bits(bits)
        });
        // What is gone is stale.
        Ok(ids.filter_map(|id| Handle::from_id(heap, id).ok()).collect())
    }
}

/// Removes what a container holds.
fn empty(member: Handle) -> Result<(), HeapError> {
    match member.kind() {
        ObjectKind::Dict => Dict::from_handle(member)?.clear(),
        ObjectKind::List => List::from_handle(member)?.clear(),
        ObjectKind::Queue => {
            let queue = Queue::from_handle(member)?;
            while queue.try_get().is_ok() {}
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An error if the manager was shut down.
#[inline]
pub(crate) fn check(closed: &Event) -> PyResult<()> {
    if closed.is_set() { Err(shut_down()) } else { Ok(()) }
}

#[cold]
fn shut_down() -> PyErr {
    const EPIPE: i32 = 32;
    PyBrokenPipeError::new_err((EPIPE, "the manager of this object was shut down"))
}

/// Which object a proxy is for, as a pickle says it: the family, the object, the manager.
pub(crate) type State = (u64, u64, u64);

/// The state of a proxy. If something carries the pickle, it keeps the object alive; else somebody has to hold a proxy
/// until it is unpickled, as with the standard library.
pub(crate) fn state(object: &Handle, closed: &Event) -> State {
    let (closed, nonce) = (closed.handle(), object.heap().nonce());
    carrier::mention_if_carried(object);
    carrier::mention_if_carried(closed);
    (nonce, object.id().bits(), closed.id().bits())
}

/// Object and manager of such a state.
///
/// # Errors
/// If they are gone, or belong to another program.
pub(crate) fn found(state: State) -> PyResult<(Handle, Event)> {
    let (nonce, object, closed) = state;
    if Heap::existing().is_none_or(|heap| heap.nonce() != nonce) {
        return Err(PyValueError::new_err(
            "this proxy is for an object of another program: only managers with an address are reached from elsewhere",
        ));
    }
    let closed = Event::from_handle(carrier::found(closed)?).map_err(errors::heap)?;
    Ok((carrier::found(object)?, closed))
}
