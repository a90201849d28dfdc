//! A map from byte strings to byte strings, in the order of insertion.
//!
//! ```text
//!  root ┬ lock        entries spine ── position 0, 1, 2 … ── one block an entry {key, value}
//!       ├ table ─────▶
//!       └ len, version  index spine ── hash ▶ position
//! ```
//!
//! An entry is a block. It is written aside, in a transit cell, before the lock is taken; a record then moves
//! it into its place and what was there into the transit cell, from which it is freed after the lock. A short
//! value that gives way to one of the same length is overwritten instead, by one record, if the dict's latest
//! writes were of that kind, too. Readers take the lock too, and copy.
//!
//! A full table is replaced by a larger one, built aside under the lock and published by one record;
//! see [`table`]. Who wants to change a value with its own code reads it with its [`Stamp`], computes
//! without the lock, and writes only if the stamp still holds.
//!
//! *Killed here:* before the record, the entry is the dead process's and the sweep frees it; after
//! it, it is in the dict, and the replaced one is the dead process's.

mod batch;
mod entry;
mod hash;
mod key;
mod many;
mod table;

use core::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Shared};
use crate::internal_lock::{Guard, InternalLock, Store};
use crate::item::{Item, Transit};
use crate::kill_point::{KillPoint, reach};
use crate::message::Outgoing;
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Seat};
use entry::{Entry, New};
use table::{Found, Table};

pub use batch::{Batch, Kin, Pair};
pub use key::Key;

#[repr(C)]
struct Root {
    lock: InternalLock,
    entries: AtomicU64,
    index: AtomicU64,
    /// Entries that are not removed.
    len: AtomicU64,
    /// Changes with every change of the keys or their order.
    version: AtomicU64,
    /// No entry is at this position or a later one; a hint, for [`Dict::pop_last`].
    last: AtomicU64,
    /// Whether the latest write replaced a value by one that fits over it; a hint.
    overwrites: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Root {}
const _: () = assert!(size_of::<Root>() <= 256);

/// A shared map. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Dict {
    handle: Handle,
    root: At<Root>,
}

/// Which value a key had: changes with every write to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<(BlockId, u64)>);

impl Stamp {
    /// The stamp of a key that is not there.
    pub const ABSENT: Stamp = Stamp(None);

    fn of(id: BlockId, entry: &Entry) -> Result<Stamp> {
        Ok(Stamp(Some((id, entry.writes()?))))
    }
}

/// What [`Dict::write`] does with a key.
#[derive(Clone, Copy)]
enum Write {
    Always,
    IfAbsent,
    IfStamp(Stamp),
    AtVersion(u64),
}

