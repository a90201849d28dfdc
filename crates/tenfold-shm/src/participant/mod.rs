//! The processes of the family: who is alive, and what each one owns.
//!
//! ```text
//!  roster (compact, scanned)            slots (16 KiB each, touched by their process)
//!  ┌ state pid exit start parent ┐      ┌ cells │ ledger 128 × {id, aux} │ lanes 96 × 128 B ┐
//!  ├─────────────────────────────┤      └───────┴────────────────────────┴──────────────────┘
//!  │ …                           │        a lane is one thread's: the internal locks it holds
//!  └─────────────────────────────┘        (names) and the blocks it is moving (transit)
//! ```
//!
//! | roster state | meaning | next |
//! |---|---|---|
//! | free | nobody | birth, by a CAS of the claimer |
//! | birth | claimed for a process that is being made | live, by the process itself; dead, if it never comes |
//! | live | its process runs, or has died unnoticed | dead, by a sweeper |
//! | dead | being swept | free with the next generation, when all is swept |
//!
//! *Killed here:* a slot in birth is swept when its launcher dies, or some time after a fork that
//! nobody came out of; a sweeper that dies is replaced, every step of a sweep being idempotent.

mod fork;
mod identity;
mod ledger;
mod liveness;
mod sweep;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tenfold_sys::process::{ExitStatus, Pid};
use tenfold_sys::{clock, process, procfs};

use crate::error::{HeapError, Result};
use crate::heap::{At, Heap, PARTICIPANTS, SLOTS, Shared};
use crate::kill_point::{KillPoint, reach};

pub use fork::{Forked, fork_into, tell_forked, tell_not_forked};
pub use identity::{Seat, seat};
pub use ledger::{HeldCell, LEDGER_MAX};
pub use liveness::{is_alive, is_alive_in_family};
pub use sweep::{Death, sweep, sweep_all, sweep_if_dead, sweep_if_gone, sweep_participant};
pub(crate) use sweep::{finish, may_own, recover_if_dead};

/// Bytes of a slot.
pub(crate) const SLOT_SIZE: u64 = 16 << 10;
const ROSTER_OFFSET: u64 = 128 << 10;
/// Internal locks one thread can hold at a time.
pub(crate) const NAMES: usize = 6;
/// Blocks one thread can be moving at a time.
pub const TRANSITS: usize = 5;
pub(crate) const LANES: usize = 96;
pub(crate) const LEDGER_INLINE: usize = 128;

pub(crate) const FREE: u32 = 0;
pub(crate) const BIRTH: u32 = 1;
pub(crate) const LIVE: u32 = 2;
pub(crate) const DEAD: u32 = 3;

