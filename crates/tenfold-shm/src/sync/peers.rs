//! Which participants may hold a share of an object, as a hint for those who wait for it.
//!
//! A set bit means: this participant has at some time taken a share that its death must give back.
//! Waiters look from time to time whether these still live, and sweep those that do not.
//!
//! *Killed here:* a bit is set before the share is taken. One that stays set costs a look.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::wait_point::{LONG, SHORT};
use crate::heap::{Heap, SLOTS, Shared};
use crate::participant::{self, Seat};

const WORDS: usize = SLOTS as usize / 64;
/// Looks at most this many participants up at a time.
const AT_ONCE: usize = 8;

/// One bit for each slot of the participants table.
#[repr(C)]
pub(crate) struct Peers {
    bits: [AtomicU64; WORDS],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Peers {}

impl Peers {
    #[inline]
    pub(crate) fn add(&self, slot: u32) {
        let (word, bit) = (&self.bits[slot as usize / 64], 1 << (slot % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    pub(crate) fn remove(&self, slot: u32) {
        self.bits[slot as usize / 64].fetch_and(!(1 << (slot % 64)), Ordering::AcqRel);
    }

    /// How long one that waits in slot `own` may sleep at a time.
    pub(crate) fn slice(&self, own: u32) -> Duration {
        let others = self.bits.iter().enumerate().any(|(index, word)| {
            let mask = if index == own as usize / 64 { !(1 << (own % 64)) } else { u64::MAX };
            word.load(Ordering::Relaxed) & mask != 0
        });
        if others { SHORT } else { LONG }
    }

    /// Sweeps those of the next few peers that are dead; `cursor` remembers where to go on.
    pub(crate) fn look_after(&self, heap: Heap, seat: Seat, cursor: &mut u32) {
        let start = *cursor;
        let mut looked = 0;
        for step in 0..SLOTS {
            let slot = (start + step) % SLOTS;
            if self.bits[slot as usize / 64].load(Ordering::Relaxed) & 1 << (slot % 64) == 0 || slot == seat.slot() {
                continue;
            }
            participant::sweep_if_dead(heap, slot + 1);
            *cursor = slot + 1;
            looked += 1;
            if looked == AT_ONCE {
                return;
            }
        }
    }
}
