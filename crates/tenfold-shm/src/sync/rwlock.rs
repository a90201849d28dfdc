//! A lock for many readers or one writer.
//!
//! ```text
//!  ┌ internal lock ┬ readers · flags · writer ┬ writers / readers first until ┬ sleepers ┬ peers ┐
//!                                                        ledger entry ┌ id ┬ this process's readers ┐
//! ```
//!
//! Neither side starves: a waiting writer holds new readers off, for a moment that it renews while
//! it waits; a reader that has waited for long holds new writers off in the same way. The moments
//! pass by themselves if those who wait die.
//!
//! *Killed here:* readers are counted in their process's ledger, in one redo record with the count,
//! and the sweep gives their shares back after any death. A writer's slot is in the state word: the
//! sweep frees it and marks the lock, and the next to take it, as a reader or a writer, is told.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenfold_sys::clock::{self, Deadline};

use super::Acquired;
use super::peers::{Lookout, Peers};
use super::wait_point::{WaitPoint, Waited};
use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared};
use crate::internal_lock::{InternalLock, Store};
use crate::kill_point::{KillPoint, reach};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death, LedgerEntry, Seat};

/// How long a writer that waits holds new readers off before it must say so again.
const WRITERS_FIRST: Duration = Duration::from_millis(200);
/// A reader that has waited this long holds new writers off.
const STARVING: Duration = Duration::from_millis(20);
const READERS_FIRST: Duration = Duration::from_millis(50);

/// `readers:32 | unused:15 | died:1 | writer slot + 1:16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    readers: u32,
    died: bool,
    writer: u16,
}

impl State {
    fn from_bits(bits: u64) -> State {
        State { readers: (bits >> 32) as u32, died: bits & 1 << 16 != 0, writer: bits as u16 }
    }

    fn bits(self) -> u64 {
        u64::from(self.readers) << 32 | u64::from(self.died) << 16 | u64::from(self.writer)
    }
}

#[repr(C)]
struct RwLockObject {
    lock: InternalLock,
    state: AtomicU64,
    writers_first_until: AtomicU64,
    readers_first_until: AtomicU64,
    sleepers: WaitPoint,
    peers: Peers,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for RwLockObject {}

/// A lock that any number of readers or one writer can hold, in any processes.
#[derive(Debug, Clone)]
pub struct RwLock {
    handle: Handle,
    shared: At<RwLockObject>,
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Write,
}

fn is_ahead(moment: &AtomicU64) -> bool {
    let until = moment.load(Ordering::Relaxed);
    until != 0 && clock::now() < until
}

fn put_ahead(moment: &AtomicU64, by: Duration) {
    moment.store(clock::now() + by.as_nanos() as u64, Ordering::Relaxed);
}

impl RwLock {
    /// A free lock.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap) -> Result<RwLock> {
        let handle = Handle::create(heap, ObjectKind::RwLock, size_of::<RwLockObject>() as u64, |_| Ok(()))?;
        RwLock::from_handle(handle)
    }

    /// The lock behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<RwLock> {
        let handle = handle.expect(ObjectKind::RwLock)?;
        let shared = handle.view()?;
        Ok(RwLock { handle, shared })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes the lock for reading, waiting until the deadline.
    ///
    /// # Errors
    /// If this process has no slot in the family and can get none.
    pub fn acquire_read(&self, deadline: Deadline) -> Result<Acquired> {
        self.acquire(Access::Read, deadline)
    }

    /// Takes the lock for reading if no writer holds it, nor waits.
    ///
    /// # Errors
    /// As [`RwLock::acquire_read`].
    pub fn try_acquire_read(&self) -> Result<Acquired> {
        Ok(self.attempt(Access::Read, Waited::NOT)?.unwrap_or(Acquired::TimedOut))
    }

    /// Takes the lock for writing, waiting until the deadline.
    ///
    /// # Errors
    /// As [`RwLock::acquire_read`].
    pub fn acquire_write(&self, deadline: Deadline) -> Result<Acquired> {
        self.acquire(Access::Write, deadline)
    }

    /// Takes the lock for writing if nobody holds it.
    ///
    /// # Errors
    /// As [`RwLock::acquire_read`].
    pub fn try_acquire_write(&self) -> Result<Acquired> {
        Ok(self.attempt(Access::Write, Waited::NOT)?.unwrap_or(Acquired::TimedOut))
    }

    fn acquire(&self, access: Access, deadline: Deadline) -> Result<Acquired> {
        if let Some(acquired) = self.attempt(access, Waited::NOT)? {
            return Ok(acquired);
        }
        if deadline.expired() {
            return Ok(Acquired::TimedOut);
        }
        let (heap, shared) = (self.handle.heap(), self.shared.get());
        let seat = participant::seat(heap)?;
        let may_fit = || {
            let now = State::from_bits(shared.state.load(Ordering::Relaxed));
            now.writer == 0 && (access == Access::Read || now.readers == 0)
        };
        let attempt = |waited: Waited| {
            let acquired = self.attempt(access, waited)?;
            match access {
                _ if acquired.is_some() => {}
                Access::Write => put_ahead(&shared.writers_first_until, WRITERS_FIRST),
                Access::Read if waited.longer_than(STARVING) => put_ahead(&shared.readers_first_until, READERS_FIRST),
                Access::Read => {}
            }
            Ok(acquired)
        };
        let mut lookout = Lookout::default();
        let slice = || shared.peers.slice(seat.slot());
        let look_after = || shared.peers.look_after(heap, seat, &mut lookout);
        let acquired = shared.sleepers.wait(deadline, slice, may_fit, attempt, look_after)?;
        if acquired.is_none() && access == Access::Write {
            // Other writers say so again when they wake; readers need not wait for us.
            shared.writers_first_until.store(0, Ordering::Relaxed);
            shared.sleepers.notify(u32::MAX);
        }
        Ok(acquired.unwrap_or(Acquired::TimedOut))
    }

