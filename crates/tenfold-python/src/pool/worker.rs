//! A worker's life: claim tasks, run them, commit their results.
//!
//! ```text
//!  claim chunk ─▶ function of the job ─▶ begin item ─▶ unpickle ─▶ call ─▶ pickle ─▶ commit ─▶ next item … ─▶ tell
//!      ▲                                    │ SystemExit: the process ends, this task has died with it
//!      └── sleep, without any work ─────────┘
//! ```
//!
//! All exceptions but `SystemExit` are the task's own error. Ctrl-C reaches all processes at once: a worker that has
//! nothing to do takes no notice, in a task it is that task's error; what becomes of the pool, the parent decides. So
//! the signal is let in here, where no line of Python may be cut short by it, and ignored from the last task on.

use std::collections::HashMap;

use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyTuple};
use tenfold_engine::pool::TimeLimit;
use tenfold_engine::shm::board::{Board, BoardState, Chunk};
use tenfold_engine::shm::heap::BlockId;
use tenfold_engine::shm::message::Payload;
use tenfold_engine::shm::participant::{self, Identity};
use tenfold_engine::sys::signals;

use super::failure::{Failure, report_bytes};
use super::task::{Kind, is_reference, split_call, split_callee};
use crate::{calls, codec, errors, waiting};

/// Its number on Linux.
const SIGINT: i32 = 2;

/// Functions that are known by name are kept, up to this many.
const FUNCTIONS_MAX: usize = 256;

/// A worker between its first task and its last.
struct Worker<'a, 'py> {
    py: Python<'py>,
    board: &'a Board,
    me: Identity,
    limit: TimeLimit,
    /// Functions by the pickles that name them.
    functions: HashMap<Vec<u8>, Bound<'py, PyAny>>,
    /// The function of the job that this worker was last at, or why there is none.
    job: Option<(BlockId, Result<Bound<'py, PyAny>, PyErr>)>,
    /// Tasks done so far, and how many are to be done, in units of 2^-32.
    done: u64,
    most: u64,
}

/// Works until the pool ends, or `max_tasks` tasks (0: any number) are done.
///
/// # Errors
/// `SystemExit` from a task; what a signal handler raises, but for `KeyboardInterrupt`; if the heap is corrupt or has no
/// room.
pub(super) fn work(py: Python<'_>, board: &Board, max_tasks: u32, hears_ctrl_c: bool) -> PyResult<()> {
    if hears_ctrl_c {
        unless_interrupted(py, let_ctrl_c_in(py))?;
    }
    let worked = unless_interrupted(py, work_until_the_end(py, board, max_tasks));
    // Fails for no signal that can be ignored.
    let _ = signals::ignore(SIGINT);
    unless_interrupted(py, py.check_signals()).and(worked)
}

/// What has arrived already is raised here.
fn let_ctrl_c_in(py: Python<'_>) -> PyResult<()> {
    // The C function: that of `signal` is in Python.
    let signal = py.import("_signal")?;
    signal.call_method1("pthread_sigmask", (signal.getattr("SIG_UNBLOCK")?, (SIGINT,))).map(drop)
}

fn unless_interrupted(py: Python<'_>, result: PyResult<()>) -> PyResult<()> {
    result.or_else(|error| if error.is_instance_of::<PyKeyboardInterrupt>(py) { Ok(()) } else { Err(error) })
}

fn work_until_the_end(py: Python<'_>, board: &Board, max_tasks: u32) -> PyResult<()> {
    let most = if max_tasks == 0 { u64::MAX } else { u64::from(max_tasks) << 32 };
    let me = participant::me(board.handle().heap()).map_err(errors::heap)?;
    let mut worker =
        Worker { py, board, me, limit: TimeLimit::default(), functions: HashMap::new(), job: None, done: 0, most };
    board.join_as_worker().map_err(errors::heap)?;
    while worker.done < worker.most {
        match claim(py, board)? {
            Some(chunk) => worker.run(chunk)?,
            None if board.state() != BoardState::Open => break,
            None => worker.wait()?,
        }
    }
    board.leave().map_err(errors::heap)
}

/// Takes some tasks. If that fails, it would fail for another worker, too: the pool is broken.
fn claim(py: Python<'_>, board: &Board) -> PyResult<Option<Chunk>> {
    board.claim().map_err(|error| {
        let error = errors::heap(error);
        // Without room for the reason, the pool goes on as it can.
        let _ = report_bytes(py, &error).map(|report| board.declare_broken(&report));
        error
    })
}

impl<'py> Worker<'_, 'py> {
    /// Waits for work, holding on to nothing of the last one.
    fn wait(&mut self) -> PyResult<()> {
        self.job = None;
        let board = self.board;
        match waiting::blocking(self.py, || board.wait_for_work(), |_, _| ()) {
            Ok(waited) => waited.map_err(errors::heap),
            Err(error) => unless_interrupted(self.py, Err(error)),
        }
    }

