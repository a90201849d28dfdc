//! Locks for mutual exclusion: [`Lock`] and [`RLock`].

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use tenfold_engine::shm::sync::{self, Acquired};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap, HeapError};

use crate::error::{Error, Result};
use crate::handle::handle_type;

/// A guard that a [`LockError`] can carry.
pub trait Guard: sealed::Guard {}
impl<G: sealed::Guard> Guard for G {}

pub(crate) mod sealed {
    /// Implemented by the guards of this crate.
    pub trait Guard {
        /// What the guard holds, as messages name it.
        const WHAT: &'static str;
    }
}

/// Why a lock could not be taken in peace. With `?` it becomes an [`Error`], which frees the lock
/// if it was taken.
pub enum LockError<G> {
    /// The lock **is** taken, and this is its guard; its last holder was killed or crashed, so what
    /// the lock guards may be half changed. Exactly one process is told.
    OwnerDied(G),
    /// The time limit passed.
    TimedOut,
    /// The lock could not be used at all.
    Failed(Error),
}

impl<G: Guard> LockError<G> {
    /// The guard, if the lock was taken: for those who can repair what it guards, or do not care.
    ///
    /// ```
    /// # use tenfold::{Lock, LockError};
    /// # fn main() -> tenfold::Result<()> {
    /// let lock = Lock::new()?;
    /// let guard = lock.lock().or_else(LockError::recover)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the error was, if the lock was not taken.
    pub fn recover(self) -> Result<G> {
        match self {
            LockError::OwnerDied(guard) => Ok(guard),
            error => Err(error.into()),
        }
    }
}

impl<G: Guard> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(_) => f.write_str("OwnerDied(..)"),
            LockError::TimedOut => f.write_str("TimedOut"),
            LockError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<G: Guard> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(_) => Error::OwnerDied { what: G::WHAT }.fmt(f),
            LockError::TimedOut => Error::TimedOut { what: G::WHAT }.fmt(f),
            LockError::Failed(error) => error.fmt(f),
        }
    }
}

impl<G: Guard> std::error::Error for LockError<G> {}

impl<G: Guard> From<LockError<G>> for Error {
    fn from(error: LockError<G>) -> Error {
        match error {
            LockError::OwnerDied(_) => Error::OwnerDied { what: G::WHAT },
            LockError::TimedOut => Error::TimedOut { what: G::WHAT },
            LockError::Failed(error) => error,
        }
    }
}

impl<G> From<Error> for LockError<G> {
    fn from(error: Error) -> LockError<G> {
        LockError::Failed(error)
    }
}

impl<G> From<HeapError> for LockError<G> {
    fn from(error: HeapError) -> LockError<G> {
        LockError::Failed(error.into())
    }
}

/// The result of taking a lock.
pub type LockResult<G> = core::result::Result<G, LockError<G>>;

/// Turns the outcome of taking a lock into a guard.
pub(crate) fn guarded<G>(acquired: Acquired, guard: impl FnOnce() -> G) -> LockResult<G> {
    match acquired {
        Acquired::Yes => Ok(guard()),
        Acquired::OwnerDied => Err(LockError::OwnerDied(guard())),
        Acquired::TimedOut => Err(LockError::TimedOut),
    }
}

/// The same where nobody waits: not taken is not an error.
pub(crate) fn tried<G>(acquired: Acquired, guard: impl FnOnce() -> G) -> core::result::Result<Option<G>, LockError<G>> {
    match guarded(acquired, guard) {
        Ok(guard) => Ok(Some(guard)),
        Err(LockError::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A lock that one thread of one process can hold at a time. Not re-entrant: see [`RLock`].
///
/// Give it to other processes as an argument, in a queue, or in any other message.
///
/// ```
/// use tenfold::Lock;
/// # fn main() -> tenfold::Result<()> {
/// let lock = Lock::new()?;
/// {
///     let _held = lock.lock()?;
///     assert!(lock.try_lock()?.is_none());
/// }
/// assert!(!lock.is_locked());
/// # Ok(())
/// # }
/// ```
///
/// # If the holder dies
/// A holder that is killed or crashes frees the lock, and the next to take it gets
/// [`LockError::OwnerDied`]. One that exits leaves the lock taken; anyone may [`Lock::release_raw`]
/// it.
#[derive(Debug, Clone)]
pub struct Lock(sync::Lock);

handle_type!(Lock, Lock);

/// A [`Lock`] that is held until this is dropped.
///
/// A copy that a fork makes of it frees nothing.
#[must_use = "the lock is free again once the guard is dropped"]
#[derive(Debug)]
pub struct LockGuard<'a> {
    pub(crate) lock: &'a sync::Lock,
}

impl sealed::Guard for LockGuard<'_> {
    const WHAT: &'static str = "lock";
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // It fails only in a process that has lost its slot, and the lock with it.
        let _ = self.lock.release_own();
    }
}

