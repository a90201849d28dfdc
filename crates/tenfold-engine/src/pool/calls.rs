//! Single calls: each is one more item of the pool's open batch.
//!
//! ```text
//!  call, call, call ─▶ open batch ■■□□······ ─▶ workers        full, or another function: the next one
//! ```
//!
//! A batch of its own costs a call some microseconds, an item of one that is there already a few dozen
//! nanoseconds. The first batch for a function has room for one item, each further one for twice as many as
//! the one before: who calls once pays for one.
//!
//! A batch lives as long as anybody holds one of its items. So inputs that need memory of their own travel in
//! a batch of their own, and the caller says how many items may share one.

use std::sync::Mutex;

use tenfold_shm::board::{Batch, BatchPlan, Board, OpenBatch};
use tenfold_shm::message::Outgoing;
use tenfold_shm::participant::{self, Identity};
use tenfold_shm::{Heap, HeapError};

/// What is called, and on what terms; calls that agree in it can share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Where the function's entry is in the executable.
    pub function: u64,
    /// Nanoseconds that a call may take; 0 for no limit.
    pub timeout: u64,
    /// How often a call is tried again after its worker died.
    pub retries: u8,
    /// The most calls that may share a batch.
    pub share: usize,
}

/// A call's place on the board.
#[derive(Debug)]
pub struct Place {
    /// The batch.
    pub batch: Batch,
    /// Which of its items.
    pub item: usize,
}

/// The batch that further calls go into.
#[derive(Debug)]
struct Current {
    batch: OpenBatch,
    call: Call,
    /// Who adds to it: after a fork, the parent.
    owner: Identity,
    room: usize,
}

/// The single calls of a pool.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Option<Current>>);

/// Longer inputs travel alone.
const INPUT: usize = 1024;

impl Calls {
    /// Submits a call.
    ///
    /// # Errors
    /// If the heap has no room.
    pub(super) fn submit(
        &self,
        heap: Heap,
        board: &Board,
        call: Call,
        input: Outgoing<'_>,
    ) -> Result<Place, HeapError> {
        let alone = input.len() > INPUT || !input.handles.is_empty() || call.share < 2;
        // Another thread is at it; or one was, in the parent, when this process was forked.
        let Some(mut current) = (if alone { None } else { self.0.try_lock().ok() }) else {
            return add(board, &mut open(heap, board, call, 1, input.len())?, input)?.ok_or_else(|| no_room(board));
        };
        let me = participant::me(heap)?;
        let mut room = 1;
        if let Some(current) = current.as_mut().filter(|c| c.call == call && c.owner == me) {
            if let Some(place) = add(board, &mut current.batch, input)? {
                return Ok(place);
            }
            room = (2 * current.room).min(call.share);
        }
        let batch = open(heap, board, call, room, input.len())?;
        let current = current.insert(Current { batch, call, owner: me, room });
        add(board, &mut current.batch, input)?.ok_or_else(|| no_room(board))
    }

    /// Lets go of the batch that further calls would go into.
    pub(super) fn end(&self) {
        if let Ok(mut current) = self.0.try_lock() {
            *current = None;
        }
    }
}

/// A batch for `room` calls whose inputs are about as long as `len`.
fn open(heap: Heap, board: &Board, call: Call, room: usize, len: usize) -> Result<OpenBatch, HeapError> {
    let mut plan = BatchPlan::default();
    plan.function = call.function;
    plan.timeout = call.timeout;
    plan.retries = call.retries;
    plan.cancellable = true;
    plan.tell_each = true;
    plan.bell = board.next_bell() as u32;
    // Room to align the cell of an input that has a block of its own.
    OpenBatch::create(heap, board.handle(), &plan, room, room * (len + 8).next_multiple_of(8))
}

fn add(board: &Board, open: &mut OpenBatch, input: Outgoing<'_>) -> Result<Option<Place>, HeapError> {
    let Some(item) = open.push(input)? else { return Ok(None) };
    board.announce(open)?;
    Ok(Some(Place { batch: open.batch().clone(), item }))
}

#[cold]
fn no_room(board: &Board) -> HeapError {
    HeapError::corrupt("open batch", board.handle().block().offset())
}
