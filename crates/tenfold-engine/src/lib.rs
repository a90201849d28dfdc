//! Processes, supervision and the pool, on top of the shared heap: bytes in, bytes out.
//!
//! ```text
//!   a program                       nursery                        warden
//!   launch ── request, doorbell ──▶ forks, reaps, sweeps ──────▶ polls the root, the nursery and
//!   process ◀── record ──────────── child: runs the function       all that nobody else reaps
//! ```
//!
//! A new process is the same executable: forked from the *nursery*, a single-threaded process that
//! is exec'd once ([`nursery`]), or exec'd itself, or forked from the caller ([`launch`]). Whatever
//! is exec'd becomes what it should be before `main` ([`start_hook`]). The *warden* ([`warden`])
//! ends everything when the root is gone.
#![deny(unsafe_code)]

mod child;
mod children;
mod deputy;
mod ending;
pub mod function;
pub mod guest;
pub mod launch;
mod nursery;
mod places;
pub mod pool;
pub mod process;
mod start_hook;
mod warden;

pub use start_hook::init;
pub use tenfold_shm::{Handle, Heap, HeapError, ObjectKind};

pub use tenfold_shm as shm;
pub use tenfold_sys as sys;
