//! A batch: tasks of one function, their inputs, and the room for their results.
//!
//! ```text
//!  ┌ head ┬ chunks u32 × c ┬ status u8 × n ┬ attempts u8 × n ┬ value u64 × n ┬ inputs … ┐   ≤ 1 MiB
//!  └──────┴────────────────┴───────────────┴───────────────┴─────────────────┴──────────┘
//!    chunk:   0 free, else the identity of the worker that has it; DONE when all its items are
//!    status:  see the table below; the store of a final status commits the result
//!    value:   up to 8 bytes of result, or a cell that owns the result's block
//!    inputs:  raw: n numbers side by side; else n × {offset u32, length u32} and the bytes;
//!             length u32::MAX: a cell at `offset` owns the input's block
//! ```
//!
//! | status | meaning | value |
//! |---|---|---|
//! | 0 | pending | nothing of meaning |
//! | 1 | running (cancellable batches only) | nothing of meaning |
//! | 2 | being cancelled: its worker is about to be killed | nothing of meaning |
//! | 3 | half: run, its block is being written | a cell: empty or that block |
//! | 4 | died: its worker was killed or crashed | exit status bits |
//! | 5 | timed out | |
//! | 6 | cancelled | |
//! | 7 | failed: the function panicked or its result could not be sent | a cell: the error |
//! | 8 | done, the result has a block | a cell: the result |
//! | 9 + k | done, the result has k bytes (0 to 8) | those bytes |
//!
//! *Killed here:* an item whose status is not final either was running (its worker's slot or its
//! status says so) or goes back; [`super::settle`] does that.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use tenfold_sys::process::ExitStatus;

use super::{DEADLINE_WORD, RUNNING_WORD};
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Shared, WINDOW, Word};
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Identity, Seat, seat};

pub(super) const PENDING: u8 = 0;
pub(super) const RUNNING: u8 = 1;
pub(super) const CANCELLING: u8 = 2;
pub(super) const HALF: u8 = 3;
pub(super) const DIED: u8 = 4;
pub(super) const TIMED_OUT: u8 = 5;
pub(super) const CANCELLED: u8 = 6;
const FAILED: u8 = 7;
const DONE_BLOCK: u8 = 8;
const DONE: u8 = 9;

pub(super) const CHUNK_FREE: u32 = 0;
pub(super) const CHUNK_DONE: u32 = u32::MAX;

const CANCELLABLE: u32 = 1;
const TELL_EACH: u32 = 2;
const RAW_INPUTS: u32 = 4;

/// Results of this many bytes need no block.
const SHORT: usize = 8;
const BOXED: u32 = u32::MAX;

