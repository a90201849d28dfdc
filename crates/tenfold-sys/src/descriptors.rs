//! What a process of our own does with the descriptors that it was born with.
//!
//! A helper process must not keep a pipe of its maker's open: whoever reads that pipe would wait for its end for ever.

use crate::error::{Result, retry};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use std::os::fd::{BorrowedFd, RawFd};

/// Has the descriptor closed by exec from now on ([`FD_CLOEXEC`]). `EBADF` if there is no such descriptor.
///
/// [`FD_CLOEXEC`]: https://man7.org/linux/man-pages/man2/F_GETFD.2const.html
pub fn close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)
}

/// The opposite of [`close_on_exec`]: whatever is exec'd without further care inherits the descriptor.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::empty())
}

/// Makes standard input, output and error `/dev/null`. Does not block.
///
/// # Errors
/// Those of opening `/dev/null`.
pub fn null_stdio() -> Result<()> {
    let null = retry(|| rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)
}

/// Closes all descriptors but standard input, output and error, and `keep` ([`close_range`]). What std or a library
/// holds open is closed under its hands.
///
/// # Safety
/// Nobody in this process uses a descriptor other than those that stay: it has just been made, by fork or exec.
///
/// [`close_range`]: https://man7.org/linux/man-pages/man2/close_range.2.html
pub unsafe fn close_all_but(keep: RawFd) {
    let first = libc::STDERR_FILENO as libc::c_uint + 1;
    let Ok(keep) = libc::c_uint::try_from(keep) else { return };
    let close = |from: libc::c_uint, to: libc::c_uint| {
        if from <= to {
            // SAFETY: takes numbers only; the caller vouches that nobody uses what is closed. A kernel without the call
            // leaves them open, which is a nuisance and no more.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    if keep < first {
        close(first, libc::c_uint::MAX);
    } else {
        close(first, keep - 1);
        close(keep + 1, libc::c_uint::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::forked;
    use crate::process::exit_now;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn all_but_one_are_closed() {
        let (kept, gone) = rustix::pipe::pipe().expect("pipe");
        let (kept_number, gone_number) = (kept.as_raw_fd(), gone.as_raw_fd());
        forked(|| {
            // SAFETY: a forked child that only looks at numbers afterwards.
            unsafe { close_all_but(kept_number) };
            // SAFETY: only asked for its flags.
            let is_open = |number| unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
            exit_now(i32::from(!is_open(kept_number) || is_open(gone_number) || !is_open(2)));
        })
        .join();
    }

    #[test]
    fn standard_streams_become_null() {
        forked(|| {
            let done = null_stdio().is_ok();
            let null = rustix::fs::stat(c"/dev/null").map(|stat| stat.st_rdev);
            let same = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_rdev) == null;
            let all = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()].into_iter().all(same);
            exit_now(i32::from(!(done && all)));
        })
        .join();
    }

    #[test]
    fn a_descriptor_is_marked() {
        let (reader, _writer) = rustix::pipe::pipe().expect("pipe");
        close_on_exec(reader.as_fd()).expect("mark");
        assert!(rustix::io::fcntl_getfd(&reader).expect("flags").contains(FdFlags::CLOEXEC));
        keep_on_exec(reader.as_fd()).expect("unmark");
        assert!(!rustix::io::fcntl_getfd(&reader).expect("flags").contains(FdFlags::CLOEXEC));
    }
}
