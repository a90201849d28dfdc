//! A fork as user code makes one, unknown to tenfold but for the fork handlers of the C library.
#![allow(unsafe_code)]

use tenfold_sys::process::{self, Fork};

/// Forks; the child runs `child` and exits. The child's pid.
pub(crate) fn fork(child: impl FnOnce()) -> u32 {
    // SAFETY: called in processes of one thread.
    match unsafe { process::fork() }.unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            child();
            process::exit_now(0)
        }
    }
}
