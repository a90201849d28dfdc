//! Taking and freeing blocks.
//!
//! ```text
//!  class head ── free ──▶ descriptor ── next ──▶ descriptor ── next ──▶ 0       last in, first out
//! ```
//!
//! A block changes hands together with the *cell* that names it: taking one stores its id into the
//! cell, freeing one clears the cell, in the same redo record as the free list. So at every instant
//! a block is in a free list or named by one cell.
//!
//! Small classes are carved from slabs of 64 KiB, larger blocks one at a time; the pages of a large
//! block are reserved after it is taken, outside any lock, since that may take long.
//!
//! *Killed here:* before the commit, the block is still free; after it, it is in a cell of the dead
//! process (the sweep frees it) or of a container (which owns it).

use core::sync::atomic::{AtomicU64, Ordering};

use super::block::{Block, BlockId, DIRECTORY_LEN, DIRECTORY_OFFSET, Descriptor, State, TABLE_LEN};
use super::class::{self, ClassHead, SLAB, SMALL};
use super::{At, Heap, WINDOW, Word};
use crate::error::{HeapError, Result};
use crate::internal_lock::Store;
use crate::kill_point::{KillPoint, reach};
use crate::object::ObjectKind;
use crate::participant::{self, Seat};

/// Freed large blocks keep their pages up to this many bytes, or as many as are in use.
const WARM_MIN: u64 = 256 << 20;
const PAGE: u64 = 4096;

impl Heap {
    #[inline]
    pub(super) fn class(self, class: usize) -> At<ClassHead> {
        self.header().field(|h| &h.classes[class])
    }

    /// Takes a block of `bytes` and names it in `cell`, which must be empty and this process's own
    /// or guarded by a lock that it holds. The contents are whatever was there before.
    ///
    /// # Errors
    /// [`HeapError::OutOfMemory`] at the limit, [`HeapError::TooLarge`], an error of the system.
    #[inline]
    pub fn take(self, seat: Seat, bytes: u64, kind: ObjectKind, cell: Word) -> Result<Block> {
        let Some(class) = class::class_of(bytes) else {
            return Err(HeapError::TooLarge { bytes, limit: class::LARGEST });
        };
        let head = self.class(class);
        let guard = head.field(|h| &h.lock).lock_from(self, seat)?;
        let mut index = head.free.load(Ordering::Relaxed);
        if index == 0 {
            index = self.grow(seat, class)?;
        }
        let descriptor = self.descriptor(index)?;
        let state = State::from_bits(descriptor.state.load(Ordering::Relaxed));
        if state.kind != ObjectKind::FREE || state.class as usize != class {
            return Err(HeapError::corrupt("free list", descriptor.offset()));
        }
        let generation = state.generation;
        let id = BlockId::new(index as u32, generation);
        let taken = State { generation, owner: seat.slot() as u16, class: class as u8, kind: kind as u8 };
        guard.commit([
            Store::new(head.field(|h| &h.free), descriptor.next.load(Ordering::Relaxed)),
            Store::new(head.field(|h| &h.live), head.live.load(Ordering::Relaxed) + 1),
            Store::new(descriptor.field(|d| &d.state), taken.bits()),
            Store::new(descriptor.field(|d| &d.len), bytes),
            Store::new(descriptor.field(|d| &d.refs), 0),
            Store::new(cell, id.bits()),
        ]);
        drop(guard);
        reach(KillPoint::HeapTaken);
        let offset = descriptor.offset.load(Ordering::Relaxed);
        let block = Block { id, offset, len: bytes, kind: kind as u8, descriptor };
        if class::size_of_class(class) > SMALL {
            if let Err(error) = self.back_with_pages(seat, block) {
                self.give_back(seat, id, cell)?;
                return Err(error);
            }
        }
        Ok(block)
    }

    /// Frees the block that `cell` names, and empties the cell. Nothing happens if the cell names
    /// another block by now.
    ///
    /// # Errors
    /// [`HeapError::Corrupt`] if the descriptor makes no sense.
    #[inline]
    pub fn give_back(self, seat: Seat, id: BlockId, cell: Word) -> Result<()> {
        self.give_back_leaving(seat, id, cell, 0)
    }

