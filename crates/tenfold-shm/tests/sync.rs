//! Locks and meeting points between real processes, some of which die.

#[path = "support/crash.rs"]
mod crash;
#[path = "support/words.rs"]
mod words;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crash::{Before, alone, in_child};
use tenfold_shm::data::{Access, Data};
use tenfold_shm::sync::{
    Acquired, Barrier, BarrierWait, Condition, Event, Lock, RLock, RwLock, Semaphore, SyncError, UserLock,
};
use tenfold_shm::{HeapError, participant};
use tenfold_sys::clock::Deadline;
use words::{forever, reaches, until, words};

const NEVER: Deadline = Deadline::never();

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(30))
}

/// Long enough for a waiter to be asleep; nothing depends on it but what a test sees.
fn let_sleep() {
    std::thread::sleep(Duration::from_millis(40));
}

mod lock {
    use super::*;

    #[test]
    fn excludes_processes() {
        alone(|heap| {
            let (lock, data) = (Lock::create(heap).unwrap(), Data::create(heap, Access::Raw, 0, 8).unwrap());
            let work = || {
                for _ in 0..20_000 {
                    assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                    data.store(0, data.load::<u64>(0).unwrap() + 1).unwrap();
                    lock.release().unwrap();
                }
            };
            let children: Vec<_> = (0..3).map(|_| in_child(work)).collect();
            work();
            children.into_iter().for_each(|c| c.succeeds());
            assert_eq!(data.load::<u64>(0).unwrap(), 80_000);
            assert!(!lock.is_locked());
        });
    }

    #[test]
    fn waits_no_longer_than_asked() {
        alone(|heap| {
            let lock = Lock::create(heap).unwrap();
            assert_eq!(lock.try_acquire().unwrap(), Acquired::Yes);
            assert!(lock.is_mine().unwrap());
            assert_eq!(lock.try_acquire().unwrap(), Acquired::TimedOut);
            assert_eq!(lock.acquire(soon()).unwrap(), Acquired::TimedOut);
            lock.release().unwrap();
            assert!(matches!(lock.release(), Err(SyncError::NotHeld)));
            assert_eq!(lock.acquire(soon()).unwrap(), Acquired::Yes);
        });
    }

    #[test]
    fn is_released_by_another_process() {
        alone(|heap| {
            let lock = Lock::create(heap).unwrap();
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
            let child = in_child(|| {
                assert!(!lock.release_own().unwrap(), "a guard's copy frees nothing");
                assert!(lock.is_locked());
                lock.release().unwrap();
            });
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
            child.succeeds();
        });
    }

    #[test]
    fn exactly_one_learns_that_the_holder_was_killed() {
        alone(|heap| {
            let (lock, seen) = (Lock::create(heap).unwrap(), words());
            let before = Before::of(heap);
            for round in 1..=5 {
                let holder = in_child(|| {
                    assert!(lock.acquire(NEVER).unwrap().is_held());
                    seen[0].store(round, SeqCst);
                    forever();
                });
                reaches(&seen[0], round);
                let waiters: Vec<_> = (0..3)
                    .map(|_| {
                        in_child(|| {
                            if lock.acquire(NEVER).unwrap() == Acquired::OwnerDied {
                                seen[1].fetch_add(1, SeqCst);
                            }
                            lock.release().unwrap();
                        })
                    })
                    .collect();
                let_sleep();
                holder.kill();
                waiters.into_iter().for_each(|w| w.succeeds());
                assert_eq!(seen[1].load(SeqCst), round);
                assert_eq!(lock.try_acquire().unwrap(), Acquired::Yes);
                lock.release().unwrap();
            }
            before.assert_unchanged();
        });
    }

    // Fault 7.
    #[test]
    fn stays_taken_when_the_holder_exits() {
        alone(|heap| {
            let lock = Lock::create(heap).unwrap();
            in_child(|| {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                participant::announce_exit(heap, 0);
            })
            .succeeds();
            crash::sweep(heap);
            assert_eq!(lock.acquire(soon()).unwrap(), Acquired::TimedOut);
            // The slot's next process is not taken for the holder.
            in_child(|| {
                assert!(!lock.is_mine().unwrap());
                forever();
            })
            .kill();
            crash::sweep(heap);
            assert_eq!(lock.acquire(soon()).unwrap(), Acquired::TimedOut);
            lock.release().unwrap();
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
        });
    }

