//! A meeting point for a fixed number of parties.
//!
//! | phase | meaning | next |
//! |---|---|---|
//! | filling | parties arrive and wait | opening, when the last one has come; broken, resetting |
//! | opening | all are there, the last one does what is to be done before they go on | draining; broken, resetting |
//! | draining | the parties go on; who comes now waits for the next round | filling, when the last has left |
//! | resetting | the parties leave with an error; who comes now waits | filling, when the last has left |
//! | broken | whoever is there or comes gets an error | resetting or filling, by `reset` |
//!
//! ```text
//!  ┌ internal lock ┬ phase · count ┬ parties ┬ sleepers ┬ peers ┐   ledger entry ┌ id ┬ arrived ┐
//! ```
//!
//! The count says how many have arrived and not left; each process's share in it is in its ledger,
//! in one redo record with the count.
//!
//! *Killed here:* the sweep takes the dead process's share out of the count, and breaks the barrier
//! if the round was not over. Those who wait look from time to time whether the others live.

use core::sync::atomic::{AtomicU64, Ordering};

use tenfold_sys::clock::Deadline;

use super::peers::{Lookout, Peers};
use super::wait_point::WaitPoint;
use super::{SyncError, SyncResult};
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared, Word};
use crate::internal_lock::{Guard, InternalLock, Store};
use crate::kill_point::{KillPoint, reach};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death, LedgerEntry, Seat};

/// The most parties a barrier can have.
pub const PARTIES_MAX: u64 = i32::MAX as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Filling = 0,
    Opening = 1,
    Draining = 2,
    Resetting = 3,
    Broken = 4,
}

/// `phase:32 | count:32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    phase: Phase,
    count: u32,
}

impl State {
    fn from_bits(bits: u64) -> Option<State> {
        let phase = match bits >> 32 {
            0 => Phase::Filling,
            1 => Phase::Opening,
            2 => Phase::Draining,
            3 => Phase::Resetting,
            4 => Phase::Broken,
            _ => return None,
        };
        Some(State { phase, count: bits as u32 })
    }

    fn bits(self) -> u64 {
        (self.phase as u64) << 32 | u64::from(self.count)
    }

    /// `share` of the parties leave.
    fn without(self, share: u32) -> State {
        let count = self.count.saturating_sub(share);
        match self.phase {
            Phase::Draining | Phase::Resetting if count == 0 => State { phase: Phase::Filling, count },
            phase => State { phase, count },
        }
    }

    /// The round cannot be finished.
    fn broken(self) -> State {
        match self.phase {
            Phase::Filling | Phase::Opening | Phase::Broken => State { phase: Phase::Broken, ..self },
            // The round is over already.
            Phase::Draining | Phase::Resetting => self,
        }
    }
}

#[repr(C)]
struct BarrierObject {
    lock: InternalLock,
    state: AtomicU64,
    parties: AtomicU64,
    sleepers: WaitPoint,
    peers: Peers,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for BarrierObject {}

/// A meeting point: each party waits until all have come.
#[derive(Debug, Clone)]
pub struct Barrier {
    handle: Handle,
    shared: At<BarrierObject>,
}

/// How a wait at a barrier ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierWait {
    /// All have come; this party was number `index`, from 0.
    Passed {
        /// In which place this party came.
        index: u32,
    },
    /// The barrier was aborted or reset, a party died, or one gave up waiting.
    Broken,
    /// This party gave up waiting, which has broken the barrier for the others.
    TimedOut,
}

/// How a party has arrived.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// It waits for others.
    Waits {
        index: u32,
    },
    /// It is the last, and lets the others go on.
    Opens {
        index: u32,
    },
    Broken,
}

impl Barrier {
    /// A barrier for `parties` parties.
    ///
    /// # Errors
    /// [`SyncError::OutOfRange`] if there are none or too many; if the heap has no room.
    pub fn create(heap: Heap, parties: u64) -> SyncResult<Barrier> {
        if !(1..=PARTIES_MAX).contains(&parties) {
            return Err(SyncError::OutOfRange {
                what: "the number of parties",
                least: 1,
                most: PARTIES_MAX,
                given: parties,
            });
        }
        let handle = Handle::create(heap, ObjectKind::Barrier, size_of::<BarrierObject>() as u64, |block| {
            block.view::<BarrierObject>(heap, 0)?.parties.store(parties, Ordering::Release);
            Ok(())
        })?;
        Ok(Barrier::from_handle(handle)?)
    }

