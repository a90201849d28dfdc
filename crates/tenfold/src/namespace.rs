//! Named values that processes share.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tenfold_engine::shm::dict::{Dict as Bytes, Stamp};
use tenfold_engine::shm::item::Item;
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::{Heap, ObjectKind};

use crate::error::{Error, Result};
use crate::payload::{self, Message};

/// Names with values of any types, in shared memory. Clones are handles to the same names; send them
/// to other processes like any value.
///
/// A value is read as the type that it was written as; any other type is an error.
///
/// ```
/// # fn main() -> tenfold::Result<()> {
/// let settings = tenfold::Namespace::new()?;
/// settings.set("threads", &8_u32)?;
/// settings.set("name", &"tenfold".to_string())?;
/// assert_eq!(settings.get::<u32>("threads")?, Some(8));
/// assert!(settings.get::<u32>("name").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Bytes,
}

impl Serialize for Namespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        payload::serialize_handle::<Self, S>(self.inner.handle(), serializer)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        let handle = payload::deserialize_handle::<Self, D>(ObjectKind::Dict, deserializer)?;
        let inner = Bytes::from_handle(handle).map_err(serde::de::Error::custom)?;
        Ok(Namespace { inner })
    }
}

impl Namespace {
    /// A namespace without names.
    ///
    /// # Errors
    /// [`Error::Heap`] if the shared heap has no room.
    pub fn new() -> Result<Self> {
        Ok(Namespace { inner: Bytes::create(Heap::get()?)? })
    }

    /// Gives `name` a value.
    ///
    /// # Errors
    /// [`Error::Heap`] if the shared heap has no room; [`Error::Encode`].
    pub fn set<T: Message>(&self, name: &str, value: &T) -> Result<()> {
        outgoing(value, |value| self.inner.insert(name.as_bytes(), value))??;
        Ok(())
    }

    /// The value of `name`, if it has one.
    ///
    /// # Errors
    /// [`Error::Decode`] if it was written as another type.
    pub fn get<T: Message>(&self, name: &str) -> Result<Option<T>> {
        self.inner.get(name.as_bytes())?.map(decode).transpose()
    }

    /// Sets the value of `name` to what `change` makes of the one that is there. `change` may be called
    /// again if another process writes meanwhile.
    ///
    /// # Errors
    /// As [`Namespace::set`] and [`Namespace::get`].
    pub fn update<T: Message>(&self, name: &str, mut change: impl FnMut(Option<T>) -> T) -> Result<()> {
        loop {
            let (stamp, old): (Stamp, _) = self.inner.get_stamped(name.as_bytes())?;
            let new = change(old.map(decode).transpose()?);
            if outgoing(&new, |value| self.inner.insert_if(name.as_bytes(), value, stamp))?? {
                return Ok(());
            }
        }
    }

    /// Removes `name`. Returns whether it was there.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn remove(&self, name: &str) -> Result<bool> {
        Ok(self.inner.remove(name.as_bytes())?)
    }

    /// Whether `name` has a value.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn contains(&self, name: &str) -> Result<bool> {
        Ok(self.inner.contains(name.as_bytes())?)
    }

    /// All names, in the order in which they came.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.inner.keys()?.into_iter();
        Ok(names.map(|name| String::from_utf8_lossy(&name).into_owned()).collect())
    }
}

/// A value is preceded by its type's fingerprint.
fn outgoing<T: Message, R>(value: &T, f: impl FnOnce(Outgoing<'_>) -> R) -> Result<R> {
    let fingerprint = payload::fingerprint::<T>().to_le_bytes();
    payload::encoded(value, |bytes, handles| f(Outgoing { parts: &[&fingerprint, bytes], handles }))
}

fn decode<T: Message>(item: Item) -> Result<T> {
    match item.bytes.split_first_chunk() {
        Some((fingerprint, bytes)) if *fingerprint == payload::fingerprint::<T>().to_le_bytes() => {
            payload::decode(bytes, item.handles)
        }
        _ => Err(Error::Decode {
            type_name: core::any::type_name::<T>(),
            reason: "the name was given a value of another type".into(),
        }),
    }
}
