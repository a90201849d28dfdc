//! What a fork does to a participant.
//!
//! The prepare handler runs in every fork of the C library, made by whomever: it claims a slot and
//! copies the parent's holdings into it (but for batches of tasks), so that the objects outlive the parent's own
//! handles. The
//! child adopts that slot first thing. A `clone` behind the library's back runs no handler; the
//! child then notices its wiped identity, claims a slot and holds what still exists.
//!
//! *Killed here:* a slot in birth that no child adopts within ten seconds is swept like any dead
//! one; within two if the forking process is dead, which a daemon's is at once.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tenfold_sys::futex::PrivateMutex;
use tenfold_sys::process::{self, Fork, Pid};
use tenfold_sys::{Errno, at_fork};

use super::{Identity, Seat, identity, ledger, slot};
use crate::error::{HeapError, Result};
use crate::heap::{self, BlockId, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::{object, private_view};

/// Claimed for the child of the fork that is being made; in that child, until it is adopted.
static BIRTH: AtomicU32 = AtomicU32::new(0);
static REGISTERED: AtomicBool = AtomicBool::new(false);
/// One fork at a time, from the prepare handler to the parent's.
static FORKING: PrivateMutex = PrivateMutex::new();

/// For whom a thread forks in [`fork_into`].
#[derive(Debug, Clone, Copy)]
struct Launch {
    claimed: Identity,
    inherit: bool,
}

thread_local! {
    static LAUNCH: Cell<Option<Launch>> = const { Cell::new(None) };
    /// What was claimed for the child of this thread's last fork.
    static LAST: Cell<Option<Identity>> = const { Cell::new(None) };
}

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

fn local_mutexes() -> [&'static PrivateMutex; 6] {
    // The order in which other code takes them.
    [
        heap::attach_mutex(),
        object::registry_mutex(),
        ledger::mutex(),
        identity::growth(),
        private_view::mutex(),
        heap::large::mutex(),
    ]
}

extern "C" fn prepare() {
    FORKING.lock_raw();
    let launch = LAUNCH.with(Cell::get);
    let family = Heap::existing().zip(identity::current());
    // Claimed before the mutexes are taken, since that may sweep. A family without room lets the
    // child be: it will claim a slot when it needs one.
    let born = match (launch, family) {
        (Some(launch), _) => Some(launch.claimed),
        (None, Some((heap, me))) => super::claim_slot(heap, Some(me), true).ok(),
        (None, None) => None,
    };
    for mutex in local_mutexes() {
        mutex.lock_raw();
    }
    let inherited = match (born, family, launch.is_none_or(|launch| launch.inherit)) {
        (Some(born), Some((heap, me)), true) => copy_holdings(heap, identity::fork_seat(heap, me), me, born),
        _ => false,
    };
    private_view::make_private();
    if !inherited {
        private_view::detach_all();
    }
    let Some(born) = born else { return };
    BIRTH.store(born.bits(), Ordering::Release);
    reach(KillPoint::BirthPrepared);
}

extern "C" fn in_parent() {
    LAST.with(|last| last.set(Identity::from_bits(BIRTH.swap(0, Ordering::AcqRel))));
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
    LAUNCH.with(|launch| launch.set(None));
    if let Some(heap) = Heap::existing()
        && BIRTH.load(Ordering::Acquire) != 0
    {
        // If this fails, the first operation of the child reports it.
        let _ = super::seat(heap);
    }
}

/// Tells the pid of the child of this thread's last fork, made by whomever: so that it can be swept even if it is killed
/// before it has adopted its slot. Returns who it is, if a slot was claimed for it.
pub fn tell_forked(heap: Heap, pid: Pid) -> Option<Identity> {
    let born = LAST.with(Cell::take)?;
    super::announce_pid(heap, born, pid);
    Some(born)
}

/// Gives up the slot that was claimed for the child of this thread's last fork, which the kernel refused.
pub fn tell_not_forked(heap: Heap) {
    if let Some(born) = LAST.with(Cell::take) {
        super::abandon(heap, born);
    }
}

/// Returns whether the child holds all that this process does.
fn copy_holdings(heap: Heap, seat: Seat, from: Identity, to: Identity) -> bool {
    let mut all = true;
    let (source, target) = (slot(from.slot(), heap), slot(to.slot(), heap));
    ledger::each(heap, source, |index, entry| {
        let Some(id) = BlockId::from_bits(entry.id.load(Ordering::Acquire)) else { return };
        // The results of a pool's tasks are for who asked for them: a child would only keep their memory.
        if !object::is_counted(heap, id) || object::is_kind(heap, id, object::ObjectKind::Batch) {
            return;
        }
        // Without memory for the copy, the child finds the handle stale instead of the parent
        // failing to fork.
        all &= ledger::ensure(heap, seat, target, index)
            .and_then(|copy| object::add_ref(heap, seat, id, copy.field(|e| &e.id)))
            .is_ok();
    });
    all
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
    let inherit = inherit && claimed.is_current(heap);
    LAUNCH.with(|launch| launch.set(Some(Launch { claimed, inherit })));
    // SAFETY: the caller's promise.
    let forked = unsafe { process::fork() };
    LAUNCH.with(|launch| launch.set(None));
    match forked? {
        Fork::Child => Ok(Forked::Child),
        Fork::Parent(pid) => {
            // A child that has been swept already has told its number itself.
            super::announce_pid(heap, claimed, pid);
            Ok(Forked::Parent(pid))
        }
    }
}
