//! Mappings of large blocks that this process has looked at lately.
//!
//! A block of more than a window is mapped in one piece to be written or read, and the mapping kept for a
//! while: blocks are used again last in, first out, and a mapping whose pages are known to the processor is
//! copied to and from at the speed of any memory, which the file's calls are not. The blocks kept are few, since
//! a limit of address space counts them; what is larger than all of them together goes through the file.
//!
//! *Killed here:* a mapping is local to the process.

use std::sync::Arc;

use tenfold_sys::limits::{self, Resource};

use super::block::{Block, State};
use super::{Heap, MappedBlock, WINDOW, class};
use crate::guarded::Guarded;
use core::sync::atomic::Ordering;

/// Bytes of mappings that are kept.
const KEPT_MAX: u64 = 256 << 20;
/// The same as a share of the address space, where that is limited: one part of this many.
const KEPT_SHARE: u64 = 16;

struct Kept {
    /// Where the block begins in the heap. No other block ever begins there.
    offset: u64,
    mapped: Arc<MappedBlock>,
}

/// Most lately used last.
static KEPT: Guarded<Vec<Kept>> = Guarded::new(Vec::new());

pub(crate) fn mutex() -> &'static tenfold_sys::futex::PrivateMutex {
    KEPT.mutex()
}

/// Gives up all mappings that nobody uses at the moment; whether there were any.
pub(super) fn make_room() -> bool {
    let before = KEPT.with(core::mem::take);
    !before.is_empty()
}

fn room() -> u64 {
    match limits::get(Resource::AddressSpace) {
        (Some(limit), _) => KEPT_MAX.min(limit / KEPT_SHARE),
        (None, _) => KEPT_MAX,
    }
}

impl Block {
    /// The block in one piece, if it is larger than a window and this process can map it.
    pub(crate) fn mapped(self, heap: Heap) -> Option<Arc<MappedBlock>> {
        if self.len <= WINDOW {
            return None;
        }
        let known = KEPT.with(|kept| {
            let place = kept.iter().rposition(|kept| kept.offset == self.offset)?;
            let found = kept.remove(place);
            let mapped = Arc::clone(&found.mapped);
            kept.push(found);
            Some(mapped)
        });
        if known.is_some() {
            return known;
        }
        // All that the block can become: its next user may need more of it.
        let state = State::from_bits(self.descriptor.state.load(Ordering::Relaxed));
        let size = class::size_of_class((state.class as usize).min(class::CLASSES - 1));
        let room = room();
        if size > room || size < self.len {
            return None;
        }
        let mapped = Arc::new(heap.map_range(self.offset, size).ok()?);
        let given_up = KEPT.with(|kept| {
            let mut bytes = size + kept.iter().map(|kept| kept.mapped.len() as u64).sum::<u64>();
            let mut given_up = 0;
            while bytes > room && given_up < kept.len() {
                bytes -= kept[given_up].mapped.len() as u64;
                given_up += 1;
            }
            let given_up: Vec<Kept> = kept.drain(..given_up).collect();
            kept.push(Kept { offset: self.offset, mapped: Arc::clone(&mapped) });
            given_up
        });
        // Outside the mutex: it takes a while.
        drop(given_up);
        Some(mapped)
    }
}
