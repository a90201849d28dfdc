//! Whether a process is alive: a pidfd that is not readable, and the start time on record.

use core::sync::atomic::Ordering;

use tenfold_sys::process::{Pid, PidFd};
use tenfold_sys::procfs;

use super::{At, RosterEntry};
use crate::heap::Heap;

/// Whether the process `pid` that began at `start_time` still runs.
///
/// A zombie does not run; a process whose main thread has ended but others go on does. A
/// `start_time` of 0 means that it is not known and is not compared.
pub fn is_alive(pid: Pid, start_time: u64) -> bool {
    // The pidfd pins the process: what is read of it afterwards cannot be another's.
    match PidFd::open(pid) {
        Ok(fd) => {
            let same = start_time == 0 || procfs::start_time(pid).map_or(true, |found| found == start_time);
            same && !fd.is_dead()
        }
        Err(errno) => errno != tenfold_sys::Errno::SRCH,
    }
}

/// Whether the participant's process runs and has not become another program by `exec`.
///
/// Slow (it reads the list of mappings): for waits of a second and more.
pub fn is_alive_in_family(heap: Heap, entry: At<RosterEntry>) -> bool {
    let pid = entry.pid.load(Ordering::Acquire);
    is_alive(pid, entry.start_time.load(Ordering::Acquire))
        && procfs::maps_file(pid, heap.file_identity()).unwrap_or(true)
}
