//! Kills at every point of the locks and meeting points, and of the locks below them.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;
#[path = "support/words.rs"]
mod words;

use std::sync::atomic::Ordering::SeqCst;

use crash::{Before, Child, alone, in_child, kill_at, killed_at};
use tenfold_shm::Heap;
use tenfold_shm::kill_point::{self, KillPoint};
use tenfold_shm::sync::{Acquired, Barrier, BarrierWait, Condition, Event, Lock, RwLock, Semaphore, UserLock};
use tenfold_sys::clock::Deadline;
use words::{until, words};

const NEVER: Deadline = Deadline::never();

/// A child that is killed at `point`, while others go on.
fn dies_at(point: KillPoint, work: impl FnOnce()) -> Child {
    in_child(|| {
        kill_point::arm(point, 0);
        work();
    })
}

fn was_killed(child: Child) {
    assert_eq!(child.wait(), crash::KILLED);
}

fn condition(heap: Heap) -> Condition {
    Condition::create(heap, UserLock::Lock(Lock::create(heap).unwrap())).unwrap()
}

fn hold(condition: &Condition) {
    assert!(condition.lock().acquire(NEVER).unwrap().is_held());
}

// Fault 7.
#[test]
fn killed_holding_a_lock() {
    alone(|heap| {
        let lock = Lock::create(heap).unwrap();
        let before = Before::of(heap);
        kill_at(KillPoint::UserLockTaken, 0, || drop(lock.acquire(NEVER)));
        assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::OwnerDied);
        lock.release().unwrap();
        assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
        before.assert_unchanged();
    });
}

// Fault 8.
#[test]
fn killed_before_a_sleeper_is_woken() {
    alone(|heap| {
        let lock = Lock::create(heap).unwrap();
        let seen = words();
        let dies = dies_at(KillPoint::UserLockReleased, || {
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
            seen[0].store(1, SeqCst);
            until(|| seen[1].load(SeqCst) == 1);
            lock.release().unwrap();
        });
        until(|| seen[0].load(SeqCst) == 1);
        let waits = in_child(|| assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes));
        std::thread::sleep(std::time::Duration::from_millis(30));
        seen[1].store(1, SeqCst);
        was_killed(dies);
        waits.succeeds();
    });
}

/// The semaphore's points, and each point of the redo record below it, pass after pass.
// Fault 7.
#[test]
fn killed_with_a_permit_at_any_point() {
    alone(|heap| {
        let semaphore = Semaphore::create(heap, 3, Some(3)).unwrap();
        let before = Before::of(heap);
        let work = || {
            for _ in 0..2 {
                assert!(semaphore.acquire_held(NEVER).unwrap());
            }
            for _ in 0..2 {
                assert!(semaphore.release_held().unwrap());
            }
        };
        for point in [
            KillPoint::SemaphoreFrozen,
            KillPoint::SemaphoreTaken,
            KillPoint::SemaphoreReleased,
            KillPoint::LockTaken,
            KillPoint::LockReleased,
            KillPoint::RedoWritten,
            KillPoint::RedoCommitted,
            KillPoint::RedoHalfApplied,
            KillPoint::RedoApplied,
            KillPoint::RedoCleared,
        ] {
            let mut passes = 0;
            while killed_at(point, passes, work) {
                // Tokens come and go beside it, also while the count is still frozen.
                assert!(semaphore.acquire(NEVER).unwrap());
                crash::sweep(heap);
                semaphore.release(1).unwrap();
                assert_eq!(semaphore.value(), 3, "{} after {passes} passes", point.name());
                passes += 1;
            }
            assert!(passes >= 2, "{} was reached {passes} times", point.name());
        }
        before.assert_unchanged();
    });
}

