//! Forks of every kind, deaths, and who holds what afterwards.

#[path = "support/crash.rs"]
mod crash;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crash::{Before, Child, KILLED, alone, in_child};
use tenfold_shm::message::{self, Outgoing};
use tenfold_shm::object::{self, Handle, ObjectKind};
use tenfold_shm::participant::{self, Forked, HeldCell};
use tenfold_shm::{Heap, HeapError};
use tenfold_sys::process::{self, ExitStatus};

fn object(heap: Heap) -> Handle {
    Handle::create(heap, ObjectKind::Event, 16, |_| Ok(())).unwrap()
}

/// A word of the object: the processes tell each other by it.
fn word(handle: &Handle) -> &'static AtomicU64 {
    handle.view::<AtomicU64>().unwrap().get()
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a further handle can be had, as only for an object that somebody holds.
fn exists(heap: Heap, handle: &Handle) -> bool {
    heap.block(handle.id()).is_ok()
}

#[test]
fn a_child_holds_what_its_parent_drops() {
    alone(|heap| {
        let before = Before::of(heap);
        let (held, signal) = (object(heap), object(heap));
        let id = held.id();
        let child = in_child(|| {
            until("the parent's drop", || word(&signal).load(Ordering::Acquire) == 1);
            assert!(exists(heap, &held));
            word(&held).store(7, Ordering::Release);
            // Its own clones count too.
            let again = held.clone();
            drop(held);
            assert!(exists(heap, &again));
            drop(again);
            assert_eq!(heap.block(id).unwrap_err(), HeapError::Stale);
        });
        // The closure took `held` along into the child only.
        word(&signal).store(1, Ordering::Release);
        child.succeeds();
        drop(signal);
        before.assert_unchanged();
    });
}

#[test]
fn a_grandchild_holds_what_all_before_it_drop() {
    alone(|heap| {
        let before = Before::of(heap);
        let signal = object(heap);
        let held = object(heap);
        let id = held.id();
        let child = in_child(|| {
            let grandchild = in_child(|| {
                until("the end of the child", || word(&signal).load(Ordering::Acquire) == 1);
                word(&held).store(9, Ordering::Release);
                assert!(exists(heap, &held));
                process::exit_now(0);
            });
            drop(held);
            assert!(heap.block(id).is_ok());
            word(&signal).store(1, Ordering::Release);
            grandchild.succeeds();
        });
        child.succeeds();
        drop(signal);
        before.assert_unchanged();
        assert_eq!(heap.block(id).unwrap_err(), HeapError::Stale);
    });
}

/// The daemon's way: the process in the middle is gone before its child has run an instruction, and
/// somebody sweeps all the time.
#[test]
fn a_child_whose_parent_exits_at_once_keeps_its_holdings() {
    alone(|heap| {
        let before = Before::of(heap);
        let stop = object(heap);
        let sweeper = in_child(|| {
            while word(&stop).load(Ordering::Acquire) == 0 {
                participant::sweep_all(heap);
            }
        });
        for round in 1..=50 {
            let (held, told) = (object(heap), object(heap));
            let middle = in_child(|| {
                // SAFETY: one thread.
                if let process::Fork::Child = unsafe { process::fork() }.unwrap() {
                    until("the parent's drop", || word(&told).load(Ordering::Acquire) == 1);
                    word(&told).store(if exists(heap, &held) { 2 } else { 3 }, Ordering::Release);
                }
                process::exit_now(0);
            });
            middle.succeeds();
            drop(held);
            word(&told).store(1, Ordering::Release);
            until("the grandchild", || word(&told).load(Ordering::Acquire) > 1);
            assert_eq!(word(&told).load(Ordering::Acquire), 2, "lost in round {round}");
        }
        word(&stop).store(1, Ordering::Release);
        sweeper.succeeds();
        drop(stop);
        before.assert_unchanged();
    });
}

