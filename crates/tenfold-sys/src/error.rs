//! The one error type of this crate: the kernel's error number.

pub use rustix::io::Errno;

/// What every call here returns.
pub type Result<T> = core::result::Result<T, Errno>;

/// The error of the libc call that has just failed.
pub(crate) fn last() -> Errno {
    // SAFETY: the C library gives each thread a valid errno location.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The result of a libc call that reports failure as -1 with errno.
pub(crate) fn from_minus_one(result: libc::c_int) -> Result<libc::c_int> {
    if result == -1 { Err(last()) } else { Ok(result) }
}

/// The result of a libc call that returns its error number.
pub(crate) fn from_number(result: libc::c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(result)) }
}

/// Repeats `call` as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
