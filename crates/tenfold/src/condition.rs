//! A place to wait for a change: [`Condition`].

use core::time::Duration;

use tenfold_engine::shm::sync::{self, Acquired, UserLock};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap};

use crate::error::{Error, Result};
use crate::handle::handle_type;
use crate::lock::{Lock, LockGuard, LockResult, RLock, RLockGuard, guarded};

/// A place to wait for a change that a lock guards.
///
/// Look at the state with the lock held, wait while it is not as you want it; whoever changes it
/// has the lock too, and notifies. `notify(n)` wakes exactly the `n` that have waited longest.
///
/// ```
/// use tenfold::{Condition, Value};
/// # fn main() -> tenfold::Result<()> {
/// let (changed, level) = (Condition::new()?, Value::new(0)?);
/// # let (c, l) = (changed.clone(), level.clone());
/// # let filler = std::thread::spawn(move || -> tenfold::Result<()> {
/// #     let _held = c.lock()?;
/// #     l.set(3)?;
/// #     c.notify_all()?;
/// #     Ok(())
/// # });
/// let mut held = changed.lock()?;
/// changed.wait_for(&mut held, || Ok(level.get()? >= 3))?;
/// # filler.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
///
/// # If a waiter dies
/// It is waited for no more; if it had been notified already, the next in line is notified instead.
#[derive(Debug, Clone)]
pub struct Condition(sync::Condition);

handle_type!(Condition, Condition);

mod sealed {
    use tenfold_engine::Handle;
    /// A guard with which one can wait for a condition.
    pub trait Waits {
        /// The lock that it holds.
        fn lock(&self) -> &Handle;
    }
}

/// The guard of a lock that a condition can let go of while it waits.
pub trait WaitGuard: sealed::Waits {}
impl WaitGuard for LockGuard<'_> {}
impl WaitGuard for RLockGuard<'_> {}

impl sealed::Waits for LockGuard<'_> {
    fn lock(&self) -> &Handle {
        self.lock.handle()
    }
}

impl sealed::Waits for RLockGuard<'_> {
    fn lock(&self) -> &Handle {
        self.lock.handle()
    }
}

impl Condition {
    /// A condition with a [`Lock`] of its own.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new() -> Result<Condition> {
        Condition::with_lock(&Lock::new()?)
    }

    /// A condition for a lock that is used elsewhere too.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn with_lock(lock: &Lock) -> Result<Condition> {
        Ok(Condition(sync::Condition::create(Heap::get()?, UserLock::Lock(lock.inner().clone()))?))
    }

    /// A condition for a re-entrant lock; a wait lets go of it altogether.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn with_rlock(lock: &RLock) -> Result<Condition> {
        Ok(Condition(sync::Condition::create(Heap::get()?, UserLock::RLock(lock.inner().clone()))?))
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<Condition> {
        Ok(Condition(sync::Condition::from_handle(handle)?))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Takes the condition's lock. For a condition made by [`Condition::with_rlock`], take that lock
    /// itself.
    ///
    /// # Errors
    /// [`crate::LockError::OwnerDied`], which carries the guard; [`Error::InvalidArgument`] for a
    /// re-entrant lock.
    pub fn lock(&self) -> LockResult<LockGuard<'_>> {
        match self.0.lock() {
            UserLock::Lock(lock) => guarded(lock.acquire(Deadline::never())?, || LockGuard { lock }),
            UserLock::RLock(_) => Err(Error::InvalidArgument(
                "this condition was made with a re-entrant lock: take that lock and wait with its guard".into(),
            )
            .into()),
        }
    }

    fn wait_until(&self, guard: &impl WaitGuard, deadline: Deadline) -> Result<bool> {
        let own = match self.0.lock() {
            UserLock::Lock(lock) => lock.handle(),
            UserLock::RLock(lock) => lock.handle(),
        };
        if guard.lock() != own {
            return Err(Error::InvalidArgument("the guard holds another lock than this condition's".into()));
        }
        let end = self.0.wait(deadline)?;
        match end.acquired {
            Acquired::OwnerDied => Err(Error::OwnerDied { what: "condition's lock" }),
            Acquired::Yes | Acquired::TimedOut => Ok(end.notified),
        }
    }

    /// Lets go of the lock, waits to be notified, and takes the lock back.
    ///
    /// # Errors
    /// [`Error::OwnerDied`] if the lock came back from one that was killed; it is held then.
    /// [`Error::InvalidArgument`] if the guard is another lock's.
    pub fn wait(&self, guard: &mut impl WaitGuard) -> Result<()> {
        self.wait_until(guard, Deadline::never()).map(|_| ())
    }

    /// The same for `timeout` at most (and the time it takes to get the lock back). Returns whether
    /// it was notified.
    ///
    /// # Errors
    /// As [`Condition::wait`].
    pub fn wait_timeout(&self, guard: &mut impl WaitGuard, timeout: Duration) -> Result<bool> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// Waits until `ready` says so; it is called with the lock held, first before any wait.
    ///
    /// # Errors
    /// As [`Condition::wait`]; what `ready` returns.
    pub fn wait_for(&self, guard: &mut impl WaitGuard, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        while !ready()? {
            self.wait(guard)?;
        }
        Ok(())
    }

    /// The same for `timeout` at most. Returns what `ready` said last.
    ///
    /// # Errors
    /// As [`Condition::wait_for`].
    pub fn wait_for_timeout(
        &self,
        guard: &mut impl WaitGuard,
        timeout: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        loop {
            if ready()? {
                return Ok(true);
            }
            if !self.wait_until(guard, deadline)? && deadline.expired() {
                return ready();
            }
        }
    }

    /// Wakes the `count` that have waited longest. Returns how many there were.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn notify(&self, count: usize) -> Result<usize> {
        Ok(self.0.notify(count)?)
    }

    /// Wakes the one that has waited longest. Returns whether there was one.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn notify_one(&self) -> Result<bool> {
        Ok(self.0.notify(1)? == 1)
    }

    /// Wakes all who wait. Returns how many there were.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn notify_all(&self) -> Result<usize> {
        Ok(self.0.notify_all()?)
    }
}
