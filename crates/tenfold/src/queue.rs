//! Queues of values: [`Queue`], [`SimpleQueue`] and [`JoinableQueue`].

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tenfold_engine::shm::message::{Outgoing, Payload};
use tenfold_engine::shm::queue::{Arrival, Queue as Bytes, QueueError};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap, ObjectKind};

use crate::error::{Error, Result};
use crate::payload::{self, Message};

/// Values that [`Queue::put_many`] encodes and puts at a time.
const BATCH: usize = 256;

/// A value that could not be put, and why.
///
/// Becomes an [`Error`] by `?`, which drops the value.
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct PutError<T> {
    /// What was wrong.
    pub error: Error,
    /// What was not put.
    pub message: T,
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> PutError<T> {
    /// The value that was not put.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// Whether a bounded queue had no room (in time).
    pub fn is_full(&self) -> bool {
        matches!(self.error, Error::Queue(QueueError::Full) | Error::TimedOut { .. })
    }

    /// Whether the queue is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.error, Error::Queue(QueueError::Closed))
    }
}

impl<T> From<PutError<T>> for Error {
    fn from(error: PutError<T>) -> Error {
        error.error
    }
}

/// Encodes a value and puts it.
#[inline]
pub(crate) fn put<T: Message>(
    message: T,
    put: impl FnOnce(Outgoing<'_>) -> core::result::Result<(), QueueError>,
) -> core::result::Result<(), PutError<T>> {
    let put = payload::encoded(&message, |bytes, handles| put(Outgoing { parts: &[bytes], handles }));
    match put {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(PutError { error: error.into(), message }),
        Err(error) => Err(PutError { error, message }),
    }
}

/// Decodes a value that has arrived.
#[inline(always)]
pub(crate) fn decode<T: Message>(arrival: Arrival<'_>) -> Result<T> {
    match arrival {
        Arrival::Short(bytes) => payload::decode_bare(bytes),
        Arrival::Long(payload) => decode_long(&payload),
    }
}

#[inline(never)]
fn decode_long<T: Message>(payload: &Payload) -> Result<T> {
    let handles = payload.handles()?;
    payload.with(|bytes| payload::decode(bytes, handles))?
}

/// A first-in first-out queue of values among processes. Any number of them may put and get.
///
/// Clones are handles to the same queue; send them to other processes like any value, also through a
/// queue. The values lie in shared memory: there is no thread behind it, a process may exit right
/// after its `put`, and a value of any size that memory allows goes through. A value is encoded by
/// the process that puts it, so what cannot be encoded is an error there.
///
/// ```
/// use tenfold::{Process, Queue};
///
/// fn produce((queue, n): (Queue<String>, u32)) -> tenfold::Result<()> {
///     for i in 0..n {
///         queue.put(format!("item {i}"))?;
///     }
///     Ok(())
/// }
///
/// fn main() -> tenfold::Result<()> {
///     let queue = Queue::new()?;
///     Process::spawn(produce, (queue.clone(), 2))?;
///     assert_eq!(queue.get()?, "item 0");
///     assert_eq!(queue.get()?, "item 1");
///     Ok(())
/// }
/// ```
///
/// # If a process dies
/// A value is in the queue or it is not; what a process had put before it was killed stays. A value
/// that it had got and not dealt with is gone with it. Nobody else is held up.
pub struct Queue<T> {
    inner: Bytes,
    types: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { inner: self.inner.clone(), types: PhantomData }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.inner.len()).finish_non_exhaustive()
    }
}

impl<T: Message> Queue<T> {
    /// A queue without a limit.
    ///
    /// # Errors
    /// [`Error::Heap`] if the shared heap has no room.
    pub fn new() -> Result<Self> {
        Ok(Queue { inner: Bytes::create(Heap::get()?, None)?, types: PhantomData })
    }

