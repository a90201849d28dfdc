//! The algorithm of the internal lock's word, apart from where the word lies.
//!
//! | word | meaning |
//! |---|---|
//! | `0` | free |
//! | `owner` | held by the participant in slot `owner - 1`, nobody sleeps |
//! | `owner \| CONTENDED` | held, somebody sleeps on the word or is about to |
//!
//! Generic over the word so that loom can drive the very code that runs in shared memory.

use core::sync::atomic::Ordering;

/// Set while somebody may be asleep on the word.
pub const CONTENDED: u32 = 1 << 31;

/// A 32-bit atomic word: the real one, or loom's.
pub trait Word32 {
    /// Reads the word.
    fn load(&self, order: Ordering) -> u32;
    /// Sets the word.
    fn store(&self, value: u32, order: Ordering);
    /// Replaces the word and returns what was there.
    fn swap(&self, value: u32, order: Ordering) -> u32;
    /// Replaces `current` by `new`, or returns what is there instead.
    ///
    /// # Errors
    /// The word's value, if it was not `current`.
    fn compare_exchange(&self, current: u32, new: u32, ok: Ordering, err: Ordering) -> core::result::Result<u32, u32>;
}

impl Word32 for core::sync::atomic::AtomicU32 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }
    #[inline(always)]
    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }
    #[inline(always)]
    fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.swap(value, order)
    }
    #[inline(always)]
    fn compare_exchange(&self, current: u32, new: u32, ok: Ordering, err: Ordering) -> core::result::Result<u32, u32> {
        self.compare_exchange(current, new, ok, err)
    }
}

/// How a thread sleeps on a word that still has a value.
pub trait Sleep<W> {
    /// Sleeps while the word is `expected`, for one slice at most.
    fn sleep(&mut self, word: &W, expected: u32);
    /// How often to look again before sleeping, each time after twice as many pauses: a look takes
    /// the cache line from the holder, who could otherwise do many things under the lock in a row.
    fn looks(&self) -> u32;
    /// One pause of the spin.
    fn pause(&self);
}

/// How a sleeper of the word is woken.
pub trait Wake<W> {
    /// Wakes one sleeper of the word.
    fn wake_one(&mut self, word: &W);
}

/// Who holds the word's lock: the owner's number, or 0.
#[inline(always)]
pub fn owner(word: u32) -> u32 {
    word & !CONTENDED
}

