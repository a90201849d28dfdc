//! The producers' side.

use core::sync::atomic::Ordering;

use tenfold_sys::clock::Deadline;

use super::position::Position;
use super::segment::{self, BLOCK_WORDS, inline_words, short};
use super::waiters::Wake;
use super::{End, Queue, QueueError};
use crate::error::{HeapError, Result};
use crate::heap::{At, BlockId, Heap, Word};
use crate::internal_lock::{Guard, Store};
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing};
use crate::object::{self, ObjectKind};
use crate::participant::{Seat, seat};

/// Blocks that one [`Queue::put_many`] writes before it takes the lock; they stand in the first
/// transit cells of the lane.
const BLOCKS: usize = 4;
/// Messages that one [`Queue::put_many`] puts at most before it lets others at the lock.
const RUN: usize = 256;
/// The transit cell for a fresh segment.
const SEGMENT: usize = 4;

/// Why not all of several messages were put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error} (after {put} messages)")]
pub struct PutManyError {
    /// How many were put, from the first one on.
    pub put: usize,
    /// What was wrong with the next one.
    pub error: QueueError,
}

/// What a message looks like in its record.
#[derive(Clone, Copy)]
enum Form<'a> {
    /// All of it, and how many bytes that is.
    Inline(&'a Outgoing<'a>, usize),
    Block(BlockId),
}

impl Form<'_> {
    #[inline(always)]
    fn words(self) -> u64 {
        match self {
            Form::Inline(_, len) => inline_words(len),
            Form::Block(_) => BLOCK_WORDS,
        }
    }
}

/// Why a message could not be put just now.
enum Obstacle {
    Full,
    Closed,
    /// The segment is full and a fresh one of this many bytes is needed.
    Segment(u64),
    Failed(HeapError),
}

impl Queue {
    /// Puts a message at the end. Blocks while a bounded queue is full.
    ///
    /// # Errors
    /// [`QueueError::TimedOut`] if there was no room before the deadline; [`QueueError::Closed`]; if
    /// the heap has no room.
    #[inline]
    pub fn put(&self, outgoing: Outgoing<'_>, deadline: Deadline) -> core::result::Result<(), QueueError> {
        self.put_one(&outgoing, Some(deadline))
    }

    /// Puts a message at the end if there is room for it now.
    ///
    /// # Errors
    /// [`QueueError::Full`]; [`QueueError::Closed`]; if the heap has no room.
    #[inline]
    pub fn try_put(&self, outgoing: Outgoing<'_>) -> core::result::Result<(), QueueError> {
        self.put_one(&outgoing, None)
    }

    #[inline]
    fn put_one(&self, outgoing: &Outgoing<'_>, deadline: Option<Deadline>) -> core::result::Result<(), QueueError> {
        let heap = self.heap();
        let seat = seat(heap)?;
        match short(outgoing) {
            Some(len) => self.place(heap, seat, deadline, |producer| {
                producer.write(Form::Inline(outgoing, len))?;
                producer.commit();
                Ok(())
            }),
            None => self.put_block(heap, seat, outgoing, deadline),
        }
    }

    fn put_block(
        &self,
        heap: Heap,
        seat: Seat,
        outgoing: &Outgoing<'_>,
        deadline: Option<Deadline>,
    ) -> core::result::Result<(), QueueError> {
        // A queue that is full for long should not keep the memory of what waits for it.
        if self.is_closed() {
            return Err(QueueError::Closed);
        }
        while self.is_full() {
            self.wait_for_room(seat, deadline)?;
        }
        let transit = seat.transit(0);
        let form = Form::Block(message::write(heap, seat, *outgoing, transit)?);
        let put = self.place(heap, seat, deadline, |producer| {
            producer.write(form)?;
            producer.commit_blocks([transit]);
            Ok(())
        });
        if put.is_err() {
            object::release(heap, seat, transit)?;
        }
        put
    }

