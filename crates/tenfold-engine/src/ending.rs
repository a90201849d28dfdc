//! How processes come to their end when others do: a daemon with its maker, everything with the
//! root.
//!
//! The warden and the nursery both do this, also at the same time: killing the dead does nothing.

use core::sync::atomic::Ordering;

use tenfold_shm::Heap;
use tenfold_shm::heap::SLOTS;
use tenfold_shm::participant::{self, Identity};
use tenfold_sys::process::PidFd;
use tenfold_sys::{Errno, procfs};

use crate::places::flag;

pub(crate) const SIGKILL: i32 = 9;

/// After deaths: kills the daemons of the dead, and sweeps the slots that they claimed for processes
/// which will never come.
pub(crate) fn settle_estates(heap: Heap) {
    for slot in 0..SLOTS {
        let entry = participant::roster(slot, heap);
        let Some(who) = entry.identity(slot) else { continue };
        if entry.parent().is_none_or(|parent| parent.is_current(heap)) {
            continue;
        }
        if entry.is_birth() {
            participant::sweep_if_dead(heap, slot + 1);
        } else if entry.flags.load(Ordering::Acquire) & flag::DAEMON != 0 {
            kill(heap, who);
        }
    }
}

/// Kills a participant that is current; its pidfd, if it had a process.
fn kill(heap: Heap, who: Identity) -> Option<PidFd> {
    let pidfd = open(heap, who).ok().flatten()?;
    let _ = pidfd.signal(SIGKILL);
    Some(pidfd)
}

/// Opens the process of a participant: `None` if it has none (any more).
pub(crate) fn open(heap: Heap, who: Identity) -> Result<Option<PidFd>, Errno> {
    let entry = participant::roster(who.slot(), heap);
    let (pid, start_time) = (entry.pid(), entry.start_time());
    if pid == 0 {
        return Ok(None);
    }
    match PidFd::open(pid) {
        // The slot was not swept since its pid was read, so the process is either it or, where its
        // parent has reaped it meanwhile, one with another start time.
        Ok(fd) => {
            let same = start_time == 0 || procfs::start_time(pid).map_or(true, |found| found == start_time);
            Ok((same && who.is_current(heap)).then_some(fd))
        }
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether a participant is current and its process runs.
pub(crate) fn is_alive(heap: Heap, who: Identity) -> bool {
    let entry = participant::roster(who.slot(), heap);
    who.is_current(heap) && participant::is_alive(entry.pid(), entry.start_time())
}

/// Kills all that are to end with the root, but for the nursery and the warden; tells who is dying.
pub(crate) fn kill_all(heap: Heap) -> Vec<PidFd> {
    let mut dying = Vec::new();
    for slot in 0..SLOTS {
        let entry = participant::roster(slot, heap);
        let flags = entry.flags.load(Ordering::Acquire);
        if flags & flag::STARTED == 0 || flags & (flag::OUTLIVE | flag::NURSERY | flag::WARDEN) != 0 {
            continue;
        }
        let Some(who) = entry.identity(slot) else { continue };
        dying.extend(kill(heap, who).filter(|pidfd| !pidfd.is_dead()));
    }
    dying
}
