//! What `/proc` tells about another process.
//!
//! Nothing here allocates or takes a lock: the fork child of a program with many threads calls these. All need `/proc`;
//! where it is missing they say `ENOENT`, and `ESRCH` only when `/proc` is there and the process is not.

use crate::error::{Errno, Result, retry};
use crate::memory_file::FileIdentity;
use crate::process::{ExitStatus, Pid};
use core::ffi::CStr;
use core::fmt::{self, Write};
use rustix::fs::{Access, Mode, OFlags};
use std::os::fd::{OwnedFd, RawFd};

const STATE: usize = 3;
pub(crate) const NUM_THREADS: usize = 20;
const START_TIME: usize = 22;
const EXIT_CODE: usize = 52;

/// When the process started, in clock ticks since boot (field 22 of [`/proc/PID/stat`]): with the pid, it names a
/// process for good, but survives exec. Does not block, does not allocate. Works on a zombie.
///
/// # Errors
/// `ESRCH` when there is no such process; those of opening a file.
///
/// [`/proc/PID/stat`]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
pub fn start_time(pid: Pid) -> Result<u64> {
    stat_field(pid, START_TIME)
}

/// The letter of the process's state: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`. Note that `Z` is also the state of a
/// process whose main thread has ended while others run. Errors as for [`start_time`].
pub fn state(pid: Pid) -> Result<u8> {
    let mut buffer = [0; STAT_SIZE];
    let letter = field(read_stat(pid, &mut buffer)?, STATE).and_then(|field| field.first().copied());
    letter.ok_or(Errno::ILSEQ)
}

/// How a zombie ended, whoever its parent is; `None` if it is not dead with all its threads. The kernel tells it to those
/// who may look into the process. Errors as for [`start_time`].
pub fn zombie_status(pid: Pid) -> Result<Option<ExitStatus>> {
    let mut buffer = [0; STAT_SIZE];
    let stat = read_stat(pid, &mut buffer)?;
    let number = |place| field(stat, place).and_then(|text| core::str::from_utf8(text).ok()?.parse::<u64>().ok());
    let dead = field(stat, STATE) == Some(b"Z") && number(NUM_THREADS) == Some(1);
    let code = number(EXIT_CODE).filter(|_| dead);
    // 0 is also what is told to those who may not look: then only a process of our own user is believed.
    let believed = |&code: &i32| code != 0 || owner(pid) == Ok(rustix::process::geteuid().as_raw());
    Ok(code.and_then(|code| i32::try_from(code).ok()).filter(believed).and_then(ExitStatus::from_wait))
}

/// The user that the process acts as.
fn owner(pid: Pid) -> Result<u32> {
    let directory = open(pid, format_args!(""), OFlags::PATH)?;
    Ok(rustix::fs::fstat(&directory)?.st_uid)
}

/// A number out of `/proc/PID/stat`, by its place in the manual.
pub(crate) fn stat_field(pid: Pid, place: usize) -> Result<u64> {
    let mut buffer = [0; STAT_SIZE];
    let number = field(read_stat(pid, &mut buffer)?, place).and_then(|field| core::str::from_utf8(field).ok());
    number.and_then(|number| number.parse().ok()).ok_or(Errno::ILSEQ)
}

/// More than the line can take up to the last field that is asked for: 64 bytes of name and 20 digits a number.
const STAT_SIZE: usize = 1024;

/// The text of `/proc/PID/stat`, as far as it fits.
fn read_stat(pid: Pid, buffer: &mut [u8; STAT_SIZE]) -> Result<&[u8]> {
    let file = open(pid, format_args!("stat"), OFlags::RDONLY)?;
    let mut len = 0;
    while len < buffer.len() {
        match retry(|| rustix::io::read(&file, &mut buffer[len..]))? {
            0 => break,
            n => len += n,
        }
    }
    Ok(&buffer[..len])
}

/// A field by its place in the manual, from 3 on. The second is the name in parentheses, which may itself hold spaces
/// and parentheses, so counting starts behind the last one.
fn field(stat: &[u8], place: usize) -> Option<&[u8]> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat[name_end + 1..].split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
    fields.nth(place.checked_sub(3)?)
}

