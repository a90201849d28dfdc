//! Results one by one, while the inputs are still being read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tenfold_engine::pool::PoolError;
use tenfold_engine::pool::board::Batch;
use tenfold_engine::sys::clock::Deadline;

use super::Shared;
use super::submit::{Job, take};
use crate::error::{Error, Result};
use crate::payload::Message;

/// Items of the largest batch.
const LARGEST_BATCH: usize = 512;
/// Batches of that size on their way at a time.
const WINDOW: usize = 4;

/// A batch on its way.
struct UnderWay {
    batch: Batch,
    /// Items before this one are taken (in order) or looked at (in any order).
    next: usize,
    taken: Vec<bool>,
    left: usize,
}

/// What `imap` and `imap_unordered` share.
struct Stream<I: Iterator, R> {
    shared: Arc<Shared>,
    job: Job<I::Item, R>,
    items: Option<I>,
    under_way: VecDeque<UnderWay>,
    in_flight: usize,
    batch_len: usize,
    buffer: Option<usize>,
    /// An input that could not be encoded: told after the results of those before it.
    failure: Option<Error>,
}

impl<I, R> Stream<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    fn limit(&self) -> usize {
        self.buffer.unwrap_or((WINDOW * self.batch_len).max(4 * self.shared.workers))
    }

    /// Reads inputs until enough are on their way. Waits until half of them are done first, so
    /// that they travel in batches.
    fn refill(&mut self) -> Result<()> {
        if self.in_flight > self.limit() / 2 {
            return Ok(());
        }
        while self.items.is_some() && self.in_flight < self.limit() {
            let room = self.limit() - self.in_flight;
            let want = self.batch_len.min(room);
            while self.job.planned() < want && !self.job.is_full() {
                let Some(items) = &mut self.items else { break };
                match items.next() {
                    Some(item) => {
                        if let Err(error) = self.job.push(&item) {
                            self.failure = Some(error);
                            self.items = None;
                        }
                    }
                    None => self.items = None,
                }
            }
            if let Some(batch) = self.job.submit()? {
                let count = batch.items();
                self.in_flight += count;
                self.under_way.push_back(UnderWay { batch, next: 0, taken: vec![false; count], left: count });
                if self.under_way.len() > 2 * self.shared.workers {
                    self.batch_len = (self.batch_len * 2).min(LARGEST_BATCH);
                }
            }
        }
        Ok(())
    }

    fn done(&mut self, place: usize) {
        self.in_flight -= 1;
        if let Some(under_way) = self.under_way.get_mut(place) {
            under_way.left -= 1;
        }
        while self.under_way.front().is_some_and(|u| u.left == 0) {
            self.under_way.pop_front();
        }
    }

    fn wait(&self, deadline: Deadline, ready: impl FnMut() -> bool) -> Result<()> {
        self.shared.engine.wait(self.job.bell(), deadline, ready).map_err(Error::from)
    }
}

/// The results of [`crate::Pool::imap`], in the order of the inputs.
///
/// Inputs are read ahead, as many as keep the workers busy. Each `next` blocks until its result is
/// there; a failed task is an `Err`, and the iteration goes on after it. Dropped early, what has not
/// begun is cancelled.
pub struct Imap<I: Iterator, R>(Stream<I, R>);

/// The results of [`crate::Pool::imap_unordered`], as they come.
///
/// As [`Imap`], but whichever result is there first comes first.
pub struct ImapUnordered<I: Iterator, R> {
    stream: Stream<I, R>,
    ready: VecDeque<(usize, usize)>,
}

pub(super) fn stream<I, R>(shared: &Arc<Shared>, job: Job<I::Item, R>, items: I, buffer: Option<usize>) -> Imap<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    Imap(Stream {
        shared: Arc::clone(shared),
        job: job.tell_each(),
        items: Some(items),
        under_way: VecDeque::new(),
        in_flight: 0,
        batch_len: 1,
        buffer,
        failure: None,
    })
}

