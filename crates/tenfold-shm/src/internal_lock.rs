//! The lock that guards shared words for microseconds, and the redo record that makes its
//! holder's death harmless.
//!
//! ```text
//!  ┌ word ┬ redo_len ┬ (offset, value) × 7 ┐   128 bytes
//! ```
//!
//! A holder that changes more than one word writes the changes as absolute stores into the record,
//! commits them by one store to `redo_len`, applies them, and clears `redo_len`.
//!
//! *Killed here:* before the commit, nothing has happened; after it, the sweep of the dead
//! participant applies the record (again), then frees the lock. A participant's lane names each
//! lock before it is taken, so the sweep finds it. Only the sweep recovers a lock, innermost
//! first: a waiter that finds the owner dead calls the sweep and goes on waiting. A word that no
//! participant can have written is garbage; a waiter frees it after a while.
//!
//! Two rules for whoever uses it: a word in a record is changed under that lock only, or belongs
//! to the holder's own cells; and no foreign code, allocation failure or panic happens inside.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::time::Duration;

use tenfold_sys::clock::Deadline;
use tenfold_sys::futex;

use crate::error::{HeapError, Result};
use crate::heap::{At, Heap, Shared, Word};
use crate::kill_point::{KillPoint, reach};
use crate::lock_word::{self, Sleep, Wake};
use crate::participant::{self, Seat};

/// The most stores one record holds.
pub const REDO_MAX: usize = 7;

#[repr(C)]
struct Entry {
    offset: AtomicU64,
    value: AtomicU64,
}

/// A lock in shared memory, with its redo record.
#[repr(C)]
pub struct InternalLock {
    word: AtomicU32,
    redo_len: AtomicU32,
    redo: [Entry; REDO_MAX],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for InternalLock {}

const _: () = assert!(size_of::<InternalLock>() == 120);

/// One absolute store of a change.
#[derive(Debug, Clone, Copy)]
pub struct Store {
    word: Word,
    value: u64,
}

impl Store {
    /// Will set `word` to `value`.
    #[inline(always)]
    pub fn new(word: Word, value: u64) -> Store {
        Store { word, value }
    }
}

/// A held internal lock. Dropped in the reverse order of taking.
#[must_use]
#[derive(Debug)]
pub struct Guard {
    lock: At<InternalLock>,
    seat: Seat,
    /// Where the lane names the lock.
    name: &'static AtomicU64,
}

/// How long a waiter sleeps before it looks whether the owner still lives: at first, and at most.
const FIRST_SLICE: Duration = Duration::from_millis(2);
const LAST_SLICE: Duration = Duration::from_millis(100);

struct Waiting {
    heap: Heap,
    seat: Seat,
    slice: Duration,
}

struct Waking;

impl Sleep<AtomicU32> for Waiting {
    #[cold]
    fn sleep(&mut self, word: &AtomicU32, expected: u32) {
        if futex::wait_deaf(word, expected, Deadline::after(self.slice)) == futex::Wait::TimedOut {
            let waited_long = self.slice == LAST_SLICE;
            self.slice = (self.slice * 2).min(LAST_SLICE);
            let owner = lock_word::owner(expected);
            if waited_long && !participant::may_own(owner) {
                // Garbage: nobody will ever free it. What the lock guards is checked by whoever reads it.
                let _ = word.compare_exchange(expected, 0, Ordering::AcqRel, Ordering::Relaxed);
                return;
            }
            participant::recover_if_dead(self.heap, self.seat, owner, waited_long);
        }
    }
    fn looks(&self) -> u32 {
        8
    }
    fn pause(&self) {
        core::hint::spin_loop();
    }
}

impl Wake<AtomicU32> for Waking {
    #[cold]
    fn wake_one(&mut self, word: &AtomicU32) {
        futex::wake(word, 1);
    }
}

impl At<InternalLock> {
    /// Takes the lock. Blocks for microseconds as a rule; if the holder was killed, until it is
    /// swept.
    ///
    /// # Errors
    /// If this process has no slot and can get none.
    #[inline]
    pub fn lock(self, heap: Heap) -> Result<Guard> {
        let seat = participant::seat(heap)?;
        self.lock_from(heap, seat)
    }

