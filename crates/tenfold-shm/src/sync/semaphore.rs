//! A counter of permits.
//!
//! ```text
//!  ┌ internal lock ┬ count ┬ bound ┬ queue until ┬ sleepers ┬ peers ┐      ledger entry ┌ id ┬ permits ┐
//! ```
//!
//! A permit taken by [`Semaphore::acquire`] is a token: it belongs to nobody and may be put back by
//! anyone. One taken by [`Semaphore::acquire_held`] is also counted in the taker's ledger, in the
//! same redo record as the count.
//!
//! *Killed here:* tokens stay taken; counted permits are put back by the sweep, again in one record
//! with the ledger's count.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenfold_sys::clock::{self, Deadline};

use super::peers::{Lookout, Peers};
use super::wait_point::{WaitPoint, Waited};
use super::{SyncError, SyncResult};
use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared};
use crate::internal_lock::{InternalLock, Store};
use crate::kill_point::{KillPoint, reach};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death, LedgerEntry, Seat};

/// The most permits a semaphore can have.
pub const PERMITS_MAX: u64 = i32::MAX as u64;
/// A waiter that has waited this long asks newcomers to queue.
const STARVING: Duration = Duration::from_millis(5);
/// For how long they do.
const QUEUEING: Duration = Duration::from_millis(20);

#[repr(C)]
struct SemaphoreObject {
    lock: InternalLock,
    count: AtomicU64,
    bound: AtomicU64,
    /// Until this moment those who come do not overtake those who sleep. It passes by itself, in
    /// case that the one who set it dies.
    queue_until: AtomicU64,
    sleepers: WaitPoint,
    peers: Peers,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for SemaphoreObject {}

/// A counter of permits that any process can take and put back.
#[derive(Debug, Clone)]
pub struct Semaphore {
    handle: Handle,
    shared: At<SemaphoreObject>,
}

#[derive(Clone, Copy, PartialEq)]
enum Taker {
    /// Nobody's permit.
    Token,
    /// This process's.
    Held,
}

impl Semaphore {
    /// A semaphore with `count` permits; with a bound, putting back more than that is an error.
    ///
    /// # Errors
    /// [`SyncError::OutOfRange`]; if the heap has no room.
    pub fn create(heap: Heap, count: u64, bound: Option<u64>) -> SyncResult<Semaphore> {
        let most = bound.unwrap_or(PERMITS_MAX).min(PERMITS_MAX);
        if count > most {
            return Err(SyncError::OutOfRange { what: "the number of permits", least: 0, most, given: count });
        }
        let bytes = size_of::<SemaphoreObject>() as u64;
        let handle = Handle::create(heap, ObjectKind::Semaphore, bytes, |block| {
            let shared = block.view::<SemaphoreObject>(heap, 0)?;
            shared.count.store(count, Ordering::Relaxed);
            shared.bound.store(bound.unwrap_or(u64::MAX), Ordering::Release);
            Ok(())
        })?;
        Ok(Semaphore::from_handle(handle)?)
    }

    /// The semaphore behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Semaphore> {
        let handle = handle.expect(ObjectKind::Semaphore)?;
        let shared = handle.view()?;
        Ok(Semaphore { handle, shared })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes a permit as a token that anyone may put back; waits for one until the deadline.
    /// Returns whether there was one.
    ///
    /// # Errors
    /// If this process has no slot in the family and can get none.
    pub fn acquire(&self, deadline: Deadline) -> Result<bool> {
        self.acquire_as(Taker::Token, deadline)
    }

    /// Takes a token if there is one.
    ///
    /// # Errors
    /// As [`Semaphore::acquire`].
    pub fn try_acquire(&self) -> Result<bool> {
        self.attempt(Taker::Token, None).map(|taken| taken.is_some())
    }

    /// Takes a permit that goes back if this process dies abnormally; to be put back by
    /// [`Semaphore::release_held`].
    ///
    /// # Errors
    /// As [`Semaphore::acquire`].
    pub fn acquire_held(&self, deadline: Deadline) -> Result<bool> {
        self.acquire_as(Taker::Held, deadline)
    }

    /// [`Semaphore::acquire_held`], if there is a permit.
    ///
    /// # Errors
    /// As [`Semaphore::acquire`].
    pub fn try_acquire_held(&self) -> Result<bool> {
        self.attempt(Taker::Held, None).map(|taken| taken.is_some())
    }

    fn acquire_as(&self, taker: Taker, deadline: Deadline) -> Result<bool> {
        if self.attempt(taker, Some(Waited::NOT))?.is_some() {
            return Ok(true);
        }
        if deadline.expired() {
            return Ok(false);
        }
        let (heap, shared) = (self.handle.heap(), self.shared.get());
        let seat = participant::seat(heap)?;
        let mut lookout = Lookout::default();
        let taken = shared.sleepers.wait(
            deadline,
            || shared.peers.slice(seat.slot()),
            || shared.count.load(Ordering::Relaxed) > 0,
            |waited| self.attempt(taker, Some(waited)),
            || shared.peers.look_after(heap, seat, &mut lookout),
        )?;
        Ok(taken.is_some())
    }

