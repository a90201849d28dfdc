//! How a process is made: by the nursery, by exec, or by a fork of the caller.
//!
//! ```text
//!  claim a slot ─▶ fill it: record, function, argument, name, flags ─▶ ask for the process
//!                                                                      │
//!      forkserver: flag "wanted", doorbell of the nursery ◀────────────┤
//!      spawn: posix_spawn of this executable ◀─────────────────────────┤
//!      fork: fork ◀────────────────────────────────────────────────────┘
//! ```
//!
//! *Killed here:* a slot that was claimed belongs to its claimer until the process is there; when
//! the claimer dies, it is swept, and what was put into it is freed.

use core::sync::atomic::Ordering;

use tenfold_shm::kill_point::{KillPoint, reach};
use tenfold_shm::message::{self, Outgoing};
use tenfold_shm::participant::{self, Forked, Identity};
use tenfold_shm::process_record::ProcessRecord;
use tenfold_shm::{Heap, HeapError};
use tenfold_sys::{Errno, process};

use crate::places::{self, flag};
use crate::process::Child;
use crate::start_hook::{self, ExecError, Role, SingleThreaded};
use crate::{child, children, nursery, warden};

/// How a process comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Forked from the nursery: fast, and nothing of the caller's state comes along.
    #[default]
    Forkserver,
    /// The executable is started anew: slower, and nothing at all comes along.
    Spawn,
    /// Forked from the caller, with a copy of all its state; only while it has one thread.
    Fork,
}

impl Method {
    /// The family's default: [`Method::Forkserver`] unless somebody chose another.
    pub fn of_family(heap: Heap) -> Method {
        match places::Service::Method.word(heap).load(Ordering::Acquire) {
            1 => Method::Spawn,
            2 => Method::Fork,
            _ => Method::Forkserver,
        }
    }

    /// Makes it the default of the whole family.
    pub fn choose_for_family(self, heap: Heap) {
        let number = match self {
            Method::Forkserver => 0,
            Method::Spawn => 1,
            Method::Fork => 2,
        };
        places::Service::Method.word(heap).store(number, Ordering::Release);
    }
}

/// What is to be started, and how.
#[derive(Debug, Clone, Copy)]
pub struct LaunchSpec<'a> {
    /// The offset of the function's [`crate::function::Entry`] in the executable.
    pub entry: u64,
    /// The argument.
    pub args: Outgoing<'a>,
    /// The process's name.
    pub name: &'a str,
    /// Whether it is killed when the process that made it ends.
    pub daemon: bool,
    /// Whether it goes on when the root ends.
    pub outlive: bool,
    /// How to start it.
    pub method: Method,
    /// On whose behalf it is started; `None` is the caller's.
    pub parent: Option<Identity>,
    /// The id of the board whose worker it is; 0 for none.
    pub board: u64,
}

/// Why a process cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The shared heap said no.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// The system said no.
    #[error("cannot start a process: {call} failed: {errno}")]
    Os {
        /// The call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The function is not part of the main executable.
    #[error(
        "the function is not in the main executable (it comes from a shared library?), so that \
         another process cannot find it; use Process::fork, or link the library statically"
    )]
    NotExported,
    /// A fork with other threads about.
    #[error(
        "Process::fork copies only the calling thread, and this process has {threads} threads: the \
         others' locks would stay locked for ever in the child; fork before starting threads, or use \
         Process::spawn"
    )]
    ThreadsRunning {
        /// How many.
        threads: usize,
    },
    /// This very process should have become something else before `main`.
    #[error(
        "this process was started by tenfold, but the hook that runs before main is missing from the \
         executable: call tenfold::init() first in main"
    )]
    HookMissing,
    /// The executable of this process is not the one of its family.
    #[error(
        "this process runs another executable than the rest of its program, so functions cannot be \
         handed over; start the program anew"
    )]
    OtherExecutable,
    /// The helper process that forks the others dies before it is ready.
    #[error(
        "the nursery, the helper process that starts all others, died {attempts} times before it was \
         ready ({how}); its messages are on standard error"
    )]
    NurseryDies {
        /// How often it was tried.
        attempts: u64,
        /// How it ended the last time.
        how: String,
    },
    /// The nursery is stopped (SIGSTOP, or a debugger let it be), and starts nothing until it goes on. What was asked for
    /// is started then.
    #[error(
        "the nursery, the helper process that starts all others (process {pid}), is stopped; let it go on by SIGCONT"
    )]
    NurseryStopped {
        /// The nursery's process id.
        pid: process::Pid,
    },
}

impl From<ExecError> for LaunchError {
    fn from(error: ExecError) -> LaunchError {
        match error {
            ExecError::HookMissing => LaunchError::HookMissing,
            ExecError::OtherExecutable => LaunchError::OtherExecutable,
            ExecError::Os(errno) => LaunchError::Os { call: "posix_spawn", errno },
        }
    }
}