    /// As [`Heap::give_back`], leaving `after` in the cell.
    #[inline]
    pub(crate) fn give_back_leaving(self, seat: Seat, id: BlockId, cell: Word, after: u64) -> Result<()> {
        let descriptor = self.descriptor(u64::from(id.index()))?;
        let state = State::from_bits(descriptor.state.load(Ordering::Acquire));
        let class = state.class as usize;
        if class >= class::CLASSES {
            return Err(HeapError::corrupt("descriptor", descriptor.offset()));
        }
        let head = self.class(class);
        let guard = head.field(|h| &h.lock).lock_from(self, seat)?;
        let now = State::from_bits(descriptor.state.load(Ordering::Relaxed));
        if cell.load(Ordering::Relaxed) != id.bits()
            || now.generation != id.generation()
            || now.kind == ObjectKind::FREE
        {
            return Ok(());
        }
        // Generation 0 is skipped so that no id has the bits of a bare index.
        let generation = now.generation.checked_add(1).unwrap_or(1);
        let freed = State { generation, owner: 0, class: state.class, kind: ObjectKind::FREE };
        guard.commit([
            Store::new(descriptor.field(|d| &d.state), freed.bits()),
            Store::new(descriptor.field(|d| &d.next), head.free.load(Ordering::Relaxed)),
            Store::new(head.field(|h| &h.free), u64::from(id.index())),
            Store::new(head.field(|h| &h.live), head.live.load(Ordering::Relaxed).saturating_sub(1)),
            Store::new(cell, after),
        ]);
        drop(guard);
        if class::size_of_class(class) > WINDOW {
            self.cool_down(seat, class, descriptor);
        }
        Ok(())
    }

    /// Carves a slab (or one larger block) for `class`, whose lock the caller holds; returns the
    /// first descriptor of the new free list.
    #[cold]
    fn grow(self, seat: Seat, class: usize) -> Result<u64> {
        let size = class::size_of_class(class);
        let header = self.header();
        let head = self.class(class);
        let guard = header.field(|h| &h.grow).lock_from(self, seat)?;

        let (bytes, count) = if size <= SMALL { (SLAB, SLAB / size) } else { (size.next_multiple_of(PAGE), 1) };
        let start = place(header.end.load(Ordering::Relaxed), bytes);
        let mut end = start + bytes;
        let first = header.descriptors.load(Ordering::Relaxed);
        let last = first + count;
        if last > u64::from(u32::MAX) || last / TABLE_LEN >= DIRECTORY_LEN {
            return Err(HeapError::TooLarge { bytes, limit: u64::from(u32::MAX) });
        }

        // New tables of descriptors, if the last one is full. Their pages come as they are touched,
        // and are counted here.
        let mut committed = header.committed.load(Ordering::Relaxed);
        let limit = header.limit.load(Ordering::Relaxed);
        for table in first / TABLE_LEN..=last / TABLE_LEN {
            let directory = super::window::fixed::<AtomicU64>(DIRECTORY_OFFSET + table * 8);
            if directory.load(Ordering::Relaxed) == 0 {
                let at = end.next_multiple_of(WINDOW);
                self.reserve(&mut committed, limit, at, WINDOW)?;
                end = at + WINDOW;
                // Published before `end` and `descriptors` are: nobody looks there until then, and a
                // death here wastes one table, once.
                header.end.store(end, Ordering::Release);
                header.committed.store(committed, Ordering::Relaxed);
                directory.store(at, Ordering::Release);
            }
        }
        if size <= SMALL {
            self.reserve(&mut committed, limit, start, bytes)?;
        }
        // `end` must be beyond the descriptors' windows before they can be looked at.
        for step in 0..count {
            let descriptor = self.descriptor_in_growth(first + step)?;
            let next = if step + 1 < count { first + step + 1 } else { 0 };
            let free = State { generation: 1, owner: 0, class: class as u8, kind: ObjectKind::FREE };
            descriptor.offset.store(start + step * size, Ordering::Relaxed);
            descriptor.next.store(next, Ordering::Relaxed);
            descriptor.committed.store(0, Ordering::Relaxed);
            descriptor.refs.store(0, Ordering::Relaxed);
            descriptor.state.store(free.bits(), Ordering::Release);
        }
        reach(KillPoint::HeapGrown);
        guard.commit([
            Store::new(header.field(|h| &h.end), end.max(header.end.load(Ordering::Relaxed))),
            Store::new(header.field(|h| &h.committed), committed),
            Store::new(header.field(|h| &h.high_water), committed.max(header.high_water.load(Ordering::Relaxed))),
            Store::new(header.field(|h| &h.descriptors), last),
            Store::new(head.field(|h| &h.free), first),
        ]);
        Ok(first)
    }

    /// Adds to the account and gets the pages, or neither.
    fn reserve(self, committed: &mut u64, limit: u64, offset: u64, bytes: u64) -> Result<()> {
        if committed.saturating_add(bytes) > limit {
            return Err(HeapError::OutOfMemory { needed: bytes, committed: *committed, limit });
        }
        self.allocate_pages(offset, bytes)?;
        *committed += bytes;
        Ok(())
    }

    fn allocate_pages(self, offset: u64, bytes: u64) -> Result<()> {
        let file = super::window::file();
        if !file.is_still_ours() {
            return Err(HeapError::FileTaken);
        }
        file.allocate(offset, bytes).map_err(HeapError::os("fallocate"))
    }

