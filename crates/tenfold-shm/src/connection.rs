//! Pipes: pairs of connections, each of which sends what the other receives.
//!
//! ```text
//!  connection ┬ incoming ─▶ queue ◀─ outgoing ┬ connection
//!             └ outgoing ─▶ queue ◀─ incoming ┘
//! ```
//!
//! An end is an object of its own, held by every process that has a handle to it and by every message
//! that carries one. When the last of them goes, the end closes both queues: the other end receives
//! what is still under way, and then learns that nobody is there any more.
//!
//! *Killed here:* the sweep of the last process that held an end takes the end apart. Closing a queue
//! and emptying a cell do nothing the second time.

use core::sync::atomic::{AtomicU64, Ordering};

use tenfold_sys::clock::Deadline;

use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{BlockId, Heap, Shared};
use crate::message::{Outgoing, Payload};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::Seat;
use crate::queue::{self, Arrival, Queue, QueueError};

#[repr(C)]
struct Shape {
    /// Cells; 0 if the end cannot receive, or send.
    incoming: AtomicU64,
    outgoing: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Shape {}

/// One end of a pipe.
#[derive(Debug, Clone)]
pub struct Connection {
    handle: Handle,
    incoming: Option<Queue>,
    outgoing: Option<Queue>,
}

/// Two ends that both send and receive.
///
/// # Errors
/// If the heap has no room.
pub fn pipe(heap: Heap) -> Result<(Connection, Connection)> {
    let (there, back) = (Queue::create(heap, None)?, Queue::create(heap, None)?);
    let one = Connection::create(heap, Some(&back), Some(&there))?;
    Ok((one, Connection::create(heap, Some(&there), Some(&back))?))
}

/// An end that receives and one that sends.
///
/// # Errors
/// If the heap has no room.
pub fn one_way_pipe(heap: Heap) -> Result<(Connection, Connection)> {
    let queue = Queue::create(heap, None)?;
    let receiver = Connection::create(heap, Some(&queue), None)?;
    Ok((receiver, Connection::create(heap, None, Some(&queue))?))
}

impl Connection {
    fn create(heap: Heap, incoming: Option<&Queue>, outgoing: Option<&Queue>) -> Result<Connection> {
        let handle = Handle::create(heap, ObjectKind::Connection, size_of::<Shape>() as u64, |_| Ok(()))?;
        let shape = handle.view::<Shape>()?;
        if let Some(queue) = incoming {
            queue.handle().refer_from(shape.field(|s| &s.incoming))?;
        }
        if let Some(queue) = outgoing {
            queue.handle().refer_from(shape.field(|s| &s.outgoing))?;
        }
        Ok(Connection { handle, incoming: incoming.cloned(), outgoing: outgoing.cloned() })
    }

    /// The end behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Connection> {
        let handle = handle.expect(ObjectKind::Connection)?;
        let shape = handle.view::<Shape>()?;
        let queue = |cell: &AtomicU64| -> Result<Option<Queue>> {
            match BlockId::from_bits(cell.load(Ordering::Acquire)) {
                Some(id) => Queue::from_handle(Handle::from_id(handle.heap(), id)?).map(Some),
                None => Ok(None),
            }
        };
        let (incoming, outgoing) = (queue(&shape.incoming)?, queue(&shape.outgoing)?);
        Ok(Connection { handle, incoming, outgoing })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The queue from which this end receives, if it can.
    pub fn incoming(&self) -> Option<&Queue> {
        self.incoming.as_ref()
    }

    /// The queue to which this end sends, if it can.
    pub fn outgoing(&self) -> Option<&Queue> {
        self.outgoing.as_ref()
    }

    /// Sends a message. Never blocks: pipes have no capacity.
    ///
    /// # Errors
    /// [`QueueError::Closed`] if no process has the other end any more, or this end cannot send; if
    /// the heap has no room.
    pub fn send(&self, outgoing: Outgoing<'_>) -> core::result::Result<(), QueueError> {
        self.outgoing.as_ref().ok_or(QueueError::Closed)?.put(outgoing, Deadline::never())
    }

    /// Receives the next message. Blocks until there is one; without a deadline, does not.
    ///
    /// # Errors
    /// [`QueueError::Closed`] if all is received and no process has the other end any more, or this
    /// end cannot receive; [`QueueError::TimedOut`]; [`QueueError::Empty`]; if the heap is corrupt.
    pub fn receive_with<R>(
        &self,
        deadline: Option<Deadline>,
        f: impl FnOnce(Arrival<'_>) -> R,
    ) -> core::result::Result<R, QueueError> {
        self.incoming.as_ref().ok_or(QueueError::Closed)?.get_with(deadline, f)
    }

    /// As [`Connection::receive_with`], giving the payload out.
    ///
    /// # Errors
    /// As [`Connection::receive_with`].
    pub fn receive(&self, deadline: Deadline) -> core::result::Result<Payload, QueueError> {
        self.incoming.as_ref().ok_or(QueueError::Closed)?.get(deadline)
    }

    /// Waits until [`Connection::receive`] would not block: there is a message, or nobody is there to
    /// send one. Returns whether that is so by the deadline.
    ///
    /// # Errors
    /// [`QueueError::Closed`] if this end cannot receive; if this process can get no slot.
    pub fn poll(&self, deadline: Deadline) -> core::result::Result<bool, QueueError> {
        let incoming = self.incoming.as_ref().ok_or(QueueError::Closed)?;
        while incoming.is_empty() {
            match incoming.wait_message(deadline) {
                Ok(()) => {}
                Err(QueueError::Closed) => return Ok(true),
                Err(QueueError::TimedOut) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Closes and lets go of the queues of an end that nobody has any more.
pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let shape = block.view::<Shape>(heap, 0)?;
    for cell in [shape.field(|s| &s.outgoing), shape.field(|s| &s.incoming)] {
        if let Some(id) = BlockId::from_bits(cell.load(Ordering::Acquire)) {
            queue::close(heap, seat, heap.block(id)?)?;
            object::release(heap, seat, cell)?;
        }
    }
    Ok(())
}
