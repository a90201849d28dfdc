//! The dict's table: entries in the order of their insertion, and an index of their positions.
//!
//! ```text
//!  entries (a spine that owns them)      index (a spine that owns nothing)
//!  ┌ block │ mark ┐  position 0          ┌ hash:32 │ position + 1:32 ┐   slot 0
//!  │ block │ mark │  position 1          │            0            │   empty
//!  │   0   │  …   │  removed             │          1:32 │ 0       │   deleted
//!  └ …            ┘                      └ …                       ┘   a power of two of slots
//! ```
//!
//! A mark is the hash and a hint where the block is, see [`super::entry`]. A key is looked for from the
//! slot that its hash says, one slot after the other, until an empty one. There is an empty one: a slot is used only for a position that was used, and
//! the entries have room for two thirds as many positions as there are slots.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use super::entry::{Entry, New};
use super::key::Key;
use crate::error::{HeapError, Result};
use crate::heap::{At, BlockId, Heap, Word};
use crate::internal_lock::{Guard, Store};
use crate::item::Transit;
use crate::kill_point::{KillPoint, reach};
use crate::spine::{Range, Spine};

use super::{Root, Stamp};

/// Words of an entry's position: the block's id, its mark.
const STRIDE: u64 = 2;
const SLOTS_MIN: u64 = 8;
const SLOTS_MAX: u64 = 1 << 31;
/// A slot whose entry was removed.
pub(super) const DELETED: u64 = 1 << 32;

/// Where a key is, or where it would go.
pub(super) enum Found {
    /// In the entry `id`.
    Entry {
        /// The slot that says so.
        slot: Word,
        /// The cell that owns the entry, and the mark after it.
        cell: Word,
        mark: Word,
        id: BlockId,
        entry: Entry,
    },
    /// Nowhere; `slot` is free for it.
    Nowhere { slot: Word },
}

impl Found {
    /// The stamp of what was found.
    pub(super) fn stamp(&self) -> Result<Stamp> {
        match self {
            Found::Entry { id, entry, .. } => Stamp::of(*id, entry),
            Found::Nowhere { .. } => Ok(Stamp::ABSENT),
        }
    }
}

/// A dict's table, looked up under the dict's lock.
#[derive(Clone, Copy)]
pub(super) struct Table {
    heap: Heap,
    pub(super) entries: Spine,
    index: Spine,
    mask: u64,
}

/// A table that was looked up, for as long as a dict names these two spines.
#[derive(Clone, Copy)]
struct Known {
    ids: (u64, u64),
    table: Table,
}

thread_local! {
    /// The table that this thread has looked up last: to find its blocks again takes as long as to find a key.
    static LAST: Cell<Option<Known>> = const { Cell::new(None) };
}

impl Table {
    /// The table of a dict, if it has one.
    #[inline]
    pub(super) fn open(heap: Heap, root: At<Root>) -> Result<Option<Table>> {
        let ids = (root.entries.load(Ordering::Relaxed), root.index.load(Ordering::Relaxed));
        let known = LAST.try_with(Cell::get).ok().flatten();
        let table = match known.filter(|known| known.ids == ids) {
            Some(known) => known.table,
            None => match Table::look_up(heap, root, ids)? {
                Some(table) => table,
                None => return Ok(None),
            },
        };
        table.check(root).map(|()| Some(table))
    }

    /// The table of these two spines.
    #[cold]
    fn look_up(heap: Heap, root: At<Root>, ids: (u64, u64)) -> Result<Option<Table>> {
        let (Some(entries), Some(index)) = (BlockId::from_bits(ids.0), BlockId::from_bits(ids.1)) else {
            return Ok(None);
        };
        let table =
            Table::new(heap, root, Spine::open(heap, entries)?.at_hand()?, Spine::open(heap, index)?.at_hand()?)?;
        let _ = LAST.try_with(|last| last.set(Some(Known { ids, table })));
        Ok(Some(table))
    }

