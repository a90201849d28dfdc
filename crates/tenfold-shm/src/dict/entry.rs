//! Entries: immutable blocks of a key and its value.
//!
//! ```text
//!  ┌ key length u32 ┬ value length u32 ┬ key … ┬ value … ┐     the payload of a block of bytes or a message
//! ```
//!
//! An entry without handles that lies in one window is *near*: a hint in the table says where it is, so
//! that a reader needs not look at its descriptor, which is another line of memory to wait for.

use core::ptr::NonNull;

use super::key::Key;
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{BlockId, Heap, WINDOW, Word};
use crate::item::{self, Copied, Copies, Item};
use crate::message::{self, Outgoing};
use crate::object::Handle;
use crate::participant::Seat;

/// Bytes before the key.
const HEAD: u64 = 8;
/// Entries of up to so many bytes are put together before they are written.
const SHORT: usize = 64;
/// Blocks lie at multiples of this many bytes.
const UNIT: u64 = 16;

/// Writes an entry to a block of its own, named by `cell`. Returns its id and hint.
#[inline]
pub(super) fn write(heap: Heap, seat: Seat, key: &[u8], value: Outgoing<'_>, cell: Word) -> Result<(BlockId, u32)> {
    let Ok(key_len) = u32::try_from(key.len()) else {
        return Err(HeapError::TooLarge { bytes: key.len() as u64, limit: u32::MAX.into() });
    };
    // A longer value is far, and its length is known from the block's.
    let value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let head = (u64::from(key_len) | u64::from(value_len) << 32).to_le_bytes();
    let mut whole = [0; SHORT];
    let id = if let ([value_bytes], Some(room)) = (value.parts, SHORT.checked_sub(HEAD as usize + key.len()))
        && value_bytes.len() <= room
    {
        let (front, rest) = whole.split_at_mut(HEAD as usize);
        front.copy_from_slice(&head);
        let (middle, rest) = rest.split_at_mut(key.len());
        middle.copy_from_slice(key);
        rest[..value_bytes.len()].copy_from_slice(value_bytes);
        let whole = &whole[..HEAD as usize + key.len() + value_bytes.len()];
        message::write(heap, seat, Outgoing { parts: &[whole], handles: value.handles }, cell)?
    } else if let [value_bytes] = value.parts {
        let parts: [&[u8]; 3] = [&head, key, value_bytes];
        message::write(heap, seat, Outgoing { parts: &parts, handles: value.handles }, cell)?
    } else {
        let mut parts: Vec<&[u8]> = vec![&head, key];
        parts.extend(value.parts);
        message::write(heap, seat, Outgoing { parts: &parts, handles: value.handles }, cell)?
    };
    if !value.handles.is_empty() {
        return Ok((id, 0));
    }
    let block = heap.block(id)?;
    let near = block.len() <= WINDOW - block.offset() % WINDOW && block.offset() % UNIT == 0;
    let hint = if near { u32::try_from(block.offset() / UNIT).unwrap_or(0) } else { 0 };
    Ok((id, hint))
}

/// An entry where it lies: the caller owns it or holds the dict's lock.
pub(super) struct Entry {
    heap: Heap,
    place: Place,
}

enum Place {
    /// In one piece; the lengths of key and value.
    Near { key: NonNull<u8>, lengths: (usize, usize) },
    /// In a block of whatever size and kind.
    Far(Far),
}

/// Where a far entry's key begins in its block, and where its value does.
#[derive(Clone, Copy)]
struct Far {
    block: Block,
    key: u64,
    value: u64,
}

impl Entry {
    /// The entry in block `id`, for which the table has `hint`.
    #[inline]
    pub(super) fn open(heap: Heap, id: BlockId, hint: u32) -> Result<Entry> {
        if hint == 0 {
            return Entry::far(heap, id);
        }
        let at = u64::from(hint) * UNIT;
        let head = heap.word(at)?.load(core::sync::atomic::Ordering::Relaxed);
        let (key_len, value_len) = (u64::from(head as u32), head >> 32);
        let key = heap.address(at + HEAD, key_len + value_len)?;
        Ok(Entry { heap, place: Place::Near { key, lengths: (key_len as usize, value_len as usize) } })
    }

