//! Bytes through pipes and sockets that somebody else owns and tells by their numbers.
//!
//! Each call is the kernel's own: it may move fewer bytes than were asked for, and `EINTR` says that a signal has come,
//! which is for the caller to look after. Killed here: what has gone into a pipe is the kernel's, and its reader finds
//! the end behind it.

use crate::clock::Deadline;
use crate::error::{Errno, Result};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::ReadWriteFlags;
use rustix::net::RecvFlags;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, RawFd};

/// So many bytes are put together to be written by the cheaper call for one piece.
const SHORT: usize = 256;

fn borrowed(number: RawFd) -> Result<BorrowedFd<'static>> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: goes no further than one call into the kernel, which looks itself whether the number is that of an open
    // descriptor. Whose it is, if it has been closed meanwhile, is the business of those who tell numbers.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Reads into the beginning of `space`, and returns how many bytes of it are filled ([`read`]); 0 at the end. Blocks while
/// there are none.
///
/// # Errors
/// The kernel's.
///
/// [`read`]: https://man7.org/linux/man-pages/man2/read.2.html
pub fn read(fd: RawFd, space: &mut [MaybeUninit<u8>]) -> Result<usize> {
    let (filled, _) = rustix::io::read(borrowed(fd)?, space)?;
    Ok(filled.len())
}

/// Appends up to `most` bytes, as [`read`].
///
/// # Errors
/// The kernel's; `ENOMEM` if the vector cannot grow so far.
pub fn read_more(fd: RawFd, into: &mut Vec<u8>, most: usize) -> Result<usize> {
    into.try_reserve_exact(most).map_err(|_| Errno::NOMEM)?;
    let count = read(fd, &mut into.spare_capacity_mut()[..most])?;
    // SAFETY: the kernel has written so many bytes behind those that were there.
    unsafe { into.set_len(into.len() + count) };
    Ok(count)
}

/// Reads a descriptor without waiting, by the first of these calls that its file knows: [`recv`], [`preadv2`], or [`poll`]
/// and then [`read`]. Which it is, is kept.
///
/// [`recv`]: https://man7.org/linux/man-pages/man2/recv.2.html
/// [`preadv2`]: https://man7.org/linux/man-pages/man2/readv.2.html
/// [`poll`]: https://man7.org/linux/man-pages/man2/poll.2.html
/// [`read`]: https://man7.org/linux/man-pages/man2/read.2.html
#[derive(Debug, Default)]
pub struct Taker {
    call: AtomicU8,
}

impl Taker {
    const RECEIVE: u8 = 0;
    const READ_WITHOUT_WAITING: u8 = 1;
    const POLL: u8 = 2;

    /// Copies bytes into `space` if there are some; how many, 0 at the end, or `None`.
    ///
    /// # Errors
    /// The kernel's.
    #[inline]
    pub fn take(&self, fd: RawFd, space: &mut [u8]) -> Result<Option<usize>> {
        let call = self.call.load(Ordering::Relaxed);
        let taken = match call {
            Self::RECEIVE => rustix::net::recv(borrowed(fd)?, &mut *space, RecvFlags::DONTWAIT).map(|(count, _)| count),
            Self::READ_WITHOUT_WAITING => {
                // Where the file stands.
                const HERE: u64 = u64::MAX;
                let spaces = &mut [IoSliceMut::new(space)];
                rustix::io::preadv2(borrowed(fd)?, spaces, HERE, ReadWriteFlags::NOWAIT)
            }
            _ if has_input(fd)? => rustix::io::read(borrowed(fd)?, &mut *space),
            _ => return Ok(None),
        };
        match taken {
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::NOSYS) if call < Self::POLL => {
                self.call.store(call + 1, Ordering::Relaxed);
                self.take(fd, space)
            }
            taken => taken.map(Some),
        }
    }
}

