//! What becomes of a dead worker's tasks.
//!
//! The one item that it was running is over: it died, or timed out, or was cancelled, or is tried
//! again if the caller asked for that. Those before it in a chunk of numbers have results, though
//! their statuses may not say so yet ([`super::chunk::Running`]). The rest of its chunk is free again, and
//! the batch goes back to the front of the board.
//!
//! *Killed here:* each step looks at the state it finds, so doing all of it again is harmless; the
//! dead worker's cell names the batch until the end.

use core::sync::atomic::Ordering;

use tenfold_sys::clock;

use super::batch::{self, CANCELLED, CANCELLING, CHUNK_FREE, DIED, HALF, PENDING, RUNNING, TIMED_OUT, Tables};
use super::chunk::Running;
use super::{Board, DEADLINE_WORD, RUNNING_WORD, WATCHER_BELL};
use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{BlockId, Heap};
use crate::kill_point::{KillPoint, reach};
use crate::object::{self, Handle};
use crate::participant::{self, Death, Seat};

/// Settles what the dead process was doing in the batch that its slot names.
pub(crate) fn worker_died(heap: Heap, seat: Seat, death: &Death, block: Block) -> Result<()> {
    let tables = Tables::of(heap, block)?;
    let slot = participant::slot(death.slot, heap);
    let running = Running::from_bits(slot.words[RUNNING_WORD].load(Ordering::Acquire));
    let deadline = slot.words[DEADLINE_WORD].load(Ordering::Acquire);
    let late = deadline != 0 && clock::now() >= deadline;
    for (index, word) in tables.chunks.iter().enumerate() {
        if word.load(Ordering::Acquire) != death.identity.bits() {
            continue;
        }
        let range = tables.range(index);
        let now = running.item().filter(|item| range.contains(item));
        for item in range {
            let status = tables.status[item].load(Ordering::Acquire);
            if status == PENDING && now.is_some_and(|now| item < now) {
                tables.status[item].store(running.status_before(), Ordering::Release);
                continue;
            }
            let ran = match status {
                RUNNING | CANCELLING | HALF => true,
                PENDING => now == Some(item),
                _ => false,
            };
            if ran {
                settle_item(heap, seat, death, &tables, item, late)?;
            }
        }
        word.store(CHUNK_FREE, Ordering::Release);
    }
    reach(KillPoint::BoardReclaimed);
    tables.head.rescan.store(1, Ordering::SeqCst);
    let board = BlockId::from_bits(tables.head.board.load(Ordering::Relaxed));
    // Without a board nobody will run or wait for the rest.
    let Some(Ok(handle)) = board.map(|id| Handle::from_id(heap, id)) else { return Ok(()) };
    let board = Board::from_handle(handle)?;
    object::add_ref(heap, seat, block.id(), seat.transit(0))?;
    board.enlist(heap, seat, block, false)?;
    board.wake_workers(u32::MAX);
    board.ring(batch::bell(&tables));
    if tables.head.watched.load(Ordering::SeqCst) != 0 {
        board.ring(WATCHER_BELL);
    }
    Ok(())
}

fn settle_item(heap: Heap, seat: Seat, death: &Death, tables: &Tables, item: usize, late: bool) -> Result<()> {
    let status = &tables.status[item];
    let value = tables.value(heap, item)?;
    let was = status.load(Ordering::Acquire);
    if was == HALF {
        object::release(heap, seat, value)?;
    }
    if was == CANCELLING {
        status.store(CANCELLED, Ordering::Release);
        return Ok(());
    }
    let killed = death.status.is_none_or(|s| s.signal() == Some(SIGKILL));
    if late && killed {
        status.store(TIMED_OUT, Ordering::Release);
        return Ok(());
    }
    if let Some(attempts) = tables.attempts.get(item) {
        let before = attempts.load(Ordering::Relaxed);
        if u32::from(before) < tables.head.retries.load(Ordering::Relaxed) {
            // Settled twice after a death in between, an item may lose one attempt.
            attempts.store(before + 1, Ordering::Relaxed);
            status.store(PENDING, Ordering::Release);
            return Ok(());
        }
    }
    let pid = u64::from(participant::roster(death.slot, heap).pid());
    value.store(pid << 32 | death.status.map_or(0, |s| u64::from(s.to_bits())), Ordering::Relaxed);
    status.store(DIED, Ordering::Release);
    Ok(())
}

const SIGKILL: i32 = 9;
