//! Turning inputs into batches, and batches into results.

use core::marker::PhantomData;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tenfold_engine::Handle;
use tenfold_engine::pool::board::{Batch, BatchPlan, Outcome};
use tenfold_engine::pool::{Call, Place};
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::mapping::populate;

use super::Shared;
use super::task::{Task, TaskError, entry_of, short};
use crate::error::{Error, Result};
use crate::payload::{self, Message};

/// Batches of a long map that are on their way at a time.
const WINDOW: usize = 6;
/// Numbers that are read from the caller's iterator before they are copied to a batch.
const NUMBERS: usize = 512;
/// Items of a map's first batches: small, so that the workers begin early.
const FIRST_BATCH: usize = 2048;

/// What a caller can ask for beyond the function and its inputs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) timeout: Option<Duration>,
    pub(super) retries: u8,
    pub(super) chunk_size: Option<usize>,
    pub(super) buffer: Option<usize>,
}

impl Options {
    /// The time limit; 0 for none.
    fn nanoseconds(&self) -> u64 {
        self.timeout.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX).max(1))
    }
}

/// Single calls that share a batch, whose results stay in memory until all of them are let go of: many if
/// the results are words of the batch, few if they may be of any size.
const SHORT_SHARE: usize = 256;
const LONG_SHARE: usize = 16;

/// Submits a single call.
pub(super) fn call<F: Task<A, R>, A: Message, R: Message>(
    shared: &Shared,
    options: Options,
    function: F,
    argument: &A,
) -> Result<Place> {
    let call = Call {
        function: entry_of(function)?,
        timeout: options.nanoseconds(),
        retries: options.retries,
        share: if short::<R>().is_some() { SHORT_SHARE } else { LONG_SHARE },
    };
    let submit = |bytes: &[u8], handles: &[_]| shared.engine.call(call, Outgoing { parts: &[bytes], handles });
    Ok(payload::encoded(argument, submit)??)
}

/// Inputs of one call on their way to the workers.
pub(super) struct Job<A, R> {
    shared: Arc<Shared>,
    plan: BatchPlan,
    chunk_size: Option<usize>,
    _types: PhantomData<fn(A) -> R>,
}

impl<A: Message, R: Message> Job<A, R> {
    pub(super) fn new<F: Task<A, R>>(shared: &Arc<Shared>, options: Options, function: F) -> Result<Job<A, R>> {
        let mut plan = BatchPlan::default();
        plan.function = entry_of(function)?;
        plan.timeout = options.nanoseconds();
        plan.retries = options.retries;
        plan.bell = shared.engine.board().next_bell() as u32;
        plan.stride = short::<A>().unwrap_or(0) as u32;
        Ok(Job { shared: Arc::clone(shared), plan, chunk_size: options.chunk_size, _types: PhantomData })
    }

    /// Results are wanted one by one.
    pub(super) fn tell_each(mut self) -> Self {
        self.plan.tell_each = true;
        self.plan.chunk_len = self.chunk_size.map_or(1, |n| n as u32);
        self
    }

    pub(super) fn bell(&self) -> usize {
        self.plan.bell as usize
    }

    pub(super) fn planned(&self) -> usize {
        self.plan.items()
    }

    pub(super) fn is_full(&self) -> bool {
        self.plan.is_full()
    }

    #[inline]
    pub(super) fn push(&mut self, item: &A) -> Result<()> {
        if self.plan.stride > 0 {
            payload::encoded(item, |bytes, _| self.plan.push_raw(bytes))
        } else {
            let heap = self.shared.engine.board().handle().heap();
            let push = |bytes: &[u8], handles: &[Handle]| self.plan.push(heap, Outgoing { parts: &[bytes], handles });
            Ok(payload::encoded(item, push)??)
        }
    }

    /// Reads up to `most` items, or as many as fit, and hands them to the workers; `None` if there are none.
    fn submit_some(&mut self, items: &mut impl Iterator<Item = A>, most: usize) -> Result<Option<Batch>> {
        if self.plan.stride > 0 {
            return self.submit_numbers(items, most);
        }
        for item in items {
            self.push(&item)?;
            if self.is_full() || self.planned() >= most {
                break;
            }
        }
        self.submit()
    }

    fn submit_numbers(&mut self, items: &mut impl Iterator<Item = A>, most: usize) -> Result<Option<Batch>> {
        let expected = items.size_hint().1.unwrap_or(usize::MAX);
        let room = most.min(expected).min(self.plan.raw_room());
        if room == 0 {
            return Ok(None);
        }
        self.plan.chunk_len = self.chunk_len(room);
        let engine = &self.shared.engine;
        let mut raw = engine.begin_raw(&self.plan, room)?;
        // A few at a time, which stay in the nearest cache until they are copied.
        let mut numbers = Vec::with_capacity(room.min(NUMBERS));
        let mut left = room;
        while left > 0 {
            numbers.clear();
            numbers.extend(items.by_ref().take(left.min(NUMBERS)));
            if numbers.is_empty() {
                break;
            }
            left -= numbers.len();
            raw.push(payload::raw_slice(&numbers))?;
        }
        let batch = engine.submit_raw(&self.plan, raw)?;
        self.plan.base += (room - left) as u64;
        Ok(batch)
    }

