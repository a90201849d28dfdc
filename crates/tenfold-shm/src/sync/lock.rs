//! A lock for mutual exclusion, to be taken and released by any process.
//!
//! ```text
//!  ┌ word ┬ (spare) ┐   owner slot + 1 and flags, see the `word` module
//! ```
//!
//! Nothing but this word changes when the lock is taken: the sweep finds the holder by it, since a
//! holder has the lock in its ledger.
//!
//! *Killed here:* holding it: the sweep frees the word and marks it, the next to take it is told.
//! Waiting: nothing is left but a flag that costs one system call. Between release and wake: a
//! sleeper looks again after a slice.

use core::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tenfold_sys::clock::{self, Deadline};
use tenfold_sys::futex;

use super::peers::sweep_now_and_then_thoroughly;
use super::word::{self, Patience, Released, Taken};
use super::{Acquired, SyncError, SyncResult};
use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared};
use crate::kill_point::{KillPoint, reach};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death};

/// How long a waiter sleeps before it looks at the holder: at first, and at most.
const FIRST_SLICE: Duration = Duration::from_millis(10);
const LAST_SLICE: Duration = Duration::from_millis(100);
/// At most, if there is no holder to look at.
const IDLE_SLICE: Duration = Duration::from_secs(1);
/// A waiter that has waited this long is not overtaken any more.
const STARVING: Duration = Duration::from_millis(1);
const SPINS: u32 = 150;

/// The word of a user lock, as it lies in locks and in shared data.
#[repr(C)]
pub(crate) struct LockWord {
    word: AtomicU32,
    spare: AtomicU32,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for LockWord {}
const _: () = assert!(size_of::<LockWord>() == 8);

struct Waiting {
    heap: Heap,
    me: u32,
    deadline: Deadline,
    slice: Duration,
    since: u64,
    looks: u32,
}

impl Patience<AtomicU32> for Waiting {
    #[cold]
    fn sleep(&mut self, word: &AtomicU32, expected: u32) -> bool {
        if self.deadline.expired() {
            return false;
        }
        let holder = word::owner(expected);
        let watched = holder != 0 && holder != word::GONE && holder != self.me;
        let until = Deadline::after(self.slice);
        if futex::wait(word, expected, self.deadline.min(until)) == futex::Wait::TimedOut && until.expired() {
            let longest = if watched { LAST_SLICE } else { IDLE_SLICE };
            self.slice = (self.slice * 2).min(longest);
            if watched {
                self.looks += 1;
                sweep_now_and_then_thoroughly(self.heap, holder, self.looks);
            }
        }
        true
    }
    fn is_starving(&self) -> bool {
        clock::now().saturating_sub(self.since) > STARVING.as_nanos() as u64
    }
    fn spins(&self) -> u32 {
        SPINS
    }
    fn pause(&self) {
        core::hint::spin_loop();
    }
}

impl From<Taken> for Acquired {
    fn from(taken: Taken) -> Acquired {
        match taken {
            Taken::Clean => Acquired::Yes,
            Taken::OwnerDied => Acquired::OwnerDied,
        }
    }
}

impl LockWord {
    /// Takes the lock for the participant `me` (slot + 1).
    #[inline]
    pub(crate) fn acquire(&self, heap: Heap, me: u32, deadline: Deadline) -> Acquired {
        let taken = word::take_fast(&self.word, me);
        let result = if taken { Acquired::Yes } else { self.acquire_slow(heap, me, deadline) };
        reach(KillPoint::UserLockTaken);
        result
    }

    #[cold]
    fn acquire_slow(&self, heap: Heap, me: u32, deadline: Deadline) -> Acquired {
        let mut waiting = Waiting { heap, me, deadline, slice: FIRST_SLICE, since: clock::now(), looks: 0 };
        word::take(&self.word, me, &mut waiting).map_or(Acquired::TimedOut, Acquired::from)
    }

