//! Where those sleep who wait for a change, and how they are woken.
//!
//! ```text
//!  ┌ sequence ┬ (spare) ┬ arrivals ┬ cleared ┐   24 bytes
//! ```
//!
//! Whoever changes the state that others wait for calls [`WaitPoint::notify`]: no system call when
//! nobody waits. The state itself lies elsewhere.
//!
//! A waiter reads the sequence, counts its arrival, looks at the state for a last time and sleeps
//! while the sequence is what it read. A notifier that finds an arrival since `cleared` moves the
//! sequence and wakes; if nobody was asleep, it sets `cleared` to the arrivals it had found: all of
//! these have read an older sequence, so they will not fall asleep before they arrive again.
//!
//! *Killed here:* a waiter that dies costs the next notifier one system call. A notifier that dies
//! before its call leaves the others asleep for one slice.

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

/// See the module.
#[repr(C)]
pub(crate) struct WaitPoint {
    sequence: AtomicU32,
    spare: AtomicU32,
    arrivals: AtomicU64,
    cleared: AtomicU64,
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

/// A 64-bit atomic word: the real one, or loom's.
trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn increment(&self);
    /// A sequentially consistent fence.
    fn fence();
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    #[inline(always)]
    fn increment(&self) {
        self.fetch_add(1, Ordering::SeqCst);
    }
    #[inline(always)]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Counts one that has read the sequence and is about to look at the state for the last time.
fn arrive<W: Word>(arrivals: &W) {
    arrivals.increment();
    W::fence();
}

/// The arrivals, if somebody may wait. For one that has just changed the state: either the waiter
/// sees the change, or it is seen here.
#[inline(always)]
fn anybody<W: Word>(arrivals: &W, cleared: &W) -> Option<u64> {
    W::fence();
    arrived(arrivals, cleared)
}

/// The same for one who has changed the state by a sequentially consistent exchange of the very word that waiters look
/// at, which saves the fence: an arrival that this load does not see comes after the exchange in the one order of all
/// such operations, and with it the waiter's fence, and its look.
#[inline(always)]
fn arrived<W: Word>(arrivals: &W, cleared: &W) -> Option<u64> {
    let seen = arrivals.load(Ordering::SeqCst);
    (seen != cleared.load(Ordering::Relaxed)).then_some(seen)
}

/// Wakes those who have arrived, `seen` in number, by `wake`, which says how many were asleep.
fn rouse<W: Word>(cleared: &W, seen: u64, move_sequence: impl FnOnce(), wake: impl FnOnce() -> usize) {
    move_sequence();
    if wake() == 0 {
        cleared.store(seen, Ordering::Relaxed);
    }
}

impl WaitPoint {
    /// Waits until `attempt` gives something, or the deadline. `peek` says, without a lock, whether
    /// an attempt is worth while; `longest` how long a slice may be now; `each_slice` is called whenever a slice has passed in sleep.
    ///
    /// The first attempt has been made already.
    ///
    /// # Errors
    /// What `attempt` reports.
    #[cold]
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        longest: impl Fn() -> Duration,
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
        let mut slice = FIRST_SLICE;
        loop {
            let seen = self.sequence.load(Ordering::Acquire);
            arrive(&self.arrivals);
            if let Some(result) = attempt(waited)? {
                return Ok(Some(result));
            }
            if deadline.expired() {
                return Ok(None);
            }
            let outcome = futex::wait(&self.sequence, seen, deadline.min(Deadline::after(slice)));
            waited.slept = true;
            if outcome == futex::Wait::TimedOut {
                each_slice();
                slice = (slice * 2).min(longest());
            }
        }
    }

    /// Wakes up to `count` waiters, after the state has changed.
    #[inline]
    pub(crate) fn notify(&self, count: u32) {
        if let Some(seen) = anybody(&self.arrivals, &self.cleared) {
            self.wake(count, seen);
        }
    }

    /// The same, after the word that waiters look at was changed by an exchange that is [`Ordering::SeqCst`].
    #[inline]
    pub(crate) fn notify_after_exchange(&self, count: u32) {
        if let Some(seen) = arrived(&self.arrivals, &self.cleared) {
            self.wake(count, seen);
        }
    }

    #[cold]
    fn wake(&self, count: u32, seen: u64) {
        let move_sequence = || {
            self.sequence.fetch_add(1, Ordering::AcqRel);
        };
        rouse(&self.cleared, seen, move_sequence, || futex::wake(&self.sequence, count));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Arc, Condvar, Mutex};

    impl Word for AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            self.load(order)
        }
        fn store(&self, value: u64, order: Ordering) {
            self.store(value, order);
        }
        fn increment(&self) {
            self.fetch_add(1, Ordering::SeqCst);
        }
        fn fence() {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    /// A wait point whose sleepers sleep until they are woken: no slices.
    #[derive(Default)]
    struct Model {
        sequence: AtomicU32,
        arrivals: AtomicU64,
        cleared: AtomicU64,
        asleep: Mutex<usize>,
        bell: Condvar,
    }

    impl Model {
        fn wait(&self, ready: impl Fn() -> bool) {
            loop {
                let seen = self.sequence.load(Ordering::Acquire);
                arrive(&self.arrivals);
                if ready() {
                    return;
                }
                // What the kernel does under its lock: compare, and sleep.
                let mut asleep = self.asleep.lock().unwrap();
                if self.sequence.load(Ordering::Relaxed) == seen {
                    *asleep += 1;
                    asleep = self.bell.wait(asleep).unwrap();
                }
                drop(asleep);
            }
        }

        fn notify(&self) {
            let Some(seen) = anybody(&self.arrivals, &self.cleared) else { return };
            let wake = || {
                let mut asleep = self.asleep.lock().unwrap();
                let woken = core::mem::take(&mut *asleep);
                self.bell.notify_all();
                woken
            };
            let move_sequence = || {
                self.sequence.fetch_add(1, Ordering::AcqRel);
            };
            rouse(&self.cleared, seen, move_sequence, wake);
        }
    }

    /// Loom reports a deadlock if a change is made and a sleeper sleeps on.
    fn all_changes_are_seen(waiters: usize, levels: u32, preemptions: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            let shared = Arc::new((Model::default(), AtomicU32::new(0)));
            let wait = |_| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    for level in 1..=levels {
                        shared.0.wait(|| shared.1.load(Ordering::Acquire) >= level);
                    }
                })
            };
            let waiters: Vec<_> = (0..waiters).map(wait).collect();
            for level in 1..=levels {
                shared.1.store(level, Ordering::Release);
                shared.0.notify();
            }
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
    }

    #[test]
    fn no_change_is_slept_through() {
        all_changes_are_seen(1, 2, 4);
    }

    #[test]
    fn no_change_is_slept_through_by_either_of_two() {
        all_changes_are_seen(2, 2, 2);
    }
}