impl Dict {
    /// Makes an empty dict.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap) -> Result<Dict> {
        let handle = Handle::create(heap, ObjectKind::Dict, size_of::<Root>() as u64, |_| Ok(()))?;
        Dict::from_handle(handle)
    }

    /// The dict behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Dict> {
        let handle = handle.expect(ObjectKind::Dict)?;
        let root = handle.view::<Root>()?;
        Ok(Dict { handle, root })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How many keys there are.
    pub fn len(&self) -> u64 {
        self.root.len.load(Ordering::Acquire)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that changes with every change of the keys or their order, but not when a value is
    /// replaced.
    pub fn version(&self) -> u64 {
        self.root.version.load(Ordering::Acquire)
    }

    fn heap(&self) -> Heap {
        self.handle.heap()
    }

    #[inline]
    fn lock(&self, seat: Seat) -> Result<Guard> {
        self.root.field(|r| &r.lock).lock_from(self.heap(), seat)
    }

    fn next_version(&self) -> Store {
        Store::new(self.root.field(|r| &r.version), self.root.version.load(Ordering::Relaxed).wrapping_add(1))
    }

    fn new_len(&self, change: i64) -> Store {
        let len = self.root.len.load(Ordering::Relaxed).saturating_add_signed(change);
        Store::new(self.root.field(|r| &r.len), len)
    }

    /// Sets `key` to `value`. Returns whether it had a value before.
    ///
    /// # Errors
    /// If the heap has no room or a handle is stale; the dict is then as before.
    pub fn insert<'k>(&self, key: impl Into<Key<'k>>, value: Outgoing<'_>) -> Result<bool> {
        let (heap, seat, key) = (self.heap(), participant::seat(self.heap())?, key.into());
        if self.overwrite(seat, key, value, None)? {
            return Ok(true);
        }
        let entry = Transit::new(heap, seat, 0);
        self.write(&entry, seat, key, value, Write::Always).map(|done| done.before.is_some())
    }

    /// Sets `key` to `value` and returns the value before.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn replace<'k>(&self, key: impl Into<Key<'k>>, value: Outgoing<'_>) -> Result<Option<Item>> {
        let (heap, seat) = (self.heap(), participant::seat(self.heap())?);
        let entry = Transit::new(heap, seat, 0);
        self.write(&entry, seat, key.into(), value, Write::Always)?;
        entry.id().map(|old| Entry::far(heap, old)?.item()).transpose()
    }

    /// Sets `key` to `value` if its stamp is still `expected`, and returns whether it was. With
    /// [`Stamp::ABSENT`], only if there is no such key.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn insert_if<'k>(&self, key: impl Into<Key<'k>>, value: Outgoing<'_>, expected: Stamp) -> Result<bool> {
        let (heap, seat, key) = (self.heap(), participant::seat(self.heap())?, key.into());
        if self.overwrite(seat, key, value, Some(expected))? {
            return Ok(true);
        }
        let entry = Transit::new(heap, seat, 0);
        self.write(&entry, seat, key, value, Write::IfStamp(expected)).map(|done| done.written)
    }

    /// Sets `key` to `value` unless it has one. Returns the value that it had, if it had one.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn get_or_insert<'k>(&self, key: impl Into<Key<'k>>, value: Outgoing<'_>) -> Result<Option<Item>> {
        let key = key.into();
        if let Some(item) = self.get(key)? {
            return Ok(Some(item));
        }
        let (heap, seat) = (self.heap(), participant::seat(self.heap())?);
        let entry = Transit::new(heap, seat, 0);
        self.write(&entry, seat, key, value, Write::IfAbsent).map(|done| done.found)
    }

    /// Sets `key` to `value` if no key came or went since `version` and it has none; returns whether it was set. For faces
    /// that look for a key in another way first.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn insert_at_version<'k>(&self, key: impl Into<Key<'k>>, value: Outgoing<'_>, version: u64) -> Result<bool> {
        let (heap, seat) = (self.heap(), participant::seat(self.heap())?);
        let entry = Transit::new(heap, seat, 0);
        self.write(&entry, seat, key.into(), value, Write::AtVersion(version)).map(|done| done.written)
    }

    /// Notes whether the latest write could have been one over the value.
    fn overwrites(&self, could: bool) {
        let before = self.root.overwrites.load(Ordering::Relaxed);
        if before != u64::from(could) {
            self.root.overwrites.store(could.into(), Ordering::Relaxed);
        }
    }

    /// The bytes of a value that may fit over another, if the latest writes make that worth a look.
    #[inline]
    fn overwriting<'a>(&self, value: Outgoing<'a>) -> Option<&'a [u8]> {
        match value.parts {
            [bytes] if value.handles.is_empty() && self.root.overwrites.load(Ordering::Relaxed) != 0 => Some(bytes),
            _ => None,
        }
    }

    /// Writes `value` over the value of `key`, if the key is there (with the stamp, if one is expected) and the value fits.
    #[inline]
    fn overwrite(&self, seat: Seat, key: Key<'_>, value: Outgoing<'_>, expected: Option<Stamp>) -> Result<bool> {
        let Some(bytes) = self.overwriting(value) else { return Ok(false) };
        let guard = self.lock(seat)?;
        let Some(table) = Table::open(self.heap(), self.root)? else { return Ok(false) };
        let found = table.find_key(key.hash(), key)?;
        let done = match &found {
            Found::Entry { entry, .. } => match expected {
                Some(expected) if expected != found.stamp()? => return Ok(false),
                _ => entry.overwrite(&guard, bytes)?,
            },
            Found::Nowhere { .. } => false,
        };
        if !done {
            self.overwrites(false);
        }
        drop(guard);
        reach(KillPoint::DictEntryReplaced);
        Ok(done)
    }

    fn write(&self, entry: &Transit, seat: Seat, key: Key<'_>, value: Outgoing<'_>, how: Write) -> Result<Written> {
        let heap = self.heap();
        let mut spelling = None;
        loop {
            let key = spelling.as_deref().map_or(key, |there| key.respelled(there));
            let new = entry::write(heap, seat, key, value, entry.word())?;
            reach(KillPoint::DictEntryBuilt);
            let mut tables = Tables::new(heap, seat);
            let guard = self.lock(seat)?;
            tables.now = Table::open(heap, self.root)?;
            let mut done = self.put(&guard, &mut tables, &new, key, entry.word(), how)?;
            if let (Write::IfAbsent, Some(there)) = (how, done.before) {
                done.found = Some(Entry::far(heap, there)?.item()?);
            }
            drop(guard);
            reach(KillPoint::DictEntryReplaced);
            if done.spelling.is_none() {
                return Ok(done);
            }
            spelling = done.spelling;
            entry.release()?;
        }
    }

    /// Moves the entry `new` from `from` into the dict, and what it replaces to `from`.
    #[inline]
    fn put(
        &self,
        guard: &Guard,
        tables: &mut Tables,
        new: &New,
        key: Key<'_>,
        from: At<AtomicU64>,
        how: Write,
    ) -> Result<Written> {
        let heap = self.heap();
        let found = match tables.now {
            Some(table) => table.find_key(new.hash, key)?,
            None => Found::Nowhere { slot: from },
        };
        let before = match found {
            Found::Entry { id, .. } => Some(id),
            Found::Nowhere { .. } => None,
        };
        let nothing = Written { written: false, before, found: None, spelling: None };
        let wanted = match how {
            Write::Always => true,
            Write::IfAbsent => before.is_none(),
            Write::IfStamp(expected) => expected == found.stamp()?,
            Write::AtVersion(version) => before.is_none() && self.version() == version,
        };
        if !wanted {
            return Ok(nothing);
        }
        let mut slot = match found {
            Found::Entry { cell, mark, id: old, entry, .. } => {
                if let Some(there) = entry.other_spelling(key.bytes())? {
                    return Ok(Written { spelling: Some(there), ..nothing });
                }
                self.overwrites(new.fits(&entry));
                guard.commit([
                    Store::new(cell, new.id.bits()),
                    Store::new(mark, new.mark()),
                    Store::new(from, old.bits()),
                ]);
                return Ok(Written { written: true, ..nothing });
            }
            Found::Nowhere { slot } => slot,
        };
        let table = match tables.now {
            Some(table) if table.has_room() => table,
            _ => {
                let fresh = table::rebuild(heap, self.root, guard, &tables.old)?;
                tables.now = Some(fresh);
                if let Found::Nowhere { slot: free } = fresh.find_key(new.hash, key)? {
                    slot = free;
                }
                fresh
            }
        };
        let place = table.prepare(new)?;
        self.root.last.store(table.used() + 1, Ordering::Relaxed);
        guard.commit([
            Store::new(place.cell, new.id.bits()),
            place.owned,
            Store::new(slot, place.slot),
            self.new_len(1),
            self.next_version(),
            Store::new(from, 0),
        ]);
        Ok(Written { written: true, ..nothing })
    }

    /// Looks `key` up and calls `look` with the entry, under the lock.
    #[inline]
    fn with_entry<R>(&self, key: Key<'_>, look: impl FnOnce(BlockId, &Entry) -> Result<R>) -> Result<Option<R>> {
        let heap = self.heap();
        let seat = participant::seat(heap)?;
        let _guard = self.lock(seat)?;
        let Some(table) = Table::open(heap, self.root)? else { return Ok(None) };
        match table.find_key(key.hash(), key)? {
            Found::Entry { id, entry, .. } => look(id, &entry).map(Some),
            Found::Nowhere { .. } => Ok(None),
        }
    }

    /// A copy of the value of `key`.
    ///
    /// # Errors
    /// If the heap is corrupt or this process can hold no more objects.
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        self.with_entry(key.into(), |_, entry| entry.item())
    }

    /// Calls `f` with the value of `key`, without the lock: with a copy, on the stack if it is short.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn get_with<'k, R>(&self, key: impl Into<Key<'k>>, f: impl FnOnce(&[u8], &[Handle]) -> R) -> Result<Option<R>> {
        let copied = self.with_entry(key.into(), |_, entry| entry.copy())?;
        Ok(copied.map(|(bytes, handles)| f(bytes.bytes(), &handles)))
    }

    /// The value of `key` and its stamp, for [`Dict::insert_if`] and [`Dict::remove_if`].
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn get_stamped<'k>(&self, key: impl Into<Key<'k>>) -> Result<(Stamp, Option<Item>)> {
        let found = self.with_entry(key.into(), |id, entry| Ok((Stamp::of(id, entry)?, entry.item()?)))?;
        Ok(found.map_or((Stamp::ABSENT, None), |(stamp, item)| (stamp, Some(item))))
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        Ok(self.with_entry(key.into(), |_, _| Ok(()))?.is_some())
    }

    /// Removes `key`. Returns whether it was there.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn remove<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        let seat = participant::seat(self.heap())?;
        let entry = Transit::new(self.heap(), seat, 0);
        self.take_out(&entry, seat, key.into(), None)
    }

    /// Removes `key` if its stamp is still `expected`. Returns whether it was.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn remove_if<'k>(&self, key: impl Into<Key<'k>>, expected: Stamp) -> Result<bool> {
        let seat = participant::seat(self.heap())?;
        let entry = Transit::new(self.heap(), seat, 0);
        self.take_out(&entry, seat, key.into(), Some(expected))
    }

    /// Removes `key` and returns its value.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn pop<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        let (heap, seat) = (self.heap(), participant::seat(self.heap())?);
        let entry = Transit::new(heap, seat, 0);
        self.take_out(&entry, seat, key.into(), None)?;
        entry.id().map(|id| Entry::far(heap, id)?.item()).transpose()
    }

    /// Moves the entry of `key` from the dict to `to`.
    fn take_out(&self, to: &Transit, seat: Seat, key: Key<'_>, expected: Option<Stamp>) -> Result<bool> {
        let guard = self.lock(seat)?;
        let Some(table) = Table::open(self.heap(), self.root)? else {
            return Ok(expected == Some(Stamp::ABSENT));
        };
        let Found::Entry { slot, cell, id, entry, .. } = table.find_key(key.hash(), key)? else {
            return Ok(expected == Some(Stamp::ABSENT));
        };
        if expected.is_some_and(|expected| Ok(expected) != Stamp::of(id, &entry)) {
            return Ok(false);
        }
        self.unlink(&guard, slot, cell, id, to);
        drop(guard);
        reach(KillPoint::DictEntryRemoved);
        Ok(true)
    }

    fn unlink(&self, guard: &Guard, slot: At<AtomicU64>, cell: At<AtomicU64>, id: BlockId, to: &Transit) {
        guard.commit([
            Store::new(cell, 0),
            Store::new(slot, table::DELETED),
            self.new_len(-1),
            self.next_version(),
            Store::new(to.word(), id.bits()),
        ]);
    }

    /// Removes the entry that was inserted last and returns it.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn pop_last(&self) -> Result<Option<Pair>> {
        let (heap, seat) = (self.heap(), participant::seat(self.heap())?);
        let entry = Transit::new(heap, seat, 0);
        let guard = self.lock(seat)?;
        let Some(table) = Table::open(heap, self.root)? else { return Ok(None) };
        let mut position = self.root.last.load(Ordering::Relaxed).min(table.used());
        while let Some(last) = position.checked_sub(1) {
            position = last;
            let cell = table.cell(position)?;
            if let Some(id) = BlockId::from_bits(cell.load(Ordering::Relaxed)) {
                self.unlink(&guard, table.slot_of(position)?, cell, id, &entry);
                self.root.last.store(position, Ordering::Relaxed);
                drop(guard);
                reach(KillPoint::DictEntryRemoved);
                let entry = Entry::far(heap, id)?;
                return Ok(Some((entry.key_bytes()?, entry.item()?)));
            }
        }
        Ok(None)
    }

    /// Removes all keys.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn clear(&self) -> Result<()> {
        let (heap, seat) = (self.heap(), participant::seat(self.heap())?);
        let old_table = [Transit::new(heap, seat, 0), Transit::new(heap, seat, 1)];
        let guard = self.lock(seat)?;
        guard.commit([
            Store::new(old_table[0].word(), self.root.entries.load(Ordering::Relaxed)),
            Store::new(old_table[1].word(), self.root.index.load(Ordering::Relaxed)),
            Store::new(self.root.field(|r| &r.entries), 0),
            Store::new(self.root.field(|r| &r.index), 0),
            Store::new(self.root.field(|r| &r.len), 0),
            self.next_version(),
        ]);
        drop(guard);
        reach(KillPoint::DictCleared);
        Ok(())
    }
}

/// A dict's table under its lock, and the cells for the parts of the one that it replaced. Made before the lock is taken.
struct Tables {
    now: Option<Table>,
    old: [Transit; 2],
}

impl Tables {
    fn new(heap: Heap, seat: Seat) -> Tables {
        Tables { now: None, old: [Transit::new(heap, seat, 1), Transit::new(heap, seat, 2)] }
    }
}

struct Written {
    written: bool,
    before: Option<BlockId>,
    found: Option<Item>,
    /// The key is there in this spelling, which is to be kept: nothing is written yet.
    spelling: Option<Vec<u8>>,
}

pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let root = block.view::<Root>(heap, 0)?;
    object::release(heap, seat, root.field(|r| &r.entries))?;
    object::release(heap, seat, root.field(|r| &r.index))
}
