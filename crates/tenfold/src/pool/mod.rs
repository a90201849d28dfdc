//! Pools of worker processes.

mod imap;
mod later;
mod submit;
mod task;
mod watcher;

use core::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tenfold_engine::Heap;
use tenfold_engine::pool::{Pool as Engine, PoolPlan};
use tenfold_engine::sys::clock::Deadline;

use self::later::All;
use self::submit::{Job, Options};
use self::watcher::{Watched, Watcher};
use crate::error::{Error, Result};
use crate::payload::{self, Message};

pub use imap::{Imap, ImapUnordered};
pub(crate) use later::slot;
pub use later::{AsyncResult, ResultFuture};
pub use task::{Task, TaskError};

/// What a pool and its results share.
pub(crate) struct Shared {
    engine: Arc<Engine>,
    workers: usize,
    watcher: Watcher,
}

impl Shared {
    fn watch(&self, watched: Watched) {
        self.watcher.watch(&self.engine, watched);
    }
}

/// A pool of worker processes that run functions of this program.
///
/// A worker that is killed or crashes takes down the one task that it was running: that task's
/// result is an error, everything else goes on, and a new worker takes its place.
///
/// Dropping the pool ends it at once, with whatever its workers are doing; [`Pool::close`] and
/// [`Pool::join`] let them finish.
///
/// ```
/// use tenfold::Pool;
///
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.map(square, [1, 2, 3])?, [1, 4, 9]);
/// # tenfold::Result::Ok(())
/// ```
pub struct Pool {
    shared: Arc<Shared>,
}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.shared.workers).finish_non_exhaustive()
    }
}

/// What a pool is to be like; see [`Pool::builder`].
#[derive(Debug, Default)]
pub struct PoolBuilder {
    plan: PoolPlan,
    error: Option<Error>,
}

impl PoolBuilder {
    /// Worker processes; without this, as many as there are processors for this process.
    pub fn workers(mut self, workers: usize) -> Self {
        match u32::try_from(workers) {
            Ok(count @ 1..=MAX_WORKERS) => self.plan.workers = count,
            _ => {
                let text = format!("a pool needs between 1 and {MAX_WORKERS} workers, not {workers}");
                self.error = Some(Error::InvalidArgument(text));
            }
        }
        self
    }

    /// Each worker calls `function(argument)` before its first task. If that panics or returns an
    /// error while no worker is ready, every call on the pool fails with it. As long as one is, the
    /// pool goes on with it, and the others are tried again now and then.
    pub fn initializer<F, A, R>(mut self, function: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Message,
        R: crate::function::Outcome + 'static,
    {
        let encoded = payload::encoded(&argument, |bytes, handles| (bytes.to_vec(), handles.to_vec()));
        match (encoded, crate::function::process_entry::<F, A, R>(function)) {
            (Ok((bytes, handles)), Ok(entry)) => {
                self.plan.initializer = entry;
                self.plan.argument = bytes;
                self.plan.handles = handles;
            }
            (Err(error), _) | (_, Err(error)) => self.error = Some(error),
        }
        self
    }

    /// A worker is replaced by a fresh one after this many tasks: against leaks.
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        if tasks == 0 {
            self.error = Some(Error::InvalidArgument("max_tasks_per_child needs at least 1 task".into()));
        }
        self.plan.max_tasks = tasks;
        self
    }

    /// Starts the pool.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a setting makes no sense; if no process can be started.
    pub fn build(mut self) -> Result<Pool> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.plan.workers == 0 {
            self.plan.workers = (tenfold_engine::sys::limits::cpus() as u32).clamp(1, MAX_WORKERS);
        }
        let engine = Arc::new(Engine::start(Heap::get()?, &self.plan)?);
        let workers = self.plan.workers as usize;
        Ok(Pool { shared: Arc::new(Shared { engine, workers, watcher: Watcher::default() }) })
    }
}

const MAX_WORKERS: u32 = tenfold_engine::pool::board::WORKERS as u32;

impl Pool {
    /// A pool of `workers` processes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `workers` is 0 or more than 512; if no process can be started.
    pub fn new(workers: usize) -> Result<Pool> {
        Pool::builder().workers(workers).build()
    }

    /// A pool with an initializer, or whose workers are replaced now and then.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// How many workers the pool has.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Pids of the workers that are ready now.
    pub fn worker_pids(&self) -> Vec<u32> {
        let Ok(heap) = Heap::get() else { return Vec::new() };
        let workers = self.shared.engine.board().workers().into_iter();
        let pids = workers.map(|w| tenfold_engine::shm::participant::roster(w.slot(), heap).pid());
        pids.filter(|pid| *pid != 0).collect()
    }