    #[test]
    fn a_holder_without_a_handle_is_still_known() {
        alone(|heap| {
            let (lock, seen) = (Lock::create(heap).unwrap(), words());
            let before = Before::of(heap);
            let mut its_own = Some(lock.clone());
            let mut lock = Some(lock);
            let holder = in_child(|| {
                drop(lock.take());
                assert_eq!(its_own.as_ref().unwrap().acquire(NEVER).unwrap(), Acquired::Yes);
                drop(its_own.take());
                seen[0].store(1, SeqCst);
                forever();
            });
            drop(its_own);
            reaches(&seen[0], 1);
            holder.kill();
            let lock = lock.unwrap();
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::OwnerDied);
            before.assert_unchanged();
        });
    }

    #[test]
    fn a_holder_that_becomes_another_program_is_gone() {
        alone(|heap| {
            let (lock, seen) = (Lock::create(heap).unwrap(), words());
            let holder = in_child(|| {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                seen[0].store(1, SeqCst);
                let error = std::os::unix::process::CommandExt::exec(std::process::Command::new("sleep").arg("1000"));
                panic!("{error}");
            });
            reaches(&seen[0], 1);
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::OwnerDied);
            holder.kill();
        });
    }

    #[test]
    fn a_hog_does_not_starve_the_others() {
        alone(|heap| {
            let (lock, seen) = (Lock::create(heap).unwrap(), words());
            let hogs: Vec<_> = (0..2)
                .map(|_| {
                    in_child(|| {
                        while seen[0].load(SeqCst) == 0 {
                            let _ = lock.acquire(NEVER).unwrap();
                            std::hint::black_box((0..2000).sum::<u64>());
                            lock.release().unwrap();
                        }
                    })
                })
                .collect();
            for _ in 0..200 {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                lock.release().unwrap();
            }
            seen[0].store(1, SeqCst);
            hogs.into_iter().for_each(|h| h.succeeds());
        });
    }

    #[test]
    fn excludes_while_holders_and_waiters_are_killed() {
        alone(|heap| {
            let (lock, seen) = (Lock::create(heap).unwrap(), words());
            let (lock, before) = (&lock, Before::of(heap));
            let work = move || {
                let me = u64::from(std::process::id());
                loop {
                    let acquired = lock.acquire(NEVER).unwrap();
                    let inside = seen[1].swap(me, SeqCst);
                    match acquired {
                        Acquired::OwnerDied => drop(seen[2].fetch_add(1, SeqCst)),
                        _ if inside != 0 => drop(seen[3].fetch_add(1, SeqCst)),
                        _ => {}
                    }
                    std::hint::black_box((0..200).sum::<u64>());
                    if seen[1].compare_exchange(me, 0, SeqCst, SeqCst).is_err() {
                        seen[3].fetch_add(1, SeqCst);
                    }
                    lock.release().unwrap();
                    seen[4].fetch_add(1, SeqCst);
                }
            };
            let mut children: Vec<_> = (0..4).map(|_| in_child(work)).collect();
            let mut random = 88172645463325252_u64;
            for _ in 0..60 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                std::thread::sleep(Duration::from_micros(random % 4000));
                children.swap_remove((random >> 32) as usize % 4).kill();
                children.push(in_child(work));
            }
            let passes = seen[4].load(SeqCst);
            reaches(&seen[4], passes + 1000);
            children.into_iter().for_each(|c| c.kill());
            crash::sweep(heap);
            assert_eq!(seen[3].load(SeqCst), 0, "two were inside at once");
            assert!(lock.try_acquire().unwrap().is_held());
            before.assert_unchanged();
        });
    }
}

mod rlock {
    use super::*;

    #[test]
    fn is_taken_again_by_its_thread_only() {
        alone(|heap| {
            let lock = RLock::create(heap).unwrap();
            for _ in 0..3 {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
            }
            assert_eq!((lock.depth(), lock.is_mine().unwrap()), (3, true));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(lock.try_acquire().unwrap(), Acquired::TimedOut);
                    assert!(matches!(lock.release(), Err(SyncError::NotOwner)));
                });
            });
            in_child(|| {
                assert_eq!(lock.acquire(soon()).unwrap(), Acquired::TimedOut);
                assert!(matches!(lock.release(), Err(SyncError::NotOwner)));
            })
            .succeeds();
            let depth = lock.release_all().unwrap();
            in_child(|| {
                assert_eq!(lock.try_acquire().unwrap(), Acquired::Yes);
                tenfold_sys::process::kill_self();
            })
            .wait();
            crash::sweep(heap);
            assert_eq!(lock.acquire_again(depth, NEVER).unwrap(), Acquired::OwnerDied);
            for _ in 0..3 {
                assert!(lock.is_locked());
                lock.release().unwrap();
            }
            assert!(matches!(lock.release(), Err(SyncError::NotHeld)));
        });
    }

    // Fault 7.
    #[test]
    fn stays_taken_for_good_when_the_holder_exits() {
        alone(|heap| {
            let lock = RLock::create(heap).unwrap();
            in_child(|| {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                participant::announce_exit(heap, 0);
            })
            .succeeds();
            crash::sweep(heap);
            assert_eq!(lock.acquire(soon()).unwrap(), Acquired::TimedOut);
            assert!(matches!(lock.release(), Err(SyncError::NotOwner)));
            assert_eq!(lock.acquire(soon()).unwrap(), Acquired::TimedOut);
        });
    }

    // Fault 7.
    #[test]
    fn a_killed_holder_frees_all_its_levels() {
        alone(|heap| {
            let (lock, seen) = (RLock::create(heap).unwrap(), words());
            let holder = in_child(|| {
                for _ in 0..3 {
                    let _ = lock.acquire(NEVER).unwrap();
                }
                seen[0].store(1, SeqCst);
                forever();
            });
            reaches(&seen[0], 1);
            let waiter = in_child(|| {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::OwnerDied);
                assert_eq!(lock.depth(), 1);
                lock.release().unwrap();
                assert!(!lock.is_mine().unwrap());
            });
            let_sleep();
            holder.kill();
            waiter.succeeds();
            assert_eq!(lock.try_acquire().unwrap(), Acquired::Yes);
        });
    }

    #[test]
    fn held_briefly_it_keeps_others_out() {
        alone(|heap| {
            let (lock, seen) = (RLock::create(heap).unwrap(), words());
            let work = || {
                for _ in 0..20_000 {
                    let step = || seen[0].store(seen[0].load(SeqCst) + 1, SeqCst);
                    if lock.briefly(step).unwrap().is_none() {
                        assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
                        step();
                        lock.release().unwrap();
                    }
                }
            };
            let child = in_child(work);
            std::thread::scope(|scope| {
                scope.spawn(work);
                scope.spawn(work);
            });
            child.succeeds();
            assert_eq!(seen[0].load(SeqCst), 60_000);
            assert!(!lock.is_locked());
            // It may be this thread's own, but no other's.
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
            assert_eq!(lock.briefly(|| lock.depth()).unwrap(), Some(1));
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(lock.briefly(|| ()).unwrap(), None));
            });
            assert_eq!(lock.depth(), 1);
            lock.release().unwrap();
        });
    }

    // Fault 7.
    #[test]
    fn a_kill_while_it_is_held_briefly_is_told() {
        alone(|heap| {
            let (lock, seen) = (RLock::create(heap).unwrap(), words());
            let holder = in_child(|| {
                let _ = lock.briefly(|| {
                    seen[0].store(1, SeqCst);
                    forever();
                });
            });
            reaches(&seen[0], 1);
            assert_eq!(lock.briefly(|| ()).unwrap(), None);
            holder.kill();
            assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::OwnerDied);
            assert_eq!(lock.depth(), 1);
            lock.release().unwrap();
            assert_eq!(lock.briefly(|| 3).unwrap(), Some(3));
        });
    }
}