/// Tokens change the count without the lock, beside processes that are killed anywhere under it.
// Fault 7.
#[test]
fn tokens_come_and_go_while_holders_are_killed() {
    alone(|heap| {
        let semaphore = Semaphore::create(heap, 3, Some(3)).unwrap();
        for round in 0..40 {
            let seen = words();
            let holders: Vec<_> = seen[..2]
                .iter()
                .map(|seen| {
                    in_child(|| {
                        loop {
                            assert!(semaphore.acquire_held(NEVER).unwrap());
                            assert!(semaphore.release_held().unwrap());
                            seen.store(1, SeqCst);
                        }
                    })
                })
                .collect();
            // The slot of a child that is killed before it has taken it up stays claimed for ten seconds.
            until(|| seen[..2].iter().all(|seen| seen.load(SeqCst) == 1));
            // On busy cores each may take a turn of the scheduler.
            let enough = std::time::Instant::now() + std::time::Duration::from_millis(500);
            for _ in 0..round * 200 {
                if std::time::Instant::now() > enough {
                    break;
                }
                assert!(semaphore.acquire(NEVER).unwrap());
                semaphore.release(1).unwrap();
            }
            holders.into_iter().for_each(|holder| holder.kill());
            crash::sweep(heap);
            assert_eq!(semaphore.value(), 3, "in round {round}");
        }
    });
}

/// Shares and the write lock: nothing stays taken, and a killed writer is told of once.
// Fault 7.
#[test]
fn killed_with_a_reader_writer_lock_at_any_point() {
    alone(|heap| {
        let lock = RwLock::create(heap).unwrap();
        let before = Before::of(heap);
        let work = || {
            let _ = lock.acquire_read(NEVER).unwrap();
            let _ = lock.acquire_read(NEVER).unwrap();
            assert!(lock.release_read().unwrap());
            assert!(lock.release_read().unwrap());
            let _ = lock.acquire_write(NEVER).unwrap();
            assert!(lock.release_write().unwrap());
        };
        for point in [
            KillPoint::RwLockTaken,
            KillPoint::RwLockReleased,
            KillPoint::LockTaken,
            KillPoint::LockReleased,
            KillPoint::RedoWritten,
            KillPoint::RedoCommitted,
            KillPoint::RedoHalfApplied,
            KillPoint::RedoApplied,
            KillPoint::RedoCleared,
        ] {
            let mut passes = 0;
            while killed_at(point, passes, work) {
                crash::sweep(heap);
                assert_eq!((lock.readers(), lock.is_write_locked()), (0, false), "{}", point.name());
                assert!(lock.acquire_write(NEVER).unwrap().is_held());
                assert!(lock.release_write().unwrap());
                assert_eq!(lock.acquire_read(NEVER).unwrap(), Acquired::Yes, "told once");
                assert!(lock.release_read().unwrap());
                passes += 1;
            }
            assert!(passes >= 1, "{} was never reached", point.name());
        }
        before.assert_unchanged();
    });
}

