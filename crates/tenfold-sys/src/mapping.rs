//! Mapping ranges of a file into this process.
//!
//! A core dump has nothing of such memory ([`madvise`], `MADV_DONTDUMP`): it holds what other processes sent.
//!
//! Making a mapping is safe: it comes as a bare pointer to fresh addresses, and using the pointer is the unsafe part.
//! The memory behind a shared mapping changes under any reader: go through atomics or copy out.
//!
//! [`madvise`]: https://man7.org/linux/man-pages/man2/madvise.2.html

use crate::error::{Errno, Result};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use std::os::fd::BorrowedFd;

/// Bytes of a huge page, where pages have 4 KiB: what one entry of the second level of page tables maps.
pub const HUGE_PAGE: usize = 2 << 20;

/// Maps `len` bytes of the file at `offset` for reading and writing, shared with everybody who maps them ([`mmap`],
/// `MAP_SHARED`). `offset` is a multiple of [`page_size`]. Does not block; pages come when they are touched, and a
/// touch beyond the end of the file is a `SIGBUS`. What is long enough to have huge pages lies so that it can.
///
/// # Errors
/// `ENOMEM` when the address space (`RLIMIT_AS`) or the number of mappings is used up, `EINVAL` for a length of zero or
/// a crooked offset.
///
/// [`mmap`]: https://man7.org/linux/man-pages/man2/mmap.2.html
pub fn map_shared(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<NonNull<u8>> {
    map(fd, offset, len, MapFlags::SHARED)
}

/// Maps `len` bytes of the file at `offset` for reading and writing; what is written stays in this process
/// ([`mmap`], `MAP_PRIVATE`: copy on write). A page not yet written still shows later changes of the file. Errors as
/// for [`map_shared`]; `RLIMIT_DATA` counts these mappings too.
///
/// [`mmap`]: https://man7.org/linux/man-pages/man2/mmap.2.html
pub fn map_private(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<NonNull<u8>> {
    map(fd, offset, len, MapFlags::PRIVATE)
}

fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, flags: MapFlags) -> Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let address = match place_for_huge_pages(offset, len) {
        // SAFETY: these addresses were set aside for this a moment ago, so nothing else is there.
        Some(address) => unsafe { rustix::mm::mmap(address, len, protection, flags | MapFlags::FIXED, fd, offset) }
            .inspect_err(|_| {
                // SAFETY: as above; there is nothing but addresses.
                let _ = unsafe { rustix::mm::munmap(address, len) };
            })?,
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing uses, so no existing memory changes.
        None => unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, protection, flags, fd, offset)? },
    };
    // SAFETY: the mapping that has just been made; only what a core dump has of it changes.
    let _ = unsafe { rustix::mm::madvise(address, len, Advice::LinuxDontDump) };
    NonNull::new(address.cast()).ok_or(Errno::FAULT)
}

/// Sets addresses aside for a mapping of the file at `offset`, if it can have huge pages: they need addresses that are as
/// far from a multiple of their size as the offset is. None if there is no room for that.
fn place_for_huge_pages(offset: u64, len: usize) -> Option<*mut c_void> {
    let within = (offset % HUGE_PAGE as u64) as usize;
    if len < (HUGE_PAGE - within) % HUGE_PAGE + HUGE_PAGE {
        return None;
    }
    let all = len.checked_add(HUGE_PAGE)?;
    // SAFETY: without MAP_FIXED the kernel picks addresses that nothing uses.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            core::ptr::null_mut(),
            all,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
    .ok()?;
    let before = within.wrapping_sub(start.addr()) % HUGE_PAGE;
    let rest = HUGE_PAGE - before;
    // SAFETY: what lies before and behind the place is given up again; both are parts of what was set aside, in whole
    // pages, since offset and start are.
    unsafe {
        if before > 0 {
            let _ = rustix::mm::munmap(start, before);
        }
        let place = start.byte_add(before);
        let _ = rustix::mm::munmap(place.byte_add(len.next_multiple_of(page_size())), rest);
        Some(place)
    }
}

