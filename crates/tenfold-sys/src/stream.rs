//! Bytes through pipes and sockets that somebody else owns and tells by their numbers.
//!
//! Each call is the kernel's own: it may move fewer bytes than were asked for, and `EINTR` says that a signal has come,
//! which is for the caller to look after. Killed here: what has gone into a pipe is the kernel's, and its reader finds
//! the end behind it.

use crate::clock::Deadline;
use crate::error::{Errno, Result};
use rustix::event::{PollFd, PollFlags};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};

/// Looks before which other threads may not run yet.
const EAGER: u32 = 8;

fn borrowed(number: RawFd) -> Result<BorrowedFd<'static>> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: goes no further than one call into the kernel, which looks itself whether the number is that of an open
    // descriptor. Whose it is, if it has been closed meanwhile, is the business of those who tell numbers.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Appends up to `most` bytes ([`read`]); 0 at the end. Blocks while there are none.
///
/// # Errors
/// The kernel's; `ENOMEM` if the vector cannot grow so far.
///
/// [`read`]: https://man7.org/linux/man-pages/man2/read.2.html
pub fn read(fd: RawFd, into: &mut Vec<u8>, most: usize) -> Result<usize> {
    let fd = borrowed(fd)?;
    into.try_reserve_exact(most).map_err(|_| Errno::NOMEM)?;
    let (filled, _) = rustix::io::read(fd, &mut into.spare_capacity_mut()[..most])?;
    let count = filled.len();
    // SAFETY: the kernel has written so many bytes behind those that were there.
    unsafe { into.set_len(into.len() + count) };
    Ok(count)
}

/// Writes some of the bytes of `parts`, laid end to end, and returns how many ([`writev`]). Blocks while there is no room.
///
/// # Errors
/// The kernel's: `EPIPE` when nobody reads any more, and `SIGPIPE` where that is not ignored.
///
/// [`writev`]: https://man7.org/linux/man-pages/man2/writev.2.html
pub fn write(fd: RawFd, parts: [&[u8]; 2]) -> Result<usize> {
    rustix::io::writev(borrowed(fd)?, &parts.map(IoSlice::new))
}

/// Looks up to `looks` times whether there is something to read or the end, and lets other threads run meanwhile; returns
/// at which look there was (from 0), or `None`. Who is woken on a core that idles has waited longer than an answer takes as a rule.
///
/// # Errors
/// The kernel's.
pub fn look_for_input(fd: RawFd, looks: u32) -> Result<Option<u32>> {
    for look in 0..looks {
        if await_input(fd, Deadline::passed())? {
            return Ok(Some(look));
        }
        if look >= EAGER {
            std::thread::yield_now();
        }
    }
    Ok(None)
}

/// Waits until there is something to read or the end, and returns whether there is ([`ppoll`]); `false` once the deadline
/// has come.
///
/// # Errors
/// The kernel's, and `EINTR`.
///
/// [`ppoll`]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn await_input(fd: RawFd, deadline: Deadline) -> Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(borrowed(fd)?, PollFlags::IN)];
    // Errors and hang-ups count as input: a read will not block.
    Ok(rustix::event::poll(&mut polled, deadline.remaining_timespec().as_ref())? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_written_is_read_and_no_more() {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        let (from, to) = (reader.as_raw_fd(), writer.as_raw_fd());
        assert_eq!(await_input(from, Deadline::after(Duration::from_millis(3))), Ok(false));
        assert_eq!(look_for_input(from, 20), Ok(None));
        assert_eq!(write(to, [b"head", b"body"]), Ok(8));
        assert_eq!(look_for_input(from, 20), Ok(Some(0)));
        assert_eq!(await_input(from, Deadline::never()), Ok(true));
        let mut bytes = Vec::with_capacity(100);
        assert_eq!(read(from, &mut bytes, 6), Ok(6));
        assert_eq!(read(from, &mut bytes, 6), Ok(2));
        assert_eq!(bytes, b"headbody");
    }

    #[test]
    fn a_number_that_is_no_descriptor_is_an_error() {
        for number in [-1, 987_654] {
            assert_eq!(read(number, &mut Vec::new(), 1), Err(Errno::BADF));
            assert_eq!(write(number, [b"", b"x"]), Err(Errno::BADF));
        }
        assert_eq!(await_input(-1, Deadline::passed()), Err(Errno::BADF));
    }
}
