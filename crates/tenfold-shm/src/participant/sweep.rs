//! What becomes of a dead participant.
//!
//! In this order: the internal locks that its lanes name are recovered, innermost first; the
//! objects it held learn of its death; its blocks are freed and its holdings dropped; its slot is
//! free again, in the next generation.
//!
//! Whoever notices a death sweeps: the process that reaps, the warden, or a waiter that finds the
//! holder of its lock dead.
//!
//! *Killed here:* the slot stays dead and names its sweeper; the next one to look finds the
//! sweeper dead, takes its place and does all of it again. Recovering a lock or freeing a cell twice
//! does nothing the second time.

use core::sync::atomic::Ordering;
use std::time::Duration;

use tenfold_sys::clock;
use tenfold_sys::process::ExitStatus;

use super::{BIRTH, DEAD, FREE, Identity, LIVE, Lane, Seat, identity, join, ledger, roster, slot, split};
use crate::error::Result;
use crate::heap::{At, BlockId, Heap, SLOTS};
use crate::internal_lock::InternalLock;
use crate::kill_point::{KillPoint, reach};
use crate::object;

/// A slot that a fork handler claimed and no child adopted is given up after this long.
const BIRTH_LIMIT: Duration = Duration::from_secs(10);
/// How long the one that reaps a process may take to tell its status.
const STATUS_GRACE: Duration = Duration::from_millis(150);

/// Sweeps the participant whose slot is `owner - 1` (as lock words name owners) if its process is
/// dead. Returns whether it was swept by this call.
#[cold]
pub fn sweep_if_dead(heap: Heap, owner: u32) -> bool {
    match owner.checked_sub(1) {
        Some(index) if index < SLOTS => sweep_slot_if_dead(heap, index),
        _ => false,
    }
}

/// Sweeps every participant whose process is dead.
#[cold]
pub fn sweep_all(heap: Heap) {
    for index in 0..SLOTS {
        sweep_slot_if_dead(heap, index);
    }
}

fn sweep_slot_if_dead(heap: Heap, index: u32) -> bool {
    let entry = roster(index, heap);
    let (_, state) = split(entry.state.load(Ordering::Acquire));
    let own = identity::current().is_some_and(|me| me.slot() == index);
    match state {
        FREE => false,
        BIRTH if !birth_is_over(heap, entry) => false,
        LIVE if own || super::is_alive(entry.pid(), entry.start_time()) => false,
        LIVE if entry.exit.load(Ordering::Acquire) == 0 && !waited_for_status(entry) => false,
        _ => sweep(heap, index, None),
    }
}

/// A status is told within moments by whoever reaps; nobody waits for it for ever.
fn waited_for_status(entry: At<super::RosterEntry>) -> bool {
    let now = clock::now();
    match entry.since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => false,
        Err(since) => now.saturating_sub(since) > STATUS_GRACE.as_nanos() as u64,
    }
}

fn birth_is_over(heap: Heap, entry: At<super::RosterEntry>) -> bool {
    let pid = entry.pid();
    if pid != 0 {
        return !super::is_alive(pid, 0);
    }
    let age = clock::now().saturating_sub(entry.since.load(Ordering::Relaxed));
    let expired = age > BIRTH_LIMIT.as_nanos() as u64;
    match entry.parent() {
        // A launcher answers for its claim as long as it lives.
        Some(parent) => (expired && entry.by_fork.load(Ordering::Relaxed) == 1) || !participant_lives(heap, parent),
        None => expired,
    }
}

fn participant_lives(heap: Heap, who: Identity) -> bool {
    let entry = roster(who.slot(), heap);
    who.is_current(heap) && entry.is_live() && super::is_alive(entry.pid(), entry.start_time())
}

/// Sweeps a participant whose process is known to be dead, with its exit status if that is known.
/// Returns whether this call did it (another process may be at it).
pub fn sweep(heap: Heap, index: u32, status: Option<ExitStatus>) -> bool {
    let Ok(seat) = super::seat(heap) else { return false };
    if !claim(heap, index, seat) {
        return false;
    }
    reach(KillPoint::SweepClaimed);
    let entry = roster(index, heap);
    if let Some(status) = status {
        entry.record_exit(status);
    }
    let status = ExitStatus::from_bits(entry.exit.load(Ordering::Acquire));
    recover_locks(heap, index);
    reach(KillPoint::SweepLocksDone);
    let (generation, _) = split(entry.state.load(Ordering::Acquire));
    let death = Death { slot: index, identity: Identity::new(index, generation), status };
    release_holdings(heap, seat, &death);
    reach(KillPoint::SweepDone);
    forget(heap, index);
    true
}

/// Who died, and how.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    pub(crate) slot: u32,
    pub(crate) identity: Identity,
    pub(crate) status: Option<ExitStatus>,
}

impl Death {
    /// Whether the process was killed or crashed, rather than exiting. A death of which nobody
    /// knows the cause counts as abnormal: better a false alarm than a hang.
    pub fn is_abnormal(&self) -> bool {
        !self.status.is_some_and(ExitStatus::is_normal)
    }
}

