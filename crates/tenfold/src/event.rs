//! A flag to wait for: [`Event`].

use core::time::Duration;

use tenfold_engine::shm::sync;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap};

use crate::error::Result;
use crate::handle::handle_type;

/// A flag that any process can set, clear and wait for.
///
/// ```
/// use tenfold::Event;
/// # fn main() -> tenfold::Result<()> {
/// let ready = Event::new()?;
/// # let r = ready.clone();
/// # std::thread::spawn(move || r.set());
/// ready.wait()?;
/// assert!(ready.is_set());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Event(sync::Event);

handle_type!(Event, Event);

impl Event {
    /// An event that is not set.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new() -> Result<Event> {
        Ok(Event(sync::Event::create(Heap::get()?)?))
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<Event> {
        Ok(Event(sync::Event::from_handle(handle)?))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Sets the flag; all who wait go on.
    pub fn set(&self) {
        self.0.set();
    }

    /// Clears the flag. Whoever a `set` has let go still goes on.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Blocks until the flag is set.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn wait(&self) -> Result<()> {
        self.0.wait(Deadline::never())?;
        Ok(())
    }

    /// Blocks until the flag is set, for `timeout` at most. Returns whether it was.
    ///
    /// # Errors
    /// As [`Event::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        Ok(self.0.wait(Deadline::after(timeout))?)
    }
}