    fn new(heap: Heap, root: At<Root>, entries: Spine, index: Spine) -> Result<Table> {
        let slots = index.items();
        if !slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&slots) {
            return Err(HeapError::corrupt("index of a dict", root.offset()));
        }
        Ok(Table { heap, entries, index, mask: slots - 1 })
    }

    /// Whether there are as many entries as there may be.
    #[inline]
    fn check(&self, root: At<Root>) -> Result<()> {
        let used = self.entries.owned();
        if used.from != 0 || used.to > self.capacity() {
            return Err(HeapError::corrupt("index of a dict", root.offset()));
        }
        Ok(())
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

    /// Calls `f` with each entry from position `from` on, and its position, until it returns false.
    pub(super) fn each(&self, from: u64, mut f: impl FnMut(u64, Entry) -> Result<bool>) -> Result<()> {
        let (mut at, end) = (from.min(self.used()) * STRIDE, self.used() * STRIDE);
        while at < end {
            let (piece, _) = self.entries.piece(at)?;
            let piece = &piece[..piece.len().min((end - at) as usize)];
            for (position, pair) in (at / STRIDE..).zip(piece.chunks_exact(STRIDE as usize)) {
                let Some(id) = BlockId::from_bits(pair[0].load(Ordering::Relaxed)) else { continue };
                let mark = pair[1].load(Ordering::Relaxed);
                if !f(position, Entry::open(self.heap, id, mark as u32)?)? {
                    return Ok(());
                }
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Looks for `key`.
    #[inline]
    pub(super) fn find_key(&self, hash: u32, key: Key<'_>) -> Result<Found> {
        self.find(hash, |_, entry| entry.is_for(key))
    }

    /// Looks for an entry with this hash that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(BlockId, &Entry) -> Result<bool>) -> Result<Found> {
        let (used, mut free) = (self.used(), None);
        let (mut at, mut left) = (u64::from(hash) & self.mask, self.mask + 1);
        while left > 0 {
            let (piece, offset) = self.index.piece(at)?;
            let count = (piece.len() as u64).min(left).min(self.mask + 1 - at);
            for (slot, word) in (offset..).step_by(8).zip(&piece[..count as usize]) {
                let bits = word.load(Ordering::Relaxed);
                if bits == 0 {
                    return Ok(Found::Nowhere { slot: free.unwrap_or(At::known(slot, word)) });
                }
                if bits == DELETED {
                    free.get_or_insert(At::known(slot, word));
                    continue;
                }
                if (bits >> 32) as u32 != hash {
                    continue;
                }
                let position = u64::from(bits as u32).wrapping_sub(1);
                if position >= used {
                    return Err(HeapError::corrupt("slot of a dict's index", slot));
                }
                let cell = self.cell(position)?;
                let mark = self.entries.word(position * STRIDE + 1)?;
                let id = BlockId::from_bits(cell.load(Ordering::Relaxed))
                    .ok_or(HeapError::corrupt("position of a dict's entry", cell.offset()))?;
                let found = |entry| Found::Entry { slot: At::known(slot, word), cell, mark, id, entry };
                // Apart, so that an entry that is near stays in registers.
                match mark.load(Ordering::Relaxed) as u32 {
                    0 => {
                        let entry = Entry::far(self.heap, id)?;
                        if is_it(id, &entry)? {
                            return Ok(found(entry));
                        }
                    }
                    hint => {
                        let entry = Entry::near(self.heap, hint)?;
                        if is_it(id, &entry)? {
                            return Ok(found(entry));
                        }
                    }
                }
            }
            left -= count;
            at = (at + count) & self.mask;
        }
        Err(HeapError::corrupt("full index of a dict", self.index.owned_word().offset()))
    }

    /// The slot that names `position`, whose entry is there.
    pub(super) fn slot_of(&self, position: u64) -> Result<Word> {
        let hash = self.entries.word(position * STRIDE + 1)?.load(Ordering::Relaxed) >> 32;
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

    /// Gets the next position ready for an entry. Nobody sees it before the record that
    /// makes the range of owned entries longer.
    #[inline]
    pub(super) fn prepare(&self, new: &New) -> Result<Place> {
        let position = self.used();
        let cell = self.cell(position)?;
        self.heap.word(cell.offset() + 8)?.store(new.mark(), Ordering::Relaxed);
        Ok(Place {
            cell,
            owned: Store::new(self.entries.owned_word(), Range::new(0, position + 1).bits()),
            slot: u64::from(new.hash) << 32 | (position + 1),
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
    // There are no more entries than positions, whatever the count says.
    let live = root.len.load(Ordering::Relaxed).min(old.map_or(0, |old| old.used()));
    // Half as many again as there are makes twice the slots of a full table without gaps.
    let wanted = live.saturating_add(live / 2 + 1);
    let slots = (wanted.saturating_mul(3) / 2 + 3).checked_next_power_of_two().unwrap_or(u64::MAX).max(SLOTS_MIN);
    if slots > SLOTS_MAX {
        return Err(HeapError::TooLarge { bytes: slots, limit: SLOTS_MAX });
    }
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
                let (id, mark) = (pair[0].load(Ordering::Relaxed), pair[1].load(Ordering::Relaxed));
                if id == 0 {
                    continue;
                }
                if position >= self.capacity() {
                    return Err(HeapError::corrupt("length of a dict", self.entries.owned_word().offset()));
                }
                self.entries.word(position * STRIDE)?.store(id, Ordering::Relaxed);
                self.entries.word(position * STRIDE + 1)?.store(mark, Ordering::Relaxed);
                position += 1;
                self.enter(mark >> 32, position)?;
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
                slot.store(hash << 32 | position, Ordering::Relaxed);
                return Ok(());
            }
            at = (at + 1) & self.mask;
        }
    }
}