/// The first bytes of a batch.
#[repr(C)]
pub(super) struct Head {
    next: AtomicU64,
    listed: AtomicU64,
    /// Where the function's entry is in the executable.
    function: AtomicU64,
    /// Nanoseconds that one item may take; 0 for no limit.
    timeout: AtomicU64,
    /// The number of the first item in the job that the batch is part of.
    pub(super) base: AtomicU64,
    /// The board's id, which is not a reference.
    pub(super) board: AtomicU64,
    flags: AtomicU32,
    bell: AtomicU32,
    pub(super) items: AtomicU32,
    pub(super) chunk_len: AtomicU32,
    pub(super) chunks: AtomicU32,
    /// The next chunk to try: a hint.
    cursor: AtomicU32,
    /// Not zero after a chunk has been freed again: look from the start once more.
    pub(super) rescan: AtomicU32,
    /// Chunks finished. Too low after a death, until it is settled.
    pub(super) finished: AtomicU32,
    cancelled: AtomicU32,
    pub(super) retries: AtomicU32,
    chunk_at: AtomicU32,
    status_at: AtomicU32,
    value_at: AtomicU32,
    attempts_at: AtomicU32,
    input_at: AtomicU32,
    stride: AtomicU32,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Head {}

/// A look at a batch's tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    pub(super) head: At<Head>,
    pub(super) chunks: &'static [AtomicU32],
    pub(super) status: &'static [AtomicU8],
    pub(super) values: At<AtomicU64>,
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
        // The whole table of values is checked here, one of them is looked at.
        block.slice::<AtomicU64>(heap, at(&head.value_at), items)?;
        Ok(Tables {
            head,
            chunks: block.slice(heap, at(&head.chunk_at), chunks)?,
            status: block.slice(heap, at(&head.status_at), items)?,
            values: block.view(heap, at(&head.value_at))?,
            attempts: block.slice(heap, at(&head.attempts_at), attempts)?,
        })
    }

    pub(super) fn value(&self, heap: Heap, item: usize) -> Result<Word> {
        heap.word(self.values.offset() + 8 * item as u64)
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

pub(super) fn chunks(heap: Heap, block: Block) -> Result<u32> {
    Ok(block.view::<Head>(heap, 0)?.chunks.load(Ordering::Relaxed))
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
    Ok(head.chunks.load(Ordering::Relaxed).saturating_sub(head.cursor.load(Ordering::SeqCst)))
}

/// What a batch is to contain; filled item by item, then written to the heap in one go.
#[derive(Debug, Clone, Default)]
pub struct BatchPlan {
    /// Where the function's entry is in the executable.
    pub function: u64,
    /// The number of the first item.
    pub base: u64,
    /// Nanoseconds that one item may take; 0 for no limit.
    pub timeout: u64,
    /// How often an item is tried again after its worker died.
    pub retries: u8,
    /// Whether single items can be cancelled; costs an atomic operation an item.
    pub cancellable: bool,
    /// Whether results are waited for one by one, rather than all together.
    pub tell_each: bool,
    /// Items that a worker takes at a time; 0 for a choice by the number of items.
    pub chunk_len: u32,
    /// Which bell rings for the results.
    pub bell: u32,
    /// Bytes of each item if all are numbers, side by side in `bytes`; else 0.
    pub stride: u32,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    boxed: Vec<(u32, Vec<u8>, Vec<Handle>)>,
}

/// Inputs longer than this, or with handles, get a block of their own.
const INPUT_INLINE: usize = 4096;
/// A batch takes no more items than fit into one window with their tables.
const BATCH_BYTES: usize = WINDOW as usize - 1024;

impl BatchPlan {
    /// Items so far.
    pub fn items(&self) -> usize {
        if self.stride > 0 { self.bytes.len() / self.stride as usize } else { self.ends.len() }
    }

    /// Whether a further item may not fit.
    pub fn is_full(&self) -> bool {
        let tables = self.items() * (1 + 8 + 1 + 4 + 8);
        tables + self.bytes.len() + 2 * INPUT_INLINE > BATCH_BYTES
    }

    /// Adds an item that is a number; all items of the batch must be.
    #[inline]
    pub fn push_raw(&mut self, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), self.stride as usize);
        self.bytes.extend_from_slice(bytes);
    }

    /// How many raw items fit into an empty batch.
    pub fn raw_room(&self) -> usize {
        (BATCH_BYTES - 2 * INPUT_INLINE) / (1 + 8 + 1 + 4 + self.stride.max(1) as usize)
    }

    /// Adds many raw items at once.
    pub fn extend_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds an item.
    pub fn push(&mut self, bytes: &[u8], handles: &[Handle]) {
        debug_assert_eq!(self.stride, 0);
        if bytes.len() > INPUT_INLINE || !handles.is_empty() {
            self.boxed.push((self.ends.len() as u32, bytes.to_vec(), handles.to_vec()));
            let aligned = self.bytes.len().next_multiple_of(8) + 8;
            self.bytes.resize(aligned, 0);
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        self.ends.push(self.bytes.len() as u32);
    }

    /// Forgets the items, keeps the rest.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.boxed.clear();
    }
}

/// Tasks of one function, in the heap.
#[derive(Debug, Clone)]
pub struct Batch {
    handle: Handle,
    tables: Tables,
}

