//! Looking for a while before sleeping, no longer than has been worth while of late.
//!
//! ```text
//!   look look … look │ look, yield, look, yield … │ the caller sleeps
//!   └── eager ───────┘                            │
//!   └── most ─────────────────────────────────────┘
//! ```
//!
//! Who is woken on a core that idles has waited longer than an answer takes as a rule. So looks come first, the eager
//! ones without a pause: to yield on a busy core may cost a time slice. Once a yield comes back late, the looks are over
//! and count as in vain: who sleeps on a busy core is woken sooner. Where answers come only once others have been let
//! run, as on a machine with one core, eager looks are wasted, and become few. Every now and then all looks are tried
//! again.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::clock;

/// The most looks: some 100 us.
const MOST: u32 = 128;
/// The fewest.
const LEAST: u32 = 4;
/// The nanoseconds after which a yield has come back late: somebody else wants the core.
const LATE: u64 = 20_000;
/// The most looks before others may run: about the time that a switch to another process and back takes.
const EAGER_MOST: u32 = 24;
const EAGER_LEAST: u32 = 1;
/// Of so many times that something is looked for, once with all looks.
const TRIAL: u32 = 32;

/// How often to look.
#[derive(Debug)]
pub struct Looks {
    most: AtomicU32,
    eager: AtomicU32,
    times: AtomicU32,
}

impl Default for Looks {
    fn default() -> Looks {
        Looks { most: AtomicU32::new(MOST), eager: AtomicU32::new(EAGER_MOST), times: AtomicU32::new(0) }
    }
}

impl Looks {
    /// Calls `look` until it finds something, or it has been called often enough.
    ///
    /// # Errors
    /// Those of `look`.
    #[inline]
    pub fn look<T, E>(&self, look: impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
        self.look_between(look, || {
            let before = clock::now();
            std::thread::yield_now();
            clock::now() - before <= LATE
        })
    }

    /// Looks, with `pause` before those that are not eager, until that says that it came back late.
    #[inline]
    fn look_between<T, E>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, E>,
        mut pause: impl FnMut() -> bool,
    ) -> Result<Option<T>, E> {
        if let Some(found) = look()? {
            // It was there before: that says nothing.
            return Ok(Some(found));
        }
        let (most, eager) = self.now();
        for count in 1..most {
            if count >= eager && !pause() {
                break;
            }
            if let Some(found) = look()? {
                self.found(count, count < eager);
                return Ok(Some(found));
            }
        }
        self.most.store((self.most.load(Ordering::Relaxed) / 2).max(LEAST), Ordering::Relaxed);
        Ok(None)
    }

    /// How many looks this time, and how many of them eager.
    fn now(&self) -> (u32, u32) {
        let (most, eager) = (self.most.load(Ordering::Relaxed), self.eager.load(Ordering::Relaxed));
        if most == MOST && eager == EAGER_MOST {
            return (most, eager);
        }
        let times = self.times.load(Ordering::Relaxed).wrapping_add(1);
        self.times.store(times, Ordering::Relaxed);
        if times.is_multiple_of(TRIAL) { (MOST, EAGER_MOST) } else { (most, eager) }
    }

    fn found(&self, count: u32, while_eager: bool) {
        let most = self.most.load(Ordering::Relaxed);
        self.most.store((2 * most.max(count)).min(MOST), Ordering::Relaxed);
        let eager = self.eager.load(Ordering::Relaxed);
        let eager = if while_eager { EAGER_MOST } else { EAGER_LEAST.max(eager / 2) };
        self.eager.store(eager, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for something that is there at the look with this number, counted from 0.
    fn found_at(looks: &Looks, at: u32) -> Option<u32> {
        let mut count = 0;
        let look = || -> Result<Option<u32>, ()> {
            count += 1;
            Ok((count > at).then_some(count - 1))
        };
        looks.look_between(look, || true).expect("no error")
    }

    fn state(looks: &Looks) -> (u32, u32) {
        (looks.most.load(Ordering::Relaxed), looks.eager.load(Ordering::Relaxed))
    }

    #[test]
    fn it_looks_less_while_nothing_comes() {
        let looks = Looks::default();
        for _ in 0..20 {
            assert_eq!(found_at(&looks, u32::MAX), None);
        }
        assert_eq!(state(&looks).0, LEAST);
        for _ in 0..20 {
            assert_eq!(found_at(&looks, LEAST - 1), Some(LEAST - 1));
        }
        assert_eq!(state(&looks), (MOST, EAGER_MOST));
    }

    #[test]
    fn what_was_there_before_says_nothing() {
        let looks = Looks::default();
        let _ = found_at(&looks, u32::MAX);
        let before = state(&looks);
        assert_eq!(found_at(&looks, 0), Some(0));
        assert_eq!(state(&looks), before);
    }

    #[test]
    fn it_is_eager_while_that_helps() {
        let looks = Looks::default();
        for _ in 0..20 {
            assert!(found_at(&looks, EAGER_MOST + 5).is_some());
        }
        assert_eq!(state(&looks).1, EAGER_LEAST);
        // Only a trial finds out that answers have become fast.
        for _ in 0..8 * TRIAL {
            assert!(found_at(&looks, EAGER_MOST - 1).is_some());
        }
        assert_eq!(state(&looks).1, EAGER_MOST);
    }

    #[test]
    fn a_late_yield_ends_the_looks() {
        let looks = Looks::default();
        for _ in 0..20 {
            let (mut looked, mut paused) = (0, 0);
            let look = || -> Result<Option<()>, ()> {
                looked += 1;
                Ok((looked > 100).then_some(()))
            };
            let pause = || {
                paused += 1;
                paused < 10
            };
            assert_eq!(looks.look_between(look, pause), Ok(None));
        }
        assert_eq!(state(&looks).0, LEAST);
        // A trial finds out that there is time again.
        for _ in 0..8 * TRIAL {
            let _ = found_at(&looks, MOST - 1);
        }
        assert_eq!(state(&looks).0, MOST);
    }

    #[test]
    fn an_error_ends_it() {
        assert_eq!(Looks::default().look(|| Err::<Option<()>, i32>(5)), Err(5));
    }
}
