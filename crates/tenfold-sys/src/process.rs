//! Processes: who they are, whether they live, how they ended.
//!
//! A pid is a number that the kernel hands out again; a [`PidFd`] is the process itself. Death is the pidfd becoming
//! readable, and nothing else: `kill(pid, 0)` calls a zombie alive.

use crate::clock::Deadline;
use crate::error::{Errno, Result, from_minus_one, last, retry};
use crate::procfs;
use core::mem::MaybeUninit;
use rustix::event::{PollFd, PollFlags};
use rustix::process::PidfdFlags;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The number of a process, never 0.
pub type Pid = u32;

/// This process, asked of the kernel each time ([`getpid`]), so it is right after any kind of fork.
///
/// [`getpid`]: https://man7.org/linux/man-pages/man2/getpid.2.html
pub fn pid() -> Pid {
    rustix::process::getpid().as_raw_nonzero().get() as Pid
}

/// This thread, asked of the kernel each time ([`gettid`]). Equal to [`pid`] on the main thread.
///
/// [`gettid`]: https://man7.org/linux/man-pages/man2/gettid.2.html
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// The parent of this process ([`getppid`]): changes when the parent dies. 0 when it is in another PID namespace.
///
/// [`getppid`]: https://man7.org/linux/man-pages/man2/getpid.2.html
pub fn parent_pid() -> Pid {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as Pid)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It called `exit` with this code, of which the kernel keeps the low eight bits.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// Which one.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl ExitStatus {
    const PRESENT: u32 = 1 << 31;
    const SIGNALED: u32 = 1 << 30;
    const CORE: u32 = 1 << 29;

    /// Decodes a status of [`waitpid`]; `None` when it tells of a stop or a continuation, not of an end.
    ///
    /// [`waitpid`]: https://man7.org/linux/man-pages/man2/wait.2.html
    pub fn from_wait(status: i32) -> Option<Self> {
        if libc::WIFEXITED(status) {
            Some(Self::Exited(libc::WEXITSTATUS(status)))
        } else if libc::WIFSIGNALED(status) {
            Some(Self::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) })
        } else {
            None
        }
    }

    /// The exit code, unless a signal ended the process.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Signaled { .. } => None,
        }
    }

    /// The signal that ended the process.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Exited(_) => None,
            Self::Signaled { signal, .. } => Some(signal),
        }
    }

    /// Whether the process ended by itself, with whatever code: it had the chance to clean up.
    pub fn is_normal(self) -> bool {
        matches!(self, Self::Exited(_))
    }

    /// The status in one word, for shared memory; never 0.
    pub fn to_bits(self) -> u32 {
        match self {
            Self::Exited(code) => Self::PRESENT | (code as u32 & 0xff),
            Self::Signaled { signal, core } => {
                Self::PRESENT | Self::SIGNALED | if core { Self::CORE } else { 0 } | (signal as u32 & 0x7f)
            }
        }
    }

    /// The inverse of [`to_bits`](Self::to_bits); `None` for 0 and for every word that it does not make.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let status = if bits & Self::SIGNALED != 0 {
            Self::Signaled { signal: (bits & 0x7f) as i32, core: bits & Self::CORE != 0 }
        } else {
            Self::Exited((bits & 0xff) as i32)
        };
        (status.to_bits() == bits).then_some(status)
    }
}