mod semaphore {
    use super::*;

    #[test]
    fn lets_so_many_in_and_no_more() {
        alone(|heap| {
            let (semaphore, seen) = (Semaphore::create(heap, 2, None).unwrap(), words());
            let work = || {
                for round in 0..3_000 {
                    if round % 2 == 0 {
                        assert!(semaphore.acquire(NEVER).unwrap());
                    } else {
                        assert!(semaphore.acquire_held(NEVER).unwrap());
                    }
                    let inside = seen[0].fetch_add(1, SeqCst) + 1;
                    seen[1].fetch_max(inside, SeqCst);
                    seen[0].fetch_sub(1, SeqCst);
                    if round % 2 == 0 {
                        semaphore.release(1).unwrap();
                    } else {
                        assert!(semaphore.release_held().unwrap());
                    }
                }
            };
            let children: Vec<_> = (0..4).map(|_| in_child(work)).collect();
            children.into_iter().for_each(|c| c.succeeds());
            assert!(seen[1].load(SeqCst) <= 2);
            assert_eq!(semaphore.value(), 2);
        });
    }

    #[test]
    fn permits_of_the_killed_go_back_and_tokens_do_not() {
        alone(|heap| {
            let (semaphore, seen) = (Semaphore::create(heap, 5, Some(5)).unwrap(), words());
            let before = Before::of(heap);
            let child = in_child(|| {
                assert!(semaphore.acquire(NEVER).unwrap());
                assert!(semaphore.acquire_held(NEVER).unwrap());
                assert!(semaphore.acquire_held(NEVER).unwrap());
                seen[0].store(1, SeqCst);
                forever();
            });
            reaches(&seen[0], 1);
            assert_eq!(semaphore.value(), 2);
            child.kill();
            crash::sweep(heap);
            assert_eq!(semaphore.value(), 4);
            semaphore.release(1).unwrap();
            assert!(matches!(semaphore.release(1), Err(SyncError::OverRelease { bound: 5 })));
            assert_eq!(semaphore.value(), 5);
            before.assert_unchanged();
        });
    }

    // Fault 7.
    #[test]
    fn permits_of_one_that_exits_stay_taken() {
        alone(|heap| {
            let semaphore = Semaphore::create(heap, 1, None).unwrap();
            in_child(|| {
                assert!(semaphore.acquire_held(NEVER).unwrap());
                participant::announce_exit(heap, 0);
            })
            .succeeds();
            crash::sweep(heap);
            assert!(!semaphore.acquire(soon()).unwrap());
            semaphore.release(1).unwrap();
            assert!(semaphore.try_acquire().unwrap());
        });
    }

    #[test]
    fn a_waiter_finds_out_that_the_holder_was_killed() {
        alone(|heap| {
            let (semaphore, seen) = (Semaphore::create(heap, 1, None).unwrap(), words());
            let holder = in_child(|| {
                assert!(semaphore.acquire_held(NEVER).unwrap());
                seen[0].store(1, SeqCst);
                forever();
            });
            reaches(&seen[0], 1);
            let waiter = in_child(|| assert!(semaphore.acquire(NEVER).unwrap()));
            let_sleep();
            holder.kill();
            waiter.succeeds();
            assert_eq!(semaphore.value(), 0);
        });
    }

    #[test]
    fn a_copy_of_a_permit_gives_nothing_back() {
        alone(|heap| {
            let semaphore = Semaphore::create(heap, 1, None).unwrap();
            assert!(semaphore.try_acquire_held().unwrap());
            in_child(|| assert!(!semaphore.release_held().unwrap())).succeeds();
            assert_eq!(semaphore.value(), 0);
            assert!(semaphore.release_held().unwrap());
            assert_eq!(semaphore.value(), 1);
        });
    }

    #[test]
    fn many_permits_wake_many_waiters() {
        alone(|heap| {
            let semaphore = Semaphore::create(heap, 0, None).unwrap();
            let waiters: Vec<_> = (0..4).map(|_| in_child(|| assert!(semaphore.acquire(NEVER).unwrap()))).collect();
            let_sleep();
            semaphore.release(4).unwrap();
            waiters.into_iter().for_each(|w| w.succeeds());
            assert_eq!(semaphore.value(), 0);
        });
    }