/// Whether the process has this file mapped ([`/proc/PID/maps`]): after an exec it has not. Takes time in proportion to the number of mappings.
///
/// The kernel shows the device of the super block, which on btrfs and some overlays is not `st_dev`: a caller that got
/// its file elsewhere than from `memfd_create` asks about itself first, and trusts a `false` only after a `true` there.
///
/// # Errors
/// `ESRCH`, also when nothing is mapped at all: a zombie, or a process whose main thread has ended, whatever its other
/// threads have; `EACCES` when the process is not ours to look into (another user, or not dumpable).
///
/// [`/proc/PID/maps`]: https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html
pub fn maps_file(pid: Pid, file: FileIdentity) -> Result<bool> {
    let maps = open(pid, format_args!("maps"), OFlags::RDONLY)?;
    let mut buffer = [0; 4096];
    let mut scanner = MapsScanner::new(file);
    let mut empty = true;
    loop {
        match retry(|| rustix::io::read(&maps, &mut buffer))? {
            0 if empty => return Err(Errno::SRCH),
            0 => return Ok(false),
            n => {
                empty = false;
                if buffer[..n].iter().any(|&byte| scanner.feed(byte)) {
                    return Ok(true);
                }
            }
        }
    }
}

/// Reads lines of `address perms offset major:minor inode path` byte by byte, wherever a read may have cut them.
struct MapsScanner {
    wanted: [u64; 3],
    /// Major and minor number of the device (hexadecimal), and the inode (decimal), of the current line.
    seen: [u64; 3],
    column: usize,
    in_gap: bool,
}

impl MapsScanner {
    const DEVICE: usize = 3;
    const INODE: usize = 4;

    fn new(file: FileIdentity) -> Self {
        let (major, minor) = (rustix::fs::major(file.dev), rustix::fs::minor(file.dev));
        Self { wanted: [major.into(), minor.into(), file.ino], seen: [0; 3], column: 0, in_gap: false }
    }

    /// Takes one byte; true when it ends an inode that makes the line one of the wanted file.
    fn feed(&mut self, byte: u8) -> bool {
        let ends_inode = self.column == Self::INODE && !self.in_gap && matches!(byte, b' ' | b'\n');
        let found = ends_inode && self.seen == self.wanted;
        if byte == b'\n' {
            (self.seen, self.column, self.in_gap) = ([0; 3], 0, false);
            return found;
        }
        if byte == b' ' {
            self.in_gap = true;
            return found;
        }
        if self.in_gap {
            self.in_gap = false;
            self.column += 1;
        }
        match (self.column, char::from(byte).to_digit(16)) {
            // At the colon what was read so far turns out to be the major number.
            (Self::DEVICE, None) => self.seen = [self.seen[1], 0, 0],
            (Self::DEVICE, Some(digit)) => self.seen[1] = self.seen[1].wrapping_mul(16).wrapping_add(digit.into()),
            (Self::INODE, Some(digit)) => self.seen[2] = self.seen[2].wrapping_mul(10).wrapping_add(digit.into()),
            _ => {}
        }
        false
    }
}

/// Opens the file behind descriptor `fd` of another process, for writing or for reading, nonblocking and close-on-exec
/// ([`/proc/PID/fd`]). For pipes and files; sockets and eventfds cannot be opened so (`ENXIO`).
///
/// # Errors
/// `ESRCH` when there is no such process, `EBADF` when it has no such descriptor, `EACCES` when it is not ours, `ENXIO`
/// also for writing to a pipe that nobody reads.
///
/// [`/proc/PID/fd`]: https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html
pub fn open_fd_of(pid: Pid, fd: RawFd, write: bool) -> Result<OwnedFd> {
    open_fd(pid, fd, if write { OFlags::WRONLY } else { OFlags::RDONLY })
}

/// [`open_fd_of`] with the caller's own access mode.
pub(crate) fn open_fd(pid: Pid, fd: RawFd, access: OFlags) -> Result<OwnedFd> {
    open(pid, format_args!("fd/{fd}"), access | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(|error| match error {
        // The process is there, as a file of it that always exists tells; so the descriptor is not.
        Errno::SRCH if start_time(pid).is_ok() => Errno::BADF,
        error => error,
    })
}

/// Opens a file of `/proc/PID`, close-on-exec.
fn open(pid: Pid, file: fmt::Arguments<'_>, flags: OFlags) -> Result<OwnedFd> {
    let path = StackPath::new(format_args!("/proc/{pid}/{file}"))?;
    retry(|| rustix::fs::open(path.as_c_str()?, flags | OFlags::CLOEXEC, Mode::empty())).map_err(|error| match error {
        Errno::NOENT if rustix::fs::access(c"/proc/self/stat", Access::EXISTS).is_ok() => Errno::SRCH,
        error => error,
    })
}

/// A path on the stack.
struct StackPath {
    bytes: [u8; 64],
    len: usize,
}

impl StackPath {
    fn new(text: fmt::Arguments<'_>) -> Result<Self> {
        let mut path = Self { bytes: [0; 64], len: 0 };
        path.write_fmt(text).map_err(|fmt::Error| Errno::NAMETOOLONG)?;
        Ok(path)
    }

    fn as_c_str(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::NAMETOOLONG)
    }
}

