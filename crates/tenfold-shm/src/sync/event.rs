//! A flag that processes wait for.
//!
//! ```text
//!  ┌ times set · is set ┬ sleepers ┐
//! ```
//!
//! The word counts how often the flag was set, so that a sleeper that was woken by a `set` returns
//! even if somebody has cleared the flag since.
//!
//! *Killed here:* the flag is one word. One that dies between setting it and waking the sleepers
//! costs them a slice.

use core::sync::atomic::{AtomicU64, Ordering};

use tenfold_sys::clock::Deadline;

use super::wait_point::{LONG, WaitPoint};
use crate::error::Result;
use crate::heap::{At, Heap, Shared};
use crate::kill_point::{KillPoint, reach};
use crate::object::{Handle, ObjectKind};

const SET: u64 = 1;

#[repr(C)]
struct EventObject {
    state: AtomicU64,
    sleepers: WaitPoint,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for EventObject {}

/// A flag that can be set, cleared and waited for by any process.
#[derive(Debug, Clone)]
pub struct Event {
    handle: Handle,
    shared: At<EventObject>,
}

impl Event {
    /// An event that is not set.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap) -> Result<Event> {
        let handle = Handle::create(heap, ObjectKind::Event, size_of::<EventObject>() as u64, |_| Ok(()))?;
        Event::from_handle(handle)
    }

    /// The event behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Event> {
        let handle = handle.expect(ObjectKind::Event)?;
        let shared = handle.view()?;
        Ok(Event { handle, shared })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sets the flag and wakes all who wait. Does not block.
    pub fn set(&self) {
        let set = |state: u64| (state & SET == 0).then(|| state.wrapping_add(2) | SET);
        if self.shared.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, set).is_ok() {
            reach(KillPoint::EventSet);
            self.shared.sleepers.notify(u32::MAX);
        }
    }

    /// Clears the flag.
    pub fn clear(&self) {
        self.shared.state.fetch_and(!SET, Ordering::AcqRel);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) & SET != 0
    }

    /// Waits until the flag is set. Returns whether it was before the deadline.
    ///
    /// # Errors
    /// None at present; the heap's.
    pub fn wait(&self, deadline: Deadline) -> Result<bool> {
        let shared = self.shared.get();
        let before = shared.state.load(Ordering::Acquire);
        if before & SET != 0 {
            return Ok(true);
        }
        let passed = || shared.state.load(Ordering::Acquire) >> 1 != before >> 1;
        let waited = shared.sleepers.wait(deadline, || LONG, passed, |_| Ok(passed().then_some(())), || ())?;
        Ok(waited.is_some())
    }
}
