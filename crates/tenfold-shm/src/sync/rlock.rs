//! A lock that its holder can take again.
//!
//! ```text
//!  ┌ word ┬ (spare) ┬ thread ┬ depth ┐
//! ```
//!
//! The holder is a thread: the slot in the word, and a number of the thread within its process.
//! Only the holder changes `thread` and `depth`.
//!
//! *Killed here:* as for a lock. The sweep clears the thread before it frees the word; the next
//! holder sets the depth anew.

use core::sync::atomic::{AtomicU32, Ordering};

use tenfold_sys::clock::Deadline;

use super::lock::LockWord;
use super::{Acquired, SyncError, SyncResult};
use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death};

static NEXT_THREAD: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// Tells the threads of a process apart; never zero. A forked child keeps its number, in
    /// another slot.
    static THREAD: u32 = NEXT_THREAD.fetch_add(1, Ordering::Relaxed).max(1);
}

#[repr(C)]
struct RLockObject {
    word: LockWord,
    thread: AtomicU32,
    depth: AtomicU32,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for RLockObject {}

/// A lock that the thread which holds it can take again, and alone can release.
#[derive(Debug, Clone)]
pub struct RLock {
    handle: Handle,
    shared: At<RLockObject>,
}

/// How often a thread had taken a lock that it has let go of altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth(u32);

/// A lock that is held for one step; freed on drop, also if that panics.
struct Brief<'a> {
    word: &'a LockWord,
    me: u32,
}

impl Drop for Brief<'_> {
    #[inline]
    fn drop(&mut self) {
        self.word.release_own(self.me);
    }
}