    /// `waited` is `None` for one that will not wait.
    fn attempt(&self, taker: Taker, waited: Option<Waited>) -> Result<Option<()>> {
        let shared = self.shared.get();
        if let Some(waited) = waited {
            let until = shared.queue_until.load(Ordering::Relaxed);
            if until != 0 && !waited.slept && clock::now() < until {
                return Ok(None);
            }
        }
        if shared.count.load(Ordering::Relaxed) > 0 {
            let seat = participant::seat(self.handle.heap())?;
            if taker == Taker::Held {
                shared.peers.add(seat.slot());
            }
            let guard = self.shared.field(|s| &s.lock).lock_from(self.handle.heap(), seat)?;
            let count = shared.count.load(Ordering::Relaxed);
            if count > 0 {
                match taker {
                    Taker::Token => shared.count.store(count - 1, Ordering::Release),
                    Taker::Held => {
                        let mine = self.handle.aux()?;
                        guard.commit([
                            Store::new(self.shared.field(|s| &s.count), count - 1),
                            Store::new(mine, mine.load(Ordering::Relaxed).wrapping_add(1)),
                        ]);
                    }
                }
                drop(guard);
                if shared.queue_until.load(Ordering::Relaxed) != 0 && waited.is_some_and(|w| w.slept) {
                    shared.queue_until.store(0, Ordering::Relaxed);
                }
                reach(KillPoint::SemaphoreTaken);
                return Ok(Some(()));
            }
        }
        if waited.is_some_and(|w| w.longer_than(STARVING)) {
            shared.queue_until.store(clock::now() + QUEUEING.as_nanos() as u64, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Puts `permits` tokens back and wakes as many who wait.
    ///
    /// # Errors
    /// [`SyncError::OverRelease`] if there would be more than the bound; none is put back then.
    pub fn release(&self, permits: u64) -> SyncResult<()> {
        let guard = self.shared.field(|s| &s.lock).lock(self.handle.heap())?;
        let count = self.raised(permits)?;
        self.shared.count.store(count, Ordering::Release);
        drop(guard);
        self.wake(permits);
        Ok(())
    }

    /// Puts back a permit that this process took by [`Semaphore::acquire_held`]. Returns `false`,
    /// and puts nothing back, if it has none: a guard that was copied by a fork.
    ///
    /// # Errors
    /// As [`Semaphore::release`].
    pub fn release_held(&self) -> SyncResult<bool> {
        let mine = self.handle.aux()?;
        let guard = self.shared.field(|s| &s.lock).lock(self.handle.heap())?;
        let held = mine.load(Ordering::Relaxed);
        if held == 0 {
            return Ok(false);
        }
        // Somebody else may have put our permit back as a token: then it is not ours any more.
        let count = self.raised(1);
        let kept = count.as_ref().map_or(self.shared.count.load(Ordering::Relaxed), |count| *count);
        guard.commit([Store::new(self.shared.field(|s| &s.count), kept), Store::new(mine, held - 1)]);
        drop(guard);
        count?;
        self.wake(1);
        Ok(true)
    }

    fn raised(&self, permits: u64) -> SyncResult<u64> {
        let (count, bound) = (self.shared.count.load(Ordering::Relaxed), self.shared.bound.load(Ordering::Relaxed));
        match count.checked_add(permits) {
            Some(more) if more <= bound.min(PERMITS_MAX) => Ok(more),
            _ => Err(SyncError::OverRelease { bound: bound.min(PERMITS_MAX) }),
        }
    }

    fn wake(&self, permits: u64) {
        reach(KillPoint::SemaphoreReleased);
        self.shared.sleepers.notify(permits.min(u64::from(u32::MAX)) as u32);
    }

    /// Permits that can be taken now.
    pub fn value(&self) -> u64 {
        self.shared.count.load(Ordering::Acquire)
    }

    /// The most permits it can have, if it is bounded.
    pub fn bound(&self) -> Option<u64> {
        let bound = self.shared.bound.load(Ordering::Relaxed);
        (bound != u64::MAX).then_some(bound)
    }
}

pub(super) fn owner_died(heap: Heap, seat: Seat, death: &Death, block: Block, entry: At<LedgerEntry>) -> Result<()> {
    let shared = block.view::<SemaphoreObject>(heap, 0)?;
    let theirs = entry.field(|e| &e.aux);
    let guard = shared.field(|s| &s.lock).lock_from(heap, seat)?;
    shared.peers.remove(death.slot);
    let held = theirs.load(Ordering::Relaxed);
    if held == 0 || !death.is_abnormal() {
        return Ok(());
    }
    let most = shared.bound.load(Ordering::Relaxed).min(PERMITS_MAX);
    let count = shared.count.load(Ordering::Relaxed).saturating_add(held).min(most);
    guard.commit([Store::new(shared.field(|s| &s.count), count), Store::new(theirs, 0)]);
    drop(guard);
    shared.sleepers.notify(held.min(u64::from(u32::MAX)) as u32);
    Ok(())
}
