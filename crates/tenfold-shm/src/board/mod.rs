//! The board of a pool: batches of tasks that wait for a worker.
//!
//! ```text
//!  board ── first ──▶ batch ── next ──▶ batch ── next ──▶ 0        the cells of this chain own the
//!    │ last ───────────────────────────────▲                       references
//!    │ state, work futex, spinner, bells, workers
//!    └ reason: a message, once the pool is broken
//! ```
//!
//! Workers take chunks of the first batch until none is left in it, then unlink it. A worker's slot
//! names the batch that it works on in one of its cells, so a batch lives as long as anybody needs
//! it, and the sweep of a dead worker finds what to settle ([`settle`]).
//!
//! A *bell* is where a submitter waits for results: a futex word and a count of waiters, so that
//! nobody is woken who does not sleep.
//!
//! *Killed here:* the chain changes under the board's lock with a redo record. A spinner (the one
//! idle worker that looks for work without sleeping) that dies is forgotten by its sweep.

mod batch;
mod chunk;
mod idle;
mod open;
mod plan;
mod raw;
mod settle;
mod submitted;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use tenfold_sys::clock::Deadline;
use tenfold_sys::futex;

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Shared, Word};
use crate::internal_lock::{InternalLock, Store};
use crate::kill_point::{KillPoint, reach};
use crate::message::{self, Outgoing};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Death, Identity, Seat, seat};

pub(crate) use batch::dismantle as dismantle_batch;
pub use chunk::{Chunk, RawInputs, TaskInput};
pub use open::OpenBatch;
pub use plan::{BatchPlan, Preamble};
pub use raw::RawBatch;
pub(crate) use settle::worker_died;
pub use submitted::{Batch, Cancel, Outcome};

/// The cell of a worker's slot that names the batch it works on.
pub const WORK_CELL: usize = 8;
/// The word of a worker's slot that holds the running item's number plus one.
pub const RUNNING_WORD: usize = 8;
/// The word of a worker's slot that holds when the running item's time is up, in nanoseconds of the
/// monotonic clock; 0 if it has no limit.
pub const DEADLINE_WORD: usize = 9;
/// The word of a worker's slot that holds the id of its board, which is not a reference.
pub const BOARD_WORD: usize = 10;
/// The word of a worker's slot that is not zero once the worker is ready.
pub const READY_WORD: usize = 11;
/// Bells of a board.
pub const BELLS: usize = 32;
/// The bell of a pool's callback thread.
pub const WATCHER_BELL: usize = 0;
/// Workers of a board.
pub const WORKERS: usize = 512;

/// How a pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum BoardState {
    /// Takes work.
    Open = 0,
    /// Finishes what it has and takes nothing new.
    Closed = 1,
    /// Ended; what was not finished never will be.
    Terminated = 2,
    /// Its workers cannot start.
    Broken = 3,
}

#[repr(C)]
struct Bell {
    rings: AtomicU32,
    waiters: AtomicU32,
}

#[repr(C)]
struct Shape {
    lock: InternalLock,
    first: AtomicU64,
    last: AtomicU64,
    /// A batch that is leaving the chain of a board that nobody needs any more.
    leaving: AtomicU64,
    reason: AtomicU64,
    recipe: AtomicU64,
    state: AtomicU32,
    owner: AtomicU32,
    /// Moves when work comes in; idle workers sleep on it.
    work: AtomicU32,
    sleepers: AtomicU32,
    /// Identity of the one idle worker that spins.
    spinner: AtomicU32,
    /// Not zero while a worker that was woken for single items is not up yet.
    calling: AtomicU32,
    next_bell: AtomicU32,
    /// Workers that were started, ever.
    started: AtomicU32,
    /// Workers that have run their initializer, ever.
    ready: AtomicU32,
    wanted: AtomicU32,
    bells: [Bell; BELLS],
    workers: [AtomicU32; WORKERS],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Shape {}

/// A look at a board without a handle to it.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    /// How the pool is doing.
    pub state: BoardState,
    /// The process that made the pool.
    pub owner: Option<Identity>,
    /// How many workers it is to have.
    pub wanted: u32,
    /// How many were started, ever.
    pub started: u32,
    /// How many have become ready, ever.
    pub ready: u32,
    /// Whether batches wait for a worker.
    pub has_work: bool,
}

