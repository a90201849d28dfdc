//! The dict's table: entries in the order of their insertion, and an index of their positions.
//!
//! ```text
//!  entries (a spine that owns them)      index (a spine that owns nothing)
//!  ┌ block │ hash ┐  position 0          ┌ hash:32 │ position + 1:32 ┐   slot 0
//!  │ block │ hash │  position 1          │            0            │   empty
//!  │   0   │  …   │  removed             │            1:32 │ 0     │   deleted
//!  └ …            ┘                      └ …                       ┘   a power of two of slots
//! ```
//!
//! A key is looked for from the slot that the low half of its hash says, one slot after the other,
//! until an empty one. There is an empty one: a slot is used only for a position that was used, and
//! the entries have room for two thirds as many positions as there are slots.

use core::sync::atomic::Ordering;

use super::entry::Entry;
use crate::error::{HeapError, Result};
use crate::heap::{At, BlockId, Heap, Word};
use crate::internal_lock::{Guard, Store};
use crate::item::Transit;
use crate::kill_point::{KillPoint, reach};
use crate::spine::{Range, Spine};

use super::Root;

/// Words of an entry's position: the block's id, the hash.
const STRIDE: u64 = 2;
const SLOTS_MIN: u64 = 8;
/// A slot whose entry was removed.
pub(super) const DELETED: u64 = 1 << 32;

/// Where a key is, or where it would go.
pub(super) enum Found {
    /// In the entry `id`.
    Entry {
        /// The slot that says so.
        slot: Word,
        /// The cell that owns the entry.
        cell: Word,
        id: BlockId,
    },
    /// Nowhere; `slot` is free for it.
    Nowhere { slot: Word },
}

/// A dict's table, looked up under the dict's lock.
#[derive(Clone, Copy)]
pub(super) struct Table {
    heap: Heap,
    pub(super) entries: Spine,
    index: Spine,
    mask: u64,
}

impl Table {
    /// The table of a dict, if it has one.
    #[inline]
    pub(super) fn open(heap: Heap, root: At<Root>) -> Result<Option<Table>> {
        let entries = BlockId::from_bits(root.entries.load(Ordering::Relaxed));
        let index = BlockId::from_bits(root.index.load(Ordering::Relaxed));
        let (Some(entries), Some(index)) = (entries, index) else { return Ok(None) };
        Table::new(heap, root, Spine::open(heap, entries)?, Spine::open(heap, index)?).map(Some)
    }

    #[inline]
    fn new(heap: Heap, root: At<Root>, entries: Spine, index: Spine) -> Result<Table> {
        let slots = index.items();
        if !slots.is_power_of_two() || slots < SLOTS_MIN {
            return Err(HeapError::corrupt("index of a dict", root.offset()));
        }
        Ok(Table { heap, entries, index, mask: slots - 1 })
    }

    /// Positions in use, removed ones included.
    #[inline]
    pub(super) fn used(&self) -> u64 {
        self.entries.owned().to
    }

    #[inline]
    fn capacity(&self) -> u64 {
        capacity(self.mask + 1)
    }

    /// The cell of the entry at `position`.
    #[inline]
    pub(super) fn cell(&self, position: u64) -> Result<Word> {
        self.entries.word(position * STRIDE)
    }

    /// The entry at `position`, unless it was removed.
    pub(super) fn entry(&self, position: u64) -> Result<Option<Entry>> {
        match BlockId::from_bits(self.cell(position)?.load(Ordering::Relaxed)) {
            Some(id) => Entry::open(self.heap, id).map(Some),
            None => Ok(None),
        }
    }

    /// Looks for `key`.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Result<Found> {
        let (used, mut free) = (self.used(), None);
        for step in 0..=self.mask {
            let slot = self.index.word(hash.wrapping_add(step) & self.mask)?;
            let bits = slot.load(Ordering::Relaxed);
            if bits == 0 {
                return Ok(Found::Nowhere { slot: free.unwrap_or(slot) });
            }
            if bits == DELETED {
                free.get_or_insert(slot);
                continue;
            }
            if bits >> 32 != hash >> 32 {
                continue;
            }
            let position = u64::from(bits as u32).wrapping_sub(1);
            if position >= used {
                return Err(HeapError::corrupt("slot of a dict's index", slot.offset()));
            }
            let cell = self.cell(position)?;
            let id = BlockId::from_bits(cell.load(Ordering::Relaxed))
                .ok_or(HeapError::corrupt("position of a dict's entry", cell.offset()))?;
            if Entry::open(self.heap, id)?.is_for(key)? {
                return Ok(Found::Entry { slot, cell, id });
            }
        }
        Err(HeapError::corrupt("full index of a dict", self.index.owned_word().offset()))
    }

    /// The slot that names `position`, whose entry is there.
    pub(super) fn slot_of(&self, position: u64) -> Result<Word> {
        let hash = self.entries.word(position * STRIDE + 1)?.load(Ordering::Relaxed);
        for step in 0..=self.mask {
            let slot = self.index.word(hash.wrapping_add(step) & self.mask)?;
            match slot.load(Ordering::Relaxed) {
                0 => break,
                bits if u64::from(bits as u32) == position + 1 => return Ok(slot),
                _ => {}
            }
        }
        Err(HeapError::corrupt("position of a dict's entry", self.index.owned_word().offset()))
    }

    /// Whether a further entry has a place.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.used() < self.capacity()
    }

    /// Gets the next position ready for an entry of `hash`. Nobody sees it before the record that
    /// makes the range of owned entries longer.
    #[inline]
    pub(super) fn prepare(&self, hash: u64) -> Result<Place> {
        let position = self.used();
        self.entries.word(position * STRIDE + 1)?.store(hash, Ordering::Relaxed);
        Ok(Place {
            cell: self.cell(position)?,
            owned: Store::new(self.entries.owned_word(), Range::new(0, position + 1).bits()),
            slot: hash >> 32 << 32 | (position + 1),
        })
    }
}

