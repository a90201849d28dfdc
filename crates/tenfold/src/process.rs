//! Processes: a function of this program, run in another process.
//!
//! ```
//! use tenfold::Process;
//!
//! fn hello(name: String) {
//!     println!("hello {name}: {} child of {}", tenfold::pid(), tenfold::parent_pid());
//! }
//!
//! let child = Process::spawn(hello, "bob".to_string())?;
//! child.join()?;
//! # Ok::<(), tenfold::Error>(())
//! ```

use core::time::Duration;
use std::os::fd::BorrowedFd;

use tenfold_engine::Heap;
use tenfold_engine::launch::{self, LaunchError, LaunchSpec, Method};
use tenfold_engine::process::{self as engine, Child};
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::shm::process_record::Ending;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::process::ExitStatus;

use crate::error::{Error, Result};
use crate::function::{Outcome, process_entry, short_name};
use crate::payload::{Message, encoded};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How processes come into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartMethod {
    /// Forked from a helper process that is started once and has one thread: fast, and nothing of
    /// the caller's state comes along. Working directory, environment and standard streams are those
    /// of the first process to start another, at that time. The default.
    #[default]
    Forkserver,
    /// The program's executable is started anew: slower, and nothing at all comes along.
    Spawn,
    /// Forked from the caller, with a copy of all its memory; refused while the caller has several
    /// threads.
    Fork,
}

impl StartMethod {
    fn engine(self) -> Method {
        match self {
            StartMethod::Forkserver => Method::Forkserver,
            StartMethod::Spawn => Method::Spawn,
            StartMethod::Fork => Method::Fork,
        }
    }
}

/// Chooses how processes are started from now on, in the whole family, where nothing else is said.
///
/// # Errors
/// If the shared heap cannot be made.
pub fn set_start_method(method: StartMethod) -> Result<()> {
    method.engine().choose_for_family(Heap::get()?);
    Ok(())
}

/// A process that this program has started. Dropping the handle leaves the process alone.
///
/// When the process that the user started, the *root*, ends, however it ends, everything that
/// tenfold started in it and its descendants is killed within a moment, but for processes with
/// [`ProcessBuilder::outlive`]. So `join` what is to be completed.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Runs `f(argument)` in a new process, and returns without waiting for it to begin.
    ///
    /// `f` is a plain function or a closure that captures nothing: nothing of it travels but where
    /// it is in the executable. The argument is any serde type, handles (queues, locks, dicts …)
    /// included; several are passed as a tuple.
    ///
    /// ```compile_fail
    /// let factor = 3;
    /// tenfold::Process::spawn(move |x: i64| println!("{}", factor * x), 5); // pass `factor` as an argument
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`] for the argument; [`Error::Launch`] and [`Error::Heap`] if no process can
    /// be made. What goes wrong later is told by [`Process::join`].
    pub fn spawn<F, A, R>(f: F, argument: A) -> Result<Process>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Outcome + 'static,
    {
        Process::builder().spawn(f, argument)
    }

    /// Forks this process: `f` runs in the child, sees all that this process has in memory, and may
    /// capture what it likes. What the child changes, this process does not see.
    ///
    /// # Errors
    /// [`LaunchError::ThreadsRunning`] while this process has other threads.
    pub fn fork<R: Outcome>(f: impl FnOnce() -> R) -> Result<Process> {
        Process::builder().fork(f)
    }

    /// To give the process a name, or to have it start or end in another way.
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::default()
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// [`Error::Process`] if it did not end well: a panic, an error that its function returned, an
    /// exit code, a signal.
    pub fn join(&self) -> Result<()> {
        self.wait(Deadline::never()).map(drop)
    }

    /// The same, for `timeout` at most.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; those of [`Process::join`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        if self.wait(Deadline::after(timeout))? {
            Ok(())
        } else {
            Err(Error::TimedOut { what: "Process::join_timeout" })
        }
    }

    /// Whether the process has ended, without waiting.
    ///
    /// # Errors
    /// Those of [`Process::join`], if it has and not well.
    pub fn try_join(&self) -> Result<bool> {
        self.wait(Deadline::after(Duration::ZERO))
    }

    fn wait(&self, deadline: Deadline) -> Result<bool> {
        match self.child.wait(deadline)? {
            Some(ending) => self.child.verdict(ending).map(|()| true).map_err(Error::from),
            None => Ok(false),
        }
    }

    /// The process's pid. Waits the moment until it has one.
    ///
    /// # Errors
    /// If it could not be started.
    pub fn pid(&self) -> Result<u32> {
        match self.child.pid(Deadline::never())? {
            Some(pid) => Ok(pid),
            None => {
                self.wait(Deadline::never())?;
                Err(Error::InvalidArgument(format!("process {} never had a pid", self.child.name())))
            }
        }
    }

    /// Its name: what it was given, or its function's.
    pub fn name(&self) -> &str {
        self.child.name()
    }

    fn status(&self) -> Option<ExitStatus> {
        match self.child.wait(Deadline::after(Duration::ZERO)) {
            Ok(Some(Ending::Known(status))) => Some(status),
            _ => None,
        }
    }

    /// The exit code: 0 if its function returned, 1 if that returned an error, 101 if it panicked;
    /// `None` while it runs, and if a signal ended it.
    pub fn exit_code(&self) -> Option<i32> {
        self.status().and_then(ExitStatus::code)
    }

    /// The signal that ended it; `None` while it runs, and if it exited.
    pub fn exit_signal(&self) -> Option<i32> {
        self.status().and_then(ExitStatus::signal)
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
    }

    /// Asks the process to end, with SIGTERM. Nothing happens if it has ended.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn terminate(&self) -> Result<()> {
        self.signal(SIGTERM)
    }

    /// Ends the process at once, with SIGKILL. Nothing happens if it has ended.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn kill(&self) -> Result<()> {
        self.signal(SIGKILL)
    }

    /// Sends a signal. Nothing happens if the process has ended.
    ///
    /// # Errors
    /// If there is no such signal, or the system does not allow it.
    pub fn signal(&self, signal: i32) -> Result<()> {
        Ok(self.child.signal(signal)?)
    }

    /// A descriptor that becomes readable when the process ends, for `poll`, `select` and their
    /// like; `None` if it has ended already.
    ///
    /// # Errors
    /// If this process has too many descriptors open.
    pub fn sentinel(&self) -> Result<Option<BorrowedFd<'_>>> {
        Ok(self.child.sentinel()?)
    }
}

/// How a process is to be started: see [`Process::builder`].
///
/// ```
/// use tenfold::Process;
///
/// fn work(n: u32) {
///     assert_eq!(n, 7);
///     assert_eq!(tenfold::current_process().name(), "worker-7");
/// }
///
/// let child = Process::builder().name("worker-7").daemon(true).spawn(work, 7)?;
/// assert_eq!(child.name(), "worker-7");
/// child.join()?;
/// # Ok::<(), tenfold::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ProcessBuilder {
    name: Option<String>,
    daemon: bool,
    outlive: bool,
    method: Option<StartMethod>,
}

