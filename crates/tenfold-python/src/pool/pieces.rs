//! What a stream has: its results in pieces, and what is needed to add to them.
//!
//! ```text
//!  pieces:  batch 0..512 │ an error │ batch 0..37      in order: the first piece's next item, once it is final
//!           ■■□■□□□····                                in any order: whichever item is final; taken ones are marked
//! ```
//!
//! Killed here: all of this is one process's own; the batches are the board's.

use std::collections::VecDeque;

use pyo3::prelude::*;
use tenfold_engine::HeapError;
use tenfold_engine::shm::board::{Batch, BatchPlan, Board, OpenBatch, Outcome};
use tenfold_engine::shm::participant::Identity;

use super::submit::{OPEN_MOST, Place};

/// Tasks that wait for a worker when the feeder pauses, and bytes of their inputs.
const AHEAD: usize = 8192;
const AHEAD_BYTES: usize = 32 << 20;

/// Some results in the order of their inputs.
pub(super) enum Piece {
    /// Items of a batch.
    Tasks(Tasks),
    /// An input that could not be sent, or could not be had.
    Error(Py<PyAny>),
    /// That error, when it has been raised.
    Raised,
}

pub(super) struct Tasks {
    pub(super) batch: Batch,
    /// The number of the first one's input.
    base: u64,
    first: usize,
    end: usize,
    /// Items before this one have been taken.
    next: usize,
    taken: Vec<bool>,
    left: usize,
    /// Bytes of the inputs.
    bytes: usize,
}

#[derive(Default)]
pub(super) struct State {
    /// The process that made the call.
    pub(super) owner: Option<Identity>,
    pub(super) pieces: VecDeque<Piece>,
    pub(super) open: Option<OpenBatch>,
    /// Items that the next open batch is to have.
    pub(super) room: usize,
    pub(super) plan: BatchPlan,
    pub(super) board: Option<Board>,
    /// Inputs so far, and results that have been read.
    pub(super) fed: u64,
    pub(super) read: u64,
    /// No further inputs.
    pub(super) complete: bool,
    pub(super) buffersize: Option<usize>,
    pub(super) watched: bool,
    pub(super) ordered: bool,
}

/// What a reader finds.
pub(super) enum Found {
    Outcome(u64, Option<Outcome>),
    Error(Py<PyAny>),
    NotYet,
    End,
}

impl State {
    pub(super) fn error(&mut self, error: Py<PyAny>) {
        self.pieces.push_back(Piece::Error(error));
        self.fed += 1;
    }

    pub(super) fn task(&mut self, place: Place, bytes: usize) {
        let number = self.fed;
        self.fed += 1;
        if let Some(Piece::Tasks(tasks)) = self.pieces.back_mut()
            && tasks.end == place.item
            && tasks.batch.handle() == place.batch.handle()
        {
            tasks.end += 1;
            tasks.left += 1;
            tasks.bytes += bytes;
            return;
        }
        if self.watched {
            place.batch.watch();
        }
        let (first, end) = (place.item, place.item + 1);
        let taken = Vec::new();
        let tasks = Tasks { batch: place.batch, base: number, first, end, next: first, taken, left: 1, bytes };
        self.pieces.push_back(Piece::Tasks(tasks));
    }

    /// Nothing more will come. Returns what is let go of.
    pub(super) fn end(&mut self) -> VecDeque<Piece> {
        self.complete = true;
        core::mem::take(&mut self.pieces)
    }

    /// Whether the feeder is as far ahead as it may be.
    pub(super) fn is_far_ahead(&self) -> bool {
        if let Some(most) = self.buffersize {
            return self.fed - self.read >= most as u64;
        }
        if self.fed - self.read <= OPEN_MOST as u64 && self.pieces.len() < 16 {
            return false;
        }
        let (mut waiting, mut bytes) = (0, 0);
        for piece in self.pieces.iter().rev() {
            let Piece::Tasks(tasks) = piece else { continue };
            let unclaimed = (tasks.end - tasks.first).min(tasks.end.saturating_sub(tasks.batch.claimed()));
            if unclaimed == 0 {
                break;
            }
            waiting += unclaimed;
            bytes += tasks.bytes / (tasks.end - tasks.first).max(1) * unclaimed;
        }
        waiting >= AHEAD || bytes >= AHEAD_BYTES
    }