/// A process, by a descriptor that cannot come to mean another one. Close-on-exec.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that now has this number ([`pidfd_open`]). The caller makes sure that it is the one meant:
    /// compare [`procfs::start_time`] afterwards. Works on a zombie. Does not block.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process, `EMFILE`, `ENFILE`, `EINVAL` for a number that no process can have (or
    /// that is a thread's); `ENOSYS` or `EPERM` under a kernel or filter without pidfds.
    ///
    /// [`pidfd_open`]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
    pub fn open(pid: Pid) -> Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(Errno::INVAL)?;
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map(Self)
    }

    /// Takes over a pidfd, for instance an inherited one. Any other descriptor makes the methods answer nonsense.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether the process is dead, all its threads included; a zombie is. Does not block.
    pub fn is_dead(&self) -> bool {
        self.wait_dead(Deadline::after(core::time::Duration::ZERO))
    }

    /// Blocks until the process is dead or the deadline comes, across signals ([`poll`]). Returns whether it is dead.
    ///
    /// [`poll`]: https://man7.org/linux/man-pages/man2/poll.2.html
    pub fn wait_dead(&self, deadline: Deadline) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let polled = retry(|| rustix::event::poll(&mut fds, deadline.remaining_timespec().as_ref()));
        polled.is_ok_and(|ready| ready > 0) && fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP)
    }

    /// Sends a signal, 0 to ask only ([`pidfd_send_signal`]). Does not block.
    ///
    /// # Errors
    /// `ESRCH` when the process has been reaped, `EPERM`, `EINVAL` for a number that is no signal.
    ///
    /// [`pidfd_send_signal`]: https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html
    pub fn signal(&self, signal: i32) -> Result<()> {
        let no_info: *const libc::siginfo_t = core::ptr::null();
        // SAFETY: the descriptor is open and a null siginfo is allowed.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) };
        if sent == -1 { Err(last()) } else { Ok(()) }
    }

    /// How the process ended, as far as the kernel tells, without reaping it: from the pidfd itself once somebody has
    /// reaped it (`PIDFD_GET_INFO`, Linux 6.15), and before that if it is our own child ([`waitid`] with `WNOWAIT`).
    /// `None` while it runs, and when neither way is open. Does not block.
    ///
    /// [`waitid`]: https://man7.org/linux/man-pages/man2/waitid.2.html
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.recorded_status().or_else(|| self.zombie_status())
    }

    fn recorded_status(&self) -> Option<ExitStatus> {
        /// `struct pidfd_info` of `linux/pidfd.h`, first version: 64 bytes.
        #[repr(C)]
        #[derive(Default)]
        struct PidFdInfo {
            mask: u64,
            cgroup_id: u64,
            pid: u32,
            thread_group: u32,
            parent: u32,
            ids: [u32; 8],
            exit_code: i32,
        }
        const INFO_EXIT: u64 = 1 << 3;
        // _IOWR(0xff, 11, struct pidfd_info): read and write, size, magic, number.
        const GET_INFO: u64 = (3 << 30) | ((size_of::<PidFdInfo>() as u64) << 16) | (0xff << 8) | 11;
        const { assert!(size_of::<PidFdInfo>() == 64 && GET_INFO == 0xc040_ff0b) };

        let mut info = PidFdInfo { mask: INFO_EXIT, ..PidFdInfo::default() };
        // SAFETY: the size is part of the request, so a kernel that knows it writes at most the 64 bytes of `info`; one
        // that does not, or a descriptor of another kind, refuses the number.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO as _, &raw mut info) };
        // The mask that comes back says what was filled in.
        if done == 0 && info.mask & INFO_EXIT != 0 { ExitStatus::from_wait(info.exit_code) } else { None }
    }

    fn zombie_status(&self) -> Option<ExitStatus> {
        status_of(&wait_unreaped(libc::P_PIDFD, self.0.as_raw_fd() as libc::id_t)?)
    }

    /// The descriptor, to poll for reading.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The number of the descriptor.
    pub fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reaps a child if it is dead ([`waitpid`] with `WNOHANG`); `None` while it lives. Does not block.
///
/// # Errors
/// `ECHILD` when it is no child of ours, or somebody else has reaped it (`os.wait()`, an ignored `SIGCHLD`).
///
/// [`waitpid`]: https://man7.org/linux/man-pages/man2/wait.2.html
pub fn reap(pid: Pid) -> Result<Option<ExitStatus>> {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0).ok_or(Errno::CHILD)?;
    let (found, status) = wait_for(pid, libc::WNOHANG)?;
    Ok(if found == 0 { None } else { ExitStatus::from_wait(status) })
}