/// A pool's board.
#[derive(Debug, Clone)]
pub struct Board {
    handle: Handle,
    shape: At<Shape>,
}

impl Board {
    /// A board for `workers` workers, owned by this process.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, workers: u32) -> Result<Board> {
        let me = participant::me(heap)?;
        let handle = Handle::create(heap, ObjectKind::Board, size_of::<Shape>() as u64, |block| {
            let shape = block.view::<Shape>(heap, 0)?;
            shape.owner.store(me.bits(), Ordering::Relaxed);
            shape.wanted.store(workers, Ordering::Relaxed);
            Ok(())
        })?;
        Board::from_handle(handle)
    }

    /// The board behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Board> {
        let handle = handle.expect(ObjectKind::Board)?;
        let shape = handle.view::<Shape>()?;
        Ok(Board { handle, shape })
    }

    /// Keeps what is needed to start a worker.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn set_recipe(&self, bytes: &[u8], handles: &[Handle]) -> Result<()> {
        let cell = self.shape.field(|s| &s.recipe);
        message::write(self.heap(), seat(self.heap())?, Outgoing { parts: &[bytes], handles }, cell)?;
        Ok(())
    }

    /// What is needed to start a worker.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn recipe(&self) -> Result<(Vec<u8>, Vec<Handle>)> {
        let id = BlockId::from_bits(self.shape.recipe.load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
        message::read_in_place(self.heap(), id)
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    fn heap(&self) -> Heap {
        self.handle.heap()
    }

    /// Looks at the board `id`, which the caller holds no reference to; `None` if it is gone.
    pub fn glance(heap: Heap, id: BlockId) -> Option<Glance> {
        let block = heap.block(id).ok().filter(|b| b.kind == ObjectKind::Board as u8)?;
        let shape = block.view::<Shape>(heap, 0).ok()?;
        let glance = Glance {
            state: state(&shape),
            owner: Identity::from_bits(shape.owner.load(Ordering::Acquire)),
            wanted: shape.wanted.load(Ordering::Acquire),
            started: shape.started.load(Ordering::Acquire),
            ready: shape.ready.load(Ordering::Acquire),
            has_work: shape.first.load(Ordering::Acquire) != 0,
        };
        // Still the same board: what was read is of it.
        heap.block(id).ok().map(|_| glance)
    }

    /// Counts a worker that is about to be started for the board `id`.
    pub fn note_start(heap: Heap, id: BlockId) {
        if let Ok(shape) = heap.block(id).and_then(|block| block.view::<Shape>(heap, 0)) {
            shape.started.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How the pool is doing.
    pub fn state(&self) -> BoardState {
        state(&self.shape)
    }

    /// How many workers the pool is to have.
    pub fn wanted(&self) -> u32 {
        self.shape.wanted.load(Ordering::Acquire)
    }

    /// The process that made the pool, while its slot is its own.
    pub fn owner(&self) -> Option<Identity> {
        Identity::from_bits(self.shape.owner.load(Ordering::Acquire)).filter(|who| who.is_current(self.heap()))
    }

    /// Takes nothing new from now on.
    pub fn close(&self) {
        self.change_state(BoardState::Open, BoardState::Closed);
    }

    /// Ends the pool: workers stop after what they are doing, waiters get an error.
    pub fn terminate(&self) {
        for from in [BoardState::Open, BoardState::Closed] {
            self.change_state(from, BoardState::Terminated);
        }
    }

    /// The pool cannot start workers: every call gets `reason`. The first reason stands; returns whether this is it.
    ///
    /// # Errors
    /// If the heap has no room for the reason.
    pub fn declare_broken(&self, reason: &[u8]) -> Result<bool> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let transit = seat.transit(0);
        let id = message::write(heap, seat, Outgoing { parts: &[reason], handles: &[] }, transit)?;
        let guard = self.shape.field(|s| &s.lock).lock_from(heap, seat)?;
        let cell = self.shape.field(|s| &s.reason);
        let first = cell.load(Ordering::Relaxed) == 0;
        if first {
            guard.commit([Store::new(cell, id.bits()), Store::new(transit, 0)]);
        }
        drop(guard);
        object::release(heap, seat, transit)?;
        for from in [BoardState::Open, BoardState::Closed] {
            self.change_state(from, BoardState::Broken);
        }
        Ok(first)
    }

    /// Why the pool is broken.
    ///
    /// # Errors
    /// If the reason cannot be read.
    pub fn reason(&self) -> Result<Option<Vec<u8>>> {
        match BlockId::from_bits(self.shape.reason.load(Ordering::Acquire)) {
            Some(id) => message::read_in_place(self.heap(), id).map(|(bytes, _)| Some(bytes)),
            None => Ok(None),
        }
    }

    fn change_state(&self, from: BoardState, to: BoardState) {
        let word = &self.shape.get().state;
        if word.compare_exchange(from as u32, to as u32, Ordering::SeqCst, Ordering::Acquire).is_ok() {
            self.wake_workers(u32::MAX);
            for bell in &self.shape.get().bells {
                ring(bell);
            }
        }
    }

    /// A number for the next job's results: which bell rings for them.
    pub fn next_bell(&self) -> usize {
        1 + self.shape.next_bell.fetch_add(1, Ordering::Relaxed) as usize % (BELLS - 1)
    }

    /// How often a bell has rung, to be passed to [`Board::wait`].
    pub fn rings(&self, bell: usize) -> u32 {
        self.shape.get().bells[bell % BELLS].rings.load(Ordering::SeqCst)
    }

    /// Rings a bell.
    pub fn ring(&self, bell: usize) {
        ring(&self.shape.get().bells[bell % BELLS]);
    }

    /// Says that somebody is about to wait at a bell (or no longer is).
    pub fn attend(&self, bell: usize, waiting: bool) {
        let waiters = &self.shape.get().bells[bell % BELLS].waiters;
        if waiting {
            waiters.fetch_add(1, Ordering::SeqCst);
        } else {
            // A killed waiter leaves the count too high, which only costs wake-ups of nobody; a
            // scribbled one must not wrap.
            let _ = waiters.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |n| n.checked_sub(1));
        }
    }

    /// Sleeps until the bell rings after `seen`, or the deadline.
    pub fn wait(&self, bell: usize, seen: u32, deadline: Deadline) {
        futex::wait(&self.shape.get().bells[bell % BELLS].rings, seen, deadline);
    }

    /// Puts a batch at the end of the chain.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn submit(&self, batch: &Batch) -> Result<()> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let transit = seat.transit(0);
        batch.handle().refer_from(transit)?;
        self.enlist(heap, seat, batch.block(), true)
    }

    /// Tells the workers of an item that was added to an open batch.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn announce(&self, open: &OpenBatch) -> Result<()> {
        let (heap, batch) = (self.heap(), open.batch());
        // The item was published before this look; who unlinks the batch looks for items after it.
        fence(Ordering::SeqCst);
        if batch::listed(heap, batch.block())?.load(Ordering::SeqCst) == 0 {
            return self.submit(batch);
        }
        self.call_one();
        Ok(())
    }

    /// Moves the reference in the seat's first transit cell into the chain.
    fn enlist(&self, heap: Heap, seat: Seat, block: Block, at_end: bool) -> Result<()> {
        let transit = seat.transit(0);
        let shape = self.shape;
        let id = block.id().bits();
        let listed = batch::listed(heap, block)?;
        let next = batch::next(heap, block)?;
        let guard = shape.field(|s| &s.lock).lock_from(heap, seat)?;
        if listed.load(Ordering::Relaxed) != 0 {
            drop(guard);
            return object::release(heap, seat, transit);
        }
        let (first, last) = (shape.field(|s| &s.first), shape.field(|s| &s.last));
        let tail = BlockId::from_bits(last.load(Ordering::Relaxed)).filter(|_| first.load(Ordering::Relaxed) != 0);
        match (at_end, tail) {
            (true, Some(tail)) => guard.commit([
                Store::new(batch::next(heap, heap.block(tail)?)?, id),
                Store::new(last, id),
                Store::new(listed, 1),
                Store::new(transit, 0),
            ]),
            (_, None) => guard.commit([
                Store::new(first, id),
                Store::new(last, id),
                Store::new(listed, 1),
                Store::new(transit, 0),
            ]),
            (false, Some(_)) => guard.commit([
                Store::new(next, first.load(Ordering::Relaxed)),
                Store::new(first, id),
                Store::new(listed, 1),
                Store::new(transit, 0),
            ]),
        }
        drop(guard);
        self.call_workers(batch::remaining(heap, block)?);
        Ok(())
    }

    /// Gives the calling worker a chunk of the first batch that has one, and names the batch in the
    /// worker's slot. `None` if there is no work now.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn claim(&self) -> Result<Option<Chunk>> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let cell = work_cell(heap, seat);
        loop {
            if let Some(id) = BlockId::from_bits(cell.load(Ordering::Relaxed)) {
                if self.state() != BoardState::Terminated
                    && let Some(chunk) = Chunk::claim(heap, seat, heap.block(id)?)?
                {
                    reach(KillPoint::BoardClaimed);
                    self.pass_on(heap, id)?;
                    return Ok(Some(chunk));
                }
                if self.may_get_more(heap, id)? {
                    return Ok(None);
                }
                object::release(heap, seat, cell)?;
            }
            if self.state() == BoardState::Terminated || !self.take_first(heap, seat)? {
                return Ok(None);
            }
        }
    }

    /// Names the first batch with work in the worker's cell; unlinks those that have none left.
    fn take_first(&self, heap: Heap, seat: Seat) -> Result<bool> {
        let shape = self.shape;
        let cell = work_cell(heap, seat);
        let first = shape.field(|s| &s.first);
        if first.load(Ordering::Acquire) == 0 {
            return Ok(false);
        }
        loop {
            let guard = shape.field(|s| &s.lock).lock_from(heap, seat)?;
            let Some(id) = BlockId::from_bits(first.load(Ordering::Relaxed)) else { return Ok(false) };
            let block = heap.block(id)?;
            let remaining = batch::remaining(heap, block)?;
            if remaining > 1 || remaining == 1 && batch::is_open(heap, block)? {
                object::add_ref(heap, seat, id, cell)?;
                return Ok(true);
            }
            // The last chunk, or none: the chain's reference moves to the worker.
            let next = batch::next(heap, block)?;
            guard.commit([
                Store::new(first, next.load(Ordering::Relaxed)),
                Store::new(next, 0),
                Store::new(batch::listed(heap, block)?, 0),
                Store::new(cell, id.bits()),
            ]);
            drop(guard);
            reach(KillPoint::BoardUnlinked);
            // An item that was added to an open batch meanwhile found it in the chain.
            fence(Ordering::SeqCst);
            match batch::remaining(heap, block)? {
                0 => object::release(heap, seat, cell)?,
                1 => return Ok(true),
                _ => {
                    object::add_ref(heap, seat, id, seat.transit(0))?;
                    self.enlist(heap, seat, block, false)?;
                    return Ok(true);
                }
            }
        }
    }

    /// The calling worker ends: what it leaves undone goes to another one.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn leave(&self) -> Result<()> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let cell = work_cell(heap, seat);
        if let Some(id) = BlockId::from_bits(cell.load(Ordering::Acquire)) {
            let block = heap.block(id)?;
            if batch::remaining(heap, block)? > 0 && self.state() != BoardState::Terminated {
                object::add_ref(heap, seat, id, seat.transit(0))?;
                self.enlist(heap, seat, block, false)?;
            }
            object::release(heap, seat, cell)?;
        }
        Ok(())
    }

    /// Whether batches wait for a worker.
    pub fn has_work(&self) -> bool {
        self.shape.first.load(Ordering::SeqCst) != 0
    }

    /// Rings a bell if somebody waits at it.
    pub fn ring_for_waiters(&self, bell: usize) {
        let bell = &self.shape.get().bells[bell % BELLS];
        if bell.waiters.load(Ordering::SeqCst) > 0 {
            ring(bell);
        }
    }

    /// Rings the bell that `chunk`'s results are waited for at, if somebody waits and it is time.
    pub fn tell(&self, chunk: &Chunk) {
        if let Some((bell, watched)) = chunk.finished() {
            self.ring_for_waiters(bell);
            if watched {
                self.ring_for_waiters(WATCHER_BELL);
            }
        }
    }

    /// A worker has run its initializer and is ready for work.
    ///
    /// # Errors
    /// If this process has no slot; if there is no room for a further worker.
    pub fn join_as_worker(&self) -> Result<()> {
        let heap = self.heap();
        let me = participant::me(heap)?;
        // In this order: a death in between counts as one before the worker was ready.
        participant::slot(me.slot(), heap).words[READY_WORD].store(1, Ordering::SeqCst);
        self.shape.ready.fetch_add(1, Ordering::SeqCst);
        for word in &self.shape.get().workers {
            let there = word.load(Ordering::Acquire);
            if Identity::from_bits(there).is_none_or(|who| !who.is_current(heap))
                && word.compare_exchange(there, me.bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return Ok(());
            }
        }
        Err(HeapError::TooManyProcesses { limit: WORKERS as u32 })
    }

    /// The workers that are ready and whose slots are their own.
    pub fn workers(&self) -> Vec<Identity> {
        let words = self.shape.get().workers.iter();
        let known = words.filter_map(|word| Identity::from_bits(word.load(Ordering::Acquire)));
        known.filter(|who| who.is_current(self.heap())).collect()
    }
}