impl Lock {
    /// A free lock.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new() -> Result<Lock> {
        Ok(Lock(sync::Lock::create(Heap::get()?)?))
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<Lock> {
        Ok(Lock(sync::Lock::from_handle(handle)?))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    pub(crate) fn inner(&self) -> &sync::Lock {
        &self.0
    }

    /// Takes the lock. Blocks while another thread or process holds it.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], which carries the guard.
    #[inline]
    pub fn lock(&self) -> LockResult<LockGuard<'_>> {
        guarded(self.0.acquire(Deadline::never())?, || LockGuard { lock: &self.0 })
    }

    /// Takes the lock if it is free, without blocking.
    ///
    /// # Errors
    /// As [`Lock::lock`].
    #[inline]
    pub fn try_lock(&self) -> core::result::Result<Option<LockGuard<'_>>, LockError<LockGuard<'_>>> {
        tried(self.0.try_acquire()?, || LockGuard { lock: &self.0 })
    }

    /// Takes the lock, blocking for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`]; as [`Lock::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<LockGuard<'_>> {
        guarded(self.0.acquire(Deadline::after(timeout))?, || LockGuard { lock: &self.0 })
    }

    /// Takes the lock without a guard, waiting for `timeout` at most, or for ever.
    ///
    /// # Errors
    /// If this process cannot join the family.
    pub fn acquire_raw(&self, timeout: Option<Duration>) -> Result<Acquired> {
        Ok(self.0.acquire(Deadline::from_timeout(timeout))?)
    }

    /// Frees the lock, whichever process took it. A guard that somebody may still have then holds
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Misuse`] if nobody holds it.
    pub fn release_raw(&self) -> Result<()> {
        Ok(self.0.release()?)
    }

    /// Whether anybody holds it.
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

/// A lock that the thread which holds it can take again.
///
/// ```
/// use tenfold::RLock;
/// # fn main() -> tenfold::Result<()> {
/// let lock = RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// drop(inner);
/// assert!(lock.is_locked());
/// drop(outer);
/// assert!(!lock.is_locked());
/// # Ok(())
/// # }
/// ```
///
/// # If the holder dies
/// As for [`Lock`].
#[derive(Debug, Clone)]
pub struct RLock(sync::RLock);

handle_type!(RLock, RLock);

/// An [`RLock`] that is held, once more, until this is dropped. It stays in the thread that took it.
#[must_use = "the lock is free again once the guard is dropped"]
#[derive(Debug)]
pub struct RLockGuard<'a> {
    pub(crate) lock: &'a sync::RLock,
    _in_this_thread: PhantomData<*const ()>,
}

impl sealed::Guard for RLockGuard<'_> {
    const WHAT: &'static str = "re-entrant lock";
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        // Not ours if this is a fork's copy.
        let _ = self.lock.release();
    }
}

impl RLock {
    /// A free lock.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new() -> Result<RLock> {
        Ok(RLock(sync::RLock::create(Heap::get()?)?))
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<RLock> {
        Ok(RLock(sync::RLock::from_handle(handle)?))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    pub(crate) fn inner(&self) -> &sync::RLock {
        &self.0
    }

    fn guard(&self) -> RLockGuard<'_> {
        RLockGuard { lock: &self.0, _in_this_thread: PhantomData }
    }

    /// Takes the lock, or takes it once more. Blocks while another thread holds it.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], which carries the guard.
    pub fn lock(&self) -> LockResult<RLockGuard<'_>> {
        guarded(self.0.acquire(Deadline::never())?, || self.guard())
    }

    /// Takes the lock if it is free or this thread's, without blocking.
    ///
    /// # Errors
    /// As [`RLock::lock`].
    pub fn try_lock(&self) -> core::result::Result<Option<RLockGuard<'_>>, LockError<RLockGuard<'_>>> {
        tried(self.0.try_acquire()?, || self.guard())
    }

    /// Takes the lock, blocking for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`]; as [`RLock::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<RLockGuard<'_>> {
        guarded(self.0.acquire(Deadline::after(timeout))?, || self.guard())
    }

    /// Takes the lock without a guard, waiting for `timeout` at most, or for ever.
    ///
    /// # Errors
    /// If this process cannot join the family.
    pub fn acquire_raw(&self, timeout: Option<Duration>) -> Result<Acquired> {
        Ok(self.0.acquire(Deadline::from_timeout(timeout))?)
    }

    /// Undoes one [`RLock::acquire_raw`] of this thread.
    ///
    /// # Errors
    /// [`Error::Misuse`] if this thread does not hold it.
    pub fn release_raw(&self) -> Result<()> {
        Ok(self.0.release()?)
    }

    /// Whether anybody holds it.
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}
