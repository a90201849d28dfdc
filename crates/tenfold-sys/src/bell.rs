//! A doorbell: a pipe that makes a poller in another process wake up.
//!
//! The process that polls makes the pipe and tells others its pid, the number of the write end and the pipe's inode;
//! they open it through `/proc`. Killed here: the poller's death closes the pipe; a ringer's death before the write
//! means no ring, which its sweep makes good.

use crate::error::{Errno, Result, retry};
use crate::process::Pid;
use crate::procfs;
use rustix::fs::{FileType, OFlags};
use rustix::pipe::PipeFlags;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Both ends of a nonblocking, close-on-exec pipe. After a fork parent and child would share it: the child makes its
/// own.
#[derive(Debug)]
pub struct Bell {
    reader: OwnedFd,
    writer: OwnedFd,
    inode: u64,
}

impl Bell {
    /// A silent bell ([`pipe2`]). `EMFILE` or `ENFILE` when there are no descriptors left.
    ///
    /// [`pipe2`]: https://man7.org/linux/man-pages/man2/pipe.2.html
    pub fn new() -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let inode = rustix::fs::fstat(&writer)?.st_ino;
        Ok(Self { reader, writer, inode })
    }

    /// The descriptor to poll for reading.
    pub fn read_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The number under which others open the bell, see [`ring_remote`].
    pub fn write_number(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// The inode of the pipe, by which [`ring_remote`] knows that the number has not been reused.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Rings the own bell. Does not block; a full pipe has rung already.
    pub fn ring_local(&self) -> Result<()> {
        ring(self.writer.as_fd())
    }

    /// Silences the bell: takes all there is to read. Does not block. Re-check what the bell is for *after* this.
    pub fn drain(&self) {
        let mut buffer = [0; 512];
        while matches!(retry(|| rustix::io::read(&self.reader, &mut buffer)), Ok(n) if n == buffer.len()) {}
    }
}

/// Rings the bell of another process: opens descriptor `number` of `pid` through `/proc`, makes sure that it is the pipe
/// with this inode, writes a byte, and closes it. Does not block; a full pipe has rung already. Raises no `SIGPIPE`.
///
/// # Errors
/// `ESRCH` when the process is gone, `EBADF` when the number is no longer that pipe, `EACCES` when the process is not
/// ours to look into, `ENOENT` without `/proc`.
pub fn ring_remote(pid: Pid, number: RawFd, inode: u64) -> Result<()> {
    // O_PATH first: opening what may meanwhile be a device for real can have effects. And for both directions in the
    // end, so that there is a reader for certain: without one, the write would raise SIGPIPE.
    find(pid, number, inode, OFlags::PATH)?;
    ring(find(pid, number, inode, OFlags::RDWR)?.as_fd())
}

/// Whether [`ring_remote`] would find the bell: so not if its process has died, even if that has not been reaped.
pub fn is_there(pid: Pid, number: RawFd, inode: u64) -> bool {
    find(pid, number, inode, OFlags::PATH).is_ok()
}

fn find(pid: Pid, number: RawFd, inode: u64, access: OFlags) -> Result<OwnedFd> {
    let fd = procfs::open_fd(pid, number, access)?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo || stat.st_ino != inode {
        return Err(Errno::BADF);
    }
    Ok(fd)
}

fn ring(fd: BorrowedFd<'_>) -> Result<()> {
    match retry(|| rustix::io::write(fd, &[1])) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;
    use crate::forked_test::forked;
    use crate::poll::wait_readable;
    use crate::process::{exit_now, pid};
    use core::time::Duration;

    fn rung(bell: &Bell) -> bool {
        wait_readable(&[bell.read_fd()], Deadline::after(Duration::ZERO)).expect("poll") == [0]
    }

    #[test]
    fn another_process_rings() {
        let bell = Bell::new().expect("bell");
        let parent = pid();
        assert!(!rung(&bell));
        let (number, inode) = (bell.write_number(), bell.inode());
        let child = forked(|| exit_now(ring_remote(parent, number, inode).map_or_else(Errno::raw_os_error, |()| 0)));
        assert_eq!(wait_readable(&[bell.read_fd()], Deadline::never()), Ok(vec![0]));
        child.join();
        bell.drain();
        assert!(!rung(&bell));
    }

    #[test]
    fn a_full_bell_is_rung_and_can_be_drained() {
        let bell = Bell::new().expect("bell");
        for _ in 0..70_000 {
            bell.ring_local().expect("ring");
        }
        assert_eq!(ring_remote(pid(), bell.write_number(), bell.inode()), Ok(()));
        assert!(rung(&bell));
        bell.drain();
        assert!(!rung(&bell));
    }

    #[test]
    fn a_dead_process_has_no_bell() {
        let bell = Bell::new().expect("bell");
        let (number, inode) = (bell.write_number(), bell.inode());
        assert!(is_there(pid(), number, inode));
        let child = forked(|| exit_now(0));
        let dead = child.0;
        // Not reaped: the number is the child's still.
        crate::process::PidFd::open(dead).expect("pidfd").wait_dead(Deadline::never());
        assert!(!is_there(dead, number, inode));
        child.join();
    }

    #[test]
    fn a_stale_number_is_not_written_to() {
        let (bell, other) = (Bell::new().expect("bell"), Bell::new().expect("bell"));
        assert_eq!(ring_remote(pid(), other.write_number(), bell.inode()), Err(Errno::BADF));
        assert!(!rung(&other));
        let null = std::fs::File::open("/dev/null").expect("null");
        assert_eq!(ring_remote(pid(), null.as_raw_fd(), bell.inode()), Err(Errno::BADF));
        assert_eq!(ring_remote(pid(), 987_654, bell.inode()), Err(Errno::BADF));
        assert_eq!(ring_remote(u32::MAX, 1, bell.inode()), Err(Errno::SRCH));
    }
}