    /// The barrier behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Barrier> {
        let handle = handle.expect(ObjectKind::Barrier)?;
        let shared = handle.view()?;
        Ok(Barrier { handle, shared })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until all parties have come, or the deadline.
    ///
    /// # Errors
    /// If this process has no slot in the family and can get none.
    pub fn wait(&self, deadline: Deadline) -> Result<BarrierWait> {
        self.wait_and(deadline, || true)
    }

    /// The same; the last party to come calls `action` before anybody goes on. If that returns
    /// `false` or unwinds, the barrier is broken.
    ///
    /// # Errors
    /// As [`Barrier::wait`].
    pub fn wait_and(&self, deadline: Deadline, action: impl FnOnce() -> bool) -> Result<BarrierWait> {
        let heap = self.handle.heap();
        let seat = participant::seat(heap)?;
        let shared = self.shared.get();
        shared.peers.add(seat.slot());
        let mut lookout = Lookout::default();
        let slice = || shared.peers.slice(seat.slot());
        let mut look_after = || shared.peers.look_after(heap, seat, &mut lookout);
        let arrival = match self.try_arrive(seat)? {
            Some(arrival) => Some(arrival),
            // The last round's parties have not all left.
            None => {
                let peek = || matches!(self.phase(), Some(Phase::Filling | Phase::Broken));
                shared.sleepers.wait(deadline, slice, peek, |_| self.try_arrive(seat), &mut look_after)?
            }
        };
        let index = match arrival {
            None => return Ok(BarrierWait::TimedOut),
            Some(Arrival::Broken) => return Ok(BarrierWait::Broken),
            Some(Arrival::Opens { index }) => return self.open(seat, index, action),
            Some(Arrival::Waits { index }) => index,
        };
        let peek = || !matches!(self.phase(), Some(Phase::Filling | Phase::Opening));
        let end = shared.sleepers.wait(deadline, slice, peek, |_| self.try_leave(seat, index), &mut look_after)?;
        match end {
            Some(end) => Ok(end),
            None => self.give_up(seat, index),
        }
    }

