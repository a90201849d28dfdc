//! What becomes of a dead participant.
//!
//! In this order: what it had begun under its internal locks is completed and the locks are freed;
//! the objects it held learn of its death; its blocks are freed and its holdings dropped; its slot
//! is free again, in the next generation.
//!
//! Whoever notices a death sweeps: the process that reaps, the warden, or a waiter that finds the
//! holder of its lock dead. The first step takes no lock, so a waiter does it at once, whatever it
//! holds. The others take locks: a thread that holds some leaves them for later, to itself or to
//! anyone, and they run in a lane of their own, since the thread may be in the middle of something.
//! They also wait a moment for the cause of death, unless it can be read from the zombie.
//!
//! A sweep claims the very state word that was judged dead, so a late one never hits the slot's next
//! participant.
//!
//! *Killed here:* the slot stays dead and names its sweeper; whoever sweeps the sweeper goes on with
//! what that one was at, and does all of it again. Recovering a lock or freeing a cell twice does
//! nothing the second time.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenfold_sys::clock;
use tenfold_sys::process::ExitStatus;

use super::{
    BIRTH, DEAD, FREE, Identity, LIVE, Lane, RosterEntry, Seat, identity, join, ledger, liveness, roster, slot,
};
use super::{is_alive, split};
use crate::error::{HeapError, Result};
use crate::heap::{At, BlockId, Heap, SLOTS};
use crate::internal_lock::InternalLock;
use crate::kill_point::{KillPoint, reach};
use crate::object;

/// A slot that a fork handler claimed and no child adopted is given up after this long.
const BIRTH_LIMIT: Duration = Duration::from_secs(10);
/// The same if the forking process is dead: a daemon's parent exits right after the fork.
const ORPHAN_LIMIT: Duration = Duration::from_secs(2);
/// How long the one that reaps a process may take to tell its status.
const STATUS_GRACE: Duration = Duration::from_millis(150);

/// When to complete the sweeps that this process had to leave half done, or 0.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// How closely to look at a process before it counts as alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Whether its process runs.
    Quick,
    /// Also whether it has become another program by `exec`. Slow.
    Thorough,
}

/// Sweeps the participant whose slot is `owner - 1` (as lock words name owners) if its process is
/// dead. Returns whether it was swept by this call.
#[cold]
pub fn sweep_if_dead(heap: Heap, owner: u32) -> bool {
    sweep_owner(heap, owner, Look::Quick)
}

/// As [`sweep_if_dead`], but a process that has become another program by `exec` counts as dead.
/// Slow: for waits of a second and more.
#[cold]
pub fn sweep_if_gone(heap: Heap, owner: u32) -> bool {
    sweep_owner(heap, owner, Look::Thorough)
}

fn sweep_owner(heap: Heap, owner: u32, look: Look) -> bool {
    index_of(owner).is_some_and(|index| sweep_slot_if_dead(heap, index, look))
}

/// Sweeps every participant whose process is dead.
#[cold]
pub fn sweep_all(heap: Heap) {
    for index in 0..SLOTS {
        sweep_slot_if_dead(heap, index, Look::Quick);
    }
}

/// As [`sweep_all`], with those that have become another program.
#[cold]
pub(super) fn sweep_all_gone(heap: Heap) {
    for index in 0..SLOTS {
        sweep_slot_if_dead(heap, index, Look::Thorough);
    }
}

fn sweep_slot_if_dead(heap: Heap, index: u32, look: Look) -> bool {
    let Some(state) = judge(heap, index, look) else { return false };
    if !cause_is_settled(roster(index, heap), state) {
        return false;
    }
    match super::seat(heap) {
        Ok(seat) => sweep_state(heap, seat, index, state, true),
        Err(_) => false,
    }
}

/// The slot of an owner of locks, if a participant can have that number.
fn index_of(owner: u32) -> Option<u32> {
    owner.checked_sub(1).filter(|index| *index < SLOTS)
}

/// Whether a participant can have this number as an owner of locks.
pub(crate) fn may_own(owner: u32) -> bool {
    index_of(owner).is_some()
}

/// For whoever waits for an internal lock: if its owner is dead, the owner's locks are recovered at
/// once. The rest of the sweep follows, now or later.
#[cold]
pub(crate) fn recover_if_dead(heap: Heap, seat: Seat, owner: u32, waited_long: bool) {
    let Some(index) = index_of(owner) else { return };
    let look = if waited_long { Look::Thorough } else { Look::Quick };
    if let Some(state) = judge(heap, index, look) {
        let settled = cause_is_settled(roster(index, heap), state);
        sweep_state(heap, seat, index, state, settled);
    }
}

