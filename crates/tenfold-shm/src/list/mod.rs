//! A sequence of byte strings.
//!
//! ```text
//!  root ┬ lock      ┌ room │ item │ item │ item │ … │ room ┐     one block an item
//!       ├ spine ───▶ └──────┴──────┴──────┴──────┴───┴──────┘
//!       └ len, changes       └── the range that the spine owns ──┘
//! ```
//!
//! Items are immutable blocks. At the ends a record moves one into or out of the owned range, so the
//! first item goes as quickly as the last. In the middle, and for `reverse` and `sort`, a new spine is
//! built aside and published by one record.
//!
//! *Killed here:* a new item is in a transit cell until the record that makes it the list's; a spine
//! aside owns nothing; a spine that was replaced owns just the items that left the list.

mod locked;
mod place;

use core::cmp::Ordering as Order;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Shared, Word};
use crate::internal_lock::{InternalLock, Store};
use crate::item::{self, Copies, Item, Transit};
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Seat};
use crate::spine::{Range, Spine};
use locked::{Added, Locked};

pub use place::Place;

/// Items for which a reader makes room at once.
const BATCH: u64 = 1 << 16;

#[repr(C)]
struct Root {
    lock: InternalLock,
    spine: AtomicU64,
    len: AtomicU64,
    /// Moves with every change.
    changes: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Root {}
const _: () = assert!(size_of::<Root>() <= 256);

/// A shared list. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct List {
    handle: Handle,
    root: At<Root>,
}