    /// A queue that holds at most `capacity` values: then [`Queue::put`] waits.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `capacity` is 0; [`Error::Heap`] if the shared heap has no room.
    pub fn bounded(capacity: usize) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::InvalidArgument(
                "a queue of capacity 0 could never hold a value; use 1 or more, or Queue::new()".to_owned(),
            ));
        }
        Ok(Queue { inner: Bytes::create(Heap::get()?, Some(capacity as u64))?, types: PhantomData })
    }

    fn from_handle(handle: Handle) -> Result<Self> {
        Ok(Queue { inner: Bytes::from_handle(handle)?, types: PhantomData })
    }

    fn handle(&self) -> &Handle {
        self.inner.handle()
    }

    /// Puts a value at the end. Blocks while a bounded queue is full.
    ///
    /// # Errors
    /// With the value: [`Error::Encode`], [`QueueError::Closed`], or [`Error::Heap`] if the shared heap
    /// has no room.
    #[inline]
    pub fn put(&self, message: T) -> core::result::Result<(), PutError<T>> {
        put(message, |outgoing| self.inner.put(outgoing, Deadline::never()))
    }

    /// Puts a value at the end. Blocks while a bounded queue is full, for `timeout` at most.
    ///
    /// # Errors
    /// As [`Queue::put`], and [`Error::TimedOut`].
    pub fn put_timeout(&self, message: T, timeout: Duration) -> core::result::Result<(), PutError<T>> {
        put(message, |outgoing| self.inner.put(outgoing, Deadline::after(timeout)))
    }

    /// Puts a value at the end if there is room for it now.
    ///
    /// # Errors
    /// As [`Queue::put`], and [`QueueError::Full`].
    pub fn try_put(&self, message: T) -> core::result::Result<(), PutError<T>> {
        put(message, |outgoing| self.inner.try_put(outgoing))
    }

    /// Puts several values, in order, faster than one by one. Blocks while a bounded queue is full; the
    /// values of other processes may come in between.
    ///
    /// # Errors
    /// As [`Queue::put`], with those values that were not put.
    pub fn put_many(&self, messages: impl IntoIterator<Item = T>) -> core::result::Result<(), PutError<Vec<T>>> {
        let mut messages = messages.into_iter();
        loop {
            let mut batch: Vec<T> = messages.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let (put, error) = self.put_batch(&batch);
            if let Some(error) = error {
                batch.drain(..put);
                batch.extend(messages);
                return Err(PutError { error, message: batch });
            }
        }
    }

    /// Puts what can be put of a batch: how many that were, and why not all.
    fn put_batch(&self, batch: &[T]) -> (usize, Option<Error>) {
        let put = |outgoing: &[Outgoing<'_>], cannot_encode| match self.inner.put_many(outgoing, Deadline::never()) {
            Ok(()) => (outgoing.len(), cannot_encode),
            Err(error) => (error.put, Some(error.error.into())),
        };
        if payload::is_raw::<T>() {
            let parts: Vec<[&[u8]; 1]> = batch.iter().filter_map(payload::as_raw).map(|bytes| [bytes]).collect();
            let outgoing: Vec<_> = parts.iter().map(|parts| Outgoing { parts, handles: &[] }).collect();
            return put(&outgoing, None);
        }
        let (mut bytes, mut handles) = (Vec::new(), Vec::new());
        let mut ends = Vec::with_capacity(batch.len());
        let mut cannot_encode = None;
        for message in batch {
            let first = handles.len();
            // Each message has a list of handles of its own, in which its bytes count them.
            let mut own = Vec::new();
            if let Err(error) = payload::append(message, &mut bytes, &mut own) {
                cannot_encode = Some(error);
                break;
            }
            handles.append(&mut own);
            ends.push((bytes.len(), first..handles.len()));
        }
        let mut start = 0;
        let parts: Vec<[&[u8]; 1]> = ends
            .iter()
            .map(|(end, _)| {
                let part = &bytes[start..*end];
                start = *end;
                [part]
            })
            .collect();
        let each = parts.iter().zip(&ends);
        let outgoing: Vec<Outgoing<'_>> =
            each.map(|(parts, (_, held))| Outgoing { parts, handles: &handles[held.clone()] }).collect();
        put(&outgoing, cannot_encode)
    }

    /// Takes the first value. Blocks while the queue is empty and not closed.
    ///
    /// # Errors
    /// [`QueueError::Closed`] if the queue is closed and drained; [`Error::Decode`], and the value is
    /// dropped; [`Error::Heap`].
    #[inline]
    pub fn get(&self) -> Result<T> {
        self.inner.get_with(Some(Deadline::never()), decode)?
    }

    /// Takes the first value. Blocks while the queue is empty and not closed, for `timeout` at most.
    ///
    /// # Errors
    /// As [`Queue::get`], and [`Error::TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.inner.get_with(Some(Deadline::after(timeout)), decode)?
    }

    /// Takes the first value if there is one now.
    ///
    /// # Errors
    /// As [`Queue::get`], and [`QueueError::Empty`].
    pub fn try_get(&self) -> Result<T> {
        self.inner.get_with(None, decode)?
    }

    /// Takes up to `max` values, faster than one by one: as many as there are, but blocks until there is
    /// one.
    ///
    /// # Errors
    /// As [`Queue::get`]. If one of them cannot be decoded, the others of this call are dropped too.
    pub fn get_many(&self, max: usize) -> Result<Vec<T>> {
        let (mut values, mut failure) = (Vec::with_capacity(max.min(self.len())), None);
        self.inner.get_many_with(max, Deadline::never(), |arrival| match decode(arrival) {
            Ok(value) => values.push(value),
            Err(error) => {
                failure.get_or_insert(error);
            }
        })?;
        failure.map_or(Ok(values), Err)
    }

    /// The values as they come, until the queue is closed and drained. Blocks while the queue is empty.
    ///
    /// ```
    /// # fn main() -> tenfold::Result<()> {
    /// let queue = tenfold::Queue::new()?;
    /// queue.put_many([1, 2, 3])?;
    /// queue.close()?;
    /// assert_eq!(queue.iter().sum::<tenfold::Result<i32>>()?, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> + '_ {
        core::iter::from_fn(|| match self.get() {
            Err(Error::Queue(QueueError::Closed)) => None,
            other => Some(other),
        })
    }

    /// Values in the queue: exact, at some moment of the call.
    pub fn len(&self) -> usize {
        self.inner.len() as usize
    }

    /// Whether the queue is empty, at some moment of the call.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Whether a put would have to wait, at some moment of the call.
    pub fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    /// How many values the queue holds at most, if there is a limit.
    pub fn capacity(&self) -> Option<usize> {
        self.inner.capacity().map(|capacity| capacity as usize)
    }

    /// Takes no values any more, from anyone: puts fail from now on, gets once the queue is drained.
    ///
    /// # Errors
    /// [`Error::Heap`] if this process cannot join the family.
    pub fn close(&self) -> Result<()> {
        Ok(self.inner.close()?)
    }
}

