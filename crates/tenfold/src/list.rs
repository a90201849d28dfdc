//! A list that processes share.

use core::cmp::Ordering;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Bound, RangeBounds};
use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tenfold_engine::shm::item::Item;
use tenfold_engine::shm::list::List as Bytes;
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::{Heap, ObjectKind};

use crate::error::{Error, Result};
use crate::payload::{self, Message};

/// Items that an iterator reads at a time.
const BATCH: u64 = 256;

/// A list in shared memory, with the methods of [`Vec`]. Clones are handles to the same list; send them
/// to other processes like any value.
///
/// There is no server: each operation is done by the process that asks for it, whole or not at all,
/// whoever dies. Items are copied in and out. Adding and removing is quick at both ends; in the middle
/// it copies the list's spine, eight bytes an item.
///
/// ```
/// # fn main() -> tenfold::Result<()> {
/// let list = tenfold::List::from_iter([3, 1, 2])?;
/// list.push(0)?;
/// list.sort()?;
/// assert_eq!(list.to_vec()?, [0, 1, 2, 3]);
/// assert_eq!(list.pop()?, Some(3));
/// # Ok(())
/// # }
/// ```
pub struct List<T> {
    inner: Bytes,
    types: PhantomData<fn() -> T>,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        List { inner: self.inner.clone(), types: PhantomData }
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("len", &self.inner.len()).finish_non_exhaustive()
    }
}

impl<T: 'static> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        payload::serialize_handle::<Self, S>(self.inner.handle(), serializer)
    }
}

impl<'de, T: 'static> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        let handle = payload::deserialize_handle::<Self, D>(ObjectKind::List, deserializer)?;
        let inner = Bytes::from_handle(handle).map_err(serde::de::Error::custom)?;
        Ok(List { inner, types: PhantomData })
    }
}

impl<T: Message> List<T> {
    /// An empty list.
    ///
    /// # Errors
    /// [`Error::Heap`] if the shared heap has no room.
    pub fn new() -> Result<Self> {
        Ok(List { inner: Bytes::create(Heap::get()?)?, types: PhantomData })
    }

    /// A list of these items.
    ///
    /// # Errors
    /// As [`List::push`].
    #[allow(clippy::should_implement_trait)] // The trait's cannot fail.
    pub fn from_iter(items: impl IntoIterator<Item = T>) -> Result<Self> {
        let list = List::new()?;
        list.extend(items)?;
        Ok(list)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.inner.len() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Puts an item at the end.
    ///
    /// # Errors
    /// [`Error::Heap`] if the shared heap has no room; [`Error::Encode`]. The list is then as before.
    pub fn push(&self, item: T) -> Result<()> {
        Ok(outgoing(&item, |item| self.inner.push(item))??)
    }

    /// Removes the last item and returns it.
    ///
    /// # Errors
    /// [`Error::Decode`] if the bytes are not a `T`; the item is then gone all the same.
    pub fn pop(&self) -> Result<Option<T>> {
        self.inner.pop()?.map(decode).transpose()
    }

    /// The item at `index`.
    ///
    /// # Errors
    /// [`Error::Decode`] if the bytes are not a `T`.
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        let look = |bytes: &[u8], handles: &[_]| payload::decode(bytes, handles.to_vec());
        self.inner.get_with(index as u64, look)?.transpose()
    }

    /// Replaces the item at `index`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none; as [`List::push`].
    pub fn set(&self, index: usize, item: T) -> Result<()> {
        let done = outgoing(&item, |item| self.inner.set(index as u64, item))??;
        self.found(done, index)
    }

    fn found(&self, found: bool, index: usize) -> Result<()> {
        let absent = || Error::InvalidArgument(format!("the list has {} items, none at {index}", self.len()));
        if found { Ok(()) } else { Err(absent()) }
    }

