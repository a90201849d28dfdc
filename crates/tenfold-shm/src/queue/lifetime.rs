//! How a queue ends: closed, left by a dead process, freed.

use core::sync::atomic::Ordering;

use super::position::Position;
use super::segment::{self, Found};
use super::{Shape, wait};
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::object;
use crate::participant::{Death, Seat};

/// Lets nothing more in. May be done again.
///
/// *Killed here:* it is closed by one store; whoever waits is woken by the sweep.
pub(crate) fn close(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let shape = block.view::<Shape>(heap, 0)?;
    let tail = shape.field(|s| &s.tail);
    let guard = tail.field(|t| &t.lock).lock_from(heap, seat)?;
    tail.closed.store(1, Ordering::Release);
    drop(guard);
    reach(KillPoint::QueueClosed);
    wake_everybody(heap, seat, shape)
}

fn wake_everybody(heap: Heap, seat: Seat, shape: At<Shape>) -> Result<()> {
    wait::wake_all(heap, seat, shape.field(|s| &s.tail))?;
    wait::wake_all(heap, seat, shape.field(|s| &s.head))?;
    shape.get().done.wake_all();
    shape.ring_late(heap, seat)
}

/// A process that held the queue is dead, and with it perhaps a wake-up that it had got or was
/// about to send.
pub(crate) fn owner_died(heap: Heap, seat: Seat, _death: &Death, block: Block) -> Result<()> {
    wake_everybody(heap, seat, block.view::<Shape>(heap, 0)?)
}

/// Frees the messages and the segments of a queue that nobody refers to any more.
///
/// *Killed here:* the messages' cells are emptied one by one; then the head is set to the tail, so
/// that whoever goes on does not look for messages; then the segments are freed one by one.
pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let shape = block.view::<Shape>(heap, 0)?;
    free_messages(heap, seat, shape)?;
    reach(KillPoint::QueueEmptied);
    shape.head.position.store(shape.tail.position.load(Ordering::Acquire), Ordering::Release);
    let first = shape.field(|s| &s.first);
    while let Some(id) = BlockId::from_bits(first.load(Ordering::Acquire)) {
        let next = segment::next(heap, heap.block(id)?.offset())?.load(Ordering::Acquire);
        heap.give_back_leaving(seat, id, first, next)?;
    }
    Ok(())
}

fn free_messages(heap: Heap, seat: Seat, shape: At<Shape>) -> Result<()> {
    let (mut now, tail) = (shape.head.now(), shape.tail.now());
    let mut at = shape.head.at.load(Ordering::Acquire);
    // More segments than there are blocks would be a ring.
    let mut segments = heap.header().descriptors.load(Ordering::Relaxed);
    while tail.since(now) != 0 {
        let record = segment::record(heap, at, now)?;
        now = match record.found(now)? {
            Found::Inline(len) => now.after(segment::inline_words(len)),
            Found::Block => {
                object::release(heap, seat, record.block_cell())?;
                now.after(segment::BLOCK_WORDS)
            }
            Found::End => {
                let next = BlockId::from_bits(segment::next(heap, at)?.load(Ordering::Acquire));
                segments = segments.checked_sub(1).ok_or(HeapError::corrupt("chain of a queue", at))?;
                at = heap.block(next.ok_or(HeapError::corrupt("chain of a queue", at))?)?.offset();
                Position::in_next_segment(now)
            }
        };
    }
    Ok(())
}