    /// Takes the lock from a seat that the caller has already looked up.
    ///
    /// # Errors
    /// If this thread holds too many internal locks at once (a bug here, not in the caller).
    #[inline(always)]
    pub fn lock_from(self, heap: Heap, seat: Seat) -> Result<Guard> {
        let name = seat.name_lock(self.offset())?;
        let owner = seat.owner();
        if !lock_word::try_lock(&self.word, owner) {
            lock_word::lock_slow(&self.word, owner, &mut Waiting { heap, seat, slice: FIRST_SLICE });
        }
        reach(KillPoint::LockTaken);
        Ok(Guard { lock: self, seat, name })
    }

    /// Whether the participant in slot `owner - 1` holds the lock.
    pub(crate) fn is_held_by(self, owner: u32) -> bool {
        lock_word::owner(self.word.load(Ordering::Acquire)) == owner
    }

    /// Finishes what a dead participant began under this lock. For the sweep only, which makes sure
    /// that one process at a time does this.
    pub(crate) fn complete(self, heap: Heap, dead_owner: u32) -> Result<()> {
        if !self.is_held_by(dead_owner) {
            return Ok(());
        }
        let count = self.redo_len.load(Ordering::Acquire) as usize;
        if count > REDO_MAX {
            return Err(HeapError::corrupt("redo record", self.offset()));
        }
        for entry in &self.redo[..count] {
            let word = heap.word(entry.offset.load(Ordering::Relaxed))?;
            word.store(entry.value.load(Ordering::Relaxed), Ordering::Release);
        }
        self.redo_len.store(0, Ordering::Release);
        Ok(())
    }

    /// Frees the lock of a dead participant, once all that it had begun under any lock is complete.
    pub(crate) fn recover(self, dead_owner: u32) {
        if self.is_held_by(dead_owner) {
            self.word.store(0, Ordering::Release);
            futex::wake(&self.word, u32::MAX);
        }
    }
}

impl Guard {
    /// Changes all the words or, if this process dies at any moment, either all or none.
    ///
    /// # Panics
    /// If there are more than [`REDO_MAX`] stores.
    #[inline(always)]
    pub fn commit<const N: usize>(&self, stores: [Store; N]) {
        const { assert!(N <= REDO_MAX) }
        let lock = self.lock.get();
        // A second commit under one lock must not be written before the first is cleared: a kill comes
        // between two instructions, so it is the compiler alone that must keep the order.
        compiler_fence(Ordering::SeqCst);
        for (entry, store) in lock.redo.iter().zip(&stores) {
            entry.offset.store(store.word.offset(), Ordering::Relaxed);
            entry.value.store(store.value, Ordering::Relaxed);
        }
        reach(KillPoint::RedoWritten);
        lock.redo_len.store(N as u32, Ordering::Release);
        reach(KillPoint::RedoCommitted);
        for (index, store) in stores.iter().enumerate() {
            store.word.store(store.value, Ordering::Release);
            if index == 0 {
                reach(KillPoint::RedoHalfApplied);
            }
        }
        reach(KillPoint::RedoApplied);
        lock.redo_len.store(0, Ordering::Release);
        reach(KillPoint::RedoCleared);
    }

    /// The seat the lock was taken from.
    #[inline(always)]
    pub fn seat(&self) -> Seat {
        self.seat
    }
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        lock_word::unlock(&self.lock.get().word, self.seat.owner(), &mut Waking);
        reach(KillPoint::LockReleased);
        self.name.store(0, Ordering::Release);
        participant::finish(&self.seat);
    }
}
