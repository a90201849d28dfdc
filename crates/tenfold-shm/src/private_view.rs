//! Looks at large payloads where they lie, as private as memory of the process's own.
//!
//! ```text
//!  block of the heap   ┌ a  b  c  d ┐ ◀── held by count ── handle ─┐
//!                        │  │     │                                view ── address
//!  private mapping     └ a  b  ·  d ┘ ◀───────────────────────────┘
//!                              C        written to: a copy of this process's own
//! ```
//!
//! A message that has one owner, its receiver, needs no copies: its view looks at the block through a shared mapping,
//! which is kept for the block's next message, whose pages are then known to the processor already (to make them known
//! takes longer than to copy them). Before a fork such mappings are made private, where they are.
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
use std::sync::Arc;

use tenfold_sys::mapping;

use crate::error::{HeapError, Result};
use crate::guarded::Guarded;
use crate::heap::{MappedBlock, large};
use crate::object::Handle;

/// The views of this process by their addresses.
static VIEWS: Guarded<BTreeMap<usize, Listed>> = Guarded::new(BTreeMap::new());

struct Listed {
    len: usize,
    /// The shared mapping that it looks through.
    alone: Option<Arc<MappedBlock>>,
}

pub(crate) fn mutex() -> &'static tenfold_sys::futex::PrivateMutex {
    VIEWS.mutex()
}

/// Bytes of a payload, as private as memory of the process's own.
#[derive(Debug)]
pub struct PrivateView {
    /// Taken away before the block is let go of.
    mapped: Mapped,
    _block: Handle,
}

#[derive(Debug)]
enum Mapped {
    /// Copied on write.
    Privately(MappedBlock),
    /// All of the block, which this process alone has a reference to.
    Alone { mapped: Arc<MappedBlock>, at: usize, len: usize },
}

impl PrivateView {
    /// Maps `len` bytes of the block from byte `at` on.
    pub(crate) fn of(handle: Handle, at: u64, len: u64) -> Result<PrivateView> {
        let block = handle.block();
        if at.checked_add(len).is_none_or(|end| end > block.len()) {
            return Err(HeapError::corrupt("length of a message", block.offset()));
        }
        let mapped = handle.heap().map_range_privately(block.offset() + at, len)?;
        Ok(PrivateView::listed(Mapped::Privately(mapped), handle))
    }

    /// Looks at `len` bytes from byte `at` on through a shared mapping of the block. Nobody but the caller has a
    /// reference to the block, and nobody will look at these bytes but through the view.
    pub(crate) fn alone(handle: Handle, mapped: Arc<MappedBlock>, at: u64, len: u64) -> Result<PrivateView> {
        let block = handle.block();
        if at.checked_add(len).is_none_or(|end| end > block.len().min(mapped.len() as u64)) {
            return Err(HeapError::corrupt("length of a message", block.offset()));
        }
        Ok(PrivateView::listed(Mapped::Alone { mapped, at: at as usize, len: len as usize }, handle))
    }

    fn listed(mapped: Mapped, block: Handle) -> PrivateView {
        let view = PrivateView { mapped, _block: block };
        let alone = if let Mapped::Alone { mapped, .. } = &view.mapped { Some(Arc::clone(mapped)) } else { None };
        VIEWS.with(|views| views.insert(view.address().as_ptr() as usize, Listed { len: view.len(), alone }));
        view
    }

    /// The first byte. What is behind it is this process's own to read and write, in any of its threads,
    /// by the rules of whoever hands it out.
    pub fn address(&self) -> NonNull<u8> {
        match &self.mapped {
            Mapped::Privately(mapped) => mapped.address(),
            // SAFETY: `at` lies inside the mapping, as `alone` has checked.
            Mapped::Alone { mapped, at, .. } => unsafe { mapped.address().add(*at) },
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        match &self.mapped {
            Mapped::Privately(mapped) => mapped.len(),
            Mapped::Alone { len, .. } => *len,
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for PrivateView {
    fn drop(&mut self) {
        // What was listed is dropped outside the mutex: it may be a mapping, which takes a while.
        let _listed = VIEWS.with(|views| views.remove(&(self.address().as_ptr() as usize)));
    }
}

/// Has all views that look through shared mappings be copied on write. Called in the prepare handler of fork, with the
/// mutexes of the views and of the kept mappings held.
pub(crate) fn make_private() {
    // SAFETY: as below.
    let views = unsafe { VIEWS.get_locked() };
    for mapped in views.values_mut().filter_map(|listed| listed.alone.take()) {
        mapped.make_private();
        // Another message in the same block is not to be seen through it, nor written.
        large::forget(&mapped);
    }
}

/// Makes every page of every view a copy of this process's own, so that none shows a block any more. Called in
/// the prepare handler of fork, with the views' mutex held.
pub(crate) fn detach_all() {
    // SAFETY: the mutex is held by this thread, so nobody else has a reference to the list.
    let views = unsafe { VIEWS.get_locked() };
    for (&address, &Listed { len, .. }) in views.iter() {
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