impl<I, R> Imap<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// Begins: reads the first inputs.
    pub(super) fn begun(mut self) -> Result<Self> {
        self.0.refill()?;
        Ok(self)
    }

    pub(super) fn unordered(self) -> ImapUnordered<I, R> {
        ImapUnordered { stream: self.0, ready: VecDeque::new() }
    }

    /// The next result, if it comes within `timeout`; `None` after the last.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it does not (it can be asked for again); the task's own error.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R>> {
        self.next_until(Deadline::after(timeout))
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Result<R>> {
        if let Err(error) = self.0.refill() {
            self.0.items = None;
            return Some(Err(error));
        }
        let Some(front) = self.0.under_way.front_mut() else { return self.0.failure.take().map(Err) };
        let item = front.next;
        if !front.batch.is_final(item) {
            let batch = front.batch.clone();
            if let Err(error) = self.0.wait(deadline, || batch.is_final(item)) {
                return self.0.fail(error);
            }
        }
        let front = self.0.under_way.front_mut()?;
        front.next += 1;
        let result = take(&front.batch, item, front.batch.base() + item as u64).transpose();
        self.0.done(0);
        result
    }
}

impl<I, R> Stream<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// A wait failed: for good if the pool is gone.
    fn fail(&mut self, error: Error) -> Option<Result<R>> {
        if !matches!(error, Error::Pool(PoolError::TimedOut)) {
            self.items = None;
            self.under_way.clear();
            self.in_flight = 0;
        }
        Some(Err(error))
    }
}

impl<I, R> Iterator for Imap<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_until(Deadline::never())
    }
}

impl<I, R> ImapUnordered<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    /// The next result, if one comes within `timeout`; `None` after the last.
    ///
    /// # Errors
    /// As [`Imap::next_timeout`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R>> {
        self.next_until(Deadline::after(timeout))
    }

    /// Looks through the batches on their way for results.
    fn harvest(&mut self) {
        for (place, under_way) in self.stream.under_way.iter_mut().enumerate() {
            for item in under_way.next..under_way.taken.len() {
                if !under_way.taken[item] && under_way.batch.is_final(item) {
                    under_way.taken[item] = true;
                    self.ready.push_back((place, item));
                }
                if under_way.taken[item] && item == under_way.next {
                    under_way.next += 1;
                }
            }
        }
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Result<R>> {
        if self.ready.is_empty() {
            // Places are counted from the front, so batches leave only between two harvests.
            while self.stream.under_way.front().is_some_and(|u| u.left == 0) {
                self.stream.under_way.pop_front();
            }
            if let Err(error) = self.stream.refill() {
                self.stream.items = None;
                return Some(Err(error));
            }
            self.harvest();
        }
        if self.ready.is_empty() {
            if self.stream.under_way.is_empty() {
                return self.stream.failure.take().map(Err);
            }
            let waited = {
                let under_way = &self.stream.under_way;
                self.stream.wait(deadline, || {
                    under_way.iter().any(|u| (u.next..u.taken.len()).any(|i| !u.taken[i] && u.batch.is_final(i)))
                })
            };
            if let Err(error) = waited {
                return self.stream.fail(error);
            }
            self.harvest();
        }
        let (place, item) = self.ready.pop_front()?;
        let under_way = self.stream.under_way.get_mut(place)?;
        under_way.left -= 1;
        self.stream.in_flight -= 1;
        take(&under_way.batch, item, under_way.batch.base() + item as u64).transpose()
    }
}

impl<I, R> Iterator for ImapUnordered<I, R>
where
    I: Iterator,
    I::Item: Message,
    R: Message,
{
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_until(Deadline::never())
    }
}

impl<I: Iterator, R> Drop for Stream<I, R> {
    fn drop(&mut self) {
        for under_way in &self.under_way {
            under_way.batch.cancel_rest();
        }
    }
}
