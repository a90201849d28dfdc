//! Many entries at once, copied under the dict's lock.

use core::sync::atomic::Ordering;

use super::entry::Entry;
use super::key::Key;
use super::table::Table;
use super::{Dict, Stamp};
use crate::error::{HeapError, Result};
use crate::item::{Copies, Item};
use crate::participant;

/// Entries for which a reader makes room at once.
const BATCH: u64 = 1 << 16;

/// A key and its value.
pub type Pair = (Vec<u8>, Item);

/// Some entries of a dict, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    /// The entries, or their keys or values.
    pub items: Vec<T>,
    /// Where the next batch begins; nothing is left if there is none.
    pub next: Option<u64>,
    /// The dict's version when the batch was read.
    pub version: u64,
}

/// The keys that have a beginning in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin {
    /// Each key's bytes, and the stamp of its value.
    pub keys: Vec<(Vec<u8>, Stamp)>,
    /// The dict's version when they were read.
    pub version: u64,
}

impl Dict {
    /// At most `limit` entries from position `from` on (0 is the first), read by `read` under the
    /// lock.
    fn batch<T>(
        &self,
        from: u64,
        version: Option<u64>,
        limit: u64,
        read: impl Fn(&Entry) -> Result<T>,
    ) -> Result<Batch<T>> {
        let heap = self.heap();
        let seat = participant::seat(heap)?;
        let mut items = Vec::with_capacity(limit.min(self.len()).min(BATCH) as usize);
        let _guard = self.lock(seat)?;
        let now = self.root.version.load(Ordering::Relaxed);
        if version.is_some_and(|version| version != now) {
            return Err(HeapError::KeysChanged);
        }
        let Some(table) = Table::open(heap, self.root)? else {
            return Ok(Batch { items, next: None, version: now });
        };
        let mut next = None;
        table.each(from, |position, entry| {
            if items.len() as u64 == limit {
                next = Some(position);
                return Ok(false);
            }
            items.push(read(&entry)?);
            Ok(true)
        })?;
        Ok(Batch { items, next, version: now })
    }

    /// At most `limit` keys and values from position `from` on: 0, or the end of the batch before.
    ///
    /// # Errors
    /// [`HeapError::KeysChanged`] if keys came or went since `version`; as [`Dict::get`].
    pub fn batch_of_items(&self, from: u64, version: Option<u64>, limit: u64) -> Result<Batch<Pair>> {
        self.batch(from, version, limit, |entry| Ok((entry.key_bytes()?, entry.item()?)))
    }

    /// As [`Dict::batch_of_items`], keys only.
    ///
    /// # Errors
    /// As [`Dict::batch_of_items`].
    pub fn batch_of_keys(&self, from: u64, version: Option<u64>, limit: u64) -> Result<Batch<Vec<u8>>> {
        self.batch(from, version, limit, Entry::key_bytes)
    }

    /// As [`Dict::batch_of_items`], values only.
    ///
    /// # Errors
    /// As [`Dict::batch_of_items`].
    pub fn batch_of_values(&self, from: u64, version: Option<u64>, limit: u64) -> Result<Batch<Item>> {
        self.batch(from, version, limit, Entry::item)
    }

    /// All keys and values, as they were at one moment.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn items(&self) -> Result<Vec<Pair>> {
        Ok(self.batch_of_items(0, None, u64::MAX)?.items)
    }

    /// All keys, as they were at one moment.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn keys(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.batch_of_keys(0, None, u64::MAX)?.items)
    }

    /// All values, as they were at one moment.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn values(&self) -> Result<Vec<Item>> {
        Ok(self.batch_of_values(0, None, u64::MAX)?.items)
    }

    /// Copies of what `copy` appends of each entry, as they were at one moment.
    fn copies(&self, copy: impl Fn(&Entry, &mut Copies) -> Result<()>) -> Result<Copies> {
        let seat = participant::seat(self.heap())?;
        let mut copies = Copies::with_room(self.len());
        let _guard = self.lock(seat)?;
        if let Some(table) = Table::open(self.heap(), self.root)? {
            table.each(0, |_, entry| copy(&entry, &mut copies).map(|()| true))?;
        }
        Ok(copies)
    }

    /// All keys and values in turn, as they were at one moment; quicker than [`Dict::items`].
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn copy_items(&self) -> Result<Copies> {
        self.copies(|entry, copies| {
            entry.copy_key(copies)?;
            entry.copy_value(copies)
        })
    }

    /// All keys, as they were at one moment.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn copy_keys(&self) -> Result<Copies> {
        self.copies(Entry::copy_key)
    }

    /// All values, as they were at one moment.
    ///
    /// # Errors
    /// As [`Dict::get`].
    pub fn copy_values(&self) -> Result<Copies> {
        self.copies(Entry::copy_value)
    }

    /// All keys of which exactly the bytes `beginning` are hashed, in no particular order.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn kin(&self, beginning: &[u8]) -> Result<Kin> {
        let seat = participant::seat(self.heap())?;
        let mut keys = Vec::new();
        let _guard = self.lock(seat)?;
        let version = self.root.version.load(Ordering::Relaxed);
        if let Some(table) = Table::open(self.heap(), self.root)? {
            table.find(Key::from(beginning).hash(), |id, entry| {
                let key = entry.key_bytes()?;
                if key.starts_with(beginning) {
                    keys.push((key, Stamp::of(id, entry)?));
                }
                Ok(false)
            })?;
        }
        Ok(Kin { keys, version })
    }
}
