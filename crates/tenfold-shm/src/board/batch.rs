//! A batch: tasks of one function, their inputs, and the room for their results.
//!
//! ```text
//!  ┌ head ┬ chunks u32 × c ┬ status u8 × n ┬ attempts u8 × n ┬ value u64 × n ┬ inputs … ┐   ≤ 1 MiB
//!  └──────┴────────────────┴───────────────┴───────────────┴─────────────────┴──────────┘
//!    chunk:   0 free, else the identity of the worker that has it; DONE when all its items are
//!    status:  see the table below; the store of a final status commits the result. Where a worker runs a
//!             whole chunk of numbers, to begin an item commits the one before, and the statuses follow
//!    value:   up to 8 bytes of result, or a cell that owns the result's block
//!    inputs:  raw: n numbers side by side; else n × {offset u32, length u32} and the bytes;
//!             length u32::MAX: a cell at `offset` owns the input's block
//!    head:    also a cell for the preamble, what all items have in common: a message, or another batch
//!             that has it; and how many items are published: fewer than n in an open batch
//! ```
//!
//! | status | meaning | value |
//! |---|---|---|
//! | 0 | pending | nothing of meaning |
//! | 1 | running (cancellable batches only) | nothing of meaning |
//! | 2 | being cancelled: its worker is about to be killed | nothing of meaning |
//! | 3 | half: run, its block is being written | a cell: empty or that block |
//! | 4 | died: its worker was killed, crashed or exited | pid, exit status bits |
//! | 5 | timed out | |
//! | 6 | cancelled | |
//! | 7 | failed: the function panicked or its result could not be sent | a cell: the error |
//! | 8 | done, the result has a block | a cell: the result |
//! | 9 + k | done, the result has k bytes (0 to 8) | those bytes |
//! | 18 | done, the result is a word of the face's own | that word |
//!
//! *Killed here:* an item whose status is not final either was running (its worker's slot or its
//! status says so) or goes back; [`super::settle`] does that.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared, Word};
use crate::object;
use crate::participant::Seat;

pub(super) const PENDING: u8 = 0;
pub(super) const RUNNING: u8 = 1;
pub(super) const CANCELLING: u8 = 2;
pub(super) const HALF: u8 = 3;
pub(super) const DIED: u8 = 4;
pub(super) const TIMED_OUT: u8 = 5;
pub(super) const CANCELLED: u8 = 6;
pub(super) const FAILED: u8 = 7;
pub(super) const DONE_BLOCK: u8 = 8;
pub(super) const DONE: u8 = 9;
pub(super) const DONE_WORD: u8 = DONE + SHORT as u8 + 1;

pub(super) const CHUNK_FREE: u32 = 0;
pub(super) const CHUNK_DONE: u32 = u32::MAX;

pub(super) const CANCELLABLE: u32 = 1;
pub(super) const TELL_EACH: u32 = 2;
pub(super) const RAW_INPUTS: u32 = 4;

/// Results of this many bytes need no block.
pub(super) const SHORT: usize = 8;
pub(super) const BOXED: u32 = u32::MAX;
/// Inputs and results of so many bytes are looked at where they lie, if that is wanted; shorter ones are copied.
pub(super) const LARGE: u64 = 64 << 10;

/// The first bytes of a batch.
#[repr(C)]
pub(super) struct Head {
    pub(super) next: AtomicU64,
    pub(super) listed: AtomicU64,
    /// Where the function's entry is in the executable.
    pub(super) function: AtomicU64,
    /// Nanoseconds that one item may take; 0 for no limit.
    pub(super) timeout: AtomicU64,
    /// The number of the first item in the job that the batch is part of.
    pub(super) base: AtomicU64,
    /// The board's id, which is not a reference.
    pub(super) board: AtomicU64,
    /// Owns the message with what all items have in common, or refers to the batch that does.
    pub(super) preamble: AtomicU64,
    pub(super) flags: AtomicU32,
    pub(super) bell: AtomicU32,
    pub(super) items: AtomicU32,
    /// Items that workers may begin.
    pub(super) published: AtomicU32,
    /// Items that count as one task against what a worker may do.
    pub(super) unit: AtomicU32,
    /// Not zero if the pool's watcher wants to hear of results, too.
    pub(super) watched: AtomicU32,
    /// Not zero if cells of items may own blocks: results, or inputs.
    pub(super) owns: AtomicU32,
    /// Not zero if some inputs have blocks of their own.
    pub(super) boxed: AtomicU32,
    /// Bytes of results that have blocks of their own, so far.
    pub(super) result_bytes: AtomicU64,
    pub(super) chunk_len: AtomicU32,
    pub(super) chunks: AtomicU32,
    /// The next chunk to try: a hint.
    pub(super) cursor: AtomicU32,
    /// Not zero after a chunk has been freed again: look from the start once more.
    pub(super) rescan: AtomicU32,
    /// Chunks finished. Too low after a death, until it is settled.
    pub(super) finished: AtomicU32,
    pub(super) cancelled: AtomicU32,
    pub(super) retries: AtomicU32,
    pub(super) chunk_at: AtomicU32,
    pub(super) status_at: AtomicU32,
    pub(super) value_at: AtomicU32,
    pub(super) attempts_at: AtomicU32,
    pub(super) input_at: AtomicU32,
    pub(super) stride: AtomicU32,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Head {}

/// A look at a batch's tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    pub(super) head: At<Head>,
    pub(super) chunks: &'static [AtomicU32],
    pub(super) status: &'static [AtomicU8],
    pub(super) values: &'static [AtomicU64],
    /// Where they begin in the heap.
    values_at: u64,
    pub(super) attempts: &'static [AtomicU8],
}