    /// Takes the next result in order.
    pub(super) fn first(&mut self) -> Result<Found, HeapError> {
        loop {
            let last = self.pieces.len() == 1;
            let Some(piece) = self.pieces.front_mut() else {
                return Ok(if self.complete { Found::End } else { Found::NotYet });
            };
            match piece {
                Piece::Raised => {}
                Piece::Error(_) => {
                    if let Some(Piece::Error(error)) = self.pieces.pop_front() {
                        self.read += 1;
                        return Ok(Found::Error(error));
                    }
                }
                Piece::Tasks(tasks) if tasks.next < tasks.end => {
                    if !tasks.batch.is_final(tasks.next) {
                        return Ok(Found::NotYet);
                    }
                    let item = tasks.next;
                    tasks.next += 1;
                    tasks.left -= 1;
                    self.read += 1;
                    let number = tasks.base + (item - tasks.first) as u64;
                    return Ok(Found::Outcome(number, tasks.batch.take(item)?));
                }
                // More may be added to the last one.
                Piece::Tasks(_) if last && !self.complete => return Ok(Found::NotYet),
                Piece::Tasks(_) => {}
            }
            self.pieces.pop_front();
        }
    }

    /// Takes any result that is there.
    pub(super) fn any(&mut self) -> Result<Found, HeapError> {
        while self.pieces.front().is_some_and(|piece| match piece {
            Piece::Raised => true,
            Piece::Error(_) => false,
            Piece::Tasks(tasks) => tasks.left == 0,
        }) && (self.pieces.len() > 1 || self.complete)
        {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.complete {
            return Ok(Found::End);
        }
        let Some((place, item)) = self.find_any() else { return Ok(Found::NotYet) };
        self.read += 1;
        match &mut self.pieces[place] {
            Piece::Tasks(tasks) => {
                tasks.mark_taken(item);
                let number = tasks.base + (item - tasks.first) as u64;
                Ok(Found::Outcome(number, tasks.batch.take(item)?))
            }
            piece => match core::mem::replace(piece, Piece::Raised) {
                Piece::Error(error) => Ok(Found::Error(error)),
                _ => Ok(Found::NotYet),
            },
        }
    }

    /// Where a result is, or an error of the inputs: that comes after the results of the inputs before it, so that who
    /// stops at it has missed none.
    fn find_any(&self) -> Option<(usize, usize)> {
        let mut all_read = true;
        for (place, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Raised => {}
                Piece::Error(_) if all_read => return Some((place, 0)),
                Piece::Error(_) => {}
                Piece::Tasks(tasks) if tasks.left == 0 => {}
                Piece::Tasks(tasks) => {
                    let end = tasks.end.min(tasks.batch.claimed());
                    let found = (tasks.next..end).find(|&item| !tasks.is_taken(item) && tasks.batch.is_final(item));
                    if let Some(item) = found {
                        return Some((place, item));
                    }
                    // Batches are claimed one after the other.
                    if end < tasks.end {
                        return None;
                    }
                    all_read = false;
                }
            }
        }
        None
    }

    pub(super) fn has_result(&self) -> bool {
        if !self.ordered {
            return self.find_any().is_some() || (self.complete && self.left() == 0);
        }
        for piece in &self.pieces {
            match piece {
                Piece::Raised => {}
                Piece::Error(_) => return true,
                Piece::Tasks(tasks) if tasks.next < tasks.end => return tasks.batch.is_final(tasks.next),
                Piece::Tasks(_) => {}
            }
        }
        self.complete
    }

    fn left(&self) -> usize {
        let left = |piece: &Piece| match piece {
            Piece::Tasks(tasks) => tasks.left,
            Piece::Error(_) => 1,
            Piece::Raised => 0,
        };
        self.pieces.iter().map(left).sum()
    }
}

impl Tasks {
    fn is_taken(&self, item: usize) -> bool {
        self.taken.get(item - self.first).copied().unwrap_or(false)
    }

    fn mark_taken(&mut self, item: usize) {
        let at = item - self.first;
        if self.taken.len() <= at {
            self.taken.resize(at + 1, false);
        }
        self.taken[at] = true;
        self.left -= 1;
        while self.next < self.end && self.is_taken(self.next) {
            self.next += 1;
        }
    }
}