/// What became of a task.
#[derive(Debug)]
pub enum Outcome {
    /// Its result, up to 8 bytes.
    Short([u8; SHORT], usize),
    /// Its result, and the handles inside it.
    Long(Vec<u8>, Vec<Handle>),
    /// The function panicked, or its result could not be sent: the face's own message.
    Failed(Vec<u8>),
    /// Its worker died.
    Died(Option<ExitStatus>),
    /// It took too long and its worker was killed.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

impl Batch {
    /// Writes a planned batch to the heap.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, board: &Handle, plan: &BatchPlan) -> Result<Batch> {
        let items = plan.items();
        let chunk_len = match plan.chunk_len {
            0 => items.div_ceil(1 << 12).max(1),
            given => given as usize,
        };
        let chunks = items.div_ceil(chunk_len);
        let chunk_at = size_of::<Head>();
        let status_at = chunk_at + 4 * chunks;
        let attempts_at = status_at + items;
        let zeroed = attempts_at + if plan.retries > 0 { items } else { 0 };
        let value_at = zeroed.next_multiple_of(8);
        let table_at = value_at + 8 * items;
        let bytes_at = if plan.stride > 0 { table_at } else { table_at + 8 * items };
        let total = bytes_at + plan.bytes.len();
        let handle = Handle::create_with(heap, ObjectKind::Batch, total as u64, zeroed as u64, |block| {
            let head = block.view::<Head>(heap, 0)?;
            let flag = |on: bool, flag: u32| if on { flag } else { 0 };
            let flags = flag(plan.cancellable, CANCELLABLE)
                | flag(plan.tell_each, TELL_EACH)
                | flag(plan.stride > 0, RAW_INPUTS);
            let words = [
                (&head.flags, flags),
                (&head.bell, plan.bell),
                (&head.items, items as u32),
                (&head.chunk_len, chunk_len as u32),
                (&head.chunks, chunks as u32),
                (&head.retries, u32::from(plan.retries)),
                (&head.chunk_at, chunk_at as u32),
                (&head.status_at, status_at as u32),
                (&head.value_at, value_at as u32),
                (&head.attempts_at, attempts_at as u32),
                (&head.input_at, table_at as u32),
                (&head.stride, plan.stride),
            ];
            for (word, value) in words {
                word.store(value, Ordering::Relaxed);
            }
            head.function.store(plan.function, Ordering::Relaxed);
            head.timeout.store(plan.timeout, Ordering::Relaxed);
            head.base.store(plan.base, Ordering::Relaxed);
            head.board.store(board.id().bits(), Ordering::Relaxed);
            block.write(heap, bytes_at as u64, &plan.bytes)?;
            if plan.stride == 0 {
                let mut from = 0;
                for (index, end) in plan.ends.iter().enumerate() {
                    let entry = (bytes_at as u64 + u64::from(from)) << 32 | u64::from(end - from);
                    block.word(heap, (table_at + 8 * index) as u64)?.store(entry, Ordering::Relaxed);
                    from = *end;
                }
                for (index, _, _) in &plan.boxed {
                    let end = plan.ends[*index as usize];
                    let entry = (bytes_at as u64 + u64::from(end) - 8) << 32 | u64::from(BOXED);
                    block.word(heap, table_at as u64 + 8 * u64::from(*index))?.store(entry, Ordering::Relaxed);
                }
            }
            Ok(())
        })?;
        let batch = Batch::from_handle(handle)?;
        for (index, bytes, handles) in &plan.boxed {
            let (at, _) = input_entry(heap, batch.block(), batch.tables.head, *index as usize)?;
            let cell = batch.block().word(heap, at)?;
            message::write(heap, seat(heap)?, Outgoing { parts: &[bytes], handles }, cell)?;
        }
        reach(KillPoint::BoardBatchBuilt);
        Ok(batch)
    }

