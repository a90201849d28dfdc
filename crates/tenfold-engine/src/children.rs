//! The children of this very process that tenfold made (by exec or fork) and that it has to reap.
//!
//! One word a slot of the participants table, `pid << 32 | identity`. No lock: a fork may happen at
//! any moment, in any thread. Nobody is told when a child dies, since SIGCHLD is the program's own;
//! so children are looked at whenever a process is started, joined or let go of.
//!
//! *Killed here:* the children of a dead process are init's to reap; the warden sweeps their slots.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tenfold_shm::Heap;
use tenfold_shm::heap::SLOTS;
use tenfold_shm::participant::{self, Identity};
use tenfold_sys::process::{self, ExitStatus, Pid};

static CHILDREN: [AtomicU64; SLOTS as usize] = [const { AtomicU64::new(0) }; SLOTS as usize];
/// How many there are at most; saves looking when there are none.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Takes note of a new child.
pub(crate) fn remember(who: Identity, pid: Pid) {
    let entry = &CHILDREN[who.slot() as usize];
    let before = entry.swap(u64::from(pid) << 32 | u64::from(who.bits()), Ordering::AcqRel);
    if before == 0 {
        COUNT.fetch_add(1, Ordering::AcqRel);
    } else {
        // Somebody else swept it, so it is dead: reaping does not block. An error means that it is
        // reaped already.
        let _ = process::reap((before >> 32) as Pid);
    }
}

/// Forgets the children of the process from which this one was forked.
pub(crate) fn forget_all() {
    COUNT.store(0, Ordering::Release);
    for entry in &CHILDREN {
        entry.store(0, Ordering::Release);
    }
}

/// Reaps and sweeps all children that are dead. Does not block.
pub(crate) fn reap_all(heap: Heap) {
    if COUNT.load(Ordering::Acquire) > 0 {
        for entry in &CHILDREN {
            reap_entry(heap, entry);
        }
    }
}

/// Reaps and sweeps one child if it is ours and dead; its status if it was. Does not block.
pub(crate) fn reap(heap: Heap, who: Identity) -> Option<ExitStatus> {
    let entry = &CHILDREN[who.slot() as usize];
    if entry.load(Ordering::Acquire) as u32 == who.bits() { reap_entry(heap, entry) } else { None }
}

fn reap_entry(heap: Heap, entry: &AtomicU64) -> Option<ExitStatus> {
    // Whoever has the entry in hand is the one that reaps: the number may be another process's the
    // moment it is reaped.
    let value = entry.swap(0, Ordering::AcqRel);
    let who = Identity::from_bits(value as u32)?;
    match process::reap((value >> 32) as Pid) {
        Ok(None) => {
            entry.store(value, Ordering::Release);
            None
        }
        Ok(Some(status)) => {
            COUNT.fetch_sub(1, Ordering::AcqRel);
            if who.is_current(heap) {
                participant::sweep_participant(heap, who, Some(status));
            }
            Some(status)
        }
        Err(_) => {
            // Reaped by the program itself, or the child of the process that this one was forked
            // from; the warden sweeps it.
            COUNT.fetch_sub(1, Ordering::AcqRel);
            None
        }
    }
}
