//! How a typed function becomes a task, and what may become of it.

use core::marker::PhantomData;

use tenfold_engine::HeapError;
use tenfold_engine::pool::board::TaskInput;
use tenfold_engine::pool::{Failure, FailureKind, TASK_FINGERPRINT, TaskRun};
use tenfold_engine::sys::executable::{Function, Trampoline};
use tenfold_engine::sys::process::ExitStatus;

use crate::error::{Error, Result};
use crate::payload::{self, Message};

/// Why a task has no result. The pool lives on in all cases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The worker was killed, crashed or exited while it ran this task.
    #[error("task {index}: its worker died{}", describe(.status))]
    WorkerDied {
        /// The task's place among the inputs.
        index: u64,
        /// How the worker ended, if anybody saw it.
        status: Option<ExitStatus>,
    },
    /// The task took longer than its time limit, and its worker was killed.
    #[error("task {index} took longer than its time limit; its worker was killed")]
    TimedOut {
        /// The task's place among the inputs.
        index: u64,
    },
    /// The task was cancelled.
    #[error("task {index} was cancelled")]
    Cancelled {
        /// The task's place among the inputs.
        index: u64,
    },
    /// The function panicked.
    #[error("task {index} panicked: {message}")]
    Panicked {
        /// The task's place among the inputs.
        index: u64,
        /// What the panic said.
        message: String,
        /// The worker's stack at the time.
        backtrace: String,
    },
    /// The argument or the result could not travel, or the worker does not know the function.
    #[error("task {index}: {reason}")]
    NotRun {
        /// The task's place among the inputs.
        index: u64,
        /// What was wrong.
        reason: String,
    },
}

fn describe(status: &Option<ExitStatus>) -> String {
    match status {
        Some(ExitStatus::Exited(code)) => format!(" by exiting with code {code}"),
        Some(ExitStatus::Signaled { signal, .. }) => {
            let name = match signal {
                4 => " (SIGILL)",
                6 => " (SIGABRT: abort, or a panic inside a panic)",
                7 => " (SIGBUS)",
                8 => " (SIGFPE)",
                9 => " (SIGKILL: killed, perhaps by the kernel for want of memory)",
                11 => " (SIGSEGV: a bad memory access or a stack overflow)",
                15 => " (SIGTERM)",
                _ => "",
            };
            format!(" by signal {signal}{name}")
        }
        None => " (nobody saw how)".to_owned(),
    }
}

impl TaskError {
    /// The failed task's place among the inputs.
    pub fn index(&self) -> u64 {
        match self {
            TaskError::WorkerDied { index, .. }
            | TaskError::TimedOut { index }
            | TaskError::Cancelled { index }
            | TaskError::Panicked { index, .. }
            | TaskError::NotRun { index, .. } => *index,
        }
    }

    pub(super) fn from_failure(index: u64, report: &[u8]) -> TaskError {
        let failure = Failure::from_bytes(report);
        match failure.kind {
            FailureKind::Panicked => TaskError::Panicked { index, message: failure.text, backtrace: failure.backtrace },
            _ => TaskError::NotRun { index, reason: failure.text },
        }
    }
}

/// What a pool can run: a function, or a closure that captures nothing, since the workers see
/// nothing that the caller's process has but what is passed as the argument. A closure that
/// captures is a compile error.
pub trait Task<A, R>: Fn(A) -> R + Copy + Send + Sync + 'static {}
impl<F: Fn(A) -> R + Copy + Send + Sync + 'static, A, R> Task<A, R> for F {}

/// Runs a function on each item of a chunk.
struct Each<A, R>(PhantomData<fn(A) -> R>);

impl<F: Task<A, R>, A: Message, R: Message> Trampoline<F> for Each<A, R> {
    type Context = TaskRun;
    type Output = core::result::Result<(), HeapError>;
    const FINGERPRINT: u64 = TASK_FINGERPRINT;

    fn call(function: F, run: &mut TaskRun) -> core::result::Result<(), HeapError> {
        if let (Some(_), Some(result)) = (short::<A>(), short::<R>())
            && let Some(raw) = run.raw()?
        {
            return raw.run(result, |bytes| payload::to_word(&function(payload::read_raw(bytes))));
        }
        while let Some(input) = run.begin()? {
            let argument = match input {
                TaskInput::Inline(bytes) => payload::decode::<A>(&bytes, Vec::new()),
                TaskInput::Boxed(bytes, handles) => payload::decode::<A>(&bytes, handles),
            };
            match argument {
                Ok(argument) => {
                    let result = function(argument);
                    match payload::encoded(&result, |bytes, handles| run.commit(bytes, handles)) {
                        Ok(committed) => committed?,
                        Err(error) => run.fail(&Failure::new(FailureKind::Result, error.to_string()))?,
                    }
                }
                Err(error) => run.fail(&Failure::new(FailureKind::Argument, error.to_string()))?,
            }
        }
        Ok(())
    }
}

/// Bytes of a type whose values travel as they lie in memory, in a word.
pub(super) fn short<T: 'static>() -> Option<usize> {
    payload::raw_size::<T>().filter(|size| *size <= 8)
}

/// Where the entry is that runs `function` on each item.
pub(super) fn entry_of<F: Task<A, R>, A: Message, R: Message>(function: F) -> Result<u64> {
    Function::of(function).entry::<Each<A, R>>().offset().ok_or_else(|| {
        Error::InvalidArgument(
            "the function lies in a shared library; workers can only run functions of the program itself".to_owned(),
        )
    })
}
