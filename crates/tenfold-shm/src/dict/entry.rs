//! Entries: blocks of a key and its value.
//!
//! ```text
//!  ┌ key length u32 ┬ value length u32 ┬ writes u64 ┬ key … ┬ value … ┐   the payload of a block of bytes or a message
//! ```
//!
//! An entry is made once and then replaced by another, but for one case: a short value gives way to one of the same length
//! where it lies, since all its words fit one redo record. `writes` counts these, so that an entry that somebody has
//! looked at is known not to be the same any more.
//!
//! An entry without handles that lies in one window is *near*: a hint in the table says where it is, so
//! that a reader needs not look at its descriptor, which is another line of memory to wait for.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::key::Key;
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{BlockId, Heap, WINDOW, Word};
use crate::internal_lock::{Guard, REDO_MAX, Store};
use crate::item::{self, Copied, Copies, Item};
use crate::message::{self, Outgoing};
use crate::object::Handle;
use crate::participant::Seat;

/// Bytes before the key.
const HEAD: u64 = 16;
/// Where the writes are counted.
const WRITES: u64 = 8;
/// The most words of a value that is overwritten, beside the count.
const WORDS_MAX: usize = REDO_MAX - 1;
/// Entries of up to so many bytes are put together before they are written.
const SHORT: usize = 64;
/// Blocks lie at multiples of this many bytes.
const UNIT: u64 = 16;

/// Writes an entry to a block of its own, named by `cell`. Returns its id and hint.
#[inline]
pub(super) fn write(heap: Heap, seat: Seat, key: Key<'_>, value: Outgoing<'_>, cell: Word) -> Result<New> {
    let (hash, key) = (key.hash(), key.bytes());
    let Ok(key_len) = u32::try_from(key.len()) else {
        return Err(HeapError::TooLarge { bytes: key.len() as u64, limit: u32::MAX.into() });
    };
    // A longer value is far, and its length is known from the block's.
    let value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let mut head = [0; HEAD as usize];
    head[..WRITES as usize].copy_from_slice(&(u64::from(key_len) | u64::from(value_len) << 32).to_le_bytes());
    let mut whole = [0; SHORT];
    let block = if let ([value_bytes], Some(room)) = (value.parts, SHORT.checked_sub(HEAD as usize + key.len()))
        && value_bytes.len() <= room
    {
        let (front, rest) = whole.split_at_mut(HEAD as usize);
        front.copy_from_slice(&head);
        let (middle, rest) = rest.split_at_mut(key.len());
        middle.copy_from_slice(key);
        rest[..value_bytes.len()].copy_from_slice(value_bytes);
        let whole = &whole[..HEAD as usize + key.len() + value_bytes.len()];
        message::write_block(heap, seat, Outgoing { parts: &[whole], handles: value.handles }, cell)?
    } else if let [value_bytes] = value.parts {
        let parts: [&[u8]; 3] = [&head, key, value_bytes];
        message::write_block(heap, seat, Outgoing { parts: &parts, handles: value.handles }, cell)?
    } else {
        let mut parts: Vec<&[u8]> = vec![&head, key];
        parts.extend(value.parts);
        message::write_block(heap, seat, Outgoing { parts: &parts, handles: value.handles }, cell)?
    };
    let id = block.id();
    if !value.handles.is_empty() {
        return Ok(New { id, hash, hint: 0, value_len });
    }
    let near = block.len() <= WINDOW - block.offset() % WINDOW && block.offset() % UNIT == 0;
    let hint = if near { u32::try_from(block.offset() / UNIT).unwrap_or(0) } else { 0 };
    Ok(New { id, hash, hint, value_len })
}

/// An entry that is written but not in the table.
pub(super) struct New {
    pub(super) id: BlockId,
    pub(super) hash: u32,
    pub(super) hint: u32,
    value_len: u32,
}

impl New {
    /// What stands beside its id.
    pub(super) fn mark(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hint)
    }

    /// Whether its value could have been written over that of `old`.
    pub(super) fn fits(&self, old: &Entry) -> bool {
        match old.place {
            Place::Near { lengths, .. } => self.hint != 0 && lengths.1 == self.value_len as usize,
            Place::Far(_) => false,
        }
    }
}

