//! A counter of permits.
//!
//! ```text
//!  ┌ internal lock ┬ count ┬ bound ┬ queue until ┬ sleepers ┬ peers ┐      ledger entry ┌ id ┬ permits ┐
//! ```
//!
//! A permit taken by [`Semaphore::acquire`] is a token: it belongs to nobody and may be put back by
//! anyone, which changes the count alone, in one step and without the lock. One taken by
//! [`Semaphore::acquire_held`] is also counted in the taker's ledger, in the same redo record as the
//! count. For as long as such a record could still be done (again), the count is *frozen*: who wants
//! a token then has to take the lock.
//!
//! | count | meaning | leaves by |
//! |---|---|---|
//! | n | n permits | a token is taken or put back: n - 1, n + 1; under the lock: frozen |
//! | n, frozen | n permits, a holder of the lock is at it, or has died there | under the lock: n' |
//!
//! *Killed here:* tokens stay taken; counted permits are put back by the sweep, again in one record
//! with the ledger's count. A count that was left frozen is thawed by the next under the lock.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenfold_sys::clock::{self, Deadline};

use super::peers::{Lookout, Peers};
use super::wait_point::{WaitPoint, Waited};
use super::{SyncError, SyncResult};
use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared, Word};
use crate::internal_lock::{Guard, InternalLock, Store};
use crate::kill_point::{KillPoint, reach};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death, LedgerEntry, Seat};

/// The most permits a semaphore can have.
pub const PERMITS_MAX: u64 = i32::MAX as u64;
/// The count's bit that says that only the lock's holder may change it.
const FROZEN: u64 = 1 << 63;
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

/// How an attempt to change the count in one step ended.
enum Step {
    Done,
    /// The count does not allow it.
    Refused,
    /// Only under the lock.
    Frozen,
}

/// The count while nobody but the holder of the lock changes it. Ends by [`Frozen::commit`] or
/// [`Frozen::thaw_with`].
struct Frozen {
    shared: At<SemaphoreObject>,
    count: u64,
}

impl Frozen {
    /// For the holder of the lock.
    fn new(shared: At<SemaphoreObject>) -> Frozen {
        let count = shared.count.fetch_or(FROZEN, Ordering::AcqRel) & !FROZEN;
        reach(KillPoint::SemaphoreFrozen);
        Frozen { shared, count }
    }

    /// Changes the count and a number in a ledger, in one record.
    fn commit(&self, guard: &Guard, count: u64, ledger: Word, number: u64) {
        // Frozen until the record is cleared, so that doing it again undoes nobody's step.
        guard.commit([Store::new(self.shared.field(|s| &s.count), count | FROZEN), Store::new(ledger, number)]);
        self.thaw_with(count);
    }

    fn thaw_with(&self, count: u64) {
        self.shared.count.store(count, Ordering::Release);
    }
}

/// How many sleepers so many permits are for.
fn sleepers(permits: u64) -> u32 {
    u32::try_from(permits).unwrap_or(u32::MAX)
}

