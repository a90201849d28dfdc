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
    /// How often to look again before sleeping; each look is a pause.
    fn spins(&self) -> u32;
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
    for _ in 0..sleep.spins() {
        let now = word.load(Ordering::Relaxed);
        if now == 0 && try_lock(word, owner) {
            return;
        }
        if now & CONTENDED != 0 {
            break;
        }
        sleep.pause();
    }
    // From here on the word is taken with CONTENDED set: we cannot know whether others sleep too.
    loop {
        let now = word.load(Ordering::Relaxed);
        if now == 0 {
            if word.compare_exchange(0, owner | CONTENDED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
            continue;
        }
        if now & CONTENDED == 0
            && word.compare_exchange(now, now | CONTENDED, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            continue;
        }
        sleep.sleep(word, now | CONTENDED);
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
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, AtomicU64};

    impl Word32 for AtomicU32 {
        fn load(&self, order: Ordering) -> u32 {
            self.load(order)
        }
        fn store(&self, value: u32, order: Ordering) {
            self.store(value, order);
        }
        fn swap(&self, value: u32, order: Ordering) -> u32 {
            self.swap(value, order)
        }
        fn compare_exchange(&self, c: u32, n: u32, ok: Ordering, err: Ordering) -> core::result::Result<u32, u32> {
            self.compare_exchange(c, n, ok, err)
        }
    }

    struct Yield;
    impl Sleep<AtomicU32> for Yield {
        fn sleep(&mut self, _: &AtomicU32, _: u32) {
            loom::thread::yield_now();
        }
        fn spins(&self) -> u32 {
            1
        }
        fn pause(&self) {
            loom::thread::yield_now();
        }
    }

    impl Wake<AtomicU32> for Yield {
        fn wake_one(&mut self, _: &AtomicU32) {}
    }

    #[test]
    fn two_holders_never_meet_and_see_each_others_stores() {
        loom::model(|| {
            let shared = Arc::new((AtomicU32::new(0), AtomicU64::new(0)));
            let other = Arc::clone(&shared);
            let add = |s: &(AtomicU32, AtomicU64), me| {
                if !try_lock(&s.0, me) {
                    lock_slow(&s.0, me, &mut Yield);
                }
                s.1.store(s.1.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                unlock(&s.0, me, &mut Yield);
            };
            let thread = loom::thread::spawn(move || add(&other, 2));
            add(&shared, 1);
            thread.join().unwrap();
            assert_eq!(shared.1.load(Ordering::Relaxed), 2);
            assert_eq!(shared.0.load(Ordering::Relaxed), 0);
        });
    }
}
