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
use super::huge::HUGE;
use super::{At, Heap, WINDOW, Word, limit};
use tenfold_sys::Errno;
use tenfold_sys::memory_file::MemoryFile;

use crate::error::{HeapError, Result};
use crate::internal_lock::Store;
use crate::kill_point::{KillPoint, reach};
use crate::object::ObjectKind;
use crate::participant::{self, Seat};

/// Freed large blocks keep their pages up to this many bytes, or as many as are in use.
const WARM_MIN: u64 = 256 << 20;
const PAGE: u64 = 4096;
/// Where the offsets end that a process can look at.
const REACH: u64 = super::window::WINDOWS_MAX as u64 * WINDOW;

/// A large block's share in the account of pages.
#[derive(Debug, Clone, Copy)]
struct Account {
    /// Bytes that have pages.
    committed: u64,
    /// Bytes of a free block that count as warm.
    warm: u64,
}

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
        debug_assert_eq!(cell.load(Ordering::Relaxed), 0, "a cell that names a block would lose it");
        let head = self.class(class);
        let guard = head.field(|h| &h.lock).lock_from(self, seat)?;
        let mut index = head.free.load(Ordering::Relaxed);
        if index == 0 {
            index = self.grow(seat, class, bytes)?;
        }
        let descriptor = self.descriptor(index)?;
        let state = State::from_bits(descriptor.state.load(Ordering::Relaxed));
        let offset = descriptor.offset.load(Ordering::Relaxed);
        if state.kind != ObjectKind::FREE || state.class as usize != class || !self.has_blocks(offset, bytes) {
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
        let block = Block { id, offset, len: bytes, kind: kind as u8, fresh: false, descriptor };
        if class::size_of_class(class) <= SMALL {
            return Ok(block);
        }
        match self.back_with_pages(seat, block) {
            Ok(fresh) => Ok(Block { fresh, ..block }),
            Err(error) => {
                self.give_back(seat, id, cell)?;
                Err(error)
            }
        }
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

    /// Carves a slab (or one larger block) for `class`, whose lock the caller holds, to take a block of
    /// `wanted` bytes from; returns the first descriptor of the new free list.
    #[cold]
    fn grow(self, seat: Seat, class: usize, wanted: u64) -> Result<u64> {
        let size = class::size_of_class(class);
        let header = self.header();
        let head = self.class(class);
        let guard = header.field(|h| &h.grow).lock_from(self, seat)?;

        let (bytes, count) = if size <= SMALL { (SLAB, SLAB / size) } else { (size.next_multiple_of(PAGE), 1) };
        let start = place(header.end.load(Ordering::Relaxed), bytes);
        let mut end = start + bytes;
        let limit = header.limit.load(Ordering::Relaxed);
        // Offsets are not used again by another class: one that can never have its pages gets none, and
        // large blocks leave some to the small ones.
        let room = if bytes > WINDOW { REACH / 4 * 3 } else { REACH };
        if wanted > limit || end + 2 * WINDOW > room {
            let committed = header.committed.load(Ordering::Relaxed);
            return Err(HeapError::OutOfMemory { needed: wanted, committed, limit });
        }
        let first = header.descriptors.load(Ordering::Relaxed);
        let last = first + count;
        if last > u64::from(u32::MAX) || last / TABLE_LEN >= DIRECTORY_LEN {
            return Err(HeapError::TooLarge { bytes, limit: u64::from(u32::MAX) });
        }

        limit::check_file_size((end + WINDOW).next_multiple_of(WINDOW))?;
        // New tables of descriptors, if the last one is full. Their pages come as they are touched,
        // and are counted here.
        let mut committed = header.committed.load(Ordering::Relaxed);
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
        // A window that is mapped has a file behind it, to its end: whatever offset is looked at, there is
        // no bus error. A growth that was killed may have made the file longer than this one does.
        match our_file()?.set_len(end.next_multiple_of(WINDOW)) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(HeapError::os("ftruncate")(error)),
        }
        // `end` must be beyond the descriptors' windows before they can be looked at.
        for step in 0..count {
            let descriptor = self.descriptor_in_growth(first + step)?;
            let next = if step + 1 < count { first + step + 1 } else { 0 };
            let free = State { generation: 1, owner: 0, class: class as u8, kind: ObjectKind::FREE };
            descriptor.offset.store(start + step * size, Ordering::Relaxed);
            descriptor.next.store(next, Ordering::Relaxed);
            descriptor.committed.store(0, Ordering::Relaxed);
            descriptor.warm.store(0, Ordering::Relaxed);
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
        limit::check_file_size(offset + bytes)?;
        let file = our_file()?;
        file.allocate(offset, bytes).map_err(|error| {
            // Part of it may have been allocated, of which no account would tell.
            let _ = file.punch_hole(offset, bytes);
            HeapError::os("fallocate")(error)
        })
    }

    /// Makes sure that a large block's first `len` bytes have pages, so that touching them can
    /// neither fail with a signal nor wake the OOM killer unannounced. Returns whether most are new, and small.
    #[cold]
    fn back_with_pages(self, seat: Seat, block: Block) -> Result<bool> {
        reach(KillPoint::HeapLargeTaken);
        let descriptor = block.descriptor;
        if descriptor.warm.load(Ordering::Relaxed) > 0 {
            self.account(seat, descriptor, |a| Some(Account { warm: 0, ..a }))?;
        }
        let have = descriptor.committed.load(Ordering::Relaxed);
        let want = block.len.next_multiple_of(PAGE);
        if want <= have {
            return Ok(false);
        }
        let needed = want - have;
        let header = self.header();
        let full = |committed: u64| committed.saturating_add(needed) > header.limit.load(Ordering::Relaxed);
        let out_of_memory = || HeapError::OutOfMemory {
            needed,
            committed: header.committed.load(Ordering::Relaxed),
            limit: header.limit.load(Ordering::Relaxed),
        };
        if full(header.committed.load(Ordering::Relaxed)) {
            self.trim(seat)?;
            if full(header.committed.load(Ordering::Relaxed)) {
                return Err(out_of_memory());
            }
        }
        let huge = block.take_huge_pages(self, have, want);
        // What is still missing.
        self.allocate_pages(block.offset + have, needed)?;
        reach(KillPoint::HeapPagesTaken);
        // Others may have grown meanwhile: what counts is the account.
        let fits = self.account(seat, descriptor, |a| {
            let fits = !full(header.committed.load(Ordering::Relaxed));
            fits.then_some(Account { committed: want, ..a })
        })?;
        if fits {
            return Ok(needed - huge > have + huge);
        }
        our_file()?.punch_hole(block.offset + have, needed).map_err(HeapError::os("fallocate"))?;
        Err(out_of_memory())
    }

    /// Changes a large block's share in the account of pages, and the account with it, in one step;
    /// or nothing, if `change` does not want to. Returns whether it did.
    fn account(
        self,
        seat: Seat,
        descriptor: At<Descriptor>,
        change: impl FnOnce(Account) -> Option<Account>,
    ) -> Result<bool> {
        let header = self.header();
        let guard = header.field(|h| &h.grow).lock_from(self, seat)?;
        let share = descriptor.field(|d| &d.committed);
        let warm_share = descriptor.field(|d| &d.warm);
        let before = Account { committed: share.load(Ordering::Relaxed), warm: warm_share.load(Ordering::Relaxed) };
        let Some(after) = change(before) else { return Ok(false) };
        let all = header.field(|h| &h.committed);
        let committed = (all.load(Ordering::Relaxed) + after.committed).saturating_sub(before.committed);
        let warm = header.field(|h| &h.warm);
        let high = header.field(|h| &h.high_water);
        guard.commit([
            Store::new(share, after.committed),
            Store::new(warm_share, after.warm),
            Store::new(all, committed),
            Store::new(warm, (warm.load(Ordering::Relaxed) + after.warm).saturating_sub(before.warm)),
            Store::new(high, committed.max(high.load(Ordering::Relaxed))),
        ]);
        Ok(true)
    }

    /// A large block was freed: keeps its pages warm, or gives them back if many are warm already.
    #[cold]
    fn cool_down(self, seat: Seat, class: usize, descriptor: At<Descriptor>) {
        let is_free = || State::from_bits(descriptor.state.load(Ordering::Acquire)).kind == ObjectKind::FREE;
        // Failing here only means that memory goes back later. Who takes the block meanwhile clears
        // the share after it has taken it, so one that is taken gets none here.
        let _ = self.account(seat, descriptor, |a| is_free().then_some(Account { warm: a.committed, ..a }));
        let header = self.header();
        let (warm, committed) = (header.warm.load(Ordering::Relaxed), header.committed.load(Ordering::Relaxed));
        let most = WARM_MIN.max(committed / 2);
        if warm > most {
            // Well below, or the next one would do it again.
            let _ = self.trim_class(seat, class, most / 2);
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
            self.trim_class(seat, class, 0)?;
        }
        Ok(())
    }

    /// Gives pages of the class's free blocks back until no more than `enough` bytes of all classes are warm; those of
    /// the blocks that would be taken last go first.
    fn trim_class(self, seat: Seat, class: usize, enough: u64) -> Result<()> {
        let head = self.class(class);
        let _guard = head.field(|h| &h.lock).lock_from(self, seat)?;
        let mut have = 0_u64;
        self.each_free(head, |descriptor| {
            have = have.saturating_add(descriptor.committed.load(Ordering::Relaxed));
            Ok(())
        })?;
        let excess = self.header().warm.load(Ordering::Relaxed).saturating_sub(enough);
        let mut keep = if enough == 0 { 0 } else { have.saturating_sub(excess) };
        self.each_free(head, |descriptor| {
            let have = descriptor.committed.load(Ordering::Relaxed);
            if have <= keep {
                keep -= have;
                return Ok(());
            }
            let at = descriptor.offset.load(Ordering::Relaxed);
            if !self.has_blocks(at, have) || have > class::size_of_class(class).next_multiple_of(PAGE) {
                return Err(HeapError::corrupt("pages of a free block", descriptor.offset()));
            }
            our_file()?.punch_hole(at, have).map_err(HeapError::os("fallocate"))?;
            self.account(seat, descriptor, |_| Some(Account { committed: 0, warm: 0 })).map(drop)
        })
    }

    /// Goes through the free blocks of a class, whose lock the caller holds.
    fn each_free(self, head: At<ClassHead>, mut f: impl FnMut(At<Descriptor>) -> Result<()>) -> Result<()> {
        let mut index = head.free.load(Ordering::Relaxed);
        // A list that is longer than there are descriptors is a ring.
        for _ in 0..self.header().descriptors.load(Ordering::Relaxed) {
            if index == 0 {
                break;
            }
            let descriptor = self.descriptor(index)?;
            f(descriptor)?;
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

/// The file, if its descriptor is still what it was.
pub(super) fn our_file() -> Result<&'static MemoryFile> {
    let file = super::window::file();
    if file.is_still_ours() { Ok(file) } else { Err(HeapError::FileTaken) }
}

/// Where `bytes` begin at or after `end`: small slabs and blocks never straddle a window, the largest begin where a huge
/// page can.
fn place(end: u64, bytes: u64) -> u64 {
    if bytes >= HUGE {
        return end.next_multiple_of(HUGE);
    }
    let start = end.next_multiple_of(PAGE);
    let room = WINDOW - start % WINDOW;
    if bytes <= room || bytes > WINDOW { start } else { start.next_multiple_of(WINDOW) }
}