    /// The batch behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Batch> {
        let handle = handle.expect(ObjectKind::Batch)?;
        let tables = Tables::of(handle.heap(), handle.block())?;
        Ok(Batch { handle, tables })
    }

    /// The handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn block(&self) -> Block {
        self.handle.block()
    }

    /// How many items it has.
    pub fn items(&self) -> usize {
        self.tables.status.len()
    }

    /// The number of its first item in its job.
    pub fn base(&self) -> u64 {
        self.tables.head.base.load(Ordering::Relaxed)
    }

    /// Which bell rings for it.
    pub fn bell(&self) -> usize {
        self.tables.head.bell.load(Ordering::Relaxed) as usize
    }

    /// Has another bell ring for it from now on. Look whether it is finished after this.
    pub fn redirect(&self, bell: usize) {
        self.tables.head.bell.store(bell as u32, Ordering::SeqCst);
    }

    /// Whether item `item` has its final status.
    #[inline]
    pub fn is_final(&self, item: usize) -> bool {
        self.tables.status.get(item).is_none_or(|s| s.load(Ordering::Acquire) > HALF)
    }

    /// Whether all items have.
    pub fn is_finished(&self) -> bool {
        self.tables.head.finished.load(Ordering::SeqCst) as usize >= self.tables.chunks.len()
            || self.tables.status.iter().all(|s| s.load(Ordering::Acquire) > HALF)
    }

    /// All results as words side by side, into `words`, if each is a short result of `len` bytes.
    /// Returns whether they are.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn take_short(&self, len: usize, words: &mut Vec<u64>) -> Result<bool> {
        let done = DONE + len as u8;
        if self.tables.status.iter().any(|status| status.load(Ordering::Acquire) != done) {
            return Ok(false);
        }
        words.resize(self.items(), 0);
        let at = u64::from(self.tables.head.value_at.load(Ordering::Relaxed));
        self.block().read(self.handle.heap(), at, bytemuck::cast_slice_mut(words))?;
        Ok(true)
    }

    /// Takes the outcome of an item out of the batch, and frees its block. `None` while it is not
    /// final.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn take(&self, item: usize) -> Result<Option<Outcome>> {
        let heap = self.handle.heap();
        let Some(status) = self.tables.status.get(item) else {
            return Err(HeapError::corrupt("item of a batch", self.block().offset()));
        };
        let status = status.load(Ordering::Acquire);
        let value = self.tables.value(heap, item)?;
        let owned = |cell: Word| -> Result<(Vec<u8>, Vec<Handle>)> {
            let id = BlockId::from_bits(cell.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
            let read = message::read_in_place(heap, id)?;
            object::release(heap, seat(heap)?, cell)?;
            Ok(read)
        };
        Ok(Some(match status {
            PENDING | RUNNING | CANCELLING | HALF => return Ok(None),
            DIED => Outcome::Died(ExitStatus::from_bits(value.load(Ordering::Relaxed) as u32)),
            TIMED_OUT => Outcome::TimedOut,
            CANCELLED => Outcome::Cancelled,
            FAILED => Outcome::Failed(owned(value)?.0),
            DONE_BLOCK => {
                let (bytes, handles) = owned(value)?;
                Outcome::Long(bytes, handles)
            }
            done => {
                let len = usize::from(done - DONE);
                if len > SHORT {
                    return Err(HeapError::corrupt("status of a task", self.block().offset()));
                }
                Outcome::Short(value.load(Ordering::Relaxed).to_le_bytes(), len)
            }
        }))
    }

    /// Cancels what nobody has begun, chunk by chunk; for batches whose items cannot be cancelled
    /// one by one.
    pub fn cancel_rest(&self) {
        self.tables.head.cancelled.store(1, Ordering::SeqCst);
    }

    /// Cancels one item of a cancellable batch. If it is running, returns the worker, which the
    /// caller must kill: it will commit nothing any more.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn cancel(&self, item: usize) -> Result<Cancel> {
        let Some(status) = self.tables.status.get(item) else { return Ok(Cancel::TooLate) };
        loop {
            match status.load(Ordering::Acquire) {
                PENDING => {
                    if status.compare_exchange(PENDING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        return Ok(Cancel::NeverBegun);
                    }
                }
                RUNNING => {
                    if status.compare_exchange(RUNNING, CANCELLING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        let chunk_len = self.tables.head.chunk_len.load(Ordering::Relaxed) as usize;
                        let chunk = self.tables.chunks.get(item / chunk_len.max(1));
                        let worker = chunk.and_then(|c| Identity::from_bits(c.load(Ordering::Acquire)));
                        return Ok(worker.map_or(Cancel::TooLate, Cancel::Running));
                    }
                }
                _ => return Ok(Cancel::TooLate),
            }
        }
    }
}