/// Reaps a child, and blocks until it is dead, across signals. Errors as for [`reap`].
pub fn reap_blocking(pid: Pid) -> Result<ExitStatus> {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0).ok_or(Errno::CHILD)?;
    loop {
        // A traced child may report a stop, which is no end.
        if let Some(status) = ExitStatus::from_wait(wait_for(pid, 0)?.1) {
            return Ok(status);
        }
    }
}

/// Looks for some dead child, whichever, and leaves it a zombie, whose number nobody else can get ([`waitid`] with
/// `WNOWAIT`); `None` when there is none. Does not block. To be followed by [`reap`]. Finds children of other code in
/// this process too: for processes all of whose children are ours.
///
/// [`waitid`]: https://man7.org/linux/man-pages/man2/wait.2.html
pub fn find_dead() -> Option<(Pid, ExitStatus)> {
    let info = wait_unreaped(libc::P_ALL, 0)?;
    // SAFETY: waitid fills the SIGCHLD fields; where nothing was reported they are zero.
    let pid = unsafe { info.si_pid() };
    status_of(&info).map(|status| (pid as Pid, status))
}

/// Whether the process is a child of this one that has ended and is not reaped; needs no descriptor. Does not block.
pub fn is_dead_child(pid: Pid) -> bool {
    wait_unreaped(libc::P_PID, pid).and_then(|info| status_of(&info)).is_some()
}

fn wait_unreaped(which: libc::idtype_t, id: libc::id_t) -> Option<libc::siginfo_t> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let mut wait = || {
        // SAFETY: `info` is a live siginfo for the kernel to fill.
        from_minus_one(unsafe { libc::waitid(which, id, info.as_mut_ptr(), options) })
    };
    retry(&mut wait).ok()?;
    // SAFETY: zeroed before the call, so initialised whether or not the kernel filled it in.
    Some(unsafe { info.assume_init() })
}

fn status_of(info: &libc::siginfo_t) -> Option<ExitStatus> {
    // SAFETY: waitid fills the SIGCHLD fields; where nothing was reported they are zero.
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => Some(ExitStatus::Exited(status)),
        libc::CLD_KILLED => Some(ExitStatus::Signaled { signal: status, core: false }),
        libc::CLD_DUMPED => Some(ExitStatus::Signaled { signal: status, core: true }),
        _ => None,
    }
}

fn wait_for(pid: i32, options: i32) -> Result<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is a live local for the kernel to fill.
    let found = retry(|| from_minus_one(unsafe { libc::waitpid(pid, &raw mut status, options) }))?;
    Ok((found, status))
}

/// Ends the process at once, all threads, with no exit handlers and no flushing ([`_exit`]).
///
/// [`_exit`]: https://man7.org/linux/man-pages/man2/_exit.2.html
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Sends a signal to the process that now has this number ([`kill`]), 0 to ask only. Prefer [`PidFd::signal`]. A number
/// that is no process (0, or beyond 2³¹) is `ESRCH`, never a process group.
///
/// [`kill`]: https://man7.org/linux/man-pages/man2/kill.2.html
pub fn kill(pid: Pid, signal: i32) -> Result<()> {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0).ok_or(Errno::SRCH)?;
    // SAFETY: takes numbers only.
    from_minus_one(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Dies by `SIGKILL`, as if shot from outside.
pub fn kill_self() -> ! {
    loop {
        // The signal is handled before the call returns; the loop is for the type and for a filter that forbids kill.
        if kill(pid(), libc::SIGKILL).is_err() {
            exit_now(137);
        }
    }
}

/// On which side of a [`fork`] one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the parent, with the number of its new child.
    Parent(Pid),
    /// In the child.
    Child,
}

