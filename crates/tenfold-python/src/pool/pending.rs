//! What a result knows of its tasks, and what is to be done next for it.
//!
//! Killed here: all of this is one process's own; the batches are the board's.

use std::collections::VecDeque;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tenfold_engine::shm::board::{Batch, Board};
use tenfold_engine::shm::participant::Identity;

/// What a result has come to.
pub(super) enum Settled {
    Value(Py<PyAny>),
    Error(Py<PyAny>),
}

/// The tasks whose results have not been unpickled yet.
#[derive(Default)]
pub(super) enum Tasks {
    #[default]
    None,
    /// That of a call, an item of a batch.
    One(Batch, usize),
    /// Those of a map.
    Many(Box<Many>),
}

pub(super) struct Many {
    pub(super) batches: VecDeque<Batch>,
    pub(super) results: Results,
    /// The first error.
    pub(super) error: Option<Py<PyAny>>,
}

/// The results of a map so far. They go straight into the list that its caller gets: of a million, another vector
/// would cost two thousand page faults.
pub(super) struct Results {
    list: Py<PyList>,
    len: usize,
    known: usize,
}

impl Results {
    /// # Errors
    /// If there is no memory for so many.
    pub(super) fn with_room(py: Python<'_>, len: usize) -> PyResult<Results> {
        let list = PyList::new(py, [py.None()])?.into_sequence().repeat(len)?.cast_into::<PyList>()?;
        Ok(Results { list: list.unbind(), len, known: 0 })
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Results {
        Results { list: self.list.clone_ref(py), ..*self }
    }

    #[inline]
    pub(super) fn push(&mut self, py: Python<'_>, value: Py<PyAny>) -> PyResult<()> {
        if self.known < self.len {
            self.list.bind(py).set_item(self.known, value)?;
        } else {
            // There are more than was said.
            self.list.bind(py).append(value)?;
        }
        self.known += 1;
        Ok(())
    }

    /// All of them.
    pub(super) fn finish(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.known < self.len {
            self.list.bind(py).del_slice(self.known, self.len)?;
        }
        Ok(self.list.into_any())
    }

    /// Shows the garbage collector what is held.
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.list)
    }
}

impl Tasks {
    /// Parts that become final one by one.
    pub(super) fn len(&self) -> usize {
        match self {
            Tasks::None => 0,
            Tasks::One(..) => 1,
            Tasks::Many(many) => many.batches.len(),
        }
    }

    pub(super) fn is_final(&self, part: usize) -> bool {
        match self {
            Tasks::None => true,
            Tasks::One(batch, item) => batch.is_final(*item),
            Tasks::Many(many) => many.batches.get(part).is_none_or(Batch::is_finished),
        }
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        let (one, many) = match self {
            Tasks::None => (None, None),
            Tasks::One(batch, _) => (Some(batch), None),
            Tasks::Many(many) => (None, Some(&many.batches)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) board: Option<Board>,
    /// The process that made the call.
    pub(super) owner: Option<Identity>,
    pub(super) tasks: Tasks,
    pub(super) settled: Option<Settled>,
    /// Somebody is unpickling.
    pub(super) busy: bool,
}

impl State {
    pub(super) fn many(&mut self) -> Option<&mut Many> {
        if let Tasks::Many(many) = &mut self.tasks { Some(many) } else { None }
    }

    /// What is to be done next. Only the caller does it, until `busy` is unset.
    pub(super) fn begin_step(&mut self) -> Step {
        if self.settled.is_some() {
            return Step::Settled;
        }
        if self.busy {
            return Step::Busy;
        }
        let step = match &self.tasks {
            tasks if !tasks.is_final(0) => return Step::Wait,
            Tasks::None => Step::Finish,
            Tasks::One(batch, item) => Step::Take(batch.clone(), *item),
            Tasks::Many(many) => many.batches.front().map_or(Step::Finish, |batch| Step::Collect(batch.clone())),
        };
        self.busy = true;
        step
    }
}

/// What is to be done next for a result.
pub(super) enum Step {
    /// Nothing.
    Settled,
    /// Another thread is unpickling.
    Busy,
    /// To wait: the first part is not final.
    Wait,
    /// To unpickle a call's result.
    Take(Batch, usize),
    /// To unpickle the first batch of a map.
    Collect(Batch),
    /// To settle: all is unpickled.
    Finish,
}
