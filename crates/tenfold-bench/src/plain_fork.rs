//! Plain fork and wait: the floor under every way to start a process. The one place with unsafe code.
#![allow(unsafe_code)]

use tenfold_sys::process::{self, Fork};

use crate::rows::Failure;

/// Forks a child that ends at once, and reaps it.
pub(crate) fn fork_and_wait() -> Result<(), Failure> {
    // SAFETY: the cells that call this have one thread, and the child does nothing but end.
    match unsafe { process::fork() }? {
        Fork::Child => process::exit_now(0),
        Fork::Parent(pid) => {
            process::reap_blocking(pid)?;
            Ok(())
        }
    }
}
