//! Looks at large payloads where they lie, as private as memory of the process's own.
//!
//! ```text
//!  block of the heap   ┌ a  b  c  d ┐ ◀── held by count ── handle ─┐
//!                        │  │     │                                view ── address
//!  private mapping     └ a  b  ·  d ┘ ◀───────────────────────────┘
//!                              C        written to: a copy of this process's own
//! ```
//!
//! A page that was not written to still shows the block, so the block must not change while a view of
//! it is left: each process that has one holds the block, a fork's child by the holdings that the fork
//! handler copies. Where it cannot copy them (no slot is free, no memory left), the parent first makes all
//! pages of its views its own ([`detach_all`]), and the child's are then copies of those.
//!
//! *Killed here:* the mapping goes with the process, the hold with its sweep.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};
use std::collections::BTreeMap;

use tenfold_sys::mapping;

use crate::error::{HeapError, Result};
use crate::guarded::Guarded;
use crate::heap::MappedBlock;
use crate::object::Handle;

/// The views of this process: address and length.
static VIEWS: Guarded<BTreeMap<usize, usize>> = Guarded::new(BTreeMap::new());

pub(crate) fn mutex() -> &'static tenfold_sys::futex::PrivateMutex {
    VIEWS.mutex()
}

/// Bytes of a payload, copied on write.
#[derive(Debug)]
pub struct PrivateView {
    /// Taken away before the block is let go of.
    mapped: MappedBlock,
    _block: Handle,
}

impl PrivateView {
    /// Maps `len` bytes of the block from byte `at` on.
    pub(crate) fn of(handle: Handle, at: u64, len: u64) -> Result<PrivateView> {
        let block = handle.block();
        if at.checked_add(len).is_none_or(|end| end > block.len()) {
            return Err(HeapError::corrupt("length of a message", block.offset()));
        }
        let mapped = handle.heap().map_range_privately(block.offset() + at, len)?;
        VIEWS.with(|views| views.insert(mapped.as_ptr() as usize, mapped.len()));
        Ok(PrivateView { mapped, _block: handle })
    }

    /// The first byte. What is behind it is this process's own to read and write, in any of its threads,
    /// by the rules of whoever hands it out.
    pub fn address(&self) -> NonNull<u8> {
        self.mapped.address()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.mapped.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }
}

impl Drop for PrivateView {
    fn drop(&mut self) {
        VIEWS.with(|views| views.remove(&(self.mapped.as_ptr() as usize)));
    }
}

/// Makes every page of every view a copy of this process's own, so that none shows a block any more. Called in
/// the prepare handler of fork, with the views' mutex held.
pub(crate) fn detach_all() {
    // SAFETY: the mutex is held by this thread, so nobody else has a reference to the list.
    let views = unsafe { VIEWS.get_locked() };
    for (&address, &len) in views.iter() {
        let page = mapping::page_size();
        let first = address / page * page;
        for at in (first..address + len).step_by(page) {
            let at = at.max(address);
            // SAFETY: inside a view that is mapped for reading and writing until its drop takes it off the
            // list, which needs the mutex. Another thread may write to the byte at the same time, as to any
            // memory that Python's buffers show; the exchange leaves its value.
            let byte = unsafe { AtomicU8::from_ptr(at as *mut u8) };
            let now = byte.load(Ordering::Relaxed);
            // Written even if it is the same, which no compiler takes away: that is what copies the page.
            let _ = byte.compare_exchange(now, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
