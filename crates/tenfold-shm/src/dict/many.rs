//! Many keys at once.

use core::sync::atomic::Ordering;

use super::entry::{self, New};
use super::key::Key;
use super::table::{Found, Table};
use super::{Dict, Tables, Write};
use crate::error::Result;
use crate::heap::Word;
use crate::internal_lock::Guard;
use crate::item::Transit;
use crate::kill_point::{KillPoint, reach};
use crate::message::Outgoing;
use crate::object;
use crate::participant::{self, Seat};
use crate::spine::{Range, Spine};

impl Dict {
    /// Sets many keys under one lock, in order; a key that comes twice keeps its last value. Readers
    /// see none or all of them; if this process dies half-way, the first ones are there.
    ///
    /// # Errors
    /// As [`Dict::insert`]; if the heap fills up half-way, the first ones may be there.
    pub fn insert_many<'a, K: Into<Key<'a>>>(
        &self,
        entries: impl ExactSizeIterator<Item = (K, Outgoing<'a>)>,
    ) -> Result<()> {
        let seat = participant::seat(self.heap())?;
        if self.root.overwrites.load(Ordering::Relaxed) != 0 {
            // No code of the caller's runs under the lock.
            let entries: Vec<_> = entries.map(|(key, value)| (key.into(), value)).collect();
            return self.overwrite_many(seat, &entries);
        }
        let heap = self.heap();
        // The entries' blocks belong to a spine of ours meanwhile, and what they replace later on.
        let aside = Transit::new(heap, seat, 0);
        let count = entries.len() as u64;
        let spine = Spine::build(heap, seat, aside.word(), count, 1)?;
        let mut built = Vec::with_capacity(count as usize);
        for ((key, value), cell) in entries.zip(spine.words(count)) {
            let (key, cell) = (key.into(), cell?);
            cell.store(0, Ordering::Relaxed);
            spine.owned_word().store(Range::new(0, built.len() as u64 + 1).bits(), Ordering::Release);
            built.push((cell, key, value, entry::write(heap, seat, key, value, cell)?));
        }
        reach(KillPoint::DictEntryBuilt);
        let mut tables = Tables::new(heap, seat);
        let guard = self.lock(seat)?;
        tables.now = Table::open(heap, self.root)?;
        for (cell, key, value, new) in built {
            self.put_one(&guard, &mut tables, new, key, value, cell)?;
            reach(KillPoint::DictManyHalf);
        }
        Ok(())
    }

    /// Puts an entry that is written to `cell` into the dict, in the spelling that is there.
    fn put_one(
        &self,
        guard: &Guard,
        tables: &mut Tables,
        new: New,
        key: Key<'_>,
        value: Outgoing<'_>,
        cell: Word,
    ) -> Result<()> {
        for part in &tables.old {
            part.release()?;
        }
        let done = self.put(guard, tables, &new, key, cell, Write::Always)?;
        if let Some(there) = done.spelling {
            object::release(self.heap(), guard.seat(), cell)?;
            let key = key.respelled(&there);
            let new = entry::write(self.heap(), guard.seat(), key, value, cell)?;
            self.put(guard, tables, &new, key, cell, Write::Always)?;
        }
        Ok(())
    }

    /// As [`Dict::insert_many`], when most values are expected to fit over those that are there. What does not is written
    /// under the lock.
    fn overwrite_many(&self, seat: Seat, entries: &[(Key<'_>, Outgoing<'_>)]) -> Result<()> {
        let heap = self.heap();
        let cell = Transit::new(heap, seat, 0);
        let mut tables = Tables::new(heap, seat);
        let guard = self.lock(seat)?;
        tables.now = Table::open(heap, self.root)?;
        for &(key, value) in entries {
            let found = match &tables.now {
                Some(table) => Some(table.find_key(key.hash(), key)?),
                None => None,
            };
            let done = match (found, value.parts) {
                (Some(Found::Entry { entry, .. }), [bytes]) if value.handles.is_empty() => {
                    entry.overwrite(&guard, bytes)?
                }
                _ => false,
            };
            if !done {
                self.overwrites(false);
                let new = entry::write(heap, seat, key, value, cell.word())?;
                self.put_one(&guard, &mut tables, new, key, value, cell.word())?;
                cell.release()?;
            }
            reach(KillPoint::DictManyHalf);
        }
        Ok(())
    }
}
