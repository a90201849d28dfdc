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
    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Arc, Condvar, Mutex};

    /// A lock whose sleepers sleep until they are woken: no slices, so that loom reports a lost
    /// wake-up as a deadlock.
    #[derive(Default)]
    struct Model {
        word: AtomicU32,
        asleep: Mutex<u32>,
        bell: Condvar,
    }

    struct Sleeper<'a> {
        model: &'a Model,
        starves_after: u32,
        slept: u32,
    }

    impl Patience<AtomicU32> for Sleeper<'_> {
        fn sleep(&mut self, word: &AtomicU32, expected: u32) -> bool {
            // What the kernel does under its lock: compare, and sleep.
            let mut asleep = self.model.asleep.lock().unwrap();
            if word.load(Ordering::Relaxed) == expected {
                *asleep += 1;
                drop(self.model.bell.wait(asleep).unwrap());
            }
            self.slept += 1;
            true
        }
        fn is_starving(&self) -> bool {
            self.slept >= self.starves_after
        }
        fn spins(&self) -> u32 {
            0
        }
        fn pause(&self) {}
    }

    impl Model {
        fn lock(&self, me: u32, starves_after: u32) -> Taken {
            let mut sleeper = Sleeper { model: self, starves_after, slept: 0 };
            if take_fast(&self.word, me) {
                Taken::Clean
            } else {
                take(&self.word, me, &mut sleeper).expect("never gives up")
            }
        }

        fn wake(&self) -> usize {
            let mut asleep = self.asleep.lock().unwrap();
            if *asleep == 0 {
                return 0;
            }
            *asleep -= 1;
            self.bell.notify_one();
            1
        }

        fn unlock(&self, me: u32) {
            if release_fast(&self.word, me) {
                return;
            }
            match release(&self.word, Some(me)) {
                Released::NotHeld => panic!("not held"),
                Released::Quietly => {}
                Released::Wake => {
                    self.wake();
                }
                Released::WakeReserved => {
                    if self.wake() == 0 && unreserve(&self.word) {
                        self.wake();
                    }
                }
            }
        }

        fn owner_died(&self, dead: u32) {
            if owner_died(&self.word, dead, true) {
                while self.wake() > 0 {}
            }
        }
    }

    /// All schedules with so few switches at any point; all of them would take hours.
    fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 20_000;
        builder.check(model);
    }

    /// Two or three count to `rounds` each, under the lock.
    fn count(threads: u32, rounds: u32, starves_after: u32, preemptions: usize) {
        explore(preemptions, move || {
            let shared = Arc::new((Model::default(), AtomicU64::new(0)));
            let add = move |shared: &(Model, AtomicU64), me| {
                for _ in 0..rounds {
                    assert_eq!(shared.0.lock(me, starves_after), Taken::Clean);
                    shared.1.store(shared.1.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    shared.0.unlock(me);
                }
            };
            let others: Vec<_> = (1..threads)
                .map(|other| {
                    let shared = Arc::clone(&shared);
                    loom::thread::spawn(move || add(&shared, other + 1))
                })
                .collect();
            add(&shared, 1);
            others.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(shared.1.load(Ordering::Relaxed), u64::from(threads * rounds));
            assert_eq!(owner(shared.0.word.load(Ordering::Relaxed)), 0);
        });
    }

    #[test]
    fn two_holders_never_meet_and_nobody_sleeps_on() {
        count(2, 2, u32::MAX, 3);
        count(3, 1, u32::MAX, 2);
    }

    #[test]
    fn a_reserved_lock_is_taken_by_somebody() {
        count(2, 2, 0, 3);
        count(3, 1, 0, 2);
    }

    #[test]
    fn exactly_one_of_two_learns_of_a_death() {
        explore(3, || {
            // Participant 7 holds the lock and is swept by one of the two that want it.
            let shared = Arc::new((Model { word: AtomicU32::new(7), ..Model::default() }, AtomicU32::new(0)));
            let come = |shared: &(Model, AtomicU32), me| {
                if shared.0.lock(me, 0) == Taken::OwnerDied {
                    shared.1.store(shared.1.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                shared.0.unlock(me);
            };
            let other = Arc::clone(&shared);
            let thread = loom::thread::spawn(move || come(&other, 2));
            shared.0.owner_died(7);
            shared.0.owner_died(7);
            come(&shared, 1);
            thread.join().unwrap();
            assert_eq!(shared.1.load(Ordering::Relaxed), 1);
        });
    }
}
