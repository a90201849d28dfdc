//! Pools of worker processes: the native half of `tenfold.pool`.
//!
//! ```text
//!  caller                                 board (shared)                 worker process × n
//!  submit: pickle items ─ batch ─▶ announce ─▶ chain of batches ─ claim ─▶ worker: unpickle, call,
//!  result, stream: wait at a bell ◀────────── bells ◀───────────────────── pickle the result, commit
//!  supervisor (Python): starts workers, and one for each that dies; sweeps; runs callbacks
//! ```
//!
//! There is no thread between a caller and the workers: who wants a result looks into its batch, and sleeps at the
//! batch's bell. A task is bytes to the board; what they are is told in [`task`].
//!
//! *Killed here:* a worker takes down the one task that it was running; the sweep says so in the batch. A caller that
//! dies takes its pool along. All state of this process beside the heap is in Python objects; a child of fork has no part
//! in its parent's results.

mod board;
mod failure;
mod pending;
mod pieces;
mod result;
mod stream;
mod submit;
mod task;
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tenfold_engine::shm::board::{Board, BoardState};
use tenfold_engine::shm::participant::{self, Identity};
use tenfold_engine::sys::clock::Deadline;

use crate::{errors, family, waiting};

/// Locks what is never held while Python code runs, so a panic or a fork leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process, as a participant.
///
/// # Errors
/// If it has no slot and can get none.
fn me() -> PyResult<Identity> {
    participant::me(family::heap()?).map_err(errors::heap)
}

/// How a wait at a bell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// What was waited for is there.
    Ready,
    /// The deadline passed.
    TimedOut,
    /// The pool has ended, so nobody will ring any more.
    Ended,
}

/// Looks again this often before a waiter sleeps; each look is a pause.
const SPINS: u32 = 400;
/// A sleeping waiter looks this often whether a ring was lost with the one who was to ring it, and for signals that
/// another thread has taken, in milliseconds.
const SLICE: u64 = 500;

/// Waits at a bell until `ready`, without the GIL.
///
/// # Errors
/// What a signal handler has raised.
fn wait_at(
    py: Python<'_>,
    board: &Board,
    bell: usize,
    deadline: Deadline,
    mut ready: impl FnMut() -> bool + Send,
) -> PyResult<Waited> {
    let wait = || {
        for _ in 0..SPINS {
            if ready() {
                return Waited::Ready;
            }
            core::hint::spin_loop();
        }
        board.attend(bell, true);
        let waited = loop {
            let seen = board.rings(bell);
            if ready() {
                break Waited::Ready;
            }
            if has_ended(board) {
                // What was settled just before is there.
                break if ready() { Waited::Ready } else { Waited::Ended };
            }
            if deadline.expired() {
                break Waited::TimedOut;
            }
            let slice = Deadline::after(core::time::Duration::from_millis(SLICE));
            board.wait(bell, seen, slice.min(deadline));
            if slice.expired() {
                board.call_again();
            }
        };
        board.attend(bell, false);
        waited
    };
    waiting::blocking(py, wait, |_, _| ())
}

/// Whether what is not finished never will be.
fn has_ended(board: &Board) -> bool {
    matches!(board.state(), BoardState::Broken | BoardState::Terminated)
}

/// Puts the classes and functions into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<board::PoolBoard>()?;
    module.add_class::<result::PoolResult>()?;
    module.add_class::<stream::PoolStream>()
}
