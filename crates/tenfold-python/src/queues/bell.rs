//! The descriptor by which a process polls a queue.
//!
//! It is made when somebody first asks for it, and again in a child of fork, which must not hear its parent's. Whoever
//! finds the queue empty meanwhile silences it, so that it is readable as long as there are messages, as a pipe would be.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tenfold_engine::HeapError;
use tenfold_engine::shm::queue::{Doorbell, Queue};

/// A doorbell that this process may have put on a queue.
///
/// The mutex is taken with the GIL held and let go of before that is, so it is free whenever a fork leaves a child that
/// can run Python.
#[derive(Debug, Default)]
pub(super) struct Bell {
    exists: AtomicBool,
    doorbell: Mutex<Option<Doorbell>>,
}

impl Bell {
    fn doorbell(&self) -> MutexGuard<'_, Option<Doorbell>> {
        self.doorbell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor, readable now if there is a message.
    ///
    /// # Errors
    /// If the queue has as many doorbells as it can have, or this process no descriptors left.
    pub(super) fn fd(&self, queue: &Queue) -> Result<RawFd, HeapError> {
        let mut place = self.doorbell();
        if let Some(doorbell) = place.as_ref().filter(|doorbell| doorbell.is_ours()) {
            doorbell.rearm()?;
            return Ok(doorbell.fd().as_raw_fd());
        }
        // The parent's goes first, so that its number can be used again.
        *place = None;
        let doorbell = place.insert(Doorbell::new(queue)?);
        self.exists.store(true, Ordering::Relaxed);
        Ok(doorbell.fd().as_raw_fd())
    }

    /// Somebody has looked at the queue: if it was empty, the bell falls silent.
    #[inline]
    pub(super) fn settle(&self, queue: &Queue) {
        if self.exists.load(Ordering::Relaxed) {
            self.settle_slowly(queue);
        }
    }

    #[cold]
    fn settle_slowly(&self, queue: &Queue) {
        if queue.is_empty()
            && let Some(doorbell) = self.doorbell().as_ref().filter(|doorbell| doorbell.is_ours())
        {
            // One that cannot be silenced is heard once too often.
            let _ = doorbell.rearm();
        }
    }

    /// Takes the doorbell off and closes its descriptor.
    pub(super) fn remove(&self) {
        if self.exists.swap(false, Ordering::Relaxed) {
            *self.doorbell() = None;
        }
    }
}
