//! Process-based parallelism that is fast and cannot hang.
//!
//! A process is the only unit of work that survives another's crash, that can be killed when it runs
//! away, and that can leak without harm. tenfold makes processes as handy as threads: pools, queues,
//! locks, shared values and containers, in the words of Python's `multiprocessing`.
//!
//! ```
//! use tenfold::{Pool, Process, Queue};
//!
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! fn produce((queue, n): (Queue<String>, u32)) -> tenfold::Result<()> {
//!     for i in 0..n {
//!         queue.put(format!("item {i}"))?;
//!     }
//!     Ok(())
//! }
//!
//! let pool = Pool::new(2)?;
//! assert_eq!(pool.map(square, [1, 2, 3])?, [1, 4, 9]);
//!
//! let queue = Queue::new()?;
//! let child = Process::spawn(produce, (queue.clone(), 3))?;
//! assert_eq!(queue.get()?, "item 0");
//! child.join()?; // a panic, a signal, an exit code: all in the error
//! # tenfold::Result::Ok(())
//! ```
//!
//! # What travels
//!
//! Functions are plain functions, or closures that capture nothing: what a process needs is passed as
//! its argument. Arguments and results are any serde type that owns its data ([`Message`]), and all of
//! tenfold's own handles, alone or inside other values: a [`Queue`] in a [`Dict`] in a message is fine.
//! There is no macro and no `init()`; the same code works in `main`, in tests and in doctests.
//!
//! # What is promised
//!
//! - Whoever is killed, at whatever instruction, the others go on. A worker that dies takes down the
//!   one task that it was running; the next taker of a dead holder's lock learns of it, once
//!   ([`LockError::OwnerDied`]); a message is whole or never appears.
//! - No wait is for somebody who is dead.
//! - When the program ends, however it ends, so does all that it has started, and nothing is left in
//!   the file system.
//!
//! | for | there is |
//! |---|---|
//! | tasks | [`Pool`], [`ThreadPool`], [`AsyncResult`] |
//! | processes | [`Process`], [`current_process`], [`parent_process`], [`active_children`] |
//! | messages | [`Queue`], [`SimpleQueue`], [`JoinableQueue`], [`pipe`] |
//! | taking turns | [`Lock`], [`RLock`], [`RwLock`], [`Semaphore`], [`BoundedSemaphore`], [`Condition`], [`Event`], [`Barrier`] |
//! | shared data | [`Value`], [`Array`], [`RawValue`], [`RawArray`], [`Manager`], [`Dict`], [`List`], [`Namespace`] |
#![forbid(unsafe_code)]

mod array;
mod barrier;
mod condition;
mod depth;
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

pub use array::{Array, ArrayGuard, RawArray};
pub use barrier::Barrier;
pub use bytemuck;
pub use condition::{Condition, WaitGuard};
pub use dict::Dict;
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

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
