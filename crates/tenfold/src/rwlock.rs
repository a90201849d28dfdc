//! A lock for many readers or one writer: [`RwLock`].

use core::time::Duration;

use tenfold_engine::shm::sync;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap};

use crate::error::Result;
use crate::handle::handle_type;
use crate::lock::{LockError, LockResult, guarded, sealed, tried};

/// A lock that any number of readers or one writer can hold. Neither side starves.
///
/// ```
/// use tenfold::RwLock;
/// # fn main() -> tenfold::Result<()> {
/// let lock = RwLock::new()?;
/// {
///     let (_one, _two) = (lock.read()?, lock.read()?);
///     assert!(lock.try_write()?.is_none());
/// }
/// let _alone = lock.write()?;
/// # Ok(())
/// # }
/// ```
///
/// # If a holder dies
/// A reader's share goes back. A writer's death frees the lock, and the next to take it, as reader
/// or writer, gets [`LockError::OwnerDied`].
#[derive(Debug, Clone)]
pub struct RwLock(sync::RwLock);

handle_type!(RwLock, RwLock);

/// An [`RwLock`] that is held for reading until this is dropped.
#[must_use = "the lock is free again once the guard is dropped"]
#[derive(Debug)]
pub struct ReadGuard<'a>(&'a sync::RwLock);

/// An [`RwLock`] that is held for writing until this is dropped.
#[must_use = "the lock is free again once the guard is dropped"]
#[derive(Debug)]
pub struct WriteGuard<'a>(&'a sync::RwLock);

impl sealed::Guard for ReadGuard<'_> {
    const WHAT: &'static str = "reader-writer lock";
}

impl sealed::Guard for WriteGuard<'_> {
    const WHAT: &'static str = "reader-writer lock";
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        // A fork's copy has nothing to give back.
        let _ = self.0.release_read();
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        // A fork's copy has nothing to give back.
        let _ = self.0.release_write();
    }
}

impl RwLock {
    /// A free lock.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new() -> Result<RwLock> {
        Ok(RwLock(sync::RwLock::create(Heap::get()?)?))
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<RwLock> {
        Ok(RwLock(sync::RwLock::from_handle(handle)?))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Takes the lock for reading. Blocks while a writer holds it or has waited for long.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], which carries the guard.
    pub fn read(&self) -> LockResult<ReadGuard<'_>> {
        guarded(self.0.acquire_read(Deadline::never())?, || ReadGuard(&self.0))
    }

    /// Takes the lock for reading if no writer holds it or waits, without blocking.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    pub fn try_read(&self) -> core::result::Result<Option<ReadGuard<'_>>, LockError<ReadGuard<'_>>> {
        tried(self.0.try_acquire_read()?, || ReadGuard(&self.0))
    }

    /// Takes the lock for reading, blocking for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`]; as [`RwLock::read`].
    pub fn read_timeout(&self, timeout: Duration) -> LockResult<ReadGuard<'_>> {
        guarded(self.0.acquire_read(Deadline::after(timeout))?, || ReadGuard(&self.0))
    }

    /// Takes the lock for writing. Blocks while anybody else holds it.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    pub fn write(&self) -> LockResult<WriteGuard<'_>> {
        guarded(self.0.acquire_write(Deadline::never())?, || WriteGuard(&self.0))
    }

    /// Takes the lock for writing if nobody holds it, without blocking.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    pub fn try_write(&self) -> core::result::Result<Option<WriteGuard<'_>>, LockError<WriteGuard<'_>>> {
        tried(self.0.try_acquire_write()?, || WriteGuard(&self.0))
    }

    /// Takes the lock for writing, blocking for `timeout` at most.
    ///
    /// # Errors
    /// As [`RwLock::read_timeout`].
    pub fn write_timeout(&self, timeout: Duration) -> LockResult<WriteGuard<'_>> {
        guarded(self.0.acquire_write(Deadline::after(timeout))?, || WriteGuard(&self.0))
    }
}