fn claim(heap: Heap, index: u32, seat: Seat) -> bool {
    let entry = roster(index, heap);
    let me = seat.identity().bits();
    loop {
        let state = entry.state.load(Ordering::Acquire);
        if split(state).1 == FREE {
            return false;
        }
        let sweeper = entry.sweeper.load(Ordering::Acquire);
        if let Some(other) = Identity::from_bits(sweeper) {
            // A dead sweeper's own locks come first: it may have died half-way through a store
            // into this very slot.
            if other == seat.identity() || participant_lives(heap, other) {
                return false;
            }
            if other.is_current(heap) && other.slot() != index {
                sweep_slot_if_dead(heap, other.slot());
                if other.is_current(heap) {
                    return false;
                }
            }
        }
        if entry.sweeper.compare_exchange(sweeper, me, Ordering::AcqRel, Ordering::Acquire).is_err() {
            continue;
        }
        let (generation, now) = split(entry.state.load(Ordering::Acquire));
        if now == FREE || join(generation, now) != state {
            let _ = entry.sweeper.compare_exchange(me, 0, Ordering::AcqRel, Ordering::Acquire);
            return false;
        }
        if now == DEAD
            || entry.state.compare_exchange(state, join(generation, DEAD), Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            return true;
        }
        // A child adopted its birth slot at the last moment.
        let _ = entry.sweeper.compare_exchange(me, 0, Ordering::AcqRel, Ordering::Acquire);
        return false;
    }
}

fn lanes(heap: Heap, index: u32) -> impl Iterator<Item = At<Lane>> {
    let slot = slot(index, heap);
    let inline = (0..super::LANES).map(move |lane| slot.field(|s| &s.lanes[lane]));
    let further = (0..identity::LANE_CHUNKS).filter_map(move |chunk| {
        let id = BlockId::from_bits(slot.lane_chunks[chunk].load(Ordering::Acquire))?;
        heap.block(id).ok()
    });
    let further = further.flat_map(move |block| {
        (0..super::LANES).filter_map(move |lane| block.view::<Lane>(heap, (lane * size_of::<Lane>()) as u64).ok())
    });
    inline.chain(further)
}

fn recover_locks(heap: Heap, index: u32) {
    for lane in lanes(heap, index) {
        for name in lane.names.iter().rev() {
            let offset = name.load(Ordering::Acquire);
            if offset != 0 {
                // An offset that makes no sense names no lock.
                if let Ok(lock) = heap.at::<InternalLock>(offset) {
                    let _ = lock.recover(heap, index + 1);
                }
                name.store(0, Ordering::Release);
            }
        }
    }
}

fn release_holdings(heap: Heap, seat: Seat, death: &Death) {
    let target = slot(death.slot, heap);
    // What is not readable any more is lost, not fatal: the rest is still swept.
    let ignore = |_: Result<()>| ();
    ledger::each(heap, target, |_, entry| {
        ignore(object::owner_died(heap, seat, death, entry));
    });
    for cell in 0..target.cells.len() {
        let cell = target.field(|s| &s.cells[cell]);
        ignore(object::owner_died_in_cell(heap, seat, death, cell));
    }
    for lane in lanes(heap, death.slot) {
        for transit in 0..lane.transit.len() {
            ignore(object::release(heap, seat, lane.field(|l| &l.transit[transit])));
        }
        ignore(object::dismantle_chain(heap, seat, lane.field(|l| &l.dying)));
    }
    for cell in 0..target.cells.len() {
        ignore(object::release(heap, seat, target.field(|s| &s.cells[cell])));
    }
    ledger::each(heap, target, |_, entry| {
        ignore(object::release(heap, seat, entry.field(|e| &e.id)));
        entry.aux.store(0, Ordering::Relaxed);
    });
    for chunk in 0..ledger::CHUNKS {
        ignore(object::release(heap, seat, target.field(|s| &s.ledger_chunks[chunk])));
    }
    for chunk in 0..identity::LANE_CHUNKS {
        ignore(object::release(heap, seat, target.field(|s| &s.lane_chunks[chunk])));
    }
    for word in &target.words {
        word.store(0, Ordering::Relaxed);
    }
}

fn forget(heap: Heap, index: u32) {
    let entry = roster(index, heap);
    let (generation, _) = split(entry.state.load(Ordering::Acquire));
    entry.pid.store(0, Ordering::Relaxed);
    entry.exit.store(0, Ordering::Relaxed);
    entry.start_time.store(0, Ordering::Relaxed);
    entry.parent.store(0, Ordering::Relaxed);
    entry.flags.store(0, Ordering::Relaxed);
    entry.since.store(0, Ordering::Relaxed);
    // The sweeper's name stays until the slot is claimed again: nobody else may begin meanwhile.
    let next = (generation + 1) & 0x3f_ffff;
    entry.state.store(join(next.max(1), FREE), Ordering::Release);
}