/// Where a new entry goes.
pub(super) struct Place {
    pub(super) cell: Word,
    /// Makes the position one of those in use.
    pub(super) owned: Store,
    /// What the index's slot says.
    pub(super) slot: u64,
}

fn capacity(slots: u64) -> u64 {
    slots / 3 * 2
}

/// Builds a table with room for more entries, without the gaps of removed ones, and publishes it.
/// Afterwards `transits` name what is left of the old one.
#[cold]
pub(super) fn rebuild(heap: Heap, root: At<Root>, guard: &Guard, transits: &[Transit; 2]) -> Result<Table> {
    let (seat, old) = (guard.seat(), Table::open(heap, root)?);
    let live = root.len.load(Ordering::Relaxed);
    // Half as many again as there are makes twice the slots of a full table without gaps.
    let wanted = live.saturating_add(live / 2 + 1);
    let slots = (wanted.saturating_mul(3) / 2 + 3).checked_next_power_of_two().unwrap_or(u64::MAX).max(SLOTS_MIN);
    let entries = Spine::build(heap, seat, transits[0].word(), capacity(slots), STRIDE)?;
    let index = Spine::build(heap, seat, transits[1].word(), slots, 1)?;
    index.zero()?;
    let fresh = Table::new(heap, root, entries, index)?;
    let copied = match old {
        Some(old) => fresh.fill_from(&old)?,
        None => 0,
    };
    reach(KillPoint::DictIndexBuilt);
    let owned = Store::new(entries.owned_word(), Range::new(0, copied).bits());
    let (new_entries, new_index) = (transits[0].word(), transits[1].word());
    let publish = [
        Store::new(root.field(|r| &r.entries), new_entries.load(Ordering::Relaxed)),
        Store::new(root.field(|r| &r.index), new_index.load(Ordering::Relaxed)),
        Store::new(new_entries, root.entries.load(Ordering::Relaxed)),
        Store::new(new_index, root.index.load(Ordering::Relaxed)),
    ];
    match old {
        Some(old) => {
            let nothing = Store::new(old.entries.owned_word(), Range::EMPTY.bits());
            guard.commit([publish[0], publish[1], publish[2], publish[3], owned, nothing]);
        }
        None => guard.commit([publish[0], publish[1], publish[2], publish[3], owned]),
    }
    root.last.store(copied, Ordering::Relaxed);
    reach(KillPoint::DictIndexPublished);
    Ok(fresh)
}

impl Table {
    /// Copies the words of all entries of `old`; returns how many there are.
    fn fill_from(&self, old: &Table) -> Result<u64> {
        let mut position = 0;
        old.entries.pieces(0, old.used() * STRIDE, |_, piece| {
            for pair in piece.chunks_exact(STRIDE as usize) {
                let (id, hash) = (pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed));
                if id == 0 {
                    continue;
                }
                if position >= self.capacity() {
                    return Err(HeapError::corrupt("length of a dict", self.entries.owned_word().offset()));
                }
                self.entries.word(position * STRIDE)?.store(id, Ordering::Relaxed);
                self.entries.word(position * STRIDE + 1)?.store(hash, Ordering::Relaxed);
                position += 1;
                self.enter(hash, position)?;
            }
            Ok(())
        })?;
        Ok(position)
    }

    /// Puts a position (plus one) into the index, which has no removed ones yet.
    fn enter(&self, hash: u64, position: u64) -> Result<()> {
        let mut at = hash & self.mask;
        loop {
            let slot = self.index.word(at)?;
            if slot.load(Ordering::Relaxed) == 0 {
                slot.store(hash >> 32 << 32 | position, Ordering::Relaxed);
                return Ok(());
            }
            at = (at + 1) & self.mask;
        }
    }
}
