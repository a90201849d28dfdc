//! Sleeping on a word of shared memory, and the one mutex that is local to a process.
//!
//! [`wait`] and [`wake`] are *shared* futexes: the kernel finds the word by file and offset, so processes that mapped
//! it at different addresses meet. Killed here: a sleeper that dies simply stops sleeping; a waker that dies before its
//! call wakes nobody, hence callers wait in slices and look again.

use crate::clock::Deadline;
use crate::error::Errno;
use crate::interrupt;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use rustix::thread::futex;

/// Why [`wait`] returned. None of them proves anything about the word: look at it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Somebody called [`wake`], or the kernel woke us for nothing.
    Woken,
    /// The word did not hold the expected value, so there was no sleep.
    Changed,
    /// The deadline came.
    TimedOut,
    /// A signal handler ran on this thread.
    Interrupted,
}

/// Sleeps while `word` holds `expected`, until [`wake`], a signal or the deadline ([`FUTEX_WAIT_BITSET`], shared,
/// absolute monotonic time).
///
/// Blocks the thread. Never panics: an error that the kernel should not give (the word's memory is gone, a filter
/// forbids the call) is slept upon for a millisecond and reported as [`Wait::Interrupted`], so that a loop around it
/// goes on at a bearable price.
///
/// [`FUTEX_WAIT_BITSET`]: https://man7.org/linux/man-pages/man2/FUTEX_WAIT_BITSET.2const.html
pub fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> Wait {
    let woken = sleep_on(word, expected, deadline, futex::Flags::empty());
    if matches!(woken, Wait::TimedOut | Wait::Interrupted) {
        interrupt::look_up();
    }
    woken
}

/// As [`wait`], for whoever holds something that others need at once: no listener ([`interrupt`]) is called.
pub fn wait_deaf(word: &AtomicU32, expected: u32, deadline: Deadline) -> Wait {
    sleep_on(word, expected, deadline, futex::Flags::empty())
}

/// Wakes up to `count` sleepers of `word` in any process and returns how many there were ([`FUTEX_WAKE`], shared).
/// Does not block. Async-signal-safe.
///
/// [`FUTEX_WAKE`]: https://man7.org/linux/man-pages/man2/FUTEX_WAKE.2const.html
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    // The kernel reads the count as a signed number.
    futex::wake(word, futex::Flags::empty(), count.min(i32::MAX as u32)).unwrap_or(0)
}

fn sleep_on(word: &AtomicU32, expected: u32, deadline: Deadline, flags: futex::Flags) -> Wait {
    let until = deadline.timespec();
    match futex::wait_bitset(word, flags, expected, until.as_ref(), NonZeroU32::MAX) {
        Ok(()) => Wait::Woken,
        Err(Errno::AGAIN) => Wait::Changed,
        Err(Errno::TIMEDOUT) => Wait::TimedOut,
        Err(Errno::INTR) => Wait::Interrupted,
        Err(_) => {
            std::thread::sleep(Duration::from_millis(1));
            Wait::Interrupted
        }
    }
}

const FREE: u32 = 0;
const HELD: u32 = 1;
const HELD_AND_AWAITED: u32 = 2;

/// A mutex among the threads of one process that may be held across `fork`: locked in the prepare handler, unlocked in
/// the parent and in the child. Not recursive, never poisoned, 4 bytes, const.
///
/// | word | meaning | leaves by |
/// |---|---|---|
/// | 0 | free | `lock`: to 1 |
/// | 1 | held, nobody sleeps | `unlock`: to 0; a second `lock`: to 2 |
/// | 2 | held, somebody may sleep | `unlock`: to 0, and wakes one, who takes it as 2 |
///
/// In a fork child the sleepers are gone, so an unlock from 2 wakes nobody and that is right.
#[derive(Debug, Default)]
pub struct PrivateMutex(AtomicU32);

impl PrivateMutex {
    /// A free mutex.
    pub const fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// Takes the mutex; blocks, without a limit, while another thread holds it. Deadlocks if this thread does.
    pub fn lock_raw(&self) {
        if self.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return;
        }
        while self.0.swap(HELD_AND_AWAITED, Ordering::Acquire) != FREE {
            sleep_on(&self.0, HELD_AND_AWAITED, Deadline::never(), futex::Flags::PRIVATE);
        }
    }

    /// Frees the mutex, which this thread (or its original before a fork) took with [`lock_raw`](Self::lock_raw).
    /// Freeing a mutex that somebody else holds lets two threads in; the data behind it must bear that.
    pub fn unlock_raw(&self) {
        if self.0.swap(FREE, Ordering::Release) == HELD_AND_AWAITED {
            // A failure means that nobody can sleep on a word of our own memory.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }
    }

    /// Makes the mutex free whatever it was: for a child of fork, in which the thread that held it
    /// does not exist.
    pub fn reset_raw(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Runs `f` with the mutex held, and frees it also when `f` unwinds.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Unlock<'a>(&'a PrivateMutex);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                self.0.unlock_raw();
            }
        }
        self.lock_raw();
        let _unlock = Unlock(self);
        f()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::{forked, shared_words};

    #[test]
    fn wait_sees_a_changed_word_and_a_deadline() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 0, Deadline::never()), Wait::Changed);
        assert_eq!(wait(&word, 1, Deadline::after(Duration::from_millis(3))), Wait::TimedOut);
        assert_eq!(wake(&word, u32::MAX), 0);
    }

    #[test]
    fn a_child_wakes_its_parent_through_shared_memory() {
        let words = shared_words();
        let child = forked(|| {
            while words[1].load(Ordering::SeqCst) == 0 {
                std::hint::spin_loop();
            }
            words[0].store(7, Ordering::SeqCst);
            while words[2].load(Ordering::SeqCst) == 0 {
                wake(&words[0], 1);
            }
        });
        words[1].store(1, Ordering::SeqCst);
        while words[0].load(Ordering::SeqCst) == 0 {
            wait(&words[0], 0, Deadline::never());
        }
        words[2].store(1, Ordering::SeqCst);
        assert_eq!(words[0].load(Ordering::SeqCst), 7);
        child.join();
    }

    #[test]
    fn the_private_mutex_excludes_and_forgives_a_panic() {
        static MUTEX: PrivateMutex = PrivateMutex::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        MUTEX.with(|| COUNT.store(COUNT.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
                    }
                });
            }
        });
        assert_eq!(COUNT.load(Ordering::Relaxed), 40_000);
        assert!(std::panic::catch_unwind(|| MUTEX.with(|| panic!("on purpose"))).is_err());
        MUTEX.with(|| ());
    }

    #[test]
    fn the_private_mutex_is_free_in_a_child_that_unlocks_it() {
        static MUTEX: PrivateMutex = PrivateMutex::new();
        MUTEX.lock_raw();
        let child = forked(|| {
            MUTEX.unlock_raw();
            MUTEX.with(|| ());
        });
        MUTEX.unlock_raw();
        child.join();
    }
}
