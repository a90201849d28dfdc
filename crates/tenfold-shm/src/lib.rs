//! The shared heap of a tenfold family, and what lives in it.
//!
//! A *family* is a root process and all its descendants. They share one anonymous memory file,
//! the *heap*; everything in it is named by an offset or a block id, never by an address. Nothing
//! here knows of serde, Python or how processes are made: a payload is bytes, and a process is a
//! [`participant`].
//!
//! ```text
//!  sync  queue  dict  list  data  board        the objects a program sees
//!      └──────┬──────────────────┘
//!          object, message                     reference counts, payloads with handles inside
//!             │
//!   participant (slot, lane, ledger, sweep)    who is alive, what each one owns
//!             │
//!   internal_lock (lock word + redo record)    the crash rule
//!             │
//!   heap (windows, size classes, descriptors)  memory
//! ```
//!
//! # The crash rule
//!
//! Any process may be killed between any two instructions. A change of shared state is therefore
//! either **one store**, or a list of absolute word stores that is first written to the *redo
//! record* of the internal lock that guards the words, then committed by one store, then applied.
//! Whoever sweeps the dead process applies a committed record again (the stores are absolute, so
//! twice is as good as once) and only then frees the lock.
//!
//! Ownership of memory follows the same rule: a block is always named by exactly one *cell*, a
//! 64-bit word in the heap. The cell may be part of a container, or of a process's slot; in the
//! second case the block is freed when that process is swept.

pub mod board;
pub mod connection;
pub mod data;
pub mod dict;
pub mod error;
mod guarded;
pub mod heap;
pub mod internal_lock;
pub mod item;
pub mod kill_point;
pub mod list;
pub mod lock_word;
pub mod message;
pub mod object;
pub mod participant;
pub mod private_view;
pub mod process_record;
pub mod queue;
mod spine;
pub mod sync;

pub use error::{HeapError, Result};
pub use heap::Heap;
pub use object::{Handle, ObjectKind};
