//! A batch in the making: the inputs as the submitter collects them, and how they are laid out.
//!
//! ```text
//!  push, push, … ─▶ BatchPlan (private memory) ─▶ Batch::create ─▶ head, tables, inputs in one block
//!                                                      └─ long inputs: a block each, named in the batch
//! ```
//!
//! *Killed here:* a long input is named by an entry of the submitter's ledger before it is by the batch, like a message
//! that has arrived. Until the batch is whole it counts as mere bytes in a cell of the dead process; then
//! it is an object that the process holds. The sweep frees either, with the blocks of its inputs.

use core::sync::atomic::Ordering;

use super::batch::{BOXED, CANCELLABLE, Head, RAW_INPUTS, TELL_EACH, input_entry};
use super::submitted::Batch;
use crate::error::Result;
use crate::heap::{At, Heap, WINDOW};
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing, Payload};
use crate::object::{Handle, ObjectKind};
use crate::participant::seat;

/// What a batch is to contain; filled item by item, then written to the heap in one go.
#[derive(Debug, Default)]
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
    /// How many items count as one task against what a worker may do; 0 counts as 1.
    pub unit: u32,
    /// What all items of the job have in common.
    pub preamble: Preamble,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    boxed: Vec<(u32, Payload)>,
    boxed_bytes: usize,
}

/// What all items of a job have in common; a worker reads it once.
#[derive(Debug, Clone, Default)]
pub enum Preamble {
    /// Nothing.
    #[default]
    Nothing,
    /// These bytes, and the handles inside them.
    Message(Vec<u8>, Vec<Handle>),
    /// That of another batch of the job.
    Of(Batch),
}

impl Preamble {
    /// Puts it into a batch's cell.
    fn write(&self, heap: Heap, batch: &Batch) -> Result<()> {
        let cell = batch.tables().head.field(|h| &h.preamble);
        match self {
            Preamble::Nothing => {}
            Preamble::Message(bytes, handles) => {
                message::write(heap, seat(heap)?, Outgoing { parts: &[bytes], handles }, cell)?;
            }
            Preamble::Of(other) => other.handle().refer_from(cell)?,
        }
        Ok(())
    }
}

/// Where the tables of a batch are.
pub(super) struct Layout {
    pub(super) items: usize,
    pub(super) chunk_len: usize,
    chunks: usize,
    status_at: usize,
    attempts_at: usize,
    value_at: usize,
    pub(super) table_at: usize,
    pub(super) bytes_at: usize,
}

impl Layout {
    pub(super) fn of(items: usize, chunk_len: usize, plan: &BatchPlan) -> Layout {
        let chunks = items.div_ceil(chunk_len);
        let status_at = size_of::<Head>() + 4 * chunks;
        let attempts_at = status_at + items;
        let tables_end = attempts_at + if plan.retries > 0 { items } else { 0 };
        let value_at = tables_end.next_multiple_of(8);
        let table_at = value_at + 8 * items;
        let bytes_at = if plan.stride > 0 { table_at } else { table_at + 8 * items };
        Layout { items, chunk_len, chunks, status_at, attempts_at, value_at, table_at, bytes_at }
    }

    /// Bytes that a batch's block must have zeroed before [`Layout::fill_head`].
    fn zeroed(&self) -> usize {
        self.value_at
    }

    pub(super) fn fill_head(&self, head: At<Head>, board: &Handle, plan: &BatchPlan, published: usize) {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags =
            flag(plan.cancellable, CANCELLABLE) | flag(plan.tell_each, TELL_EACH) | flag(plan.stride > 0, RAW_INPUTS);
        let words = [
            (&head.flags, flags),
            (&head.bell, plan.bell),
            (&head.items, self.items as u32),
            (&head.published, published as u32),
            (&head.unit, plan.unit),
            (&head.chunk_len, self.chunk_len as u32),
            (&head.chunks, self.chunks as u32),
            (&head.retries, u32::from(plan.retries)),
            (&head.chunk_at, size_of::<Head>() as u32),
            (&head.status_at, self.status_at as u32),
            (&head.value_at, self.value_at as u32),
            (&head.attempts_at, self.attempts_at as u32),
            (&head.input_at, self.table_at as u32),
            (&head.stride, plan.stride),
            (&head.boxed, u32::from(!plan.boxed.is_empty())),
        ];
        for (word, value) in words {
            word.store(value, Ordering::Relaxed);
        }
        head.function.store(plan.function, Ordering::Relaxed);
        head.timeout.store(plan.timeout, Ordering::Relaxed);
        head.base.store(plan.base, Ordering::Relaxed);
        head.board.store(board.id().bits(), Ordering::Relaxed);
    }
}

