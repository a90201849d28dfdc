//! Where shared objects come from, for those who know Python's `Manager`.

use serde::{Deserialize, Serialize};
use tenfold_engine::Heap;

use crate::error::Result;
use crate::payload::Message;
use crate::{Dict, List, Namespace};

/// Hands out shared objects.
///
/// In Python a manager is a server process that all others ask. Here the objects lie in shared memory
/// and each process works on them itself; there is no server to start, to wait for or to lose. The
/// manager is merely a place to find the constructors, and an object lives as long as anybody has a
/// handle to it.
///
/// ```
/// use tenfold::{Dict, List, Manager};
///
/// # fn main() -> tenfold::Result<()> {
/// let manager = Manager::new()?;
/// let (dict, list): (Dict<String, Option<i64>>, List<i64>) = (manager.dict()?, manager.list(0..10)?);
/// dict.insert("two".into(), Some(2))?;
/// list.reverse()?;
/// assert_eq!(dict.get("two")?, Some(Some(2)));
/// assert_eq!(list.to_vec()?, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager(());

impl Manager {
    /// A manager. Starts nothing.
    ///
    /// # Errors
    /// If the shared heap cannot be made.
    pub fn new() -> Result<Manager> {
        Heap::get()?;
        Ok(Manager(()))
    }

    /// An empty map.
    ///
    /// # Errors
    /// As [`Dict::new`].
    pub fn dict<K: Message + Eq, V: Message>(&self) -> Result<Dict<K, V>> {
        Dict::new()
    }

    /// A list of these items.
    ///
    /// # Errors
    /// As [`List::from_iter`].
    pub fn list<T: Message>(&self, items: impl IntoIterator<Item = T>) -> Result<List<T>> {
        List::from_iter(items)
    }

    /// A namespace without names.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn namespace(&self) -> Result<Namespace> {
        Namespace::new()
    }
}
