//! A chunk of a batch in the hands of a worker: claim it, run its items one by one, commit each.
//!
//! ```text
//!  chunk: free ── CAS ──▶ identity of the worker ── all items final ──▶ done
//!  item:  running word of the slot = number ─▶ the function ─▶ value ─▶ status (commits)
//! ```
//!
//! *Killed here:* the chunk still names the worker, and the worker's slot the item: [`super::settle`].

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::batch::{
    BOXED, CANCELLABLE, CANCELLED, CHUNK_DONE, CHUNK_FREE, DONE, DONE_BLOCK, DONE_WORD, FAILED, HALF, Head, LARGE,
    PENDING, RAW_INPUTS, RUNNING, SHORT, TELL_EACH, Tables, entry,
};
use super::{DEADLINE_WORD, RUNNING_WORD};
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Word};
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing, Payload};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Seat};

/// A chunk of a batch that this process works on.
#[derive(Debug)]
pub struct Chunk {
    heap: Heap,
    seat: Seat,
    block: Block,
    tables: Tables,
    /// Where the inputs are, if they are no numbers.
    entries: &'static [AtomicU64],
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
    /// To begin an item commits all before it, by one store that says so ([`Running`]). Their statuses are
    /// written at the end, or by the sweep: another store an item would take as long as all the rest.
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
        let mut finished = Finished { status: self.status, done: DONE + result_len as u8, from: 0, to: 0 };
        let mut running = Running::raw(self.first, result_len);
        let items = inputs.chunks_exact(self.stride).zip(self.values).zip(self.status);
        for (item, ((input, value), status)) in items.enumerate() {
            if status.load(Ordering::Relaxed) == PENDING {
                self.running.store(running.0, Ordering::Release);
                reach(KillPoint::BoardItemStarted);
                value.store(f(input), Ordering::Relaxed);
                reach(KillPoint::BoardResultWritten);
                finished.to = item + 1;
            } else {
                finished.commit();
                finished.from = item + 1;
            }
            running.0 += 1;
        }
        Ok(())
    }
}

/// Items of a chunk that have results and no status. They get one when this is dropped, which a panic does, too.
struct Finished {
    status: &'static [AtomicU8],
    done: u8,
    from: usize,
    to: usize,
}

impl Finished {
    fn commit(&mut self) {
        for status in self.status.get(self.from..self.to).unwrap_or_default() {
            status.store(self.done, Ordering::Release);
            reach(KillPoint::BoardResultCommitted);
        }
        self.from = self.to;
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        self.commit();
    }
}

/// What a worker's slot says of the item that it runs: `raw 1 bit | length of results 31 bits | number + 1 32 bits`,
/// or 0. Of a raw chunk, the items before this one have results of that length, whatever their status says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running(u64);

impl Running {
    const RAW: u64 = 1 << 63;

    fn raw(item: usize, result_len: usize) -> Running {
        Running(Running::RAW | (result_len as u64) << 32 | (item as u64 + 1))
    }

    pub(super) fn from_bits(bits: u64) -> Running {
        Running(bits)
    }

    /// Which item that is, if any.
    pub(super) fn item(self) -> Option<usize> {
        (self.0 as u32 as usize).checked_sub(1)
    }

    /// The status of the items before it in its chunk that look as if nobody had run them.
    pub(super) fn status_before(self) -> u8 {
        let done = u8::try_from(self.0 >> 32 & 0xff).map_or(PENDING, |len| DONE + len.min(SHORT as u8));
        if self.0 & Running::RAW != 0 { done } else { PENDING }
    }
}

