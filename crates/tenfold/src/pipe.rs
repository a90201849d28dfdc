//! Pipes: two connections, each of which sends what the other receives.

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tenfold_engine::shm::connection;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Heap, ObjectKind};

use crate::error::Result;
use crate::payload::{self, Message};
use crate::queue::{self, PutError};

/// A pair of connections: what one sends, the other receives.
///
/// ```
/// use tenfold::{Connection, Process, pipe};
///
/// fn shout(end: Connection<String, String>) -> tenfold::Result<()> {
///     let word = end.recv()?;
///     Ok(end.send(word.to_uppercase())?)
/// }
///
/// fn main() -> tenfold::Result<()> {
///     let (here, there) = pipe::<String, String>()?;
///     let child = Process::spawn(shout, there)?;
///     here.send("hello".to_owned())?;
///     assert_eq!(here.recv()?, "HELLO");
///     child.join()
/// }
/// ```
///
/// # Errors
/// [`Error::Heap`](crate::Error::Heap) if the shared heap has no room.
pub fn pipe<T: Message, U: Message>() -> Result<(Connection<T, U>, Connection<U, T>)> {
    let (one, other) = connection::pipe(Heap::get()?)?;
    Ok((Connection { inner: one, types: PhantomData }, Connection { inner: other, types: PhantomData }))
}

/// One end of a [`pipe`]: sends `T`s and receives `U`s.
///
/// Clones are handles to the same end; send them to other processes like any value. Dropping the last
/// one, in all processes and messages, closes the end; so does the death of its last holder.
pub struct Connection<T, U> {
    inner: connection::Connection,
    types: PhantomData<fn(T) -> U>,
}

impl<T, U> Clone for Connection<T, U> {
    fn clone(&self) -> Self {
        Connection { inner: self.inner.clone(), types: PhantomData }
    }
}

impl<T, U> fmt::Debug for Connection<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.inner.incoming().map(|queue| queue.len());
        f.debug_struct("Connection").field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl<T: Message, U: Message> Connection<T, U> {
    /// Sends a value. Does not block: the value waits in shared memory.
    ///
    /// # Errors
    /// With the value: [`QueueError::Closed`](crate::QueueError::Closed) if nobody has the other end
    /// any more; [`Error::Encode`](crate::Error::Encode); [`Error::Heap`](crate::Error::Heap).
    #[inline]
    pub fn send(&self, message: T) -> core::result::Result<(), PutError<T>> {
        queue::put(message, |outgoing| self.inner.send(outgoing))
    }

    /// Receives the next value. Blocks until there is one.
    ///
    /// # Errors
    /// [`QueueError::Closed`](crate::QueueError::Closed) if all is received and nobody has the other end
    /// any more; [`Error::Decode`](crate::Error::Decode); [`Error::Heap`](crate::Error::Heap).
    #[inline]
    pub fn recv(&self) -> Result<U> {
        self.inner.receive_with(Some(Deadline::never()), queue::decode)?
    }

    /// As [`Connection::recv`], for `timeout` at most.
    ///
    /// # Errors
    /// As [`Connection::recv`], and [`Error::TimedOut`](crate::Error::TimedOut).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<U> {
        self.inner.receive_with(Some(Deadline::after(timeout)), queue::decode)?
    }

    /// Receives the next value if there is one now.
    ///
    /// # Errors
    /// As [`Connection::recv`], and [`QueueError::Empty`](crate::QueueError::Empty).
    pub fn try_recv(&self) -> Result<U> {
        self.inner.receive_with(None, queue::decode)?
    }

    /// Waits until [`Connection::recv`] would not block: a value is there, or nobody has the other end any
    /// more. Returns whether that is so after `timeout` at most; zero looks and does not wait.
    ///
    /// # Errors
    /// [`Error::Heap`](crate::Error::Heap) if this process cannot join the family.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        Ok(self.inner.poll(Deadline::after(timeout))?)
    }

    /// Lets go of this handle. The end is closed once nobody else has it.
    pub fn close(self) {}
}

impl<T: Message, U: Message> Serialize for Connection<T, U> {
    fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        payload::serialize_handle::<Self, S>(self.inner.handle(), serializer)
    }
}

impl<'de, T: Message, U: Message> Deserialize<'de> for Connection<T, U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        let handle = payload::deserialize_handle::<Self, D>(ObjectKind::Connection, deserializer)?;
        let inner = connection::Connection::from_handle(handle).map_err(serde::de::Error::custom)?;
        Ok(Connection { inner, types: PhantomData })
    }
}
