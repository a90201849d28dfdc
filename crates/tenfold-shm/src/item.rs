//! What a container holds: an immutable block, copied out under the container's lock.
//!
//! Nobody's code runs while the lock is held, so a reader copies: short items to the stack, longer
//! ones to the process's own memory. An item that leaves its container is read afterwards, from a cell
//! of the reader's own.

use core::sync::atomic::Ordering;

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{BlockId, Heap, Word};
use crate::message;
use crate::object::{self, Handle};
use crate::participant::Seat;

/// A copy of an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Handles to the objects that the bytes refer to, in the writer's order.
    pub handles: Vec<Handle>,
}

/// Copies of many byte strings, laid end to end.
#[derive(Debug, Default)]
pub struct Copies {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    handles: Vec<Handle>,
}

impl Copies {
    /// Nothing yet, with room for about `count`.
    pub(crate) fn with_room(count: u64) -> Copies {
        let count = count.min(1 << 16) as usize;
        Copies { bytes: Vec::with_capacity(count * 16), ends: Vec::with_capacity(count), handles: Vec::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One after the other. What their handles refer to lives as long as the copies.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map(move |&to| &self.bytes[core::mem::replace(&mut from, to)..to])
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    /// Appends the bytes `from..to` of a block.
    pub(crate) fn push_from(&mut self, heap: Heap, block: Block, from: u64, to: u64) -> Result<()> {
        let len = to.checked_sub(from).ok_or(HeapError::corrupt("item of a container", block.offset()))?;
        let at = self.bytes.len();
        self.bytes.resize(at + len as usize, 0);
        block.read(heap, from, &mut self.bytes[at..])?;
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Keeps what a block of bytes or a message refers to.
    pub(crate) fn keep_handles(&mut self, heap: Heap, block: Block) -> Result<()> {
        self.handles.append(&mut message::handles_of(heap, block)?);
        Ok(())
    }
}

/// Items up to this size are copied to the stack.
const SHORT: usize = 128;

/// A copy of an item that is about to be looked at.
pub(crate) enum Copied {
    Short { len: usize, bytes: [u8; SHORT] },
    Long(Vec<u8>),
}

impl Copied {
    #[inline]
    pub(crate) fn of(source: &[u8]) -> Copied {
        if source.len() <= SHORT {
            let mut bytes = [0; SHORT];
            bytes[..source.len()].copy_from_slice(source);
            return Copied::Short { len: source.len(), bytes };
        }
        Copied::Long(source.to_vec())
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Copied::Short { len, bytes } => &bytes[..*len],
            Copied::Long(bytes) => bytes,
        }
    }
}

/// Copies the bytes of `block` from `at` on.
#[inline]
pub(crate) fn copy(heap: Heap, block: Block, at: u64) -> Result<Copied> {
    let len = block.len().checked_sub(at).ok_or(HeapError::corrupt("item of a container", block.offset()))? as usize;
    if len <= SHORT {
        let mut bytes = [0; SHORT];
        block.read(heap, at, &mut bytes[..len])?;
        return Ok(Copied::Short { len, bytes });
    }
    let mut bytes = vec![0; len];
    block.read(heap, at, &mut bytes)?;
    Ok(Copied::Long(bytes))
}

/// Copies the bytes of `block` from `skip` bytes into its payload, and takes its handles.
pub(crate) fn read(heap: Heap, block: Block, skip: u64) -> Result<Item> {
    let at = message::payload_start(heap, block)? + skip;
    let len = block.len().checked_sub(at).ok_or(HeapError::corrupt("item of a container", block.offset()))?;
    let mut bytes = vec![0; len as usize];
    block.read(heap, at, &mut bytes)?;
    Ok(Item { bytes, handles: message::handles_of(heap, block)? })
}

/// A transit cell for the length of one operation; what it names by the end is freed.
///
/// Declared before the guard of a lock, so that the lock is dropped first.
pub(crate) struct Transit {
    heap: Heap,
    seat: Seat,
    word: Word,
}

impl Transit {
    #[inline(always)]
    pub(crate) fn new(heap: Heap, seat: Seat, cell: usize) -> Transit {
        Transit { heap, seat, word: seat.transit(cell) }
    }

    #[inline(always)]
    pub(crate) fn word(&self) -> Word {
        self.word
    }

    #[inline(always)]
    pub(crate) fn id(&self) -> Option<BlockId> {
        BlockId::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// Frees what the cell names now.
    pub(crate) fn release(&self) -> Result<()> {
        object::release(self.heap, self.seat, self.word)
    }
}

impl Drop for Transit {
    #[inline(always)]
    fn drop(&mut self) {
        if self.word.load(Ordering::Relaxed) != 0 {
            // A heap that is corrupt leaves the block to the sweep; there is nobody to tell.
            let _ = self.release();
        }
    }
}