fn state(shape: &Shape) -> BoardState {
    match shape.state.load(Ordering::Acquire) {
        0 => BoardState::Open,
        1 => BoardState::Closed,
        2 => BoardState::Terminated,
        _ => BoardState::Broken,
    }
}

/// The cell of this process's slot that names the batch it works on.
fn work_cell(heap: Heap, seat: Seat) -> Word {
    participant::slot(seat.slot(), heap).field(|s| &s.cells[WORK_CELL])
}

fn ring(bell: &Bell) {
    bell.rings.fetch_add(1, Ordering::SeqCst);
    futex::wake(&bell.rings, u32::MAX);
}

/// A process that held the board is dead: its owner, a worker, or the nursery.
pub(crate) fn owner_died(heap: Heap, death: &Death, block: Block) -> Result<()> {
    let dead = death.identity;
    let shape = block.view::<Shape>(heap, 0)?;
    if shape.owner.load(Ordering::Acquire) == dead.bits() {
        for from in [BoardState::Open, BoardState::Closed] {
            let _ = shape.state.compare_exchange(
                from as u32,
                BoardState::Terminated as u32,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
        }
    }
    let _ = shape.spinner.compare_exchange(dead.bits(), 0, Ordering::SeqCst, Ordering::Relaxed);
    // Whatever it was about to be told, or to tell, somebody else is told now.
    shape.calling.store(0, Ordering::SeqCst);
    shape.work.fetch_add(1, Ordering::SeqCst);
    futex::wake(&shape.get().work, u32::MAX);
    for bell in &shape.get().bells {
        ring(bell);
    }
    Ok(())
}

/// Frees what a board names.
pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let shape = block.view::<Shape>(heap, 0)?;
    let (first, leaving) = (shape.field(|s| &s.first), shape.field(|s| &s.leaving));
    // One by one: a batch may lean on one that stands before it, which must not hold it then.
    loop {
        object::release(heap, seat, leaving)?;
        let Some(id) = BlockId::from_bits(first.load(Ordering::Relaxed)) else { break };
        let next = batch::next(heap, heap.block(id)?)?;
        let guard = shape.field(|s| &s.lock).lock_from(heap, seat)?;
        guard.commit([
            Store::new(leaving, id.bits()),
            Store::new(first, next.load(Ordering::Relaxed)),
            Store::new(next, 0),
        ]);
        drop(guard);
    }
    object::release(heap, seat, shape.field(|s| &s.recipe))?;
    object::release(heap, seat, shape.field(|s| &s.reason))
}
