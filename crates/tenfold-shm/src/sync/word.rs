//! The algorithm of a user lock's word, apart from where the word lies.
//!
//! | owner bits | flags | meaning | leaves by |
//! |---|---|---|---|
//! | 0 | none | free | anyone takes it |
//! | 0 | `DIED` | free; its last holder was killed | the next to take it is told so |
//! | 0 | `RESERVED` | free, kept for one that has slept | a sleeper, or a mere `try` |
//! | slot + 1 | | held by that participant | release, by anyone; the holder's death |
//! | `GONE` | | held, its holder has ended in peace | release, by anyone |
//!
//! A held word may carry `CONTENDED` (somebody sleeps or is about to) and `HANDOFF` (somebody has
//! slept for long: release to `RESERVED`, so that nobody who comes running overtakes it again).
//!
//! *Killed here:* every transition is one compare-and-exchange. A sleeper that was woken and dies
//! leaves the others asleep for one slice; one for whom the lock was reserved likewise.

use core::sync::atomic::Ordering;

use crate::lock_word::Word32;

/// Somebody may be asleep on the word.
pub(crate) const CONTENDED: u32 = 1 << 31;
/// Somebody has slept for long: it shall be the next.
pub(crate) const HANDOFF: u32 = 1 << 30;
/// The last holder died abnormally.
pub(crate) const DIED: u32 = 1 << 29;
/// Free, but for sleepers only.
pub(crate) const RESERVED: u32 = 1 << 28;
const OWNER: u32 = 0xffff;
/// The owner of a lock whose holder has ended normally.
pub(crate) const GONE: u32 = 0xffff;

/// Who holds the word's lock: slot + 1, [`GONE`], or 0.
#[inline(always)]
pub(crate) fn owner(word: u32) -> u32 {
    word & OWNER
}

/// How a lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Clean,
    OwnerDied,
}

/// What a release did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// Nobody needs to know.
    Quietly,
    /// A sleeper is to be woken.
    Wake,
    /// A sleeper is to be woken, for whom the lock is reserved.
    WakeReserved,
    /// The lock was not held.
    NotHeld,
}

/// How a thread waits for the word.
pub(crate) trait Patience<W> {
    /// Sleeps while the word is `expected`, for one slice at most; `false` to give up.
    fn sleep(&mut self, word: &W, expected: u32) -> bool;
    /// Whether it has waited unfairly long.
    fn is_starving(&self) -> bool;
    /// How often to look again before sleeping.
    fn spins(&self) -> u32;
    /// One pause of the spin.
    fn pause(&self);
}

/// Takes a lock that is free and clean, in one step.
#[inline(always)]
pub(crate) fn take_fast<W: Word32>(word: &W, me: u32) -> bool {
    word.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

/// Takes the lock if nobody holds it.
#[cold]
pub(crate) fn try_take<W: Word32>(word: &W, me: u32) -> Option<Taken> {
    let mut now = word.load(Ordering::Relaxed);
    while owner(now) == 0 {
        match word.compare_exchange(now, me | now & CONTENDED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Some(taken(now)),
            Err(other) => now = other,
        }
    }
    None
}

fn taken(before: u32) -> Taken {
    if before & DIED != 0 { Taken::OwnerDied } else { Taken::Clean }
}

/// Takes the lock, sleeping while another holds it; `None` if `patience` gave up.
#[cold]
pub(crate) fn take<W: Word32, P: Patience<W>>(word: &W, me: u32, patience: &mut P) -> Option<Taken> {
    for _ in 0..patience.spins() {
        let now = word.load(Ordering::Relaxed);
        if owner(now) == 0 && now & RESERVED == 0 {
            let new = me | now & CONTENDED;
            if word.compare_exchange(now, new, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(taken(now));
            }
        } else if now & CONTENDED != 0 {
            break;
        }
        patience.pause();
    }
    // From here on the word is taken with CONTENDED set: we cannot know whether others sleep too.
    let mut slept = false;
    loop {
        let now = word.load(Ordering::Relaxed);
        if owner(now) == 0 && (slept || now & RESERVED == 0) {
            if word.compare_exchange(now, me | CONTENDED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(taken(now));
            }
            continue;
        }
        let urgent = if slept && patience.is_starving() { HANDOFF } else { 0 };
        let marked = now | CONTENDED | urgent;
        if marked != now && word.compare_exchange(now, marked, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            continue;
        }
        if !patience.sleep(word, marked) {
            // Whoever wakes counts on the woken one to try: so this last look.
            return try_take(word, me | CONTENDED);
        }
        slept = true;
    }
}

/// Frees a lock that only its holder `me` has touched, in one step.
#[inline(always)]
pub(crate) fn release_fast<W: Word32>(word: &W, me: u32) -> bool {
    word.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed).is_ok()
}

/// Frees the lock if `only` holds it, or whoever holds it. The caller then wakes a sleeper if told
/// so.
#[cold]
pub(crate) fn release<W: Word32>(word: &W, only: Option<u32>) -> Released {
    loop {
        let now = word.load(Ordering::Relaxed);
        if owner(now) == 0 || only.is_some_and(|me| owner(now) != me) {
            return Released::NotHeld;
        }
        let (free, result) = match (now & HANDOFF != 0, now & CONTENDED != 0) {
            (true, _) => (RESERVED | CONTENDED, Released::WakeReserved),
            (false, true) => (0, Released::Wake),
            (false, false) => (0, Released::Quietly),
        };
        if word.compare_exchange(now, free, Ordering::Release, Ordering::Relaxed).is_ok() {
            return result;
        }
    }
}

