//! Results that are asked for later.

use core::future::{Future, IntoFuture};
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenfold_engine::pool::board::{Batch, Cancel};
use tenfold_engine::pool::{Place, PoolError};
use tenfold_engine::sys::clock::Deadline;

use super::Shared;
use super::submit::{Collected, take};
use super::watcher::{Awaited, Watched};
use crate::error::{Error, Result};
use crate::payload::Message;

/// Where a result arrives that somebody else puts there.
struct Slot<T> {
    state: Mutex<SlotState<T>>,
    filled: Condvar,
}

type Callback<T> = Box<dyn FnOnce(Result<T>) + Send>;

struct SlotState<T> {
    result: Option<Result<T>>,
    done: bool,
    cancelled: bool,
    waker: Option<Waker>,
    /// Takes the result instead of the slot.
    callback: Option<Callback<T>>,
}

impl<T> Slot<T> {
    fn new() -> Slot<T> {
        let state = SlotState { result: None, done: false, cancelled: false, waker: None, callback: None };
        Slot { state: Mutex::new(state), filled: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, SlotState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, result: Result<T>) {
        let mut state = self.lock();
        state.done = true;
        let waker = state.waker.take();
        match state.callback.take() {
            Some(callback) => {
                drop(state);
                callback(result);
            }
            None => {
                state.result = Some(result);
                drop(state);
            }
        }
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the slot is filled; `None` at the deadline.
    fn wait(&self, deadline: Deadline) -> Option<MutexGuard<'_, SlotState<T>>> {
        let mut state = self.lock();
        while !state.done {
            let left = deadline.remaining().unwrap_or(Duration::from_secs(3600));
            if left.is_zero() {
                return None;
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state)
    }

    fn take(&self, deadline: Deadline) -> Result<T> {
        let Some(mut state) = self.wait(deadline) else { return Err(PoolError::TimedOut.into()) };
        state.result.take().unwrap_or_else(|| Err(Error::InvalidArgument("the result was taken already".into())))
    }
}

/// Puts a result into its slot. Dropped without, the waiter learns that the pool has ended.
pub(crate) struct Filler<T>(Option<Arc<Slot<T>>>);

impl<T> Filler<T> {
    pub(crate) fn fill(mut self, result: Result<T>) {
        if let Some(slot) = self.0.take() {
            slot.fill(result);
        }
    }

    /// Whether the result was cancelled before the task began.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| slot.lock().cancelled)
    }
}

impl<T> Drop for Filler<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.fill(Err(PoolError::Closed.into()));
        }
    }
}

/// A result, and the means to put it there.
pub(crate) fn slot<T>() -> (Filler<T>, AsyncResult<T>) {
    let slot = Arc::new(Slot::new());
    (Filler(Some(Arc::clone(&slot))), AsyncResult { place: Where::Slot(slot) })
}

/// One or more batches whose results are wanted together, as a `T`.
pub(super) trait Gather<T>: Send + 'static {
    fn gather(&self, shared: &Shared, batches: &[Batch], deadline: Deadline) -> Result<T>;
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

/// A call's place on the board, and how its result is taken from there.
struct Single<T> {
    place: Place,
    take: fn(&Batch, usize, u64) -> Result<Option<T>>,
}

impl<T> Single<T> {
    fn is_ready(&self) -> bool {
        self.place.batch.is_final(self.place.item)
    }

    fn wait(&self, shared: &Shared, deadline: Deadline) -> core::result::Result<(), PoolError> {
        shared.engine.wait(self.place.batch.bell(), deadline, || self.is_ready())
    }

    fn get(&self, shared: &Shared, deadline: Deadline) -> Result<T> {
        self.wait(shared, deadline)?;
        (self.take)(&self.place.batch, self.place.item, 0)?.ok_or(PoolError::TimedOut.into())
    }
}

impl<T> Drop for Single<T> {
    fn drop(&mut self) {
        // A result that nobody took frees its block now, not when the last call that shares the batch ends.
        // If it cannot be read, there is nobody to tell.
        let _ = self.place.batch.discard(self.place.item);
    }
}

enum Where<T> {
    Single(Arc<Shared>, Single<T>),
    Batches(Arc<Shared>, Vec<Batch>, Box<dyn Gather<T>>),
    Slot(Arc<Slot<T>>),
}