    /// Sets the item at `index` to what `change` makes of it.
    ///
    /// No other process's write comes in between: `change` runs without a lock, and if the list changed
    /// meanwhile, it is called again.
    ///
    /// # Errors
    /// As [`List::set`].
    pub fn update(&self, index: usize, mut change: impl FnMut(T) -> T) -> Result<()> {
        let at = index as u64;
        loop {
            let (mut items, changes) = self.inner.slice(at, at.saturating_add(1))?;
            let Some(item) = items.pop() else { return self.found(false, index) };
            let new = change(decode(item)?);
            if outgoing(&new, |item| self.inner.set_if(at, item, changes))?? {
                return Ok(());
            }
        }
    }

    /// Puts an item before the one at `index`; at the end, if there is none.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn insert(&self, index: usize, item: T) -> Result<()> {
        Ok(outgoing(&item, |item| self.inner.insert(index as u64, item))??)
    }

    /// Removes the item at `index` and returns it, if there is one.
    ///
    /// # Errors
    /// As [`List::pop`].
    pub fn remove(&self, index: usize) -> Result<Option<T>> {
        self.inner.remove(index as u64)?.map(decode).transpose()
    }

    /// Removes the item at `index`, putting the last one in its place, and returns it.
    ///
    /// # Errors
    /// As [`List::pop`].
    pub fn swap_remove(&self, index: usize) -> Result<Option<T>> {
        self.inner.swap_remove(index as u64)?.map(decode).transpose()
    }

    /// Exchanges two items.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one of them does not exist.
    pub fn swap(&self, one: usize, other: usize) -> Result<()> {
        let done = self.inner.swap(one as u64, other as u64)?;
        self.found(done, one.max(other))
    }

    /// Puts many items at the end: other processes see none or all of them.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<()> {
        Encoded::new(items)?.with(|items| self.inner.extend(items))
    }

    /// Replaces the items of a range by others, all at once.
    ///
    /// # Errors
    /// As [`List::push`].
    pub fn splice(&self, range: impl RangeBounds<usize>, items: impl IntoIterator<Item = T>) -> Result<()> {
        let (from, to) = bounds(&range);
        Encoded::new(items)?.with(|items| self.inner.splice(from, to, items))
    }

    /// Copies of the items of a range, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let (from, to) = bounds(&range);
        self.inner.slice(from, to)?.0.into_iter().map(decode).collect()
    }

    /// Copies of all items, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.slice(..)
    }

    /// Removes all items.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn clear(&self) -> Result<()> {
        Ok(self.inner.clear()?)
    }

    /// Turns the order round.
    ///
    /// # Errors
    /// [`Error::Heap`] if the heap has no room; the list is then as before.
    pub fn reverse(&self) -> Result<()> {
        Ok(self.inner.reverse()?)
    }

    /// Sorts the items, equal ones staying in their order.
    ///
    /// # Errors
    /// As [`List::sort_by`].
    pub fn sort(&self) -> Result<()>
    where
        T: Ord,
    {
        self.sort_by(T::cmp)
    }

    /// Sorts the items by a key, equal ones staying in their order.
    ///
    /// # Errors
    /// As [`List::sort_by`].
    pub fn sort_by_key<K: Ord>(&self, mut key: impl FnMut(&T) -> K) -> Result<()> {
        self.sort_by(|a, b| key(a).cmp(&key(b)))
    }

    /// Sorts the items by a comparison, equal ones staying in their order. The comparison runs on a
    /// copy, without a lock; if another process changes the list meanwhile, all is done again.
    ///
    /// # Errors
    /// [`Error::Decode`]; [`Error::Heap`] if the heap has no room. The list is then as before.
    pub fn sort_by(&self, mut compare: impl FnMut(&T, &T) -> Ordering) -> Result<()> {
        loop {
            let (items, changes) = self.inner.slice(0, u64::MAX)?;
            let items: Vec<T> = items.into_iter().map(decode).collect::<Result<_>>()?;
            let mut order: Vec<u32> = (0..items.len() as u32).collect();
            order.sort_by(|&a, &b| compare(&items[a as usize], &items[b as usize]));
            if self.inner.reorder(&order, changes)? {
                return Ok(());
            }
        }
    }

    /// Whether one of the items is `item`.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn contains(&self, item: &T) -> Result<bool>
    where
        T: PartialEq,
    {
        Ok(self.position(item)?.is_some())
    }

    /// Where the first item is that equals `item`.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn position(&self, item: &T) -> Result<Option<usize>>
    where
        T: PartialEq,
    {
        for (index, other) in self.iter().enumerate() {
            if other? == *item {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// How many items equal `item`.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn count(&self, item: &T) -> Result<usize>
    where
        T: PartialEq,
    {
        self.iter().try_fold(0, |count, other| Ok(count + usize::from(other? == *item)))
    }

    /// Goes through the items by their index, without a copy of all of them. What other processes do
    /// meanwhile is seen in part.
    pub fn iter(&self) -> Iter<T> {
        Iter { list: self.clone(), batch: VecDeque::new(), next: Some(0) }
    }
}

fn outgoing<T: Message, R>(item: &T, f: impl FnOnce(Outgoing<'_>) -> R) -> Result<R> {
    payload::encoded(item, |bytes, handles| f(Outgoing { parts: &[bytes], handles }))
}

fn decode<T: Message>(item: Item) -> Result<T> {
    payload::decode(&item.bytes, item.handles)
}

fn bounds(range: &impl RangeBounds<usize>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&from) => from as u64,
        Bound::Excluded(&before) => before as u64 + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&last) => last as u64 + 1,
        Bound::Excluded(&to) => to as u64,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// Many items, encoded end to end.
struct Encoded {
    bytes: Vec<u8>,
    handles: Vec<tenfold_engine::Handle>,
    /// Where each item ends: bytes, handles.
    ends: Vec<(usize, usize)>,
}

impl Encoded {
    fn new<T: Message>(items: impl IntoIterator<Item = T>) -> Result<Encoded> {
        let mut all = Encoded { bytes: Vec::new(), handles: Vec::new(), ends: Vec::new() };
        for item in items {
            // Each item counts its handles from its own first one.
            let mut held = Vec::new();
            payload::append(&item, &mut all.bytes, &mut held)?;
            all.handles.append(&mut held);
            all.ends.push((all.bytes.len(), all.handles.len()));
        }
        Ok(all)
    }

    fn with<E: Into<Error>>(
        &self,
        f: impl FnOnce(&mut dyn ExactSizeIterator<Item = Outgoing<'_>>) -> core::result::Result<(), E>,
    ) -> Result<()> {
        let starts = core::iter::once((0, 0)).chain(self.ends.iter().copied());
        let ranges: Vec<_> = starts.zip(&self.ends).collect();
        let parts: Vec<[&[u8]; 1]> = ranges.iter().map(|((from, _), (to, _))| [&self.bytes[*from..*to]]).collect();
        let mut items = ranges
            .iter()
            .zip(&parts)
            .map(|(((_, from), (_, to)), parts)| Outgoing { parts, handles: &self.handles[*from..*to] });
        f(&mut items).map_err(Into::into)
    }
}

/// An iterator over a list's items, see [`List::iter`].
#[derive(Debug)]
pub struct Iter<T> {
    list: List<T>,
    batch: VecDeque<Item>,
    next: Option<u64>,
}

impl<T: Message> Iterator for Iter<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.is_empty() {
            let from = self.next.take()?;
            match self.list.inner.slice(from, from + BATCH) {
                Ok((items, _)) => {
                    self.next = (!items.is_empty()).then_some(from + BATCH);
                    self.batch = items.into();
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
        self.batch.pop_front().map(decode)
    }
}

impl<T: Message> IntoIterator for &List<T> {
    type Item = Result<T>;
    type IntoIter = Iter<T>;

    fn into_iter(self) -> Iter<T> {
        self.iter()
    }
}
