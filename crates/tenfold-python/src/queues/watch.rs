//! A descriptor to poll for a queue that can have no doorbell: there are too many already, or there is no `/proc`.
//!
//! ```text
//!  thread ── waits for a message ──▶ rings ──▶ pipe ◀── poll
//!         ◀─ silenced ──────────────────────── rearm
//! ```
//!
//! The thread ends when the watch does. A child of fork, which does not have the thread, makes its own watch.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenfold_engine::HeapError;
use tenfold_engine::shm::queue::{Queue, QueueError};
use tenfold_engine::sys::bell::Bell;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::{Errno, process, signals};

/// How long the thread may outlive the watch.
const LINGER: Duration = Duration::from_secs(1);

/// A thread that waits for messages, and the pipe to which it says so.
#[derive(Debug)]
pub(super) struct Watch {
    watched: Arc<Watched>,
    /// The process that has the thread.
    pid: u32,
}

#[derive(Debug)]
struct Watched {
    queue: Queue,
    bell: Bell,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Silent,
    Rung,
    Over,
}

impl Watch {
    /// Starts to watch the queue.
    ///
    /// # Errors
    /// If this process has no descriptors left or may have no more threads.
    pub(super) fn new(queue: &Queue) -> Result<Watch, HeapError> {
        let bell = Bell::new().map_err(HeapError::os("pipe2"))?;
        let (state, changed) = (Mutex::new(State::Silent), Condvar::new());
        let watched = Arc::new(Watched { queue: queue.clone(), bell, state, changed });
        let theirs = Arc::clone(&watched);
        // Signals are for the threads that Python knows.
        let _mask = signals::block_all();
        std::thread::Builder::new().name("tenfold-watch".into()).spawn(move || theirs.watch()).map_err(|error| {
            HeapError::Os { call: "clone", errno: Errno::from_io_error(&error).unwrap_or(Errno::AGAIN) }
        })?;
        Ok(Watch { watched, pid: process::pid() })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.watched.bell.read_fd().as_raw_fd()
    }

    pub(super) fn is_ours(&self) -> bool {
        self.pid == process::pid()
    }

    /// Silences the descriptor until the next message, or makes sure that it is readable if there is one.
    ///
    /// # Errors
    /// If the pipe cannot be written to.
    pub(super) fn rearm(&self) -> Result<(), HeapError> {
        self.watched.look(&mut self.watched.state())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // In a child of fork the thread may have left the state locked, and is not there to be told.
        if self.is_ours() {
            *self.watched.state() = State::Over;
            self.watched.changed.notify_all();
        }
    }
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the pipe to what the queue is.
    fn look(&self, state: &mut State) -> Result<(), HeapError> {
        let ready = !self.queue.is_empty() || self.queue.is_closed();
        match (ready, *state) {
            (true, State::Silent) => {
                self.bell.ring_local().map_err(HeapError::os("write"))?;
                *state = State::Rung;
            }
            (false, State::Rung) => {
                self.bell.drain();
                *state = State::Silent;
                self.changed.notify_all();
            }
            _ => {}
        }
        Ok(())
    }

    fn watch(&self) {
        loop {
            if let Err(QueueError::Heap(_)) = self.queue.wait_message(Deadline::after(LINGER)) {
                // The family has ended, and this process is about to.
                return;
            }
            let mut state = self.state();
            let _ = self.look(&mut state);
            while *state == State::Rung {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if *state == State::Over {
                return;
            }
        }
    }
}