    /// The same pool with settings for the calls made through what this returns.
    pub fn options(&self) -> Calls<'_> {
        Calls { pool: self, options: Options::default() }
    }

    /// Calls `function` on every item, in the workers, and returns the results in the order of the
    /// items. Blocks until all are done. A function of several arguments takes a tuple.
    ///
    /// # Errors
    /// The error of the first failed item, after all others are done: a [`TaskError`] inside
    /// [`Error::Task`]. To have the other results as well, use [`Pool::imap`].
    pub fn map<F, A, R, I>(&self, function: F, items: I) -> Result<Vec<R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        self.options().map(function, items)
    }

    /// As [`Pool::map`], for a function of two arguments and items that are pairs.
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn starmap<F, A, B, R, I>(&self, function: F, items: I) -> Result<Vec<R>>
    where
        F: Fn(A, B) -> R + Copy + Send + Sync + 'static,
        (A, B): Message,
        R: Message,
        I: IntoIterator<Item = (A, B)>,
    {
        self.map(move |(a, b)| function(a, b), items)
    }

    /// As [`Pool::map`], without waiting.
    ///
    /// # Errors
    /// If an item cannot be sent, the pool has ended, or the heap has no room for the items.
    pub fn map_async<F, A, R, I>(&self, function: F, items: I) -> Result<AsyncResult<Vec<R>>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        self.options().map_async(function, items)
    }

    /// The results one by one, in the order of the items; the items are read as workers become free.
    ///
    /// # Errors
    /// If the pool has ended, or the first items cannot be sent.
    pub fn imap<F, A, R, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        self.options().imap(function, items)
    }

    /// The results one by one, as they come.
    ///
    /// # Errors
    /// As [`Pool::imap`].
    pub fn imap_unordered<F, A, R, I>(&self, function: F, items: I) -> Result<ImapUnordered<I::IntoIter, R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        self.options().imap_unordered(function, items)
    }

    /// Calls `function(argument)` in a worker and waits for the result.
    ///
    /// # Errors
    /// A [`TaskError`] inside [`Error::Task`]; [`Error::Pool`].
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> Result<R>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
    {
        self.options().apply(function, argument)
    }

    /// As [`Pool::apply`], without waiting.
    ///
    /// # Errors
    /// If the argument cannot be sent, or the pool has ended.
    pub fn apply_async<F, A, R>(&self, function: F, argument: A) -> Result<AsyncResult<R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
    {
        self.options().apply_async(function, argument)
    }

    /// Takes no further tasks. What was submitted is finished; then the workers end.
    pub fn close(&self) {
        self.shared.engine.close();
    }

    /// Ends the pool now: workers are killed, whoever waits for a result gets an error.
    pub fn terminate(&self) {
        self.shared.engine.terminate();
    }

    /// Waits until the workers of a closed or terminated pool are gone.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the pool is neither.
    pub fn join(&self) -> Result<()> {
        self.join_until(Deadline::never())
    }

    /// As [`Pool::join`], `timeout` at most.
    ///
    /// # Errors
    /// As [`Pool::join`]; [`tenfold_engine::pool::PoolError::TimedOut`] inside [`Error::Pool`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.join_until(Deadline::after(timeout))
    }

    fn join_until(&self, deadline: Deadline) -> Result<()> {
        use tenfold_engine::pool::board::BoardState;
        if self.shared.engine.board().state() == BoardState::Open {
            return Err(Error::InvalidArgument("close or terminate the pool before joining it".into()));
        }
        Ok(self.shared.engine.join(deadline)?)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.engine.terminate();
    }
}

/// A pool with settings for the next calls; see [`Pool::options`].
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    pool: &'a Pool,
    options: Options,
}

impl Calls<'_> {
    /// A task that runs longer is ended by killing its worker: [`TaskError::TimedOut`].
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.options.timeout = Some(limit);
        self
    }

    /// A task whose worker dies is tried again, this often at most (up to 255 times).
    pub fn retries(mut self, times: u8) -> Self {
        self.options.retries = times;
        self
    }

    /// How many items a worker takes at a time; without this, few, so that uneven tasks balance.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.options.chunk_size = Some(items.clamp(1, 1 << 20));
        self
    }

    /// How many items `imap` reads ahead at most.
    pub fn buffer(mut self, items: usize) -> Self {
        self.options.buffer = Some(items.max(1));
        self
    }

    /// See [`Pool::map`].
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn map<F, A, R, I>(&self, function: F, items: I) -> Result<Vec<R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        submit::map(&self.pool.shared, self.options, function, items)
    }

    /// See [`Pool::map_async`].
    ///
    /// # Errors
    /// As [`Pool::map_async`].
    pub fn map_async<F, A, R, I>(&self, function: F, items: I) -> Result<AsyncResult<Vec<R>>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        let mut job = Job::<A, R>::new(&self.pool.shared, self.options, function)?;
        let mut batches = Vec::new();
        for item in items {
            job.push(&item)?;
            if job.is_full() {
                batches.extend(job.submit()?);
            }
        }
        batches.extend(job.submit()?);
        Ok(AsyncResult::new(&self.pool.shared, batches, All(PhantomData)))
    }

    /// See [`Pool::imap`].
    ///
    /// # Errors
    /// As [`Pool::imap`].
    pub fn imap<F, A, R, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        let job = Job::<A, R>::new(&self.pool.shared, self.options, function)?;
        imap::stream(&self.pool.shared, job, items.into_iter(), self.options.buffer).begun()
    }

    /// See [`Pool::imap_unordered`].
    ///
    /// # Errors
    /// As [`Pool::imap`].
    pub fn imap_unordered<F, A, R, I>(&self, function: F, items: I) -> Result<ImapUnordered<I::IntoIter, R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
        I: IntoIterator<Item = A>,
    {
        self.imap(function, items).map(Imap::unordered)
    }

    /// See [`Pool::apply`].
    ///
    /// # Errors
    /// As [`Pool::apply`].
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> Result<R>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
    {
        self.apply_async(function, argument)?.get()
    }

    /// See [`Pool::apply_async`].
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn apply_async<F, A, R>(&self, function: F, argument: A) -> Result<AsyncResult<R>>
    where
        F: Task<A, R>,
        A: Message,
        R: Message,
    {
        let place = submit::call::<F, A, R>(&self.pool.shared, self.options, function, &argument)?;
        Ok(AsyncResult::single(&self.pool.shared, place))
    }
}
