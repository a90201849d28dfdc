//! Whether a process is alive: a pidfd that is not readable, and the start time on record.

use core::sync::atomic::Ordering;
use std::sync::OnceLock;

use tenfold_sys::process::{self, ExitStatus, Pid, PidFd};
use tenfold_sys::{Errno, procfs};

use super::{At, RosterEntry};
use crate::heap::Heap;

/// Whether the process `pid` that began at `start_time` still runs.
///
/// A zombie does not run; a process whose main thread has ended but others go on does. A
/// `start_time` of 0 means that it is not known and is not compared.
pub fn is_alive(pid: Pid, start_time: u64) -> bool {
    // The pidfd pins the process: what is read of it afterwards cannot be another's.
    match PidFd::open(pid) {
        Ok(fd) => !fd.is_dead() && is_the_same(pid, start_time),
        Err(Errno::SRCH) => false,
        // No descriptor left, or pidfds forbidden: a zombie then counts as alive until it is reaped, but for our own.
        Err(_) => {
            process::kill(pid, 0) != Err(Errno::SRCH) && !process::is_dead_child(pid) && is_the_same(pid, start_time)
        }
    }
}

fn is_the_same(pid: Pid, start_time: u64) -> bool {
    start_time == 0 || procfs::start_time(pid).map_or(true, |found| found == start_time)
}

/// How the process ended, if the kernel still tells.
pub(super) fn exit_status(pid: Pid, start_time: u64) -> Option<ExitStatus> {
    let fd = PidFd::open(pid).ok()?;
    if start_time == 0 || !fd.is_dead() || procfs::start_time(pid) != Ok(start_time) {
        return None;
    }
    fd.exit_status().or_else(|| procfs::zombie_status(pid).ok().flatten())
}

/// Whether the participant's process runs and has not become another program by `exec`.
///
/// Slow (it reads the list of mappings): for waits of a second and more.
pub fn is_alive_in_family(heap: Heap, entry: At<RosterEntry>) -> bool {
    let pid = entry.pid.load(Ordering::Acquire);
    is_alive(pid, entry.start_time.load(Ordering::Acquire)) && maps_heap(heap, pid)
}

/// Whether the process has the heap mapped. If in doubt, it has.
pub(super) fn maps_heap(heap: Heap, pid: Pid) -> bool {
    /// Whether the list of mappings names the heap as fstat does: not so on every file system.
    static TELLING: OnceLock<bool> = OnceLock::new();
    let file = heap.file_identity();
    !*TELLING.get_or_init(|| procfs::maps_file(process::pid(), file) == Ok(true))
        || procfs::maps_file(pid, file).unwrap_or(true)
}
