//! A batch of numbers, whose inputs are written where the workers will read them.
//!
//! ```text
//!  RawBatch::create ─▶ block with room for n ── push, push … ─▶ finish: as many items as came ─▶ Batch
//! ```
//!
//! *Killed here:* nobody else knows of the batch; the sweep of its maker frees it.

use core::sync::atomic::Ordering;

use super::batch::Head;
use super::plan::{BatchPlan, Layout, create_empty};
use super::submitted::Batch;
use crate::error::{HeapError, Result};
use crate::heap::Heap;
use crate::object::Handle;

/// A batch of numbers in the making.
#[derive(Debug)]
pub struct RawBatch {
    handle: Handle,
    heap: Heap,
    /// Where the next input goes, and where the room for inputs begins and ends.
    at: u64,
    start: u64,
    end: u64,
    stride: u64,
    chunk_len: usize,
}

impl RawBatch {
    /// A batch for up to `room` numbers of [`BatchPlan::stride`] bytes; all else is as the plan says, which
    /// has no items of its own.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, board: &Handle, plan: &BatchPlan, room: usize) -> Result<RawBatch> {
        let layout = Layout::of(room, plan.chunk_len_for(room), plan);
        let bytes = room * plan.stride as usize;
        let handle = create_empty(heap, board, plan, &layout, bytes)?;
        let (start, stride) = (layout.table_at as u64, u64::from(plan.stride).max(1));
        Ok(RawBatch { handle, heap, at: start, start, end: start + bytes as u64, stride, chunk_len: layout.chunk_len })
    }

    /// Adds numbers, side by side.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn push(&mut self, numbers: &[u8]) -> Result<()> {
        let after = self.at + numbers.len() as u64;
        if after > self.end {
            return Err(HeapError::TooLarge { bytes: after - self.start, limit: self.end - self.start });
        }
        self.handle.block().write(self.heap, self.at, numbers)?;
        self.at = after;
        Ok(())
    }

    /// The batch, with as many items as were added; `None` if there were none. The plan is the same one.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn finish(self, plan: &BatchPlan) -> Result<Option<Batch>> {
        let items = ((self.at - self.start) / self.stride) as u32;
        if items == 0 {
            return Ok(None);
        }
        let head = self.handle.view::<Head>()?;
        head.items.store(items, Ordering::Relaxed);
        head.chunks.store(items.div_ceil(self.chunk_len as u32), Ordering::Relaxed);
        head.published.store(items, Ordering::SeqCst);
        Batch::with_preamble(self.handle, plan).map(Some)
    }
}