impl ProcessBuilder {
    /// Gives it a name; the first 15 bytes show in `ps` and `top`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ProcessBuilder {
        self.name = Some(name.into());
        self
    }

    /// Whether it is killed when the process that starts it ends. Without this it is killed when
    /// the root ends.
    #[must_use]
    pub fn daemon(mut self, daemon: bool) -> ProcessBuilder {
        self.daemon = daemon;
        self
    }

    /// Whether it goes on when the root ends. It can start nothing then.
    #[must_use]
    pub fn outlive(mut self, outlive: bool) -> ProcessBuilder {
        self.outlive = outlive;
        self
    }

    /// How it is started; the default is [`set_start_method`]'s.
    #[must_use]
    pub fn start_method(mut self, method: StartMethod) -> ProcessBuilder {
        self.method = Some(method);
        self
    }

    /// As [`Process::spawn`].
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn<F, A, R>(self, f: F, argument: A) -> Result<Process>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: Outcome + 'static,
    {
        let heap = Heap::get()?;
        let entry = process_entry(f)?;
        let name = self.name.clone().unwrap_or_else(short_name::<F>);
        let child = encoded(&argument, |bytes, handles| {
            let args = Outgoing { parts: &[bytes], handles };
            launch::launch(heap, &self.spec(heap, &name, entry, args))
        })??;
        self.started(child)
    }

    /// As [`Process::fork`].
    ///
    /// # Errors
    /// As [`Process::fork`].
    pub fn fork<R: Outcome>(self, f: impl FnOnce() -> R) -> Result<Process> {
        let heap = Heap::get()?;
        let name = self.name.clone().unwrap_or_else(|| "fork".to_owned());
        let args = Outgoing { parts: &[], handles: &[] };
        let child = launch::fork(heap, &self.spec(heap, &name, 0, args), || f().outcome())?;
        self.started(child)
    }

    fn spec<'a>(&self, heap: Heap, name: &'a str, entry: u64, args: Outgoing<'a>) -> LaunchSpec<'a> {
        let method = self.method.map_or_else(|| Method::of_family(heap), StartMethod::engine);
        LaunchSpec { entry, args, name, daemon: self.daemon, outlive: self.outlive, method, parent: None, board: 0 }
    }

    /// What is to outlive this program must be there before the program may end.
    fn started(&self, child: Child) -> Result<Process> {
        if self.outlive {
            child.wait_started(Deadline::never())?;
        }
        Ok(Process { child })
    }
}

/// This process's pid.
pub fn pid() -> u32 {
    std::process::id()
}

/// The pid of the process that started this one: by [`Process`] or a pool, or in any other way.
pub fn parent_pid() -> u32 {
    engine::parent_pid()
}

/// What this process is to its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentProcess {
    name: String,
    daemon: bool,
}

impl CurrentProcess {
    /// Its name; `main` for a process that tenfold did not start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        pid()
    }

    /// Whether it ends with the process that started it.
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }
}

/// This process, as whoever started it described it.
pub fn current_process() -> CurrentProcess {
    let described = || {
        let heap = Heap::existing()?;
        Some(CurrentProcess { name: engine::own_name(heap)?, daemon: engine::is_daemon(heap) })
    };
    described().unwrap_or_else(|| CurrentProcess { name: "main".to_owned(), daemon: false })
}

/// The process that started this one; `None` if tenfold did not start it, or if that process is
/// gone.
///
/// # Errors
/// If the shared heap cannot be used.
pub fn parent_process() -> Result<Option<Process>> {
    match Heap::existing() {
        Some(heap) => Ok(engine::parent(heap)?.map(|child| Process { child })),
        None => Ok(None),
    }
}

/// The processes that this one has started and that have not ended. Reaps those that have.
///
/// # Errors
/// If the shared heap cannot be used.
pub fn active_children() -> Result<Vec<Process>> {
    match Heap::existing() {
        Some(heap) => Ok(engine::active_children(heap)?.into_iter().map(|child| Process { child }).collect()),
        None => Ok(Vec::new()),
    }
}

/// Lets a process that tenfold started become what it should be, and does not return in it; does
/// nothing in any other.
///
/// There is no need to call it: a hook before `main` does the same. It is for programs whose linker
/// drops the hook; put it first in `main` there.
pub fn init() {
    tenfold_engine::init();
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Error {
        match error {
            LaunchError::Heap(error) => Error::Heap(error),
            error => Error::Launch(error),
        }
    }
}