/// The least a queue can do: no limit, no time limits. See [`Queue`].
///
/// ```
/// # fn main() -> tenfold::Result<()> {
/// let queue = tenfold::SimpleQueue::new()?;
/// queue.put("hello".to_owned())?;
/// assert_eq!(queue.get()?, "hello");
/// assert!(queue.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct SimpleQueue<T>(Queue<T>);

impl<T> Clone for SimpleQueue<T> {
    fn clone(&self) -> Self {
        SimpleQueue(self.0.clone())
    }
}

impl<T> fmt::Debug for SimpleQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleQueue").field("len", &self.0.inner.len()).finish_non_exhaustive()
    }
}

impl<T: Message> SimpleQueue<T> {
    /// An empty queue.
    ///
    /// # Errors
    /// [`Error::Heap`] if the shared heap has no room.
    pub fn new() -> Result<Self> {
        Queue::new().map(SimpleQueue)
    }

    fn from_handle(handle: Handle) -> Result<Self> {
        Queue::from_handle(handle).map(SimpleQueue)
    }

    fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Puts a value at the end. Does not block.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn put(&self, message: T) -> core::result::Result<(), PutError<T>> {
        self.0.put(message)
    }

    /// Takes the first value. Blocks while the queue is empty and not closed.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub fn get(&self) -> Result<T> {
        self.0.get()
    }

    /// Whether the queue is empty, at some moment of the call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes no values any more. See [`Queue::close`].
    ///
    /// # Errors
    /// As [`Queue::close`].
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }
}