    /// Takes the lock if that is a matter of one step.
    #[inline]
    pub(crate) fn acquire_at_once(&self, me: u32) -> bool {
        let taken = word::take_fast(&self.word, me);
        reach(KillPoint::UserLockTaken);
        taken
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub(crate) fn try_acquire(&self, me: u32) -> Acquired {
        let result = if word::take_fast(&self.word, me) {
            Acquired::Yes
        } else {
            word::try_take(&self.word, me).map_or(Acquired::TimedOut, Acquired::from)
        };
        reach(KillPoint::UserLockTaken);
        result
    }

    /// Frees the lock if the participant `me` holds it. Returns whether it did.
    #[inline]
    pub(crate) fn release_own(&self, me: u32) -> bool {
        word::release_fast(&self.word, me) || self.release_slow(Some(me))
    }

    /// Frees the lock, whoever holds it. Returns whether somebody did.
    #[inline]
    pub(crate) fn release(&self, me: u32) -> bool {
        word::release_fast(&self.word, me) || self.release_slow(None)
    }

    #[cold]
    fn release_slow(&self, only: Option<u32>) -> bool {
        let released = word::release(&self.word, only);
        reach(KillPoint::UserLockReleased);
        match released {
            Released::NotHeld => return false,
            Released::Quietly => {}
            Released::Wake => {
                futex::wake(&self.word, 1);
            }
            Released::WakeReserved => {
                if futex::wake(&self.word, 1) == 0 && word::unreserve(&self.word) {
                    futex::wake(&self.word, 1);
                }
            }
        }
        true
    }

    /// The holder: slot + 1, or something that is nobody's.
    #[inline]
    pub(crate) fn owner(&self) -> u32 {
        word::owner(self.word.load(Ordering::Acquire))
    }

    /// Sweeps the holder if its process is dead, for those who try again and again and never wait.
    #[cold]
    pub(crate) fn look_after_holder(&self, heap: Heap) {
        let holder = self.owner();
        if holder != 0 && holder != GONE {
            participant::sweep_if_dead(heap, holder);
        }
    }

    /// The participant `dead` (slot + 1) is no more.
    pub(crate) fn owner_died(&self, dead: u32, abnormally: bool) {
        if word::owner_died(&self.word, dead, abnormally) {
            futex::wake(&self.word, u32::MAX);
        }
    }
}

/// The owner that a lock word has when its holder has ended.
pub(crate) const GONE: u32 = word::GONE;

#[repr(C)]
struct LockObject {
    word: LockWord,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for LockObject {}

/// A lock that any process can take and any process can release. Not re-entrant.
#[derive(Debug, Clone)]
pub struct Lock {
    handle: Handle,
    shared: At<LockObject>,
}

impl Lock {
    /// A free lock.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap) -> Result<Lock> {
        let handle = Handle::create(heap, ObjectKind::Lock, size_of::<LockObject>() as u64, |_| Ok(()))?;
        Lock::from_handle(handle)
    }

    /// The lock behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Lock> {
        let handle = handle.expect(ObjectKind::Lock)?;
        let shared = handle.view()?;
        Ok(Lock { handle, shared })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes the lock, waiting for it until the deadline. A thread that holds it already waits for
    /// itself.
    ///
    /// # Errors
    /// If this process has no slot in the family and can get none.
    #[inline]
    pub fn acquire(&self, deadline: Deadline) -> Result<Acquired> {
        let heap = self.handle.heap();
        Ok(self.shared.word.acquire(heap, participant::seat(heap)?.owner(), deadline))
    }

    /// Takes the lock if it is free, was left in order, and is not kept for one that has waited for
    /// long. For callers to whom waiting is a different path: if this is not so, [`Lock::acquire`]
    /// is to follow.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    #[inline]
    pub fn acquire_at_once(&self) -> Result<bool> {
        Ok(self.shared.word.acquire_at_once(participant::seat(self.handle.heap())?.owner()))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    #[inline]
    pub fn try_acquire(&self) -> Result<Acquired> {
        Ok(self.shared.word.try_acquire(participant::seat(self.handle.heap())?.owner()))
    }

    /// Looks whether the holder's process lives, as waiting does: for those who try again and again.
    /// A system call.
    pub fn look_after_holder(&self) {
        self.shared.word.look_after_holder(self.handle.heap());
    }

    /// Frees the lock, whichever process and thread took it.
    ///
    /// # Errors
    /// [`SyncError::NotHeld`].
    #[inline]
    pub fn release(&self) -> SyncResult<()> {
        let me = participant::seat(self.handle.heap())?.owner();
        if self.shared.word.release(me) { Ok(()) } else { Err(SyncError::NotHeld) }
    }

    /// Frees the lock if this process holds it, for guards: one that was copied by a fork frees
    /// nothing. Returns whether it did.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    #[inline]
    pub fn release_own(&self) -> Result<bool> {
        Ok(self.shared.word.release_own(participant::seat(self.handle.heap())?.owner()))
    }

    /// Whether somebody holds it.
    pub fn is_locked(&self) -> bool {
        self.shared.word.owner() != 0
    }

    /// Whether a thread of this process took it.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn is_mine(&self) -> Result<bool> {
        Ok(self.shared.word.owner() == participant::seat(self.handle.heap())?.owner())
    }
}

pub(super) fn owner_died(heap: Heap, death: &Death, block: Block) -> Result<()> {
    block.view::<LockObject>(heap, 0)?.word.owner_died(death.slot + 1, death.is_abnormal());
    Ok(())
}

pub(super) fn is_held_by(heap: Heap, slot: u32, block: Block) -> bool {
    block.view::<LockObject>(heap, 0).is_ok_and(|lock| lock.word.owner() == slot + 1)
}
