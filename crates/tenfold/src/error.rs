//! The one error type of the public interface.

use tenfold_engine::HeapError;
use tenfold_engine::launch::LaunchError;
use tenfold_engine::pool::PoolError;
use tenfold_engine::process::ProcessError;
use tenfold_engine::shm::queue::QueueError;
use tenfold_engine::shm::sync::SyncError;

use crate::pool::TaskError;

/// The result of most operations.
pub type Result<T> = core::result::Result<T, Error>;

/// Whatever can go wrong, with a text that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shared heap: no memory, no address space, a corrupt word, a stale handle.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// A value could not be turned into bytes.
    #[error("cannot send a value of type {type_name}: {reason}")]
    Encode {
        /// The value's type.
        type_name: &'static str,
        /// What serde said.
        reason: String,
    },
    /// Bytes could not be turned into a value.
    #[error("cannot receive a value of type {type_name}: {reason}; did the sender send that type?")]
    Decode {
        /// The type asked for.
        type_name: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// A time limit passed.
    #[error("the time limit of {what} has passed")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
    },
    /// The last holder of a lock was killed or crashed while holding it; what the lock guards may be
    /// half-changed. The lock is free again: check the data and take it once more.
    #[error("the process that held the {what} was killed while holding it; check what the lock guards")]
    OwnerDied {
        /// Which kind of lock.
        what: &'static str,
    },
    /// A process cannot be started.
    #[error(transparent)]
    Launch(LaunchError),
    /// A process has not ended well.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A task of a pool has no result.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A pool cannot do what was asked.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A party died, gave up or aborted while others waited at the barrier.
    #[error("the barrier is broken: a party died, gave up waiting or called abort(); call reset() to use it again")]
    BrokenBarrier,
    /// A lock or semaphore was released that was not held.
    #[error("{0}")]
    Misuse(SyncError),
    /// A queue or pipe is empty, full or closed.
    #[error(transparent)]
    Queue(QueueError),
    /// An argument makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
}

impl From<SyncError> for Error {
    fn from(error: SyncError) -> Error {
        match error {
            SyncError::Heap(error) => Error::Heap(error),
            SyncError::OutOfRange { .. } => Error::InvalidArgument(error.to_string()),
            error => Error::Misuse(error),
        }
    }
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Error {
        match error {
            QueueError::Heap(error) => Error::Heap(error),
            QueueError::TimedOut => Error::TimedOut { what: "queue operation" },
            error => Error::Queue(error),
        }
    }
}