/// Has a mapping show the same bytes as before, but copied on write from now on ([`mmap`], `MAP_FIXED`): other threads
/// that look at it, or write to it, notice nothing. Errors as for [`map_private`]; the mapping is as it was then.
///
/// # Safety
/// `[ptr, ptr + len)` is a whole mapping that [`map_shared`] has made of the file at `offset`.
///
/// [`mmap`]: https://man7.org/linux/man-pages/man2/mmap.2.html
pub unsafe fn make_private(ptr: NonNull<u8>, len: usize, fd: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let (address, protection) = (ptr.as_ptr().cast::<c_void>(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: the same pages of the same file take the place of those that the caller answers for.
    unsafe {
        rustix::mm::mmap(address, len, protection, MapFlags::PRIVATE | MapFlags::FIXED, fd, offset)?;
        let _ = rustix::mm::madvise(address, len, Advice::LinuxDontDump);
    }
    Ok(())
}

/// Leaves a mapping out of the children that are forked from now on ([`madvise`], `MADV_DONTFORK`).
///
/// [`madvise`]: https://man7.org/linux/man-pages/man2/madvise.2.html
pub fn keep_from_children(ptr: NonNull<u8>, len: usize) {
    // SAFETY: the advice changes nothing in this process; addresses where nothing is mapped are an error.
    let _ = unsafe { rustix::mm::madvise(ptr.as_ptr().cast::<c_void>(), len, Advice::LinuxDontFork) };
}

/// Gets the pages of memory that is about to be written from end to end ([`madvise`], `MADV_POPULATE_WRITE`): one call
/// for all, at two thirds of the price of a page fault each. For much memory see [`crate::huge_pages`]. Does nothing for
/// less than 64 KiB, and on kernels before 5.14.
///
/// [`madvise`]: https://man7.org/linux/man-pages/man2/madvise.2.html
pub fn populate<T>(room: &mut [MaybeUninit<T>]) {
    const WORTH_IT: usize = 64 << 10;
    let (start, len) = (room.as_mut_ptr().cast::<c_void>(), size_of_val(room));
    let lead = start.align_offset(page_size());
    if len < WORTH_IT || lead >= len {
        return;
    }
    // SAFETY: whole pages (the length is rounded up by the kernel, to the end of a page of the caller's), of which
    // the call changes neither the contents nor whether they are mapped. Without it they come when they are touched.
    let _ = unsafe { rustix::mm::madvise(start.byte_add(lead), len - lead, Advice::LinuxPopulateWrite) };
}

/// Takes a mapping away ([`munmap`]). Does not block. `ENOMEM` when splitting a mapping exceeds their maximum number.
///
/// # Safety
/// `[ptr, ptr + len)` was mapped by a function of this module, nothing refers to it any more, and nobody unmaps it
/// again.
///
/// [`munmap`]: https://man7.org/linux/man-pages/man2/munmap.2.html
pub unsafe fn unmap(ptr: NonNull<u8>, len: usize) -> Result<()> {
    // SAFETY: the caller gives up the whole range, which belongs to no one else.
    unsafe { rustix::mm::munmap(ptr.as_ptr().cast::<c_void>(), len) }
}

/// Maps the same pages a second time, without the file's descriptor ([`mremap`] with an old size of 0).
///
/// # Errors
/// `EINVAL` when `ptr` lies in a private mapping, `EFAULT` when it is not mapped, `ENOMEM` as for [`map_shared`].
///
/// # Safety
/// `[ptr, ptr + len)` lies within one mapping made by [`map_shared`] that stays mapped during the call.
///
/// [`mremap`]: https://man7.org/linux/man-pages/man2/mremap.2.html
pub unsafe fn duplicate(ptr: NonNull<u8>, len: usize) -> Result<NonNull<u8>> {
    // SAFETY: with an old size of 0 the original stays as it is, and without MREMAP_FIXED the copy gets fresh addresses.
    let copy = unsafe { rustix::mm::mremap(ptr.as_ptr().cast::<c_void>(), 0, len, MremapFlags::MAYMOVE)? };
    NonNull::new(copy.cast()).ok_or(Errno::FAULT)
}

/// Has the pages behind a mapping looked up at one go, and not one by one as they are touched ([`madvise`],
/// `MADV_POPULATE_READ`). A kernel that cannot leaves it to the touches.
///
/// [`madvise`]: https://man7.org/linux/man-pages/man2/madvise.2.html
pub fn look_up_pages(address: NonNull<u8>, len: usize) {
    // SAFETY: the advice changes no memory; addresses where nothing is mapped are an error.
    let _ = unsafe { rustix::mm::madvise(address.as_ptr().cast::<c_void>(), len, Advice::LinuxPopulateRead) };
}

/// The size of a page: 4096 on x86-64; on aarch64 also 16 or 64 KiB.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_file::MemoryFile;

    fn read(ptr: NonNull<u8>) -> u8 {
        // SAFETY: the tests pass pointers into live mappings.
        unsafe { ptr.read_volatile() }
    }

    fn write(ptr: NonNull<u8>, value: u8) {
        // SAFETY: the tests pass pointers into live writable mappings.
        unsafe { ptr.write_volatile(value) }
    }

    #[test]
    fn shared_private_and_duplicate() {
        let page = page_size();
        let file = MemoryFile::create("map").expect("create");
        file.allocate(0, 2 * page as u64).expect("allocate");
        let shared = map_shared(file.as_fd(), page as u64, page).expect("shared");
        let private = map_private(file.as_fd(), page as u64, page).expect("private");
        write(shared, 1);
        assert_eq!(read(private), 1);
        write(private, 2);
        assert_eq!(read(shared), 1);
        // SAFETY: `shared` is one live mapping of `page` bytes.
        let again = unsafe { duplicate(shared, page) }.expect("duplicate");
        write(again, 3);
        assert_eq!((read(shared), read(private)), (3, 2));
        // SAFETY: as above, but private, which the kernel refuses.
        assert_eq!(unsafe { duplicate(private, page) }, Err(Errno::INVAL));
        for mapping in [shared, private, again] {
            // SAFETY: each is a mapping of `page` bytes, used no more.
            unsafe { unmap(mapping, page) }.expect("unmap");
        }
    }

    #[test]
    fn a_shared_mapping_becomes_private() {
        let page = page_size();
        let file = MemoryFile::create("map").expect("create");
        file.allocate(0, 2 * page as u64).expect("allocate");
        let map = || map_shared(file.as_fd(), page as u64, page).expect("shared");
        let (one, other) = (map(), map());
        write(one, 1);
        // SAFETY: `one` is a whole mapping of the file at this offset.
        unsafe { make_private(one, page, file.as_fd(), page as u64) }.expect("private");
        assert_eq!(read(one), 1);
        write(one, 2);
        assert_eq!((read(one), read(other)), (2, 1));
        for mapping in [one, other] {
            // SAFETY: each is a mapping of `page` bytes, used no more.
            unsafe { unmap(mapping, page) }.expect("unmap");
        }
    }

    #[test]
    fn long_mappings_lie_where_huge_pages_can() {
        let (page, huge) = (page_size(), HUGE_PAGE);
        let file = MemoryFile::create("map").expect("create");
        file.set_len(8 * huge as u64).expect("length");
        for (offset, len) in
            [(0, huge), (0, huge + 1), (huge - page, huge + page), (page, 3 * huge), (3 * huge, 2 * huge)]
        {
            for map in [map_shared, map_private] {
                let mapping = map(file.as_fd(), offset as u64, len).expect("map");
                assert_eq!(mapping.addr().get() % huge, offset % huge);
                // SAFETY: the last byte of a live mapping.
                let last = unsafe { mapping.byte_add(len - 1) };
                write(last, 1);
                assert_eq!(read(last), 1);
                // SAFETY: a mapping of `len` bytes, used no more.
                unsafe { unmap(mapping, len) }.expect("unmap");
            }
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let file = MemoryFile::create("map").expect("create");
        assert_eq!(map_shared(file.as_fd(), 0, 0), Err(Errno::INVAL));
        assert_eq!(map_shared(file.as_fd(), 1, 4096), Err(Errno::INVAL));
    }

    #[test]
    fn populated_memory_is_as_any_other() {
        for len in [0, 1000, 10 << 20] {
            let mut numbers: Vec<u64> = Vec::with_capacity(len / 8);
            populate(numbers.spare_capacity_mut());
            numbers.extend(0..len as u64 / 8);
            assert!(numbers.iter().zip(0..).all(|(found, expected)| *found == expected));
        }
    }
}