impl Write for StackPath {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        // One byte stays for the NUL.
        if end >= self.bytes.len() {
            return Err(fmt::Error);
        }
        self.bytes[self.len..end].copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::{forever, forked};
    use crate::memory_file::MemoryFile;
    use crate::process::{PidFd, kill, pid, reap_blocking};
    use std::os::fd::AsRawFd;

    #[test]
    fn start_times_and_states() {
        let child = forked(|| forever());
        let start = start_time(child.0).expect("start time");
        assert!(start >= start_time(pid()).expect("own start time"));
        assert!(b"RSD".contains(&state(child.0).expect("state")));
        let pidfd = PidFd::open(child.0).expect("pidfd");
        kill(child.0, libc::SIGKILL).expect("kill");
        assert!(pidfd.wait_dead(crate::clock::Deadline::never()));
        assert_eq!(state(child.0), Ok(b'Z'));
        assert_eq!(start_time(child.0), Ok(start));
        assert_eq!(zombie_status(child.0), Ok(Some(ExitStatus::Signaled { signal: libc::SIGKILL, core: false })));
        assert_eq!(zombie_status(pid()), Ok(None));
        let ended = forked(|| ());
        assert!(PidFd::open(ended.0).expect("pidfd").wait_dead(crate::clock::Deadline::never()));
        assert_eq!(zombie_status(ended.0), Ok(Some(ExitStatus::Exited(0))));
        ended.join();
        reap_blocking(child.0).expect("reap");
        assert_eq!(start_time(child.0), Err(Errno::SRCH));
        assert_eq!(state(u32::MAX), Err(Errno::SRCH));
    }

    #[test]
    fn a_name_may_look_like_anything() {
        let stat = b"7 (a) Z 1 (\n) R 1 7 7 0 -1 4194304 1 0 0 0 2 3 0 0 20 0 5 0 987654 1\n";
        assert_eq!(field(stat, STATE), Some(&b"R"[..]));
        assert_eq!(field(stat, NUM_THREADS), Some(&b"5"[..]));
        assert_eq!(field(stat, START_TIME), Some(&b"987654"[..]));
        assert_eq!(field(stat, 60), None);
        assert_eq!(field(b"", STATE), None);
        assert_eq!(field(b"1 (x)", STATE), None);
    }

    #[test]
    fn the_maps_tell_who_has_our_file() {
        let file = MemoryFile::create("procfs-test").expect("create");
        file.allocate(0, 4096).expect("allocate");
        assert_eq!(maps_file(pid(), file.identity()), Ok(false));
        let page = crate::mapping::map_shared(file.as_fd(), 0, 4096).expect("map");
        assert_eq!(maps_file(pid(), file.identity()), Ok(true));
        let other = FileIdentity { ino: file.identity().ino + 1_000_000, ..file.identity() };
        assert_eq!(maps_file(pid(), other), Ok(false));
        // SAFETY: the mapping made above, used by nobody.
        unsafe { crate::mapping::unmap(page, 4096) }.expect("unmap");
        assert_eq!(maps_file(pid(), file.identity()), Ok(false));
    }

    #[test]
    fn lines_of_maps() {
        let text = b"55d0-55d2 r-xp 00002000 fd:1a 4711 /bin/a b 9\n7f00-7f02 rw-p 0 00:00 0 \n7f-80 rw-s 0 00:01 2 \n";
        for (major, minor, ino, expected) in
            [(0xfd, 0x1a, 4711, true), (0, 1, 2, true), (0xfd, 0x1a, 9, false), (0, 0x1a, 4711, false)]
        {
            let dev = rustix::fs::makedev(major, minor);
            let mut scanner = MapsScanner::new(FileIdentity { dev, ino });
            assert_eq!(text.iter().any(|&byte| scanner.feed(byte)), expected, "{major}:{minor} {ino}");
        }
    }

    #[test]
    fn a_pipe_of_another_process_can_be_opened() {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        let child = forked(|| forever());
        let opened = open_fd_of(child.0, writer.as_raw_fd(), true).expect("open");
        assert_eq!(rustix::io::write(&opened, b"x"), Ok(1));
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]), Ok(1));
        assert_eq!(open_fd_of(child.0, 987_654, true).err(), Some(Errno::BADF));
        kill(child.0, libc::SIGKILL).expect("kill");
        reap_blocking(child.0).expect("reap");
        assert_eq!(open_fd_of(child.0, writer.as_raw_fd(), true).err(), Some(Errno::SRCH));
    }
}