/// `clone` behind the C library's back, as some programs do.
#[test]
fn a_raw_clone_finds_out_by_itself() {
    alone(|heap| {
        let before = Before::of(heap);
        let (held, signal) = (object(heap), object(heap));
        // SAFETY: as fork: no stack of its own, one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            let mine = participant::me(heap).map(|me| me.slot());
            let good = mine.is_ok_and(|slot| slot != 0);
            word(&signal).store(1, Ordering::Release);
            until("the parent's drop", || word(&signal).load(Ordering::Acquire) == 2);
            let good = good && exists(heap, &held);
            drop(object(heap));
            process::exit_now(i32::from(!good));
        }
        until("the clone", || word(&signal).load(Ordering::Acquire) == 1);
        drop(held);
        word(&signal).store(2, Ordering::Release);
        assert_eq!(process::reap_blocking(pid as u32), Ok(ExitStatus::Exited(0)));
        drop(signal);
        before.assert_unchanged();
    });
}

#[test]
fn fork_and_exec_leave_nothing() {
    alone(|heap| {
        let before = Before::of(heap);
        let held = object(heap);
        for _ in 0..20 {
            let mut command = Command::new("true");
            // SAFETY: does nothing, but makes std fork and exec instead of spawning.
            unsafe { command.pre_exec(|| Ok(())) };
            assert!(command.status().unwrap().success());
            assert!(Command::new("true").status().unwrap().success());
        }
        drop(held);
        before.assert_unchanged();
    });
}

#[test]
fn who_has_become_another_program_holds_nothing() {
    alone(|heap| {
        let before = Before::of(heap);
        let held = object(heap);
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped());
        // SAFETY: does nothing, but makes std fork and exec instead of spawning.
        unsafe { command.pre_exec(|| Ok(())) };
        let mut other = command.spawn().unwrap();
        let slot = (0..1024).find(|&slot| participant::roster(slot, heap).pid() == other.id()).unwrap();
        let entry = participant::roster(slot, heap);
        assert!(participant::is_alive(entry.pid(), entry.start_time()));
        assert!(!participant::is_alive_in_family(heap, entry));
        assert!(participant::is_alive_in_family(heap, participant::roster(0, heap)));
        assert!(!participant::sweep_if_dead(heap, slot + 1));
        until("the sweep", || participant::sweep_if_gone(heap, slot + 1));
        assert!(entry.identity(slot).is_none());
        drop(held);
        before.assert_unchanged();
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    });
}

#[test]
fn a_zombie_is_dead_and_its_status_is_read() {
    alone(|heap| {
        let before = Before::of(heap);
        for (code, abnormal) in [(Some(0), false), (Some(3), false), (None, true)] {
            let held = object(heap);
            let child = in_child(|| match code {
                Some(code) => process::exit_now(code),
                None => process::kill_self(),
            });
            child.wait_unreaped();
            let slot = (0..1024).find(|&slot| participant::roster(slot, heap).pid() == child.pid()).unwrap();
            let entry = participant::roster(slot, heap);
            assert!(!participant::is_alive(entry.pid(), entry.start_time()));
            // No waiting for whoever reaps: the status is there to be read.
            assert!(participant::sweep_if_dead(heap, slot + 1), "{code:?}");
            let status = child.wait();
            assert_eq!(status == KILLED, abnormal);
            drop(held);
            before.assert_unchanged();
        }
    });
}

