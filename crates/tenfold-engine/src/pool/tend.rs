//! Keeping a pool's workers up: what the nursery does for pools between two events.
//!
//! The caller has one worker launched; the nursery sees it in the roster, learns from it of the
//! board, and forks the others, and later one for each that ends. It keeps ids of boards, not
//! handles: what it forks would take a handle for its own.
//!
//! Workers that die before they are ready, one after the other, make a pool broken if none is ready. As long as one is,
//! the pool goes on with it, and the others are tried again one at a time, after longer and longer pauses.
//!
//! *Killed here:* the next nursery learns of a board from its living workers, or from the worker
//! that the pool's owner has launched when it finds none alive.

use core::cell::RefCell;
use core::sync::atomic::Ordering;
use core::time::Duration;

use tenfold_shm::board::{BOARD_WORD, Board, BoardState, READY_WORD};
use tenfold_shm::heap::{BlockId, SLOTS};
use tenfold_shm::message::{Outgoing, Payload};
use tenfold_shm::participant::{self, Identity};
use tenfold_shm::{Handle, Heap};
use tenfold_sys::clock::Deadline;
use tenfold_sys::executable::{Function, Trampoline};

use super::failure::{Failure, FailureKind};
use super::{PoolPlan, worker};
use crate::function::{self, Call, FINGERPRINT, Outcome};
use crate::launch::{self, LaunchError, LaunchSpec, Method};
use crate::places::{self, Service};

/// Workers in a row that may die before any of them is ready.
const FAILURES_MAX: u32 = 3;
/// The first pause before the next worker is tried, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Forks a process in the nursery.
pub(crate) type Fork<'a> = dyn FnMut(&LaunchSpec<'_>) -> Result<Identity, LaunchError> + 'a;

/// A board that the nursery looks after.
#[derive(Debug)]
struct Watch {
    board: BlockId,
    /// Workers that had become ready, ever, when it last looked.
    ready: u32,
    /// Workers that had died before they were ready, ever, when one last became ready.
    forgiven: u32,
    /// The same, when one was last seen to be ready.
    borne: u32,
    /// The same, when it last looked.
    failed: u32,
    /// When the next may be started.
    due: Deadline,
}

impl Watch {
    fn new(board: BlockId) -> Watch {
        Watch { board, ready: 0, forgiven: 0, borne: 0, failed: 0, due: Deadline::passed() }
    }

    /// Takes in how many workers have become ready, and how many have died before that, ever; and whether one is ready.
    fn note(&mut self, ready: u32, failed: u32, one_is_ready: bool) {
        if ready != self.ready {
            (self.ready, self.forgiven, self.due) = (ready, failed, Deadline::passed());
        }
        if one_is_ready {
            self.borne = failed;
        }
        let another = failed > self.failed;
        self.failed = failed;
        if another && let Some(pause) = self.pause() {
            self.due = Deadline::after(pause);
        }
    }

    /// How long to wait between two starts, if so many have failed in a row that it is one at a time.
    fn pause(&self) -> Option<Duration> {
        let more = self.failed.saturating_sub(self.forgiven).checked_sub(FAILURES_MAX)?;
        Some((PAUSES.0 * (1 << more.min(16))).min(PAUSES.1))
    }

    /// How many in a row have died while none was ready.
    fn hopeless(&self) -> u32 {
        self.failed.saturating_sub(self.forgiven.max(self.borne))
    }

    /// How many of those that are missing may be started now.
    fn allowed(&mut self, missing: u32, starting: u32, one_is_ready: bool) -> u32 {
        let Some(pause) = self.pause().filter(|_| one_is_ready) else { return missing };
        if missing == 0 || !self.due.expired() {
            return 0;
        }
        // Nobody rings when a worker becomes ready: look by then.
        self.due = Deadline::after(pause);
        missing.min(u32::from(starting == 0))
    }
}

thread_local! {
    static WATCHES: RefCell<Vec<Watch>> = const { RefCell::new(Vec::new()) };
}