impl List {
    /// Makes an empty list.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap) -> Result<List> {
        let handle = Handle::create(heap, ObjectKind::List, size_of::<Root>() as u64, |_| Ok(()))?;
        List::from_handle(handle)
    }

    /// The list behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<List> {
        let handle = handle.expect(ObjectKind::List)?;
        let root = handle.view::<Root>()?;
        Ok(List { handle, root })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How many items there are.
    pub fn len(&self) -> u64 {
        self.root.len.load(Ordering::Acquire)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that moves with every change of the list.
    pub fn changes(&self) -> u64 {
        self.root.changes.load(Ordering::Acquire)
    }

    fn heap(&self) -> Heap {
        self.handle.heap()
    }

    fn seat(&self) -> Result<Seat> {
        participant::seat(self.heap())
    }

    fn transit(&self, seat: Seat, cell: usize) -> Transit {
        Transit::new(self.heap(), seat, cell)
    }

    #[inline]
    fn lock(&self, seat: Seat) -> Result<Locked> {
        let heap = self.heap();
        let guard = self.root.field(|r| &r.lock).lock_from(heap, seat)?;
        let id = BlockId::from_bits(self.root.spine.load(Ordering::Relaxed));
        let spine = id.map(|id| Spine::open(heap, id)).transpose()?;
        let range = spine.map_or(Range::EMPTY, |spine| spine.owned());
        if !range.makes_sense() {
            return Err(HeapError::corrupt("range of a list", self.root.offset()));
        }
        Ok(Locked { heap, root: self.root, guard, spine, range })
    }

    /// Writes an item aside.
    fn build(&self, seat: Seat, item: Outgoing<'_>, cell: &Transit) -> Result<BlockId> {
        let id = message::write(self.heap(), seat, item, cell.word())?;
        reach(KillPoint::ListItemBuilt);
        Ok(id)
    }

    /// Writes items aside, into a spine of their own.
    fn build_many<'a>(
        &self,
        seat: Seat,
        items: impl ExactSizeIterator<Item = Outgoing<'a>>,
        cell: &Transit,
    ) -> Result<Spine> {
        let count = items.len() as u64;
        let spine = Spine::build(self.heap(), seat, cell.word(), count, 1)?;
        for ((position, item), word) in (0..count).zip(items).zip(spine.words(count)) {
            let word = word?;
            word.store(0, Ordering::Relaxed);
            spine.owned_word().store(Range::new(0, position + 1).bits(), Ordering::Release);
            message::write(self.heap(), seat, item, word)?;
        }
        reach(KillPoint::ListItemBuilt);
        Ok(spine)
    }

    /// Puts an item at the end.
    ///
    /// # Errors
    /// If the heap has no room or a handle is stale; the list is then as before.
    pub fn push(&self, item: Outgoing<'_>) -> Result<()> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let id = self.build(seat, item, &cell)?;
        let old = self.transit(seat, 1);
        let mut list = self.lock(seat)?;
        let spine = list.with_room(&old, 1)?;
        let Range { from, to } = list.range;
        list.guard.commit([
            Store::new(spine.word(to)?, id.bits()),
            Store::new(spine.owned_word(), Range::new(from, to + 1).bits()),
            list.len(to + 1 - from),
            list.change(),
            Store::new(cell.word(), 0),
        ]);
        Ok(())
    }

    /// Puts many items at the end: all of them or, if this process dies, none.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn extend<'a>(&self, items: impl ExactSizeIterator<Item = Outgoing<'a>>) -> Result<()> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let aside = self.build_many(seat, items, &cell)?;
        let count = aside.owned().len();
        if count == 0 {
            return Ok(());
        }
        let old = self.transit(seat, 1);
        let mut list = self.lock(seat)?;
        let spine = list.with_room(&old, count)?;
        let Range { from, to } = list.range;
        spine.copy_from(&aside, 0, to, count)?;
        reach(KillPoint::ListManyCopied);
        list.guard.commit([
            Store::new(spine.owned_word(), Range::new(from, to + count).bits()),
            Store::new(aside.owned_word(), Range::EMPTY.bits()),
            list.len(to + count - from),
            list.change(),
        ]);
        Ok(())
    }

    /// Puts an item before the one at `at`, or at the nearest end if there is none.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn insert(&self, at: impl Into<Place>, item: Outgoing<'_>) -> Result<()> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let id = self.build(seat, item, &cell)?;
        let old = self.transit(seat, 1);
        let mut list = self.lock(seat)?;
        let at = at.into().clamped(list.range.len());
        let Range { from, to } = list.range;
        if let (Some(spine), 0, true) = (list.spine, at, from > 0) {
            list.guard.commit([
                Store::new(spine.word(from - 1)?, id.bits()),
                Store::new(spine.owned_word(), Range::new(from - 1, to).bits()),
                list.len(to + 1 - from),
                list.change(),
                Store::new(cell.word(), 0),
            ]);
            return Ok(());
        }
        list.splice(&old, at, 0, &Added::One { id, cell: cell.word() })
    }

    /// Replaces the items `from..to` (as far as they exist) by others, all at once.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn splice<'a>(
        &self,
        from: impl Into<Place>,
        to: impl Into<Place>,
        items: impl ExactSizeIterator<Item = Outgoing<'a>>,
    ) -> Result<()> {
        self.splice_by(from.into(), to.into(), items, None).map(|_| ())
    }

    /// As [`List::splice`], if the list has not changed since `changes`. Returns whether it was done.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn splice_if<'a>(
        &self,
        from: impl Into<Place>,
        to: impl Into<Place>,
        items: impl ExactSizeIterator<Item = Outgoing<'a>>,
        changes: u64,
    ) -> Result<bool> {
        self.splice_by(from.into(), to.into(), items, Some(changes))
    }

    fn splice_by<'a>(
        &self,
        from: Place,
        to: Place,
        items: impl ExactSizeIterator<Item = Outgoing<'a>>,
        changes: Option<u64>,
    ) -> Result<bool> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let aside = self.build_many(seat, items, &cell)?;
        let old = self.transit(seat, 1);
        let mut list = self.lock(seat)?;
        if changes.is_some_and(|changes| list.root.changes.load(Ordering::Relaxed) != changes) {
            return Ok(false);
        }
        let (from, to) = list.clamp(from, to);
        list.splice(&old, from, to - from, &Added::Many(aside))?;
        Ok(true)
    }

    /// Removes the items `from..to`, as far as they exist.
    ///
    /// # Errors
    /// If the heap is corrupt or has no room.
    pub fn remove_range(&self, from: impl Into<Place>, to: impl Into<Place>) -> Result<()> {
        self.splice(from, to, core::iter::empty())
    }

    /// Replaces the item at `at`. Returns whether there was one.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn set(&self, at: impl Into<Place>, item: Outgoing<'_>) -> Result<bool> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        self.exchange(&cell, seat, at.into(), item)
    }

    /// Replaces the item at `at` and returns the one before, if there was one.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn replace(&self, at: impl Into<Place>, item: Outgoing<'_>) -> Result<Option<Item>> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        if self.exchange(&cell, seat, at.into(), item)? { self.read_out(&cell) } else { Ok(None) }
    }

    fn exchange(&self, cell: &Transit, seat: Seat, at: Place, item: Outgoing<'_>) -> Result<bool> {
        let id = self.build(seat, item, cell)?;
        let list = self.lock(seat)?;
        let Some(word) = list.word(at)? else { return Ok(false) };
        list.guard.commit([
            Store::new(cell.word(), word.load(Ordering::Relaxed)),
            Store::new(word, id.bits()),
            list.change(),
        ]);
        drop(list);
        reach(KillPoint::ListItemRemoved);
        Ok(true)
    }

    /// Replaces the item at `at` if the list has not changed since `changes`. Returns whether it was
    /// replaced.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn set_if(&self, at: impl Into<Place>, item: Outgoing<'_>, changes: u64) -> Result<bool> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let id = self.build(seat, item, &cell)?;
        let list = self.lock(seat)?;
        if list.root.changes.load(Ordering::Relaxed) != changes {
            return Ok(false);
        }
        let Some(word) = list.word(at.into())? else { return Ok(false) };
        list.guard.commit([
            Store::new(cell.word(), word.load(Ordering::Relaxed)),
            Store::new(word, id.bits()),
            list.change(),
        ]);
        Ok(true)
    }

    /// Removes the item at `at` and returns it, if there is one.
    ///
    /// # Errors
    /// If the heap is corrupt or has no room.
    pub fn remove(&self, at: impl Into<Place>) -> Result<Option<Item>> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let mut list = self.lock(seat)?;
        let Range { from, to } = list.range;
        let Some(at) = at.into().index(to - from) else { return Ok(None) };
        let Some(word) = list.word(Place::Front(at))? else { return Ok(None) };
        let last = from + at + 1 == to;
        if at > 0 && !last {
            // The old spine goes to the transit cell, owning just this item.
            list.splice(&cell, at, 1, &Added::None)?;
            drop(list);
            reach(KillPoint::ListSpinePublished);
            let old = cell.id().map(|id| Spine::open(self.heap(), id)).transpose()?;
            return old.map(|old| self.read_item(old.word(old.owned().from)?)).transpose();
        }
        if let Some(spine) = list.spine {
            let range = if last { Range::new(from, to - 1) } else { Range::new(from + 1, to) };
            list.guard.commit([
                Store::new(spine.owned_word(), range.bits()),
                Store::new(cell.word(), word.load(Ordering::Relaxed)),
                list.len(range.len()),
                list.change(),
            ]);
        }
        drop(list);
        reach(KillPoint::ListItemRemoved);
        self.read_out(&cell)
    }

    /// Removes the last item and returns it.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn pop(&self) -> Result<Option<Item>> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let list = self.lock(seat)?;
        let (Some(spine), Range { from, to }) = (list.spine, list.range) else { return Ok(None) };
        if from == to {
            return Ok(None);
        }
        list.guard.commit([
            Store::new(cell.word(), spine.word(to - 1)?.load(Ordering::Relaxed)),
            Store::new(spine.owned_word(), Range::new(from, to - 1).bits()),
            list.len(to - 1 - from),
            list.change(),
        ]);
        drop(list);
        reach(KillPoint::ListItemRemoved);
        self.read_out(&cell)
    }

    /// Removes the item at `at`, putting the last one in its place, and returns it.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn swap_remove(&self, at: u64) -> Result<Option<Item>> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let list = self.lock(seat)?;
        let (Some(word), Some(spine)) = (list.word(Place::Front(at))?, list.spine) else { return Ok(None) };
        let Range { from, to } = list.range;
        let last = spine.word(to - 1)?.load(Ordering::Relaxed);
        list.guard.commit([
            Store::new(cell.word(), word.load(Ordering::Relaxed)),
            Store::new(word, last),
            Store::new(spine.owned_word(), Range::new(from, to - 1).bits()),
            list.len(to - 1 - from),
            list.change(),
        ]);
        drop(list);
        reach(KillPoint::ListItemRemoved);
        self.read_out(&cell)
    }

    /// Exchanges two items. Returns whether both exist.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn swap(&self, one: u64, other: u64) -> Result<bool> {
        let list = self.lock(self.seat()?)?;
        let (Some(one), Some(other)) = (list.word(one.into())?, list.word(other.into())?) else { return Ok(false) };
        let (first, second) = (one.load(Ordering::Relaxed), other.load(Ordering::Relaxed));
        list.guard.commit([Store::new(one, second), Store::new(other, first), list.change()]);
        Ok(true)
    }

    /// Removes all items.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn clear(&self) -> Result<()> {
        let seat = self.seat()?;
        let old = self.transit(seat, 0);
        let list = self.lock(seat)?;
        list.guard.commit([
            Store::new(old.word(), self.root.spine.load(Ordering::Relaxed)),
            Store::new(self.root.field(|r| &r.spine), 0),
            list.len(0),
            list.change(),
        ]);
        drop(list);
        reach(KillPoint::ListSpinePublished);
        Ok(())
    }

    fn read_item(&self, word: Word) -> Result<Item> {
        let id = BlockId::from_bits(word.load(Ordering::Relaxed))
            .ok_or(HeapError::corrupt("item of a list", word.offset()))?;
        item::read(self.heap(), self.heap().block(id)?, 0)
    }

    fn read_out(&self, cell: &Transit) -> Result<Option<Item>> {
        cell.id().map(|id| item::read(self.heap(), self.heap().block(id)?, 0)).transpose()
    }

    /// A copy of the item at `at`.
    ///
    /// # Errors
    /// If the heap is corrupt or this process can hold no more objects.
    pub fn get(&self, at: impl Into<Place>) -> Result<Option<Item>> {
        let list = self.lock(self.seat()?)?;
        list.word(at.into())?.map(|word| self.read_item(word)).transpose()
    }

    /// Calls `f` with the item at `at`, without the lock: with a copy, on the stack if it is short.
    ///
    /// # Errors
    /// As [`List::get`].
    pub fn get_with<R>(&self, at: impl Into<Place>, f: impl FnOnce(&[u8], &[Handle]) -> R) -> Result<Option<R>> {
        let heap = self.heap();
        let list = self.lock(self.seat()?)?;
        let Some(word) = list.word(at.into())? else { return Ok(None) };
        let id = BlockId::from_bits(word.load(Ordering::Relaxed))
            .ok_or(HeapError::corrupt("item of a list", word.offset()))?;
        let block = heap.block(id)?;
        let bytes = item::copy(heap, block, message::payload_start(heap, block)?)?;
        let handles = message::handles_of(heap, block)?;
        drop(list);
        Ok(Some(f(bytes.bytes(), &handles)))
    }

    /// Copies of the items `from..to`, as far as they exist, as they were at one moment, and the number
    /// of changes by then.
    ///
    /// # Errors
    /// As [`List::get`].
    pub fn slice(&self, from: impl Into<Place>, to: impl Into<Place>) -> Result<(Vec<Item>, u64)> {
        let mut items = Vec::with_capacity(self.len().min(BATCH) as usize);
        let changes = self.each(from.into(), to.into(), |block| {
            items.push(item::read(self.heap(), block, 0)?);
            Ok(())
        })?;
        Ok((items, changes))
    }

    /// As [`List::slice`], the copies end to end; quicker.
    ///
    /// # Errors
    /// As [`List::get`].
    pub fn copy_slice(&self, from: impl Into<Place>, to: impl Into<Place>) -> Result<(Copies, u64)> {
        let heap = self.heap();
        let mut copies = Copies::with_room(self.len());
        let changes = self.each(from.into(), to.into(), |block| {
            copies.push_from(heap, block, message::payload_start(heap, block)?, block.len())?;
            copies.keep_handles(heap, block)
        })?;
        Ok((copies, changes))
    }

    /// Calls `read` with the blocks of the items `from..to`, under the lock. Returns the number of changes.
    fn each(&self, from: Place, to: Place, mut read: impl FnMut(Block) -> Result<()>) -> Result<u64> {
        let heap = self.heap();
        let list = self.lock(self.seat()?)?;
        let (from, to) = list.clamp(from, to);
        if let Some(spine) = list.spine {
            spine.pieces(list.range.from + from, list.range.from + to, |_, piece| {
                piece.iter().try_for_each(|word| {
                    let id = BlockId::from_bits(word.load(Ordering::Relaxed)).ok_or(HeapError::Stale)?;
                    read(heap.block(id)?)
                })
            })?;
        }
        Ok(list.root.changes.load(Ordering::Relaxed))
    }

    /// Copies of all items, as they were at one moment.
    ///
    /// # Errors
    /// As [`List::get`].
    pub fn to_vec(&self) -> Result<Vec<Item>> {
        self.slice(0, Place::END).map(|(items, _)| items)
    }

    /// Turns the order round.
    ///
    /// # Errors
    /// If the heap is corrupt or has no room; the list is then as before.
    pub fn reverse(&self) -> Result<()> {
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let mut list = self.lock(seat)?;
        let len = list.range.len();
        list.reorder(&cell, |at| len - 1 - at)?;
        drop(list);
        reach(KillPoint::ListSpinePublished);
        Ok(())
    }

    /// Puts the items into another order, if the list has not changed since `changes`: item number `n`
    /// will be the one that was number `order[n]`. Returns whether it was done.
    ///
    /// # Errors
    /// As [`List::reverse`].
    ///
    /// # Panics
    /// If `order` is not a permutation of the items' numbers.
    pub fn reorder(&self, order: &[u32], changes: u64) -> Result<bool> {
        let mut seen = vec![false; order.len()];
        for &at in order {
            assert!(!core::mem::replace(&mut seen[at as usize], true), "an item is named twice");
        }
        let seat = self.seat()?;
        let cell = self.transit(seat, 0);
        let mut list = self.lock(seat)?;
        if list.root.changes.load(Ordering::Relaxed) != changes || list.range.len() != order.len() as u64 {
            return Ok(false);
        }
        list.reorder(&cell, |at| u64::from(order[at as usize]))?;
        drop(list);
        reach(KillPoint::ListSpinePublished);
        Ok(true)
    }

    /// Sorts the items, equal ones staying in their order. The comparison runs without the lock, on a
    /// copy; if another process changes the list meanwhile, all is done again.
    ///
    /// # Errors
    /// As [`List::reverse`].
    pub fn sort_by(&self, mut compare: impl FnMut(&Item, &Item) -> Order) -> Result<()> {
        loop {
            let (items, changes) = self.slice(0, Place::END)?;
            let mut order: Vec<u32> = (0..items.len() as u32).collect();
            order.sort_by(|&a, &b| compare(&items[a as usize], &items[b as usize]));
            if self.reorder(&order, changes)? {
                return Ok(());
            }
        }
    }
}

pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    object::release(heap, seat, block.view::<Root>(heap, 0)?.field(|r| &r.spine))
}
