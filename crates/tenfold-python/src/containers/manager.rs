//! What the objects of one manager have in common: that it may be shut down.
//!
//! ```text
//!  closed   an event: set once; every use of an object looks at it first
//!  members  a dict: number of a block ▶ its id, for each object that the manager handed out
//! ```
//!
//! The members are not held: an object dies with its last holder, and its entry is overwritten when the block is used
//! again. They are there for the shutdown, which empties what is left, cycles included, and wakes who waits.

use pyo3::exceptions::{PyBrokenPipeError, PyValueError};
use pyo3::prelude::*;
use tenfold_engine::shm::dict::Dict;
use tenfold_engine::shm::heap::BlockId;
use tenfold_engine::shm::list::List;
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::shm::queue::Queue;
use tenfold_engine::shm::sync::{Barrier, Condition, Event, Lock, Semaphore, SyncError};
use tenfold_engine::{Handle, Heap, HeapError, ObjectKind};

use crate::carrier::{self, Parcel};
use crate::shell::Shell;
use crate::{errors, family};

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

    /// Makes all further uses of its objects errors, empties its containers, and wakes who waits.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.closed.set();
        py.detach(|| {
            for member in self.living()? {
                end(member)?;
            }
            self.members.clear().map_err(SyncError::Heap)
        })
        .map_err(errors::sync)
    }

    /// How many of its objects are alive.
    fn __len__(&self) -> PyResult<usize> {
        Ok(self.living().map_err(errors::heap)?.len())
    }

    /// Notes objects that it has handed out: those that were pickled in `carry`.
    fn enrol_all(&self, members: &Parcel) -> PyResult<()> {
        members.handles().iter().try_for_each(|member| self.enrol(member)).map_err(errors::heap)
    }

    /// What its objects keep of it.
    fn membership(&self) -> Membership {
        let membership = Membership { closed: Shell::empty() };
        membership.closed.fill(self.closed.clone());
        membership
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

/// Removes what an object holds, and wakes who waits for it: they look whether the manager was shut down then. Of those
/// who wait for a lock or a permit one is woken, who passes it on.
fn end(member: Handle) -> Result<(), SyncError> {
    match member.kind() {
        ObjectKind::Dict => Dict::from_handle(member)?.clear()?,
        ObjectKind::List => List::from_handle(member)?.clear()?,
        ObjectKind::Queue => {
            let queue = Queue::from_handle(member)?;
            queue.close()?;
            while queue.try_get().is_ok() {}
        }
        ObjectKind::Event => Event::from_handle(member)?.set(),
        ObjectKind::Barrier => Barrier::from_handle(member)?.abort()?,
        ObjectKind::Condition => {
            Condition::from_handle(member)?.notify_all()?;
        }
        ObjectKind::Lock => {
            let lock = Lock::from_handle(member)?;
            if lock.is_locked() {
                // Its holder may have been faster.
                let _ = lock.release();
            }
        }
        ObjectKind::Semaphore => {
            let semaphore = Semaphore::from_handle(member)?;
            if semaphore.value() == 0 {
                let _ = semaphore.release(1);
            }
        }
        _ => {}
    }
    Ok(())
}

/// What an object keeps of its manager; travels with it.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct Membership {
    closed: Shell<Event>,
}

#[pymethods]
impl Membership {
    #[new]
    fn new() -> Membership {
        Membership { closed: Shell::empty() }
    }

    /// Whether the manager was shut down.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.closed.get()?.is_set())
    }

    /// Raises an error if the manager was shut down.
    fn check(&self) -> PyResult<()> {
        check(self.closed.get()?)
    }

    fn __getstate__(&self) -> PyResult<State> {
        let closed = self.closed.get()?;
        Ok(state(closed.handle(), closed))
    }

    fn __setstate__(&self, state: State) -> PyResult<()> {
        self.closed.fill(found(state)?.1);
        Ok(())
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
