//! A process as seen by others: whether it runs, how it ended, what it said at last.

use core::fmt;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use tenfold_shm::Heap;
use tenfold_shm::participant::{self, Identity};
use tenfold_shm::process_record::{Ending, ProcessRecord};
use tenfold_sys::clock::Deadline;
use tenfold_sys::process::{ExitStatus, Pid, PidFd};
use tenfold_sys::{Errno, procfs};

use crate::function::Panic;
use crate::launch::LaunchError;
use crate::places::{self, flag};
use crate::{child, children, nursery};

/// How long to sleep before looking whether whoever should wake us is still there.
const SLICE: Duration = Duration::from_millis(20);
/// How long whoever reaps a process may take to tell how it ended.
const STATUS_GRACE: Duration = Duration::from_millis(500);

/// A process of the family, by its record. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Child {
    heap: Heap,
    record: ProcessRecord,
    identity: Identity,
    name: String,
    pidfd: OnceLock<PidFd>,
}

/// How a process ended, if not well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Its function panicked.
    #[error("process {name} panicked: {message}")]
    Panicked {
        /// The process.
        name: String,
        /// What the panic said, and where.
        message: String,
        /// The stack at the time.
        backtrace: String,
    },
    /// Its function returned an error.
    #[error("process {name} failed: {message}")]
    Failed {
        /// The process.
        name: String,
        /// The error's text.
        message: String,
    },
    /// It exited with a code other than 0.
    #[error("process {name} exited with code {code}")]
    Exited {
        /// The process.
        name: String,
        /// The code.
        code: i32,
    },
    /// A signal ended it.
    #[error("process {name} was ended by signal {signal} ({}){}", signal_name(*signal), if *core { ", core dumped" } else { "" })]
    Signaled {
        /// The process.
        name: String,
        /// The signal.
        signal: i32,
        /// Whether it left a core.
        core: bool,
    },
    /// It could not be started.
    #[error("process {name} could not be started: {reason}")]
    NotStarted {
        /// The process.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is gone, and whoever could have told how is gone too.
    #[error("process {name} is gone, and nobody saw how it ended")]
    Vanished {
        /// The process.
        name: String,
    },
}

/// The usual name of a signal.
pub fn signal_name(signal: i32) -> &'static str {
    const NAMES: [&str; 32] = [
        "none",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal).ok().and_then(|signal| NAMES.get(signal).copied()).unwrap_or("a real-time signal")
}

/// What a process leaves behind for whoever asks how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LastWords {
    Panicked(Panic),
    Failed(String),
    NotStarted(String),
}