/// What [`Batch::cancel`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// The task will never run.
    NeverBegun,
    /// This worker runs it and must be killed.
    Running(Identity),
    /// The task is done already.
    TooLate,
}

fn input_entry(heap: Heap, block: Block, head: At<Head>, item: usize) -> Result<(u64, u32)> {
    let at = u64::from(head.input_at.load(Ordering::Relaxed)) + 8 * item as u64;
    let entry = block.word(heap, at)?.load(Ordering::Relaxed);
    Ok((entry >> 32, entry as u32))
}

/// A chunk of a batch that this process works on.
#[derive(Debug)]
pub struct Chunk {
    heap: Heap,
    seat: Seat,
    block: Block,
    tables: Tables,
    chunk: usize,
    next: usize,
    end: usize,
    running: At<AtomicU64>,
}

/// The input of a task.
#[derive(Debug)]
pub enum TaskInput {
    /// Bytes in the batch, at most a few thousand.
    Inline(Vec<u8>),
    /// Bytes in a block of their own, and the handles inside them.
    Boxed(Vec<u8>, Vec<Handle>),
}

/// All of a chunk at once, for functions from number to number.
#[derive(Debug, Clone, Copy)]
pub struct RawInputs {
    status: &'static [AtomicU8],
    values: &'static [AtomicU64],
    running: &'static AtomicU64,
    address: u64,
    heap: Heap,
    stride: usize,
    first: usize,
}

impl RawInputs {
    /// Runs `f` on each item that has no result yet: from its bytes to the bytes of the result, as
    /// a little-endian word and a length.
    ///
    /// # Errors
    /// If the heap is corrupt.
    #[inline(always)]
    pub fn run(&self, result_len: usize, mut f: impl FnMut(&[u8]) -> u64) -> Result<()> {
        let len = self.status.len() * self.stride;
        let inputs = self.heap.address(self.address, len as u64)?;
        // SAFETY: in bounds of a window that is never unmapped. The inputs of a batch are written
        // before it is submitted and never changed.
        let inputs = unsafe { core::slice::from_raw_parts(inputs.as_ptr(), len) };
        let done = DONE + result_len as u8;
        for (item, input) in inputs.chunks_exact(self.stride).enumerate() {
            if self.status[item].load(Ordering::Relaxed) != PENDING {
                continue;
            }
            self.running.store((self.first + item + 1) as u64, Ordering::Relaxed);
            reach(KillPoint::BoardItemStarted);
            let result = f(input);
            self.values[item].store(result, Ordering::Relaxed);
            reach(KillPoint::BoardResultWritten);
            self.status[item].store(done, Ordering::Release);
            reach(KillPoint::BoardResultCommitted);
        }
        Ok(())
    }
}

