//! The descriptor by which a process polls a queue.
//!
//! It is made when somebody first asks for it, and again in a child of fork, which must not hear its parent's. Whoever
//! finds the queue empty meanwhile silences it, so that it is readable as long as there are messages, as a pipe would be.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tenfold_engine::HeapError;
use tenfold_engine::shm::queue::{Doorbell, Queue};

use super::watch::Watch;

/// A descriptor that is readable while a queue has messages.
#[derive(Debug)]
enum Descriptor {
    /// Whoever puts a message rings.
    Doorbell(Doorbell),
    /// A thread rings.
    Watch(Watch),
}

impl Descriptor {
    fn new(queue: &Queue) -> Result<Descriptor, HeapError> {
        match Doorbell::new(queue) {
            Ok(doorbell) => Ok(Descriptor::Doorbell(doorbell)),
            Err(HeapError::Os { call: Doorbell::CALL, .. }) => Watch::new(queue).map(Descriptor::Watch),
            Err(error) => Err(error),
        }
    }

    fn number(&self) -> RawFd {
        match self {
            Descriptor::Doorbell(doorbell) => doorbell.fd().as_raw_fd(),
            Descriptor::Watch(watch) => watch.fd(),
        }
    }

    /// Whether this process made it, and not the one that it was forked from.
    fn is_ours(&self) -> bool {
        match self {
            Descriptor::Doorbell(doorbell) => doorbell.is_ours(),
            Descriptor::Watch(watch) => watch.is_ours(),
        }
    }

    /// Makes it readable if and only if there is a message now.
    fn rearm(&self) -> Result<(), HeapError> {
        match self {
            Descriptor::Doorbell(doorbell) => doorbell.rearm(),
            Descriptor::Watch(watch) => watch.rearm(),
        }
    }
}

/// The descriptor that this process may have for a queue.
///
/// The mutex is taken with the GIL held and let go of before that is, so it is free whenever a fork leaves a child that
/// can run Python.
#[derive(Debug, Default)]
pub(super) struct Bell {
    exists: AtomicBool,
    descriptor: Mutex<Option<Descriptor>>,
}

impl Bell {
    fn descriptor(&self) -> MutexGuard<'_, Option<Descriptor>> {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor's number; it is readable now if there is a message.
    ///
    /// # Errors
    /// If this process has no descriptors left.
    pub(super) fn fd(&self, queue: &Queue) -> Result<RawFd, HeapError> {
        let mut place = self.descriptor();
        if let Some(descriptor) = place.as_ref().filter(|descriptor| descriptor.is_ours()) {
            descriptor.rearm()?;
            return Ok(descriptor.number());
        }
        // The parent's goes first, so that its number can be used again.
        *place = None;
        let descriptor = place.insert(Descriptor::new(queue)?);
        descriptor.rearm()?;
        self.exists.store(true, Ordering::Relaxed);
        Ok(descriptor.number())
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
            && let Some(descriptor) = self.descriptor().as_ref().filter(|descriptor| descriptor.is_ours())
        {
            // One that cannot be silenced is heard once too often.
            let _ = descriptor.rearm();
        }
    }

    /// Closes the descriptor.
    pub(super) fn remove(&self) {
        if self.exists.swap(false, Ordering::Relaxed) {
            *self.descriptor() = None;
        }
    }
}
