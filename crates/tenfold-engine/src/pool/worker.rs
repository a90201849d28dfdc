//! What a worker does: take a chunk, run its tasks one by one, commit each result, and so on.
//!
//! ```text
//!  claim chunk ─▶ begin item ─▶ function ─▶ write result ─▶ commit ─▶ begin item … ─▶ chunk done
//!      ▲              │ killed here: this item died, the rest of the chunk goes back        │
//!      └──────────────┴──────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::time::Duration;

use tenfold_shm::board::{Board, BoardState, Chunk, RawInputs, TaskInput};
use tenfold_shm::message::Outgoing;
use tenfold_shm::{Handle, HeapError};
use tenfold_sys::clock;
use tenfold_sys::executable::{Entry, Exported};
use tenfold_sys::timer::KillTimer;

use super::failure::{Failure, FailureKind};
use crate::function::{self, Outcome};

/// The entry of a function that a pool runs.
pub type TaskEntry = Entry<TaskRun, Result<(), HeapError>>;
/// What the entries of tasks are marked with in the executable.
pub const TASK_FINGERPRINT: u64 = u64::from_le_bytes(*b"pooltask");

/// A chunk in the hands of a face's trampoline, which goes through its items.
#[derive(Debug)]
pub struct TaskRun {
    chunk: Chunk,
    limit: TimeLimit,
    /// Items that this worker may still begin.
    left: u64,
}

impl TaskRun {
    /// All of the chunk at once, if its inputs are plain numbers and nothing is asked for that must
    /// be looked at item by item.
    ///
    /// # Errors
    /// If the heap is corrupt.
    #[inline]
    pub fn raw(&self) -> Result<Option<RawInputs>, HeapError> {
        if self.left < u64::MAX / 2 { Ok(None) } else { self.chunk.raw() }
    }

    /// Begins the next item; `None` when the chunk, or what this worker may do, is over.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn begin(&mut self) -> Result<Option<TaskInput>, HeapError> {
        if self.left == 0 {
            return Ok(None);
        }
        let input = self.chunk.begin()?;
        if input.is_some() {
            self.left -= 1;
            self.limit.begin(&self.chunk)?;
        }
        Ok(input)
    }

    /// Commits the running item's result. A result that does not fit into the heap becomes the
    /// item's failure.
    ///
    /// # Errors
    /// If not even the failure can be told.
    pub fn commit(&mut self, bytes: &[u8], handles: &[Handle]) -> Result<(), HeapError> {
        self.limit.end(&self.chunk)?;
        match self.chunk.commit(Outgoing { parts: &[bytes], handles }) {
            Ok(()) => Ok(()),
            Err(error) => self.report(&Failure::new(FailureKind::Result, error.to_string())),
        }
    }

    /// Commits that the running item failed.
    ///
    /// # Errors
    /// If the heap has no room for the report.
    pub fn fail(&mut self, failure: &Failure) -> Result<(), HeapError> {
        self.limit.end(&self.chunk)?;
        self.report(failure)
    }

    fn report(&mut self, failure: &Failure) -> Result<(), HeapError> {
        self.chunk.commit_failure(Outgoing { parts: &[&failure.to_bytes()], handles: &[] })
    }
}

/// The time that the running item may take. When it is over, the process is killed.
#[derive(Debug, Default)]
pub struct TimeLimit {
    timer: Option<KillTimer>,
    running: bool,
}

impl TimeLimit {
    /// An item of the chunk begins; the time runs, if the chunk's items have a limit.
    ///
    /// # Errors
    /// If the system gives no timer.
    #[inline]
    pub fn begin(&mut self, chunk: &Chunk) -> Result<(), HeapError> {
        match chunk.timeout() {
            0 => Ok(()),
            limit => self.arm(chunk, limit),
        }
    }

    fn arm(&mut self, chunk: &Chunk, limit: u64) -> Result<(), HeapError> {
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => KillTimer::new().map_err(HeapError::os("timer_create"))?,
        };
        chunk.note_deadline(clock::now().saturating_add(limit));
        timer.arm(Duration::from_nanos(limit)).map_err(HeapError::os("timer_settime"))?;
        self.timer = Some(timer);
        self.running = true;
        Ok(())
    }

    /// The item has ended in time.
    ///
    /// # Errors
    /// If the timer cannot be stopped.
    #[inline]
    pub fn end(&mut self, chunk: &Chunk) -> Result<(), HeapError> {
        if let (Some(timer), true) = (&self.timer, self.running) {
            timer.disarm().map_err(HeapError::os("timer_settime"))?;
            chunk.note_deadline(0);
            self.running = false;
        }
        Ok(())
    }
}

/// Works until the pool ends or `max_tasks` items (0: any number) are done.
///
/// # Errors
/// If the heap is corrupt or has no room.
pub(super) fn work(board: &Board, max_tasks: u64) -> Result<(), HeapError> {
    board.join_as_worker()?;
    let mut entries: HashMap<u64, Option<TaskEntry>> = HashMap::new();
    let mut left = if max_tasks == 0 { u64::MAX } else { max_tasks };
    let mut limit = TimeLimit::default();
    while left > 0 {
        let Some(chunk) = board.claim()? else {
            if board.state() != BoardState::Open {
                break;
            }
            board.wait_for_work()?;
            continue;
        };
        let function = chunk.function();
        let entry = *entries
            .entry(function)
            .or_insert_with(|| Exported::<TaskEntry>::at(function, TASK_FINGERPRINT).map(Exported::value));
        let mut run = TaskRun { chunk, limit, left };
        match entry {
            Some(entry) => run_chunk(entry, &mut run)?,
            None => refuse_chunk(&mut run)?,
        }
        left = run.left;
        limit = run.limit;
        if run.chunk.is_over() {
            board.tell(&run.chunk);
        } else {
            run.chunk.give_back();
        }
    }
    board.leave()
}

/// Runs the chunk's items; one that panics fails, the next one goes on.
fn run_chunk(entry: TaskEntry, run: &mut TaskRun) -> Result<(), HeapError> {
    loop {
        let mut result = Ok(());
        let outcome = function::catch(|| {
            result = entry.call(run);
            Ok(())
        });
        match outcome {
            Outcome::Returned | Outcome::Failed(_) => return result,
            Outcome::Panicked(panic) => {
                let failure = Failure { kind: FailureKind::Panicked, text: panic.message, backtrace: panic.backtrace };
                run.fail(&failure)?;
            }
        }
    }
}

fn refuse_chunk(run: &mut TaskRun) -> Result<(), HeapError> {
    while run.begin()?.is_some() {
        let text = "the worker runs another executable than the caller, or the function lies in a shared library; \
                    pools can only run functions of the program itself";
        run.fail(&Failure::new(FailureKind::UnknownFunction, text))?;
    }
    Ok(())
}
