//! Tasks on their way to the board.
//!
//! ```text
//!  apply ─▶ the pool's open batch: each call is one more item        map ─▶ batches of growing length
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::Heap;
use tenfold_engine::shm::board::{Batch, BatchPlan, Board, OpenBatch, Preamble};
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::shm::participant::Identity;

use super::board::PoolBoard;
use super::lock;
use super::task::{Function, Kind, with_call};
use crate::codec::{self, Encoded};
use crate::errors;

/// Items of the first open batch, and of the largest; each is twice as large as the one before it.
const OPEN_FIRST: usize = 8;
pub(super) const OPEN_MOST: usize = 512;
/// Bytes of short inputs that an open batch has room for, an item: many inputs are shorter, and one may have 4096.
const OPEN_BYTES: usize = 96;
/// An open batch gets no further items once its results have so many bytes in blocks of their own: those that nobody
/// waits for any more are there as long as the batch.
const RESULT_BYTES: u64 = 256 << 10;
/// Items of a map's first batch: few, so that the workers begin early.
const FIRST_BATCH: usize = 256;
/// A batch is submitted when its inputs have so many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Arguments of more bytes are on their own on their way.
const LARGE: usize = 32 << 10;
/// A map that is waited for is this many bytes ahead of its results at most.
const AHEAD: usize = 32 << 20;
/// From so many bytes on it collects results before it goes on, as long as the workers have enough to do: memory that
/// was used before is filled in a fifth of the time that new one takes.
const AHEAD_AT_EASE: usize = 4 << 20;

/// What is asked for beyond a function and its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Nanoseconds that a task may take; 0 for no limit.
    timeout: u64,
    retries: u8,
    unit: u32,
}

impl Settings {
    /// # Errors
    /// If the limit makes no sense as a time.
    pub(super) fn new(limit: Option<f64>, retries: u8, unit: u32) -> PyResult<Settings> {
        let timeout = match limit {
            None => 0,
            Some(seconds) if seconds.is_nan() || seconds <= 0.0 => {
                return Err(PyValueError::new_err("a task's timeout must be a positive number of seconds"));
            }
            Some(seconds) if seconds > 1e9 => {
                return Err(PyOverflowError::new_err("a task's timeout is too large; use None for no limit"));
            }
            Some(seconds) => ((seconds * 1e9) as u64).max(1),
        };
        Ok(Settings { timeout, retries, unit })
    }

    fn are_plain(&self) -> bool {
        self.timeout == 0 && self.retries == 0
    }

    /// A plan without items.
    pub(super) fn plan(&self, kind: Kind, board: &Board) -> BatchPlan {
        let mut plan = BatchPlan::default();
        plan.function = kind as u64;
        plan.timeout = self.timeout;
        plan.retries = self.retries;
        plan.unit = self.unit;
        plan.bell = board.next_bell() as u32;
        plan
    }
}

impl Settings {
    /// A plan for single calls, without items.
    fn call(&self, kind: Kind, board: &Board) -> BatchPlan {
        let mut plan = self.plan(kind, board);
        plan.cancellable = true;
        plan.tell_each = true;
        plan
    }
}

/// A task's place on the board.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) batch: Batch,
    pub(super) item: usize,
}

/// The single calls of a pool.
#[derive(Default)]
pub(super) struct Calls {
    open: Option<OpenBatch>,
    /// Who adds to it.
    owner: Option<Identity>,
    /// Items that the next open batch is to have.
    room: usize,
    /// The function that was pickled last, if its pickle only names it.
    last: Option<(Py<PyAny>, Arc<Function>)>,
}

impl Calls {
    /// Submits one call.
    ///
    /// # Errors
    /// If something cannot be pickled, or the heap has no room.
    pub(super) fn submit(
        pool: &PoolBoard,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
        settings: Settings,
    ) -> PyResult<Place> {
        let py = function.py();
        let function = Calls::pickled(pool, function)?;
        let args = codec::encode(args.as_any())?;
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let keywords = keywords.map(|keywords| codec::encode(keywords.as_any())).transpose()?;
        let (board, heap) = (pool.board()?, pool.heap()?);
        if args.len(py) > LARGE {
            return alone(py, board, &function, &args, keywords.as_ref(), settings);
        }
        with_call(py, &function, Some(&args), keywords.as_ref(), |input| {
            if settings.are_plain() {
                let calls = &mut *lock(pool.calls());
                let me = super::me()?;
                if calls.owner.replace(me).is_some_and(|owner| owner != me) {
                    // A child of fork has no part in its parent's batch.
                    calls.open = None;
                }
                let room = &mut calls.room;
                add(&mut calls.open, board, input, |before| {
                    open(heap, board, &settings.call(Kind::Call, board), room, before)
                })
            } else {
                let plan = settings.call(Kind::Call, board);
                add(&mut None, board, input, |_| open(heap, board, &plan, &mut 1, None))
            }
        })?
    }

