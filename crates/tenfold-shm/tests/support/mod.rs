//! What the tests of the containers share: children, payloads, a count of blocks.
#![allow(dead_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use tenfold_shm::message::Outgoing;
use tenfold_shm::{Handle, Heap, participant};
use tenfold_sys::process::{self, ExitStatus, Fork, Pid};

static ALONE: Mutex<()> = Mutex::new(());

/// One test at a time: they count the blocks of one heap, and fork.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The heap that all tests of this program share.
pub(crate) fn heap() -> Heap {
    Heap::get().unwrap()
}

/// A payload of plain bytes.
pub(crate) fn bytes<'a>(parts: &'a [&'a [u8]]) -> Outgoing<'a> {
    Outgoing { parts, handles: &[] }
}

/// A payload with handles.
pub(crate) fn many<'a>(parts: &'a [&'a [u8]], handles: &'a [Handle]) -> Outgoing<'a> {
    Outgoing { parts, handles }
}

/// No payloads at all.
pub(crate) fn none() -> std::iter::Empty<Outgoing<'static>> {
    std::iter::empty()
}

/// The first eight bytes as a number.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// Blocks of the heap in use.
pub(crate) fn live_blocks() -> u64 {
    heap().stats().live_blocks
}

/// A forked process.
pub(crate) struct Child(pub(crate) Pid);

impl Child {
    /// Forks a child that runs `f` and exits; a panic makes it fail.
    pub(crate) fn run(f: impl FnOnce()) -> Child {
        // Touched before, so that parent and child are of one family.
        heap();
        // SAFETY: the test runs alone (see `alone`): the harness's main thread only waits, so no lock
        // that the child could need is held by a thread that it does not have.
        match unsafe { process::fork() }.unwrap() {
            Fork::Parent(pid) => Child(pid),
            Fork::Child => {
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
                process::exit_now(i32::from(ended.is_err()) * 101);
            }
        }
    }

    /// Waits for it and sweeps what it left behind.
    pub(crate) fn wait(self) -> ExitStatus {
        let status = process::reap_blocking(self.0).unwrap();
        participant::sweep_all(heap());
        status
    }

    /// Waits for it and fails unless it ended well.
    #[track_caller]
    pub(crate) fn succeeds(self) {
        assert_eq!(self.wait(), ExitStatus::Exited(0));
    }
}
