//! For the unit tests: a forked child that runs a closure, and words that it shares with its parent.
//!
//! libtest has other threads, so the closure must do only what is async-signal-safe: no allocation, no printing.

use crate::process::{self, ExitStatus, Fork, Pid};
use core::sync::atomic::AtomicU32;

pub(crate) struct Forked(pub(crate) Pid);

impl Forked {
    /// Waits for the child and fails the test unless it ended well.
    pub(crate) fn join(self) {
        assert_eq!(process::reap_blocking(self.0), Ok(ExitStatus::Exited(0)));
    }
}

pub(crate) fn forked(run: impl FnOnce()) -> Forked {
    // SAFETY: the callers' closures keep to what is async-signal-safe, and the child leaves through _exit.
    match unsafe { process::fork() }.expect("fork") {
        Fork::Parent(pid) => Forked(pid),
        Fork::Child => {
            run();
            process::exit_now(0)
        }
    }
}

pub(crate) fn forever() -> ! {
    loop {
        std::thread::sleep(core::time::Duration::from_secs(1));
    }
}

pub(crate) fn shared_words() -> &'static [AtomicU32; 16] {
    let file = crate::memory_file::MemoryFile::create("test").expect("memory file");
    file.allocate(0, 4096).expect("allocate");
    let page = crate::mapping::map_shared(file.as_fd(), 0, 4096).expect("map");
    // SAFETY: a fresh page that is never unmapped, zero-filled, aligned, used through atomics alone.
    unsafe { page.cast::<[AtomicU32; 16]>().as_ref() }
}
