//! Where shared objects come from, for those who know Python's `Manager`.

use bytemuck::Pod;
use serde::{Deserialize, Serialize};
use tenfold_engine::Heap;

use crate::error::Result;
use crate::payload::Message;
use crate::{
    Array, Barrier, BoundedSemaphore, Condition, Dict, Event, JoinableQueue, List, Lock, Namespace, Queue, RLock,
    RwLock, Semaphore, Value,
};

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

    /// A lock.
    ///
    /// # Errors
    /// As [`Lock::new`].
    pub fn lock(&self) -> Result<Lock> {
        Lock::new()
    }

    /// A lock that its holder can take again.
    ///
    /// # Errors
    /// As [`RLock::new`].
    pub fn rlock(&self) -> Result<RLock> {
        RLock::new()
    }

    /// A lock for many readers or one writer.
    ///
    /// # Errors
    /// As [`RwLock::new`].
    pub fn rwlock(&self) -> Result<RwLock> {
        RwLock::new()
    }

    /// A semaphore with `permits` to begin with.
    ///
    /// # Errors
    /// As [`Semaphore::new`].
    pub fn semaphore(&self, permits: u64) -> Result<Semaphore> {
        Semaphore::new(permits)
    }

    /// A semaphore that never has more than its first `permits`.
    ///
    /// # Errors
    /// As [`BoundedSemaphore::new`].
    pub fn bounded_semaphore(&self, permits: u64) -> Result<BoundedSemaphore> {
        BoundedSemaphore::new(permits)
    }

    /// A condition with a lock of its own.
    ///
    /// # Errors
    /// As [`Condition::new`].
    pub fn condition(&self) -> Result<Condition> {
        Condition::new()
    }

    /// An event that has not happened.
    ///
    /// # Errors
    /// As [`Event::new`].
    pub fn event(&self) -> Result<Event> {
        Event::new()
    }

    /// A meeting point of `parties`.
    ///
    /// # Errors
    /// As [`Barrier::new`].
    pub fn barrier(&self, parties: u64) -> Result<Barrier> {
        Barrier::new(parties)
    }

    /// An unbounded queue.
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn queue<T: Message>(&self) -> Result<Queue<T>> {
        Queue::new()
    }

    /// An unbounded queue that counts finished tasks.
    ///
    /// # Errors
    /// As [`JoinableQueue::new`].
    pub fn joinable_queue<T: Message>(&self) -> Result<JoinableQueue<T>> {
        JoinableQueue::new()
    }

    /// A value of plain data.
    ///
    /// # Errors
    /// As [`Value::new`].
    pub fn value<T: Pod>(&self, value: T) -> Result<Value<T>> {
        Value::new(value)
    }

    /// An array of plain data.
    ///
    /// # Errors
    /// As [`Array::from_iter`].
    pub fn array<T: Pod>(&self, elements: impl IntoIterator<Item = T>) -> Result<Array<T>> {
        Array::from_iter(elements)
    }
}