/// Splits the process in two ([`fork`]). Runs the handlers of [`at_fork`](crate::at_fork). Blocks for as long as the
/// kernel takes to copy the page tables.
///
/// # Errors
/// `EAGAIN` at the limit of processes, `ENOMEM`.
///
/// # Safety
/// Only the calling thread lives on in the child. If the process has others, the child does nothing but what is
/// async-signal-safe until it execs or exits: a lock of another thread, the allocator's for one, may stay taken.
///
/// [`fork`]: https://man7.org/linux/man-pages/man2/fork.2.html
pub unsafe fn fork() -> Result<Fork> {
    // SAFETY: the caller keeps the child within what fork allows.
    match from_minus_one(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as Pid)),
    }
}

/// Names this thread, and on the main thread the process, for `ps` and `top` ([`PR_SET_NAME`]): the first 15 bytes
/// before any NUL. Allocates.
///
/// [`PR_SET_NAME`]: https://man7.org/linux/man-pages/man2/PR_SET_NAME.2const.html
pub fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().take(15).take_while(|&byte| byte != 0).collect();
    if let Ok(name) = CString::new(bytes) {
        // A name is a courtesy; the call fails for a bad address only.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Has the kernel kill this process when the *thread* that made it ends ([`PR_SET_PDEATHSIG`]). The parent may be dead
/// already: compare [`parent_pid`] afterwards. Not inherited by forks.
///
/// [`PR_SET_PDEATHSIG`]: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
pub fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
}

/// Leaves the terminal and the process group of the parent ([`setsid`]): signals from the keyboard and those sent to the
/// group do not reach this process any more. `EPERM` for a process that leads a group already.
///
/// [`setsid`]: https://man7.org/linux/man-pages/man2/setsid.2.html
pub fn new_session() -> Result<()> {
    rustix::process::setsid().map(drop)
}

