//! A batch as its submitter sees it: what has become of the tasks, and how to cancel them.
//!
//! *Killed here:* a result that is being taken out stays in the batch until it is released there; a
//! task that was marked for cancelling is settled when its worker dies.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use tenfold_sys::process::{ExitStatus, Pid};

use super::batch::{
    CANCELLED, CANCELLING, DIED, DONE, DONE_BLOCK, DONE_WORD, FAILED, HALF, LARGE, PENDING, RUNNING, SHORT, TIMED_OUT,
    Tables,
};
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{BlockId, Word};
use crate::message::{self, Payload};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{Identity, seat};

/// Tasks of one function, in the heap. Cloning is local to the process and cheap; a clone is one word, since
/// there may be a million results that are waited for.
#[derive(Debug, Clone)]
pub struct Batch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
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
    /// Its result, which is large and still where the worker has written it.
    Large(Payload),
    /// Its result, a word of the face's own.
    Word(u64),
    /// The function panicked, or its result could not be sent: the face's own message, and the handles
    /// inside it.
    Failed(Vec<u8>, Vec<Handle>),
    /// Its worker died.
    Died {
        /// How, if anybody saw it.
        status: Option<ExitStatus>,
        /// Its process id.
        pid: Pid,
    },
    /// It took too long and its worker was killed.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