#[test]
fn a_process_lives_on_after_its_main_thread() {
    alone(|heap| {
        let before = Before::of(heap);
        let (held, signal) = (object(heap), object(heap));
        let child = in_child(|| {
            let (held, signal) = (held.clone(), signal.clone());
            std::thread::spawn(move || {
                until("the parent", || word(&signal).load(Ordering::Acquire) == 1);
                let good = exists(heap, &held);
                process::exit_now(i32::from(!good));
            });
            // SAFETY: ends this thread, on which nothing is left to do.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
        until("the end of the main thread", || tenfold_sys::procfs::state(child.pid()) == Ok(b'Z'));
        let slot = (0..1024).find(|&slot| participant::roster(slot, heap).pid() == child.pid()).unwrap();
        let entry = participant::roster(slot, heap);
        assert!(participant::is_alive(entry.pid(), entry.start_time()));
        assert!(participant::is_alive_in_family(heap, entry));
        for _ in 0..20 {
            assert!(!participant::sweep_if_dead(heap, slot + 1));
            assert!(!participant::sweep(heap, slot, None));
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(held);
        word(&signal).store(1, Ordering::Release);
        child.succeeds();
        drop(signal);
        before.assert_unchanged();
    });
}

#[test]
fn a_full_table_is_an_error_and_empties_again() {
    alone(|heap| {
        let before = Before::of(heap);
        let held = object(heap);
        let asleep = || loop {
            std::thread::sleep(Duration::from_secs(100));
        };
        let children: Vec<Child> = (0..1023).map(|_| in_child(asleep)).collect();
        let me = participant::me(heap).unwrap();
        assert_eq!(participant::claim(heap, me), Err(HeapError::TooManyProcesses { limit: 1024 }));
        // A child of a full family is told so, and can do without.
        in_child(|| {
            let refused = HeldCell::take(heap).map(drop);
            assert_eq!(refused, Err(HeapError::TooManyProcesses { limit: 1024 }));
        })
        .succeeds();
        children.into_iter().for_each(Child::kill);
        // Nobody has swept yet: who finds the table full does.
        until("a free slot", || {
            participant::claim(heap, me).map(|claimed| participant::abandon(heap, claimed)).is_ok()
        });
        in_child(|| drop(object(heap))).succeeds();
        drop(held);
        before.assert_unchanged();
    });
}

#[test]
fn a_claim_is_swept_with_its_claimer_but_not_before() {
    alone(|heap| {
        let before = Before::of(heap);
        let claimed = object(heap);
        let child = in_child(|| {
            let me = participant::me(heap).unwrap();
            let claim = participant::claim(heap, me).unwrap();
            word(&claimed).store(u64::from(claim.bits()), Ordering::Release);
            until("the kill", || false);
        });
        until("the claim", || word(&claimed).load(Ordering::Acquire) != 0);
        let claim = participant::Identity::from_bits(word(&claimed).load(Ordering::Acquire) as u32).unwrap();
        participant::sweep_all(heap);
        assert!(claim.is_current(heap) && participant::roster(claim.slot(), heap).is_birth());
        child.kill();
        until("the sweep", || {
            participant::sweep_all(heap);
            !claim.is_current(heap)
        });
        assert_eq!(participant::adopt(heap, claim), Err(HeapError::Stale));
        drop(claimed);
        before.assert_unchanged();
    });
}

/// A sweep that was decided on must not hit whoever has the slot by then.
#[test]
fn a_late_sweep_spares_the_next_in_the_slot() {
    alone(|heap| {
        let first = in_child(|| ());
        first.wait_unreaped();
        let slot = (0..1024).find(|&slot| participant::roster(slot, heap).pid() == first.pid()).unwrap();
        let dead = participant::roster(slot, heap).identity(slot).unwrap();
        let status = first.wait();
        assert!(participant::sweep_participant(heap, dead, Some(status)));
        let go = object(heap);
        let second = in_child(|| until("the go", || word(&go).load(Ordering::Acquire) == 1));
        until("the second", || participant::roster(slot, heap).pid() == second.pid());
        assert!(!participant::sweep_participant(heap, dead, Some(status)));
        assert!(!participant::sweep(heap, slot, Some(status)));
        assert!(!participant::sweep_if_dead(heap, slot + 1));
        assert!(participant::roster(slot, heap).is_live());
        word(&go).store(1, Ordering::Release);
        second.succeeds();
    });
}

#[test]
fn forks_of_several_threads_get_their_own_slots() {
    alone(|heap| {
        let before = Before::of(heap);
        let held = object(heap);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let held = &held;
                scope.spawn(move || {
                    for _ in 0..40 {
                        if thread % 2 == 0 {
                            in_child(|| assert!(exists(heap, held))).succeeds();
                            continue;
                        }
                        let me = participant::me(heap).unwrap();
                        let claimed = participant::claim(heap, me).unwrap();
                        // SAFETY: the child only looks and exits.
                        match unsafe { participant::fork_into(heap, claimed, true) }.unwrap() {
                            Forked::Child => {
                                let right = participant::me(heap) == Ok(claimed) && exists(heap, held);
                                process::exit_now(i32::from(!right));
                            }
                            Forked::Parent(pid) => {
                                let status = process::reap_blocking(pid).unwrap();
                                assert_eq!(status, ExitStatus::Exited(0));
                                participant::sweep_participant(heap, claimed, Some(status));
                                assert!(!claimed.is_current(heap));
                            }
                        }
                    }
                });
            }
        });
        drop(held);
        before.assert_unchanged();
    });
}

