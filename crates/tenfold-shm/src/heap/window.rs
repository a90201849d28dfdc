//! How this process sees the file: windows, typed references into them, mappings of large blocks.

use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use tenfold_sys::futex::PrivateMutex;
use tenfold_sys::mapping;
use tenfold_sys::memory_file::MemoryFile;

use super::{FIXED, Heap, WINDOW, large};
use crate::error::{HeapError, Result};

/// Windows this process can have: 1 TiB, large blocks included, which are seldom looked at through
/// windows. The table costs 8 bytes a window once it is touched.
pub(super) const WINDOWS_MAX: usize = 1 << 20;

static WINDOWS: [AtomicPtr<u8>; WINDOWS_MAX] = [const { AtomicPtr::new(ptr::null_mut()) }; WINDOWS_MAX];
static FILE: OnceLock<MemoryFile> = OnceLock::new();
static ATTACH: PrivateMutex = PrivateMutex::new();
/// Set when all threads may use the heap: it is mapped, its header written, this process in it.
static READY: AtomicBool = AtomicBool::new(false);

/// What may live in shared memory and be looked at while others change it.
///
/// # Safety
/// The type is `#[repr(C)]`, made of atomics (and arrays and structs of them) only, needs no drop,
/// and is at most one window long.
pub unsafe trait Shared: 'static {}

// SAFETY: one atomic.
unsafe impl Shared for AtomicU64 {}
// SAFETY: one atomic.
unsafe impl Shared for AtomicU32 {}
// SAFETY: one atomic.
unsafe impl Shared for AtomicU8 {}

/// A reference into a window that knows its offset in the heap.
pub struct At<T: 'static> {
    offset: u64,
    target: &'static T,
}

impl<T> Clone for At<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for At<T> {}

impl<T> Deref for At<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        self.target
    }
}

impl<T> core::fmt::Debug for At<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "At({:#x})", self.offset)
    }
}

impl<T> At<T> {
    /// A reference to what is known to lie at `offset`.
    #[inline(always)]
    pub(crate) fn known(offset: u64, target: &'static T) -> At<T> {
        At { offset, target }
    }

    /// Where it is in the heap.
    #[inline(always)]
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// The referent, for as long as the process lives.
    #[inline(always)]
    pub fn get(self) -> &'static T {
        self.target
    }

    /// A field of the referent, with its offset.
    ///
    /// # Panics
    /// If the field is not part of the referent.
    #[inline(always)]
    pub fn field<U>(self, choose: impl FnOnce(&'static T) -> &'static U) -> At<U> {
        let target = choose(self.target);
        let distance = (ptr::from_ref(target) as usize).wrapping_sub(ptr::from_ref(self.target) as usize);
        debug_assert!(distance + size_of::<U>() <= size_of::<T>());
        At { offset: self.offset + distance as u64, target }
    }
}

/// A 64-bit word of the heap that a redo record can name.
pub type Word = At<AtomicU64>;

pub(super) fn is_attached() -> bool {
    READY.load(Ordering::Acquire)
}

pub(super) fn attach_once(make: impl FnOnce() -> Result<()>) -> Result<()> {
    ATTACH.with(|| {
        if !is_attached() {
            make()?;
            READY.store(true, Ordering::Release);
        }
        Ok(())
    })
}

/// For the fork handlers.
pub(crate) fn attach_mutex() -> &'static PrivateMutex {
    &ATTACH
}

pub(super) fn file() -> &'static MemoryFile {
    // A Heap exists only once the file does: map_fixed sets it before any window.
    FILE.get().unwrap_or_else(|| unreachable!("a heap without its file"))
}

/// Maps the part that is always there. Called under `ATTACH`, before a `Heap` exists.
pub(super) fn map_fixed(file: MemoryFile) -> Result<()> {
    let base = mapping::map_shared(file.as_fd(), 0, FIXED as usize).map_err(HeapError::os("mmap"))?;
    if FILE.set(file).is_err() {
        // An earlier attempt mapped but did not finish (the header was not ours).
        return Err(HeapError::Stale);
    }
    for index in (0..(FIXED / WINDOW) as usize).rev() {
        // SAFETY: the mapping is FIXED bytes long and `index * WINDOW` lies inside it.
        let window = unsafe { base.as_ptr().add(index * WINDOW as usize) };
        WINDOWS[index].store(window, Ordering::Release);
    }
    Ok(())
}

