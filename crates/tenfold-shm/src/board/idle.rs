//! Workers that have nothing to do, and how they are called.
//!
//! ```text
//!  at work ──▶ spins (one at a time, some microseconds) ──▶ sleeps on `work`
//!     ▲              │ sees an item                             │ woken
//!     └──────────────┴── claims it, and calls the next one ─────┘
//! ```
//!
//! Who brings a whole batch wakes as many as it has chunks. Who adds single items, perhaps a million a second,
//! calls nobody while a worker spins or is on its way up (`calling`), and one worker otherwise. So a worker that
//! was idle calls the next one once it has claimed something, if more is left.
//!
//! *Killed here:* a caller between `calling` and the wake-up, or a worker between the two: both hold the
//! board, and the sweep of a holder clears `calling` and wakes all.

use core::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tenfold_sys::clock::Deadline;
use tenfold_sys::futex;

use super::{Board, BoardState, batch, work_cell};
use crate::error::Result;
use crate::heap::{BlockId, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::object;
use crate::participant::seat;

/// Looks for work before sleeping: about thirty microseconds.
const SPINS: u32 = 600;

/// Whether this process, a worker, has been idle and not claimed anything since.
static WAS_IDLE: AtomicBool = AtomicBool::new(false);

impl Board {
    /// Makes sure that workers look at a new batch, as many as it has chunks.
    pub(super) fn call_workers(&self, chunks: u32) {
        let shape = self.shape.get();
        shape.work.fetch_add(1, Ordering::SeqCst);
        let sleepers = shape.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            let spinning = u32::from(shape.spinner.load(Ordering::SeqCst) != 0);
            let wake = chunks.saturating_sub(spinning).min(sleepers);
            if wake > 0 {
                futex::wake(&shape.work, wake);
            }
        }
    }

    /// Makes sure that some worker looks at a new item. A sleeper counts itself before it looks for the last
    /// time, so either it sees the item or it is seen here.
    pub(super) fn call_one(&self) {
        let shape = self.shape.get();
        if shape.sleepers.load(Ordering::SeqCst) == 0
            || shape.spinner.load(Ordering::SeqCst) != 0
            || shape.calling.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err()
        {
            return;
        }
        reach(KillPoint::BoardCalling);
        shape.work.fetch_add(1, Ordering::SeqCst);
        // If nobody is woken, whoever is counted is on the way up already, or finds the word changed, or was killed:
        // it is of no use to call again before somebody has looked for work.
        futex::wake(&shape.work, 1);
    }

    pub(super) fn wake_workers(&self, count: u32) {
        let shape = self.shape.get();
        shape.work.fetch_add(1, Ordering::SeqCst);
        futex::wake(&shape.work, count);
    }

    /// For who waits and sees nothing happen: makes good for a call that was not answered, because the worker
    /// that was woken is stopped, say.
    pub fn call_again(&self) {
        if self.has_work() {
            self.shape.calling.store(0, Ordering::SeqCst);
            self.wake_workers(u32::MAX);
        }
    }

    /// After a claim in the batch `id`: if this worker was idle before, and there is more to do, another one
    /// is called.
    pub(super) fn pass_on(&self, heap: Heap, id: BlockId) -> Result<()> {
        if !WAS_IDLE.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let shape = self.shape.get();
        let more = shape.first.load(Ordering::SeqCst) != id.bits() && self.has_work();
        if more || batch::remaining(heap, heap.block(id)?)? > 0 {
            self.call_one();
        }
        Ok(())
    }

    /// Whether the batch `id`, in which nothing is left to claim, is the board's only one and may get further
    /// items: then the worker stays with it for as long as it spins.
    pub(super) fn may_get_more(&self, heap: Heap, id: BlockId) -> Result<bool> {
        let only =
            self.shape.first.load(Ordering::SeqCst) == id.bits() && self.shape.last.load(Ordering::SeqCst) == id.bits();
        Ok(only && self.state() == BoardState::Open && batch::is_open(heap, heap.block(id)?)?)
    }

    /// Waits until there may be work, or the pool has ended. Spins a little first, if no other
    /// worker does; then sleeps, for as long as nothing comes. Returns early now and then.
    ///
    /// # Errors
    /// If this process has no slot, or the heap is corrupt.
    pub fn wait_for_work(&self) -> Result<()> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let shape = self.shape.get();
        WAS_IDLE.store(true, Ordering::Relaxed);
        let cell = work_cell(heap, seat);
        let held = BlockId::from_bits(cell.load(Ordering::Relaxed));
        let (me, mut idle) = (seat.identity().bits(), true);
        if shape.spinner.compare_exchange(0, me, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            for _ in 0..SPINS {
                idle = match held {
                    None => !self.has_work() && self.state() == BoardState::Open,
                    Some(id) => batch::remaining(heap, heap.block(id)?)? == 0 && self.may_get_more(heap, id)?,
                };
                if !idle {
                    break;
                }
                core::hint::spin_loop();
            }
            shape.spinner.store(0, Ordering::SeqCst);
        }
        if held.is_some() {
            if idle {
                object::release(heap, seat, cell)?;
                // Takes the batch off the board, if it is still without work.
                self.take_first(heap, seat)?;
            }
            return Ok(());
        }
        let seen = shape.work.load(Ordering::SeqCst);
        shape.sleepers.fetch_add(1, Ordering::SeqCst);
        // A call from before this may have been meant for another one. What it was about is seen in the next line.
        shape.calling.store(0, Ordering::SeqCst);
        if !self.has_work() && self.state() == BoardState::Open {
            futex::wait(&shape.work, seen, Deadline::after(Duration::from_secs(3600)));
            reach(KillPoint::BoardRoused);
        }
        shape.calling.store(0, Ordering::SeqCst);
        let _ = shape.sleepers.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |n| n.checked_sub(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_on_its_way_up_is_called_once() {
        let board = Board::create(Heap::get().unwrap(), 1).unwrap();
        let shape = board.shape.get();
        // Counted, and woken by somebody else: it has not had a processor since.
        shape.sleepers.store(1, Ordering::SeqCst);
        let before = shape.work.load(Ordering::SeqCst);
        (0..10).for_each(|_| board.call_one());
        assert_eq!(shape.work.load(Ordering::SeqCst), before + 1, "each call is a system call");

        // That call is none for a worker that goes to sleep afterwards.
        let worker = std::thread::scope(|scope| {
            let worker = scope.spawn(|| board.wait_for_work());
            while !worker.is_finished() {
                board.call_one();
                std::thread::yield_now();
            }
            worker.join()
        });
        worker.unwrap().unwrap();
    }
}
