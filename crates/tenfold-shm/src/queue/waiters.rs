//! Who sleeps until an end of the queue moves, and how few wake-ups do.
//!
//! Two counts under the lock of that end: `asleep`, those who have enlisted and not yet left, and
//! `notified`, those of them for whom a wake-up is on its way. Whoever moves the end wakes somebody
//! only if more are asleep than notified, so that a thousand puts to a consumer that is still
//! waking up make one system call. The futex word moves with each notification: one who has
//! enlisted but does not sleep yet then does not go to sleep at all.
//!
//! *Killed here:* a sleeper that is killed leaves both counts too high by one at most and `asleep`
//! never lower than `notified`, which costs a system call now and then. One that is killed after it
//! was notified has taken a wake-up with it: the sweep wakes all ([`Waiters::notify_all`]), each
//! looks at the queue, and goes back to sleep if there is nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use tenfold_sys::futex;

/// The waiters of one end.
#[repr(C)]
pub(super) struct Waiters<W = AtomicU32> {
    asleep: W,
    notified: W,
    ring: W,
}

/// A word that changes under a lock, and is slept on: the real one, or loom's.
pub(super) trait Counter {
    fn get(&self) -> u32;
    fn set(&self, value: u32);
}

impl Counter for AtomicU32 {
    #[inline(always)]
    fn get(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn set(&self, value: u32) {
        self.store(value, Ordering::Release);
    }
}

/// A wake-up to be sent once the lock is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct Wake(pub(super) u32);

impl Wake {
    pub(super) const NOBODY: Wake = Wake(0);
}

impl<W: Counter> Waiters<W> {
    /// Under the lock: enlists the caller, who has seen that there is reason to wait. Returns the
    /// value of the futex word to sleep on.
    pub(super) fn enlist(&self) -> u32 {
        self.asleep.set(self.asleep.get().saturating_add(1));
        self.ring.get()
    }

    /// Under the lock: the caller, who has enlisted, does not sleep any more.
    pub(super) fn leave(&self) {
        self.notified.set(self.notified.get().saturating_sub(1));
        self.asleep.set(self.asleep.get().saturating_sub(1));
    }

    /// Under the lock: `events` things have happened, each of interest to one waiter.
    #[inline(always)]
    pub(super) fn notify(&self, events: u64) -> Wake {
        let (asleep, notified) = (self.asleep.get(), self.notified.get());
        if asleep <= notified { Wake::NOBODY } else { self.notify_some(notified, asleep - notified, events) }
    }

    #[cold]
    fn notify_some(&self, notified: u32, idle: u32, events: u64) -> Wake {
        let chosen = u64::from(idle).min(events) as u32;
        self.notified.set(notified + chosen);
        self.ring.set(self.ring.get().wrapping_add(1));
        Wake(chosen)
    }

    /// Under the lock: something has happened that is of interest to all.
    pub(super) fn notify_all(&self) -> Wake {
        let asleep = self.asleep.get();
        self.notified.set(asleep);
        self.ring.set(self.ring.get().wrapping_add(1));
        if asleep == 0 { Wake::NOBODY } else { Wake(u32::MAX) }
    }
}

impl Waiters {
    /// The word to sleep on.
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.ring
    }

    /// Outside the lock: sends what a notification came to.
    #[inline(always)]
    pub(super) fn send(&self, wake: Wake) {
        if wake != Wake::NOBODY {
            futex::wake(&self.ring, wake.0);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::atomic::{AtomicU32 as Word, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};

    impl Counter for Word {
        fn get(&self) -> u32 {
            self.load(Ordering::Relaxed)
        }
        fn set(&self, value: u32) {
            self.store(value, Ordering::Release);
        }
    }

    /// A queue that only counts, with the kernel's part of a futex. Sleeps have no slices here: a
    /// wake-up that is lost is a deadlock, which loom reports.
    struct Model {
        lock: Mutex<u32>,
        waiters: Waiters<Word>,
        kernel: Mutex<u32>,
        woken: Condvar,
    }

    impl Model {
        fn new() -> Arc<Model> {
            let waiters = Waiters { asleep: Word::new(0), notified: Word::new(0), ring: Word::new(0) };
            Arc::new(Model { lock: Mutex::new(0), waiters, kernel: Mutex::new(0), woken: Condvar::new() })
        }

        fn put(&self, messages: u32) {
            let wake = {
                let mut queued = self.lock.lock().unwrap();
                *queued += messages;
                self.waiters.notify(messages.into())
            };
            if wake != Wake::NOBODY {
                let _kernel = self.kernel.lock().unwrap();
                (0..wake.0.min(3)).for_each(|_| self.woken.notify_one());
            }
        }

        fn get(&self) {
            loop {
                let ring = {
                    let mut queued = self.lock.lock().unwrap();
                    if *queued > 0 {
                        *queued -= 1;
                        return;
                    }
                    self.waiters.enlist()
                };
                let kernel = self.kernel.lock().unwrap();
                if self.waiters.ring.load(Ordering::Acquire) == ring {
                    drop(self.woken.wait(kernel).unwrap());
                } else {
                    drop(kernel);
                }
                let _queued = self.lock.lock().unwrap();
                self.waiters.leave();
            }
        }
    }

    fn check(body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(body);
    }

    #[test]
    fn no_wake_up_is_lost_among_two_consumers() {
        check(|| {
            let model = Model::new();
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    let model = Arc::clone(&model);
                    loom::thread::spawn(move || model.get())
                })
                .collect();
            model.put(1);
            model.put(1);
            consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
            assert_eq!(*model.lock.lock().unwrap(), 0);
            assert_eq!((model.waiters.asleep.get(), model.waiters.notified.get()), (0, 0));
        });
    }

    #[test]
    fn two_messages_at_once_wake_two_consumers() {
        check(|| {
            let model = Model::new();
            let other = Arc::clone(&model);
            let third = Arc::clone(&model);
            let consumers = [loom::thread::spawn(move || other.get()), loom::thread::spawn(move || third.get())];
            model.put(2);
            consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
        });
    }

    #[test]
    fn all_learn_of_the_end() {
        check(|| {
            let model = Model::new();
            let other = Arc::clone(&model);
            let consumer = loom::thread::spawn(move || other.get());
            // The sweep of a dead producer: its message is there, nobody was notified.
            let wake = {
                *model.lock.lock().unwrap() += 1;
                let _queued = model.lock.lock().unwrap();
                model.waiters.notify_all()
            };
            if wake != Wake::NOBODY {
                let _kernel = model.kernel.lock().unwrap();
                model.woken.notify_all();
            }
            consumer.join().unwrap();
        });
    }
}