// Fault 8.
#[test]
fn killed_with_an_event_set_and_nobody_woken() {
    alone(|heap| {
        let event = Event::create(heap).unwrap();
        let waits = in_child(|| assert!(event.wait(NEVER).unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(30));
        kill_at(KillPoint::EventSet, 0, || event.set());
        waits.succeeds();
        assert!(event.is_set());
    });
}

// Fault 8.
#[test]
fn killed_enlisted_in_a_condition() {
    alone(|heap| {
        let condition = condition(heap);
        let before = Before::of(heap);
        kill_at(KillPoint::ConditionEnlisted, 0, || {
            hold(&condition);
            drop(condition.wait(NEVER));
        });
        // It had the lock still.
        assert_eq!(condition.lock().acquire(NEVER).unwrap(), Acquired::OwnerDied);
        assert_eq!((condition.waiting(), condition.notify(1).unwrap()), (0, 0));
        condition.lock().release().unwrap();
        before.assert_unchanged();
    });
}

// Fault 8.
#[test]
fn killed_between_mark_and_bell() {
    alone(|heap| {
        let condition = condition(heap);
        let wait = || {
            hold(&condition);
            assert!(condition.wait(NEVER).unwrap().notified);
            condition.lock().release().unwrap();
        };
        let first = in_child(wait);
        until(|| condition.waiting() == 1);
        let second = in_child(wait);
        until(|| condition.waiting() == 2);
        kill_at(KillPoint::ConditionMarked, 0, || drop(condition.notify(1)));
        first.succeeds();
        assert_eq!(condition.waiting(), 1, "exactly one was marked");
        assert_eq!(condition.notify(1).unwrap(), 1);
        second.succeeds();
    });
}

// Fault 8.
#[test]
fn killed_notified_and_not_back_with_the_lock() {
    alone(|heap| {
        let condition = condition(heap);
        let before = Before::of(heap);
        let dies = dies_at(KillPoint::ConditionWoken, || {
            hold(&condition);
            drop(condition.wait(NEVER));
        });
        until(|| condition.waiting() == 1);
        let next = in_child(|| {
            hold(&condition);
            assert!(condition.wait(NEVER).unwrap().notified);
            condition.lock().release().unwrap();
        });
        until(|| condition.waiting() == 2);
        assert_eq!(condition.notify(1).unwrap(), 1);
        was_killed(dies);
        next.succeeds();
        before.assert_unchanged();
    });
}

/// A waiter and a notifier that die anywhere in the list's own changes: the list stays usable, and
/// a notification that was committed reaches somebody.
// Fault 8.
#[test]
fn killed_at_any_change_of_the_list() {
    alone(|heap| {
        let condition = condition(heap);
        let before = Before::of(heap);
        for point in [
            KillPoint::LockTaken,
            KillPoint::RedoWritten,
            KillPoint::RedoCommitted,
            KillPoint::RedoHalfApplied,
            KillPoint::RedoApplied,
            KillPoint::RedoCleared,
            KillPoint::LockReleased,
        ] {
            let mut passes = 0;
            let work = || {
                hold(&condition);
                let first = condition.enlist().unwrap();
                let second = condition.enlist().unwrap();
                assert_eq!(condition.notify(1).unwrap(), 1);
                assert!(first.leave().unwrap());
                assert!(!second.leave().unwrap());
                condition.lock().release().unwrap();
            };
            while killed_at(point, passes, work) {
                assert!(condition.lock().acquire(NEVER).unwrap().is_held());
                crash::sweep(heap);
                assert_eq!(condition.waiting(), 0, "{} after {passes} passes", point.name());
                condition.lock().release().unwrap();
                work();
                passes += 1;
            }
            assert!(passes >= 3, "{} was reached {passes} times", point.name());
        }
        before.assert_unchanged();
    });
}

/// Eight waiters fill the condition's own room: the ninth makes more, and dies on the way.
// Fault 8.
#[test]
fn killed_while_the_list_grows() {
    alone(|heap| {
        let points = [
            KillPoint::HeapTaken,
            KillPoint::LockTaken,
            KillPoint::RedoCommitted,
            KillPoint::RedoHalfApplied,
            KillPoint::RedoCleared,
            KillPoint::ConditionEnlisted,
        ];
        for point in points {
            let mut passes = 0;
            loop {
                let empty = Before::of(heap);
                let condition = condition(heap);
                let waiters: Vec<_> = (0..8).map(|_| condition.enlist().unwrap()).collect();
                let killed = killed_at(point, passes, || drop(condition.enlist().unwrap()));
                crash::sweep(heap);
                assert_eq!(condition.waiting(), 8, "{} after {passes} passes", point.name());
                let ninth = condition.enlist().unwrap();
                assert_eq!(condition.notify_all().unwrap(), 9);
                assert!(ninth.leave().unwrap());
                assert!(waiters.into_iter().all(|w| w.leave().unwrap()));
                drop(condition);
                empty.assert_unchanged();
                if !killed {
                    break;
                }
                passes += 1;
            }
            assert!(passes >= 1, "{} was never reached", point.name());
        }
    });
}

// Fault 7.
#[test]
fn killed_having_arrived_at_a_barrier() {
    alone(|heap| {
        let barrier = Barrier::create(heap, 3).unwrap();
        let before = Before::of(heap);
        let waits = in_child(|| assert_eq!(barrier.wait(NEVER).unwrap(), BarrierWait::Broken));
        until(|| barrier.waiting() == 1);
        kill_at(KillPoint::BarrierArrived, 0, || drop(barrier.wait(NEVER)));
        waits.succeeds();
        assert!(barrier.is_broken());
        barrier.reset().unwrap();
        assert_eq!(barrier.waiting(), 0);
        before.assert_unchanged();
    });
}

// Fault 8.
#[test]
fn killed_having_opened_a_barrier() {
    alone(|heap| {
        let barrier = Barrier::create(heap, 2).unwrap();
        let before = Before::of(heap);
        let waits = in_child(|| assert!(matches!(barrier.wait(NEVER).unwrap(), BarrierWait::Passed { index: 0 })));
        until(|| barrier.waiting() == 1);
        kill_at(KillPoint::BarrierOpened, 0, || drop(barrier.wait(NEVER)));
        waits.succeeds();
        assert!(!barrier.is_broken());
        let other = in_child(|| assert!(matches!(barrier.wait(NEVER).unwrap(), BarrierWait::Passed { .. })));
        assert!(matches!(barrier.wait(NEVER).unwrap(), BarrierWait::Passed { .. }));
        other.succeeds();
        before.assert_unchanged();
    });
}

/// A party that dies anywhere in a barrier's own changes is not counted afterwards.
// Fault 7.
#[test]
fn killed_at_any_change_of_a_barrier() {
    alone(|heap| {
        let barrier = Barrier::create(heap, 1).unwrap();
        let before = Before::of(heap);
        let work = || assert!(matches!(barrier.wait(NEVER).unwrap(), BarrierWait::Passed { index: 0 }));
        for point in [
            KillPoint::LockTaken,
            KillPoint::RedoWritten,
            KillPoint::RedoCommitted,
            KillPoint::RedoHalfApplied,
            KillPoint::RedoApplied,
            KillPoint::RedoCleared,
            KillPoint::LockReleased,
        ] {
            let mut passes = 0;
            while killed_at(point, passes, work) {
                crash::sweep(heap);
                assert_eq!(barrier.waiting(), 0, "{} after {passes} passes", point.name());
                barrier.reset().unwrap();
                work();
                passes += 1;
            }
            assert!(passes >= 2, "{} was reached {passes} times", point.name());
        }
        before.assert_unchanged();
    });
}

/// The sweep itself dies, half-way through telling the objects: the next one finishes.
// Fault 7.
#[test]
fn killed_while_sweeping_a_holder_of_everything() {
    alone(|heap| {
        let (lock, semaphore) = (Lock::create(heap).unwrap(), Semaphore::create(heap, 2, Some(2)).unwrap());
        let (rwlock, condition) = (RwLock::create(heap).unwrap(), condition(heap));
        let before = Before::of(heap);
        for point in [
            KillPoint::SweepClaimed,
            KillPoint::SweepLocksDone,
            KillPoint::SweepDone,
            KillPoint::LockTaken,
            KillPoint::RedoCommitted,
            KillPoint::RedoHalfApplied,
            KillPoint::RedoApplied,
        ] {
            for passes in 0..3 {
                let seen = words();
                let holder = in_child(|| {
                    assert!(lock.acquire(NEVER).unwrap().is_held());
                    assert!(semaphore.acquire_held(NEVER).unwrap());
                    assert!(rwlock.acquire_read(NEVER).unwrap().is_held());
                    let _listed = condition.enlist().unwrap();
                    seen[0].store(1, SeqCst);
                    words::forever();
                });
                until(|| seen[0].load(SeqCst) == 1);
                holder.kill();
                // Where a sweep passes a point less often, its child ends without harm.
                let _ = killed_at(point, passes, || crash::sweep(heap));
                crash::sweep(heap);
                assert_eq!((semaphore.value(), rwlock.readers(), condition.waiting()), (2, 0, 0));
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::OwnerDied);
                lock.release().unwrap();
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                lock.release().unwrap();
            }
        }
        before.assert_unchanged();
    });
}
