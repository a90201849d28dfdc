//! Pools of worker processes: the caller's side.
//!
//! ```text
//!  caller                    board (shared)              worker × n            nursery
//!  plan ─ batch ─ submit ──▶ chain of batches ── claim ──▶ run, commit
//!  wait at a bell ◀───────── bells ◀─────────────────────── ring
//!                                                          killed ────────────▶ sweep: settle its
//!                            free chunks ◀───────────────────────────────────── tasks; fork another
//! ```
//!
//! There is no thread on the caller's side and nothing polls: the results lie in the batch, and who
//! wants them looks there, or sleeps at the bell.

mod calls;
mod failure;
pub(crate) mod tend;
mod worker;

use std::time::Duration;

use tenfold_shm::board::{Batch, BatchPlan, Board, BoardState, RawBatch};
use tenfold_shm::message::Outgoing;
use tenfold_shm::participant::{self, Identity};
use tenfold_shm::{Handle, Heap, HeapError};
use tenfold_sys::clock::Deadline;
use tenfold_sys::process::PidFd;

use crate::launch::LaunchError;
use crate::nursery::{self, StopWatch};

pub use calls::{Call, Place};
pub use failure::{Failure, FailureKind};
pub use tenfold_shm::board;
pub use worker::{TASK_FINGERPRINT, TaskEntry, TaskRun, TimeLimit};

/// Looks again this often before a waiter sleeps; each look is a pause.
const SPINS: u32 = 400;
/// A waiter makes sure this often that there is somebody to wait for.
const CHECK: Duration = Duration::from_millis(250);

/// Why a pool could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The shared heap.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// A worker could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The pool was closed or terminated.
    #[error("the pool is closed; make a new one for further tasks")]
    Closed,
    /// The workers cannot start: the initializer fails, or they die before it has run.
    #[error("the pool's workers cannot start: {0}")]
    Broken(String),
    /// The time limit of the wait passed; the task goes on.
    #[error("the task has no result yet; its time limit for waiting has passed")]
    TimedOut,
}

/// What a pool is made of.
#[derive(Debug, Clone, Default)]
pub struct PoolPlan {
    /// Worker processes.
    pub workers: u32,
    /// Tasks after which a worker is replaced; 0 for never.
    pub max_tasks: u64,
    /// The entry of the initializer ([`crate::function::Entry`]); 0 for none.
    pub initializer: u64,
    /// The initializer's argument.
    pub argument: Vec<u8>,
    /// The handles inside the argument.
    pub handles: Vec<Handle>,
}

/// A pool of worker processes, as the process that made it sees it.
#[derive(Debug)]
pub struct Pool {
    board: Board,
    heap: Heap,
    calls: calls::Calls,
}

impl Pool {
    /// Starts the workers.
    ///
    /// # Errors
    /// If the heap has no room or no process can be started.
    pub fn start(heap: Heap, plan: &PoolPlan) -> Result<Pool, PoolError> {
        let board = Board::create(heap, plan.workers)?;
        board.set_recipe(&tend::recipe(plan), &plan.handles)?;
        let pool = Pool { board, heap, calls: calls::Calls::default() };
        pool.start_workers()?;
        Ok(pool)
    }

    /// The board.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Has the first worker started; the nursery starts the others, and all replacements.
    fn start_workers(&self) -> Result<(), PoolError> {
        tend::launch_worker(self.heap, &self.board)?;
        Ok(())
    }

    /// Hands a batch to the workers.
    ///
    /// # Errors
    /// If the pool has ended, or the heap has no room.
    pub fn submit(&self, plan: &BatchPlan) -> Result<Batch, PoolError> {
        self.check_open()?;
        let batch = Batch::create(self.heap, self.board.handle(), plan)?;
        self.board.submit(&batch)?;
        Ok(batch)
    }

    /// Begins a batch of up to `room` numbers, to be handed over by [`Pool::submit_raw`].
    ///
    /// # Errors
    /// As [`Pool::submit`].
    pub fn begin_raw(&self, plan: &BatchPlan, room: usize) -> Result<RawBatch, PoolError> {
        self.check_open()?;
        Ok(RawBatch::create(self.heap, self.board.handle(), plan, room)?)
    }

    /// Hands a batch of numbers to the workers; `None` if there are none in it. The plan is the one that it was
    /// begun with.
    ///
    /// # Errors
    /// As [`Pool::submit`].
    pub fn submit_raw(&self, plan: &BatchPlan, raw: RawBatch) -> Result<Option<Batch>, PoolError> {
        let Some(batch) = raw.finish(plan)? else { return Ok(None) };
        self.board.submit(&batch)?;
        Ok(Some(batch))
    }

    /// Hands a single call to the workers.
    ///
    /// # Errors
    /// As [`Pool::submit`].
    pub fn call(&self, call: Call, input: Outgoing<'_>) -> Result<Place, PoolError> {
        self.check_open()?;
        Ok(self.calls.submit(self.heap, &self.board, call, input)?)
    }