/// What everybody may want to know of a participant.
#[repr(C)]
pub struct RosterEntry {
    /// `generation << 32 | state`.
    pub(crate) state: AtomicU64,
    pub(crate) pid: AtomicU32,
    /// [`ExitStatus`] bits, from whoever knows it: the process itself, or the one that reaped it.
    pub(crate) exit: AtomicU32,
    pub(crate) start_time: AtomicU64,
    /// Identity of the participant that made this one.
    pub(crate) parent: AtomicU32,
    /// Free for the layer above.
    pub flags: AtomicU32,
    /// Identity of the participant that sweeps this one.
    pub(crate) sweeper: AtomicU32,
    /// 1 if the slot was claimed by the fork handler, 0 if by a launcher.
    pub(crate) by_fork: AtomicU32,
    /// A clock: when it was claimed, later when it was first seen dead without a status. 0 if it does
    /// not run.
    pub(crate) since: AtomicU64,
    spare: [AtomicU64; 2],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for RosterEntry {}
const _: () = assert!(size_of::<RosterEntry>() == 64);

/// One thread's room in its process's slot. It has cache lines of its own: it is written with every
/// lock that the thread takes.
#[repr(C, align(64))]
pub(crate) struct Lane {
    /// Offsets of the internal locks that the thread holds or is about to take, outermost first.
    pub(crate) names: [AtomicU64; NAMES],
    /// Blocks that only this thread owns just now.
    pub(crate) transit: [AtomicU64; TRANSITS],
    /// Head of the chain of objects that this thread is dismantling.
    pub(crate) dying: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Lane {}
const _: () = assert!(size_of::<Lane>() == 128);

/// An object that a process holds, and a number that belongs to the holding (permits, for a
/// semaphore).
#[repr(C)]
pub(crate) struct LedgerEntry {
    pub(crate) id: AtomicU64,
    pub(crate) aux: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for LedgerEntry {}

/// A process's own room.
#[repr(C)]
pub struct Slot {
    /// Cells for the layer above: the process's record, its launch message, its batch of tasks.
    pub cells: [AtomicU64; 16],
    /// Free words for the layer above.
    pub words: [AtomicU64; 16],
    pub(crate) ledger_chunks: [AtomicU64; ledger::CHUNKS],
    pub(crate) lane_chunks: [AtomicU64; identity::LANE_CHUNKS],
    pub(crate) ledger: [LedgerEntry; LEDGER_INLINE],
    pub(crate) lanes: [Lane; LANES],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Slot {}
const _: () = assert!(size_of::<Slot>() as u64 <= SLOT_SIZE);
const _: () = assert!(ROSTER_OFFSET + SLOTS as u64 * size_of::<RosterEntry>() as u64 <= PARTICIPANTS);

/// Names a participant: its slot and the slot's generation. Zero in shared memory means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(u32);

impl Identity {
    pub(crate) fn new(slot: u32, generation: u32) -> Identity {
        Identity((generation & 0x3f_ffff) << 10 | slot)
    }

    /// The identity that a word of shared memory holds, if any.
    pub fn from_bits(bits: u32) -> Option<Identity> {
        (bits != 0).then_some(Identity(bits))
    }

    /// As a word; never zero.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The slot.
    pub fn slot(self) -> u32 {
        self.0 & 0x3ff
    }

