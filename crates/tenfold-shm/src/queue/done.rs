//! Tasks done, and waiting until all are.
//!
//! *Killed here:* a task is done by one store, which never passes the tail. Who was to be woken is
//! woken by the sweep.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use core::time::Duration;

use tenfold_sys::clock::Deadline;
use tenfold_sys::futex;

use super::position::{distance, next};
use super::{Queue, QueueError, Shape};
use crate::kill_point::{KillPoint, reach};

const SLICE: Duration = Duration::from_secs(1);

/// How many of the messages that were put are done with.
#[repr(C, align(64))]
pub(super) struct Done {
    /// Tasks done, counted as positions count messages.
    count: AtomicU64,
    /// Moves when there is no unfinished task left.
    ring: AtomicU32,
    /// Who sleeps on `ring`; too high after a kill, which costs a system call now and then.
    joiners: AtomicU32,
}

impl Shape {
    fn unfinished(&self) -> u64 {
        // The count never passes the tail, so it is read first.
        let done = self.done.count.load(Ordering::SeqCst);
        distance(done, self.tail.now().count())
    }
}

impl Done {
    /// Wakes all who wait for the last task.
    pub(super) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        if self.joiners.load(Ordering::SeqCst) > 0 {
            self.ring.fetch_add(1, Ordering::SeqCst);
            futex::wake(&self.ring, u32::MAX);
        }
    }
}

impl Queue {
    /// Messages that were put and not yet reported done.
    pub fn unfinished(&self) -> u64 {
        self.shape.unfinished()
    }

    /// Reports that one message that was got has been dealt with.
    ///
    /// # Errors
    /// [`QueueError::TooManyDone`] if there is no unfinished one.
    pub fn task_done(&self) -> core::result::Result<(), QueueError> {
        let done = &self.shape.get().done;
        let mut count = done.count.load(Ordering::SeqCst);
        loop {
            if distance(count, self.shape.tail.now().count()) == 0 {
                return Err(QueueError::TooManyDone);
            }
            match done.count.compare_exchange(count, next(count), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => count = now,
            }
        }
        reach(KillPoint::QueueTaskDone);
        if self.shape.unfinished() == 0 {
            done.wake_all();
        }
        Ok(())
    }

    /// Waits until all messages that were put have been reported done.
    ///
    /// # Errors
    /// [`QueueError::TimedOut`].
    pub fn join(&self, deadline: Deadline) -> core::result::Result<(), QueueError> {
        let done = &self.shape.get().done;
        while self.shape.unfinished() != 0 {
            if deadline.expired() {
                return Err(QueueError::TimedOut);
            }
            self.join_once(deadline.min(Deadline::after(SLICE)), done);
        }
        Ok(())
    }

    fn join_once(&self, deadline: Deadline, done: &Done) {
        done.joiners.fetch_add(1, Ordering::SeqCst);
        let ring = done.ring.load(Ordering::SeqCst);
        if self.shape.unfinished() != 0 {
            futex::wait(&done.ring, ring, deadline);
        }
        done.joiners.fetch_sub(1, Ordering::SeqCst);
    }
}
