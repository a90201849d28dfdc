//! The children of this very process that tenfold made (by exec or fork) and that it has to reap.
//!
//! One word a slot of the participants table, `pid << 32 | identity`. No lock: a fork may happen at
//! any moment, in any thread. Nobody is told when a child dies, since SIGCHLD is the program's own;
//! so children are looked at whenever a process is started, joined or let go of.
//!
//! *Killed here:* the children of a dead process are init's to reap; the warden sweeps their slots.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tenfold_shm::heap::{BlockId, SLOTS};
use tenfold_shm::participant::{self, Identity};
use tenfold_shm::process_record::{Ending, ProcessRecord};
use tenfold_shm::{Handle, Heap};
use tenfold_sys::process::{self, ExitStatus, Pid};

static CHILDREN: [AtomicU64; SLOTS as usize] = [const { AtomicU64::new(0) }; SLOTS as usize];
/// The records of the same, which outlive their slots.
static RECORDS: [AtomicU64; SLOTS as usize] = [const { AtomicU64::new(0) }; SLOTS as usize];
/// The process whose children they are: after a fork that we did not make, another one's.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// How many there are at most; saves looking when there are none.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Takes note of a new child; `record` is the id of its record. The nursery has none: only
/// [`reap`] looks at it, when there is reason to.
pub(crate) fn remember(who: Identity, pid: Pid, record: Option<BlockId>) {
    let me = process::pid();
    if OWNER.swap(me, Ordering::AcqRel) != me {
        forget_all();
    }
    RECORDS[who.slot() as usize].store(record.map_or(0, BlockId::bits), Ordering::Release);
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
    if COUNT.load(Ordering::Acquire) > 0 && OWNER.load(Ordering::Acquire) == process::pid() {
        for slot in 0..CHILDREN.len() {
            if CHILDREN[slot].load(Ordering::Acquire) != 0 && RECORDS[slot].load(Ordering::Acquire) != 0 {
                reap_entry(heap, slot);
            }
        }
    }
}

/// Reaps and sweeps one child if it is ours and dead; its status if it was. Does not block.
pub(crate) fn reap(heap: Heap, who: Identity) -> Option<ExitStatus> {
    let slot = who.slot() as usize;
    let ours = CHILDREN[slot].load(Ordering::Acquire) as u32 == who.bits();
    if ours && OWNER.load(Ordering::Acquire) == process::pid() { reap_entry(heap, slot) } else { None }
}

fn reap_entry(heap: Heap, slot: usize) -> Option<ExitStatus> {
    let entry = &CHILDREN[slot];
    let record = RECORDS[slot].load(Ordering::Acquire);
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
            bury(heap, who, BlockId::from_bits(record), status);
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

/// Sweeps a process that was reaped, and sees to it that its record tells how it ended, also if
/// somebody else has swept it without knowing.
pub(crate) fn bury(heap: Heap, who: Identity, record: Option<BlockId>, status: ExitStatus) {
    if who.is_current(heap) && participant::sweep_participant(heap, who, Some(status)) {
        return;
    }
    // A record that nobody holds any more is gone.
    let record = record.and_then(|id| Handle::from_id(heap, id).ok());
    if let Some(Ok(record)) = record.map(ProcessRecord::from_handle) {
        record.set_ending(Ending::Known(status));
    }
}
