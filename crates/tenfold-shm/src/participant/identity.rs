//! Which participant this process is, and which lane this thread has.
//!
//! The identity lies in a page that the kernel wipes at fork, `clone` without CLONE_VM included,
//! so a child never takes itself for its parent: its first operation finds zero and adopts the
//! slot that the fork handler prepared, or claims one.
//!
//! A thread gets a lane at its first operation and gives it back when it ends. Lane 0 belongs to
//! whoever holds the process-local growth mutex: the fork handlers, and the growth of lanes.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use tenfold_sys::futex::PrivateMutex;
use tenfold_sys::wiped_page::WipedPage;

use super::{Identity, LANES, Lane, NAMES, TRANSITS, claim_slot, slot};
use crate::error::{HeapError, Result};
use crate::heap::{At, Heap, Word};
use crate::internal_lock::InternalLock;
use crate::object::ObjectKind;

/// Chunks of further lanes a process can have.
pub(crate) const LANE_CHUNKS: usize = 20;
/// Words of one bit a lane; what is left over at the end of the last chunk is not used.
const WORDS: usize = LANES * (LANE_CHUNKS + 1) / 64;

static PAGE: OnceLock<WipedPage> = OnceLock::new();
/// Lanes of this process in use, one bit each.
static LANES_TAKEN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
static GROWTH: PrivateMutex = PrivateMutex::new();

/// This thread's place in its process's slot.
#[derive(Clone, Copy)]
pub struct Seat {
    // Sixteen bytes, so that a seat stays in registers: it is passed on by every operation.
    identity: Identity,
    /// The lane's offset in units of [`LANE_ALIGN`].
    place: u32,
    lane: &'static Lane,
}

const LANE_ALIGN: u64 = 64;
const _: () = assert!(size_of::<Seat>() == 16);
const _: () = assert!((core::mem::offset_of!(super::Slot, lanes) as u64).is_multiple_of(LANE_ALIGN));
const _: () =
    assert!((size_of::<Lane>() as u64).is_multiple_of(LANE_ALIGN) && super::SLOT_SIZE.is_multiple_of(LANE_ALIGN));

impl core::fmt::Debug for Seat {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Seat").field("identity", &self.identity).field("lane", &self.lane()).finish()
    }
}

impl Seat {
    fn new(identity: Identity, lane: At<Lane>) -> Seat {
        Seat { identity, place: (lane.offset() / LANE_ALIGN) as u32, lane: lane.get() }
    }

    #[inline(always)]
    fn lane(self) -> At<Lane> {
        At::known(u64::from(self.place) * LANE_ALIGN, self.lane)
    }

    /// The participant.
    #[inline(always)]
    pub fn identity(self) -> Identity {
        self.identity
    }

    /// The participant's slot.
    #[inline(always)]
    pub fn slot(self) -> u32 {
        self.identity.slot()
    }

    /// The participant as the word of an internal lock names it.
    #[inline(always)]
    pub(crate) fn owner(self) -> u32 {
        self.identity.slot() + 1
    }

    /// One of this thread's cells for blocks on the move.
    ///
    /// # Panics
    /// If `index` is not less than [`TRANSITS`].
    #[inline(always)]
    pub fn transit(self, index: usize) -> Word {
        self.lane().field(|l| &l.transit[index])
    }

    #[inline(always)]
    pub(crate) fn dying(self) -> Word {
        self.lane().field(|l| &l.dying)
    }

    /// Whether this thread may take any lock: it holds none, and is not in the lane of those who hold
    /// the mutexes of this process.
    pub(crate) fn may_sweep(self, heap: Heap) -> bool {
        let ordinary = self.lane().offset() != slot(self.slot(), heap).field(|s| &s.lanes[0]).offset();
        // The lock that it waits for is named too, but another's.
        let holds = |name: &AtomicU64| match name.load(Ordering::Relaxed) {
            0 => false,
            offset => heap.at::<InternalLock>(offset).map_or(true, |lock| lock.is_held_by(self.owner())),
        };
        ordinary && !self.lane.names.iter().any(holds)
    }

    /// Says that this thread is about to take the lock at `offset`. The word is to be set to zero
    /// once it has let go of it.
    #[inline(always)]
    pub(crate) fn name_lock(self, offset: u64) -> Result<&'static AtomicU64> {
        for name in &self.lane.names {
            if name.load(Ordering::Relaxed) == 0 {
                name.store(offset, Ordering::Release);
                return Ok(name);
            }
        }
        Err(HeapError::corrupt("lane: more locks held than a thread can name", self.lane().offset()))
    }
}

