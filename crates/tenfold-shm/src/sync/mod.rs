//! Locks and meeting points for programs: what `multiprocessing` calls its synchronisation
//! primitives.
//!
//! ```text
//!  Lock  RLock            one futex word: owner, flags                       word, lock
//!  Semaphore  RwLock      counts under an internal lock, sleepers beside     wait_point, peers
//!  Barrier  Event
//!  Condition              a list of waiters, each with a futex of its own
//! ```
//!
//! Each type wraps a [`Handle`](crate::Handle) and can be sent wherever a handle can. Waiting is
//! bare here: `acquire` and `release`, to and from any process; guards belong to the faces. All
//! waits end at a [`Deadline`](tenfold_sys::clock::Deadline), and look at the state again in slices,
//! so that a wake-up that got lost with its sender costs at most a slice.
//!
//! # What a death leaves behind
//!
//! A process that was killed or crashed has died *abnormally*. Then a lock that it held becomes
//! free, and exactly one process, the next to take it, is told ([`Acquired::OwnerDied`]); permits
//! and shares that were taken under its name go back; a barrier at which it had arrived is broken.
//! A process that exits leaves locks and permits as they are, and anyone may release them.
//!
//! The holder is recorded in the lock's own word or in the holder's ledger, so the sweep of a dead
//! process finds everything without a walk of the heap. A waiter that sees the holder dead calls
//! the sweep itself.

pub mod barrier;
pub mod condition;
pub mod event;
pub mod lock;
mod peers;
pub mod rlock;
pub mod rwlock;
pub mod semaphore;
pub mod user_lock;
mod wait_point;
mod word;

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, Heap};
use crate::object::ObjectKind;
use crate::participant::{Death, LedgerEntry, Seat};

pub use barrier::{Barrier, BarrierWait};
pub use condition::Condition;
pub use event::Event;
pub use lock::Lock;
pub use rlock::RLock;
pub use rwlock::RwLock;
pub use semaphore::Semaphore;
pub use user_lock::{LetGo, UserLock};

/// How an attempt to take a lock ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// It is taken.
    Yes,
    /// It is taken, and its previous holder died abnormally: what it guards may be half changed.
    OwnerDied,
    /// It is not taken: the deadline came first.
    TimedOut,
}

impl Acquired {
    /// Whether the lock is held now.
    pub fn is_held(self) -> bool {
        self != Acquired::TimedOut
    }
}

/// Why an object could not be used as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The heap could not do it.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// A lock was released that nobody held.
    #[error("the lock is not held: it was released more often than it was taken")]
    NotHeld,
    /// A lock that only its holder may release, or wait with, is held by somebody else.
    #[error("the lock is not held by this thread, which alone could release it")]
    NotOwner,
    /// A bounded semaphore was released more often than it was acquired.
    #[error("the semaphore already has all its {bound} permits: it was released more often than acquired")]
    OverRelease {
        /// The most permits it can have.
        bound: u64,
    },
    /// The number has no meaning for this object.
    #[error("{what} must be between {least} and {most}, not {given}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// The least it can be.
        least: u64,
        /// The most it can be.
        most: u64,
        /// What was asked for.
        given: u64,
    },
}

/// The result of an operation on a lock or a meeting point.
pub type SyncResult<T> = core::result::Result<T, SyncError>;

/// A share in the object `block`, recorded in `entry`, or the whole of it, was held by a dead
/// process.
pub(crate) fn owner_died(
    heap: Heap,
    seat: Seat,
    death: &Death,
    kind: ObjectKind,
    block: Block,
    entry: At<LedgerEntry>,
) -> Result<()> {
    match kind {
        ObjectKind::Lock => lock::owner_died(heap, death, block),
        ObjectKind::RLock => rlock::owner_died(heap, death, block),
        ObjectKind::Semaphore => semaphore::owner_died(heap, seat, death, block, entry),
        ObjectKind::Condition => condition::owner_died(heap, seat, death, block),
        ObjectKind::Barrier => barrier::owner_died(heap, seat, death, block, entry),
        ObjectKind::RwLock => rwlock::owner_died(heap, seat, death, block, entry),
        _ => Ok(()),
    }
}

/// Whether the process in slot `slot` has something of the object that its death must give back.
/// Its ledger entry then stays even if the process drops its last handle.
pub(crate) fn is_held_by(heap: Heap, slot: u32, kind: ObjectKind, block: Block, entry: At<LedgerEntry>) -> bool {
    use core::sync::atomic::Ordering;
    match kind {
        ObjectKind::Lock => lock::is_held_by(heap, slot, block),
        ObjectKind::RLock => rlock::is_held_by(heap, slot, block),
        ObjectKind::RwLock => rwlock::is_held_by(heap, slot, block) || entry.aux.load(Ordering::Relaxed) != 0,
        ObjectKind::Semaphore | ObjectKind::Barrier => entry.aux.load(Ordering::Relaxed) != 0,
        _ => false,
    }
}