impl Chunk {
    /// Takes a chunk of the batch for the calling process.
    pub(super) fn claim(heap: Heap, seat: Seat, block: Block) -> Result<Option<Chunk>> {
        let tables = Tables::of(heap, block)?;
        let me = seat.identity().bits();
        let head = tables.head;
        let entries = if head.stride.load(Ordering::Relaxed) == 0 { tables.status.len() } else { 0 };
        let entries = block.slice(heap, u64::from(head.input_at.load(Ordering::Relaxed)), entries)?;
        loop {
            let published = tables.published();
            let step = |cursor: u32| ((cursor as usize) < published).then_some(cursor + 1);
            let index = match head.cursor.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step) {
                Ok(index) => index as usize,
                Err(_) => {
                    if head.rescan.swap(0, Ordering::SeqCst) == 0 {
                        return Ok(None);
                    }
                    let mut chunks = tables.chunks[..published].iter();
                    let Some(found) = chunks.position(|c| c.load(Ordering::Acquire) == CHUNK_FREE) else {
                        return Ok(None);
                    };
                    // There may be more than this one.
                    head.rescan.store(1, Ordering::SeqCst);
                    found
                }
            };
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
                entries,
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

    /// The heap.
    pub fn heap(&self) -> Heap {
        self.heap
    }

    /// Nanoseconds that one item may take; 0 for no limit.
    pub fn timeout(&self) -> u64 {
        self.tables.head.timeout.load(Ordering::Relaxed)
    }

    /// How many items count as one task against what a worker may do.
    pub fn unit(&self) -> u32 {
        self.tables.head.unit.load(Ordering::Relaxed).max(1)
    }

    /// What all items of the job have in common, as the id of a message that is there as long as the
    /// chunk, and that is the same for all batches of the job.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn preamble(&self) -> Result<Option<BlockId>> {
        let named = |head: At<Head>| BlockId::from_bits(head.preamble.load(Ordering::Acquire));
        let Some(id) = named(self.tables.head) else { return Ok(None) };
        let block = self.heap.block(id)?;
        if block.kind == ObjectKind::Batch as u8 { Ok(named(block.view::<Head>(self.heap, 0)?)) } else { Ok(Some(id)) }
    }