impl LastWords {
    /// A letter, the length of the first text, the first text, the second.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (letter, first, second) = match self {
            LastWords::Panicked(panic) => (b'P', &panic.message, panic.backtrace.as_str()),
            LastWords::Failed(text) => (b'F', text, ""),
            LastWords::NotStarted(text) => (b'N', text, ""),
        };
        let mut bytes = vec![letter];
        bytes.extend_from_slice(&(first.len() as u64).to_le_bytes());
        bytes.extend_from_slice(first.as_bytes());
        bytes.extend_from_slice(second.as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<LastWords> {
        let (&letter, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (first, second) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match letter {
            b'P' => Some(LastWords::Panicked(Panic { message: text(first), backtrace: text(second) })),
            b'F' => Some(LastWords::Failed(text(first))),
            b'N' => Some(LastWords::NotStarted(text(first))),
            _ => None,
        }
    }
}

impl Child {
    pub(crate) fn new(heap: Heap, record: ProcessRecord, identity: Identity, name: &str) -> Child {
        Child { heap, record, identity, name: name.to_owned(), pidfd: OnceLock::new() }
    }

    /// Takes hold of the process, which the caller has just made: its number cannot mean another one
    /// yet, and whoever reaps it, the kernel will tell us how it ended.
    pub(crate) fn pin(&self, pid: Pid) {
        if let Ok(pidfd) = PidFd::open(pid) {
            self.pidfd.get_or_init(|| pidfd);
        }
    }

    /// The process that is now the participant `who`, if tenfold started it.
    ///
    /// # Errors
    /// If the heap is corrupt or full.
    pub fn of(heap: Heap, who: Identity) -> tenfold_shm::Result<Child> {
        let record = ProcessRecord::of(heap, who)?;
        let name = child::name_of(heap, who).unwrap_or_default();
        Ok(Child { heap, record, identity: who, name, pidfd: OnceLock::new() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which participant it is or was.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Its record, to be handed to other processes.
    pub fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// Waits until the process is there, or could not be made, or the deadline comes; tells whether
    /// it is or was there.
    ///
    /// # Errors
    /// If the nursery is dead and cannot be made again: the process is not started later either. If it is stopped: the
    /// process is started when it goes on.
    pub fn wait_started(&self, deadline: Deadline) -> Result<bool, LaunchError> {
        for _ in 0..100 {
            if self.is_decided() {
                break;
            }
            core::hint::spin_loop();
        }
        let mut stops = nursery::StopWatch::default();
        loop {
            let seen = self.record.changes();
            if self.is_decided() || deadline.expired() {
                return Ok(self.record.process().is_some());
            }
            self.record.wait(seen, deadline.min(Deadline::after(SLICE)));
            if !self.is_decided() {
                children::reap(self.heap, self.identity);
                participant::sweep_if_dead(self.heap, self.identity.slot() + 1);
                nursery::remind(self.heap, self.identity).inspect_err(|error| {
                    nursery::not_started(self.heap, self.identity, error.to_string());
                })?;
                stops.after(SLICE, self.heap)?;
            }
        }
    }

    fn is_decided(&self) -> bool {
        self.record.process().is_some() || self.record.ending().is_some()
    }

    /// Its pid, waiting until it has one; `None` if it could not be started, or the deadline came.
    ///
    /// # Errors
    /// As [`Child::wait_started`].
    pub fn pid(&self, deadline: Deadline) -> Result<Option<Pid>, LaunchError> {
        self.wait_started(deadline)?;
        Ok(self.record.process().map(|(pid, _)| pid))
    }

    /// The process itself: `None` if it is dead and reaped, or could not be started.
    fn pidfd(&self) -> Result<Option<&PidFd>, Errno> {
        if let Some(fd) = self.pidfd.get() {
            return Ok(Some(fd));
        }
        let Some((pid, noted)) = self.record.process() else { return Ok(None) };
        let opened = PidFd::open(pid);
        let start_time = match (noted, self.identity.is_current(self.heap)) {
            (0, true) => participant::roster(self.identity.slot(), self.heap).start_time(),
            _ => noted,
        };
        match opened {
            // A process is reaped after its slot was swept: as long as the slot stands, the number is
            // its own. Only where the reaper died there is reason to look further.
            Ok(fd) if self.is_attended() => Ok(Some(self.pidfd.get_or_init(|| fd))),
            // Swept, and nobody had noted when it began.
            Ok(_) if start_time == 0 && self.record.ending().is_some() => Ok(None),
            Ok(fd) => match procfs::start_time(pid) {
                Ok(found) if start_time == 0 || found == start_time => Ok(Some(self.pidfd.get_or_init(|| fd))),
                Ok(_) | Err(Errno::SRCH) => Ok(None),
                // Without /proc there is no way to know.
                Err(_) => Ok(Some(self.pidfd.get_or_init(|| fd))),
            },
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the nursery that forked the process is there, and has not swept it.
    fn is_attended(&self) -> bool {
        let midwife = places::slot_word(self.heap, self.identity, places::MIDWIFE).load(Ordering::Acquire);
        let midwife = Identity::from_bits(midwife as u32);
        midwife.is_some_and(|midwife| midwife.is_current(self.heap)) && self.identity.is_current(self.heap)
    }

    /// Waits until the process has ended, or the deadline comes: `None` then. A process that could
    /// not be started has ended too.
    ///
    /// # Errors
    /// As [`Child::wait_started`]; `EMFILE` without descriptors.
    pub fn wait(&self, deadline: Deadline) -> Result<Option<Ending>, LaunchError> {
        self.wait_started(deadline)?;
        if !self.is_decided() {
            return Ok(None);
        }
        let pidfd = self.pidfd().map_err(|errno| LaunchError::Os { call: "pidfd_open", errno })?;
        if pidfd.is_some_and(|pidfd| !pidfd.wait_dead(deadline)) {
            return Ok(None);
        }
        let grace = Deadline::after(STATUS_GRACE);
        loop {
            let seen = self.record.changes();
            if let Some(status) = self.status(pidfd) {
                return Ok(Some(Ending::Known(status)));
            }
            if grace.expired() {
                participant::sweep_if_dead(self.heap, self.identity.slot() + 1);
                self.record.set_ending(Ending::Unknown);
                return Ok(self.record.ending());
            }
            self.record.wait(seen, grace.min(Deadline::after(Duration::from_millis(2))));
        }
    }

    /// How the process, which is dead, ended, from whoever knows.
    fn status(&self, pidfd: Option<&PidFd>) -> Option<ExitStatus> {
        if let Some(Ending::Known(status)) = self.record.ending() {
            return Some(status);
        }
        // What it said itself. The slot may go to the next process meanwhile, after the record was
        // completed: so look there again.
        let said = participant::roster(self.identity.slot(), self.heap).exit_status();
        if said.is_some() && self.identity.is_current(self.heap) {
            return said;
        }
        if let Some(Ending::Known(status)) = self.record.ending() {
            return Some(status);
        }
        let status = children::reap(self.heap, self.identity).or_else(|| pidfd.and_then(PidFd::exit_status));
        if let Some(status) = status {
            self.record.set_ending(Ending::Known(status));
        }
        status
    }

    /// What became of the process that has ended so.
    ///
    /// # Errors
    /// Anything but an exit with code 0.
    pub fn verdict(&self, ending: Ending) -> Result<(), ProcessError> {
        if ending == Ending::Known(ExitStatus::Exited(0)) {
            return Ok(());
        }
        let name = self.name.clone();
        let words = self.record.last_words().ok().flatten();
        match (words.as_deref().and_then(LastWords::decode), ending) {
            (Some(LastWords::Panicked(Panic { message, backtrace })), _) => {
                Err(ProcessError::Panicked { name, message, backtrace })
            }
            (Some(LastWords::Failed(message)), _) => Err(ProcessError::Failed { name, message }),
            (Some(LastWords::NotStarted(reason)), _) => Err(ProcessError::NotStarted { name, reason }),
            (None, Ending::Known(ExitStatus::Exited(code))) => Err(ProcessError::Exited { name, code }),
            (None, Ending::Known(ExitStatus::Signaled { signal, core })) => {
                Err(ProcessError::Signaled { name, signal, core })
            }
            (None, Ending::Unknown) => Err(ProcessError::Vanished { name }),
        }
    }

    /// Whether it has not ended. A process that is still being made counts as alive.
    pub fn is_alive(&self) -> bool {
        if self.record.ending().is_some() {
            return false;
        }
        if self.record.process().is_none() {
            return self.identity.is_current(self.heap);
        }
        match self.pidfd() {
            Ok(Some(fd)) => !fd.is_dead(),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Sends a signal; nothing happens to a process that has ended.
    ///
    /// # Errors
    /// As [`Child::wait_started`]; the system's.
    pub fn signal(&self, signal: i32) -> Result<(), LaunchError> {
        self.wait_started(Deadline::never())?;
        let pidfd = self.pidfd().map_err(|errno| LaunchError::Os { call: "pidfd_open", errno })?;
        match pidfd.map_or(Ok(()), |fd| fd.signal(signal)) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(LaunchError::Os { call: "pidfd_send_signal", errno }),
        }
    }

    /// A descriptor that is readable once the process has ended; `None` if it is gone already.
    ///
    /// # Errors
    /// As [`Child::wait_started`]; `EMFILE`.
    pub fn sentinel(&self) -> Result<Option<BorrowedFd<'_>>, LaunchError> {
        self.wait_started(Deadline::never())?;
        let pidfd = self.pidfd().map_err(|errno| LaunchError::Os { call: "pidfd_open", errno })?;
        Ok(pidfd.map(PidFd::as_fd))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        children::reap_all(self.heap);
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.name)
    }
}

/// The processes that this one has started and that have not ended.
///
/// # Errors
/// If this process has no slot and can get none.
pub fn active_children(heap: Heap) -> tenfold_shm::Result<Vec<Child>> {
    children::reap_all(heap);
    let me = participant::me(heap)?;
    let mut found = Vec::new();
    for slot in 0..tenfold_shm::heap::SLOTS {
        let entry = participant::roster(slot, heap);
        let Some(who) = entry.identity(slot) else { continue };
        if entry.parent() != Some(me) {
            continue;
        }
        // Helpers have no record; a process that ends just now may have lost it.
        found.extend(Child::of(heap, who).ok().filter(Child::is_alive));
    }
    Ok(found)
}

/// The pid of the process that made this one, also when that is not its parent for the system.
pub fn parent_pid() -> Pid {
    let made_by = || {
        let heap = Heap::existing()?;
        let me = participant::me(heap).ok()?;
        let pid = places::slot_word(heap, me, places::PARENT_PID).load(Ordering::Relaxed);
        Pid::try_from(pid).ok().filter(|&pid| pid != 0)
    };
    made_by().unwrap_or_else(tenfold_sys::process::parent_pid)
}

/// The process that made this one, if tenfold knows it and it has not been forgotten.
///
/// # Errors
/// If this process has no slot and can get none.
pub fn parent(heap: Heap) -> tenfold_shm::Result<Option<Child>> {
    let me = participant::me(heap)?;
    let parent = participant::roster(me.slot(), heap).parent();
    Ok(parent.filter(|parent| parent.is_current(heap)).and_then(|parent| Child::of(heap, parent).ok()))
}

/// This process's name, if tenfold started it.
pub fn own_name(heap: Heap) -> Option<String> {
    child::name_of(heap, participant::me(heap).ok()?)
}

/// Whether this process ends with the one that made it.
pub fn is_daemon(heap: Heap) -> bool {
    participant::me(heap).is_ok_and(|me| places::flags(heap, me).load(Ordering::Acquire) & flag::DAEMON != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_survive_the_journey() {
        let panic = Panic { message: "boom".into(), backtrace: "here\nthere".into() };
        for words in
            [LastWords::Panicked(panic), LastWords::Failed(String::new()), LastWords::NotStarted("no room".into())]
        {
            assert_eq!(LastWords::decode(&words.encode()), Some(words));
        }
    }

    #[test]
    fn a_number_that_is_another_process_by_now_is_not_touched() {
        let heap = Heap::get().unwrap();
        let claimed = participant::claim(heap, participant::me(heap).unwrap()).unwrap();
        let record = ProcessRecord::create(heap, claimed).unwrap();
        // Of this very process, but begun at another time.
        record.announce(std::process::id(), 1);
        let child = Child::new(heap, record, claimed, "reused");
        assert!(!child.is_alive());
        assert_eq!(child.signal(9), Ok(()));
        assert!(child.sentinel().unwrap().is_none());
        let ending = child.wait(Deadline::never()).unwrap().unwrap();
        assert_eq!(ending, Ending::Unknown);
        assert_eq!(child.verdict(ending), Err(ProcessError::Vanished { name: "reused".to_owned() }));
        participant::abandon(heap, claimed);
    }

    #[test]
    fn nonsense_is_no_last_words() {
        for bytes in [&b""[..], b"P", b"P\x01\0\0\0\0\0\0", b"F\x05\0\0\0\0\0\0\0abc", b"X\0\0\0\0\0\0\0\0"] {
            assert_eq!(LastWords::decode(bytes), None);
        }
    }
}
