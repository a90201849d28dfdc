//! The pool's interface on threads of this process.
//!
//! Threads share memory: functions may capture, nothing is encoded or copied. They also share their
//! fate: a crash or a runaway task is everybody's, so there are no time limits, retries or memory
//! limits here, and a task that runs cannot be cancelled.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::pool::{AsyncResult, TaskError, slot};

type Work = Box<dyn FnOnce() + Send>;

/// What the threads share.
#[derive(Default)]
struct Board {
    work: Mutex<Pending>,
    more: Condvar,
}

#[derive(Default)]
struct Pending {
    queue: VecDeque<Work>,
    closed: bool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, work: Work) -> Result<()> {
        let mut pending = self.lock();
        if pending.closed {
            return Err(tenfold_engine::pool::PoolError::Closed.into());
        }
        pending.queue.push_back(work);
        drop(pending);
        self.more.notify_one();
        Ok(())
    }

    fn run(&self) {
        let mut pending = self.lock();
        loop {
            if let Some(work) = pending.queue.pop_front() {
                drop(pending);
                work();
                pending = self.lock();
            } else if pending.closed {
                return;
            } else {
                pending = self.more.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// A pool of threads with the methods of [`crate::Pool`].
///
/// Dropping it discards what has not begun and waits for what runs.
///
/// ```
/// use tenfold::ThreadPool;
///
/// let offset = 10;
/// let pool = ThreadPool::new(2)?;
/// assert_eq!(pool.map(move |x| x + offset, [1, 2, 3])?, [11, 12, 13]);
/// # tenfold::Result::Ok(())
/// ```
pub struct ThreadPool {
    board: Arc<Board>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    size: usize,
}

impl core::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.size).finish_non_exhaustive()
    }
}

fn attempt<R>(index: u64, f: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|thrown| {
        let text = thrown.downcast_ref::<&'static str>().copied();
        let text = text.or_else(|| thrown.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("a panic whose payload is not a text").to_owned();
        TaskError::Panicked { index, message, backtrace: String::new() }.into()
    })
}

impl ThreadPool {
    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `threads` is 0 or the system has no room for them.
    pub fn new(threads: usize) -> Result<ThreadPool> {
        ThreadPool::with_initializer(threads, || ())
    }

