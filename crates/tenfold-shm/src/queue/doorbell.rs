//! Doorbells: a file descriptor that is readable while a queue has messages, for `poll` and its kin.
//!
//! ```text
//!  queue ─ bells ┌ process │ fd │ inode ┐        poller ┌ pipe ┐
//!        ─ tail.armed: a bit for each one   ── ring ──▶ └──────┘ ◀─ poll
//! ```
//!
//! The poller makes a pipe, puts it on the queue's list and arms it while the queue is empty. The
//! next producer, who finds the bit, rings and takes the bit away. The poller silences the bell and
//! arms it again when it has found the queue empty. All of that happens under the tail lock, so that
//! a ring never comes late: a bell has rung, or it is armed and silent, and then the queue is empty.
//! So the descriptor acts level-triggered, and one who is the only consumer may block on what the
//! descriptor promises.
//!
//! *Killed here:* a producer that dies before it has taken the bit away has not rung, or has; the
//! sweep rings the bells that are armed if there is a message. A dead poller's bell is forgotten by
//! the next one who comes upon it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::os::fd::BorrowedFd;

use tenfold_sys::Errno;
use tenfold_sys::bell::{self, Bell};
use tenfold_sys::process;

use super::{Queue, Shape};
use crate::error::{HeapError, Result};
use crate::heap::{At, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::participant::{self, Identity, Seat, seat};

/// Doorbells that a queue can have.
pub(super) const BELLS: usize = 16;

/// What others need to know to ring.
#[repr(C)]
pub(super) struct Entry {
    /// Identity of the process that polls; 0 if the entry is free.
    owner: AtomicU32,
    number: AtomicU32,
    inode: AtomicU64,
}

impl At<Shape> {
    /// Under the tail lock, after something was put or the queue closed: rings the armed bells.
    #[inline(always)]
    pub(super) fn ring_armed(self, heap: Heap) {
        let armed = self.tail.armed.load(Ordering::Relaxed);
        if armed != 0 {
            self.ring(heap, armed);
        }
    }

    #[cold]
    fn ring(self, heap: Heap, bells: u32) {
        reach(KillPoint::QueueRinging);
        for (index, entry) in self.get().bells.iter().enumerate() {
            let owner = Identity::from_bits(entry.owner.load(Ordering::Acquire));
            let (true, Some(owner)) = (bells & 1 << index != 0, owner) else { continue };
            if owner.is_current(heap) {
                let (number, inode) = (entry.number.load(Ordering::Relaxed), entry.inode.load(Ordering::Relaxed));
                // A poller that is gone hears nothing; one that has closed its bell wants nothing.
                let _ = bell::ring_remote(participant::roster(owner.slot(), heap).pid(), number as i32, inode);
            }
        }
        reach(KillPoint::QueueRung);
        self.tail.armed.store(0, Ordering::Relaxed);
    }

    /// Rings what a dead process may have left unrung.
    pub(super) fn ring_late(self, heap: Heap, seat: Seat) -> Result<()> {
        if self.tail.armed.load(Ordering::Acquire) != 0 {
            let _guard = self.field(|s| &s.tail.lock).lock_from(heap, seat)?;
            if !self.is_empty() || self.is_closed() {
                self.ring_armed(heap);
            }
        }
        Ok(())
    }
}

/// A file descriptor of this process that is readable while a queue has messages, or is closed.
///
/// Readable means that there is a message, unless another consumer is faster. It stays readable until
/// [`Doorbell::rearm`] finds the queue empty: call it after each look at the queue, or before each
/// poll. A child of fork makes its own.
#[derive(Debug)]
pub struct Doorbell {
    queue: Queue,
    bell: Bell,
    index: usize,
    owner: Identity,
}

impl Doorbell {
    /// What the error of [`Doorbell::new`] names if a queue can have no doorbell of this process.
    pub const CALL: &str = "doorbell";

    /// Puts a doorbell on the queue.
    ///
    /// # Errors
    /// If this process has no descriptors left. With the call named [`Doorbell::CALL`]: if the queue has 16 of
    /// them already (`ENOSPC`), or there is no `/proc` through which others could ring.
    pub fn new(queue: &Queue) -> Result<Doorbell> {
        let heap = queue.heap();
        let bell = Bell::new().map_err(HeapError::os("pipe2"))?;
        bell::ring_remote(process::pid(), bell.write_number(), bell.inode()).map_err(HeapError::os(Self::CALL))?;
        let seat = seat(heap)?;
        let owner = seat.identity();
        let index = {
            let _guard = queue.shape.field(|s| &s.tail.lock).lock_from(heap, seat)?;
            let free = |entry: &Entry| match Identity::from_bits(entry.owner.load(Ordering::Relaxed)) {
                Some(other) => !other.is_current(heap),
                None => true,
            };
            let index = queue.shape.bells.iter().position(free);
            let index = index.ok_or(HeapError::Os { call: Self::CALL, errno: Errno::NOSPC })?;
            let entry = &queue.shape.get().bells[index];
            // Killed in between: a free entry, or one whose owner is dead.
            entry.owner.store(0, Ordering::Release);
            entry.number.store(bell.write_number() as u32, Ordering::Relaxed);
            entry.inode.store(bell.inode(), Ordering::Relaxed);
            entry.owner.store(owner.bits(), Ordering::Release);
            index
        };
        let doorbell = Doorbell { queue: queue.clone(), bell, index, owner };
        doorbell.arm(heap, seat)?;
        Ok(doorbell)
    }

    /// The descriptor to poll for reading. Do not read from it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.read_fd()
    }

    /// Whether this process made it. A forked child that polls it would hear its parent's bell.
    pub fn is_ours(&self) -> bool {
        participant::me(self.queue.heap()).is_ok_and(|me| me == self.owner)
    }

    /// Silences the bell until the next message, unless there is one already.
    ///
    /// # Errors
    /// [`HeapError::Stale`] in a child of fork; if this process can get no slot.
    pub fn rearm(&self) -> Result<()> {
        if !self.is_ours() {
            return Err(HeapError::Stale);
        }
        let heap = self.queue.heap();
        self.arm(heap, seat(heap)?)
    }

    fn arm(&self, heap: Heap, seat: Seat) -> Result<()> {
        let shape = self.queue.shape;
        let _guard = shape.field(|s| &s.tail.lock).lock_from(heap, seat)?;
        if !shape.is_empty() || shape.is_closed() {
            return self.bell.ring_local().map_err(HeapError::os("write"));
        }
        self.bell.drain();
        let armed = shape.tail.armed.load(Ordering::Relaxed);
        shape.tail.armed.store(armed | 1 << self.index, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let heap = self.queue.heap();
        let (true, Ok(seat)) = (self.is_ours(), seat(heap)) else { return };
        // Without the lock, a ringer may still find the entry: the inode tells it that the pipe is gone.
        if let Ok(_guard) = self.queue.shape.field(|s| &s.tail.lock).lock_from(heap, seat) {
            let shape = self.queue.shape.get();
            let armed = shape.tail.armed.load(Ordering::Relaxed);
            shape.tail.armed.store(armed & !(1 << self.index), Ordering::Relaxed);
            shape.bells[self.index].owner.store(0, Ordering::Release);
        }
    }
}