/// One of everything, as long as the process lives.
fn hammer(heap: Heap, shared: &Handle, seed: u64) {
    let mut state = seed | 1;
    loop {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
        let seat = participant::seat(heap).unwrap();
        let random = state >> 40;
        match random % 6 {
            0 => {
                let bytes = 1 + (random >> 4) % 20_000;
                let block = heap.take(seat, bytes, ObjectKind::Bytes, seat.transit(0)).unwrap();
                block.write(heap, bytes - 1, &[7]).unwrap();
                heap.give_back(seat, block.id(), seat.transit(0)).unwrap();
            }
            1 => drop(object(heap)),
            2 | 3 => {
                let cell = HeldCell::take(heap).unwrap();
                let mine = object(heap);
                let outgoing = Outgoing { parts: &[&[1; 300]], handles: &[mine, shared.clone()] };
                message::write(heap, seat, outgoing, cell.word()).unwrap();
                drop(message::Payload::held(heap, cell).unwrap().handles().unwrap());
            }
            4 => {
                shared.refer_from(seat.transit(1)).unwrap();
                object::release(heap, seat, seat.transit(1)).unwrap();
            }
            _ => {
                let block = heap.take(seat, 2_000_000, ObjectKind::Bytes, seat.transit(0)).unwrap();
                heap.give_back(seat, block.id(), seat.transit(0)).unwrap();
            }
        }
        word(shared).fetch_add(1, Ordering::Relaxed);
    }
}

fn storm(seconds: u64, threads: u64) {
    alone(|heap| {
        let before = Before::of(heap);
        let shared = object(heap);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut random = 12345_u64;
        let start = |seed: u64| {
            in_child(|| {
                std::thread::scope(|scope| {
                    for n in 0..threads {
                        let shared = &shared;
                        scope.spawn(move || hammer(heap, shared, seed + n));
                    }
                    hammer(heap, &shared, !seed);
                });
            })
        };
        let mut children: Vec<Child> = (0..4).map(start).collect();
        let (mut killed, mut progress) = (0, 0);
        while Instant::now() < end {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            std::thread::sleep(Duration::from_micros(random >> 51));
            let child = children.swap_remove((random >> 20) as usize % children.len());
            child.signal(libc::SIGKILL);
            assert_eq!(child.wait(), KILLED, "a survivor failed by itself");
            killed += 1;
            children.push(start(random >> 3));
            if killed % 50 == 0 {
                // Those who are left make progress.
                let seen = word(&shared).load(Ordering::Relaxed);
                until("progress", || word(&shared).load(Ordering::Relaxed) > seen + 10);
                progress += 1;
            }
        }
        children.into_iter().for_each(Child::kill);
        assert!(killed > 20 && progress > 0, "{killed} killed");
        println!("{killed} killed in {seconds} s, {} rounds", word(&shared).load(Ordering::Relaxed));
        drop(shared);
        before.assert_unchanged();
    });
}

#[test]
fn a_storm_of_kills_leaves_the_heap_as_it_was() {
    storm(6, 0);
}

#[test]
fn a_storm_of_kills_of_many_threads_leaves_the_heap_as_it_was() {
    storm(6, 3);
}

#[test]
#[ignore = "runs for minutes"]
fn a_long_storm_of_kills() {
    storm(50, 2);
}

