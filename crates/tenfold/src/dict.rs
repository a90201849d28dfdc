//! A map that processes share.

use core::borrow::Borrow;
use core::fmt;
use core::marker::PhantomData;
use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tenfold_engine::shm::dict::{Dict as Bytes, Stamp};
use tenfold_engine::shm::item::Item;
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::{Heap, ObjectKind};

use crate::error::Result;
use crate::key;
use crate::payload::{self, Message};

/// Entries that an iterator reads at a time.
const BATCH: u64 = 256;

/// A map in shared memory, with the methods of [`HashMap`](std::collections::HashMap) and the order of
/// insertion. Clones are handles to the same map; send them to other processes like any value.
///
/// There is no server: each operation is done by the process that asks for it, under a lock that is
/// held for well under a microsecond and repaired if its holder is killed. An operation happens whole
/// or not at all, whoever dies.
///
/// Values are copied in and out. To change one in place, use [`Dict::update`].
///
/// Keys are equal if serde writes them alike. So two keys that are `==` must be serialised alike; for
/// a `HashMap` inside a key, whose order is arbitrary, that is not so.
///
/// ```
/// # fn main() -> tenfold::Result<()> {
/// let capitals = tenfold::Dict::new()?;
/// capitals.insert("France".to_string(), "Paris".to_string())?;
/// assert_eq!(capitals.get("France")?.as_deref(), Some("Paris"));
/// assert_eq!(capitals.get("Atlantis")?, None);
/// # Ok(())
/// # }
/// ```
pub struct Dict<K, V> {
    inner: Bytes,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Dict<K, V> {
    fn clone(&self) -> Self {
        Dict { inner: self.inner.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for Dict<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dict").field("len", &self.inner.len()).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> Serialize for Dict<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        payload::serialize_handle::<Self, S>(self.inner.handle(), serializer)
    }
}

impl<'de, K: 'static, V: 'static> Deserialize<'de> for Dict<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        let handle = payload::deserialize_handle::<Self, D>(ObjectKind::Dict, deserializer)?;
        let inner = Bytes::from_handle(handle).map_err(serde::de::Error::custom)?;
        Ok(Dict { inner, types: PhantomData })
    }
}

impl<K: Message + Eq, V: Message> Dict<K, V> {
    /// An empty map.
    ///
    /// # Errors
    /// [`Error::Heap`](crate::Error::Heap) if the shared heap has no room.
    pub fn new() -> Result<Self> {
        Ok(Dict { inner: Bytes::create(Heap::get()?)?, types: PhantomData })
    }

