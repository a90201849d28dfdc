//! Entries: immutable blocks of a key and its value.
//!
//! ```text
//!  ┌ key length u32 ┬ flags u32 ┬ key … ┬ value … ┐     the payload of a block of bytes or a message
//! ```

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{BlockId, Heap, Word};
use crate::item::{self, Copied, Item};
use crate::message::{self, Outgoing};
use crate::object::Handle;
use crate::participant::Seat;

/// Bytes before the key.
const HEAD: u64 = 8;

/// Writes an entry to a block of its own, named by `cell`.
pub(super) fn write(heap: Heap, seat: Seat, key: &[u8], value: Outgoing<'_>, cell: Word) -> Result<BlockId> {
    let Ok(length) = u32::try_from(key.len()) else {
        return Err(HeapError::TooLarge { bytes: key.len() as u64, limit: u32::MAX.into() });
    };
    let head = u64::from(length).to_le_bytes();
    if let [value_bytes] = value.parts {
        let parts: [&[u8]; 3] = [&head, key, value_bytes];
        return message::write(heap, seat, Outgoing { parts: &parts, handles: value.handles }, cell);
    }
    let mut parts: Vec<&[u8]> = vec![&head, key];
    parts.extend(value.parts);
    message::write(heap, seat, Outgoing { parts: &parts, handles: value.handles }, cell)
}

/// An entry where it lies: the caller owns it or holds the dict's lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    heap: Heap,
    block: Block,
    /// Where the key begins, and where the value does.
    key: u64,
    value: u64,
}

impl Entry {
    /// The entry in block `id`.
    #[inline]
    pub(super) fn open(heap: Heap, id: BlockId) -> Result<Entry> {
        let block = heap.block(id)?;
        let at = message::payload_start(heap, block)?;
        let mut head = [0; HEAD as usize];
        block.read(heap, at, &mut head)?;
        let length = u64::from(u64::from_le_bytes(head) as u32);
        let (key, value) = (at + HEAD, at + HEAD + length);
        if value > block.len() {
            return Err(HeapError::corrupt("key of a dict's entry", block.offset()));
        }
        Ok(Entry { heap, block, key, value })
    }

    /// Whether it is for `key`.
    #[inline]
    pub(super) fn is_for(&self, key: &[u8]) -> Result<bool> {
        let length = self.value - self.key;
        if length != key.len() as u64 {
            return Ok(false);
        }
        if let Ok(address) = self.block.address(self.heap, self.key, length) {
            // SAFETY: valid for `length` bytes of a window that is never unmapped; entries are
            // immutable and the caller owns this one or holds the lock that keeps it in place.
            let mine = unsafe { core::slice::from_raw_parts(address.as_ptr(), key.len()) };
            return Ok(mine == key);
        }
        // An entry larger than a window.
        Ok(self.key_bytes()? == key)
    }

    /// A copy of the key.
    pub(super) fn key_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (self.value - self.key) as usize];
        self.block.read(self.heap, self.key, &mut bytes)?;
        Ok(bytes)
    }

    /// A copy of the value, for a short look.
    #[inline]
    pub(super) fn copy(&self) -> Result<(Copied, Vec<Handle>)> {
        Ok((item::copy(self.heap, self.block, self.value)?, message::handles_of(self.heap, self.block)?))
    }

    /// A copy of the value.
    pub(super) fn item(&self) -> Result<Item> {
        let mut bytes = vec![0; (self.block.len() - self.value) as usize];
        self.block.read(self.heap, self.value, &mut bytes)?;
        Ok(Item { bytes, handles: message::handles_of(self.heap, self.block)? })
    }
}