impl core::fmt::Debug for Head {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "batch of {:?}", self.items)
    }
}

impl Tables {
    pub(super) fn of(heap: Heap, block: Block) -> Result<Tables> {
        let head = block.view::<Head>(heap, 0)?;
        let items = head.items.load(Ordering::Relaxed) as usize;
        let chunks = head.chunks.load(Ordering::Relaxed) as usize;
        let at = |word: &AtomicU32| u64::from(word.load(Ordering::Relaxed));
        let attempts = if head.retries.load(Ordering::Relaxed) > 0 { items } else { 0 };
        Ok(Tables {
            head,
            chunks: block.slice(heap, at(&head.chunk_at), chunks)?,
            status: block.slice(heap, at(&head.status_at), items)?,
            values: block.slice(heap, at(&head.value_at), items)?,
            values_at: block.offset() + at(&head.value_at),
            attempts: block.slice(heap, at(&head.attempts_at), attempts)?,
        })
    }

    pub(super) fn value(&self, heap: Heap, item: usize) -> Result<Word> {
        heap.word(self.values_at + 8 * item as u64)
    }

    /// Chunks whose items are published.
    pub(super) fn published(&self) -> usize {
        let items = self.head.published.load(Ordering::SeqCst) as usize;
        let len = (self.head.chunk_len.load(Ordering::Relaxed) as usize).max(1);
        items.div_ceil(len).min(self.chunks.len())
    }

    /// The items of a chunk.
    pub(super) fn range(&self, chunk: usize) -> core::ops::Range<usize> {
        let len = (self.head.chunk_len.load(Ordering::Relaxed) as usize).max(1);
        let from = (chunk * len).min(self.status.len());
        from..(from + len).min(self.status.len())
    }
}

pub(super) fn next(heap: Heap, block: Block) -> Result<Word> {
    Ok(block.view::<Head>(heap, 0)?.field(|h| &h.next))
}

pub(super) fn listed(heap: Heap, block: Block) -> Result<Word> {
    Ok(block.view::<Head>(heap, 0)?.field(|h| &h.listed))
}

pub(super) fn bell(tables: &Tables) -> usize {
    tables.head.bell.load(Ordering::Relaxed) as usize % super::BELLS
}

/// About how many chunks nobody has taken yet; at least 2 after some have been freed again.
pub(super) fn remaining(heap: Heap, block: Block) -> Result<u32> {
    let head = block.view::<Head>(heap, 0)?;
    if head.rescan.load(Ordering::SeqCst) != 0 {
        return Ok(2);
    }
    let published = head.published.load(Ordering::SeqCst).div_ceil(head.chunk_len.load(Ordering::Relaxed).max(1));
    Ok(published.saturating_sub(head.cursor.load(Ordering::SeqCst)))
}

/// Whether items may still be added.
pub(super) fn is_open(heap: Heap, block: Block) -> Result<bool> {
    let head = block.view::<Head>(heap, 0)?;
    Ok(head.published.load(Ordering::SeqCst) < head.items.load(Ordering::Relaxed))
}

pub(super) fn input_entry(heap: Heap, block: Block, head: At<Head>, item: usize) -> Result<(u64, u32)> {
    let at = u64::from(head.input_at.load(Ordering::Relaxed)) + 8 * item as u64;
    Ok(entry(block.word(heap, at)?.load(Ordering::Relaxed)))
}

/// Where an input is in its block, and how long.
#[inline]
pub(super) fn entry(word: u64) -> (u64, u32) {
    (word >> 32, word as u32)
}

/// Frees what a batch names.
pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let tables = Tables::of(heap, block)?;
    object::release(heap, seat, tables.head.field(|h| &h.next))?;
    object::release(heap, seat, tables.head.field(|h| &h.preamble))?;
    if tables.head.owns.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    for (item, status) in tables.status.iter().enumerate() {
        let value = tables.value(heap, item)?;
        if matches!(status.load(Ordering::Acquire), HALF | FAILED | DONE_BLOCK) {
            object::release(heap, seat, value)?;
        }
    }
    if tables.head.stride.load(Ordering::Relaxed) == 0 {
        for item in 0..tables.status.len() {
            if let (at, BOXED) = input_entry(heap, block, tables.head, item)? {
                object::release(heap, seat, block.word(heap, at)?)?;
            }
        }
    }
    Ok(())
}