impl Chunk {
    /// Takes a chunk of the batch for the calling process.
    pub(super) fn claim(heap: Heap, seat: Seat, block: Block) -> Result<Option<Chunk>> {
        let tables = Tables::of(heap, block)?;
        let me = seat.identity().bits();
        let head = tables.head;
        loop {
            let mut index = head.cursor.fetch_add(1, Ordering::SeqCst) as usize;
            if index >= tables.chunks.len() {
                // Keep the cursor from running away.
                head.cursor.store(tables.chunks.len() as u32, Ordering::SeqCst);
                if head.rescan.swap(0, Ordering::SeqCst) == 0 {
                    return Ok(None);
                }
                let free = tables.chunks.iter().position(|c| c.load(Ordering::Acquire) == CHUNK_FREE);
                let Some(found) = free else { return Ok(None) };
                // There may be more than this one.
                head.rescan.store(1, Ordering::SeqCst);
                index = found;
            }
            let word = &tables.chunks[index];
            if word.compare_exchange(CHUNK_FREE, me, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            let range = tables.range(index);
            let running = participant::slot(seat.slot(), heap).field(|s| &s.words[RUNNING_WORD]);
            running.store(0, Ordering::Relaxed);
            return Ok(Some(Chunk {
                heap,
                seat,
                block,
                tables,
                chunk: index,
                next: range.start,
                end: range.end,
                running,
            }));
        }
    }

    /// Where the function's entry is.
    pub fn function(&self) -> u64 {
        self.tables.head.function.load(Ordering::Relaxed)
    }

    /// Nanoseconds that one item may take; 0 for no limit.
    pub fn timeout(&self) -> u64 {
        self.tables.head.timeout.load(Ordering::Relaxed)
    }

    /// The number of the running item in its job.
    pub fn number(&self) -> u64 {
        let running = self.running.load(Ordering::Relaxed);
        self.tables.head.base.load(Ordering::Relaxed) + running.saturating_sub(1)
    }

    /// The whole chunk at once, if its inputs are numbers and neither single items can be cancelled
    /// nor a time limit is set.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn raw(&self) -> Result<Option<RawInputs>> {
        let head = self.tables.head;
        let flags = head.flags.load(Ordering::Relaxed);
        if flags & RAW_INPUTS == 0 || flags & CANCELLABLE != 0 || self.timeout() != 0 || self.is_cancelled() {
            return Ok(None);
        }
        let stride = head.stride.load(Ordering::Relaxed) as usize;
        let count = self.end - self.next;
        let value_at = u64::from(head.value_at.load(Ordering::Relaxed)) + 8 * self.next as u64;
        let input_at = u64::from(head.input_at.load(Ordering::Relaxed)) + (stride * self.next) as u64;
        self.block.address(self.heap, input_at, (stride * count) as u64)?;
        if stride == 0 {
            return Err(HeapError::corrupt("stride of a batch", self.block.offset()));
        }
        Ok(Some(RawInputs {
            status: &self.tables.status[self.next..self.end],
            values: self.block.slice(self.heap, value_at, count)?,
            running: self.running.get(),
            address: self.block.offset() + input_at,
            heap: self.heap,
            stride,
            first: self.next,
        }))
    }

    fn is_cancelled(&self) -> bool {
        self.tables.head.cancelled.load(Ordering::Relaxed) != 0
    }

    fn cancellable(&self) -> bool {
        self.tables.head.flags.load(Ordering::Relaxed) & CANCELLABLE != 0
    }

    /// Begins the next item of the chunk; `None` when none is left.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn begin(&mut self) -> Result<Option<TaskInput>> {
        while self.next < self.end {
            let item = self.next;
            let status = &self.tables.status[item];
            if self.is_cancelled() {
                let _ = status.compare_exchange(PENDING, CANCELLED, Ordering::AcqRel, Ordering::Relaxed);
            }
            self.running.store(item as u64 + 1, Ordering::Relaxed);
            let begun = if self.cancellable() {
                status.compare_exchange(PENDING, RUNNING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            } else {
                status.load(Ordering::Relaxed) == PENDING
            };
            self.next += 1;
            if begun {
                reach(KillPoint::BoardItemStarted);
                return self.input(item).map(Some);
            }
        }
        self.running.store(0, Ordering::Relaxed);
        Ok(None)
    }