/// A queue of tasks that knows how many are not done yet. All of [`Queue`], and:
///
/// ```
/// use tenfold::{JoinableQueue, Process};
///
/// fn work(queue: JoinableQueue<u32>) -> tenfold::Result<()> {
///     for task in queue.iter() {
///         println!("working on {}", task?);
///         queue.task_done()?;
///     }
///     Ok(())
/// }
///
/// fn main() -> tenfold::Result<()> {
///     let queue = JoinableQueue::new()?;
///     Process::spawn(work, queue.clone())?;
///     queue.put_many(0..5)?;
///     queue.join()?; // all five are done
///     queue.close()
/// }
/// ```
///
/// # If a process dies
/// A task that it had got and not reported stays unfinished.
pub struct JoinableQueue<T>(Queue<T>);

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        JoinableQueue(self.0.clone())
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, unfinished) = (self.0.inner.len(), self.0.inner.unfinished());
        f.debug_struct("JoinableQueue").field("len", &len).field("unfinished", &unfinished).finish_non_exhaustive()
    }
}

impl<T> core::ops::Deref for JoinableQueue<T> {
    type Target = Queue<T>;
    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

impl<T: Message> JoinableQueue<T> {
    /// A queue without a limit.
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn new() -> Result<Self> {
        Queue::new().map(JoinableQueue)
    }

    /// A queue that holds at most `capacity` values.
    ///
    /// # Errors
    /// As [`Queue::bounded`].
    pub fn bounded(capacity: usize) -> Result<Self> {
        Queue::bounded(capacity).map(JoinableQueue)
    }

    fn from_handle(handle: Handle) -> Result<Self> {
        Queue::from_handle(handle).map(JoinableQueue)
    }

    fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Reports that a value that was got has been dealt with.
    ///
    /// # Errors
    /// [`QueueError::TooManyDone`] if that was said more often than values were put.
    pub fn task_done(&self) -> Result<()> {
        Ok(self.0.inner.task_done()?)
    }

    /// Waits until all values that were put have been reported done. Blocks.
    ///
    /// # Errors
    /// [`Error::Heap`] if this process cannot join the family.
    pub fn join(&self) -> Result<()> {
        Ok(self.0.inner.join(Deadline::never())?)
    }

    /// As [`JoinableQueue::join`], for `timeout` at most.
    ///
    /// # Errors
    /// As [`JoinableQueue::join`], and [`Error::TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        Ok(self.0.inner.join(Deadline::after(timeout))?)
    }

    /// Values that were put and not reported done.
    pub fn unfinished(&self) -> usize {
        self.0.inner.unfinished() as usize
    }
}

macro_rules! travels {
    ($($face:ident),*) => {$(
        impl<T: Message> Serialize for $face<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
                payload::serialize_handle::<Self, S>(self.handle(), serializer)
            }
        }

        impl<'de, T: Message> Deserialize<'de> for $face<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
                let handle = payload::deserialize_handle::<Self, D>(ObjectKind::Queue, deserializer)?;
                Self::from_handle(handle).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

travels!(Queue, SimpleQueue, JoinableQueue);