/// Inputs longer than this, or with handles, get a block of their own.
pub(super) const INPUT_INLINE: usize = 4096;
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

    /// Items that a worker takes at a time, in a batch of so many.
    pub(super) fn chunk_len_for(&self, items: usize) -> usize {
        match self.chunk_len {
            0 => items.div_ceil(1 << 12).max(1),
            given => given as usize,
        }
    }

    /// Adds an item. A long one, or one with handles, is written to the heap at once.
    ///
    /// # Errors
    /// If the heap has no room for a long one.
    #[inline]
    pub fn push(&mut self, heap: Heap, input: Outgoing<'_>) -> Result<()> {
        debug_assert_eq!(self.stride, 0);
        let len = input.len();
        if len > INPUT_INLINE || !input.handles.is_empty() {
            self.boxed.push((self.ends.len() as u32, Payload::write(heap, input)?));
            self.boxed_bytes += len;
            let aligned = self.bytes.len().next_multiple_of(8) + 8;
            self.bytes.resize(aligned, 0);
        } else {
            for part in input.parts {
                self.bytes.extend_from_slice(part);
            }
        }
        self.ends.push(self.bytes.len() as u32);
        Ok(())
    }

    /// Adds an item of up to 8 bytes, the lower ones of a word.
    #[inline]
    pub fn push_short(&mut self, word: u64, len: usize) {
        debug_assert_eq!(self.stride, 0);
        self.bytes.extend_from_slice(&word.to_le_bytes()[..len]);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Bytes of the inputs so far, those in blocks of their own included.
    pub fn input_bytes(&self) -> usize {
        self.bytes.len() + self.boxed_bytes
    }

    /// Bytes of shared memory that the batch will take, with its long inputs.
    pub fn bytes(&self) -> usize {
        let items = self.items();
        Layout::of(items, self.chunk_len_for(items), self).bytes_at + self.input_bytes()
    }

    /// Forgets the items, keeps the rest.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.boxed.clear();
        self.boxed_bytes = 0;
    }
}

impl Batch {
    /// Writes a planned batch to the heap. Long inputs move there from the plan.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, board: &Handle, plan: &BatchPlan) -> Result<Batch> {
        let items = plan.items();
        let layout = Layout::of(items, plan.chunk_len_for(items), plan);
        let (table_at, bytes_at) = (layout.table_at, layout.bytes_at);
        let total = (bytes_at + plan.bytes.len()) as u64;
        let handle = Handle::create_with(heap, ObjectKind::Batch, total, layout.zeroed() as u64, |block| {
            layout.fill_head(block.view::<Head>(heap, 0)?, board, plan, items);
            block.write(heap, bytes_at as u64, &plan.bytes)?;
            if plan.stride == 0 {
                let mut from = 0;
                for (index, end) in plan.ends.iter().enumerate() {
                    let entry = (bytes_at as u64 + u64::from(from)) << 32 | u64::from(end - from);
                    block.word(heap, (table_at + 8 * index) as u64)?.store(entry, Ordering::Relaxed);
                    from = *end;
                }
                for (index, _) in &plan.boxed {
                    let end = plan.ends[*index as usize];
                    let entry = (bytes_at as u64 + u64::from(end) - 8) << 32 | u64::from(BOXED);
                    block.word(heap, table_at as u64 + 8 * u64::from(*index))?.store(entry, Ordering::Relaxed);
                }
            }
            Ok(())
        })?;
        let batch = Batch::with_preamble(handle, plan)?;
        batch.tables().head.owns.store(u32::from(!plan.boxed.is_empty()), Ordering::Relaxed);
        for (index, input) in &plan.boxed {
            let (at, _) = input_entry(heap, batch.block(), batch.tables().head, *index as usize)?;
            input.move_to(heap, batch.block().word(heap, at)?)?;
        }
        reach(KillPoint::BoardBatchBuilt);
        Ok(batch)
    }

    /// A batch with what is in the handle's block.
    pub(super) fn with_preamble(handle: Handle, plan: &BatchPlan) -> Result<Batch> {
        let heap = handle.heap();
        let batch = Batch::from_handle(handle)?;
        plan.preamble.write(heap, &batch)?;
        Ok(batch)
    }
}

/// A batch without items, which has room for `items` items whose inputs (the short ones, if they are not
/// numbers) take `bytes` bytes; all else is as the plan says.
pub(super) fn create_empty(
    heap: Heap,
    board: &Handle,
    plan: &BatchPlan,
    layout: &Layout,
    bytes: usize,
) -> Result<Handle> {
    let total = (layout.bytes_at + bytes) as u64;
    // Numbers lie side by side; of other inputs there is a table, whose entries may not be leftovers.
    let zeroed = if plan.stride > 0 { layout.zeroed() } else { layout.bytes_at };
    Handle::create_with(heap, ObjectKind::Batch, total, zeroed as u64, |block| {
        layout.fill_head(block.view::<Head>(heap, 0)?, board, plan, 0);
        Ok(())
    })
}