/// An entry where it lies: the caller owns it or holds the dict's lock.
pub(super) struct Entry {
    heap: Heap,
    place: Place,
}

enum Place {
    /// In one piece, at this offset of the heap; the lengths of key and value.
    Near { at: u64, key: NonNull<u8>, lengths: (usize, usize) },
    /// In a block of whatever size and kind. In a box, so that the others, most of them, are a few words that are quick
    /// to move.
    Far(Box<Far>),
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
        if hint == 0 { Entry::far(heap, id) } else { Entry::near(heap, hint) }
    }

    /// The entry that the table's hint says is near.
    #[inline(always)]
    pub(super) fn near(heap: Heap, hint: u32) -> Result<Entry> {
        let at = u64::from(hint) * UNIT;
        let head = heap.word(at)?.load(Ordering::Relaxed);
        let (key_len, value_len) = (u64::from(head as u32), head >> 32);
        let key = heap.address(at + HEAD, key_len + value_len)?;
        Ok(Entry { heap, place: Place::Near { at, key, lengths: (key_len as usize, value_len as usize) } })
    }

    /// The same without a hint.
    #[cold]
    pub(super) fn far(heap: Heap, id: BlockId) -> Result<Entry> {
        let block = heap.block(id)?;
        let at = message::payload_start(heap, block)?;
        let mut head = [0; HEAD as usize];
        block.read(heap, at, &mut head)?;
        let length = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
        let (key, value) = (at + HEAD, at + HEAD + length);
        if value > block.len() {
            return Err(HeapError::corrupt("key of a dict's entry", block.offset()));
        }
        Ok(Entry { heap, place: Place::Far(Box::new(Far { block, key, value })) })
    }

    /// Key and value of a near entry, or the place of another.
    #[inline]
    fn parts(&self) -> core::result::Result<(&[u8], &[u8]), Far> {
        let (key, (key_len, value_len)) = match &self.place {
            Place::Near { key, lengths, .. } => (*key, *lengths),
            Place::Far(far) => return Err(**far),
        };
        // SAFETY: `near` has found that both lengths together lie in one window from `key` on, and
        // windows are never unmapped. The caller owns this entry or holds the dict's lock, under which alone
        // entries are changed or moved, and the slices end before it changes one itself.
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

    /// How often its value was overwritten.
    #[inline]
    pub(super) fn writes(&self) -> Result<u64> {
        match self.place {
            Place::Near { at, .. } => Ok(self.heap.word(at + WRITES)?.load(Ordering::Relaxed)),
            Place::Far(_) => Ok(0),
        }
    }

    /// Writes `value` over the value, under the dict's lock. Returns false if it does not fit there.
    #[inline]
    pub(super) fn overwrite(&self, guard: &Guard, value: &[u8]) -> Result<bool> {
        let Place::Near { at, lengths: (key_len, value_len), .. } = self.place else { return Ok(false) };
        let start = at + HEAD + key_len as u64;
        let (first, end) = (start & !7, start + value_len as u64);
        let words = (end - first).div_ceil(8) as usize;
        if value.len() != value_len || words > WORDS_MAX {
            return Ok(false);
        }
        let writes = self.heap.word(at + WRITES)?;
        let mut stores = [Store::new(writes, writes.load(Ordering::Relaxed).wrapping_add(1)); REDO_MAX];
        let (mut rest, mut skip) = (value, (start - first) as usize);
        for (store, at) in stores.iter_mut().skip(1).take(words).zip((first..).step_by(8)) {
            let word = self.heap.word(at)?;
            let mut bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            let (part, behind) = rest.split_at(rest.len().min(8 - skip));
            bytes[skip..skip + part.len()].copy_from_slice(part);
            *store = Store::new(word, u64::from_ne_bytes(bytes));
            (rest, skip) = (behind, 0);
        }
        // Doing a store twice is as good as once.
        if words <= 3 {
            guard.commit([stores[0], stores[1], stores[2], stores[3]])
        } else {
            guard.commit(stores)
        }
        Ok(true)
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