    fn run(&mut self, mut chunk: Chunk) -> PyResult<()> {
        let kind = Kind::from_bits(chunk.function()).unwrap_or(Kind::Call);
        let shared = matches!(kind, Kind::Map | Kind::Star);
        let function = if shared { Some(self.function_of_job(&chunk)) } else { None };
        let step = (1u64 << 32).div_ceil(u64::from(chunk.unit()));
        while self.done < self.most
            && let Some(item) = chunk.begin_item()
        {
            self.done = self.done.saturating_add(step);
            self.limit.begin(&chunk).map_err(errors::heap)?;
            let called = match &function {
                None if kind == Kind::Alone => self.call_alone(&chunk, item),
                None => self.call(&chunk, item),
                Some(Ok(function)) => self.apply(function, &chunk, item, kind),
                Some(Err(error)) => Err(error.clone_ref(self.py)),
            };
            if !participant::is_me(self.me) {
                // The task has forked, and this is the child: the task is its parent's.
                return Err(PySystemExit::new_err(1));
            }
            match called {
                Ok(result) => self.commit(&mut chunk, &result)?,
                Err(error) if error.is_instance_of::<PySystemExit>(self.py) => return Err(error),
                Err(error) => self.fail(&mut chunk, |worker| {
                    worker.name_limits(&error);
                    Failure::raised(worker.py, &error)
                })?,
            }
            // A function in C may leave a signal to be looked at.
            unless_interrupted(self.py, self.py.check_signals())?;
        }
        if chunk.is_over() {
            self.board.tell(&chunk);
        } else {
            chunk.give_back();
        }
        Ok(())
    }

    /// Calls the job's function with an item.
    #[inline]
    fn apply(
        &self,
        function: &Bound<'py, PyAny>,
        chunk: &Chunk,
        item: usize,
        kind: Kind,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let argument = argument(py, chunk, item)?;
        match kind {
            Kind::Star => {
                let argument = argument.into_bound(py);
                match argument.cast::<PyTuple>() {
                    Ok(tuple) => function.call1(tuple),
                    Err(_) => function.call1(PyTuple::new(py, argument.try_iter()?.collect::<PyResult<Vec<_>>>()?)?),
                }
            }
            _ => calls::with_one(function, argument.into_bound(py)),
        }
    }