#[test]
fn three_hundred_threads_at_a_time_and_many_more_in_turn() {
    alone(|heap| {
        let work = move |round: u64| {
            let event = object(heap);
            let seat = participant::seat(heap).unwrap();
            let outgoing = Outgoing { parts: &[&round.to_le_bytes()], handles: &[event] };
            let id = message::write(heap, seat, outgoing, seat.transit(0)).unwrap();
            assert_eq!(message::read_in_place(heap, id).unwrap().0, round.to_le_bytes());
            object::release(heap, seat, seat.transit(0)).unwrap();
        };
        let all_at_once = || {
            let barrier = Barrier::new(300);
            std::thread::scope(|scope| {
                for n in 0..300 {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        work(n);
                        barrier.wait();
                        work(n);
                        barrier.wait();
                    });
                }
            });
        };
        all_at_once();
        let before = Before::of(heap);
        for _ in 0..5 {
            all_at_once();
        }
        for n in 0..5000 {
            std::thread::spawn(move || work(n)).join().unwrap();
        }
        before.assert_unchanged();
        // A killed process with that many threads leaves nothing either.
        let child = in_child(|| {
            let barrier = Barrier::new(201);
            std::thread::scope(|scope| {
                for n in 0..200 {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        work(n);
                        barrier.wait();
                        (0..u64::MAX).for_each(work);
                    });
                }
                barrier.wait();
                std::thread::sleep(Duration::from_millis(20));
                process::kill_self();
            });
        });
        assert_eq!(child.wait(), KILLED);
        before.assert_unchanged();
    });
}

/// Threads that meet the heap first, at the same time: one family, one slot.
#[test]
fn the_first_use_by_many_threads_makes_one_participant() {
    // In a child without a heap: the test program itself may have one.
    static GO: AtomicBool = AtomicBool::new(false);
    if std::env::var_os("TENFOLD_FIRST_USE").is_none() {
        for _ in 0..20 {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "the_first_use_by_many_threads_makes_one_participant", "--nocapture"])
                .env("TENFOLD_FIRST_USE", "1")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        return;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    while !GO.load(Ordering::Acquire) {
                        core::hint::spin_loop();
                    }
                    let heap = Heap::get().unwrap();
                    drop(object(heap));
                    participant::me(heap).unwrap()
                })
            })
            .collect();
        GO.store(true, Ordering::Release);
        let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(all.iter().all(|who| *who == all[0]), "{all:?}");
        assert_eq!(participant::root(Heap::get().unwrap()), Some(all[0].slot()));
    });
}

#[test]
fn a_child_of_fork_can_hold_as_much_as_its_parent_could() {
    alone(|heap| {
        let many = || (0..3000).map(|_| HeldCell::take(heap).unwrap()).collect::<Vec<_>>();
        drop(many());
        let before = Before::of(heap);
        in_child(|| {
            let objects: Vec<_> = (0..3000).map(|_| object(heap)).collect();
            in_child(|| drop((0..500).map(|_| object(heap)).collect::<Vec<_>>())).succeeds();
            drop(objects);
        })
        .succeeds();
        before.assert_unchanged();
    });
}

#[test]
fn a_payload_stays_with_the_process_that_received_it() {
    alone(|heap| {
        let before = Before::of(heap);
        let (small, large) = (vec![1; 100], vec![2; 3 << 20]);
        let received = [small, large].map(|bytes| {
            let cell = HeldCell::take(heap).unwrap();
            let seat = participant::seat(heap).unwrap();
            message::write(heap, seat, Outgoing { parts: &[&bytes], handles: &[] }, cell.word()).unwrap();
            (message::Payload::held(heap, cell).unwrap(), bytes)
        });
        for (payload, bytes) in &received {
            assert!(payload.with(|found| found == &bytes[..]).unwrap());
        }
        in_child(|| {
            for (payload, _) in received {
                assert_eq!(payload.with(|_| ()), Err(HeapError::Stale));
                assert_eq!(payload.to_vec(), Err(HeapError::Stale));
                drop(payload);
            }
        })
        .succeeds();
        before.assert_unchanged();
    });
}