/// How many threads this process has ([`/proc/self/stat`]); `None` where /proc is missing. Does not allocate.
///
/// [`/proc/self/stat`]: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
pub fn thread_count() -> Option<usize> {
    procfs::stat_field(pid(), procfs::NUM_THREADS).ok().map(|count| count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::{forever, forked, shared_words};
    use core::sync::atomic::Ordering;
    use core::time::Duration;

    const KILLED: ExitStatus = ExitStatus::Signaled { signal: libc::SIGKILL, core: false };

    #[test]
    fn identity() {
        assert_eq!(pid(), std::process::id());
        let words = shared_words();
        let parent = pid();
        let child = forked(|| {
            words[0].store(pid(), Ordering::SeqCst);
            words[1].store(parent_pid(), Ordering::SeqCst);
            words[2].store(thread_id(), Ordering::SeqCst);
            words[3].store(thread_count().unwrap_or(0) as u32, Ordering::SeqCst);
        });
        let pid = child.0;
        child.join();
        assert_eq!([0, 1, 2, 3].map(|i| words[i].load(Ordering::SeqCst)), [pid, parent, pid, 1]);
        assert!(thread_count() >= Some(1));
    }

    #[test]
    fn a_pidfd_sees_death_before_and_after_the_reaping() {
        let child = forked(|| forever());
        let pidfd = PidFd::open(child.0).expect("pidfd");
        assert!(!pidfd.is_dead());
        assert!(!pidfd.wait_dead(Deadline::after(Duration::from_millis(3))));
        assert_eq!(pidfd.exit_status(), None);
        assert_eq!(reap(child.0), Ok(None));
        assert_eq!(pidfd.signal(0), Ok(()));
        assert!(!is_dead_child(child.0));
        assert_eq!(pidfd.signal(12345), Err(Errno::INVAL));
        pidfd.signal(libc::SIGKILL).expect("signal");
        assert!(pidfd.wait_dead(Deadline::never()));
        assert!(pidfd.is_dead());
        assert_eq!(pidfd.recorded_status(), None, "the kernel records the status at the reaping");
        assert_eq!(pidfd.exit_status(), Some(KILLED), "the parent can look at its zombie");
        assert_eq!(kill(child.0, 0), Ok(()), "a zombie counts as alive for kill");
        assert!(is_dead_child(child.0) && !is_dead_child(pid()) && !is_dead_child(0));
        assert_eq!(reap(child.0), Ok(Some(KILLED)));
        assert_eq!(reap(child.0), Err(Errno::CHILD));
        assert!(pidfd.is_dead());
        assert_eq!(pidfd.signal(0), Err(Errno::SRCH));
    }

    /// Linux 6.15 and later; elsewhere nothing is known after the reaping.
    #[test]
    fn a_pidfd_keeps_the_exit_status_after_the_reaping() {
        let new_enough = rustix_release() >= (6, 15);
        for (end, expected) in [
            ((|| kill_self()) as fn(), KILLED),
            (|| exit_now(300), ExitStatus::Exited(44)),
            (|| exit_now(0), ExitStatus::Exited(0)),
        ] {
            let child = forked(end);
            let pidfd = PidFd::open(child.0).expect("pidfd");
            assert_eq!(reap_blocking(child.0), Ok(expected));
            assert_eq!(pidfd.exit_status(), new_enough.then_some(expected));
        }
    }

    fn rustix_release() -> (u32, u32) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    #[test]
    fn statuses_live_in_a_word() {
        let cases = [
            ExitStatus::Exited(0),
            ExitStatus::Exited(255),
            KILLED,
            ExitStatus::Signaled { signal: 11, core: true },
            ExitStatus::Signaled { signal: 64, core: false },
        ];
        for status in cases {
            assert_ne!(status.to_bits(), 0);
            assert_eq!(ExitStatus::from_bits(status.to_bits()), Some(status));
        }
        for nonsense in [0, 1, 1 << 30, 1 << 28, (1 << 31) | (1 << 29), (1 << 31) | 0x100, u32::MAX] {
            assert_eq!(ExitStatus::from_bits(nonsense), None, "{nonsense:#x}");
        }
        assert_eq!(ExitStatus::from_wait(0x137f), None);
        assert_eq!(ExitStatus::from_wait(0x8b), Some(ExitStatus::Signaled { signal: 11, core: true }));
        assert_eq!((KILLED.code(), KILLED.signal(), KILLED.is_normal()), (None, Some(9), false));
        let exited = ExitStatus::Exited(3);
        assert_eq!((exited.code(), exited.signal(), exited.is_normal()), (Some(3), None, true));
    }

    #[test]
    fn numbers_that_are_no_process() {
        assert!(PidFd::open(0).is_err());
        assert!(PidFd::open(u32::MAX).is_err());
        assert_eq!(kill(0, 0), Err(Errno::SRCH));
        assert_eq!(kill(u32::MAX, libc::SIGKILL), Err(Errno::SRCH));
        assert_eq!(reap(0), Err(Errno::CHILD));
        assert_eq!(reap(u32::MAX), Err(Errno::CHILD));
    }

    #[test]
    fn a_grandchild_dies_with_its_parent() {
        let words = shared_words();
        let child = forked(|| {
            // SAFETY: as in `forked`: the grandchild does nothing that another thread's locks could stop.
            match unsafe { fork() } {
                Ok(Fork::Child) => {
                    if die_with_parent().is_ok() {
                        words[0].store(pid(), Ordering::SeqCst);
                    }
                    forever()
                }
                _ => forever(),
            }
        });
        while words[0].load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let grandchild = PidFd::open(words[0].load(Ordering::SeqCst)).expect("pidfd");
        assert!(!grandchild.is_dead());
        kill(child.0, libc::SIGKILL).expect("kill");
        assert_eq!(reap_blocking(child.0), Ok(KILLED));
        assert!(grandchild.wait_dead(Deadline::never()));
    }

    #[test]
    fn names_are_cut_to_what_fits() {
        std::thread::spawn(|| {
            set_name("tenfold-with-a-long-name");
            let comm = format!("/proc/self/task/{}/comm", thread_id());
            assert_eq!(std::fs::read_to_string(comm).expect("comm"), "tenfold-with-a-\n");
        })
        .join()
        .expect("thread");
    }
}