    #[test]
    fn a_hog_does_not_starve_the_others() {
        alone(|heap| {
            let (semaphore, seen) = (Semaphore::create(heap, 1, None).unwrap(), words());
            let hogs: Vec<_> = (0..2)
                .map(|_| {
                    in_child(|| {
                        while seen[0].load(SeqCst) == 0 {
                            assert!(semaphore.acquire(NEVER).unwrap());
                            std::hint::black_box((0..2000).sum::<u64>());
                            semaphore.release(1).unwrap();
                        }
                    })
                })
                .collect();
            for _ in 0..100 {
                assert!(semaphore.acquire(NEVER).unwrap());
                semaphore.release(1).unwrap();
            }
            seen[0].store(1, SeqCst);
            hogs.into_iter().for_each(|h| h.succeeds());
        });
    }

    #[test]
    fn refuses_numbers_without_a_meaning() {
        alone(|heap| {
            assert!(matches!(Semaphore::create(heap, 3, Some(2)), Err(SyncError::OutOfRange { .. })));
            assert!(matches!(Semaphore::create(heap, 1 << 40, None), Err(SyncError::OutOfRange { .. })));
            let semaphore = Semaphore::create(heap, 1, None).unwrap();
            assert!(matches!(semaphore.release(u64::MAX), Err(SyncError::OverRelease { .. })));
            assert_eq!(semaphore.value(), 1);
        });
    }
}

mod condition {
    use super::*;

    fn with_lock(heap: tenfold_shm::Heap) -> Condition {
        Condition::create(heap, UserLock::Lock(Lock::create(heap).unwrap())).unwrap()
    }

    fn notify(condition: &Condition, count: usize) -> usize {
        assert!(condition.lock().acquire(NEVER).unwrap().is_held());
        let notified = condition.notify(count).unwrap();
        condition.lock().release().unwrap();
        notified
    }

    #[test]
    fn wakes_exactly_as_many_as_asked_the_first_first() {
        alone(|heap| {
            let (condition, seen) = (with_lock(heap), words());
            let before = Before::of(heap);
            let waiters: Vec<_> = (0..20_u64)
                .map(|number| {
                    let waiter = in_child(|| {
                        assert!(condition.lock().acquire(NEVER).unwrap().is_held());
                        assert!(condition.wait(NEVER).unwrap().notified);
                        let place = seen[0].fetch_add(1, SeqCst);
                        seen[1 + place as usize].store(number, SeqCst);
                        condition.lock().release().unwrap();
                    });
                    until(|| condition.waiting() == number + 1);
                    waiter
                })
                .collect();
            assert_eq!(notify(&condition, 1), 1);
            reaches(&seen[0], 1);
            assert_eq!(notify(&condition, 2), 2);
            reaches(&seen[0], 3);
            let_sleep();
            assert_eq!((seen[0].load(SeqCst), condition.waiting()), (3, 17));
            assert_eq!(notify(&condition, usize::MAX), 17);
            waiters.into_iter().for_each(|w| w.succeeds());
            assert_eq!(notify(&condition, 1), 0);
            let order: Vec<u64> = (0..20).map(|place| seen[1 + place].load(SeqCst)).collect();
            assert_eq!(order[0], 0);
            let mut second = order[1..3].to_vec();
            second.sort_unstable();
            assert_eq!(second, [1, 2]);
            // Twenty nodes do not fit into the object: the further chunk stays with it.
            drop(before);
            let empty = Before::of(heap);
            drop(with_lock(heap));
            empty.assert_unchanged();
        });
    }

    #[test]
    fn a_wait_ends_in_time_and_holds_the_lock() {
        alone(|heap| {
            let condition = with_lock(heap);
            assert!(matches!(condition.wait(soon()), Err(SyncError::NotOwner)));
            assert!(condition.lock().acquire(NEVER).unwrap().is_held());
            let end = condition.wait(soon()).unwrap();
            assert_eq!((end.notified, end.acquired), (false, Acquired::Yes));
            assert!(condition.lock().is_mine().unwrap());
            assert_eq!(condition.waiting(), 0);
        });
    }

    #[test]
    fn a_wait_lets_go_of_all_levels() {
        alone(|heap| {
            let lock = RLock::create(heap).unwrap();
            let condition = Condition::create(heap, UserLock::RLock(lock.clone())).unwrap();
            for _ in 0..3 {
                assert_eq!(lock.acquire(NEVER).unwrap(), Acquired::Yes);
            }
            let notifier = in_child(|| assert_eq!(notify(&condition, 1), 1));
            let end = condition.wait(NEVER).unwrap();
            assert_eq!((end.notified, end.acquired, lock.depth()), (true, Acquired::Yes, 3));
            notifier.succeeds();
        });
    }

    #[test]
    fn a_killed_waiter_is_waited_for_no_more() {
        alone(|heap| {
            let (condition, seen) = (with_lock(heap), words());
            let before = Before::of(heap);
            let wait = || {
                assert!(condition.lock().acquire(NEVER).unwrap().is_held());
                assert!(condition.wait(NEVER).unwrap().notified);
                seen[0].fetch_add(1, SeqCst);
                condition.lock().release().unwrap();
            };
            let first = in_child(wait);
            until(|| condition.waiting() == 1);
            let second = in_child(wait);
            until(|| condition.waiting() == 2);
            let third = in_child(wait);
            until(|| condition.waiting() == 3);
            first.kill();
            // Nobody has swept the first one: its mark goes on to the second all the same.
            assert_eq!(notify(&condition, 1), 1);
            second.succeeds();
            assert_eq!(seen[0].load(SeqCst), 1);
            third.kill();
            crash::sweep(heap);
            assert_eq!(condition.waiting(), 0);
            assert_eq!(notify(&condition, 1), 0);
            before.assert_unchanged();
        });
    }