    fn input(&self, item: usize) -> Result<TaskInput> {
        let head = self.tables.head;
        let stride = head.stride.load(Ordering::Relaxed);
        let (at, len) = if stride > 0 {
            (u64::from(head.input_at.load(Ordering::Relaxed)) + u64::from(stride) * item as u64, stride)
        } else {
            input_entry(self.heap, self.block, head, item)?
        };
        if len == BOXED {
            let cell = self.block.word(self.heap, at)?;
            let id = BlockId::from_bits(cell.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
            let (bytes, handles) = message::read_in_place(self.heap, id)?;
            return Ok(TaskInput::Boxed(bytes, handles));
        }
        if u64::from(len) > self.block.len() {
            return Err(HeapError::corrupt("input of a task", self.block.offset()));
        }
        let mut bytes = vec![0; len as usize];
        self.block.read(self.heap, at, &mut bytes)?;
        Ok(TaskInput::Inline(bytes))
    }

    fn item(&self) -> Option<usize> {
        (self.running.load(Ordering::Relaxed) as usize).checked_sub(1).filter(|i| *i < self.tables.status.len())
    }

    /// Commits the running item's result.
    ///
    /// # Errors
    /// If the heap has no room for it: the item is still running then.
    pub fn commit(&mut self, result: Outgoing<'_>) -> Result<()> {
        let Some(item) = self.item() else { return Ok(()) };
        let value = self.tables.value(self.heap, item)?;
        let len = result.len();
        if len <= SHORT && result.handles.is_empty() {
            let mut word = [0; SHORT];
            let mut at = 0;
            for part in result.parts {
                word[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            value.store(u64::from_le_bytes(word), Ordering::Relaxed);
            reach(KillPoint::BoardResultWritten);
            self.advance(item, DONE + len as u8);
        } else {
            self.write_block(item, value, result, DONE_BLOCK)?;
        }
        self.end_item();
        Ok(())
    }

    /// Commits that the running item failed, with the face's message.
    ///
    /// # Errors
    /// If the heap has no room for the message.
    pub fn commit_failure(&mut self, message: &[u8]) -> Result<()> {
        let Some(item) = self.item() else { return Ok(()) };
        let value = self.tables.value(self.heap, item)?;
        self.write_block(item, value, Outgoing { parts: &[message], handles: &[] }, FAILED)?;
        self.end_item();
        Ok(())
    }

    fn write_block(&self, item: usize, value: Word, bytes: Outgoing<'_>, status: u8) -> Result<()> {
        if self.tables.status[item].load(Ordering::Relaxed) != HALF {
            value.store(0, Ordering::Relaxed);
            self.advance(item, HALF);
        }
        message::write(self.heap, self.seat, bytes, value)?;
        reach(KillPoint::BoardResultWritten);
        self.tables.status[item].store(status, Ordering::Release);
        Ok(())
    }

    /// Moves the running item on, unless it is being cancelled.
    fn advance(&self, item: usize, to: u8) {
        let status = &self.tables.status[item];
        if !self.cancellable() {
            status.store(to, Ordering::Release);
        } else if status.compare_exchange(RUNNING, to, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Somebody is cancelling this task and about to kill this process. Whatever it would
            // do next could be another task's.
            loop {
                std::thread::park_timeout(std::time::Duration::from_secs(1));
            }
        }
    }

    fn end_item(&self) {
        self.running.store(0, Ordering::Relaxed);
        reach(KillPoint::BoardResultCommitted);
    }

    /// Notes in this process's slot when the running item's time is up.
    pub fn note_deadline(&self, at: u64) {
        participant::slot(self.seat.slot(), self.heap).words[DEADLINE_WORD].store(at, Ordering::Release);
    }

    /// Whether all items of the chunk are final.
    pub fn is_over(&self) -> bool {
        self.tables.range(self.chunk).all(|item| self.tables.status[item].load(Ordering::Acquire) > HALF)
    }

    /// Gives the rest of the chunk back, for another worker.
    pub fn give_back(self) {
        self.running.store(0, Ordering::Relaxed);
        self.tables.chunks[self.chunk].store(CHUNK_FREE, Ordering::Release);
        self.tables.head.rescan.store(1, Ordering::SeqCst);
    }

    /// Ends the chunk. Returns the bell to ring, if somebody may wait for just this.
    pub(super) fn finished(&self) -> Result<Option<usize>> {
        let head = self.tables.head;
        self.running.store(0, Ordering::Relaxed);
        self.tables.chunks[self.chunk].store(CHUNK_DONE, Ordering::Release);
        let finished = head.finished.fetch_add(1, Ordering::SeqCst) + 1;
        reach(KillPoint::BoardBatchDone);
        let each = head.flags.load(Ordering::Relaxed) & TELL_EACH != 0;
        let all = finished as usize >= self.tables.chunks.len();
        Ok((each || all).then(|| head.bell.load(Ordering::SeqCst) as usize))
    }
}

/// Frees what a batch names.
pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let tables = Tables::of(heap, block)?;
    object::release(heap, seat, tables.head.field(|h| &h.next))?;
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
