//! What a fork does to a participant.
//!
//! The prepare handler runs in every fork of the C library, made by whomever: it claims a slot and
//! copies the parent's holdings into it, so that the objects outlive the parent's own handles. The
//! child adopts that slot first thing. A `clone` behind the library's back runs no handler; the
//! child then notices its wiped identity, claims a slot and holds what still exists.
//!
//! *Killed here:* a slot in birth whose claimer dies, or that no child adopts within ten seconds,
//! is swept like any dead one.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tenfold_sys::futex::PrivateMutex;
use tenfold_sys::process::{self, Fork, Pid};
use tenfold_sys::{Errno, at_fork};

use super::{Identity, Seat, identity, ledger, slot};
use crate::error::{HeapError, Result};
use crate::heap::{BlockId, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::object;

/// Claimed for the child of the next fork: by `fork_into`, or by the prepare handler.
static BIRTH: AtomicU32 = AtomicU32::new(0);
/// Set while a fork of our own is made, whose slot is claimed already.
static OUR_OWN: AtomicBool = AtomicBool::new(false);
static REGISTERED: AtomicBool = AtomicBool::new(false);
/// One fork at a time, from the prepare handler to the parent's.
static FORKING: PrivateMutex = PrivateMutex::new();
/// Our own forks, from before the prepare handler.
static LAUNCHING: PrivateMutex = PrivateMutex::new();

/// The two sides of [`fork_into`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The calling process; the child's pid.
    Parent(Pid),
    /// The new process, which is the participant that was claimed.
    Child,
}

pub(super) fn register_once() -> Result<()> {
    if REGISTERED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    at_fork::register(prepare, in_parent, in_child).map_err(HeapError::os("pthread_atfork"))
}

/// The slot that was prepared for this process, if it is a child of a fork.
pub(super) fn take_birth() -> Option<Identity> {
    Identity::from_bits(BIRTH.swap(0, Ordering::AcqRel))
}

fn local_mutexes() -> [&'static PrivateMutex; 3] {
    // The order in which other code takes them.
    [object::registry_mutex(), ledger::mutex(), identity::growth()]
}

extern "C" fn prepare() {
    FORKING.lock_raw();
    for mutex in local_mutexes() {
        mutex.lock_raw();
    }
    let (Some(heap), Some(me)) = (Heap::existing(), identity::current()) else { return };
    if OUR_OWN.load(Ordering::Acquire) {
        return;
    }
    // A family without room lets the child be: it will claim a slot when it needs one.
    if let Ok(born) = super::claim_slot(heap, Some(me), true) {
        copy_holdings(heap, identity::fork_seat(heap, me), me, born);
        BIRTH.store(born.bits(), Ordering::Release);
        reach(KillPoint::BirthPrepared);
    }
}

extern "C" fn in_parent() {
    if !OUR_OWN.load(Ordering::Acquire) {
        BIRTH.store(0, Ordering::Release);
    }
    for mutex in local_mutexes().into_iter().rev() {
        mutex.unlock_raw();
    }
    FORKING.unlock_raw();
}

extern "C" fn in_child() {
    for mutex in local_mutexes().into_iter().rev() {
        mutex.unlock_raw();
    }
    FORKING.unlock_raw();
    OUR_OWN.store(false, Ordering::Release);
    LAUNCHING.reset_raw();
    if let Some(heap) = Heap::existing() {
        if BIRTH.load(Ordering::Acquire) != 0 {
            // If this fails, the first operation of the child reports it.
            let _ = super::seat(heap);
        }
    }
}

fn copy_holdings(heap: Heap, seat: Seat, from: Identity, to: Identity) {
    let (source, target) = (slot(from.slot(), heap), slot(to.slot(), heap));
    ledger::each(heap, source, |index, entry| {
        let Some(id) = BlockId::from_bits(entry.id.load(Ordering::Acquire)) else { return };
        if !object::is_counted(heap, id) {
            return;
        }
        // Without memory for the copy, the child finds the handle stale instead of the parent
        // failing to fork.
        if let Ok(copy) = ledger::ensure(heap, seat, target, index) {
            let _ = object::add_ref(heap, seat, id, copy.field(|e| &e.id));
        }
    });
}

/// Forks a child that becomes the participant `claimed`; with `inherit`, the child holds what this
/// process holds.
///
/// # Errors
/// If the system has no room for a process; the claim stays.
///
/// # Safety
/// As for fork: in the child only the calling thread exists. Either this process has one thread, or
/// the child restricts itself to async-signal-safe calls until it execs or exits.
pub unsafe fn fork_into(heap: Heap, claimed: Identity, inherit: bool) -> core::result::Result<Forked, Errno> {
    LAUNCHING.lock_raw();
    if inherit {
        if let (Some(me), true) = (identity::current(), claimed.is_current(heap)) {
            let holdings = || identity::with_growth_seat(heap, me, |seat| copy_holdings(heap, seat, me, claimed));
            holdings();
        }
    }
    OUR_OWN.store(true, Ordering::Release);
    BIRTH.store(claimed.bits(), Ordering::Release);
    // SAFETY: the caller's promise.
    let forked = unsafe { process::fork() };
    match forked {
        Ok(Fork::Child) => Ok(Forked::Child),
        other => {
            OUR_OWN.store(false, Ordering::Release);
            BIRTH.store(0, Ordering::Release);
            LAUNCHING.unlock_raw();
            match other? {
                Fork::Parent(pid) => {
                    super::roster(claimed.slot(), heap).announce_pid(pid);
                    Ok(Forked::Parent(pid))
                }
                Fork::Child => Ok(Forked::Child),
            }
        }
    }
}