    #[test]
    fn a_waiter_learns_that_the_holder_of_the_lock_was_killed() {
        alone(|heap| {
            let condition = with_lock(heap);
            assert!(condition.lock().acquire(NEVER).unwrap().is_held());
            let killed = in_child(|| {
                assert!(condition.lock().acquire(NEVER).unwrap().is_held());
                condition.notify(1).unwrap();
                tenfold_sys::process::kill_self();
            });
            let end = condition.wait(NEVER).unwrap();
            assert_eq!((end.notified, end.acquired), (true, Acquired::OwnerDied));
            assert_eq!(killed.wait(), crash::KILLED);
        });
    }

    #[test]
    fn every_message_of_a_ping_pong_arrives() {
        alone(|heap| {
            let (condition, data) = (with_lock(heap), Data::create(heap, Access::Raw, 0, 8).unwrap());
            let play = |mine: u64| {
                for _ in 0..2_000 {
                    assert!(condition.lock().acquire(NEVER).unwrap().is_held());
                    while data.load::<u64>(0).unwrap() % 2 != mine {
                        assert!(condition.wait(NEVER).unwrap().notified);
                    }
                    data.store(0, data.load::<u64>(0).unwrap() + 1).unwrap();
                    condition.notify(1).unwrap();
                    condition.lock().release().unwrap();
                }
            };
            let other = in_child(|| play(1));
            play(0);
            other.succeeds();
            assert_eq!(data.load::<u64>(0).unwrap(), 4_000);
        });
    }

    #[test]
    fn keeps_its_lock_alive_and_lets_it_go() {
        alone(|heap| {
            let before = Before::of(heap);
            let condition = with_lock(heap);
            let copy = Condition::from_handle(condition.handle().clone()).unwrap();
            drop(condition);
            assert!(copy.lock().acquire(NEVER).unwrap().is_held());
            copy.lock().release().unwrap();
            let wrong = Lock::from_handle(copy.handle().clone());
            assert!(matches!(wrong, Err(HeapError::WrongKind { expected: "lock", found: "condition" })));
            drop((copy, wrong));
            before.assert_unchanged();
        });
    }
}

/// Random kills of processes that use everything at once.
mod storm {
    use super::*;

    #[test]
    fn nothing_stays_taken_when_holders_and_waiters_are_killed() {
        alone(|heap| {
            let semaphore = Semaphore::create(heap, 2, Some(2)).unwrap();
            let (rwlock, lock, seen) = (RwLock::create(heap).unwrap(), Lock::create(heap).unwrap(), words());
            let before = Before::of(heap);
            let condition = Condition::create(heap, UserLock::Lock(lock.clone())).unwrap();
            let work = || {
                let mut turn = u64::from(std::process::id());
                loop {
                    turn += 1;
                    match turn % 4 {
                        0 => {
                            assert!(semaphore.acquire_held(NEVER).unwrap());
                            assert!(semaphore.value() < 2);
                            assert!(semaphore.release_held().unwrap());
                        }
                        1 => {
                            assert!(rwlock.acquire_read(NEVER).unwrap().is_held());
                            assert!(!rwlock.is_write_locked());
                            assert!(rwlock.release_read().unwrap());
                        }
                        2 => {
                            assert!(rwlock.acquire_write(NEVER).unwrap().is_held());
                            assert_eq!(rwlock.readers(), 0);
                            assert!(rwlock.release_write().unwrap());
                        }
                        _ => {
                            assert!(lock.acquire(NEVER).unwrap().is_held());
                            if turn % 8 == 3 {
                                condition.notify(1).unwrap();
                            } else {
                                assert!(
                                    condition
                                        .wait(Deadline::after(Duration::from_millis(2)))
                                        .unwrap()
                                        .acquired
                                        .is_held()
                                );
                            }
                            lock.release().unwrap();
                        }
                    }
                    seen[0].fetch_add(1, SeqCst);
                }
            };
            let mut children: Vec<_> = (0..4).map(|_| in_child(work)).collect();
            let mut random = 88172645463325252_u64;
            for _ in 0..80 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                std::thread::sleep(Duration::from_micros(random % 6000));
                children.swap_remove((random >> 32) as usize % 4).kill();
                children.push(in_child(work));
            }
            // Nothing hangs: all four go on.
            let turns = seen[0].load(SeqCst);
            reaches(&seen[0], turns + 2000);
            children.into_iter().for_each(|c| c.kill());
            crash::sweep(heap);
            assert_eq!((semaphore.value(), rwlock.readers(), rwlock.is_write_locked()), (2, 0, false));
            assert_eq!(condition.waiting(), 0);
            assert!(lock.try_acquire().unwrap().is_held());
            // With the room that it made for waiters which nobody had swept.
            drop(condition);
            before.assert_unchanged();
        });
    }
}

mod event {
    use super::*;

    #[test]
    fn lets_all_who_wait_go_on_even_if_it_is_cleared_at_once() {
        alone(|heap| {
            let event = Event::create(heap).unwrap();
            assert!(!event.wait(soon()).unwrap());
            let waiters: Vec<_> = (0..4).map(|_| in_child(|| assert!(event.wait(NEVER).unwrap()))).collect();
            let_sleep();
            event.set();
            event.clear();
            assert!(!event.is_set());
            // Those that came late wait for the next time.
            let_sleep();
            event.set();
            waiters.into_iter().for_each(|w| w.succeeds());
            assert!(event.wait(soon()).unwrap());
        });
    }

    #[test]
    fn outlives_killed_waiters() {
        alone(|heap| {
            let event = Event::create(heap).unwrap();
            let before = Before::of(heap);
            let mut waiters: Vec<_> = (0..4).map(|_| in_child(|| assert!(event.wait(NEVER).unwrap()))).collect();
            let_sleep();
            waiters.pop().into_iter().for_each(|w| w.kill());
            waiters.pop().into_iter().for_each(|w| w.kill());
            event.set();
            waiters.into_iter().for_each(|w| w.succeeds());
            before.assert_unchanged();
        });
    }
}

