//! Where those sleep who wait for a change, and how they are woken.
//!
//! ```text
//!  ┌ sequence ┬ (spare) ┬ epoch · waiters ┐   24 bytes with alignment
//! ```
//!
//! Whoever changes the state that others wait for calls [`WaitPoint::notify`]: no system call when
//! nobody waits. The state itself lies elsewhere.
//!
//! *Killed here:* a waiter that dies stays in the count, which costs one system call; the notifier
//! that finds nobody asleep resets the count. A notifier that dies before its call leaves the
//! others asleep for one slice.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use tenfold_sys::clock::{self, Deadline};
use tenfold_sys::futex;

use crate::error::Result;
use crate::heap::Shared;

/// How long a sleeper sleeps before it looks again: at first, and at most.
const FIRST_SLICE: Duration = Duration::from_millis(20);
/// At most, where the death of others matters.
pub(crate) const SHORT: Duration = Duration::from_millis(100);
/// At most, where nobody's death matters.
pub(crate) const LONG: Duration = Duration::from_secs(1);

/// Looks before the first sleep.
const SPINS: u32 = 150;

const ONE: u64 = 1;
/// Each arrival also moves the epoch, so that a reset can tell that nobody came meanwhile.
const ARRIVAL: u64 = 1 << 32 | ONE;

/// See the module.
#[repr(C)]
pub(crate) struct WaitPoint {
    sequence: AtomicU32,
    spare: AtomicU32,
    waiters: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for WaitPoint {}

/// How a waiter has waited so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// It has slept at least once.
    pub(crate) slept: bool,
    since: u64,
}

impl Waited {
    /// One that is not prepared to wait.
    pub(crate) const NOT: Waited = Waited { slept: false, since: 0 };

    /// Whether it has slept and waits longer than `span`.
    pub(crate) fn longer_than(self, span: Duration) -> bool {
        self.slept && clock::now().saturating_sub(self.since) > span.as_nanos() as u64
    }
}

/// Counts a waiter while it lives.
struct Registered<'a>(&'a WaitPoint);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        // A notifier may have reset the count meanwhile.
        let less = |waiters: u64| (waiters as u32 > 0).then(|| waiters - ONE);
        let _ = self.0.waiters.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less);
    }
}

impl WaitPoint {
    /// Waits until `attempt` gives something, or the deadline. `peek` says, without a lock, whether
    /// an attempt is worth while; `each_slice` is called whenever a slice has passed in sleep.
    ///
    /// The first attempt has been made already.
    ///
    /// # Errors
    /// What `attempt` reports.
    #[cold]
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        longest: Duration,
        peek: impl Fn() -> bool,
        mut attempt: impl FnMut(Waited) -> Result<Option<R>>,
        mut each_slice: impl FnMut(),
    ) -> Result<Option<R>> {
        let mut waited = Waited { slept: false, since: clock::now() };
        for _ in 0..SPINS {
            if peek()
                && let Some(result) = attempt(waited)?
            {
                return Ok(Some(result));
            }
            core::hint::spin_loop();
        }
        let mut slice = FIRST_SLICE.min(longest);
        loop {
            self.waiters.fetch_add(ARRIVAL, Ordering::SeqCst);
            let registered = Registered(self);
            fence(Ordering::SeqCst);
            let seen = self.sequence.load(Ordering::Acquire);
            if let Some(result) = attempt(waited)? {
                return Ok(Some(result));
            }
            if deadline.expired() {
                return Ok(None);
            }
            let outcome = futex::wait(&self.sequence, seen, deadline.min(Deadline::after(slice)));
            drop(registered);
            waited.slept = true;
            if outcome == futex::Wait::TimedOut {
                each_slice();
                slice = (slice * 2).min(longest);
            }
        }
    }

    /// Wakes up to `count` waiters, after the state has changed.
    #[inline]
    pub(crate) fn notify(&self, count: u32) {
        // Either the waiter sees the change, or it is seen here.
        fence(Ordering::SeqCst);
        let waiters = self.waiters.load(Ordering::SeqCst);
        if waiters as u32 != 0 && count != 0 {
            self.wake(count, waiters);
        }
    }

    #[cold]
    fn wake(&self, count: u32, seen: u64) {
        self.sequence.fetch_add(1, Ordering::AcqRel);
        if futex::wake(&self.sequence, count) == 0 {
            // Those counted are awake and will register again, or dead.
            let none = seen >> 32 << 32;
            let _ = self.waiters.compare_exchange(seen, none, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