    /// The pickled function: the one from the last call, if it is the same.
    fn pickled(pool: &PoolBoard, function: &Bound<'_, PyAny>) -> PyResult<Arc<Function>> {
        let same = |(known, pickled): &(Py<PyAny>, Arc<Function>)| known.is(function).then(|| Arc::clone(pickled));
        if let Some(pickled) = lock(pool.calls()).last.as_ref().and_then(same) {
            return Ok(pickled);
        }
        let pickled = Arc::new(Function::encode(function)?);
        if pickled.is_reference() {
            let last = Some((function.clone().unbind(), Arc::clone(&pickled)));
            // Dropped after the lock is free: what happens then is Python's.
            let _before = core::mem::replace(&mut lock(pool.calls()).last, last);
        }
        Ok(pickled)
    }

    /// Takes no further calls.
    pub(super) fn end(&mut self) {
        self.open = None;
    }

    /// Shows the garbage collector what is held.
    ///
    /// # Errors
    /// Its own.
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.last.as_ref().map_or(Ok(()), |(function, _)| visit.call(function))
    }

    /// Lets go of what Python knows of.
    pub(super) fn forget(&mut self) -> Option<Py<PyAny>> {
        self.last.take().map(|(function, _)| function)
    }
}

/// Submits a call whose arguments are large.
fn alone(
    py: Python<'_>,
    board: &Board,
    function: &Function,
    args: &Encoded,
    keywords: Option<&Encoded>,
    settings: Settings,
) -> PyResult<Place> {
    let heap = board.handle().heap();
    let mut plan = settings.call(Kind::Alone, board);
    plan.preamble =
        with_call(py, function, None, keywords, |rest| Preamble::Message(rest.parts.concat(), rest.handles.to_vec()))?;
    args.with(py, |args| plan.push(heap, args))?.map_err(errors::heap)?;
    let batch = Batch::create(heap, board.handle(), &plan).map_err(errors::heap)?;
    board.submit(&batch).map_err(errors::heap)?;
    Ok(Place { batch, item: 0 })
}

/// An open batch with room for `room` items, which is doubled for the next; or for fewer, if the results of the one
/// before were large.
///
/// # Errors
/// If the heap has no room.
pub(super) fn open(
    heap: Heap,
    board: &Board,
    plan: &BatchPlan,
    room: &mut usize,
    before: Option<&OpenBatch>,
) -> PyResult<OpenBatch> {
    let items = match before {
        Some(batch) if batch.result_bytes() >= RESULT_BYTES => {
            let each = batch.result_bytes() / batch.items().max(1) as u64;
            (RESULT_BYTES / each.max(1)).clamp(1, *room as u64) as usize
        }
        _ => (*room).max(1),
    };
    *room = (2 * items).clamp(OPEN_FIRST, OPEN_MOST);
    OpenBatch::create(heap, board.handle(), plan, items, items * OPEN_BYTES + 4096).map_err(errors::heap)
}

/// Adds an item to the batch in `current`, or to a new one that takes its place, and tells the workers.
///
/// # Errors
/// If the heap has no room.
pub(super) fn add(
    current: &mut Option<OpenBatch>,
    board: &Board,
    input: Outgoing<'_>,
    open: impl FnOnce(Option<&OpenBatch>) -> PyResult<OpenBatch>,
) -> PyResult<Place> {
    if let Some(batch) = current.as_mut().filter(|batch| batch.result_bytes() < RESULT_BYTES)
        && let Some(item) = batch.push(input).map_err(errors::heap)?
    {
        board.announce(batch).map_err(errors::heap)?;
        return Ok(Place { batch: batch.batch().clone(), item });
    }
    let batch = open(current.as_ref())?;
    let batch = current.insert(batch);
    let item = batch.push(input).map_err(errors::heap)?;
    let item = item.ok_or_else(|| PyValueError::new_err("a task does not fit into an empty batch"))?;
    board.announce(batch).map_err(errors::heap)?;
    Ok(Place { batch: batch.batch().clone(), item })
}