mod barrier {
    use super::*;

    fn index(end: BarrierWait) -> u32 {
        match end {
            BarrierWait::Passed { index } => index,
            other => panic!("{other:?}"),
        }
    }

    fn passes(barrier: &Barrier) {
        let _ = index(barrier.wait(NEVER).unwrap());
    }

    #[test]
    fn opens_round_after_round_and_numbers_its_parties() {
        alone(|heap| {
            let (barrier, seen) = (Barrier::create(heap, 3).unwrap(), words());
            const ROUNDS: u64 = 300;
            let play = || {
                for round in 0..ROUNDS {
                    assert!(seen[0].load(SeqCst) >= round * 3, "somebody is a round ahead");
                    seen[0].fetch_add(1, SeqCst);
                    let place = index(barrier.wait(NEVER).unwrap());
                    seen[1].fetch_add(1 << (8 * place), SeqCst);
                    assert!(seen[0].load(SeqCst) >= (round + 1) * 3);
                    if round % 50 == 0 {
                        let_sleep();
                    }
                    passes(&barrier);
                }
            };
            let children: Vec<_> = (0..2).map(|_| in_child(play)).collect();
            play();
            children.into_iter().for_each(|c| c.succeeds());
            assert_eq!(seen[0].load(SeqCst), 3 * ROUNDS);
            assert_eq!(seen[1].load(SeqCst), ROUNDS | ROUNDS << 8 | ROUNDS << 16);
            assert_eq!(barrier.waiting(), 0);
        });
    }

    #[test]
    fn is_broken_by_a_party_that_is_killed_and_usable_after_a_reset() {
        alone(|heap| {
            let barrier = Barrier::create(heap, 3).unwrap();
            let before = Before::of(heap);
            let dies = in_child(|| passes(&barrier));
            until(|| barrier.waiting() == 1);
            let waits = in_child(|| assert_eq!(barrier.wait(NEVER).unwrap(), BarrierWait::Broken));
            until(|| barrier.waiting() == 2);
            dies.kill();
            waits.succeeds();
            assert!(barrier.is_broken());
            assert_eq!(barrier.wait(NEVER).unwrap(), BarrierWait::Broken);
            barrier.reset().unwrap();
            let others: Vec<_> = (0..2).map(|_| in_child(|| passes(&barrier))).collect();
            passes(&barrier);
            others.into_iter().for_each(|c| c.succeeds());
            before.assert_unchanged();
        });
    }

    #[test]
    fn is_broken_for_all_when_one_gives_up() {
        alone(|heap| {
            let barrier = Barrier::create(heap, 3).unwrap();
            let waits = in_child(|| assert_eq!(barrier.wait(NEVER).unwrap(), BarrierWait::Broken));
            until(|| barrier.waiting() == 1);
            assert_eq!(barrier.wait(soon()).unwrap(), BarrierWait::TimedOut);
            waits.succeeds();
            assert!(barrier.is_broken());
        });
    }

    #[test]
    fn can_be_aborted_and_reset_while_others_wait() {
        alone(|heap| {
            let barrier = Barrier::create(heap, 2).unwrap();
            let waits = || in_child(|| assert_eq!(barrier.wait(NEVER).unwrap(), BarrierWait::Broken));
            let child = waits();
            until(|| barrier.waiting() == 1);
            barrier.abort().unwrap();
            child.succeeds();
            barrier.reset().unwrap();
            let child = waits();
            until(|| barrier.waiting() == 1);
            barrier.reset().unwrap();
            child.succeeds();
            assert!(!barrier.is_broken());
            let child = in_child(|| passes(&barrier));
            passes(&barrier);
            child.succeeds();
        });
    }

    #[test]
    fn the_last_one_acts_before_anybody_goes_on() {
        alone(|heap| {
            let (barrier, seen) = (Barrier::create(heap, 3).unwrap(), words());
            let act = || {
                std::thread::sleep(Duration::from_millis(20));
                seen[0].fetch_add(1, SeqCst);
                true
            };
            let wait = || {
                let _ = index(barrier.wait_and(NEVER, act).unwrap());
                assert_eq!(seen[0].load(SeqCst), 1);
            };
            let others: Vec<_> = (0..2).map(|_| in_child(wait)).collect();
            wait();
            others.into_iter().for_each(|c| c.succeeds());
            let others: Vec<_> = (0..2)
                .map(|_| in_child(|| assert_eq!(barrier.wait_and(NEVER, || false).unwrap(), BarrierWait::Broken)))
                .collect();
            assert_eq!(barrier.wait_and(NEVER, || false).unwrap(), BarrierWait::Broken);
            others.into_iter().for_each(|c| c.succeeds());
        });
    }

    #[test]
    fn needs_a_party() {
        alone(|heap| {
            assert!(matches!(Barrier::create(heap, 0), Err(SyncError::OutOfRange { .. })));
            let barrier = Barrier::create(heap, 1).unwrap();
            assert_eq!((index(barrier.wait(NEVER).unwrap()), barrier.parties()), (0, 1));
        });
    }
}

mod rwlock {
    use super::*;