    /// Whether the slot still belongs to this participant, alive or not.
    pub fn is_current(self, heap: Heap) -> bool {
        let state = roster(self.slot(), heap).state.load(Ordering::Acquire);
        let (generation, state) = split(state);
        state != FREE && Identity::new(self.slot(), generation) == self
    }
}

const _: () = assert!(SLOTS == 1 << 10);

pub(crate) fn split(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

pub(crate) fn join(generation: u32, state: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(state)
}

/// The roster's entry for a slot.
///
/// # Panics
/// If the slot's number is beyond the table.
#[inline]
pub fn roster(slot: u32, _heap: Heap) -> At<RosterEntry> {
    assert!(slot < SLOTS);
    crate::heap::fixed(ROSTER_OFFSET + u64::from(slot) * size_of::<RosterEntry>() as u64)
}

/// A process's slot.
///
/// # Panics
/// If the slot's number is beyond the table.
#[inline]
pub fn slot(slot: u32, _heap: Heap) -> At<Slot> {
    assert!(slot < SLOTS);
    crate::heap::fixed(PARTICIPANTS + u64::from(slot) * SLOT_SIZE)
}

impl At<RosterEntry> {
    /// The participant that this entry is about now, unless it is free.
    pub fn identity(self, slot: u32) -> Option<Identity> {
        let (generation, state) = split(self.state.load(Ordering::Acquire));
        (state != FREE).then(|| Identity::new(slot, generation))
    }

    /// Whether its process runs, or has died without anybody noticing.
    pub fn is_live(self) -> bool {
        split(self.state.load(Ordering::Acquire)).1 == LIVE
    }

    /// Whether it waits for its process.
    pub fn is_birth(self) -> bool {
        split(self.state.load(Ordering::Acquire)).1 == BIRTH
    }

    /// The process id; 0 while nobody knows it.
    pub fn pid(self) -> Pid {
        self.pid.load(Ordering::Acquire)
    }

    /// When the process began, in the kernel's ticks since boot; 0 while nobody knows it.
    pub fn start_time(self) -> u64 {
        self.start_time.load(Ordering::Acquire)
    }

    /// Who made it.
    pub fn parent(self) -> Option<Identity> {
        Identity::from_bits(self.parent.load(Ordering::Acquire))
    }

    /// Puts on record on whose behalf the process was made, by that process itself.
    pub fn made_by(self, maker: Identity) {
        self.parent.store(maker.bits(), Ordering::Release);
    }

    /// How its process ended or is about to end, as far as it is on record.
    pub fn exit_status(self) -> Option<ExitStatus> {
        self.exit_in(split(self.state.load(Ordering::Acquire)).0)
    }

    /// The same, if it was the participant of that generation.
    pub(crate) fn exit_in(self, generation: u32) -> Option<ExitStatus> {
        let word = self.exit.load(Ordering::Acquire);
        (word & EXIT_OF == exit_of(generation)).then(|| ExitStatus::from_bits(word & !EXIT_OF)).flatten()
    }

    /// Puts on record how the participant of that generation ended, unless that is known. Whoever finds it out
    /// may be late: by then, the slot is another's, whose end this is not.
    pub(crate) fn record_exit(self, generation: u32, status: ExitStatus) {
        let new = exit_of(generation) | status.to_bits();
        let _ = self.exit.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let known = word != 0 && word & EXIT_OF == exit_of(generation);
            (!known && split(self.state.load(Ordering::Acquire)).0 == generation).then_some(new)
        });
    }
}

/// The bits of an exit status that are not used by it: they say whose it is.
const EXIT_OF: u32 = 0x1f_ffff << 8;

fn exit_of(generation: u32) -> u32 {
    generation << 8 & EXIT_OF
}

/// This process says how it is about to exit, so that its status is known even if nobody reaps it.
pub fn announce_exit(heap: Heap, code: i32) {
    if let Some(me) = identity::current() {
        let entry = roster(me.slot(), heap);
        let (generation, _) = split(entry.state.load(Ordering::Acquire));
        entry.record_exit(generation, ExitStatus::Exited(code));
    }
}

/// The calling process's identity.
///
/// # Errors
/// If this process has no slot and can get none.
pub fn me(heap: Heap) -> Result<Identity> {
    seat(heap).map(Seat::identity)
}

/// Whether the calling process has a slot already: the fork handler gives one to each child of a participant, unless
/// there is no room.
pub fn have_slot() -> bool {
    identity::current().is_some()
}

/// Whether the calling process is that participant; not in a child of fork, whatever its parent was.
#[inline]
pub fn is_me(who: Identity) -> bool {
    identity::current() == Some(who)
}

/// Claims a slot for a process that is about to be made.
///
/// # Errors
/// [`HeapError::TooManyProcesses`]; [`HeapError::FamilyEnded`].
pub fn claim(heap: Heap, parent: Identity) -> Result<Identity> {
    claim_slot(heap, Some(parent), false)
}

/// Gives up a claimed slot for which no process could be made.
pub fn abandon(heap: Heap, claimed: Identity) {
    if claimed.is_current(heap) && roster(claimed.slot(), heap).is_birth() {
        sweep_participant(heap, claimed, Some(ExitStatus::Exited(0)));
    }
}

pub(crate) fn claim_slot(heap: Heap, parent: Option<Identity>, by_fork: bool) -> Result<Identity> {
    if heap.has_ended() {
        return Err(HeapError::FamilyEnded);
    }
    for attempt in 0..2 {
        for index in 0..SLOTS {
            let entry = roster(index, heap);
            let (generation, state) = split(entry.state.load(Ordering::Acquire));
            if state != FREE {
                continue;
            }
            let generation = generation.max(1);
            let (free, birth) = (entry.state.load(Ordering::Acquire), join(generation, BIRTH));
            if split(free).1 != FREE {
                continue;
            }
            // Whoever dies between this CAS and the stores leaves a slot in birth without a
            // claimer; it expires like one whose child never came, counting from the first look.
            if entry.state.compare_exchange(free, birth, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            entry.since.store(clock::now(), Ordering::Relaxed);
            entry.by_fork.store(by_fork.into(), Ordering::Relaxed);
            entry.parent.store(parent.map_or(0, Identity::bits), Ordering::Release);
            reach(KillPoint::SlotClaimed);
            return Ok(Identity::new(index, generation));
        }
        // A process without a slot of its own cannot sweep: it has nowhere to name its locks.
        if attempt == 0 && identity::current().is_some() {
            sweep::sweep_all_gone(heap);
        }
    }
    Err(HeapError::TooManyProcesses { limit: SLOTS })
}

/// Makes the calling process the participant for which `claimed` was claimed.
///
/// # Errors
/// [`HeapError::Stale`] if the claim has expired; [`HeapError::FamilyEnded`] if the root died
/// meanwhile: the process must exit.
pub fn adopt(heap: Heap, claimed: Identity) -> Result<()> {
    adopt_telling(heap, claimed, true)
}

/// As [`adopt`]; `start_time` says whether to find out and tell when this process began, which takes
/// as long as everything else: the launcher of a forked child may do it meanwhile.
pub(crate) fn adopt_telling(heap: Heap, claimed: Identity, start_time: bool) -> Result<()> {
    let entry = roster(claimed.slot(), heap);
    let (generation, state) = split(entry.state.load(Ordering::Acquire));
    let current = state == BIRTH && Identity::new(claimed.slot(), generation) == claimed;
    let birth = join(generation, BIRTH);
    if !current
        || entry.state.compare_exchange(birth, join(generation, LIVE), Ordering::SeqCst, Ordering::Acquire).is_err()
    {
        return Err(HeapError::Stale);
    }
    // Only now is the entry ours to write. Until the number stands there, the claim's clock runs on.
    let pid = process::pid();
    if start_time {
        entry.start_time.store(procfs::start_time(pid).unwrap_or(0), Ordering::Relaxed);
    }
    entry.pid.store(pid, Ordering::Release);
    entry.since.store(0, Ordering::Release);
    identity::set_current(claimed)?;
    fork::register_once()?;
    if heap.has_ended() { Err(HeapError::FamilyEnded) } else { Ok(()) }
}

/// Tells the pid of a process that may not have adopted its slot yet; to be called before that process is reaped.
pub fn announce_pid(heap: Heap, claimed: Identity, pid: Pid) {
    let entry = roster(claimed.slot(), heap);
    if claimed.is_current(heap)
        && entry.pid.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire).is_ok()
        && !claimed.is_current(heap)
    {
        // Dead and swept in that instant: the slot may wait for another process by now.
        let _ = entry.pid.compare_exchange(pid, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Tells when a child began that the calling process has forked by [`fork_into`] and not reaped.
pub fn tell_start_time(heap: Heap, claimed: Identity, pid: Pid) {
    let Ok(time) = procfs::start_time(pid) else { return };
    let entry = roster(claimed.slot(), heap);
    if claimed.is_current(heap)
        && entry.start_time.compare_exchange(0, time, Ordering::AcqRel, Ordering::Acquire).is_ok()
        && !claimed.is_current(heap)
    {
        // Swept in that instant, and perhaps somebody else's by now: it goes without.
        let _ = entry.start_time.compare_exchange(time, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Has forks of this process tell the participants table; before there is a heap to fork with.
pub(crate) fn register_fork_handlers() -> Result<()> {
    fork::register_once()
}

pub(crate) fn join_as_root(heap: Heap) -> Result<()> {
    let claimed = claim_slot(heap, None, false)?;
    adopt(heap, claimed)?;
    heap.header().root.store(claimed.slot() + 1, Ordering::Release);
    Ok(())
}

/// The root's slot.
pub fn root(heap: Heap) -> Option<u32> {
    heap.header().root.load(Ordering::Acquire).checked_sub(1)
}

/// Entry `index` of this process's ledger, made if it is not there yet.
pub(crate) fn ledger_entry(heap: Heap, seat: Seat, index: u32) -> Result<At<LedgerEntry>> {
    ledger::ensure(heap, seat, slot(seat.slot(), heap), index)
}
