//! Process-based parallelism that is fast and cannot hang.
#![forbid(unsafe_code)]

mod array;
mod barrier;
mod condition;
pub mod dict;
mod error;
mod event;
mod function;
mod handle;
mod heap;
mod key;
pub mod list;
mod lock;
mod manager;
mod namespace;
mod payload;
mod pipe;
mod pool;
mod process;
mod queue;
mod rwlock;
mod semaphore;
mod thread_pool;
mod value;

pub use bytemuck;
pub use dict::Dict;

pub use array::{Array, ArrayGuard, RawArray};
pub use barrier::Barrier;
pub use condition::{Condition, WaitGuard};
pub use error::{Error, Result};
pub use event::Event;
pub use function::Outcome;
pub use heap::{HeapStats, heap_stats, set_heap_limit};
pub use list::List;
pub use lock::{Lock, LockError, LockGuard, LockResult, RLock, RLockGuard};
pub use manager::Manager;
pub use namespace::Namespace;
pub use payload::Message;
pub use pipe::{Connection, pipe};
pub use pool::{AsyncResult, Calls, Imap, ImapUnordered, Pool, PoolBuilder, ResultFuture, Task, TaskError};
pub use process::{
    CurrentProcess, Process, ProcessBuilder, StartMethod, active_children, current_process, init, parent_pid,
    parent_process, pid, set_start_method,
};
pub use queue::{JoinableQueue, PutError, Queue, SimpleQueue};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
pub use tenfold_engine::HeapError;
pub use tenfold_engine::launch::LaunchError;
pub use tenfold_engine::pool::PoolError;
pub use tenfold_engine::process::ProcessError;
pub use tenfold_engine::shm::queue::QueueError;
pub use tenfold_engine::shm::sync::Acquired;
pub use thread_pool::{ThreadImap, ThreadPool};
pub use value::{RawValue, Value, ValueGuard};