/// Starts a process that calls a function, and returns without waiting for it to be there; see
/// [`Child::wait_started`].
///
/// # Errors
/// [`LaunchError`]; nothing was started then.
pub fn launch(heap: Heap, spec: &LaunchSpec<'_>) -> Result<Child, LaunchError> {
    children::reap_all(heap);
    go_on_record(heap)?;
    match spec.method {
        Method::Forkserver => {
            let (claimed, record) = prepare(heap, spec, flag::NURSED)?;
            if let Err(error) = nursery::ask_for(heap, claimed) {
                participant::abandon(heap, claimed);
                return Err(error);
            }
            Ok(Child::new(heap, record, claimed, spec.name))
        }
        Method::Fork => match split(heap, spec)? {
            Side::Parent(child) => Ok(child),
            Side::Child(claimed) => child::run(heap, claimed),
        },
        Method::Spawn => {
            // For the warden's sake.
            nursery::ensure(heap)?;
            let (claimed, record) = prepare(heap, spec, 0)?;
            match start_hook::exec(heap, Role::Child, claimed) {
                Ok(pid) => {
                    let child = Child::new(heap, record, claimed, spec.name);
                    adopt_child(heap, &child, pid);
                    Ok(child)
                }
                Err(error) => {
                    participant::abandon(heap, claimed);
                    Err(error.into())
                }
            }
        }
    }
}

/// Forks this process; the child calls `f`, which may use whatever it captured, and exits. Entry and
/// argument of `spec` are not used.
///
/// # Errors
/// [`LaunchError::ThreadsRunning`] while this process has other threads; the others.
pub fn fork(heap: Heap, spec: &LaunchSpec<'_>, f: impl FnOnce() -> Result<(), String>) -> Result<Child, LaunchError> {
    match split(heap, spec)? {
        Side::Parent(child) => Ok(child),
        Side::Child(claimed) => child::run_closure(heap, claimed, f),
    }
}

enum Side {
    Parent(Child),
    Child(Identity),
}

/// Forks this process; returns in both.
fn split(heap: Heap, spec: &LaunchSpec<'_>) -> Result<Side, LaunchError> {
    let single = SingleThreaded::check().map_err(|threads| LaunchError::ThreadsRunning { threads })?;
    children::reap_all(heap);
    nursery::ensure(heap)?;
    go_on_record(heap)?;
    let (claimed, record) = prepare(heap, spec, 0)?;
    // What is in the buffers would be written twice.
    child::flush();
    match single.fork(heap, claimed, true) {
        Ok(Forked::Child) => {
            children::forget_all();
            Ok(Side::Child(claimed))
        }
        Ok(Forked::Parent(pid)) => {
            let child = Child::new(heap, record, claimed, spec.name);
            adopt_child(heap, &child, pid);
            participant::tell_start_time(heap, claimed, pid);
            Ok(Side::Parent(child))
        }
        Err(errno) => {
            participant::abandon(heap, claimed);
            Err(LaunchError::Os { call: "fork", errno })
        }
    }
}

/// A process that starts others gets a record too, so that they can ask for their parent.
fn go_on_record(heap: Heap) -> tenfold_shm::Result<()> {
    let me = participant::me(heap)?;
    let word = places::slot_word(heap, me, places::ON_RECORD);
    let on_record = places::cell(heap, me, tenfold_shm::process_record::RECORD_CELL).load(Ordering::Acquire) != 0;
    if !on_record && word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        let entry = participant::roster(me.slot(), heap);
        ProcessRecord::create(heap, me)?.announce(entry.pid(), entry.start_time());
    }
    Ok(())
}

/// A child of the caller's own is there: the caller reaps it, the warden watches it.
fn adopt_child(heap: Heap, child: &Child, pid: process::Pid) {
    participant::announce_pid(heap, child.identity(), pid);
    child.pin(pid);
    if places::flags(heap, child.identity()).load(Ordering::Acquire) & flag::OUTLIVE == 0 {
        child.record().announce(pid, 0);
    }
    children::remember(child.identity(), pid, Some(child.record().handle().id()));
    warden::notify(heap);
}

/// Claims a slot and fills in all that the new process will need.
pub(crate) fn prepare(heap: Heap, spec: &LaunchSpec<'_>, flags: u32) -> Result<(Identity, ProcessRecord), LaunchError> {
    let seat = participant::seat(heap)?;
    let parent = spec.parent.unwrap_or(seat.identity());
    let claimed = participant::claim(heap, parent)?;
    let fill = || {
        let record = ProcessRecord::create(heap, claimed)?;
        message::write(heap, seat, spec.args, places::cell(heap, claimed, places::LAUNCH_CELL))?;
        let name = Outgoing { parts: &[spec.name.as_bytes()], handles: &[] };
        message::write(heap, seat, name, places::cell(heap, claimed, places::NAME_CELL))?;
        Ok(record)
    };
    let record = match fill() {
        Ok(record) => record,
        Err(error) => {
            participant::abandon(heap, claimed);
            return Err(LaunchError::Heap(error));
        }
    };
    let parent_pid = participant::roster(parent.slot(), heap).pid();
    places::slot_word(heap, claimed, places::PARENT_PID).store(u64::from(parent_pid), Ordering::Relaxed);
    places::slot_word(heap, claimed, places::ENTRY).store(spec.entry, Ordering::Relaxed);
    if spec.board != 0 {
        places::slot_word(heap, claimed, tenfold_shm::board::BOARD_WORD).store(spec.board, Ordering::Release);
        places::Service::Pools.word(heap).fetch_add(1, Ordering::AcqRel);
    }
    let chosen = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flags | flag::STARTED | chosen(spec.daemon, flag::DAEMON) | chosen(spec.outlive, flag::OUTLIVE);
    places::flags(heap, claimed).store(flags, Ordering::Release);
    reach(KillPoint::LaunchPrepared);
    Ok((claimed, record))
}