/// The state word of a slot that is to be swept, `None` if there is nothing to sweep. The sweep
/// claims exactly this state, so that it never hits the next participant in the same slot.
fn judge(heap: Heap, index: u32, look: Look) -> Option<u64> {
    let entry = roster(index, heap);
    let state = entry.state.load(Ordering::Acquire);
    let over = match split(state).1 {
        FREE => false,
        BIRTH => birth_is_over(heap, entry),
        LIVE if identity::current().is_some_and(|me| me.slot() == index) => false,
        // Adopted this instant; or its process died before it could put its number down.
        LIVE if entry.pid() == 0 => older_than(entry, BIRTH_LIMIT),
        LIVE => {
            !is_alive(entry.pid(), entry.start_time())
                || (look == Look::Thorough && !liveness::maps_heap(heap, entry.pid()))
        }
        _ => true,
    };
    // What was read belongs to that state only if it still stands.
    (over && entry.state.load(Ordering::Acquire) == state).then_some(state)
}

/// Whether it is known how the process ended, or nobody will tell any more.
fn cause_is_settled(entry: At<RosterEntry>, state: u64) -> bool {
    let (generation, phase) = split(state);
    if phase == BIRTH || entry.exit_in(generation).is_some() {
        return true;
    }
    if let Some(status) = liveness::exit_status(entry.pid(), entry.start_time()) {
        entry.record_exit(generation, status);
        return true;
    }
    older_than(entry, STATUS_GRACE)
}

/// Whether the entry's clock shows more than `limit`; starts it if it does not run.
fn older_than(entry: At<RosterEntry>, limit: Duration) -> bool {
    let now = clock::now();
    match entry.since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => false,
        Err(since) => now.saturating_sub(since) > limit.as_nanos() as u64,
    }
}

fn birth_is_over(heap: Heap, entry: At<RosterEntry>) -> bool {
    let pid = entry.pid();
    if pid != 0 {
        return !is_alive(pid, 0);
    }
    match (entry.parent(), entry.by_fork.load(Ordering::Relaxed) == 1) {
        (Some(parent), by_fork) => match (participant_lives(heap, parent), by_fork) {
            // A launcher answers for its claim as long as it lives.
            (true, false) => false,
            (true, true) => older_than(entry, BIRTH_LIMIT),
            (false, true) => older_than(entry, ORPHAN_LIMIT),
            (false, false) => true,
        },
        (None, _) => older_than(entry, BIRTH_LIMIT),
    }
}

fn participant_lives(heap: Heap, who: Identity) -> bool {
    let entry = roster(who.slot(), heap);
    who.is_current(heap) && entry.is_live() && (entry.pid() == 0 || is_alive(entry.pid(), entry.start_time()))
}

/// Sweeps the participant in a slot, whose process is known to be dead, with its exit status if
/// that is known. Returns whether this call did it (another process may be at it, or the process is
/// not dead after all). Who knows the participant's identity calls [`sweep_participant`].
pub fn sweep(heap: Heap, index: u32, status: Option<ExitStatus>) -> bool {
    let state = roster(index, heap).state.load(Ordering::Acquire);
    sweep_known(heap, index, state, status)
}

/// Sweeps a participant whose process is known to be dead. Nothing happens if its slot has been
/// swept already, whoever has it by now.
pub fn sweep_participant(heap: Heap, who: Identity, status: Option<ExitStatus>) -> bool {
    let state = roster(who.slot(), heap).state.load(Ordering::Acquire);
    let current = split(state).1 != FREE && Identity::new(who.slot(), split(state).0) == who;
    current && sweep_known(heap, who.slot(), state, status)
}

fn sweep_known(heap: Heap, index: u32, state: u64, status: Option<ExitStatus>) -> bool {
    let over = match split(state).1 {
        FREE => false,
        BIRTH => true,
        _ => judge(heap, index, Look::Quick) == Some(state),
    };
    let Ok(seat) = super::seat(heap) else { return false };
    if !over {
        return false;
    }
    let entry = roster(index, heap);
    if let Some(status) = status {
        entry.record_exit(split(state).0, status);
    } else {
        // Whatever can be found out now; the caller does not want to wait.
        cause_is_settled(entry, state);
    }
    sweep_state(heap, seat, index, state, true)
}