/// Nobody slept for whom the lock could be reserved: it is free for all. Returns whether one may
/// have fallen asleep meanwhile.
#[cold]
pub(crate) fn unreserve<W: Word32>(word: &W) -> bool {
    word.compare_exchange(RESERVED | CONTENDED, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// The participant `dead` is no more. Returns whether sleepers are to be woken.
#[cold]
pub(crate) fn owner_died<W: Word32>(word: &W, dead: u32, abnormally: bool) -> bool {
    loop {
        let now = word.load(Ordering::Relaxed);
        if owner(now) != dead {
            return false;
        }
        let next = if abnormally { DIED } else { GONE | now & (CONTENDED | HANDOFF) };
        // Release: the next holder sees what the sweep has put right.
        if word.compare_exchange(now, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return abnormally;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;

    struct GiveUp;
    impl Patience<AtomicU32> for GiveUp {
        fn sleep(&mut self, _: &AtomicU32, _: u32) -> bool {
            false
        }
        fn is_starving(&self) -> bool {
            true
        }
        fn spins(&self) -> u32 {
            1
        }
        fn pause(&self) {}
    }

    #[test]
    fn an_abnormal_death_is_told_once() {
        let word = AtomicU32::new(0);
        assert!(take_fast(&word, 7));
        assert!(!owner_died(&word, 6, true));
        assert!(owner_died(&word, 7, true));
        assert!(!owner_died(&word, 7, true), "a sweep is repeated");
        assert!(!take_fast(&word, 8));
        assert_eq!(take(&word, 8, &mut GiveUp), Some(Taken::OwnerDied));
        assert_eq!(release(&word, None), Released::Quietly);
        assert_eq!(try_take(&word, 9), Some(Taken::Clean));
    }

    #[test]
    fn a_normal_end_leaves_the_lock_taken_and_releasable() {
        let word = AtomicU32::new(0);
        assert!(take_fast(&word, 7));
        assert!(!owner_died(&word, 7, false));
        assert_eq!(take(&word, 7, &mut GiveUp), None, "the slot's next participant does not hold it");
        assert_eq!(release(&word, Some(7)), Released::NotHeld);
        assert_eq!(release(&word, None), Released::Wake, "the one that gave up has left its mark");
        assert_eq!(release(&word, None), Released::NotHeld);
    }

    #[test]
    fn a_reserved_lock_goes_to_sleepers_and_tries_only() {
        let word = AtomicU32::new(7 | CONTENDED | HANDOFF);
        assert_eq!(release(&word, Some(7)), Released::WakeReserved);
        assert!(!take_fast(&word, 8));
        assert_eq!(try_take(&word, 8), Some(Taken::Clean));
        assert_eq!(release(&word, Some(8)), Released::Wake);
        word.store(RESERVED | CONTENDED, Ordering::Relaxed);
        assert!(unreserve(&word));
        assert!(take_fast(&word, 9));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, AtomicU64};

    /// A sleeper that starves after its first sleep.
    struct Yield(u32);
    impl Patience<AtomicU32> for Yield {
        fn sleep(&mut self, _: &AtomicU32, _: u32) -> bool {
            self.0 += 1;
            loom::thread::yield_now();
            true
        }
        fn is_starving(&self) -> bool {
            self.0 > 0
        }
        fn spins(&self) -> u32 {
            1
        }
        fn pause(&self) {
            loom::thread::yield_now();
        }
    }

    fn lock(word: &AtomicU32, me: u32) -> Taken {
        if take_fast(word, me) { Taken::Clean } else { take(word, me, &mut Yield(0)).expect("never gives up") }
    }

    fn unlock(word: &AtomicU32, me: u32) {
        if !release_fast(word, me) {
            assert_ne!(release(word, Some(me)), Released::NotHeld);
        }
    }

    #[test]
    fn two_holders_never_meet_and_see_each_others_stores() {
        loom::model(|| {
            let shared = Arc::new((AtomicU32::new(0), AtomicU64::new(0)));
            let other = Arc::clone(&shared);
            let add = |s: &(AtomicU32, AtomicU64), me| {
                assert_eq!(lock(&s.0, me), Taken::Clean);
                s.1.store(s.1.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                unlock(&s.0, me);
            };
            let thread = loom::thread::spawn(move || add(&other, 2));
            add(&shared, 1);
            thread.join().unwrap();
            assert_eq!(shared.1.load(Ordering::Relaxed), 2);
            assert_eq!(owner(shared.0.load(Ordering::Relaxed)), 0);
        });
    }

    #[test]
    fn exactly_one_of_two_learns_of_a_death() {
        loom::model(|| {
            // Participant 7 holds the lock and is swept while two others come for it.
            let shared = Arc::new((AtomicU32::new(7), AtomicU32::new(0)));
            let threads = [1, 2].map(|me| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    if lock(&shared.0, me) == Taken::OwnerDied {
                        shared.1.store(shared.1.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                    unlock(&shared.0, me);
                })
            });
            owner_died(&shared.0, 7, true);
            owner_died(&shared.0, 7, true);
            threads.map(|t| t.join().unwrap());
            assert_eq!(shared.1.load(Ordering::Relaxed), 1);
        });
    }
}