/// A typed look at the fixed part; `offset` is a constant of the layout.
#[inline(always)]
pub(crate) fn fixed<T: Shared>(offset: u64) -> At<T> {
    debug_assert!(offset + size_of::<T>() as u64 <= FIXED && offset.is_multiple_of(align_of::<T>() as u64));
    let base = WINDOWS[0].load(Ordering::Relaxed);
    // SAFETY: a `Heap` exists, so the fixed part is mapped at `base`, contiguously and for ever;
    // callers pass offsets of the layout, which are in bounds and aligned; T is atomics only.
    let target = unsafe { &*base.add(offset as usize).cast::<T>() };
    At { offset, target }
}

#[cold]
fn map_window(heap: Heap, index: usize) -> Result<*mut u8> {
    let start = index as u64 * WINDOW;
    if index >= WINDOWS_MAX || start >= heap.header().end.load(Ordering::Acquire) {
        return Err(HeapError::corrupt("offset beyond the end", start));
    }
    let file = file();
    if !file.is_still_ours() {
        return Err(HeapError::FileTaken);
    }
    let fresh = map_or_make_room(WINDOW, || mapping::map_shared(file.as_fd(), start, WINDOW as usize))?;
    // Two threads may race: the first one's mapping stays.
    match WINDOWS[index].compare_exchange(ptr::null_mut(), fresh.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(fresh.as_ptr()),
        Err(theirs) => {
            // SAFETY: we mapped it just now and gave its address to nobody.
            let _ = unsafe { mapping::unmap(fresh, WINDOW as usize) };
            Ok(theirs)
        }
    }
}

/// Maps, and once more without the mappings that are only kept in case they are needed.
fn map_or_make_room(length: u64, map: impl Fn() -> tenfold_sys::Result<NonNull<u8>>) -> Result<NonNull<u8>> {
    map()
        .or_else(|error| if large::make_room() { map() } else { Err(error) })
        .map_err(|_| HeapError::AddressSpace { length })
}

impl Heap {
    /// The address of `length` bytes at `offset`, which must not straddle two windows.
    ///
    /// # Errors
    /// [`HeapError::Corrupt`] if they do or lie outside; [`HeapError::AddressSpace`] if the window
    /// cannot be mapped.
    #[inline]
    pub(crate) fn address(self, offset: u64, length: u64) -> Result<NonNull<u8>> {
        let (index, within) = ((offset / WINDOW) as usize, offset % WINDOW);
        if length > WINDOW - within || index >= WINDOWS_MAX {
            return Err(HeapError::corrupt("offset", offset));
        }
        let mut window = WINDOWS[index].load(Ordering::Acquire);
        if window.is_null() {
            window = map_window(self, index)?;
        }
        // SAFETY: the window is mapped for WINDOW bytes and `within` is inside it.
        Ok(unsafe { NonNull::new_unchecked(window.add(within as usize)) })
    }

    /// A typed reference to what lies at `offset`.
    ///
    /// # Errors
    /// As [`Heap::stats`]' siblings: corrupt offsets, or no address space left.
    #[inline]
    pub fn at<T: Shared>(self, offset: u64) -> Result<At<T>> {
        if !offset.is_multiple_of(align_of::<T>() as u64) || offset == 0 {
            return Err(HeapError::corrupt("misaligned offset", offset));
        }
        let address = self.address(offset, size_of::<T>() as u64)?;
        // SAFETY: in bounds of a window that is never unmapped, aligned (windows are page-aligned,
        // the offset was checked), and T is atomics only, so any bytes are a valid T.
        let target = unsafe { &*address.as_ptr().cast::<T>() };
        Ok(At { offset, target })
    }

    /// The 64-bit word at `offset`.
    ///
    /// # Errors
    /// As [`Heap::at`].
    #[inline]
    pub fn word(self, offset: u64) -> Result<Word> {
        self.at::<AtomicU64>(offset)
    }

