//! An open batch: workers run its items while its submitter still adds some.
//!
//! ```text
//!  item:  0 1 2 3 4 5 6 7 8 9 …                    the cursor follows `published`, one item a chunk
//!         ■ ■ ■ ■ □ □ · · · ·                      ■ claimed   □ published   · room
//!                 ▲   └ published
//!                 └ cursor
//! ```
//!
//! So a task costs its submitter no more than its input, and one that is there waits for none that is not.
//! A batch of which all is claimed leaves the board; whoever adds an item puts it back.
//!
//! *Killed here:* one store publishes an item. A submitter that dies before it has told the workers takes
//! the board with it; a worker that dies before it has looked again names the batch in its slot, and
//! [`super::settle`] puts it back.

use core::sync::atomic::Ordering;

use super::batch::{BOXED, Head};
use super::plan::{BatchPlan, INPUT_INLINE, Layout, create_empty};
use super::submitted::Batch;
use crate::error::Result;
use crate::heap::Heap;
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing};
use crate::object::Handle;
use crate::participant::seat;

/// The submitter's hold on a batch that it adds items to. There is one for a batch.
#[derive(Debug)]
pub struct OpenBatch {
    batch: Batch,
    heap: Heap,
    items: usize,
    room: usize,
    table_at: u64,
    /// Where the next short input goes, and where the room for them ends.
    at: usize,
    end: usize,
}

impl OpenBatch {
    /// A batch without items, which has room for `items` with `bytes` bytes of short inputs.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, board: &Handle, plan: &BatchPlan, items: usize, bytes: usize) -> Result<OpenBatch> {
        let layout = Layout::of(items, 1, plan);
        let batch = Batch::with_preamble(create_empty(heap, board, plan, &layout, bytes)?, plan)?;
        let at = layout.bytes_at;
        Ok(OpenBatch { batch, heap, items: 0, room: items, table_at: layout.table_at as u64, at, end: at + bytes })
    }

    /// The batch.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Bytes of results that have blocks of their own, so far: a result lives as long as anybody waits for one of the
    /// batch.
    pub fn result_bytes(&self) -> u64 {
        self.batch.tables().head.result_bytes.load(Ordering::Relaxed)
    }

    /// Items so far.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Adds an item and returns its number in the batch; `None` if there is no room for it here.
    /// To be followed by [`super::Board::announce`].
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn push(&mut self, input: Outgoing<'_>) -> Result<Option<usize>> {
        let len = input.len();
        let boxed = len > INPUT_INLINE || !input.handles.is_empty();
        let (at, after) = if boxed {
            let at = self.at.next_multiple_of(8);
            (at, at + 8)
        } else {
            (self.at, self.at + len)
        };
        if self.items == self.room || after > self.end {
            return Ok(None);
        }
        let block = self.batch.block();
        let entry = block.word(self.heap, self.table_at + 8 * self.items as u64)?;
        if boxed {
            let cell = block.word(self.heap, at as u64)?;
            cell.store(0, Ordering::Relaxed);
            self.batch.tables().head.owns.store(1, Ordering::Relaxed);
            entry.store((at as u64) << 32 | u64::from(BOXED), Ordering::Relaxed);
            message::write(self.heap, seat(self.heap)?, input, cell)?;
            block.view::<Head>(self.heap, 0)?.boxed.store(1, Ordering::Relaxed);
        } else {
            let mut to = at as u64;
            for part in input.parts {
                block.write(self.heap, to, part)?;
                to += part.len() as u64;
            }
            entry.store((at as u64) << 32 | len as u64, Ordering::Relaxed);
        }
        let item = self.items;
        self.at = after;
        self.items += 1;
        let head = block.view::<Head>(self.heap, 0)?;
        head.published.store(self.items as u32, Ordering::SeqCst);
        reach(KillPoint::BoardItemPublished);
        Ok(Some(item))
    }
}
