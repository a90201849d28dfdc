//! Waiting until the other end moves.
//!
//! First by looking again and again for some microseconds, then by letting other threads run, then
//! by sleeping on a futex word: waking a core that idles takes longer than the rest of a put and a
//! get together. A sleep is sliced, but only against what cannot happen.

use core::sync::atomic::Ordering;
use core::time::Duration;

use tenfold_sys::clock::Deadline;
use tenfold_sys::{futex, interrupt};

use super::{End, Queue, QueueError};
use crate::error::Result;
use crate::heap::{At, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::participant::{Seat, seat};

/// Looks at the other end before letting other threads run, at distances that double for a while: each look
/// takes the cache line from whoever is at work there, but an answer is not to wait long for the next look.
const LOOKS: u32 = 11;
/// The last doubling.
const FARTHEST: u32 = 4;
/// The most pauses before the first look, about a microsecond: see [`Queue::look_patiently`].
const PATIENCE: u32 = 64;
/// Looks between which other threads may run.
const YIELDS: u32 = 40;
/// A wake-up that got lost in a way that nobody has thought of costs this much.
const SLICE: Duration = Duration::from_secs(1);

impl Queue {
    /// Waits until there may be a message, without taking one. Returns early when a signal handler
    /// has run; `Ok` means that it is worth trying.
    ///
    /// # Errors
    /// [`QueueError::TimedOut`]; [`QueueError::Closed`] if the queue is closed and drained.
    pub fn wait_message(&self, deadline: Deadline) -> core::result::Result<(), QueueError> {
        let heap = self.heap();
        let seat = seat(heap)?;
        if !self.is_empty() {
            return Ok(());
        }
        let waited = self.wait_for_message(seat, Some(deadline));
        // Who was woken and does not take the message passes the word on.
        self.pass_on(heap, seat, self.shape.field(|s| &s.tail), self.is_empty())?;
        waited
    }

    /// Waits until there may be room, without putting anything; the counterpart of
    /// [`Queue::wait_message`].
    ///
    /// # Errors
    /// [`QueueError::TimedOut`].
    pub fn wait_room(&self, deadline: Deadline) -> core::result::Result<(), QueueError> {
        let heap = self.heap();
        let seat = seat(heap)?;
        if !self.is_full() {
            return Ok(());
        }
        let waited = self.wait_for_room(seat, Some(deadline));
        self.pass_on(heap, seat, self.shape.field(|s| &s.head), self.is_full())?;
        waited
    }

    /// One wait of a consumer. `None` does not wait: it says what the reason would be.
    #[cold]
    pub(super) fn wait_for_message(
        &self,
        seat: Seat,
        deadline: Option<Deadline>,
    ) -> core::result::Result<(), QueueError> {
        let shape = self.shape;
        // Nothing is put after the closing: if it is empty then, it stays so.
        let closed = || shape.is_closed() && shape.is_empty();
        let Some(deadline) = deadline else {
            return Err(if closed() { QueueError::Closed } else { QueueError::Empty });
        };
        let idle = || shape.is_empty() && !shape.is_closed();
        self.wait(seat, shape.field(|s| &s.tail), deadline, idle)?;
        if interrupt::has_given_up() {
            // Nothing is taken for a caller that will not look at it.
            self.pass_on(self.heap(), seat, shape.field(|s| &s.tail), shape.is_empty())?;
            return Err(QueueError::TimedOut);
        }
        match () {
            () if closed() => Err(QueueError::Closed),
            () if deadline.expired() && shape.is_empty() => Err(QueueError::TimedOut),
            () => Ok(()),
        }
    }

    /// One wait of a producer. `None` does not wait: it says what the reason would be.
    #[cold]
    pub(super) fn wait_for_room(&self, seat: Seat, deadline: Option<Deadline>) -> core::result::Result<(), QueueError> {
        let Some(deadline) = deadline else { return Err(QueueError::Full) };
        let idle = || self.is_full() && !self.is_closed();
        self.wait(seat, self.shape.field(|s| &s.head), deadline, idle)?;
        if interrupt::has_given_up() {
            self.pass_on(self.heap(), seat, self.shape.field(|s| &s.head), self.is_full())?;
            return Err(QueueError::TimedOut);
        }
        match () {
            () if self.is_closed() => Err(QueueError::Closed),
            () if deadline.expired() && self.is_full() => Err(QueueError::TimedOut),
            () => Ok(()),
        }
    }

    /// Waits until `end` has moved so that `idle` does not hold any more, or the deadline, or a
    /// signal.
    fn wait(&self, seat: Seat, end: At<End>, deadline: Deadline, idle: impl Fn() -> bool) -> Result<()> {
        if self.look_patiently(&idle) {
            return Ok(());
        }
        for look in 0..LOOKS + YIELDS {
            if !idle() {
                return Ok(());
            }
            if look < LOOKS {
                (0..1 << look.min(FARTHEST)).for_each(|_| core::hint::spin_loop());
            } else if deadline.expired() {
                return Ok(());
            } else {
                std::thread::yield_now();
            }
        }
        let heap = self.heap();
        loop {
            let guard = end.field(|e| &e.lock).lock_from(heap, seat)?;
            if !idle() {
                return Ok(());
            }
            let ring = end.waiters.enlist();
            drop(guard);
            reach(KillPoint::QueueEnlisted);
            let woken = futex::wait(end.get().waiters.word(), ring, deadline.min(Deadline::after(SLICE)));
            let guard = end.field(|e| &e.lock).lock_from(heap, seat)?;
            end.waiters.leave();
            drop(guard);
            if woken == futex::Wait::Interrupted || deadline.expired() {
                return Ok(());
            }
        }
    }

    /// Looks once, after a while, and returns whether there is reason to go on. Who catches up with an
    /// end that moves all the time and looks at once takes its cache lines after every single message, which
    /// costs both sides more than the messages do. So the pause before the look grows for as long as the look
    /// finds something, and shrinks when it does not: an answer that takes its time is not waited for longer.
    fn look_patiently(&self, idle: impl Fn() -> bool) -> bool {
        let pauses = self.patience.load(Ordering::Relaxed);
        (0..pauses).for_each(|_| core::hint::spin_loop());
        let moved = !idle();
        let next = if moved { (2 * pauses).clamp(1, PATIENCE) } else { pauses / 2 };
        self.patience.store(next, Ordering::Relaxed);
        moved
    }

    /// Wakes one more waiter of `end` unless there is nothing to wake it for.
    fn pass_on(&self, heap: Heap, seat: Seat, end: At<End>, nothing: bool) -> Result<()> {
        if nothing {
            return Ok(());
        }
        let guard = end.field(|e| &e.lock).lock_from(heap, seat)?;
        let wake = end.waiters.notify(1);
        drop(guard);
        end.waiters.send(wake);
        Ok(())
    }
}

pub(super) fn wake_all(heap: Heap, seat: Seat, end: At<End>) -> Result<()> {
    let guard = end.field(|e| &e.lock).lock_from(heap, seat)?;
    let wake = end.waiters.notify_all();
    drop(guard);
    end.waiters.send(wake);
    Ok(())
}
