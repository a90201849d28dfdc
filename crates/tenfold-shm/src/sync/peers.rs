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

    /// Sweeps those of the next few peers that are dead.
    pub(crate) fn look_after(&self, heap: Heap, seat: Seat, lookout: &mut Lookout) {
        lookout.looks += 1;
        let start = lookout.next;
        let mut looked = 0;
        for step in 0..SLOTS {
            let slot = (start + step) % SLOTS;
            if self.bits[slot as usize / 64].load(Ordering::Relaxed) & 1 << (slot % 64) == 0 || slot == seat.slot() {
                continue;
            }
            sweep_now_and_then_thoroughly(heap, slot + 1, lookout.looks);
            lookout.next = slot + 1;
            looked += 1;
            if looked == AT_ONCE {
                return;
            }
        }
    }
}

/// What a waiter remembers between its looks.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    next: u32,
    looks: u32,
}

/// Sweeps the participant `owner` (slot + 1) if its process is dead; at each eighth look also if it
/// has become another program.
pub(crate) fn sweep_now_and_then_thoroughly(heap: Heap, owner: u32, looks: u32) {
    if looks.is_multiple_of(8) {
        participant::sweep_if_gone(heap, owner);
    } else {
        participant::sweep_if_dead(heap, owner);
    }
}