    /// The function that all items of the chunk's job have in common.
    fn function_of_job(&mut self, chunk: &Chunk) -> PyResult<Bound<'py, PyAny>> {
        let id = chunk.preamble().map_err(errors::heap)?.ok_or_else(nonsense)?;
        if self.job.as_ref().is_none_or(|(known, _)| *known != id) {
            let (bytes, _handles) = chunk.read_preamble(id).map_err(errors::heap)?;
            self.job = Some((id, self.function(&bytes)));
        }
        match &self.job {
            Some((_, Ok(function))) => Ok(function.clone()),
            Some((_, Err(error))) => Err(error.clone_ref(self.py)),
            None => Err(nonsense()),
        }
    }

    /// The function that a payload is.
    fn function(&mut self, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if let Some(function) = self.functions.get(payload) {
            return Ok(function.clone());
        }
        let function = codec::decode(self.py, payload)?.into_bound(self.py);
        if is_reference(payload) {
            if self.functions.len() >= FUNCTIONS_MAX {
                self.functions.clear();
            }
            self.functions.insert(payload.to_vec(), function.clone());
        }
        Ok(function)
    }

    /// Calls an item that has its own function.
    fn call(&mut self, chunk: &Chunk, item: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let mut parts = None;
        let mut take = |input: &[u8]| {
            let (args, rest) = split_call(input).ok_or_else(nonsense)?;
            parts = Some((self.callee(rest)?, codec::decode(py, args)?));
            Ok(())
        };
        // Handles inside a long input are the payload's.
        let taken = chunk.with_input(item, |_| None, Some).map_err(errors::heap)?;
        match taken {
            Some(payload) => payload.with(&mut take).map_err(errors::heap)??,
            None => chunk.with_input(item, &mut take, |_| Err(nonsense())).map_err(errors::heap)??,
        }
        let ((function, keywords), args) = parts.ok_or_else(nonsense)?;
        call(&function, args.bind(py), keywords.as_ref())
    }

    /// Calls what the preamble says, with arguments of their own.
    fn call_alone(&mut self, chunk: &Chunk, item: usize) -> PyResult<Bound<'py, PyAny>> {
        let id = chunk.preamble().map_err(errors::heap)?.ok_or_else(nonsense)?;
        let (rest, _handles) = chunk.read_preamble(id).map_err(errors::heap)?;
        let (function, keywords) = self.callee(&rest)?;
        call(&function, argument(self.py, chunk, item)?.bind(self.py), keywords.as_ref())
    }

    /// The function and the keywords that a call without its arguments consists of.
    fn callee(&mut self, rest: &[u8]) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
        let (keywords, function) = split_callee(rest).ok_or_else(nonsense)?;
        let keywords =
            if keywords.is_empty() { None } else { Some(codec::decode(self.py, keywords)?.into_bound(self.py)) };
        Ok((self.function(function)?, keywords))
    }

    #[inline]
    fn commit(&mut self, chunk: &mut Chunk, result: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py;
        if let Some((word, len)) = codec::encode_short(result) {
            self.limit.end(chunk).map_err(errors::heap)?;
            return chunk.commit_short(word, len).map_err(errors::heap);
        }
        if result.is_exact_instance_of::<PyFloat>() {
            self.limit.end(chunk).map_err(errors::heap)?;
            let word = result.extract::<f64>()?.to_bits();
            return chunk.commit_word(word).map_err(errors::heap);
        }
        let committed = match codec::encode(result) {
            Ok(encoded) => {
                self.limit.end(chunk).map_err(errors::heap)?;
                encoded.with(py, |outgoing| chunk.commit(outgoing))?.map_err(errors::heap)
            }
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => Ok(()),
            Err(error) => self.fail(chunk, |_| Failure::unsent(py, &error, result)),
        }
    }

    /// Has an error for want of memory say which limit was met.
    fn name_limits(&self, error: &PyErr) {
        if error.is_instance_of::<PyMemoryError>(self.py) {
            let faults = self.py.import("tenfold._faults");
            // Without memory for the words, the error stays as it is.
            let _ = faults.and_then(|faults| faults.call_method1("name_limits", (error.value(self.py),)));
        }
    }

    /// Commits that the running item has failed. A report that does not fit into the heap becomes one that says so.
    #[cold]
    fn fail(&mut self, chunk: &mut Chunk, failure: impl FnOnce(&Self) -> PyResult<Failure>) -> PyResult<()> {
        // The report is not the task any more: a further Ctrl-C is for the parent.
        let _mask = signals::block(SIGINT);
        unless_interrupted(self.py, self.py.check_signals())?;
        let failure = failure(self)?;
        self.limit.end(chunk).map_err(errors::heap)?;
        failure.commit(self.py, chunk).or_else(|error| Failure::raised(self.py, &error)?.commit(self.py, chunk))
    }
}

/// The argument, or the tuple of arguments, that an item is.
#[inline]
fn argument(py: Python<'_>, chunk: &Chunk, item: usize) -> PyResult<Py<PyAny>> {
    let decoded = chunk.with_input(item, |bytes| codec::decode(py, bytes), |payload| decode_long(py, payload));
    decoded.map_err(errors::heap)?
}

#[cold]
fn decode_long(py: Python<'_>, payload: Payload) -> PyResult<Py<PyAny>> {
    codec::decode_payload(py, payload)
}

fn call<'py>(
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyAny>,
    keywords: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let args = args.cast::<PyTuple>()?;
    match keywords {
        None => function.call1(args),
        Some(keywords) => function.call(args, Some(keywords.cast::<PyDict>()?)),
    }
}

fn nonsense() -> PyErr {
    PyValueError::new_err("a task does not make sense: some process has written over shared memory")
}