    #[test]
    fn many_read_or_one_writes() {
        alone(|heap| {
            let (lock, seen) = (RwLock::create(heap).unwrap(), words());
            assert_eq!(lock.acquire_read(NEVER).unwrap(), Acquired::Yes);
            in_child(|| {
                assert_eq!(lock.try_acquire_read().unwrap(), Acquired::Yes);
                assert_eq!(lock.readers(), 2);
                assert_eq!(lock.try_acquire_write().unwrap(), Acquired::TimedOut);
                assert!(lock.release_read().unwrap());
                assert!(!lock.release_read().unwrap(), "the parent's share is not the child's");
            })
            .succeeds();
            assert!(lock.release_read().unwrap());
            let work = || {
                for round in 0..3_000_u32 {
                    if round.is_multiple_of(4) {
                        assert_eq!(lock.acquire_write(NEVER).unwrap(), Acquired::Yes);
                        assert_eq!(seen[0].fetch_add(1000, SeqCst), 0, "a writer is not alone");
                        seen[0].fetch_sub(1000, SeqCst);
                        assert!(lock.release_write().unwrap());
                    } else {
                        assert_eq!(lock.acquire_read(NEVER).unwrap(), Acquired::Yes);
                        assert!(seen[0].fetch_add(1, SeqCst) < 1000, "a reader meets a writer");
                        seen[0].fetch_sub(1, SeqCst);
                        assert!(lock.release_read().unwrap());
                    }
                }
            };
            let children: Vec<_> = (0..3).map(|_| in_child(work)).collect();
            children.into_iter().for_each(|c| c.succeeds());
            assert_eq!((lock.readers(), lock.is_write_locked()), (0, false));
        });
    }

    #[test]
    fn a_killed_reader_gives_its_share_back() {
        alone(|heap| {
            let (lock, seen) = (RwLock::create(heap).unwrap(), words());
            let before = Before::of(heap);
            let reader = in_child(|| {
                let _ = (lock.acquire_read(NEVER).unwrap(), lock.acquire_read(NEVER).unwrap());
                seen[0].store(1, SeqCst);
                forever();
            });
            reaches(&seen[0], 1);
            let writer = in_child(|| {
                assert_eq!(lock.acquire_write(NEVER).unwrap(), Acquired::Yes);
                assert!(lock.release_write().unwrap());
            });
            let_sleep();
            reader.kill();
            writer.succeeds();
            before.assert_unchanged();
        });
    }

    #[test]
    fn exactly_one_learns_that_a_writer_was_killed() {
        alone(|heap| {
            let (lock, seen) = (RwLock::create(heap).unwrap(), words());
            let writer = in_child(|| {
                let _ = lock.acquire_write(NEVER).unwrap();
                seen[0].store(1, SeqCst);
                forever();
            });
            reaches(&seen[0], 1);
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    in_child(|| {
                        if lock.acquire_read(NEVER).unwrap() == Acquired::OwnerDied {
                            seen[1].fetch_add(1, SeqCst);
                        }
                        assert!(lock.release_read().unwrap());
                    })
                })
                .collect();
            let_sleep();
            writer.kill();
            waiters.into_iter().for_each(|w| w.succeeds());
            assert_eq!(seen[1].load(SeqCst), 1);
        });
    }

    #[test]
    fn neither_side_starves() {
        alone(|heap| {
            let (lock, seen) = (RwLock::create(heap).unwrap(), words());
            // Readers that overlap, so that there is always one.
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    in_child(|| {
                        while seen[0].load(SeqCst) == 0 {
                            let _ = lock.acquire_read(NEVER).unwrap();
                            std::thread::sleep(Duration::from_millis(2));
                            assert!(lock.release_read().unwrap());
                        }
                    })
                })
                .collect();
            for _ in 0..20 {
                assert_eq!(lock.acquire_write(NEVER).unwrap(), Acquired::Yes);
                assert!(lock.release_write().unwrap());
            }
            seen[0].store(1, SeqCst);
            readers.into_iter().for_each(|r| r.succeeds());
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    in_child(|| {
                        while seen[0].load(SeqCst) == 1 {
                            let _ = lock.acquire_write(NEVER).unwrap();
                            assert!(lock.release_write().unwrap());
                        }
                    })
                })
                .collect();
            for _ in 0..20 {
                assert_eq!(lock.acquire_read(NEVER).unwrap(), Acquired::Yes);
                assert!(lock.release_read().unwrap());
            }
            seen[0].store(2, SeqCst);
            writers.into_iter().for_each(|w| w.succeeds());
        });
    }
}

mod data {
    use super::*;

    #[test]
    fn is_shared_whatever_its_size() {
        alone(|heap| {
            for bytes in [8_u64, 1000, 1 << 20, 5 << 20] {
                let before = Before::of(heap);
                let data = Data::create(heap, Access::Guarded, 7, bytes).unwrap();
                let last = (bytes / 8) as usize - 1;
                in_child(|| {
                    let mut guard = data.lock::<u64>(NEVER).unwrap().unwrap();
                    assert!(guard.iter().all(|x| *x == 0));
                    assert_eq!(guard.as_ptr() as usize % 64, 0);
                    guard[last] = 9;
                })
                .succeeds();
                assert_eq!(data.fingerprint(), 7);
                let guard = data.lock::<u64>(NEVER).unwrap().unwrap();
                assert_eq!((guard.len(), guard[last]), (last + 1, 9));
                assert!(data.try_lock::<u8>().unwrap().is_none());
                drop(guard);
                drop(data);
                before.assert_unchanged();
            }
        });
    }