    fn open(&self, seat: Seat, index: u32, action: impl FnOnce() -> bool) -> Result<BarrierWait> {
        struct Abort<'a>(&'a Barrier, Seat, bool);
        impl Drop for Abort<'_> {
            fn drop(&mut self) {
                if self.2 {
                    let _ = self.0.change(self.1, 1, State::broken);
                }
            }
        }
        let mut abort = Abort(self, seat, true);
        let done = action();
        abort.2 = false;
        drop(abort);
        let mut end = BarrierWait::Broken;
        self.change(seat, 1, |state| match (state.phase, done) {
            (Phase::Opening, true) => {
                end = BarrierWait::Passed { index };
                State { phase: Phase::Draining, ..state }
            }
            _ => state.broken(),
        })?;
        Ok(end)
    }

    /// Changes the state, then takes `share` of this process's parties out of it.
    fn change(&self, seat: Seat, share: u32, change: impl FnOnce(State) -> State) -> Result<()> {
        let mine = self.handle.aux()?;
        let guard = self.lock(seat)?;
        self.commit(&guard, mine, share, change(self.state()?));
        drop(guard);
        self.wake();
        Ok(())
    }

    fn commit(&self, guard: &Guard, mine: Word, share: u32, state: State) {
        let state = state.without(share);
        let left = mine.load(Ordering::Relaxed).saturating_sub(u64::from(share));
        guard.commit([Store::new(self.shared.field(|s| &s.state), state.bits()), Store::new(mine, left)]);
    }

    fn try_arrive(&self, seat: Seat) -> Result<Option<Arrival>> {
        let mine = self.handle.aux()?;
        let guard = self.lock(seat)?;
        let state = self.state()?;
        match state.phase {
            Phase::Draining | Phase::Resetting | Phase::Opening => return Ok(None),
            Phase::Broken => return Ok(Some(Arrival::Broken)),
            Phase::Filling => {}
        }
        let index = state.count;
        let last = u64::from(index) + 1 >= self.shared.parties.load(Ordering::Relaxed);
        let phase = if last { Phase::Opening } else { Phase::Filling };
        guard.commit([
            Store::new(self.shared.field(|s| &s.state), State { phase, count: index.saturating_add(1) }.bits()),
            Store::new(mine, mine.load(Ordering::Relaxed).wrapping_add(1)),
        ]);
        drop(guard);
        reach(KillPoint::BarrierArrived);
        Ok(Some(if last { Arrival::Opens { index } } else { Arrival::Waits { index } }))
    }

    /// Leaves if the round is over.
    fn try_leave(&self, seat: Seat, index: u32) -> Result<Option<BarrierWait>> {
        let end = match self.phase().ok_or(self.corrupt())? {
            Phase::Filling | Phase::Opening => return Ok(None),
            Phase::Draining => BarrierWait::Passed { index },
            Phase::Resetting | Phase::Broken => BarrierWait::Broken,
        };
        let mine = self.handle.aux()?;
        let guard = self.lock(seat)?;
        // The phase cannot move on to a next round while this party is counted, but a reset may
        // follow on a break: the end is the same.
        let state = self.state()?;
        self.commit(&guard, mine, 1, state);
        let all_left = state.without(1).phase != state.phase;
        drop(guard);
        if all_left {
            self.shared.sleepers.notify(u32::MAX);
        }
        Ok(Some(end))
    }

    /// The deadline has come.
    fn give_up(&self, seat: Seat, index: u32) -> Result<BarrierWait> {
        let mut end = BarrierWait::TimedOut;
        self.change(seat, 1, |state| {
            match state.phase {
                Phase::Draining => end = BarrierWait::Passed { index },
                Phase::Resetting | Phase::Broken => end = BarrierWait::Broken,
                Phase::Filling | Phase::Opening => {}
            }
            state.broken()
        })?;
        Ok(end)
    }

    /// Breaks the barrier: all who wait, and all who come, get [`BarrierWait::Broken`].
    ///
    /// # Errors
    /// As [`Barrier::wait`].
    pub fn abort(&self) -> Result<()> {
        let seat = participant::seat(self.handle.heap())?;
        self.change(seat, 0, |state| State { phase: Phase::Broken, ..state })
    }

    /// Makes the barrier as new; all who wait get [`BarrierWait::Broken`].
    ///
    /// # Errors
    /// As [`Barrier::wait`].
    pub fn reset(&self) -> Result<()> {
        let seat = participant::seat(self.handle.heap())?;
        self.change(seat, 0, |state| match (state.phase, state.count) {
            (_, 0) => State { phase: Phase::Filling, ..state },
            (Phase::Filling | Phase::Opening | Phase::Broken, _) => State { phase: Phase::Resetting, ..state },
            (Phase::Draining | Phase::Resetting, _) => state,
        })
    }

    /// How many parties it takes.
    pub fn parties(&self) -> u64 {
        self.shared.parties.load(Ordering::Relaxed)
    }

    /// How many wait now.
    pub fn waiting(&self) -> u32 {
        match State::from_bits(self.shared.state.load(Ordering::Acquire)) {
            Some(State { phase: Phase::Filling | Phase::Opening, count }) => count,
            _ => 0,
        }
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.phase() == Some(Phase::Broken)
    }

    fn phase(&self) -> Option<Phase> {
        State::from_bits(self.shared.state.load(Ordering::Acquire)).map(|state| state.phase)
    }

    fn state(&self) -> Result<State> {
        State::from_bits(self.shared.state.load(Ordering::Relaxed)).ok_or(self.corrupt())
    }

    fn corrupt(&self) -> HeapError {
        HeapError::corrupt("state of a barrier", self.shared.offset())
    }

    fn lock(&self, seat: Seat) -> Result<Guard> {
        self.shared.field(|s| &s.lock).lock_from(self.handle.heap(), seat)
    }

    fn wake(&self) {
        reach(KillPoint::BarrierOpened);
        self.shared.sleepers.notify(u32::MAX);
    }
}

pub(super) fn owner_died(heap: Heap, seat: Seat, death: &Death, block: Block, entry: At<LedgerEntry>) -> Result<()> {
    let shared = block.view::<BarrierObject>(heap, 0)?;
    let theirs = entry.field(|e| &e.aux);
    let guard = shared.field(|s| &s.lock).lock_from(heap, seat)?;
    shared.peers.remove(death.slot);
    let held = theirs.load(Ordering::Relaxed);
    if held == 0 {
        return Ok(());
    }
    let state = State::from_bits(shared.state.load(Ordering::Relaxed))
        .ok_or(HeapError::corrupt("state of a barrier", shared.offset()))?;
    // However it ended: one that has arrived and is no more will not go on with the others.
    let next = state.broken().without(held.min(u64::from(u32::MAX)) as u32);
    guard.commit([Store::new(shared.field(|s| &s.state), next.bits()), Store::new(theirs, 0)]);
    drop(guard);
    shared.sleepers.notify(u32::MAX);
    Ok(())
}
