//! Counters of permits: [`Semaphore`] and [`BoundedSemaphore`].

use core::time::Duration;

use tenfold_engine::shm::sync;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap};

use crate::error::{Error, Result};
use crate::handle::handle_type;

/// A permit of a semaphore, put back when this is dropped, or when its process is killed.
#[must_use = "the permit goes back once this is dropped"]
#[derive(Debug)]
pub struct Permit<'a>(&'a sync::Semaphore);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // A fork's copy puts nothing back. A bounded semaphore that somebody else has filled up
        // needs this permit no more.
        let _ = self.0.release_held();
    }
}

macro_rules! semaphore {
    ($(#[$doc:meta])* $name:ident, |$permits:ident| $bound:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(sync::Semaphore);

        handle_type!($name, Semaphore);

        impl $name {
            /// A semaphore with so many permits.
            ///
            /// # Errors
            /// If there are more than `i32::MAX`, or the shared heap has no room.
            pub fn new($permits: u64) -> Result<Self> {
                Ok(Self(sync::Semaphore::create(Heap::get()?, $permits, $bound)?))
            }

            pub(crate) fn from_handle(handle: Handle) -> Result<Self> {
                Ok(Self(sync::Semaphore::from_handle(handle)?))
            }

            pub(crate) fn handle(&self) -> &Handle {
                self.0.handle()
            }

            /// Takes a permit. Blocks while there is none.
            ///
            /// # Errors
            /// If this process cannot join the family.
            pub fn acquire(&self) -> Result<Permit<'_>> {
                self.0.acquire_held(Deadline::never())?;
                Ok(Permit(&self.0))
            }

            /// Takes a permit if there is one, without blocking.
            ///
            /// # Errors
            /// If this process cannot join the family.
            pub fn try_acquire(&self) -> Result<Option<Permit<'_>>> {
                Ok(self.0.try_acquire_held()?.then(|| Permit(&self.0)))
            }

            /// Takes a permit, blocking for `timeout` at most.
            ///
            /// # Errors
            /// [`Error::TimedOut`]; if this process cannot join the family.
            pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>> {
                if self.0.acquire_held(Deadline::after(timeout))? {
                    Ok(Permit(&self.0))
                } else {
                    Err(Error::TimedOut { what: "semaphore" })
                }
            }

            /// Takes a permit as a token: nobody's, put back by whoever calls `release_raw`, and
            /// lost with whoever took it. Waits for `timeout` at most, or for ever; returns whether
            /// there was a permit.
            ///
            /// # Errors
            /// If this process cannot join the family.
            pub fn acquire_raw(&self, timeout: Option<Duration>) -> Result<bool> {
                Ok(self.0.acquire(Deadline::from_timeout(timeout))?)
            }

            /// Puts `permits` tokens back, taken by anyone or never.
            ///
            /// # Errors
            /// [`Error::Misuse`] if that would be more than the semaphore can have.
            pub fn release_raw(&self, permits: u64) -> Result<()> {
                Ok(self.0.release(permits)?)
            }

            /// Permits that can be taken now.
            pub fn value(&self) -> u64 {
                self.0.value()
            }
        }
    };
}

semaphore! {
    /// A counter of permits that can grow beyond its first value.
    ///
    /// ```
    /// use tenfold::Semaphore;
    /// # fn main() -> tenfold::Result<()> {
    /// let workshop = Semaphore::new(2)?;
    /// let (_one, _two) = (workshop.acquire()?, workshop.acquire()?);
    /// assert!(workshop.try_acquire()?.is_none());
    /// workshop.release_raw(1)?; // a third place
    /// assert_eq!(workshop.value(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # If a holder dies
    /// The permits of its [`Permit`]s go back, if it was killed or crashed; tokens of `acquire_raw`
    /// do not.
    Semaphore, |permits| None
}

semaphore! {
    /// A counter of permits that never has more than at first: putting back too many is an error.
    ///
    /// ```
    /// use tenfold::BoundedSemaphore;
    /// # fn main() -> tenfold::Result<()> {
    /// let workshop = BoundedSemaphore::new(2)?;
    /// drop(workshop.acquire()?);
    /// assert!(workshop.release_raw(1).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # If a holder dies
    /// As for [`Semaphore`].
    BoundedSemaphore, |permits| Some(permits)
}