    fn attempt(&self, access: Access, waited: Waited) -> Result<Option<Acquired>> {
        let shared = self.shared.get();
        let held_off = match access {
            Access::Read => is_ahead(&shared.writers_first_until) && !waited.longer_than(STARVING),
            Access::Write => is_ahead(&shared.readers_first_until) && !waited.slept,
        };
        if held_off {
            return Ok(None);
        }
        let heap = self.handle.heap();
        let seat = participant::seat(heap)?;
        shared.peers.add(seat.slot());
        let mine = self.handle.aux()?;
        let guard = self.shared.field(|s| &s.lock).lock_from(heap, seat)?;
        let now = State::from_bits(shared.state.load(Ordering::Relaxed));
        if now.writer != 0 || (access == Access::Write && now.readers != 0) {
            return Ok(None);
        }
        let state = self.shared.field(|s| &s.state);
        match access {
            Access::Read => {
                let next = State { readers: now.readers.saturating_add(1), died: false, ..now };
                guard.commit([
                    Store::new(state, next.bits()),
                    Store::new(mine, mine.load(Ordering::Relaxed).wrapping_add(1)),
                ]);
                shared.readers_first_until.store(0, Ordering::Relaxed);
            }
            Access::Write => {
                let next = State { writer: seat.owner() as u16, died: false, ..now };
                state.store(next.bits(), Ordering::Release);
                shared.writers_first_until.store(0, Ordering::Relaxed);
            }
        }
        drop(guard);
        reach(KillPoint::RwLockTaken);
        Ok(Some(if now.died { Acquired::OwnerDied } else { Acquired::Yes }))
    }

    /// Gives back a share that this process took for reading. Returns `false` if it has none: a
    /// guard that was copied by a fork.
    ///
    /// # Errors
    /// As [`RwLock::acquire_read`].
    pub fn release_read(&self) -> Result<bool> {
        let mine = self.handle.aux()?;
        let guard = self.shared.field(|s| &s.lock).lock(self.handle.heap())?;
        let held = mine.load(Ordering::Relaxed);
        if held == 0 {
            return Ok(false);
        }
        let now = State::from_bits(self.shared.state.load(Ordering::Relaxed));
        let next = State { readers: now.readers.saturating_sub(1), ..now };
        guard.commit([Store::new(self.shared.field(|s| &s.state), next.bits()), Store::new(mine, held - 1)]);
        drop(guard);
        if next.readers == 0 {
            self.wake();
        }
        Ok(true)
    }

    /// Frees the lock that this process holds for writing. Returns `false` if it does not.
    ///
    /// # Errors
    /// As [`RwLock::acquire_read`].
    pub fn release_write(&self) -> Result<bool> {
        let guard = self.shared.field(|s| &s.lock).lock(self.handle.heap())?;
        let now = State::from_bits(self.shared.state.load(Ordering::Relaxed));
        if u32::from(now.writer) != guard.seat().owner() {
            return Ok(false);
        }
        self.shared.state.store(State { writer: 0, ..now }.bits(), Ordering::Release);
        drop(guard);
        self.wake();
        Ok(true)
    }

    fn wake(&self) {
        reach(KillPoint::RwLockReleased);
        self.shared.sleepers.notify(u32::MAX);
    }

    /// How many hold it for reading now.
    pub fn readers(&self) -> u32 {
        State::from_bits(self.shared.state.load(Ordering::Acquire)).readers
    }

    /// Whether a writer holds it now.
    pub fn is_write_locked(&self) -> bool {
        State::from_bits(self.shared.state.load(Ordering::Acquire)).writer != 0
    }
}

pub(super) fn owner_died(heap: Heap, seat: Seat, death: &Death, block: Block, entry: At<LedgerEntry>) -> Result<()> {
    let shared = block.view::<RwLockObject>(heap, 0)?;
    let theirs = entry.field(|e| &e.aux);
    let guard = shared.field(|s| &s.lock).lock_from(heap, seat)?;
    shared.peers.remove(death.slot);
    let now = State::from_bits(shared.state.load(Ordering::Relaxed));
    let held = theirs.load(Ordering::Relaxed);
    let wrote = u32::from(now.writer) == death.slot + 1;
    if held == 0 && !wrote {
        return Ok(());
    }
    let next = State {
        readers: now.readers.saturating_sub(held.min(u64::from(u32::MAX)) as u32),
        // Nobody else could free it, so also one that exits in the middle is told of.
        died: now.died || wrote,
        writer: if wrote { 0 } else { now.writer },
    };
    guard.commit([Store::new(shared.field(|s| &s.state), next.bits()), Store::new(theirs, 0)]);
    drop(guard);
    shared.sleepers.notify(u32::MAX);
    Ok(())
}

pub(super) fn is_held_by(heap: Heap, slot: u32, block: Block) -> bool {
    let shared = block.view::<RwLockObject>(heap, 0);
    shared.is_ok_and(|s| u32::from(State::from_bits(s.state.load(Ordering::Acquire)).writer) == slot + 1)
}