impl Batch {
    /// The batch behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Batch> {
        let handle = handle.expect(ObjectKind::Batch)?;
        let tables = Tables::of(handle.heap(), handle.block())?;
        Ok(Batch(Arc::new(Inner { handle, tables })))
    }

    /// The handle.
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    pub(super) fn block(&self) -> Block {
        self.0.handle.block()
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.0.tables
    }

    /// How many items it has.
    pub fn items(&self) -> usize {
        self.0.tables.status.len()
    }

    /// The number of its first item in its job.
    pub fn base(&self) -> u64 {
        self.0.tables.head.base.load(Ordering::Relaxed)
    }

    /// Which bell rings for it.
    pub fn bell(&self) -> usize {
        self.0.tables.head.bell.load(Ordering::Relaxed) as usize
    }

    /// Has the watcher's bell ring for it as well from now on. Look whether it is finished after this.
    pub fn watch(&self) {
        self.0.tables.head.watched.store(1, Ordering::SeqCst);
    }

    /// How many of its first items have been claimed by workers, and perhaps given back since.
    pub fn claimed(&self) -> usize {
        let head = self.0.tables.head;
        let cursor = head.cursor.load(Ordering::Relaxed) as usize;
        cursor.saturating_mul(head.chunk_len.load(Ordering::Relaxed) as usize).min(self.items())
    }

    /// Whether item `item` has its final status.
    #[inline]
    pub fn is_final(&self, item: usize) -> bool {
        self.0.tables.status.get(item).is_none_or(|s| s.load(Ordering::Acquire) > HALF)
    }

    /// Whether all items have.
    pub fn is_finished(&self) -> bool {
        self.0.tables.head.finished.load(Ordering::SeqCst) as usize >= self.0.tables.chunks.len()
            || self.0.tables.status.iter().all(|s| s.load(Ordering::Acquire) > HALF)
    }

    /// Calls `f` with all results as words side by side, where they lie, if each is a short result of `len`
    /// bytes; `None` if they are not.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn with_short<R>(&self, len: usize, f: impl FnOnce(&[u64]) -> R) -> Result<Option<R>> {
        let (tables, done) = (&self.0.tables, DONE + len as u8);
        if (tables.head.finished.load(Ordering::SeqCst) as usize) < tables.chunks.len() {
            return Ok(None);
        }
        // SAFETY: never unmapped; all items are final, after which no process that keeps the rules writes to
        // their statuses.
        let status = unsafe { core::slice::from_raw_parts(tables.status.as_ptr().cast::<u8>(), tables.status.len()) };
        // All of them, whatever comes: that takes less time than to look for the first one.
        if status.iter().fold(0, |other, status| other | (status ^ done)) != 0 {
            return Ok(None);
        }
        let values = tables.values;
        // SAFETY: in bounds, aligned, and never unmapped; all items are final, after which no process that
        // keeps the rules writes to their values.
        Ok(Some(f(unsafe { core::slice::from_raw_parts(values.as_ptr().cast::<u64>(), values.len()) })))
    }

    /// The results of items one after the other, as far as they are short: the word and the number of
    /// its bytes, `None` for a word of the face's own. Each item that is not short, or not final, ends it.
    pub fn short_results(&self, from: usize) -> impl Iterator<Item = (u64, Option<usize>)> {
        let items = self.tables().status.iter().zip(self.tables().values).skip(from);
        items.map_while(|(status, value)| match status.load(Ordering::Acquire) {
            DONE_WORD => Some((value.load(Ordering::Relaxed), None)),
            done @ DONE..DONE_WORD => Some((value.load(Ordering::Relaxed), Some(usize::from(done - DONE)))),
            _ => None,
        })
    }

    /// Takes the outcome of an item out of the batch, and frees its block. `None` while it is not
    /// final.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn take(&self, item: usize) -> Result<Option<Outcome>> {
        let heap = self.0.handle.heap();
        let Some(status) = self.0.tables.status.get(item) else {
            return Err(HeapError::corrupt("item of a batch", self.block().offset()));
        };
        let status = status.load(Ordering::Acquire);
        let value = self.0.tables.value(heap, item)?;
        let owned = |cell: Word| -> Result<(Vec<u8>, Vec<Handle>)> {
            let id = BlockId::from_bits(cell.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
            let read = message::read_in_place(heap, id)?;
            object::release(heap, seat(heap)?, cell)?;
            Ok(read)
        };
        Ok(Some(match status {
            PENDING | RUNNING | CANCELLING | HALF => return Ok(None),
            DIED => {
                let value = value.load(Ordering::Relaxed);
                Outcome::Died { status: ExitStatus::from_bits(value as u32), pid: (value >> 32) as Pid }
            }
            TIMED_OUT => Outcome::TimedOut,
            CANCELLED => Outcome::Cancelled,
            FAILED => {
                let (bytes, handles) = owned(value)?;
                Outcome::Failed(bytes, handles)
            }
            DONE_WORD => Outcome::Word(value.load(Ordering::Relaxed)),
            DONE_BLOCK => {
                let id = BlockId::from_bits(value.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
                if heap.block(id)?.len() >= LARGE {
                    return Payload::take(heap, id, value).map(|payload| Some(Outcome::Large(payload)));
                }
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

    /// Frees the block of an item's result, if it has its final status: nobody will take it. Does nothing if it
    /// has been taken.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn discard(&self, item: usize) -> Result<()> {
        let status = self.0.tables.status.get(item).map_or(PENDING, |status| status.load(Ordering::Acquire));
        if !matches!(status, FAILED | DONE_BLOCK) {
            return Ok(());
        }
        let heap = self.0.handle.heap();
        object::release(heap, seat(heap)?, self.0.tables.value(heap, item)?)
    }

    /// Cancels what nobody has begun, chunk by chunk; for batches whose items cannot be cancelled
    /// one by one.
    pub fn cancel_rest(&self) {
        self.0.tables.head.cancelled.store(1, Ordering::SeqCst);
    }

    /// Cancels one item of a cancellable batch. If it is running, returns the worker, which the
    /// caller must kill: it will commit nothing any more.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn cancel(&self, item: usize) -> Result<Cancel> {
        let Some(status) = self.0.tables.status.get(item) else { return Ok(Cancel::TooLate) };
        loop {
            match status.load(Ordering::Acquire) {
                PENDING => {
                    if status.compare_exchange(PENDING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        return Ok(Cancel::NeverBegun);
                    }
                }
                RUNNING => {
                    if status.compare_exchange(RUNNING, CANCELLING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        let chunk_len = self.0.tables.head.chunk_len.load(Ordering::Relaxed) as usize;
                        let chunk = self.0.tables.chunks.get(item / chunk_len.max(1));
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