    /// A map of these keys and values.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    #[allow(clippy::should_implement_trait)] // The trait's cannot fail.
    pub fn from_iter(entries: impl IntoIterator<Item = (K, V)>) -> Result<Self> {
        let dict = Dict::new()?;
        dict.extend(entries)?;
        Ok(dict)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.inner.len() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Sets the value of `key` and returns the one before. A key that was there keeps its place.
    ///
    /// # Errors
    /// [`Error::Heap`](crate::Error::Heap) if the shared heap has no room; [`Error::Encode`](crate::Error::Encode), [`Error::Decode`](crate::Error::Decode). The map is
    /// then as before.
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        let before = key::encoded(&key, |key| {
            payload::encoded(&value, |bytes, handles| self.inner.replace(key, Outgoing { parts: &[bytes], handles }))
        })???;
        before.map(decode).transpose()
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) if the bytes are not a `V`.
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let look = |bytes: &[u8], handles: &[_]| payload::decode(bytes, handles.to_vec());
        key::encoded(key, |key| self.inner.get_with(key, look))??.transpose()
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode).
    pub fn contains_key<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        Ok(key::encoded(key, |key| self.inner.contains(key))??)
    }

    /// Removes `key` and returns its value.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) if the bytes are not a `V`; the key is then gone all the same.
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        key::encoded(key, |key| self.inner.pop(key))??.map(decode).transpose()
    }

    /// Removes the key that was inserted last and returns it with its value.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode); the key is then gone all the same.
    pub fn pop_last(&self) -> Result<Option<(K, V)>> {
        self.inner.pop_last()?.map(decode_pair).transpose()
    }

    /// The value of `key`, which becomes `value` if it has none.
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn get_or_insert(&self, key: K, value: V) -> Result<V> {
        let found = key::encoded(&key, |key| {
            payload::encoded(&value, |bytes, handles| {
                self.inner.get_or_insert(key, Outgoing { parts: &[bytes], handles })
            })
        })???;
        found.map_or(Ok(value), decode)
    }

    /// Sets the value of `key` to what `change` makes of the one that is there.
    ///
    /// No other process's write comes in between: `change` runs without a lock, and if the value was
    /// written meanwhile, it is called again with the new one.
    ///
    /// ```
    /// # fn main() -> tenfold::Result<()> {
    /// let counts = tenfold::Dict::<String, u64>::new()?;
    /// for word in "a rose is a rose".split(' ') {
    ///     counts.update(word, |count| count.unwrap_or(0) + 1)?;
    /// }
    /// assert_eq!(counts.get("rose")?, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Dict::insert`].
    pub fn update<Q: Serialize + ?Sized>(&self, key: &Q, mut change: impl FnMut(Option<V>) -> V) -> Result<()>
    where
        K: Borrow<Q>,
    {
        key::encoded(key, |key| {
            loop {
                let (stamp, old) = self.inner.get_stamped(key)?;
                let new = change(old.map(decode).transpose()?);
                if self.write_if(key, &new, stamp)? {
                    return Ok(());
                }
            }
        })?
    }

    fn write_if(&self, key: &[u8], value: &V, stamp: Stamp) -> Result<bool> {
        let write =
            |bytes: &[u8], handles: &[_]| self.inner.insert_if(key, Outgoing { parts: &[bytes], handles }, stamp);
        Ok(payload::encoded(value, write)??)
    }

    /// Sets many keys under one lock: other processes see none or all of them.
    ///
    /// # Errors
    /// As [`Dict::insert`]; if the heap fills up half-way, the first ones may be there.
    pub fn extend(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        let (mut bytes, mut handles, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut start, mut first) = (0, 0);
        for (key, value) in entries {
            key::encoded(&key, |key| bytes.extend_from_slice(key))?;
            let middle = bytes.len();
            // Each entry counts its handles from its own first one.
            let mut held = Vec::new();
            payload::append(&value, &mut bytes, &mut held)?;
            handles.append(&mut held);
            ends.push((start..middle, middle..bytes.len(), first..handles.len()));
            (start, first) = (bytes.len(), handles.len());
        }
        let values: Vec<[&[u8]; 1]> = ends.iter().map(|(_, value, _)| [&bytes[value.clone()]]).collect();
        let entries = ends
            .iter()
            .zip(&values)
            .map(|((key, _, held), parts)| (&bytes[key.clone()], Outgoing { parts, handles: &handles[held.clone()] }));
        Ok(self.inner.insert_many(entries)?)
    }

    /// Removes all keys.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn clear(&self) -> Result<()> {
        Ok(self.inner.clear()?)
    }

    /// All keys, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode).
    pub fn keys(&self) -> Result<Vec<K>> {
        self.inner.keys()?.iter().map(|key| key::decode(key)).collect()
    }

    /// All values, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode).
    pub fn values(&self) -> Result<Vec<V>> {
        self.inner.values()?.into_iter().map(decode).collect()
    }

    /// All keys with their values, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode).
    pub fn items(&self) -> Result<Vec<(K, V)>> {
        self.inner.items()?.into_iter().map(decode_pair).collect()
    }

    /// Goes through the entries without a copy of all of them. Values may change meanwhile; if keys
    /// come or go, the iterator ends with [`HeapError::KeysChanged`](tenfold_engine::HeapError::KeysChanged).
    pub fn iter(&self) -> Iter<K, V> {
        Iter { dict: self.clone(), batch: VecDeque::new(), next: Some(0), version: None }
    }
}

fn decode<V: Message>(item: Item) -> Result<V> {
    payload::decode(&item.bytes, item.handles)
}

fn decode_pair<K: Message, V: Message>((key, value): (Vec<u8>, Item)) -> Result<(K, V)> {
    Ok((key::decode(&key)?, decode(value)?))
}

/// An iterator over a dict's entries, see [`Dict::iter`].
#[derive(Debug)]
pub struct Iter<K, V> {
    dict: Dict<K, V>,
    batch: VecDeque<(Vec<u8>, Item)>,
    next: Option<u64>,
    version: Option<u64>,
}

impl<K: Message + Eq, V: Message> Iterator for Iter<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.batch.is_empty() {
            match self.dict.inner.batch_of_items(self.next.take()?, self.version, BATCH) {
                Ok(batch) => {
                    (self.next, self.version) = (batch.next, Some(batch.version));
                    self.batch = batch.items.into();
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
        self.batch.pop_front().map(decode_pair)
    }
}

impl<K: Message + Eq, V: Message> IntoIterator for &Dict<K, V> {
    type Item = Result<(K, V)>;
    type IntoIter = Iter<K, V>;

    fn into_iter(self) -> Iter<K, V> {
        self.iter()
    }
}