/// Sweeps the slot if it is in this state still. `seat` is where the calling thread names the locks
/// that it holds. Without a settled cause of death only the locks are recovered.
fn sweep_state(heap: Heap, seat: Seat, index: u32, state: u64, settled: bool) -> bool {
    if !claim(heap, index, seat.identity(), state) {
        return false;
    }
    reach(KillPoint::SweepClaimed);
    let entry = roster(index, heap);
    let recovered = recover_locks(heap, index);
    reach(KillPoint::SweepLocksDone);
    // What follows takes locks: not while this thread holds some, nor in a fork handler.
    if !recovered || !seat.may_sweep(heap) || !settled {
        leave_unfinished(entry, seat.identity());
        return false;
    }
    let (generation, _) = split(state);
    let status = entry.exit_in(generation);
    let death = Death { slot: index, identity: Identity::new(index, generation), status };
    // In a lane of its own: the thread may be in the middle of something.
    if identity::with_lane_of_its_own(heap, |seat| release_holdings(heap, seat, &death)).is_err() {
        leave_unfinished(entry, seat.identity());
        return false;
    }
    reach(KillPoint::SweepDone);
    forget(heap, index, seat.identity());
    take_over_from(heap, death.identity);
    true
}

/// The slot stays dead, for the next one to sweep; this process itself will look again.
fn leave_unfinished(entry: At<RosterEntry>, me: Identity) {
    let _ = entry.sweeper.compare_exchange(me.bits(), 0, Ordering::AcqRel, Ordering::Acquire);
    let _ = UNFINISHED.compare_exchange(
        0,
        clock::now() + STATUS_GRACE.as_nanos() as u64,
        Ordering::AcqRel,
        Ordering::Relaxed,
    );
}

/// Called when a thread drops an internal lock: completes what [`leave_unfinished`] left, once the
/// thread holds no lock any more.
#[inline(always)]
pub(crate) fn finish(seat: &Seat) {
    if UNFINISHED.load(Ordering::Relaxed) != 0 {
        finish_slow(seat);
    }
}

#[cold]
#[inline(never)]
fn finish_slow(seat: &Seat) {
    let Some(heap) = Heap::existing() else { return };
    let when = UNFINISHED.load(Ordering::Relaxed);
    if when == 0 || clock::now() < when || !seat.may_sweep(heap) {
        return;
    }
    if UNFINISHED.compare_exchange(when, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        for index in 0..SLOTS {
            if split(roster(index, heap).state.load(Ordering::Acquire)).1 == DEAD {
                sweep_slot_if_dead(heap, index, Look::Quick);
            }
        }
    }
}