    #[test]
    fn is_either_guarded_or_raw() {
        alone(|heap| {
            let guarded = Data::create(heap, Access::Guarded, 0, 16).unwrap();
            assert!(guarded.load::<u64>(0).is_err());
            assert!(guarded.release().is_err());
            assert!(guarded.lock::<[u8; 3]>(NEVER).is_err(), "not whole elements");
            let raw = Data::create(heap, Access::Raw, 0, 16).unwrap();
            assert!(raw.lock::<u64>(NEVER).is_err());
            assert!(matches!(
                Data::from_handle(raw.handle().clone(), Access::Guarded),
                Err(HeapError::WrongKind { .. })
            ));
            raw.store(1, u64::MAX).unwrap();
            assert_eq!((raw.load::<u64>(0).unwrap(), raw.load::<u64>(1).unwrap()), (0, u64::MAX));
            assert_eq!(raw.load::<[u16; 4]>(1).unwrap(), [u16::MAX; 4]);
            raw.store(0, [1_u8; 16]).unwrap();
            assert_eq!(raw.load::<u8>(15).unwrap(), 1);
            assert!(raw.load::<u64>(2).is_err());
        });
    }

    #[test]
    fn numbers_are_never_torn() {
        alone(|heap| {
            let raw = Data::create(heap, Access::Raw, 0, 64).unwrap();
            let seen = words();
            let child = in_child(|| {
                while seen[0].load(SeqCst) == 0 {
                    raw.store(3, u64::MAX).unwrap();
                    raw.store(3, 0_u64).unwrap();
                }
            });
            for _ in 0..200_000 {
                assert!([0, u64::MAX].contains(&raw.load::<u64>(3).unwrap()));
            }
            seen[0].store(1, SeqCst);
            child.succeeds();
        });
    }

    #[test]
    fn a_killed_holder_is_told_of_once() {
        alone(|heap| {
            let (data, seen) = (Data::create(heap, Access::Guarded, 0, 16).unwrap(), words());
            let holder = in_child(|| {
                let mut guard = data.lock::<u64>(NEVER).unwrap().unwrap();
                guard[0] = 1;
                seen[0].store(1, SeqCst);
                forever();
            });
            reaches(&seen[0], 1);
            holder.kill();
            let mut guard = data.lock::<u64>(NEVER).unwrap().unwrap();
            assert_eq!((guard.owner_died(), guard[0], guard[1]), (true, 1, 0));
            guard[1] = 1;
            drop(guard);
            assert!(!data.lock::<u64>(NEVER).unwrap().unwrap().owner_died());
        });
    }

    #[test]
    fn one_that_exits_with_a_guard_hangs_nobody() {
        alone(|heap| {
            let data = Data::create(heap, Access::Guarded, 0, 8).unwrap();
            in_child(|| {
                std::mem::forget(data.lock::<u64>(NEVER).unwrap().unwrap());
                participant::announce_exit(heap, 0);
            })
            .succeeds();
            assert!(data.lock::<u64>(NEVER).unwrap().unwrap().owner_died());
            assert!(!data.lock::<u64>(NEVER).unwrap().unwrap().owner_died());
        });
    }

    #[test]
    fn a_forked_copy_of_a_guard_frees_nothing() {
        alone(|heap| {
            let data = Data::create(heap, Access::Guarded, 0, 8).unwrap();
            let guard = data.lock::<u64>(NEVER).unwrap().unwrap();
            let mut guard = Some(guard);
            in_child(|| drop(guard.take())).succeeds();
            assert!(data.is_locked());
            drop(guard);
            assert!(!data.is_locked());
        });
    }
}

/// Shared memory that somebody has scribbled over is an error, never a crash.
mod corruption {
    use super::*;
    use tenfold_shm::Handle;

    /// Fills the object with nonsense from byte `from` on.
    fn scribble(handle: &Handle, from: u64, nonsense: u64) {
        let (heap, block) = (handle.heap(), handle.block());
        for at in (from..block.len()).step_by(8) {
            block.word(heap, at).unwrap().store(nonsense, SeqCst);
        }
    }

    /// Bytes of an internal lock, with which the objects begin.
    const LOCK: u64 = 120;

    #[test]
    fn is_an_error() {
        alone(|heap| {
            for nonsense in [u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
                let barrier = Barrier::create(heap, 2).unwrap();
                scribble(barrier.handle(), LOCK, nonsense);
                assert!(matches!(barrier.wait(soon()), Err(HeapError::Corrupt { .. })));
                let lock = Lock::create(heap).unwrap();
                let condition = Condition::create(heap, UserLock::Lock(lock)).unwrap();
                assert!(condition.lock().acquire(NEVER).unwrap().is_held());
                scribble(condition.handle(), LOCK, nonsense);
                let _ = (condition.notify_all(), condition.wait(soon()));
                assert!(Condition::from_handle(condition.handle().clone()).is_err());
                let data = Data::create(heap, Access::Guarded, 0, 64).unwrap();
                scribble(data.handle(), 8, nonsense);
                assert!(Data::from_handle(data.handle().clone(), Access::Guarded).is_err());
                // Any bits are some count of permits and readers: what counts is that nothing hangs.
                let (semaphore, rwlock) = (Semaphore::create(heap, 1, None).unwrap(), RwLock::create(heap).unwrap());
                scribble(semaphore.handle(), LOCK, nonsense);
                scribble(rwlock.handle(), LOCK, nonsense);
                let _ = (semaphore.acquire_held(soon()), semaphore.release_held(), semaphore.release(3));
                let _ = (rwlock.acquire_read(soon()), rwlock.acquire_write(soon()), rwlock.release_read());
                let (plain, event) = (Lock::create(heap).unwrap(), Event::create(heap).unwrap());
                scribble(plain.handle(), 0, nonsense);
                scribble(event.handle(), 0, nonsense);
                let _ = (plain.acquire(soon()), plain.release(), event.wait(soon()), event.set());
            }
        });
    }
}