    /// Makes sure that a large block's first `len` bytes have pages, so that touching them can
    /// neither fail with a signal nor wake the OOM killer unannounced.
    #[cold]
    fn back_with_pages(self, seat: Seat, block: Block) -> Result<()> {
        reach(KillPoint::HeapLargeTaken);
        let have = block.descriptor.committed.load(Ordering::Relaxed);
        let want = block.len.next_multiple_of(PAGE);
        if want <= have {
            if have > WINDOW {
                self.account(seat, |warm, committed| (warm.saturating_sub(have), committed), None)?;
            }
            return Ok(());
        }
        let limit = self.header().limit.load(Ordering::Relaxed);
        let needed = want - have;
        if self.header().committed.load(Ordering::Relaxed).saturating_add(needed) > limit {
            self.trim(seat)?;
        }
        let committed = self.header().committed.load(Ordering::Relaxed);
        if committed.saturating_add(needed) > limit {
            return Err(HeapError::OutOfMemory { needed, committed, limit });
        }
        self.allocate_pages(block.offset + have, needed)?;
        let cooled = if have > WINDOW { have } else { 0 };
        self.account(seat, |warm, all| (warm.saturating_sub(cooled), all + needed), Some((block.descriptor, want)))
    }

    /// Changes the account of pages, and a descriptor's share in it, in one step.
    fn account(
        self,
        seat: Seat,
        change: impl FnOnce(u64, u64) -> (u64, u64),
        share: Option<(At<Descriptor>, u64)>,
    ) -> Result<()> {
        let header = self.header();
        let guard = header.field(|h| &h.grow).lock_from(self, seat)?;
        let (warm, committed) = change(header.warm.load(Ordering::Relaxed), header.committed.load(Ordering::Relaxed));
        let warm = Store::new(header.field(|h| &h.warm), warm);
        let high = committed.max(header.high_water.load(Ordering::Relaxed));
        let high = Store::new(header.field(|h| &h.high_water), high);
        let committed = Store::new(header.field(|h| &h.committed), committed);
        match share {
            Some((descriptor, bytes)) => {
                guard.commit([warm, high, committed, Store::new(descriptor.field(|d| &d.committed), bytes)]);
            }
            None => guard.commit([warm, high, committed]),
        }
        Ok(())
    }

    /// A large block was freed: keeps its pages warm, or gives them back if many are warm already.
    #[cold]
    fn cool_down(self, seat: Seat, class: usize, descriptor: At<Descriptor>) {
        let have = descriptor.committed.load(Ordering::Relaxed);
        let header = self.header();
        let (warm, committed) = (header.warm.load(Ordering::Relaxed), header.committed.load(Ordering::Relaxed));
        // Failing here only means that memory goes back later.
        let _ = self.account(seat, |warm, committed| (warm + have, committed), None);
        if warm + have > WARM_MIN.max(committed / 2) {
            let _ = self.trim_class(seat, class);
        }
    }

    /// Gives the pages of all freed large blocks back to the system.
    ///
    /// # Errors
    /// If a lock cannot be taken.
    #[cold]
    pub fn trim(self, seat: Seat) -> Result<()> {
        let Some(first) = class::class_of(SMALL + 1) else { return Ok(()) };
        for class in first..class::CLASSES {
            self.trim_class(seat, class)?;
        }
        Ok(())
    }

    fn trim_class(self, seat: Seat, class: usize) -> Result<()> {
        let head = self.class(class);
        let _guard = head.field(|h| &h.lock).lock_from(self, seat)?;
        let mut index = head.free.load(Ordering::Relaxed);
        while index != 0 {
            let descriptor = self.descriptor(index)?;
            let have = descriptor.committed.load(Ordering::Relaxed);
            if have > 0 {
                let cooled = if have > WINDOW { have } else { 0 };
                let at = descriptor.offset.load(Ordering::Relaxed);
                super::window::file().punch_hole(at, have).map_err(HeapError::os("fallocate"))?;
                let less = |warm: u64, all: u64| (warm.saturating_sub(cooled), all.saturating_sub(have));
                self.account(seat, less, Some((descriptor, 0)))?;
            }
            index = descriptor.next.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes a block into the calling thread's transit cell `cell` (see
    /// [`participant::Seat::transit`]); a shorthand for tests and the layer above.
    ///
    /// # Errors
    /// As [`Heap::take`].
    pub fn take_transit(self, bytes: u64, kind: ObjectKind, cell: usize) -> Result<Block> {
        let seat = participant::seat(self)?;
        self.take(seat, bytes, kind, seat.transit(cell))
    }
}

/// Where `bytes` begin at or after `end`: small slabs and blocks never straddle a window.
fn place(end: u64, bytes: u64) -> u64 {
    let start = end.next_multiple_of(PAGE);
    let room = WINDOW - start % WINDOW;
    if bytes <= room || bytes > WINDOW { start } else { start.next_multiple_of(WINDOW) }
}