    /// The bytes of the preamble, and the handles inside them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_preamble(&self, id: BlockId) -> Result<(Vec<u8>, Vec<Handle>)> {
        message::read_in_place(self.heap, id)
    }

    /// The number of the running item in its job.
    pub fn number(&self) -> u64 {
        let running = Running::from_bits(self.running.load(Ordering::Relaxed)).item();
        self.tables.head.base.load(Ordering::Relaxed) + running.unwrap_or(0) as u64
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
        match self.begin_item() {
            Some(item) => self.input(item).map(Some),
            None => Ok(None),
        }
    }

    /// As [`Chunk::begin`]; the input is to be had by [`Chunk::with_input`].
    pub fn begin_item(&mut self) -> Option<usize> {
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
                return Some(item);
            }
        }
        self.running.store(0, Ordering::Relaxed);
        None
    }

    /// Calls `short` with the input of an item where it lies, or `long` with one that has a block of its own.
    ///
    /// # Errors
    /// If the heap is corrupt.
    #[inline]
    pub fn with_input<R>(
        &self,
        item: usize,
        short: impl FnOnce(&[u8]) -> R,
        long: impl FnOnce(Payload) -> R,
    ) -> Result<R> {
        let (at, len) = self.input_place(item)?;
        if len == BOXED {
            return self.boxed_payload(at).map(long);
        }
        let address = self.block.address(self.heap, at, u64::from(len))?;
        // SAFETY: in bounds of a window that is never unmapped. An input is written before its item is
        // published and never changed; the worker's cell holds the batch.
        Ok(short(unsafe { core::slice::from_raw_parts(address.as_ptr(), len as usize) }))
    }

    /// An input that has a block of its own. The batch goes on holding a large one if the item may be tried again.
    fn boxed_payload(&self, at: u64) -> Result<Payload> {
        let cell = self.block.word(self.heap, at)?;
        let id = BlockId::from_bits(cell.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
        let block = self.heap.block(id)?;
        if block.len() < LARGE {
            let (bytes, handles) = message::read_in_place(self.heap, id)?;
            return Ok(Payload::owned(self.heap, bytes, handles));
        }
        if self.tables.attempts.is_empty() {
            return Payload::take(self.heap, id, cell);
        }
        Payload::shared(message::share(self.heap, block)?)
    }

    /// Where an item's input is, and how long.
    #[inline]
    fn input_place(&self, item: usize) -> Result<(u64, u32)> {
        if let Some(word) = self.entries.get(item) {
            return Ok(entry(word.load(Ordering::Relaxed)));
        }
        let head = self.tables.head;
        let stride = head.stride.load(Ordering::Relaxed);
        Ok((u64::from(head.input_at.load(Ordering::Relaxed)) + u64::from(stride) * item as u64, stride))
    }

    fn boxed_input(&self, at: u64) -> Result<(Vec<u8>, Vec<Handle>)> {
        let cell = self.block.word(self.heap, at)?;
        let id = BlockId::from_bits(cell.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
        message::read_in_place(self.heap, id)
    }

    fn input(&self, item: usize) -> Result<TaskInput> {
        let (at, len) = self.input_place(item)?;
        if len == BOXED {
            let (bytes, handles) = self.boxed_input(at)?;
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
        Running::from_bits(self.running.load(Ordering::Relaxed)).item().filter(|i| *i < self.tables.status.len())
    }

    /// Commits the running item's result.
    ///
    /// # Errors
    /// If the heap has no room for it: the item is still running then.
    pub fn commit(&mut self, result: Outgoing<'_>) -> Result<()> {
        let len = result.len();
        if len <= SHORT && result.handles.is_empty() {
            let mut word = [0; SHORT];
            let mut at = 0;
            for part in result.parts {
                word[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            return self.commit_short(u64::from_le_bytes(word), len);
        }
        let Some(item) = self.item() else { return Ok(()) };
        let value = self.tables.value(self.heap, item)?;
        self.write_block(item, value, result, DONE_BLOCK)?;
        self.end_item(item)
    }

    /// Commits the running item's result of up to 8 bytes, the lower ones of a word.
    ///
    /// # Errors
    /// If the heap is corrupt.
    #[inline]
    pub fn commit_short(&mut self, word: u64, len: usize) -> Result<()> {
        self.commit_value(word, DONE + len.min(SHORT) as u8)
    }

    #[inline]
    fn commit_value(&mut self, word: u64, status: u8) -> Result<()> {
        let Some(item) = self.item() else { return Ok(()) };
        self.tables.values[item].store(word, Ordering::Relaxed);
        reach(KillPoint::BoardResultWritten);
        self.advance(item, status);
        self.end_item(item)
    }

    /// Commits the running item's result, a word that means something to the face only.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn commit_word(&mut self, word: u64) -> Result<()> {
        self.commit_value(word, DONE_WORD)
    }

    /// Commits that the running item failed, with the face's message.
    ///
    /// # Errors
    /// If the heap has no room for the message.
    pub fn commit_failure(&mut self, message: Outgoing<'_>) -> Result<()> {
        let Some(item) = self.item() else { return Ok(()) };
        let value = self.tables.value(self.heap, item)?;
        self.write_block(item, value, message, FAILED)?;
        self.end_item(item)
    }

    fn write_block(&self, item: usize, value: Word, bytes: Outgoing<'_>, status: u8) -> Result<()> {
        if self.tables.status[item].load(Ordering::Relaxed) != HALF {
            value.store(0, Ordering::Relaxed);
            self.tables.head.owns.store(1, Ordering::Relaxed);
            self.advance(item, HALF);
        }
        message::write(self.heap, self.seat, bytes, value)?;
        reach(KillPoint::BoardResultWritten);
        let bytes = bytes.len() as u64;
        self.tables.head.result_bytes.fetch_add(bytes, Ordering::Relaxed);
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

    /// The item is final; an input with a block of its own is of no use any more.
    #[inline]
    fn end_item(&self, item: usize) -> Result<()> {
        self.running.store(0, Ordering::Relaxed);
        reach(KillPoint::BoardResultCommitted);
        if self.tables.head.boxed.load(Ordering::Relaxed) != 0
            && let (at, BOXED) = self.input_place(item)?
        {
            object::release(self.heap, self.seat, self.block.word(self.heap, at)?)?;
        }
        Ok(())
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

    /// Ends the chunk. Returns the bell to ring if somebody may wait for just this, and whether the
    /// watcher does.
    pub(super) fn finished(&self) -> Option<(usize, bool)> {
        let head = self.tables.head;
        self.running.store(0, Ordering::Relaxed);
        self.tables.chunks[self.chunk].store(CHUNK_DONE, Ordering::Release);
        let finished = head.finished.fetch_add(1, Ordering::SeqCst) + 1;
        reach(KillPoint::BoardBatchDone);
        let each = head.flags.load(Ordering::Relaxed) & TELL_EACH != 0;
        let all = finished as usize >= self.tables.chunks.len();
        (each || all).then(|| (head.bell.load(Ordering::SeqCst) as usize, head.watched.load(Ordering::SeqCst) != 0))
    }
}