    fn check_open(&self) -> Result<(), PoolError> {
        match self.board.state() {
            BoardState::Open => Ok(()),
            BoardState::Broken => Err(self.broken()),
            BoardState::Closed | BoardState::Terminated => Err(PoolError::Closed),
        }
    }

    fn broken(&self) -> PoolError {
        let reason = self.board.reason().ok().flatten().unwrap_or_default();
        PoolError::Broken(Failure::from_bytes(&reason).text)
    }

    /// Waits until `ready`, which is asked again whenever the bell rings. Blocks until then, the
    /// deadline, or the pool's end.
    ///
    /// # Errors
    /// [`PoolError::TimedOut`]; [`PoolError::Broken`] or [`PoolError::Closed`] if nobody will ring
    /// any more.
    pub fn wait(&self, bell: usize, deadline: Deadline, mut ready: impl FnMut() -> bool) -> Result<(), PoolError> {
        for _ in 0..SPINS {
            if ready() {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        self.board.attend(bell, true);
        let mut stops = StopWatch::default();
        let result = loop {
            let seen = self.board.rings(bell);
            if ready() {
                break Ok(());
            }
            match self.board.state() {
                BoardState::Broken => break Err(self.broken()),
                BoardState::Terminated => break Err(PoolError::Closed),
                BoardState::Open | BoardState::Closed => {}
            }
            if deadline.expired() {
                break Err(PoolError::TimedOut);
            }
            let slice = Deadline::after(CHECK);
            self.board.wait(bell, seen, slice.min(deadline));
            if slice.expired()
                && let Err(error) = self.check_workers().and_then(|()| self.check_nursery(&mut stops))
            {
                break Err(error);
            }
        };
        self.board.attend(bell, false);
        result
    }

    /// If all workers are gone and nobody starts new ones (the nursery was killed), does so. If there is work,
    /// those who sleep look at it.
    ///
    /// # Errors
    /// If no process can be started.
    pub fn check_workers(&self) -> Result<(), PoolError> {
        let workers = tend::workers(self.heap, self.board.handle().id());
        for worker in &workers {
            participant::sweep_if_dead(self.heap, worker.slot() + 1);
        }
        if self.board.state() == BoardState::Open && workers.is_empty() {
            self.start_workers()?;
        }
        self.board.call_again();
        Ok(())
    }

    /// A slice of a wait has passed: if all workers are still to be started, is there somebody who does so?
    fn check_nursery(&self, stops: &mut StopWatch) -> Result<(), PoolError> {
        let workers = tend::workers(self.heap, self.board.handle().id());
        if workers.iter().all(|worker| participant::roster(worker.slot(), self.heap).is_birth()) {
            workers.iter().try_for_each(|worker| nursery::remind(self.heap, *worker))?;
            stops.after(CHECK, self.heap)?;
        }
        Ok(())
    }

    /// Kills a worker that runs a cancelled task.
    pub fn kill(&self, worker: Identity) {
        kill(self.heap, worker);
    }

    /// Takes no further tasks; those submitted are finished.
    pub fn close(&self) {
        self.board.close();
        self.calls.end();
    }

    /// Ends the pool at once: running tasks are killed, waiting ones never run.
    pub fn terminate(&self) {
        self.board.terminate();
        self.calls.end();
        for worker in tend::workers(self.heap, self.board.handle().id()) {
            kill(self.heap, worker);
        }
    }

    /// Waits until all workers of a closed or terminated pool are gone.
    ///
    /// # Errors
    /// [`PoolError::TimedOut`] at the deadline.
    pub fn join(&self, deadline: Deadline) -> Result<(), PoolError> {
        let mut pause = Duration::from_micros(50);
        loop {
            let workers = tend::workers(self.heap, self.board.handle().id());
            let Some(worker) = workers.first() else {
                // A closed pool whose last worker was killed has work and nobody to do it.
                if self.board.state() != BoardState::Closed || !self.board.has_work() {
                    return Ok(());
                }
                self.start_workers()?;
                continue;
            };
            let slice = Deadline::after(CHECK).min(deadline);
            let entry = participant::roster(worker.slot(), self.heap);
            match PidFd::open(entry.pid()) {
                Ok(fd) if worker.is_current(self.heap) && entry.pid() != 0 => {
                    fd.wait_dead(slice);
                }
                _ => std::thread::sleep(pause),
            }
            // Dead, but its slot is still being swept.
            pause = (pause * 2).min(Duration::from_millis(10));
            if deadline.expired() {
                return Err(PoolError::TimedOut);
            }
            participant::sweep_if_dead(self.heap, worker.slot() + 1);
        }
    }
}

/// Kills a worker: of a pool that ends, or one that runs a cancelled task.
pub fn kill(heap: Heap, worker: Identity) {
    let entry = participant::roster(worker.slot(), heap);
    // The pidfd pins the process; the identity, checked after, says that it is the one meant.
    if let Ok(fd) = PidFd::open(entry.pid())
        && worker.is_current(heap)
        && entry.pid() != 0
    {
        // It may be dead already.
        let _ = fd.signal(SIGKILL);
    }
}

const SIGKILL: i32 = 9;