    /// The same without a hint.
    #[cold]
    pub(super) fn far(heap: Heap, id: BlockId) -> Result<Entry> {
        let block = heap.block(id)?;
        let at = message::payload_start(heap, block)?;
        let mut head = [0; HEAD as usize];
        block.read(heap, at, &mut head)?;
        let length = u64::from(u64::from_le_bytes(head) as u32);
        let (key, value) = (at + HEAD, at + HEAD + length);
        if value > block.len() {
            return Err(HeapError::corrupt("key of a dict's entry", block.offset()));
        }
        Ok(Entry { heap, place: Place::Far(Far { block, key, value }) })
    }

    /// Key and value of a near entry, or the place of another.
    #[inline]
    fn parts(&self) -> core::result::Result<(&[u8], &[u8]), Far> {
        let (key, (key_len, value_len)) = match self.place {
            Place::Near { key, lengths } => (key, lengths),
            Place::Far(far) => return Err(far),
        };
        // SAFETY: `open` has found that both lengths together lie in one window from `key` on, and
        // windows are never unmapped. Entries are immutable, and the caller owns this one or holds the
        // lock that keeps it in place.
        let both = unsafe { core::slice::from_raw_parts(key.as_ptr(), key_len + value_len) };
        Ok(both.split_at(key_len))
    }

    /// Whether it is for `key`.
    #[inline]
    pub(super) fn is_for(&self, key: Key<'_>) -> Result<bool> {
        match self.parts() {
            Ok((mine, _)) => Ok(key.is(mine)),
            Err(_) => Ok(key.is(&self.key_bytes()?)),
        }
    }

    /// A copy of the key if it is not these very bytes.
    #[inline]
    pub(super) fn other_spelling(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.parts() {
            Ok((mine, _)) => Ok((mine != key).then(|| mine.to_vec())),
            Err(_) => Ok(Some(self.key_bytes()?).filter(|mine| mine != key)),
        }
    }

    /// A copy of the key.
    pub(super) fn key_bytes(&self) -> Result<Vec<u8>> {
        match self.parts() {
            Ok((key, _)) => Ok(key.to_vec()),
            Err(Far { block, key, value }) => {
                let mut bytes = vec![0; (value - key) as usize];
                block.read(self.heap, key, &mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// Appends the key to `copies`.
    pub(super) fn copy_key(&self, copies: &mut Copies) -> Result<()> {
        match self.parts() {
            Ok((key, _)) => copies.push(key),
            Err(Far { block, key, value }) => copies.push_from(self.heap, block, key, value)?,
        }
        Ok(())
    }

    /// Appends the value to `copies`.
    pub(super) fn copy_value(&self, copies: &mut Copies) -> Result<()> {
        match self.parts() {
            Ok((_, value)) => copies.push(value),
            Err(Far { block, value, .. }) => {
                copies.push_from(self.heap, block, value, block.len())?;
                copies.keep_handles(self.heap, block)?;
            }
        }
        Ok(())
    }

    /// A copy of the value, for a short look.
    #[inline]
    pub(super) fn copy(&self) -> Result<(Copied, Vec<Handle>)> {
        match self.parts() {
            Ok((_, value)) => Ok((Copied::of(value), Vec::new())),
            Err(Far { block, value, .. }) => {
                Ok((item::copy(self.heap, block, value)?, message::handles_of(self.heap, block)?))
            }
        }
    }

    /// A copy of the value.
    pub(super) fn item(&self) -> Result<Item> {
        match self.parts() {
            Ok((_, value)) => Ok(Item { bytes: value.to_vec(), handles: Vec::new() }),
            Err(Far { block, value, .. }) => {
                let mut bytes = vec![0; (block.len() - value) as usize];
                block.read(self.heap, value, &mut bytes)?;
                Ok(Item { bytes, handles: message::handles_of(self.heap, block)? })
            }
        }
    }
}