/// A result that is not there yet: of [`crate::Pool::apply_async`] (one task) or
/// [`crate::Pool::map_async`] (a `Vec`).
///
/// Can be awaited in any async runtime. Dropped, the task still runs; its result is lost.
#[must_use = "a result nobody asks for is lost; `get` waits for it"]
pub struct AsyncResult<T> {
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
            Where::Single(_, single) => single.is_ready(),
            Where::Batches(_, batches, _) => batches.iter().all(Batch::is_finished),
            Where::Slot(slot) => slot.lock().done,
        }
    }

    /// Waits for the result, `timeout` at most. Returns whether it is there.
    ///
    /// # Errors
    /// If the pool has ended.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        let waited = match &self.place {
            Where::Single(shared, single) => single.wait(shared, deadline),
            Where::Batches(shared, batches, _) => {
                let mut batches = batches.iter();
                batches.try_for_each(|batch| shared.engine.wait(batch.bell(), deadline, || batch.is_finished()))
            }
            Where::Slot(slot) => return Ok(slot.wait(deadline).is_some()),
        };
        match waited {
            Ok(()) => Ok(true),
            Err(PoolError::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Cancels what has not finished: a task that runs is ended by killing its worker, one that
    /// waits never runs. Returns whether that changed anything. Tasks of a map that run already are
    /// finished.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn cancel(&self) -> Result<bool> {
        let cancel = |shared: &Shared, batch: &Batch, item: usize| -> Result<bool> {
            Ok(match batch.cancel(item)? {
                Cancel::NeverBegun => true,
                Cancel::Running(worker) => {
                    shared.engine.kill(worker);
                    true
                }
                Cancel::TooLate => false,
            })
        };
        match &self.place {
            Where::Single(shared, single) => cancel(shared, &single.place.batch, single.place.item),
            Where::Batches(shared, batches, _) => {
                let mut changed = false;
                for batch in batches {
                    if batch.items() == 1 {
                        changed |= cancel(shared, batch, 0)?;
                    } else if !batch.is_finished() {
                        batch.cancel_rest();
                        changed = true;
                    }
                }
                Ok(changed)
            }
            Where::Slot(slot) => {
                let mut state = slot.lock();
                Ok(!state.done && !core::mem::replace(&mut state.cancelled, true))
            }
        }
    }
}

impl<T: Send + 'static> AsyncResult<T> {
    pub(super) fn new(shared: &Arc<Shared>, batches: Vec<Batch>, gather: impl Gather<T>) -> AsyncResult<T> {
        AsyncResult { place: Where::Batches(Arc::clone(shared), batches, Box::new(gather)) }
    }

    pub(super) fn single(shared: &Arc<Shared>, place: Place) -> AsyncResult<T>
    where
        T: Message,
    {
        AsyncResult { place: Where::Single(Arc::clone(shared), Single { place, take: take::<T> }) }
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
            Where::Single(shared, single) => single.get(shared, deadline),
            Where::Batches(shared, batches, gather) => gather.gather(shared, batches, deadline),
            Where::Slot(slot) => slot.take(deadline),
        }
    }

    /// Calls `callback` with the result, on the pool's callback thread, before the result becomes
    /// ready. A callback should be quick: others wait for it.
    pub fn on_done(self, callback: impl FnOnce(&Result<T>) + Send + 'static) -> AsyncResult<T> {
        let (filler, called_back) = slot();
        let finish = move |result: Result<T>| {
            callback(&result);
            filler.fill(result);
        };
        let now = || Deadline::after(Duration::ZERO);
        match self.place {
            Where::Single(shared, single) => {
                let awaited = vec![Awaited::One(single.place.batch.clone(), single.place.item)];
                let engine = Arc::clone(&shared);
                let finish = Box::new(move || finish(single.get(&engine, now())));
                shared.watch(Watched { awaited, finish });
            }
            Where::Batches(shared, batches, gather) => {
                let awaited = batches.iter().cloned().map(Awaited::All).collect();
                let engine = Arc::clone(&shared);
                let finish = Box::new(move || finish(gather.gather(&engine, &batches, now())));
                shared.watch(Watched { awaited, finish });
            }
            Where::Slot(slot) => {
                let mut state = slot.lock();
                match state.result.take() {
                    Some(result) => {
                        drop(state);
                        finish(result);
                    }
                    None => state.callback = Some(Box::new(finish)),
                }
            }
        }
        called_back
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
            Where::Single(..) | Where::Batches(..) => self.on_done(|_| ()),
        })
    }
}

impl<T: Send + 'static> Future for ResultFuture<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Where::Slot(slot) = &self.0.place else { return Poll::Ready(self.0.get_until(Deadline::never())) };
        let mut state = slot.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
