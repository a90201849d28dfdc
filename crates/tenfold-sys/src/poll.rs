//! Waiting for any of several descriptors.

use crate::clock::Deadline;
use crate::error::{Errno, Result};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::BorrowedFd;

/// Blocks until a descriptor is readable or hung up, the deadline comes, or a signal handler has run ([`ppoll`]), and
/// returns the indices of those that are ready: none after the deadline or a signal.
///
/// # Errors
/// `ENOMEM`, or `EINVAL` for more descriptors than `RLIMIT_NOFILE`.
///
/// [`ppoll`]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn wait_readable(fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<Vec<usize>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut polled, deadline.remaining_timespec().as_ref()) {
        // Errors and hang-ups count as readable: a read will not block.
        Ok(_) => Ok(polled.iter().enumerate().filter(|(_, p)| !p.revents().is_empty()).map(|(i, _)| i).collect()),
        Err(Errno::INTR) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::os::fd::AsFd;

    #[test]
    fn tells_which_are_ready() {
        let (quiet, _writer) = rustix::pipe::pipe().expect("pipe");
        let (hung_up, gone) = rustix::pipe::pipe().expect("pipe");
        let (full, writer) = rustix::pipe::pipe().expect("pipe");
        let fds = [quiet.as_fd(), hung_up.as_fd(), full.as_fd()];
        assert_eq!(wait_readable(&fds, Deadline::after(Duration::from_millis(3))), Ok(vec![]));
        drop(gone);
        rustix::io::write(&writer, b"x").expect("write");
        // A child that another test forks meanwhile holds the closed end open for a while.
        while wait_readable(&fds, Deadline::never()) != Ok(vec![1, 2]) {
            std::thread::yield_now();
        }
        assert_eq!(wait_readable(&[], Deadline::after(Duration::ZERO)), Ok(vec![]));
    }
}