const _: () = assert!(NAMES >= 5 && TRANSITS >= 4);

struct ThreadSeat {
    bits: Cell<u32>,
    seat: Cell<Option<Seat>>,
}

struct LaneLease(Cell<Option<(Seat, usize)>>);

impl Drop for LaneLease {
    fn drop(&mut self) {
        if let Some((seat, index)) = self.0.take() {
            if current() == Some(seat.identity) {
                give_back_lane(seat.lane(), index);
            }
            // A destructor of another thread-local may come after this one: it takes a new seat,
            // whose lane is then not given back. One lane a thread at most.
            let _ = SEAT.try_with(|s| s.bits.set(0));
        }
    }
}

thread_local! {
    static SEAT: ThreadSeat = const { ThreadSeat { bits: Cell::new(0), seat: Cell::new(None) } };
    static LEASE: LaneLease = const { LaneLease(Cell::new(None)) };
}

/// The participant that this process is, if it is one yet.
#[inline]
pub(crate) fn current() -> Option<Identity> {
    Identity::from_bits(PAGE.get()?.words()[0].load(Ordering::Acquire))
}

pub(super) fn set_current(identity: Identity) -> Result<()> {
    if PAGE.get().is_none() {
        let page = WipedPage::new().map_err(HeapError::os("madvise(MADV_WIPEONFORK)"))?;
        let _ = PAGE.set(page);
    }
    if let Some(page) = PAGE.get() {
        page.words()[0].store(identity.bits(), Ordering::Release);
    }
    Ok(())
}

/// This thread's seat. Fast unless the process is new or the thread is.
///
/// # Errors
/// If this process has no slot and can get none.
#[inline]
pub fn seat(heap: Heap) -> Result<Seat> {
    let fast = SEAT.try_with(|s| {
        let bits = s.bits.get();
        match (bits != 0 && current().map(Identity::bits) == Some(bits), s.seat.get()) {
            (true, seat) => seat,
            _ => None,
        }
    });
    // Not `Ok(seat) => Ok(seat)`: the seat would go through memory.
    let seat = match fast {
        Ok(Some(seat)) => seat,
        _ => take_seat(heap)?,
    };
    Ok(seat)
}

#[cold]
fn take_seat(heap: Heap) -> Result<Seat> {
    let identity = match current() {
        Some(identity) => identity,
        None => adopt_after_fork(heap)?,
    };
    let index = take_lane(heap, identity)?;
    let seat = Seat::new(identity, lane(heap, identity, index)?);
    let _ = SEAT.try_with(|s| {
        s.seat.set(Some(seat));
        s.bits.set(identity.bits());
    });
    let _ = LEASE.try_with(|l| l.0.set(Some((seat, index))));
    Ok(seat)
}

/// A seat in lane 0, for code that holds the growth mutex.
fn growth_seat(heap: Heap, identity: Identity) -> Seat {
    Seat::new(identity, slot(identity.slot(), heap).field(|s| &s.lanes[0]))
}

fn lane(heap: Heap, identity: Identity, index: usize) -> Result<At<Lane>> {
    let slot = slot(identity.slot(), heap);
    match index.checked_sub(LANES) {
        None => Ok(slot.field(|s| &s.lanes[index])),
        Some(beyond) => {
            let id = crate::heap::BlockId::from_bits(slot.lane_chunks[beyond / LANES].load(Ordering::Acquire))
                .ok_or(HeapError::corrupt("lane chunk", slot.offset()))?;
            heap.block(id)?.view(heap, (beyond % LANES * size_of::<Lane>()) as u64)
        }
    }
}