    /// Hands the items so far to the workers; nothing if there are none.
    pub(super) fn submit(&mut self) -> Result<Option<Batch>> {
        let items = self.plan.items();
        if items == 0 {
            return Ok(None);
        }
        if !self.plan.tell_each {
            self.plan.chunk_len = self.chunk_len(items);
        }
        let batch = self.shared.engine.submit(&self.plan)?;
        self.plan.base += items as u64;
        self.plan.clear();
        Ok(Some(batch))
    }

    /// Items that a worker takes at a time. Taking one costs some tens of nanoseconds, so for as
    /// long as there are not very many, one at a time is right and balances best.
    fn chunk_len(&self, items: usize) -> u32 {
        let chosen = self.chunk_size.unwrap_or_else(|| (self.plan.base >> 12).clamp(1, 256) as usize);
        chosen.max(items.div_ceil(1 << 14)) as u32
    }
}

/// Runs a map to its end.
pub(super) fn map<F, A, R, I>(shared: &Arc<Shared>, options: Options, function: F, items: I) -> Result<Vec<R>>
where
    F: Task<A, R>,
    A: Message,
    R: Message,
    I: IntoIterator<Item = A>,
{
    let mut job = Job::<A, R>::new(shared, options, function)?;
    let mut items = items.into_iter();
    let mut results = Collected::with_capacity(items.size_hint().0);
    let mut under_way = VecDeque::new();
    let mut batch_len = FIRST_BATCH;
    while let Some(batch) = job.submit_some(&mut items, batch_len)? {
        under_way.push_back(batch);
        batch_len = batch_len.saturating_mul(2);
        if under_way.len() >= WINDOW
            && let Some(batch) = under_way.pop_front()
        {
            results.collect(shared, &batch, Deadline::never())?;
        }
    }
    for batch in under_way {
        results.collect(shared, &batch, Deadline::never())?;
    }
    results.into_result()
}

/// Results in the order of the inputs; the first failure, if there is one.
pub(super) struct Collected<R> {
    results: Vec<R>,
    failure: Option<Error>,
}

impl<R: Message> Collected<R> {
    pub(super) fn with_capacity(items: usize) -> Collected<R> {
        Collected { results: Vec::with_capacity(items.min(1 << 32)), failure: None }
    }

    /// Waits for a batch and takes its results.
    pub(super) fn collect(&mut self, shared: &Shared, batch: &Batch, deadline: Deadline) -> Result<()> {
        let short = short::<R>().filter(|_| self.failure.is_none());
        if short.is_some() {
            // While the workers are at it.
            self.results.reserve(batch.items());
            populate(&mut self.results.spare_capacity_mut()[..batch.items()]);
        }
        shared.engine.wait(batch.bell(), deadline, || batch.is_finished())?;
        if let Some(len) = short
            && batch.with_short(len, |words| payload::extend_from_words(words, &mut self.results))?.is_some()
        {
            return Ok(());
        }
        for item in 0..batch.items() {
            match take(batch, item, batch.base() + item as u64) {
                Ok(Some(result)) => self.results.push(result),
                Ok(None) => {}
                Err(error) => {
                    self.failure.get_or_insert(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn into_result(self) -> Result<Vec<R>> {
        self.failure.map_or(Ok(self.results), Err)
    }
}

/// Takes an item's result, which is the one of task `index` of its job; `None` while it has none.
pub(super) fn take<R: Message>(batch: &Batch, item: usize, index: u64) -> Result<Option<R>> {
    let Some(outcome) = batch.take(item)? else { return Ok(None) };
    match outcome {
        Outcome::Short(bytes, len) => payload::decode(&bytes[..len], Vec::new()).map(Some),
        Outcome::Long(bytes, handles) => payload::decode(&bytes, handles).map(Some),
        Outcome::Large(payload) => {
            let handles = payload.handles()?;
            payload.with(|bytes| payload::decode(bytes, handles))?.map(Some)
        }
        Outcome::Word(word) => payload::decode(&word.to_le_bytes(), Vec::new()).map(Some),
        Outcome::Failed(report, _) => Err(TaskError::from_failure(index, &report).into()),
        Outcome::Died { status, .. } => Err(TaskError::WorkerDied { index, status }.into()),
        Outcome::TimedOut => Err(TaskError::TimedOut { index }.into()),
        Outcome::Cancelled => Err(TaskError::Cancelled { index }.into()),
    }
}
