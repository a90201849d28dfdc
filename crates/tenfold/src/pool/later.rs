//! Results that are asked for later.

use core::future::{Future, IntoFuture};
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tenfold_engine::pool::board::{Batch, Cancel};
use tenfold_engine::sys::clock::Deadline;

use super::Shared;
use super::submit::{Collected, take};
use super::watcher::Watched;
use crate::error::{Error, Result};
use crate::payload::Message;

/// Where a watched result arrives.
struct Slot<T> {
    state: Mutex<SlotState<T>>,
    filled: Condvar,
}

struct SlotState<T> {
    result: Option<Result<T>>,
    done: bool,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn new() -> Slot<T> {
        let state = SlotState { result: None, done: false, waker: None };
        Slot { state: Mutex::new(state), filled: Condvar::new() }
    }

    fn fill(&self, result: Result<T>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.result = Some(result);
        state.done = true;
        let waker = state.waker.take();
        drop(state);
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wait(&self, deadline: Deadline) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            let left = deadline.remaining().unwrap_or(Duration::from_secs(3600));
            if left.is_zero() {
                return Err(Error::TimedOut { what: "waiting for a task" });
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One or more batches whose results are wanted together, as a `T`.
pub(super) trait Gather<T>: Send + 'static {
    fn gather(&self, shared: &Shared, batches: &[Batch], deadline: Deadline) -> Result<T>;
}

/// One task's result.
pub(super) struct One<R>(pub(super) PhantomData<fn() -> R>);

impl<R: Message> Gather<R> for One<R> {
    fn gather(&self, shared: &Shared, batches: &[Batch], deadline: Deadline) -> Result<R> {
        let Some(batch) = batches.first() else { return Err(Error::InvalidArgument("no task".into())) };
        shared.engine.wait(batch.bell(), deadline, || batch.is_final(0))?;
        take(batch, 0)?.ok_or(Error::TimedOut { what: "waiting for a task" })
    }
}

/// All results of a map.
pub(super) struct All<R>(pub(super) PhantomData<fn() -> R>);

impl<R: Message> Gather<Vec<R>> for All<R> {
    fn gather(&self, shared: &Shared, batches: &[Batch], deadline: Deadline) -> Result<Vec<R>> {
        // Wait for all before taking any: a caller whose time is up can ask again.
        for batch in batches {
            shared.engine.wait(batch.bell(), deadline, || batch.is_finished())?;
        }
        let mut results = Collected::with_capacity(batches.iter().map(Batch::items).sum());
        for batch in batches {
            results.collect(shared, batch, deadline)?;
        }
        results.into_result()
    }
}

enum Where<T> {
    Batches(Vec<Batch>, Box<dyn Gather<T>>),
    Slot(Arc<Slot<T>>),
}

/// A result that is not there yet: of [`crate::Pool::apply_async`] (one task) or
/// [`crate::Pool::map_async`] (a `Vec`).
///
/// Can be awaited in any async runtime. Dropped, the task still runs; its result is lost.
#[must_use = "a result nobody asks for is lost; `get` waits for it"]
pub struct AsyncResult<T> {
    shared: Arc<Shared>,
    place: Where<T>,
}

impl<T> core::fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AsyncResult").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

impl<T> AsyncResult<T> {
    /// Whether the result is there, good or bad. Never blocks.
    pub fn is_ready(&self) -> bool {
        match &self.place {
            Where::Batches(batches, _) => batches.iter().all(Batch::is_finished),
            Where::Slot(slot) => slot.state.lock().unwrap_or_else(PoisonError::into_inner).done,
        }
    }

    /// Waits for the result, `timeout` at most. Returns whether it is there.
    ///
    /// # Errors
    /// If the pool has ended.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        match &self.place {
            Where::Batches(batches, _) => {
                for batch in batches {
                    match self.shared.engine.wait(batch.bell(), deadline, || batch.is_finished()) {
                        Ok(()) => {}
                        Err(tenfold_engine::pool::PoolError::TimedOut) => return Ok(false),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(true)
            }
            Where::Slot(slot) => {
                let mut state = slot.state.lock().unwrap_or_else(PoisonError::into_inner);
                while !state.done {
                    let left = deadline.remaining().unwrap_or(Duration::from_secs(3600));
                    if left.is_zero() {
                        return Ok(false);
                    }
                    state = slot.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                Ok(true)
            }
        }
    }

    /// Cancels what has not finished: a task that runs is ended by killing its worker, one that
    /// waits never runs. Returns whether that changed anything. Tasks of a map that run already are
    /// finished.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn cancel(&self) -> Result<bool> {
        let Where::Batches(batches, _) = &self.place else { return Ok(false) };
        let mut changed = false;
        for batch in batches {
            if batch.items() == 1 {
                match batch.cancel(0)? {
                    Cancel::NeverBegun => changed = true,
                    Cancel::Running(worker) => {
                        self.shared.engine.kill(worker);
                        changed = true;
                    }
                    Cancel::TooLate => {}
                }
                continue;
            }
            if !batch.is_finished() {
                batch.cancel_rest();
                changed = true;
            }
        }
        Ok(changed)
    }
}

impl<T: Send + 'static> AsyncResult<T> {
    pub(super) fn new(shared: &Arc<Shared>, batches: Vec<Batch>, gather: impl Gather<T>) -> AsyncResult<T> {
        AsyncResult { shared: Arc::clone(shared), place: Where::Batches(batches, Box::new(gather)) }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// The task's error; [`Error::Pool`] if the pool ends first.
    pub fn get(self) -> Result<T> {
        self.get_until(Deadline::never())
    }

    /// Waits for the result, `timeout` at most. The task goes on if that is not enough.
    ///
    /// # Errors
    /// As [`AsyncResult::get`]; [`tenfold_engine::pool::PoolError::TimedOut`] inside [`Error::Pool`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.get_until(Deadline::after(timeout))
    }

    fn get_until(&self, deadline: Deadline) -> Result<T> {
        match &self.place {
            Where::Batches(batches, gather) => gather.gather(&self.shared, batches, deadline),
            Where::Slot(slot) => slot.wait(deadline),
        }
    }

    /// Calls `callback` with the result, on the pool's callback thread, before the result becomes
    /// ready. A callback should be quick: others wait for it.
    pub fn on_done(self, callback: impl FnOnce(&Result<T>) + Send + 'static) -> AsyncResult<T> {
        let AsyncResult { shared, place } = self;
        let slot = Arc::new(Slot::new());
        let arrived = Arc::clone(&slot);
        match place {
            Where::Batches(batches, gather) => {
                let watched = batches.clone();
                let inner = Arc::clone(&shared);
                let finish = Box::new(move || {
                    let result = gather.gather(&inner, &batches, Deadline::after(Duration::ZERO));
                    callback(&result);
                    arrived.fill(result);
                });
                shared.watch(Watched { batches: watched, finish });
            }
            Where::Slot(before) => {
                // Chained callbacks: rare enough for a thread's wait on the earlier one.
                std::thread::spawn(move || {
                    let result = before.wait(Deadline::never());
                    callback(&result);
                    arrived.fill(result);
                });
            }
        }
        AsyncResult { shared, place: Where::Slot(slot) }
    }
}

/// A result being awaited.
pub struct ResultFuture<T>(AsyncResult<T>);

impl<T: Send + 'static> IntoFuture for AsyncResult<T> {
    type Output = Result<T>;
    type IntoFuture = ResultFuture<T>;

    fn into_future(self) -> ResultFuture<T> {
        ResultFuture(match self.place {
            Where::Slot(_) => self,
            Where::Batches(..) => self.on_done(|_| ()),
        })
    }
}

impl<T: Send + 'static> Future for ResultFuture<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Where::Slot(slot) = &self.0.place else { return Poll::Ready(self.0.get_until(Deadline::never())) };
        let mut state = slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