/// Writes some of the bytes of `parts`, laid end to end, and returns how many ([`write`], [`writev`]). Blocks while there is
/// no room.
///
/// # Errors
/// The kernel's: `EPIPE` when nobody reads any more, and `SIGPIPE` where that is not ignored.
///
/// [`write`]: https://man7.org/linux/man-pages/man2/write.2.html
/// [`writev`]: https://man7.org/linux/man-pages/man2/writev.2.html
pub fn write(fd: RawFd, parts: [&[u8]; 2]) -> Result<usize> {
    let (fd, [first, second]) = (borrowed(fd)?, parts);
    let mut whole = [0; SHORT];
    let Some((whole, _)) = whole.split_at_mut_checked(first.len() + second.len()) else {
        return rustix::io::writev(fd, &parts.map(IoSlice::new));
    };
    let (front, back) = whole.split_at_mut(first.len());
    front.copy_from_slice(first);
    back.copy_from_slice(second);
    rustix::io::write(fd, whole)
}

/// Whether there is something to read or the end.
///
/// # Errors
/// The kernel's.
pub fn has_input(fd: RawFd) -> Result<bool> {
    poll(fd, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
}

/// Waits until there is something to read or the end, and returns whether there is ([`ppoll`]); `false` once the deadline
/// has come.
///
/// # Errors
/// The kernel's, and `EINTR`.
///
/// [`ppoll`]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn await_input(fd: RawFd, deadline: Deadline) -> Result<bool> {
    poll(fd, deadline.remaining_timespec().as_ref())
}

fn poll(fd: RawFd, timeout: Option<&Timespec>) -> Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(borrowed(fd)?, PollFlags::IN)];
    // Errors and hang-ups count as input: a read will not block.
    Ok(rustix::event::poll(&mut polled, timeout)? > 0)
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
        assert_eq!(has_input(from), Ok(false));
        assert_eq!(write(to, [b"head", b"body"]), Ok(8));
        assert_eq!(has_input(from), Ok(true));
        assert_eq!(await_input(from, Deadline::never()), Ok(true));
        let mut bytes = Vec::with_capacity(100);
        assert_eq!(read_more(from, &mut bytes, 6), Ok(6));
        assert_eq!(read_more(from, &mut bytes, 6), Ok(2));
        assert_eq!(bytes, b"headbody");
    }

    #[test]
    fn short_and_long_parts_are_written_alike() {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        for len in [0, 1, SHORT - 4, SHORT - 3, 3 * SHORT] {
            let body = vec![7; len];
            assert_eq!(write(writer.as_raw_fd(), [b"head", &body]), Ok(4 + len));
            let mut bytes = Vec::new();
            assert_eq!(read_more(reader.as_raw_fd(), &mut bytes, 2000), Ok(4 + len));
            assert_eq!(bytes, [b"head", &body[..]].concat());
        }
    }

    #[test]
    fn what_is_not_there_is_not_waited_for() {
        let sockets = || {
            let (one, other) = std::os::unix::net::UnixStream::pair().expect("sockets");
            (std::os::fd::OwnedFd::from(one), std::os::fd::OwnedFd::from(other))
        };
        for call in [Taker::RECEIVE, Taker::READ_WITHOUT_WAITING, Taker::POLL] {
            for (reader, writer) in [sockets(), rustix::pipe::pipe().expect("pipe")] {
                let (from, to) = (reader.as_raw_fd(), writer.as_raw_fd());
                let (taker, mut space) = (Taker { call: AtomicU8::new(call) }, [0; 4]);
                assert_eq!(taker.take(from, &mut space), Ok(None));
                assert_eq!(write(to, [b"head", b"bo"]), Ok(6));
                assert_eq!(taker.take(from, &mut space), Ok(Some(4)));
                assert_eq!(&space, b"head");
                assert_eq!(taker.take(from, &mut space), Ok(Some(2)));
                assert_eq!(taker.take(from, &mut space), Ok(None));
                drop(writer);
                assert_eq!(taker.take(from, &mut space), Ok(Some(0)));
            }
        }
        assert_eq!(Taker::default().take(-1, &mut [0]), Err(Errno::BADF));
    }

    #[test]
    fn a_number_that_is_no_descriptor_is_an_error() {
        for number in [-1, 987_654] {
            assert_eq!(read_more(number, &mut Vec::new(), 1), Err(Errno::BADF));
            assert_eq!(write(number, [b"", b"x"]), Err(Errno::BADF));
        }
        assert_eq!(await_input(-1, Deadline::passed()), Err(Errno::BADF));
    }
}