    /// Puts several messages, in order, with few lock operations. Blocks as [`Queue::put`] does; the
    /// messages of others may come in between.
    ///
    /// # Errors
    /// As [`Queue::put`], with the number of messages that were put before.
    pub fn put_many(&self, messages: &[Outgoing<'_>], deadline: Deadline) -> core::result::Result<(), PutManyError> {
        let mut put = 0;
        let result = self.put_all(messages, deadline, &mut put);
        result.map_err(|error| PutManyError { put, error })
    }

    fn put_all(
        &self,
        messages: &[Outgoing<'_>],
        deadline: Deadline,
        put: &mut usize,
    ) -> core::result::Result<(), QueueError> {
        let heap = self.heap();
        let seat = seat(heap)?;
        while *put < messages.len() {
            let (run, unwritten) = self.write_blocks(heap, seat, &messages[*put..]);
            let mut rest = &messages[*put..*put + run];
            let mut blocks = 0;
            let mut placed = Ok(());
            while placed.is_ok() && !rest.is_empty() {
                placed = self.place(heap, seat, Some(deadline), |producer| producer.put_run(&mut rest, &mut blocks));
            }
            *put += run - rest.len();
            for index in 0..BLOCKS {
                object::release(heap, seat, seat.transit(index))?;
            }
            placed?;
            unwritten?;
        }
        Ok(())
    }

    /// Writes the blocks of the next few long messages to the transit cells. Returns up to which
    /// message that went, and why no further if that was an error.
    fn write_blocks(&self, heap: Heap, seat: Seat, messages: &[Outgoing<'_>]) -> (usize, Result<()>) {
        let mut blocks = 0;
        for (index, message) in messages.iter().enumerate() {
            if short(message).is_some() {
                continue;
            }
            if blocks == BLOCKS {
                return (index, Ok(()));
            }
            if let Err(error) = message::write(heap, seat, *message, seat.transit(blocks)) {
                return (index, Err(error));
            }
            blocks += 1;
        }
        (messages.len(), Ok(()))
    }

    /// Runs `write` under the tail lock until it has put something, waiting for room and fetching
    /// segments in between.
    #[inline(always)]
    fn place(
        &self,
        heap: Heap,
        seat: Seat,
        deadline: Option<Deadline>,
        mut write: impl FnMut(&mut Producer<'_>) -> core::result::Result<(), Obstacle>,
    ) -> core::result::Result<(), QueueError> {
        let tail = self.shape.field(|s| &s.tail);
        loop {
            // The guard stays where it is: moving it costs more than the lock.
            let (obstacle, wake) = {
                let guard = tail.field(|t| &t.lock).lock_from(heap, seat)?;
                let mut producer = Producer::new(self, heap, tail, &guard);
                (write(&mut producer), producer.wake)
            };
            tail.waiters.send(wake);
            match obstacle {
                Ok(()) => return Ok(()),
                Err(Obstacle::Closed) => return Err(QueueError::Closed),
                Err(Obstacle::Full) => self.wait_for_room(seat, deadline)?,
                Err(Obstacle::Segment(bytes)) => self.extend(heap, seat, bytes)?,
                Err(Obstacle::Failed(error)) => return Err(error.into()),
            }
        }
    }

    /// Links a fresh segment of `bytes` behind the last one, unless somebody else has meanwhile.
    #[cold]
    fn extend(&self, heap: Heap, seat: Seat, bytes: u64) -> Result<()> {
        let transit = seat.transit(SEGMENT);
        let block = heap.take(seat, bytes, ObjectKind::Bytes, transit)?;
        let fresh = || -> Result<()> {
            segment::next(heap, block.offset())?.store(0, Ordering::Relaxed);
            reach(KillPoint::QueueSegmentTaken);
            let tail = self.shape.field(|s| &s.tail);
            let guard = tail.field(|t| &t.lock).lock_from(heap, seat)?;
            let (position, at) = (tail.now(), tail.at.load(Ordering::Relaxed));
            if at != 0 && has_room(tail, position, segment::RECORD_WORDS as u64) {
                return Ok(());
            }
            let at_word = tail.field(|t| &t.at);
            let limit = Store::new(tail.field(|t| &t.limit), segment::limit(bytes));
            if at == 0 {
                // No consumer looks at these words before there is a message.
                guard.commit([
                    Store::new(self.shape.field(|s| &s.first), block.id().bits()),
                    Store::new(self.shape.field(|s| &s.head.at), block.offset()),
                    Store::new(at_word, block.offset()),
                    limit,
                    Store::new(transit, 0),
                ]);
            } else {
                segment::record(heap, at, position)?.write_end(position);
                guard.commit([
                    Store::new(segment::next(heap, at)?, block.id().bits()),
                    Store::new(at_word, block.offset()),
                    limit,
                    Store::new(tail.field(|t| &t.position), position.in_next_segment().bits()),
                    Store::new(transit, 0),
                ]);
            }
            drop(guard);
            reach(KillPoint::QueueSegmentLinked);
            Ok(())
        };
        let linked = fresh();
        object::release(heap, seat, transit)?;
        linked
    }
}

#[inline(always)]
fn has_room(tail: At<End>, position: Position, words: u64) -> bool {
    position.offset() + words <= tail.limit.load(Ordering::Relaxed)
}

/// Who holds the tail lock, and what it has written so far.
struct Producer<'q> {
    queue: &'q Queue,
    heap: Heap,
    tail: At<End>,
    guard: &'q Guard,
    /// Behind the last message that is in the queue.
    committed: Position,
    /// Behind the last record written.
    written: Position,
    wake: Wake,
}

impl<'q> Producer<'q> {
    #[inline(always)]
    fn new(queue: &'q Queue, heap: Heap, tail: At<End>, guard: &'q Guard) -> Producer<'q> {
        let now = tail.now();
        Producer { queue, heap, tail, guard, committed: now, written: now, wake: Wake::NOBODY }
    }

    /// Writes one record behind the last one. It is in the queue once it is committed.
    #[inline(always)]
    fn write(&mut self, form: Form<'_>) -> core::result::Result<(), Obstacle> {
        if self.tail.closed.load(Ordering::Relaxed) != 0 {
            return Err(Obstacle::Closed);
        }
        if self.queue.is_bounded() && !self.finds_room() {
            return Err(Obstacle::Full);
        }
        let at = self.tail.at.load(Ordering::Relaxed);
        if !has_room(self.tail, self.written, form.words()) {
            let messages = self.written.since(self.queue.shape.head.now());
            return Err(Obstacle::Segment(if at == 0 { segment::FIRST_BYTES } else { segment::bytes_for(messages) }));
        }
        let record = segment::record(self.heap, at, self.written).map_err(Obstacle::Failed)?;
        match form {
            Form::Inline(outgoing, len) => record.write_inline(self.written, outgoing, len),
            Form::Block(id) => record.write_block(self.written, id),
        }
        self.written = self.written.after(form.words());
        reach(KillPoint::QueueSlotWritten);
        Ok(())
    }

    /// Whether a bounded queue has room for one more than is written.
    #[inline]
    fn finds_room(&self) -> bool {
        if self.written.since(self.tail.other_as_seen()) < self.queue.capacity {
            return true;
        }
        let head = self.queue.shape.head.now();
        self.tail.seen.store(head.bits(), Ordering::Relaxed);
        self.written.since(head) < self.queue.capacity
    }

    /// Puts what is written into the queue, if it is all inline.
    #[inline(always)]
    fn commit(&mut self) {
        self.tail.position.store(self.written.bits(), Ordering::Release);
        self.announce();
    }

    /// Puts what is written into the queue, the blocks in `cells` among it.
    #[inline(always)]
    fn commit_blocks<const N: usize>(&mut self, cells: [Word; N]) {
        let tail = Store::new(self.tail.field(|t| &t.position), self.written.bits());
        let mut stores = [tail; BLOCKS + 1];
        for (store, cell) in stores[1..].iter_mut().zip(cells) {
            *store = Store::new(cell, 0);
        }
        self.guard.commit(stores);
        self.announce();
    }

    #[inline(always)]
    fn announce(&mut self) {
        reach(KillPoint::QueueCommitted);
        self.wake = self.tail.waiters.notify(self.written.since(self.committed));
        self.queue.shape.ring_armed(self.heap);
        self.committed = self.written;
    }

    /// Puts as many of `rest` as may go in under one lock; the block of the first long one is in
    /// transit cell number `blocks`. Both move on.
    fn put_run(&mut self, rest: &mut &[Outgoing<'_>], blocks: &mut usize) -> core::result::Result<(), Obstacle> {
        let (mut run, mut block) = (0, *blocks);
        let mut obstacle = Ok(());
        for message in rest.iter().take(RUN) {
            let form = match short(message) {
                Some(len) => Form::Inline(message, len),
                None => {
                    let cell = self.guard.seat().transit(block);
                    let Some(id) = BlockId::from_bits(cell.load(Ordering::Relaxed)) else { break };
                    block += 1;
                    Form::Block(id)
                }
            };
            obstacle = self.write(form);
            if obstacle.is_err() {
                block -= usize::from(matches!(form, Form::Block(_)));
                break;
            }
            run += 1;
        }
        let seat = self.guard.seat();
        match block - *blocks {
            _ if run == 0 => {}
            0 => self.commit(),
            1 => self.commit_blocks([seat.transit(*blocks)]),
            count => {
                let last = *blocks + count - 1;
                self.commit_blocks::<BLOCKS>(core::array::from_fn(|n| seat.transit((*blocks + n).min(last))));
            }
        }
        *rest = &rest[run..];
        *blocks = block;
        obstacle
    }
}
