//! The ledger: the cells in which a process holds objects and received messages.
//!
//! 128 entries lie in the slot, more in chunks of doubling size, each named by a cell of the slot.
//! Which entries are free is known to the process alone.
//!
//! *Killed here:* the sweep goes through all entries.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Identity, LEDGER_INLINE, LedgerEntry, Slot, identity, slot};
use crate::error::{HeapError, Result};
use crate::guarded::Guarded;
use crate::heap::{At, BlockId, Heap, Word};
use crate::object::ObjectKind;

/// Chunks beyond the inline entries.
pub(crate) const CHUNKS: usize = 24;
/// Entries in chunk `n`: 256 doubled `n` times, 32 768 at most.
const fn chunk_len(chunk: usize) -> usize {
    let doubled = 256usize << chunk;
    if chunk < 7 { doubled } else { 32_768 }
}

/// Entries in all.
pub const LEDGER_MAX: u32 = {
    let (mut total, mut chunk) = (LEDGER_INLINE, 0);
    while chunk < CHUNKS {
        total += chunk_len(chunk);
        chunk += 1;
    }
    total as u32
};

/// Entries of this process that nobody uses.
struct Spare {
    entries: Vec<u32>,
    chunks: usize,
    started: bool,
}

static SPARE: Guarded<Spare> = Guarded::new(Spare { entries: Vec::new(), chunks: 0, started: false });

pub(super) fn mutex() -> &'static tenfold_sys::futex::PrivateMutex {
    SPARE.mutex()
}

/// An entry of this process's ledger that is in somebody's hands; given back on drop.
///
/// The entry must be empty by then, or what it names is held until the process ends.
#[derive(Debug)]
pub struct HeldCell {
    index: u32,
    entry: At<LedgerEntry>,
    /// In whose ledger `entry` is.
    owner: Identity,
    kept: bool,
}

impl HeldCell {
    /// Takes a free entry.
    ///
    /// # Errors
    /// [`HeapError::TooManyHoldings`], or no memory for a further chunk.
    pub fn take(heap: Heap) -> Result<HeldCell> {
        let me = super::me(heap)?;
        let index = SPARE.with(|spare| {
            if !core::mem::replace(&mut spare.started, true) {
                spare.entries.extend((0..LEDGER_INLINE as u32).rev());
            }
            let Some(index) = spare.entries.pop() else { return grow(heap, me, spare) };
            // In a child of fork, the parent may have made the entry's chunk, for itself.
            let made = match chunk_of(index).filter(|chunk| !has_chunk(heap, me, *chunk)) {
                Some(chunk) => add_chunk(heap, me, chunk),
                None => Ok(()),
            };
            made.map(|()| index).inspect_err(|_| spare.entries.push(index))
        })?;
        let entry = entry(heap, slot(me.slot(), heap), index)?;
        Ok(HeldCell { index, entry, owner: me, kept: false })
    }

    /// The cell.
    #[inline]
    pub fn word(&self) -> Word {
        self.entry.field(|e| &e.id)
    }

    /// Its number.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Leaves the entry to the sweep of this process, with what it names.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// The same entry in the slot that this process has by now; a fork moves a process to another
    /// slot, with the same entries.
    ///
    /// # Errors
    /// If this process has no slot and can get none.
    #[inline]
    pub(crate) fn here(&self, heap: Heap) -> Result<At<LedgerEntry>> {
        if self.is_original() { Ok(self.entry) } else { self.inherited(heap) }
    }

    /// Whether this is the process that took the entry, not a child of fork.
    #[inline]
    pub(crate) fn is_original(&self) -> bool {
        identity::current() == Some(self.owner)
    }

    #[cold]
    fn inherited(&self, heap: Heap) -> Result<At<LedgerEntry>> {
        let me = super::me(heap)?;
        entry(heap, slot(me.slot(), heap), self.index)
    }
}

impl Drop for HeldCell {
    fn drop(&mut self) {
        if !self.kept {
            SPARE.with(|spare| spare.entries.push(self.index));
        }
    }
}

fn has_chunk(heap: Heap, me: Identity, chunk: usize) -> bool {
    slot(me.slot(), heap).ledger_chunks[chunk].load(Ordering::Relaxed) != 0
}