    /// A pool whose threads each call `initializer` first. If that panics, so does the thread, and
    /// the others do its work.
    ///
    /// # Errors
    /// As [`ThreadPool::new`].
    pub fn with_initializer(threads: usize, initializer: impl Fn() + Clone + Send + 'static) -> Result<ThreadPool> {
        if threads == 0 {
            return Err(Error::InvalidArgument("a pool needs at least 1 thread, not 0".into()));
        }
        let pool = ThreadPool { board: Arc::default(), threads: Mutex::default(), size: threads };
        for number in 0..threads {
            let (board, initializer) = (Arc::clone(&pool.board), initializer.clone());
            let thread = std::thread::Builder::new().name(format!("tenfold-thread-{number}"));
            let thread = thread.spawn(move || {
                initializer();
                board.run();
            });
            let thread = thread.map_err(|e| Error::InvalidArgument(format!("cannot start thread {number}: {e}")))?;
            pool.threads().push(thread);
        }
        Ok(pool)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads the pool has.
    pub fn workers(&self) -> usize {
        self.size
    }

    /// See [`crate::Pool::map`].
    ///
    /// # Errors
    /// The first failed item's [`TaskError::Panicked`], after all others are done.
    pub fn map<F, A, R, I>(&self, function: F, items: I) -> Result<Vec<R>>
    where
        F: Fn(A) -> R + Send + Sync + 'static,
        A: Send + 'static,
        R: Send + 'static,
        I: IntoIterator<Item = A>,
    {
        self.map_async(function, items)?.get()
    }

    /// See [`crate::Pool::starmap`].
    ///
    /// # Errors
    /// As [`ThreadPool::map`].
    pub fn starmap<F, A, B, R, I>(&self, function: F, items: I) -> Result<Vec<R>>
    where
        F: Fn(A, B) -> R + Send + Sync + 'static,
        A: Send + 'static,
        B: Send + 'static,
        R: Send + 'static,
        I: IntoIterator<Item = (A, B)>,
    {
        self.map(move |(a, b)| function(a, b), items)
    }

    /// See [`crate::Pool::map_async`].
    ///
    /// # Errors
    /// If the pool is closed.
    pub fn map_async<F, A, R, I>(&self, function: F, items: I) -> Result<AsyncResult<Vec<R>>>
    where
        F: Fn(A) -> R + Send + Sync + 'static,
        A: Send + 'static,
        R: Send + 'static,
        I: IntoIterator<Item = A>,
    {
        let mut items: VecDeque<A> = items.into_iter().collect();
        let total = items.len();
        let (filler, result) = slot();
        if total == 0 {
            filler.fill(Ok(Vec::new()));
            return Ok(result);
        }
        // Small chunks towards the end would balance better still; a thread's turn is cheap.
        let chunk = total.div_ceil(self.size * 16).max(1);
        let state = Arc::new(Mutex::new((Vec::new(), total, Some(filler))));
        state.lock().unwrap_or_else(PoisonError::into_inner).0.resize_with(total, || None);
        let function = Arc::new(function);
        let mut first = 0;
        while !items.is_empty() {
            let rest = items.split_off(chunk.min(items.len()));
            let part = core::mem::replace(&mut items, rest);
            let len = part.len();
            let (state, function) = (Arc::clone(&state), Arc::clone(&function));
            self.board.submit(Box::new(move || {
                let results: Vec<Result<R>> = part
                    .into_iter()
                    .enumerate()
                    .map(|(n, item)| attempt((first + n) as u64, || function(item)))
                    .collect();
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for (n, result) in results.into_iter().enumerate() {
                    state.0[first + n] = Some(result);
                }
                state.1 -= len;
                if state.1 == 0 {
                    let results = core::mem::take(&mut state.0);
                    let filler = state.2.take();
                    drop(state);
                    if let Some(filler) = filler {
                        filler.fill(results.into_iter().flatten().collect());
                    }
                }
            }))?;
            first += len;
        }
        Ok(result)
    }

    /// See [`crate::Pool::apply`].
    ///
    /// # Errors
    /// [`TaskError::Panicked`]; if the pool is closed.
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> Result<R>
    where
        F: FnOnce(A) -> R + Send + 'static,
        A: Send + 'static,
        R: Send + 'static,
    {
        self.apply_async(function, argument)?.get()
    }

    /// See [`crate::Pool::apply_async`].
    ///
    /// # Errors
    /// If the pool is closed.
    pub fn apply_async<F, A, R>(&self, function: F, argument: A) -> Result<AsyncResult<R>>
    where
        F: FnOnce(A) -> R + Send + 'static,
        A: Send + 'static,
        R: Send + 'static,
    {
        let (filler, result) = slot();
        self.board.submit(Box::new(move || {
            if filler.is_cancelled() {
                filler.fill(Err(TaskError::Cancelled { index: 0 }.into()));
            } else {
                filler.fill(attempt(0, || function(argument)));
            }
        }))?;
        Ok(result)
    }

    /// See [`crate::Pool::imap`].
    ///
    /// # Errors
    /// If the pool is closed.
    pub fn imap<F, A, R, I>(&self, function: F, items: I) -> Result<ThreadImap<'_, I::IntoIter, F, R>>
    where
        F: Fn(A) -> R + Send + Sync + 'static,
        A: Send + 'static,
        R: Send + 'static,
        I: IntoIterator<Item = A>,
    {
        let mut imap = ThreadImap {
            pool: self,
            function: Arc::new(function),
            items: items.into_iter(),
            line: channel(),
            sent: 0,
            taken: 0,
            early: Vec::new(),
            ordered: true,
        };
        imap.refill()?;
        Ok(imap)
    }

    /// See [`crate::Pool::imap_unordered`].
    ///
    /// # Errors
    /// If the pool is closed.
    pub fn imap_unordered<F, A, R, I>(&self, function: F, items: I) -> Result<ThreadImap<'_, I::IntoIter, F, R>>
    where
        F: Fn(A) -> R + Send + Sync + 'static,
        A: Send + 'static,
        R: Send + 'static,
        I: IntoIterator<Item = A>,
    {
        let mut imap = self.imap(function, items)?;
        imap.ordered = false;
        Ok(imap)
    }

    /// Takes no further tasks. What was submitted is finished; then the threads end.
    pub fn close(&self) {
        self.board.lock().closed = true;
        self.board.more.notify_all();
    }

    /// Closes the pool and discards what has not begun: whoever waits for it gets an error.
    pub fn terminate(&self) {
        let mut pending = self.board.lock();
        pending.closed = true;
        let discarded = core::mem::take(&mut pending.queue);
        drop(pending);
        self.board.more.notify_all();
        drop(discarded);
    }

    /// Waits until the threads of a closed pool have ended.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the pool is not closed.
    pub fn join(&self) -> Result<()> {
        if !self.board.lock().closed {
            return Err(Error::InvalidArgument("close or terminate the pool before joining it".into()));
        }
        let threads = core::mem::take(&mut *self.threads());
        for thread in threads {
            // A thread whose initializer panicked has said so already.
            let _ = thread.join();
        }
        Ok(())
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.terminate();
        // Closed just now, so this cannot fail.
        let _ = self.join();
    }
}

/// A result and its item's place.
type Numbered<R> = (u64, Result<R>);

/// The results of [`ThreadPool::imap`] and [`ThreadPool::imap_unordered`]. Reads ahead as many
/// items as keep the threads busy.
pub struct ThreadImap<'a, I: Iterator, F, R> {
    pool: &'a ThreadPool,
    function: Arc<F>,
    items: I,
    line: (Sender<Numbered<R>>, Receiver<Numbered<R>>),
    sent: u64,
    taken: u64,
    early: Vec<Numbered<R>>,
    ordered: bool,
}

impl<I, F, R> ThreadImap<'_, I, F, R>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> R + Send + Sync + 'static,
    R: Send + 'static,
{
    fn refill(&mut self) -> Result<()> {
        while self.sent - self.taken < 4 * self.pool.size as u64 {
            let Some(item) = self.items.next() else { break };
            let (index, function, line) = (self.sent, Arc::clone(&self.function), self.line.0.clone());
            self.pool.board.submit(Box::new(move || {
                // Nobody listens once the iteration is given up.
                let _ = line.send((index, attempt(index, || function(item))));
            }))?;
            self.sent += 1;
        }
        Ok(())
    }
}

impl<I, F, R> Iterator for ThreadImap<'_, I, F, R>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> R + Send + Sync + 'static,
    R: Send + 'static,
{
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        if let Err(error) = self.refill() {
            return Some(Err(error));
        }
        if self.sent == self.taken {
            return None;
        }
        let next = self.taken;
        self.taken += 1;
        if let Some(place) = self.early.iter().position(|(index, _)| !self.ordered || *index == next) {
            return Some(self.early.swap_remove(place).1);
        }
        loop {
            // This end holds a sender, so the line never breaks.
            let (index, result) = self.line.1.recv().ok()?;
            if !self.ordered || index == next {
                return Some(result);
            }
            self.early.push((index, result));
        }
    }
}