/// Takes a free lock in one step.
#[inline(always)]
pub fn try_lock<W: Word32>(word: &W, owner: u32) -> bool {
    word.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Takes the lock, sleeping as long as another holds it.
#[cold]
pub fn lock_slow<W: Word32, S: Sleep<W>>(word: &W, owner: u32, sleep: &mut S) {
    for look in 0..sleep.looks() {
        (0..1 << look).for_each(|_: u32| sleep.pause());
        let now = word.load(Ordering::Relaxed);
        if now == 0 && try_lock(word, owner) {
            return;
        }
        if now & CONTENDED != 0 {
            break;
        }
    }
    // From here on the word is taken with CONTENDED set: we cannot know whether others sleep too.
    let mut now = word.load(Ordering::Relaxed);
    loop {
        let (marked, ok) =
            if now == 0 { (owner | CONTENDED, Ordering::AcqRel) } else { (now | CONTENDED, Ordering::Relaxed) };
        if marked != now {
            if let Err(other) = word.compare_exchange(now, marked, ok, Ordering::Relaxed) {
                now = other;
                continue;
            }
            if now == 0 {
                return;
            }
        }
        sleep.sleep(word, marked);
        now = word.load(Ordering::Relaxed);
    }
}

/// Frees the lock and wakes one sleeper if there may be any. Only the lock's holder calls this.
///
/// A lock that nobody waits for is freed by a plain store, at half the price of a swap. A waiter
/// that sets CONTENDED between the look and the store is not woken: it finds the word changed when
/// it goes to sleep, a system call later, or, if this thread is interrupted just here, at the end of
/// its first slice. That is why sleeps are slices.
#[inline(always)]
pub fn unlock<W: Word32, S: Wake<W>>(word: &W, owner: u32, wake: &mut S) {
    if word.load(Ordering::Relaxed) == owner {
        word.store(0, Ordering::Release);
    } else if word.swap(0, Ordering::Release) & CONTENDED != 0 {
        wake.wake_one(word);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Arc, Condvar, Mutex};

    impl Word32 for AtomicU32 {
        fn load(&self, order: Ordering) -> u32 {
            self.load(order)
        }
        fn store(&self, value: u32, order: Ordering) {
            // An exchange: loom lets a plain store and another thread's exchange pass each other.
            self.swap(value, order);
        }
        fn swap(&self, value: u32, order: Ordering) -> u32 {
            self.swap(value, order)
        }
        fn compare_exchange(&self, c: u32, n: u32, ok: Ordering, err: Ordering) -> core::result::Result<u32, u32> {
            self.compare_exchange(c, n, ok, err)
        }
    }

    /// The word, what it guards, and the redo record of one store.
    #[derive(Default)]
    struct Model {
        word: AtomicU32,
        sum: AtomicU64,
        redo: AtomicU64,
        slices: Mutex<()>,
        slice_ends: Condvar,
    }

    impl Sleep<AtomicU32> for &Model {
        fn sleep(&mut self, word: &AtomicU32, expected: u32) {
            // What the kernel does under its lock: compare the word as it is, and sleep.
            let slice = self.slices.lock().unwrap();
            if word.compare_exchange(expected, expected, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                drop(self.slice_ends.wait(slice).unwrap());
            }
        }
        fn looks(&self) -> u32 {
            0
        }
        fn pause(&self) {}
    }

    impl Wake<AtomicU32> for &Model {
        fn wake_one(&mut self, _: &AtomicU32) {}
    }

    impl Model {
        /// A wake-up may be lost, but every slice ends; in the model, some time after each release.
        fn end_slices(&self) {
            let _slice = self.slices.lock().unwrap();
            self.slice_ends.notify_all();
        }

        fn add(&self, me: u32) {
            if !try_lock(&self.word, me) {
                lock_slow(&self.word, me, &mut &*self);
            }
            self.sum.store(self.sum.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            unlock(&self.word, me, &mut &*self);
            self.end_slices();
        }
    }

    /// All schedules with up to three switches at any point.
    fn explore(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.max_branches = 20_000;
        builder.check(model);
    }

    #[test]
    fn two_holders_never_meet_and_see_each_others_stores() {
        explore(|| {
            let shared = Arc::new(Model::default());
            let other = Arc::clone(&shared);
            let thread = loom::thread::spawn(move || other.add(2));
            shared.add(1);
            shared.add(1);
            thread.join().unwrap();
            assert_eq!(shared.sum.load(Ordering::Relaxed), 3);
            assert_eq!(shared.word.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn who_comes_after_a_recovery_sees_what_was_completed() {
        explore(|| {
            // Participant 7 died with a committed record; the sweep completes it while another waits.
            let shared = Arc::new(Model::default());
            shared.word.store(7, Ordering::Relaxed);
            shared.redo.store(41, Ordering::Relaxed);
            let other = Arc::clone(&shared);
            let thread = loom::thread::spawn(move || {
                other.add(1);
            });
            assert_eq!(owner(shared.word.load(Ordering::Acquire)), 7);
            shared.sum.store(shared.redo.load(Ordering::Relaxed), Ordering::Release);
            shared.redo.store(0, Ordering::Release);
            Word32::store(&shared.word, 0, Ordering::Release);
            shared.end_slices();
            thread.join().unwrap();
            assert_eq!(shared.sum.load(Ordering::Relaxed), 42);
            assert_eq!(shared.word.load(Ordering::Relaxed), 0);
        });
    }
}
