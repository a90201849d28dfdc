//! A first-in first-out queue of messages among processes, bounded or not.
//!
//! ```text
//!  head ┌ position │ tail as last seen │ waiters │ lock ┐        consumers' cache lines
//!  tail ┌ position │ head as last seen │ waiters │ lock ┐        producers' cache lines
//!  done ┌ tasks done │ joiners ┐   bells ┌ who polls the queue ┐
//!
//!  first ─▶ segment ── next ─▶ segment ── next ─▶ segment ◀─ at (the tail's own pointer)
//!           ····■■■■■│end      ■■■■■■■■■│end      ■■■□□□□□
//!               ▲ head                               ▲ tail
//! ```
//!
//! A payload of up to 56 bytes travels in its record, a longer one, or one with handles, in a block
//! that is written before the tail lock is taken. So the locks are held for some ten nanoseconds,
//! and producers and consumers meet only where one of them has caught up with the other.
//!
//! Between head and tail lie the messages; a record outside means nothing. How many messages there
//! are, whether there is room, how many tasks are unfinished: all are differences of positions.
//!
//! *Killed here:* a short message is put by one store, of the tail's position; one in a block by a
//! redo record {tail, transit = 0}. It is taken by one store of the head's position, or by a record
//! {head, ledger entry = block}. Before the commit nothing has happened; after it, it has. Records
//! are written under the tail lock only and never named in a redo record, so no recovery can write
//! into a segment that has been recycled. A segment is linked by {next, at, limit, tail, transit =
//! 0} and left by {first, at, head, transit = segment}; a consumer leaves it only once there is a
//! message in the next one, and that is put after the linking is complete. No lock is taken under
//! either lock. Who was to be woken by the dead process is woken by its sweep.

mod done;
mod doorbell;
mod get;
mod lifetime;
mod position;
mod put;
mod segment;
mod wait;
mod waiters;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::error::{HeapError, Result};
use crate::heap::{At, Heap, Shared};
use crate::internal_lock::InternalLock;
use crate::object::{Handle, ObjectKind};
use position::Position;
use waiters::Waiters;

pub use doorbell::Doorbell;
pub use get::Arrival;
pub(crate) use lifetime::{close, dismantle, owner_died};
pub use put::PutManyError;

/// Why an operation on a queue failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A bounded queue has no room now.
    #[error("the queue is full")]
    Full,
    /// There is no message now.
    #[error("the queue is empty")]
    Empty,
    /// The deadline came first.
    #[error("the time limit of the queue operation has passed")]
    TimedOut,
    /// The queue takes no more messages, and there are none left in it.
    #[error("the queue is closed")]
    Closed,
    /// More tasks were reported done than were put.
    #[error("task_done() was called more often than there were messages in the queue")]
    TooManyDone,
    /// The shared heap failed.
    #[error(transparent)]
    Heap(#[from] HeapError),
}

/// One end of the queue.
#[repr(C, align(64))]
struct End {
    /// A [`Position`]; changes under the lock.
    position: AtomicU64,
    /// The other end's position as it was when this end last looked.
    seen: AtomicU64,
    /// Offset of this end's segment; 0 before there is one.
    at: AtomicU64,
    /// Tail only: the word of its segment behind which no record begins.
    limit: AtomicU64,
    /// Those who wait until this end moves.
    waiters: Waiters,
    /// Tail only: 1 once nothing may be put any more.
    closed: AtomicU32,
    /// Tail only: bells that want to be rung at the next message, one bit each.
    armed: AtomicU32,
    lock: InternalLock,
}

#[repr(C)]
struct Shape {
    /// The most messages that may be in the queue.
    capacity: AtomicU64,
    /// The cell that owns the head's segment, which owns the next one.
    first: AtomicU64,
    head: End,
    tail: End,
    done: done::Done,
    bells: [doorbell::Entry; doorbell::BELLS],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Shape {}
const _: () = assert!(size_of::<End>() == 192 && size_of::<Shape>() == 768);

/// A queue of messages in the shared heap.
#[derive(Debug)]
pub struct Queue {
    handle: Handle,
    shape: At<Shape>,
    capacity: u64,
    /// Whether the message that this handle got last lay in a block: a guess at the next one.
    expects_block: AtomicBool,
    /// Pauses before a wait looks for the first time.
    patience: AtomicU32,
}

impl Clone for Queue {
    fn clone(&self) -> Queue {
        Queue::of(self.handle.clone(), self.shape)
    }
}

impl Queue {
    /// An empty queue that holds at most `capacity` messages; as many as memory allows if that is
    /// `None` or 0.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, capacity: Option<u64>) -> Result<Queue> {
        let handle = Handle::create(heap, ObjectKind::Queue, size_of::<Shape>() as u64, |block| {
            let shape = block.view::<Shape>(heap, 0)?;
            let most = capacity.filter(|c| *c > 0).unwrap_or(u64::MAX);
            shape.capacity.store(most.min(position::MOST), Ordering::Relaxed);
            for word in [&shape.head.position, &shape.head.seen, &shape.tail.position, &shape.tail.seen] {
                word.store(Position::START.bits(), Ordering::Relaxed);
            }
            Ok(())
        })?;
        Queue::from_handle(handle)
    }

    /// The queue behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Queue> {
        let handle = handle.expect(ObjectKind::Queue)?;
        let shape = handle.view::<Shape>()?;
        Ok(Queue::of(handle, shape))
    }

    fn of(handle: Handle, shape: At<Shape>) -> Queue {
        let capacity = shape.capacity.load(Ordering::Relaxed);
        Queue { handle, shape, capacity, expects_block: AtomicBool::new(false), patience: AtomicU32::new(0) }
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The most messages that the queue holds, if there is a limit.
    pub fn capacity(&self) -> Option<u64> {
        self.is_bounded().then_some(self.capacity)
    }

    /// Messages in the queue: exact, at some moment of the call.
    pub fn len(&self) -> u64 {
        self.shape.len()
    }

    /// Whether there is no message in the queue, at some moment of the call.
    pub fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }

    /// Whether a put would have to wait, at some moment of the call.
    pub fn is_full(&self) -> bool {
        self.is_bounded() && self.len() >= self.capacity
    }

    /// Whether the queue has been closed.
    pub fn is_closed(&self) -> bool {
        self.shape.is_closed()
    }

    /// Takes no messages any more: puts fail from now on, gets fail once the queue is drained. All
    /// who wait learn of it.
    ///
    /// # Errors
    /// If this process has no slot and can get none.
    pub fn close(&self) -> Result<()> {
        let heap = self.heap();
        close(heap, crate::participant::seat(heap)?, self.handle.block())
    }

    fn heap(&self) -> Heap {
        self.handle.heap()
    }

    #[inline(always)]
    fn is_bounded(&self) -> bool {
        self.capacity < position::MOST
    }
}

impl End {
    #[inline(always)]
    fn now(&self) -> Position {
        Position::from_bits(self.position.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn other_as_seen(&self) -> Position {
        Position::from_bits(self.seen.load(Ordering::Relaxed))
    }
}

impl Shape {
    fn len(&self) -> u64 {
        // If the tail stood still while the head was looked at, the difference was true then.
        let mut tail = self.tail.now();
        loop {
            let head = self.head.now();
            let again = self.tail.now();
            if again.count() == tail.count() {
                return tail.since(head);
            }
            tail = again;
        }
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        // The head never passes the tail, so if they were equal when the tail was read, it was so.
        let head = self.head.now();
        self.tail.now().since(head) == 0
    }

    fn is_closed(&self) -> bool {
        self.tail.closed.load(Ordering::Acquire) != 0
    }
}