/// The items of a map on their way.
pub(super) struct Map<'a> {
    board: &'a Board,
    heap: Heap,
    plan: BatchPlan,
    length: usize,
    workers: usize,
    /// Items that a worker takes at a time, if the caller has said so.
    exact: Option<usize>,
    batch_len: usize,
    ahead: Ahead,
}

/// The batches of a map that are submitted and not collected.
pub(super) struct Ahead {
    /// Each, and its bytes.
    batches: VecDeque<(Batch, usize)>,
    bytes: usize,
    workers: usize,
}

impl Ahead {
    /// Whether results should be collected first, and waited for unless [`Ahead::is_short`].
    pub(super) fn is_far(&self) -> bool {
        self.batches.len() > 1 && self.bytes > AHEAD_AT_EASE
    }

    /// Whether the workers may soon have nothing to do: there is less than a batch for each that nobody has begun.
    pub(super) fn is_short(&self) -> bool {
        let mut latest = self.batches.iter().rev().take(self.workers);
        self.bytes <= AHEAD && (self.batches.len() <= self.workers || latest.any(|(batch, _)| batch.claimed() > 0))
    }

    fn push(&mut self, batch: Batch, bytes: usize) {
        self.batches.push_back((batch, bytes));
        self.bytes += bytes;
    }

    /// The first batch has been collected.
    pub(super) fn pop(&mut self) {
        if let Some((_, bytes)) = self.batches.pop_front() {
            self.bytes -= bytes;
        }
    }
}

impl<'a> Map<'a> {
    /// # Errors
    /// If the function cannot be pickled.
    pub(super) fn new(
        pool: &'a PoolBoard,
        function: &Bound<'_, PyAny>,
        star: bool,
        length: usize,
        exact: bool,
        settings: Settings,
    ) -> PyResult<Map<'a>> {
        let board = pool.board()?;
        let function = Function::encode(function)?;
        let mut plan = settings.plan(if star { Kind::Star } else { Kind::Map }, board);
        plan.preamble = Preamble::Message(function.bytes, function.handles);
        let exact = exact.then_some(settings.unit as usize);
        let workers = board.wanted().max(1) as usize;
        let ahead = Ahead { batches: VecDeque::new(), bytes: 0, workers };
        Ok(Map { board, heap: pool.heap()?, plan, length, workers, exact, batch_len: FIRST_BATCH, ahead })
    }

    /// Adds an item. Returns a batch that is full and has been submitted, if there is one now.
    ///
    /// # Errors
    /// If it cannot be pickled, or the heap has no room.
    #[inline]
    pub(super) fn push(&mut self, item: &Bound<'_, PyAny>) -> PyResult<Option<Batch>> {
        match codec::encode_short(item) {
            Some((word, len)) => self.plan.push_short(word, len),
            None => {
                let encoded = codec::encode(item)?;
                encoded.with(item.py(), |input| self.plan.push(self.heap, input))?.map_err(errors::heap)?;
            }
        }
        // A chunk lies in one batch.
        let whole = self.exact.is_none_or(|len| self.plan.items().is_multiple_of(len));
        let enough = self.plan.items() >= self.batch_len || self.plan.input_bytes() > BATCH_BYTES;
        if self.plan.is_full() || (enough && whole) { self.submit().map(Some) } else { Ok(None) }
    }

    /// Submits what is left.
    ///
    /// # Errors
    /// If the heap has no room.
    pub(super) fn submit_rest(&mut self) -> PyResult<Option<Batch>> {
        if self.plan.items() == 0 { Ok(None) } else { self.submit().map(Some) }
    }

    fn submit(&mut self) -> PyResult<Batch> {
        let items = self.plan.items();
        self.plan.chunk_len = self.chunk_len() as u32;
        let batch = Batch::create(self.heap, self.board.handle(), &self.plan).map_err(errors::heap)?;
        self.board.submit(&batch).map_err(errors::heap)?;
        self.ahead.push(batch.clone(), self.plan.bytes());
        self.plan.clear();
        if self.plan.base == 0 {
            self.plan.preamble = Preamble::Of(batch.clone());
        }
        self.plan.base += items as u64;
        self.batch_len = self.batch_len.saturating_mul(2);
        Ok(batch)
    }

    /// Items that a worker takes at a time: the fewer are left, the fewer, so that all workers end together.
    fn chunk_len(&self) -> usize {
        let left = self.length.saturating_sub(self.plan.base as usize);
        self.exact.unwrap_or_else(|| (left / (self.workers * 64)).clamp(1, 64)).max(1)
    }

    /// What is under way.
    pub(super) fn ahead(&mut self) -> &mut Ahead {
        &mut self.ahead
    }
}
