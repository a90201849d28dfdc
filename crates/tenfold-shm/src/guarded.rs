//! Process-local data behind a mutex that survives a fork.

use core::cell::UnsafeCell;

use tenfold_sys::futex::PrivateMutex;

/// Data that one thread of this process looks at at a time.
///
/// Unlike std's mutex it can be locked in one fork handler and unlocked in another, in parent and
/// child, so that a child never inherits it locked by a thread that it does not have.
pub(crate) struct Guarded<T> {
    mutex: PrivateMutex,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through the mutex.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub(crate) const fn new(value: T) -> Guarded<T> {
        Guarded { mutex: PrivateMutex::new(), value: UnsafeCell::new(value) }
    }

    /// Runs `f` with the data. Not re-entrant.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the mutex is held, so no other reference to the value exists.
        self.mutex.with(|| f(unsafe { &mut *self.value.get() }))
    }

    /// The data, for a fork handler that has locked the mutex.
    ///
    /// # Safety
    /// The calling thread holds the mutex for as long as it uses the reference, and has no other.
    #[expect(clippy::mut_from_ref, reason = "the mutex is held")]
    pub(crate) unsafe fn get_locked(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.value.get() }
    }

    pub(crate) fn mutex(&self) -> &PrivateMutex {
        &self.mutex
    }
}