    /// Copies `bytes` into the heap at `offset`, through the window or, for what straddles windows
    /// or cannot be mapped, through the file.
    pub(crate) fn write_bytes(self, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 <= WINDOW - offset % WINDOW
            && let Ok(address) = self.address(offset, bytes.len() as u64)
        {
            // SAFETY: `address` is valid for that many bytes; the caller owns the block, so
            // nobody else reads or writes them; a Rust slice never overlaps a window.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address.as_ptr(), bytes.len()) };
            return Ok(());
        }
        if super::limit::check_file_size(offset + bytes.len() as u64).is_err() {
            return self.write_through_windows(offset, bytes);
        }
        let file = file();
        if !file.is_still_ours() {
            return Err(HeapError::FileTaken);
        }
        file.write_all_at(bytes, offset).map_err(HeapError::os("pwrite"))
    }

    /// For a process that may not write to the file (RLIMIT_FSIZE), but to its mapping.
    #[cold]
    fn write_through_windows(self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min((WINDOW - offset % WINDOW) as usize));
            let address = self.address(offset, part.len() as u64)?;
            // SAFETY: as in `write_bytes`.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), address.as_ptr(), part.len()) };
            offset += part.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Copies bytes out of the heap; the counterpart of [`Heap::write_bytes`].
    pub(crate) fn read_bytes(self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.len() as u64 <= WINDOW - offset % WINDOW
            && let Ok(address) = self.address(offset, bytes.len() as u64)
        {
            // SAFETY: as in `write_bytes`, the other way round.
            unsafe { ptr::copy_nonoverlapping(address.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
            return Ok(());
        }
        let file = file();
        if !file.is_still_ours() {
            return Err(HeapError::FileTaken);
        }
        file.read_exact_at(bytes, offset).map_err(HeapError::os("pread"))
    }

    /// Maps `length` bytes at `offset` contiguously, whatever their size.
    pub(crate) fn map_range(self, offset: u64, length: u64) -> Result<MappedBlock> {
        map_range(offset, length, mapping::map_shared)
    }

    /// The same, copied on write.
    pub(crate) fn map_range_privately(self, offset: u64, length: u64) -> Result<MappedBlock> {
        map_range(offset, length, mapping::map_private)
    }
}

fn map_range(
    offset: u64,
    length: u64,
    map: impl Fn(BorrowedFd<'_>, u64, usize) -> tenfold_sys::Result<NonNull<u8>>,
) -> Result<MappedBlock> {
    let page = mapping::page_size() as u64;
    let start = offset / page * page;
    let lead = (offset - start) as usize;
    let mapped = (lead + length as usize).max(1);
    let file = file();
    if !file.is_still_ours() {
        return Err(HeapError::FileTaken);
    }
    let base = map_or_make_room(length, || map(file.as_fd(), start, mapped))?;
    Ok(MappedBlock { base, mapped, start, lead, length: length as usize, _bytes: PhantomData })
}

/// A contiguous mapping of one block or a part of it, unmapped on drop.
#[derive(Debug)]
pub struct MappedBlock {
    base: NonNull<u8>,
    mapped: usize,
    /// Where `base` is in the file.
    start: u64,
    lead: usize,
    length: usize,
    _bytes: PhantomData<u8>,
}

// SAFETY: it is an address range; what may be done with it from where is the business of the one
// who dereferences the pointer.
unsafe impl Send for MappedBlock {}
// SAFETY: as above.
unsafe impl Sync for MappedBlock {}

impl MappedBlock {
    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: `lead` is less than a page and inside the mapping.
        unsafe { self.base.as_ptr().add(self.lead) }
    }

    /// The first byte.
    pub fn address(&self) -> NonNull<u8> {
        // SAFETY: as in `as_ptr`; inside a mapping, which never begins at zero.
        unsafe { NonNull::new_unchecked(self.as_ptr()) }
    }

    /// Has a shared mapping show what it shows now, copied on write from now on. If the system refuses, no child that is
    /// forked from now on has the mapping at all.
    pub(crate) fn make_private(&self) {
        let file = file();
        // SAFETY: this is the whole mapping, as `map_range` has made it.
        let private = || unsafe { mapping::make_private(self.base, self.mapped, file.as_fd(), self.start) };
        if !file.is_still_ours() || private().is_err() {
            mapping::keep_from_children(self.base, self.mapped);
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Drop for MappedBlock {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone and references into it borrow from `self`.
        let _ = unsafe { mapping::unmap(self.base, self.mapped) };
    }
}