impl RLock {
    /// A free lock.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap) -> Result<RLock> {
        let handle = Handle::create(heap, ObjectKind::RLock, size_of::<RLockObject>() as u64, |_| Ok(()))?;
        RLock::from_handle(handle)
    }

    /// The lock behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<RLock> {
        let handle = handle.expect(ObjectKind::RLock)?;
        let shared = handle.view()?;
        Ok(RLock { handle, shared })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes the lock, or takes it once more if this thread holds it; waits for another until the
    /// deadline.
    ///
    /// # Errors
    /// If this process has no slot in the family and can get none.
    #[inline]
    pub fn acquire(&self, deadline: Deadline) -> Result<Acquired> {
        self.acquire_by(|heap, word, me| word.acquire(heap, me, deadline))
    }

    /// Takes the lock if it is this thread's own, or as [`Lock::acquire_at_once`](super::Lock::acquire_at_once).
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    #[inline]
    pub fn acquire_at_once(&self) -> Result<bool> {
        let take = |_, word: &LockWord, me| match word.acquire_at_once(me) {
            true => Acquired::Yes,
            false => Acquired::TimedOut,
        };
        self.acquire_by(take).map(Acquired::is_held)
    }

    /// Takes the lock if it is free or this thread's own.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    #[inline]
    pub fn try_acquire(&self) -> Result<Acquired> {
        self.acquire_by(|_, word, me| word.try_acquire(me))
    }

    #[inline]
    fn acquire_by(&self, take: impl FnOnce(Heap, &LockWord, u32) -> Acquired) -> Result<Acquired> {
        let heap = self.handle.heap();
        let me = participant::seat(heap)?.owner();
        let shared = self.shared.get();
        if self.is_owner(me) {
            shared.depth.store(shared.depth.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
            return Ok(Acquired::Yes);
        }
        let acquired = take(heap, &shared.word, me);
        if acquired.is_held() {
            shared.depth.store(1, Ordering::Relaxed);
            shared.thread.store(THREAD.with(|t| *t), Ordering::Relaxed);
        }
        Ok(acquired)
    }

    /// Runs `step` with the lock held, if the lock is this thread's own or can be had as by [`RLock::acquire_at_once`];
    /// otherwise `None`. To be quick, it does not say which thread holds it: `step` may not use the lock.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    #[inline]
    pub fn briefly<R>(&self, step: impl FnOnce() -> R) -> Result<Option<R>> {
        let me = participant::seat(self.handle.heap())?.owner();
        if self.is_owner(me) {
            return Ok(Some(step()));
        }
        if !self.shared.word.acquire_at_once(me) {
            return Ok(None);
        }
        let _held = Brief { word: &self.shared.get().word, me };
        Ok(Some(step()))
    }

    #[inline]
    fn is_owner(&self, me: u32) -> bool {
        // The thread is cleared before the word is freed: both match only if this thread set them.
        self.shared.word.owner() == me && self.shared.thread.load(Ordering::Relaxed) == THREAD.with(|t| *t)
    }

    /// As [`Lock::look_after_holder`](super::Lock::look_after_holder).
    pub fn look_after_holder(&self) {
        self.shared.word.look_after_holder(self.handle.heap());
    }

    /// Undoes one acquire of this thread. A lock whose holder has exited stays taken, as in the
    /// standard library: nobody is left who may release it.
    ///
    /// # Errors
    /// [`SyncError::NotOwner`], [`SyncError::NotHeld`].
    #[inline]
    pub fn release(&self) -> SyncResult<()> {
        let me = participant::seat(self.handle.heap())?.owner();
        let shared = self.shared.get();
        if !self.is_owner(me) {
            return match shared.word.owner() {
                0 => Err(SyncError::NotHeld),
                _ => Err(SyncError::NotOwner),
            };
        }
        let depth = shared.depth.load(Ordering::Relaxed);
        if depth > 1 {
            shared.depth.store(depth - 1, Ordering::Relaxed);
        } else {
            self.free(me);
        }
        Ok(())
    }

    fn free(&self, me: u32) {
        self.shared.depth.store(0, Ordering::Relaxed);
        self.shared.thread.store(0, Ordering::Relaxed);
        self.shared.word.release_own(me);
    }

    /// Lets go of the lock altogether, however often this thread has taken it.
    ///
    /// # Errors
    /// [`SyncError::NotOwner`].
    pub fn release_all(&self) -> SyncResult<Depth> {
        let me = participant::seat(self.handle.heap())?.owner();
        if !self.is_owner(me) {
            return Err(SyncError::NotOwner);
        }
        let depth = self.shared.depth.load(Ordering::Relaxed);
        self.free(me);
        Ok(Depth(depth))
    }

    /// Takes the lock back as often as before.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    pub fn acquire_again(&self, depth: Depth, deadline: Deadline) -> Result<Acquired> {
        let acquired = self.acquire(deadline)?;
        if acquired.is_held() {
            self.shared.depth.store(depth.0.max(1), Ordering::Relaxed);
        }
        Ok(acquired)
    }

    /// How often the thread that holds the lock has taken it; 0 if nobody holds it.
    pub fn depth(&self) -> u32 {
        if self.shared.word.owner() == 0 { 0 } else { self.shared.depth.load(Ordering::Relaxed) }
    }

    /// How often a thread of this process has taken it; 0 if none holds it.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    pub fn depth_here(&self) -> Result<u32> {
        let ours = self.shared.word.owner() == participant::seat(self.handle.heap())?.owner();
        Ok(if ours { self.shared.depth.load(Ordering::Relaxed) } else { 0 })
    }

    /// Whether somebody holds it.
    pub fn is_locked(&self) -> bool {
        self.shared.word.owner() != 0
    }

    /// Whether this thread holds it.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    pub fn is_mine(&self) -> Result<bool> {
        Ok(self.is_owner(participant::seat(self.handle.heap())?.owner()))
    }
}

pub(super) fn owner_died(heap: Heap, death: &Death, block: Block) -> Result<()> {
    let shared = block.view::<RLockObject>(heap, 0)?;
    if shared.word.owner() == death.slot + 1 {
        shared.thread.store(0, Ordering::Relaxed);
        shared.word.owner_died(death.slot + 1, death.is_abnormal());
    }
    Ok(())
}

pub(super) fn is_held_by(heap: Heap, slot: u32, block: Block) -> bool {
    block.view::<RLockObject>(heap, 0).is_ok_and(|lock| lock.word.owner() == slot + 1)
}