/// What the dead participant was sweeping when it died.
fn take_over_from(heap: Heap, dead: Identity) {
    for index in 0..SLOTS {
        let entry = roster(index, heap);
        if entry.sweeper.load(Ordering::Acquire) == dead.bits() && split(entry.state.load(Ordering::Acquire)).1 == DEAD
        {
            sweep_slot_if_dead(heap, index, Look::Quick);
        }
    }
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

/// Makes this process the only one that sweeps the slot, if it is in state `state` still.
fn claim(heap: Heap, index: u32, me: Identity, state: u64) -> bool {
    let entry = roster(index, heap);
    loop {
        if entry.state.load(Ordering::Acquire) != state {
            return false;
        }
        let sweeper = entry.sweeper.load(Ordering::Acquire);
        if let Some(other) = Identity::from_bits(sweeper) {
            // A dead sweeper's own locks come first: it may have died half-way through a store
            // into this very slot. The rest of it can wait: to free what it had may take a lock
            // that is to be freed here, and who holds a lock frees nothing.
            if other == me || participant_lives(heap, other) {
                return false;
            }
            if other.is_current(heap) && other.slot() != index {
                sweep_slot_if_dead(heap, other.slot(), Look::Quick);
                if other.is_current(heap) && names_a_lock(heap, other.slot()) {
                    return false;
                }
            }
        }
        if entry.sweeper.compare_exchange(sweeper, me.bits(), Ordering::AcqRel, Ordering::Acquire).is_err() {
            continue;
        }
        let dead = join(split(state).0, DEAD);
        if entry.state.compare_exchange(state, dead, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
        // A child adopted its birth slot at the last moment, or it was swept meanwhile.
        let _ = entry.sweeper.compare_exchange(me.bits(), 0, Ordering::AcqRel, Ordering::Acquire);
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

/// Returns whether it got at all of them; if not, somebody else must try.
fn recover_locks(heap: Heap, index: u32) -> bool {
    // First all that was begun is completed, then the locks are freed. A lane may name a lock that
    // another thread of the dead process held, with an unfinished change under an inner lock.
    for lane in lanes(heap, index) {
        for name in &lane.names {
            if is_our_own_trouble(&named_lock(heap, name).map_or(Ok(()), |lock| lock?.complete(heap, index + 1))) {
                return false;
            }
        }
    }
    for lane in lanes(heap, index) {
        for name in lane.names.iter().rev() {
            // An offset that makes no sense names no lock.
            if let Some(Ok(lock)) = named_lock(heap, name) {
                lock.recover(index + 1);
            }
            name.store(0, Ordering::Release);
        }
    }
    true
}

/// Whether a dead participant may still hold a lock: [`recover_locks`] takes each name away, once it has
/// completed all that was begun.
fn names_a_lock(heap: Heap, index: u32) -> bool {
    lanes(heap, index).any(|lane| lane.names.iter().any(|name| name.load(Ordering::Acquire) != 0))
}

fn named_lock(heap: Heap, name: &AtomicU64) -> Option<Result<At<InternalLock>>> {
    match name.load(Ordering::Acquire) {
        0 => None,
        offset => Some(heap.at::<InternalLock>(offset)),
    }
}

/// Whether it failed for want of something that another process may have.
fn is_our_own_trouble(result: &Result<()>) -> bool {
    matches!(result, Err(HeapError::AddressSpace { .. } | HeapError::FileTaken))
}

fn release_holdings(heap: Heap, seat: Seat, death: &Death) -> Result<()> {
    let target = slot(death.slot, heap);
    let mut trouble = Ok(());
    // What is not readable any more is lost, not fatal: the rest is still swept.
    let mut note = |result: Result<()>| {
        if is_our_own_trouble(&result) {
            trouble = result;
        }
    };
    ledger::each(heap, target, |_, entry| {
        note(object::owner_died(heap, seat, death, entry));
    });
    for cell in 0..target.cells.len() {
        let cell = target.field(|s| &s.cells[cell]);
        note(object::owner_died_in_cell(heap, seat, death, cell));
    }
    for lane in lanes(heap, death.slot) {
        for transit in 0..lane.transit.len() {
            note(object::release(heap, seat, lane.field(|l| &l.transit[transit])));
        }
        note(object::dismantle_chain(heap, seat, lane.field(|l| &l.dying)));
    }
    for cell in 0..target.cells.len() {
        note(object::release(heap, seat, target.field(|s| &s.cells[cell])));
    }
    ledger::each(heap, target, |_, entry| {
        note(object::release(heap, seat, entry.field(|e| &e.id)));
        entry.aux.store(0, Ordering::Relaxed);
    });
    trouble?;
    for chunk in 0..ledger::CHUNKS {
        object::release(heap, seat, target.field(|s| &s.ledger_chunks[chunk]))?;
    }
    for chunk in 0..identity::LANE_CHUNKS {
        object::release(heap, seat, target.field(|s| &s.lane_chunks[chunk]))?;
    }
    for word in &target.words {
        word.store(0, Ordering::Relaxed);
    }
    Ok(())
}

fn forget(heap: Heap, index: u32, me: Identity) {
    let entry = roster(index, heap);
    let (generation, _) = split(entry.state.load(Ordering::Acquire));
    entry.pid.store(0, Ordering::Relaxed);
    entry.exit.store(0, Ordering::Relaxed);
    entry.start_time.store(0, Ordering::Relaxed);
    entry.parent.store(0, Ordering::Relaxed);
    entry.flags.store(0, Ordering::Relaxed);
    entry.since.store(0, Ordering::Relaxed);
    let next = (generation + 1) & 0x3f_ffff;
    entry.state.store(join(next.max(1), FREE), Ordering::Release);
    // Only now: nobody else may begin before. Killed in between, the name of a dead sweeper stays,
    // which the next sweep of this slot passes over.
    let _ = entry.sweeper.compare_exchange(me.bits(), 0, Ordering::AcqRel, Ordering::Acquire);
}
