//! A meeting point: [`Barrier`].

use core::time::Duration;

use tenfold_engine::shm::sync;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap};

use crate::error::{Error, Result};
use crate::handle::handle_type;

/// A meeting point for a fixed number of parties: each waits until all have come.
///
/// ```
/// use tenfold::Barrier;
/// # fn main() -> tenfold::Result<()> {
/// let start = Barrier::new(2)?;
/// # let other = start.clone();
/// # let thread = std::thread::spawn(move || other.wait());
/// let place = start.wait()?;
/// assert!(place < 2);
/// # thread.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
///
/// # If a party dies
/// One that dies while it waits breaks the barrier: the others get [`Error::BrokenBarrier`], until
/// somebody calls [`Barrier::reset`]. A time limit that passes does the same.
#[derive(Debug, Clone)]
pub struct Barrier(sync::Barrier);

handle_type!(Barrier, Barrier);

impl Barrier {
    /// A barrier for `parties` parties.
    ///
    /// # Errors
    /// If there are none, or more than `i32::MAX`; if the shared heap has no room.
    pub fn new(parties: u64) -> Result<Barrier> {
        Ok(Barrier(sync::Barrier::create(Heap::get()?, parties)?))
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<Barrier> {
        Ok(Barrier(sync::Barrier::from_handle(handle)?))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Blocks until all parties have come. Returns in which place this one came, from 0: exactly
    /// one party gets each.
    ///
    /// # Errors
    /// [`Error::BrokenBarrier`].
    pub fn wait(&self) -> Result<u32> {
        place(self.0.wait(Deadline::never())?)
    }

    /// The same for `timeout` at most; when that passes, the barrier is broken for all.
    ///
    /// # Errors
    /// [`Error::BrokenBarrier`], [`Error::TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<u32> {
        place(self.0.wait(Deadline::after(timeout))?)
    }

    /// Blocks until all parties have come; the last one runs `action` before anybody goes on. If
    /// that panics, the barrier is broken.
    ///
    /// # Errors
    /// [`Error::BrokenBarrier`].
    pub fn wait_and(&self, action: impl FnOnce()) -> Result<u32> {
        let action = || {
            action();
            true
        };
        place(self.0.wait_and(Deadline::never(), action)?)
    }

    /// Breaks the barrier: all who wait and all who come get [`Error::BrokenBarrier`].
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn abort(&self) -> Result<()> {
        Ok(self.0.abort()?)
    }

    /// Makes the barrier as new; those who wait get [`Error::BrokenBarrier`].
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn reset(&self) -> Result<()> {
        Ok(self.0.reset()?)
    }

    /// How many parties it takes.
    pub fn parties(&self) -> u64 {
        self.0.parties()
    }

    /// How many wait now.
    pub fn waiting(&self) -> u32 {
        self.0.waiting()
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

fn place(end: sync::BarrierWait) -> Result<u32> {
    match end {
        sync::BarrierWait::Passed { index } => Ok(index),
        sync::BarrierWait::Broken => Err(Error::BrokenBarrier),
        sync::BarrierWait::TimedOut => Err(Error::TimedOut { what: "barrier" }),
    }
}