/// The chunk that an entry is in, unless it lies in the slot itself.
fn chunk_of(index: u32) -> Option<usize> {
    let mut rest = (index as usize).checked_sub(LEDGER_INLINE)?;
    (0..CHUNKS).find(|&chunk| {
        let here = rest < chunk_len(chunk);
        rest = rest.saturating_sub(chunk_len(chunk));
        here
    })
}

fn grow(heap: Heap, me: Identity, spare: &mut Spare) -> Result<u32> {
    if spare.chunks == CHUNKS {
        return Err(HeapError::TooManyHoldings { limit: LEDGER_MAX });
    }
    add_chunk(heap, me, spare.chunks)?;
    let before: usize = LEDGER_INLINE + (0..spare.chunks).map(chunk_len).sum::<usize>();
    let after = before + chunk_len(spare.chunks);
    spare.chunks += 1;
    spare.entries.extend((before as u32 + 1..after as u32).rev());
    Ok(before as u32)
}

fn add_chunk(heap: Heap, me: Identity, chunk: usize) -> Result<()> {
    identity::with_growth_seat(heap, me, |seat| fill_chunk(heap, seat, slot(me.slot(), heap), chunk))
}

/// Makes sure that entry `index` exists in `target`, as it does in the caller's own ledger.
pub(super) fn ensure(heap: Heap, seat: super::Seat, target: At<Slot>, index: u32) -> Result<At<LedgerEntry>> {
    let mut end = LEDGER_INLINE as u32;
    for chunk in 0..CHUNKS {
        if index < end {
            break;
        }
        if target.ledger_chunks[chunk].load(Ordering::Acquire) == 0 {
            fill_chunk(heap, seat, target, chunk)?;
        }
        end += chunk_len(chunk) as u32;
    }
    entry(heap, target, index)
}

/// Makes chunk `chunk` of the ledger in `target`, which is the caller's own slot or one in birth.
fn fill_chunk(heap: Heap, seat: super::Seat, target: At<Slot>, chunk: usize) -> Result<()> {
    let bytes = (chunk_len(chunk) * size_of::<LedgerEntry>()) as u64;
    let transit = seat.transit(0);
    let block = heap.take(seat, bytes, ObjectKind::Bytes, transit)?;
    for at in (0..bytes).step_by(8) {
        block.view::<AtomicU64>(heap, at)?.store(0, Ordering::Relaxed);
    }
    // As for lanes: named twice for an instant, freed once.
    target.ledger_chunks[chunk].store(block.id().bits(), Ordering::Release);
    transit.store(0, Ordering::Release);
    Ok(())
}

/// Entry number `index` of a slot's ledger.
pub(super) fn entry(heap: Heap, slot: At<Slot>, index: u32) -> Result<At<LedgerEntry>> {
    let mut rest = index as usize;
    if rest < LEDGER_INLINE {
        return Ok(slot.field(|s| &s.ledger[rest]));
    }
    rest -= LEDGER_INLINE;
    for chunk in 0..CHUNKS {
        if rest < chunk_len(chunk) {
            let id = BlockId::from_bits(slot.ledger_chunks[chunk].load(Ordering::Acquire))
                .ok_or(HeapError::corrupt("ledger chunk", slot.offset()))?;
            return heap.block(id)?.view(heap, (rest * size_of::<LedgerEntry>()) as u64);
        }
        rest -= chunk_len(chunk);
    }
    Err(HeapError::corrupt("ledger index", slot.offset()))
}

/// Calls `f` for each entry that a slot's ledger has.
pub(super) fn each(heap: Heap, slot: At<Slot>, mut f: impl FnMut(u32, At<LedgerEntry>)) {
    for index in 0..LEDGER_INLINE {
        f(index as u32, slot.field(|s| &s.ledger[index]));
    }
    let mut first = LEDGER_INLINE as u32;
    for chunk in 0..CHUNKS {
        if slot.ledger_chunks[chunk].load(Ordering::Acquire) != 0 {
            for index in first..first + chunk_len(chunk) as u32 {
                if let Ok(entry) = entry(heap, slot, index) {
                    f(index, entry);
                }
            }
        }
        first += chunk_len(chunk) as u32;
    }
}