/// The most permits there can be.
fn most(shared: &SemaphoreObject) -> u64 {
    shared.bound.load(Ordering::Relaxed).min(PERMITS_MAX)
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
    #[inline]
    pub fn acquire(&self, deadline: Deadline) -> Result<bool> {
        // The common case, in the caller's code.
        if self.shared.queue_until.load(Ordering::Relaxed) == 0
            && let Step::Done = self.step(|count| count.checked_sub(1))
        {
            reach(KillPoint::SemaphoreTaken);
            return Ok(true);
        }
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
            || self.value() > 0,
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
        let taken = match taker {
            Taker::Token => self.take_token()?,
            Taker::Held => self.take_held()?,
        };
        if taken {
            if shared.queue_until.load(Ordering::Relaxed) != 0 && waited.is_some_and(|w| w.slept) {
                shared.queue_until.store(0, Ordering::Relaxed);
            }
            reach(KillPoint::SemaphoreTaken);
            return Ok(Some(()));
        }
        if waited.is_some_and(|w| w.longer_than(STARVING)) {
            shared.queue_until.store(clock::now() + QUEUEING.as_nanos() as u64, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Changes the count in one step, if `change` gives a new one and the count is not frozen.
    #[inline]
    fn step(&self, mut change: impl FnMut(u64) -> Option<u64>) -> Step {
        let count = &self.shared.get().count;
        let mut now = count.load(Ordering::Relaxed);
        loop {
            if now & FROZEN != 0 {
                return Step::Frozen;
            }
            let Some(next) = change(now) else { return Step::Refused };
            // In one order with the arrivals of waiters: see [`WaitPoint::notify_after_exchange`].
            match count.compare_exchange_weak(now, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Step::Done,
                Err(other) => now = other,
            }
        }
    }

    fn take_token(&self) -> Result<bool> {
        match self.step(|count| count.checked_sub(1)) {
            Step::Done => return Ok(true),
            Step::Refused => return Ok(false),
            Step::Frozen => {}
        }
        let _guard = self.shared.field(|s| &s.lock).lock(self.handle.heap())?;
        let frozen = Frozen::new(self.shared);
        let taken = frozen.count > 0;
        frozen.thaw_with(frozen.count - u64::from(taken));
        Ok(taken)
    }

    fn take_held(&self) -> Result<bool> {
        if self.value() == 0 {
            return Ok(false);
        }
        let seat = participant::seat(self.handle.heap())?;
        self.shared.peers.add(seat.slot());
        let mine = self.handle.aux()?;
        let guard = self.shared.field(|s| &s.lock).lock_from(self.handle.heap(), seat)?;
        let frozen = Frozen::new(self.shared);
        let taken = frozen.count > 0;
        if taken {
            frozen.commit(&guard, frozen.count - 1, mine, mine.load(Ordering::Relaxed).wrapping_add(1));
        } else {
            frozen.thaw_with(0);
        }
        Ok(taken)
    }

    /// Puts `permits` tokens back and wakes as many who wait.
    ///
    /// # Errors
    /// [`SyncError::OverRelease`] if there would be more than the bound; none is put back then.
    #[inline]
    pub fn release(&self, permits: u64) -> SyncResult<()> {
        match self.step(|count| self.raised(count, permits)) {
            Step::Done => {
                reach(KillPoint::SemaphoreReleased);
                self.shared.sleepers.notify_after_exchange(sleepers(permits));
                Ok(())
            }
            Step::Refused => Err(self.too_many()),
            Step::Frozen => self.release_under_the_lock(permits),
        }
    }

    #[cold]
    fn release_under_the_lock(&self, permits: u64) -> SyncResult<()> {
        let guard = self.shared.field(|s| &s.lock).lock(self.handle.heap())?;
        let frozen = Frozen::new(self.shared);
        let raised = self.raised(frozen.count, permits);
        frozen.thaw_with(raised.unwrap_or(frozen.count));
        drop(guard);
        raised.ok_or_else(|| self.too_many())?;
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
        let frozen = Frozen::new(self.shared);
        // Somebody else may have put our permit back as a token: then it is not ours any more.
        let raised = self.raised(frozen.count, 1);
        frozen.commit(&guard, raised.unwrap_or(frozen.count), mine, held - 1);
        drop(guard);
        raised.ok_or_else(|| self.too_many())?;
        self.wake(1);
        Ok(true)
    }

    /// The count with so many permits more, if there may be that many.
    #[inline]
    fn raised(&self, count: u64, permits: u64) -> Option<u64> {
        count.checked_add(permits).filter(|&more| more <= most(self.shared.get()))
    }

    #[cold]
    fn too_many(&self) -> SyncError {
        SyncError::OverRelease { bound: most(self.shared.get()) }
    }

    fn wake(&self, permits: u64) {
        reach(KillPoint::SemaphoreReleased);
        self.shared.sleepers.notify(sleepers(permits));
    }

    /// Permits that can be taken now.
    pub fn value(&self) -> u64 {
        self.shared.count.load(Ordering::Acquire) & !FROZEN
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
    let frozen = Frozen::new(shared);
    frozen.commit(&guard, frozen.count.saturating_add(held).min(most(shared.get())), theirs, 0);
    drop(guard);
    shared.sleepers.notify(sleepers(held));
    Ok(())
}
