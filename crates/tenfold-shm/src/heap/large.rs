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
//!                                    through the file      through a mapping
//!   written to pages that are new          12                    28
//!   written to pages that were used        14                  8 + 7      looked up at one go, then copied
//!   the same again                         14                     6
//! ```
//!
//! So pages that are new are written through the file, unless they are huge: see [`tenfold_sys::huge_pages`].
//!
//! *Killed here:* a mapping is local to the process.

use std::sync::Arc;

use core::sync::atomic::Ordering;
use tenfold_sys::limits::{self, Resource};
use tenfold_sys::mapping;

use super::block::{Block, State};
use super::{Heap, MappedBlock, WINDOW, class};
use crate::guarded::Guarded;

/// Bytes of mappings that are kept.
const KEPT_MAX: u64 = 384 << 20;
/// The same as a share of the address space, where that is limited: one part of this many.
const KEPT_SHARE: u64 = 16;
/// Less is not worth a mapping.
const AT_LENGTH: usize = 64 << 10;

struct Kept {
    /// Where the block begins in the heap. No other block ever begins there.
    offset: u64,
    mapped: Arc<MappedBlock>,
}

/// Most lately used last.
static KEPT: Guarded<Vec<Kept>> = Guarded::new(Vec::new());

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
    KEPT.mutex()
}

/// Does not keep `mapped` any longer. For the prepare handler of fork, with the mutex held.
pub(crate) fn forget(mapped: &Arc<MappedBlock>) {
    // SAFETY: the mutex is held by this thread, so nobody else has a reference to the list.
    remove(unsafe { KEPT.get_locked() }, mapped);
}

/// Does not keep `mapped` any longer.
pub(super) fn let_go(mapped: &Arc<MappedBlock>) {
    KEPT.with(|kept| remove(kept, mapped));
}

fn remove(kept: &mut Vec<Kept>, mapped: &Arc<MappedBlock>) {
    kept.retain(|kept| !Arc::ptr_eq(&kept.mapped, mapped));
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
    /// The block in one piece, if it is larger than a window, this process can map it, and that is worth while.
    pub(crate) fn mapped(self, heap: Heap, access: Access) -> Option<Arc<MappedBlock>> {
        if self.len <= WINDOW {
            return None;
        }
        if self.fresh && matches!(access, Access::Write(_)) {
            return None;
        }
        let known = KEPT.with(|kept| {
            let place = kept.iter().rposition(|kept| kept.offset == self.offset)?;
            kept[place..].rotate_left(1);
            kept.last().map(|kept| Arc::clone(&kept.mapped)).filter(|mapped| mapped.len() as u64 >= self.len)
        });
        match access {
            _ if known.is_some() => known,
            Access::Write(bytes) | Access::Read(bytes) if bytes < AT_LENGTH => None,
            Access::Write(_) => self.map_to_keep(heap, true),
            Access::Read(_) | Access::Look => self.map_to_keep(heap, false),
        }
    }

    #[cold]
    pub(super) fn map_to_keep(self, heap: Heap, with_pages: bool) -> Option<Arc<MappedBlock>> {
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
        keep(Kept { offset: self.offset, mapped: Arc::clone(&mapped) });
        Some(mapped)
    }
}

/// Keeps a mapping, and gives up those there is no room for any more.
fn keep(new: Kept) {
    let room = room();
    let given_up = KEPT.with(|all| {
        all.retain(|kept| kept.offset != new.offset);
        all.push(new);
        let mut total: u64 = all.iter().map(|kept| kept.mapped.len() as u64).sum();
        let mut given_up = 0;
        while total > room {
            total -= all[given_up].mapped.len() as u64;
            given_up += 1;
        }
        all.drain(..given_up).collect::<Vec<Kept>>()
    });
    // Outside the mutex: it takes a while.
    drop(given_up);
}