fn take_lane(heap: Heap, identity: Identity) -> Result<usize> {
    loop {
        for (w, word) in LANES_TAKEN.iter().enumerate() {
            let mut taken = word.load(Ordering::Relaxed);
            loop {
                // Lane 0 is never handed out.
                let bit = (!(taken | u64::from(w == 0))).trailing_zeros() as usize;
                if bit == 64 {
                    break;
                }
                let index = w * 64 + bit;
                if index >= LANES && !has_chunk(heap, identity, index) {
                    add_chunk(heap, identity, (index - LANES) / LANES)?;
                }
                match word.compare_exchange(taken, taken | 1 << bit, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return Ok(index),
                    Err(now) => taken = now,
                }
            }
        }
        // All of two thousand threads at work: wait for one of them to end.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn has_chunk(heap: Heap, identity: Identity, index: usize) -> bool {
    slot(identity.slot(), heap).lane_chunks[(index - LANES) / LANES].load(Ordering::Acquire) != 0
}

fn add_chunk(heap: Heap, identity: Identity, chunk: usize) -> Result<()> {
    GROWTH.with(|| {
        let cell = slot(identity.slot(), heap).field(|s| &s.lane_chunks[chunk]);
        if cell.load(Ordering::Acquire) != 0 {
            return Ok(());
        }
        let seat = growth_seat(heap, identity);
        let transit = seat.transit(0);
        let block = heap.take(seat, (LANES * size_of::<Lane>()) as u64, ObjectKind::Bytes, transit)?;
        for index in 0..LANES {
            block.view::<Lane>(heap, (index * size_of::<Lane>()) as u64)?.clear();
        }
        // Two stores, both in this process's own slot: killed between them, the sweep frees the
        // block by either cell and finds the other one stale.
        cell.store(block.id().bits(), Ordering::Release);
        transit.store(0, Ordering::Release);
        Ok(())
    })
}

impl At<Lane> {
    pub(super) fn clear(self) {
        for word in self.names.iter().chain(&self.transit).chain([&self.dying]) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// This process came out of a fork: it takes the slot that its parent's fork handler prepared, or,
/// after a raw `clone`, a fresh one.
#[cold]
fn adopt_after_fork(heap: Heap) -> Result<Identity> {
    GROWTH.with(|| {
        if let Some(identity) = current() {
            return Ok(identity);
        }
        for word in &LANES_TAKEN {
            word.store(0, Ordering::Relaxed);
        }
        if let Some(born) = super::fork::take_birth() {
            // Whoever launched this process by a fork of its own tells when it began.
            let by_fork = super::roster(born.slot(), heap).by_fork.load(Ordering::Relaxed) == 1;
            if super::adopt_telling(heap, born, by_fork).is_ok() {
                return Ok(born);
            }
        }
        let claimed = claim_slot(heap, None, true)?;
        super::adopt(heap, claimed)?;
        crate::object::hold_again(heap, growth_seat(heap, claimed));
        Ok(claimed)
    })
}

/// Runs `f` in a seat of its own, which [`seat`] finds meanwhile: with no lock named and no block on
/// the move, whatever the thread was at.
///
/// # Errors
/// Those of `f`, and if there is no seat to be had.
pub(super) fn with_lane_of_its_own<R>(heap: Heap, f: impl FnOnce(Seat) -> Result<R>) -> Result<R> {
    struct Restore {
        bits: u32,
        seat: Option<Seat>,
        lane: At<Lane>,
        index: usize,
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = SEAT.try_with(|s| {
                s.seat.set(self.seat);
                s.bits.set(self.bits);
            });
            give_back_lane(self.lane, self.index);
        }
    }
    let identity = super::me(heap)?;
    let index = take_lane(heap, identity)?;
    let seat = Seat::new(identity, lane(heap, identity, index)?);
    let replaced = SEAT.try_with(|s| (s.bits.replace(identity.bits()), s.seat.replace(Some(seat))));
    let (bits, outer) = replaced.unwrap_or((0, None));
    let _restore = Restore { bits, seat: outer, lane: seat.lane(), index };
    f(seat)
}

/// Frees a lane for another thread, unless something was left in it: then it waits for the sweep of
/// this process.
fn give_back_lane(lane: At<Lane>, index: usize) {
    let lane = lane.get();
    let mut words = lane.names.iter().chain(&lane.transit).chain([&lane.dying]);
    if words.all(|word| word.load(Ordering::Relaxed) == 0) {
        LANES_TAKEN[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Release);
    }
}

/// Runs `f` with the growth mutex held and a seat in lane 0.
pub(super) fn with_growth_seat<R>(heap: Heap, identity: Identity, f: impl FnOnce(Seat) -> R) -> R {
    GROWTH.with(|| f(growth_seat(heap, identity)))
}

/// The growth mutex, for the fork handlers.
pub(super) fn growth() -> &'static PrivateMutex {
    &GROWTH
}

/// A seat in lane 0 for the fork handlers, which hold the mutex themselves.
pub(super) fn fork_seat(heap: Heap, identity: Identity) -> Seat {
    growth_seat(heap, identity)
}
