//! The lock that goes with a condition: a plain or a re-entrant one.

use tenfold_sys::clock::Deadline;

use super::rlock::Depth;
use super::{Acquired, Lock, RLock, SyncResult};
use crate::error::Result;
use crate::object::{Handle, ObjectKind};

/// The lock that goes with a condition.
#[derive(Debug, Clone)]
pub enum UserLock {
    /// A plain one.
    Lock(Lock),
    /// A re-entrant one.
    RLock(RLock),
}

/// How a lock was held that a wait has let go of.
#[derive(Debug, Clone, Copy)]
pub enum LetGo {
    /// Once.
    Lock,
    /// So often by one thread.
    RLock(Depth),
}

impl UserLock {
    pub(super) fn handle(&self) -> &Handle {
        match self {
            UserLock::Lock(lock) => lock.handle(),
            UserLock::RLock(lock) => lock.handle(),
        }
    }

    pub(super) fn from_handle(handle: Handle) -> Result<UserLock> {
        match handle.kind() {
            ObjectKind::RLock => RLock::from_handle(handle).map(UserLock::RLock),
            _ => Lock::from_handle(handle).map(UserLock::Lock),
        }
    }

    /// Takes the lock, waiting until the deadline.
    ///
    /// # Errors
    /// If this process has no slot in the family and can get none.
    pub fn acquire(&self, deadline: Deadline) -> Result<Acquired> {
        match self {
            UserLock::Lock(lock) => lock.acquire(deadline),
            UserLock::RLock(lock) => lock.acquire(deadline),
        }
    }

    /// Undoes one acquire.
    ///
    /// # Errors
    /// [`super::SyncError::NotHeld`], [`super::SyncError::NotOwner`].
    pub fn release(&self) -> SyncResult<()> {
        match self {
            UserLock::Lock(lock) => lock.release(),
            UserLock::RLock(lock) => lock.release(),
        }
    }

    /// Whether this thread holds it (for a plain lock: whether this process does).
    ///
    /// # Errors
    /// As [`UserLock::acquire`].
    pub fn is_mine(&self) -> Result<bool> {
        match self {
            UserLock::Lock(lock) => lock.is_mine(),
            UserLock::RLock(lock) => lock.is_mine(),
        }
    }

    /// Lets go of it altogether, as a wait does.
    ///
    /// # Errors
    /// As [`UserLock::release`].
    pub fn let_go(&self) -> SyncResult<LetGo> {
        match self {
            UserLock::Lock(lock) => lock.release().map(|()| LetGo::Lock),
            UserLock::RLock(lock) => lock.release_all().map(LetGo::RLock),
        }
    }

    /// Takes it back as often as before, waiting until the deadline.
    ///
    /// # Errors
    /// As [`UserLock::acquire`].
    pub fn take_back(&self, how: LetGo, deadline: Deadline) -> Result<Acquired> {
        match (self, how) {
            (UserLock::RLock(lock), LetGo::RLock(depth)) => lock.acquire_again(depth, deadline),
            (lock, _) => lock.acquire(deadline),
        }
    }
}
