//! The Linux calls that tenfold stands on: one thin file a group of calls.
//!
//! This is the bottom layer. It knows processes, mappings, futexes and signals; it knows nothing of heaps, locks, pools
//! or payloads. Functions are safe wherever a safe signature is honest, and `unsafe fn` where the caller has to promise
//! something that cannot be checked here. Nothing in this crate keeps a list, starts a thread or waits without being
//! asked to.
//!
//! | module | calls |
//! |---|---|
//! | [`clock`] | `clock_gettime`, absolute deadlines |
//! | [`futex`] | `futex`, and the one process-local mutex that fork handlers may hold |
//! | [`interrupt`] | waits that hear of signals |
//! | [`memory_file`], [`mapping`], [`wiped_page`] | `memfd_create`, `fallocate`, `mmap`, `mremap`, `madvise` |
//! | [`process`], [`procfs`], [`timer`] | pidfds, `waitpid`, `fork`, `/proc/PID`, `timer_create` |
//! | [`spawn`], [`executable`], [`at_fork`], [`signals`] | starting this executable again, and becoming a worker in it |
//! | [`descriptors`] | `close_range`, `/dev/null` for the standard streams |
//! | [`bell`], [`poll`] | a pipe to wake a poller in another process |
//! | [`stream`] | `read`, `recv`, `write` and `poll` of one descriptor that somebody else owns |
//! | [`looks`] | `sched_yield`, between looks before a sleep |
//! | [`limits`] | `getrlimit`, free memory, cgroups |
//! | [`stack`] | where the stack of a thread lies |
//!
//! Linux only, x86-64 and aarch64.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("tenfold needs 64-bit Linux");

pub mod at_fork;
pub mod bell;
pub mod clock;
pub mod descriptors;
pub mod error;
pub mod executable;
pub mod futex;
pub mod huge_pages;
pub mod interrupt;
pub mod limits;
pub mod looks;
pub mod mapping;
pub mod memory_file;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod signals;
pub mod spawn;
pub mod stack;
pub mod stream;
pub mod timer;
pub mod wiped_page;

pub use error::{Errno, Result};

#[cfg(test)]
mod forked_test;
