//! Process-based parallelism that is fast and cannot hang.
#![forbid(unsafe_code)]

pub mod dict;
mod error;
mod function;
mod key;
pub mod list;
mod manager;
mod namespace;
mod payload;
mod pool;
mod process;

pub use dict::Dict;
pub use error::{Error, Result};
pub use function::Outcome;
pub use list::List;
pub use manager::Manager;
pub use namespace::Namespace;
pub use payload::Message;
pub use pool::{AsyncResult, Calls, Imap, ImapUnordered, Pool, PoolBuilder, ResultFuture, Task, TaskError};
pub use process::{
    CurrentProcess, Process, ProcessBuilder, StartMethod, active_children, current_process, init, parent_pid,
    parent_process, pid, set_start_method,
};
pub use tenfold_engine::launch::LaunchError;
pub use tenfold_engine::pool::PoolError;
pub use tenfold_engine::process::ProcessError;
