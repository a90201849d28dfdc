//! Who sleeps until an end of the queue moves, and how few wake-ups do.
//!
//! Two counts under the lock of that end: `asleep`, those who have enlisted and not yet left, and
//! `notified`, those of them for whom a wake-up is on its way. Whoever moves the end wakes somebody
//! only if more are asleep than notified, so that a thousand puts to a consumer that is still
//! waking up make one system call. The futex word moves with each notification: one who has
//! enlisted but does not sleep yet then does not go to sleep at all.
//!
//! *Killed here:* a sleeper that is killed leaves both counts too high by one at most and `asleep`
//! never lower than `notified`, which costs a system call now and then. One that is killed after it
//! was notified has taken a wake-up with it: the sweep wakes all ([`Waiters::notify_all`]), each
//! looks at the queue, and goes back to sleep if there is nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use tenfold_sys::futex;

/// The waiters of one end.
#[repr(C)]
pub(super) struct Waiters<W = AtomicU32> {
    asleep: W,
    notified: W,
    ring: W,
}

/// A word that changes under a lock, and is slept on: the real one, or loom's.
pub(super) trait Counter {
    fn get(&self) -> u32;
    fn set(&self, value: u32);
}

impl Counter for AtomicU32 {
    #[inline(always)]
    fn get(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn set(&self, value: u32) {
        self.store(value, Ordering::Release);
    }
}

/// A wake-up to be sent once the lock is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct Wake(pub(super) u32);

impl Wake {
    pub(super) const NOBODY: Wake = Wake(0);
}

impl<W: Counter> Waiters<W> {
    /// Under the lock: enlists the caller, who has seen that there is reason to wait. Returns the
    /// value of the futex word to sleep on.
    pub(super) fn enlist(&self) -> u32 {
        self.asleep.set(self.asleep.get().saturating_add(1));
        self.ring.get()
    }

    /// Under the lock: the caller, who has enlisted, does not sleep any more.
    pub(super) fn leave(&self) {
        self.notified.set(self.notified.get().saturating_sub(1));
        self.asleep.set(self.asleep.get().saturating_sub(1));
    }

    /// Under the lock: `events` things have happened, each of interest to one waiter.
    #[inline(always)]
    pub(super) fn notify(&self, events: u64) -> Wake {
        let (asleep, notified) = (self.asleep.get(), self.notified.get());
        if asleep <= notified { Wake::NOBODY } else { self.notify_some(notified, asleep - notified, events) }
    }

    #[cold]
    fn notify_some(&self, notified: u32, idle: u32, events: u64) -> Wake {
        let chosen = u64::from(idle).min(events) as u32;
        self.notified.set(notified + chosen);
        self.ring.set(self.ring.get().wrapping_add(1));
        Wake(chosen)
    }

    /// Under the lock: something has happened that is of interest to all.
    pub(super) fn notify_all(&self) -> Wake {
        let asleep = self.asleep.get();
        self.notified.set(asleep);
        self.ring.set(self.ring.get().wrapping_add(1));
        if asleep == 0 { Wake::NOBODY } else { Wake(u32::MAX) }
    }
}

impl Waiters {
    /// The word to sleep on.
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.ring
    }

    /// Outside the lock: sends what a notification came to.
    #[inline(always)]
    pub(super) fn send(&self, wake: Wake) {
        if wake != Wake::NOBODY {
            futex::wake(&self.ring, wake.0);
        }
    }
}