/// Called by the nursery after each event. Returns when it is to be called again though there be none.
pub(crate) fn tend(heap: Heap, fork: &mut Fork<'_>) -> Deadline {
    let launched = Service::Pools.word(heap).load(Ordering::Acquire);
    let mut watches = WATCHES.take();
    let mut next = Deadline::never();
    if launched == 0 && watches.is_empty() {
        return next;
    }
    let alive = count_workers(heap);
    for Living { board, .. } in &alive {
        if !watches.iter().any(|w| w.board == *board) {
            watches.push(Watch::new(*board));
        }
    }
    watches.retain_mut(|watch| {
        let found = alive.iter().find(|living| living.board == watch.board);
        let wanted = look_after(heap, watch, found.map_or((0, 0), |living| (living.starting, living.ready)), fork);
        if wanted && !watch.due.expired() {
            next = next.min(watch.due);
        }
        wanted
    });
    if watches.is_empty() {
        let _ = Service::Pools.word(heap).compare_exchange(launched, 0, Ordering::AcqRel, Ordering::Acquire);
    }
    WATCHES.set(watches);
    next
}

/// Starts what is missing, given how many workers are starting and how many are ready. Returns
/// whether the board wants looking after any longer.
fn look_after(heap: Heap, watch: &mut Watch, (starting, ready): (u32, u32), fork: &mut Fork<'_>) -> bool {
    let alive = starting + ready;
    let Some(glance) = Board::glance(heap, watch.board) else { return false };
    if glance.state != BoardState::Open && !(glance.state == BoardState::Closed && glance.has_work) {
        return alive > 0;
    }
    let failed = glance.started.saturating_sub(glance.ready).saturating_sub(starting);
    watch.note(glance.ready, failed, ready > 0);
    let failures = watch.hopeless();
    if failures >= FAILURES_MAX {
        let text =
            format!("{failures} died before they were ready for work; look at the initializer, and at standard error");
        declare_broken(heap, watch.board, &Failure::new(FailureKind::Panicked, text));
        return alive > 0;
    }
    for _ in 0..watch.allowed(glance.wanted.saturating_sub(alive), starting, ready > 0) {
        Board::note_start(heap, watch.board);
        // Without room for a process now, the next event tries again, or the next look.
        if fork(&spec(watch.board, &[&watch.board.bits().to_le_bytes()], glance.owner)).is_err() {
            watch.due = Deadline::after(PAUSES.0);
            break;
        }
    }
    true
}

fn declare_broken(heap: Heap, board: BlockId, failure: &Failure) {
    if let Ok(board) = Handle::from_id(heap, board).and_then(Board::from_handle) {
        // Without room for the reason, callers learn no more than that their worker died.
        let _ = board.declare_broken(&failure.to_bytes());
    }
}

/// The workers of one board.
struct Living {
    board: BlockId,
    starting: u32,
    ready: u32,
}

/// Each board that has workers.
fn count_workers(heap: Heap) -> Vec<Living> {
    let mut found: Vec<Living> = Vec::new();
    for (who, board) in all_workers(heap) {
        let place = found.iter().position(|living| living.board == board).unwrap_or_else(|| {
            found.push(Living { board, starting: 0, ready: 0 });
            found.len() - 1
        });
        let ready = places::slot_word(heap, who, READY_WORD).load(Ordering::Acquire) != 0;
        found[place].ready += u32::from(ready);
        found[place].starting += u32::from(!ready);
    }
    found
}

fn all_workers(heap: Heap) -> impl Iterator<Item = (Identity, BlockId)> {
    (0..SLOTS).filter_map(move |slot| {
        let entry = participant::roster(slot, heap);
        if !entry.is_live() && !entry.is_birth() {
            return None;
        }
        let who = entry.identity(slot)?;
        let board = BlockId::from_bits(places::slot_word(heap, who, BOARD_WORD).load(Ordering::Acquire))?;
        Some((who, board))
    })
}

