//! Mappings of large blocks that this process has looked at lately.
//!
//! A block of more than a window is mapped in one piece to be written or read at length, and the mapping kept for a
//! while: blocks are used again last in, first out, and a mapping whose pages are known to the processor is copied to
//! and from at the speed of any memory, which the file's calls are not. The blocks kept are few, since a limit of
//! address space counts them; what is larger than all of them together goes through the file.
//!
//! Measured for 64 MiB, in milliseconds:
//!
//! ```text
//!                               through the file      through a mapping
//!   written for the first time        12                    28
//!   again                             14                  8 + 7       the pages are looked up at one go, then copied
//!   once more                         14                     6
//! ```
//!
//! So the first life of a block that this process writes goes through the file.
//!
//! *Killed here:* a mapping is local to the process.

use std::sync::Arc;

use core::sync::atomic::Ordering;
use tenfold_sys::limits::{self, Resource};
use tenfold_sys::mapping;

use super::block::{Block, BlockId, State};
use super::{Heap, MappedBlock, WINDOW, class};
use crate::guarded::Guarded;

/// Bytes of mappings that are kept.
const KEPT_MAX: u64 = 384 << 20;
/// The same as a share of the address space, where that is limited: one part of this many.
const KEPT_SHARE: u64 = 16;
/// Blocks that are kept or remembered.
const KNOWN_MAX: usize = 128;
/// Less is not worth a mapping.
const AT_LENGTH: usize = 64 << 10;

/// What is known of the place of a large block, where no other one ever begins.
struct Known {
    offset: u64,
    /// The block in the first life that this process had to do with.
    id: BlockId,
    mapped: Option<Arc<MappedBlock>>,
}

/// Most lately used last.
static KNOWN: Guarded<Vec<Known>> = Guarded::new(Vec::new());

/// What is about to be done with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Some bytes of it are copied in.
    Write(usize),
    /// Some bytes of it are copied out.
    Read(usize),
    /// It is looked at as a whole.
    Look,
}

pub(crate) fn mutex() -> &'static tenfold_sys::futex::PrivateMutex {
    KNOWN.mutex()
}

/// Gives up all mappings that nobody uses at the moment; whether there were any.
pub(super) fn make_room() -> bool {
    let before = KNOWN.with(core::mem::take);
    before.iter().any(|known| known.mapped.is_some())
}

fn room() -> u64 {
    match limits::get(Resource::AddressSpace) {
        (Some(limit), _) => KEPT_MAX.min(limit / KEPT_SHARE),
        (None, _) => KEPT_MAX,
    }
}

impl Block {
    /// The block in one piece, if it is larger than a window, this process can map it, and that is worth while.
    pub(crate) fn mapped(self, heap: Heap, access: Access) -> Option<Arc<MappedBlock>> {
        if self.len <= WINDOW {
            return None;
        }
        let (mapped, before) = KNOWN
            .with(|all| {
                let place = all.iter().rposition(|known| known.offset == self.offset)?;
                let known = &mut all[place..];
                known.rotate_left(1);
                known.last().map(|known| (known.mapped.clone(), known.id))
            })
            .unzip();
        if let Some(mapped) = mapped.flatten().filter(|mapped| mapped.len() as u64 >= self.len) {
            return Some(mapped);
        }
        match access {
            Access::Write(bytes) | Access::Read(bytes) if bytes < AT_LENGTH => None,
            // The first life that this process has to do with.
            Access::Write(_) if before.is_none_or(|before| before == self.id) => {
                remember(Known { offset: self.offset, id: self.id, mapped: None });
                None
            }
            Access::Write(_) => self.map_to_keep(heap, true),
            Access::Read(_) | Access::Look => self.map_to_keep(heap, false),
        }
    }

    #[cold]
    fn map_to_keep(self, heap: Heap, with_pages: bool) -> Option<Arc<MappedBlock>> {
        // A little more than the block has now: its next life may need it.
        let state = State::from_bits(self.descriptor.state.load(Ordering::Relaxed));
        let most = class::size_of_class((state.class as usize).min(class::CLASSES - 1));
        let size = self.len.next_multiple_of(WINDOW).min(most);
        if size > room() || size < self.len {
            return None;
        }
        let mapped = Arc::new(heap.map_range(self.offset, size).ok()?);
        if with_pages {
            mapping::look_up_pages(mapped.address(), self.len as usize);
        }
        remember(Known { offset: self.offset, id: self.id, mapped: Some(Arc::clone(&mapped)) });
        Some(mapped)
    }
}

/// Keeps a block in mind, and gives up what there is no room for any more.
fn remember(new: Known) {
    let bytes = |known: &Known| known.mapped.as_ref().map_or(0, |mapped| mapped.len() as u64);
    let (offset, room) = (new.offset, room());
    let given_up = KNOWN.with(|all| {
        all.retain(|known| known.offset != offset);
        all.push(new);
        let mut total: u64 = all.iter().map(bytes).sum();
        let mut given_up = 0;
        while total > room || all.len() - given_up > KNOWN_MAX {
            total -= bytes(&all[given_up]);
            given_up += 1;
        }
        all.drain(..given_up).collect::<Vec<Known>>()
    });
    // Outside the mutex: it takes a while.
    drop(given_up);
}