/// The workers of a board that are starting or alive, or dead and not swept.
pub(super) fn workers(heap: Heap, board: BlockId) -> Vec<Identity> {
    all_workers(heap).filter(|(_, id)| *id == board).map(|(who, _)| who).collect()
}

fn spec<'a>(board: BlockId, parts: &'a [&'a [u8]], owner: Option<Identity>) -> LaunchSpec<'a> {
    LaunchSpec {
        entry: entry().unwrap_or_default(),
        args: Outgoing { parts, handles: &[] },
        name: "tenfold-worker",
        daemon: true,
        outlive: false,
        method: Method::Forkserver,
        parent: owner,
        board: board.bits(),
    }
}

/// Has one worker of the board started.
pub(super) fn launch_worker(heap: Heap, board: &Board) -> Result<(), LaunchError> {
    if entry().is_none() {
        return Err(LaunchError::NotExported);
    }
    let id = board.handle().id();
    Board::note_start(heap, id);
    launch::launch(heap, &spec(id, &[&id.bits().to_le_bytes()], board.owner())).map(drop)
}

/// What a worker needs to know, for [`Board::set_recipe`].
pub(super) fn recipe(plan: &PoolPlan) -> Vec<u8> {
    let mut bytes = plan.max_tasks.to_le_bytes().to_vec();
    bytes.extend_from_slice(&plan.initializer.to_le_bytes());
    bytes.extend_from_slice(&plan.argument);
    bytes
}

struct Main;

impl<F: Fn(&mut Call) -> Result<(), String> + Copy + Send + Sync + 'static> Trampoline<F> for Main {
    type Context = Call;
    type Output = Result<(), String>;
    const FINGERPRINT: u64 = FINGERPRINT;
    fn call(function: F, call: &mut Call) -> Result<(), String> {
        function(call)
    }
}

/// Where the entry of a worker's main function is.
fn entry() -> Option<u64> {
    Function::of(worker_main).entry::<Main>().offset()
}

fn worker_main(call: &mut Call) -> Result<(), String> {
    let text = |error: &dyn core::fmt::Display| error.to_string();
    let heap = Heap::get().map_err(|e| text(&e))?;
    let bytes = call.input.to_vec().map_err(|e| text(&e))?;
    let id = bytes.try_into().ok().map(u64::from_le_bytes).and_then(BlockId::from_bits);
    // The pool is gone already: nothing to do.
    let Some(Ok(board)) = id.map(|id| Handle::from_id(heap, id).and_then(Board::from_handle)) else { return Ok(()) };
    let (recipe, handles) = board.recipe().map_err(|e| text(&e))?;
    let number = |at: usize| recipe.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (max_tasks, initializer) = (number(0), number(8));
    if initializer != 0 {
        let argument = recipe.get(16..).unwrap_or_default().to_vec();
        let input = Payload::owned(heap, argument, handles);
        if let Err(failure) = initialize(initializer, input) {
            // As long as others work, it is this worker's trouble alone.
            if !board.workers().is_empty() {
                eprintln!("tenfold: a pool goes on without a worker: {}", failure.text);
                return Err(failure.text);
            }
            return board.declare_broken(&failure.to_bytes()).map(drop).map_err(|e| text(&e));
        }
    }
    drop(recipe);
    worker::work(&board, max_tasks).map_err(|e| text(&e))
}

fn initialize(entry: u64, input: Payload) -> Result<(), Failure> {
    let Some(entry) = function::entry_at(entry) else {
        return Err(Failure::new(FailureKind::UnknownFunction, "the executable has no such initializer"));
    };
    let mut call = Call { input, output: Vec::new(), output_handles: Vec::new() };
    match function::call(entry, &mut call) {
        Outcome::Returned => Ok(()),
        Outcome::Failed(text) => {
            Err(Failure::new(FailureKind::Result, format!("the initializer returned an error: {text}")))
        }
        Outcome::Panicked(panic) => Err(Failure {
            kind: FailureKind::Panicked,
            text: format!("the initializer panicked: {}", panic.message),
            backtrace: panic.backtrace,
        }),
    }
}
