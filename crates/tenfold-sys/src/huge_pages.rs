//! Huge pages, where they are quick to come by.
//!
//! Measured for 64 MiB, in milliseconds:
//!
//! ```text
//!                                small pages   huge pages
//!   got from the system              15            4         each zeroed, behind a memory file
//!   written                          10            3         through the file; through a mapping
//!   a number of each page read        7          0.2         by another process
//!   written once more                21            3         through a mapping, which small pages enter one by one
//! ```
//!
//! A virtual machine may have handed its free huge pages back to its host: to get one again takes 30 times as long, longer
//! than small ones, of which there are always some that the machine has kept. And a machine whose memory is in pieces may
//! have to put some together first. So a process that had to wait for one takes small ones for a while.
//!
//! `MADV_COLLAPSE` needs no setting of the system's, and asks for these pages and no others.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::clock;
use crate::error::{Errno, Result, from_minus_one};
use crate::mapping::{self, HUGE_PAGE};

/// A huge page that takes this much processor time is not worth it: small ones take as long.
const SLOW: Duration = Duration::from_millis(1);
/// How many bytes get small pages after that: so many that even a page that took five milliseconds is two hundredths of
/// their price.
const PAUSE: u64 = 512 << 20;
/// From so many bytes on, memory is got from the system each time and given back: glibc's malloc keeps what is shorter.
pub const NEVER_KEPT: usize = 32 << 20;

/// How many bytes are still to get small pages.
static PAUSED: AtomicU64 = AtomicU64::new(0);

/// Puts one huge page where the file has small ones, or has them in part: the bytes stay, and what was missing is zero
/// ([`madvise`], `MADV_COLLAPSE`). Of `address`, in a shared mapping or memory of the process's own, [`HUGE_PAGE`] bytes from a
/// multiple of that on are looked at; at least one page must be there.
///
/// # Errors
/// `EINVAL` where the kernel knows no such thing (before 6.1), was told never to, or has pages of another size; `EBUSY`,
/// `EAGAIN` or `ENOMEM` if there is no huge page to be had now.
///
/// [`madvise`]: https://man7.org/linux/man-pages/man2/madvise.2.html
pub fn collapse(address: NonNull<u8>) -> Result<()> {
    if mapping::page_size() != 4096 {
        return Err(Errno::INVAL);
    }
    // SAFETY: the advice changes no bytes; addresses where nothing is mapped are an error.
    from_minus_one(unsafe { libc::madvise(address.as_ptr().cast(), HUGE_PAGE, libc::MADV_COLLAPSE) }).map(drop)
}

/// Calls `take` for each of `count` huge pages, as long as that is quick. Returns how many it took. The others are to
/// be small ones. Whether to begin with it, [`are_worth_a_try`] says.
pub fn take_each(count: usize, mut take: impl FnMut(usize) -> Result<()>) -> usize {
    let mut before = clock::thread_time();
    for index in 0..count {
        let taken = take(index);
        let now = clock::thread_time();
        if taken.is_err() || now.saturating_sub(before) > SLOW {
            PAUSED.store(PAUSE, Ordering::Relaxed);
            return index + usize::from(taken.is_ok());
        }
        before = now;
    }
    count
}

/// Whether the next `bytes` are to have huge pages if they can: not for a while after one was slow.
pub fn are_worth_a_try(bytes: u64) -> bool {
    let fewer = |left: u64| (left > 0).then(|| left.saturating_sub(bytes));
    PAUSED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_err()
}

/// Gets huge pages for memory of the process's own that was just allocated and is about to be written from end to end,
/// if there is so much that the C library had to get it from the system. The others come as they are touched.
pub fn populate(room: &mut [MaybeUninit<u8>]) {
    if room.len() < NEVER_KEPT || !are_worth_a_try(room.len() as u64) {
        return;
    }
    let lead = room.as_ptr().align_offset(HUGE_PAGE).min(room.len());
    let mut pages = room[lead..].chunks_exact_mut(HUGE_PAGE);
    take_each(pages.len(), |_| {
        let Some(page) = pages.next() else { return Ok(()) };
        // Where there is no page at all, there is nothing that could become a huge one.
        page[0].write(0);
        collapse(NonNull::from(page).cast())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_file::MemoryFile;

    fn read(ptr: NonNull<u8>) -> u8 {
        // SAFETY: the tests pass pointers into live mappings.
        unsafe { ptr.read_volatile() }
    }

    #[test]
    fn small_pages_become_a_huge_one() {
        let huge = HUGE_PAGE;
        let file = MemoryFile::create("map").expect("create");
        file.set_len(2 * huge as u64).expect("length");
        let whole = mapping::map_shared(file.as_fd(), 0, 2 * huge).expect("map");
        // SAFETY: inside the mapping.
        let second = unsafe { whole.byte_add(huge) };
        // SAFETY: as above.
        unsafe { second.write_volatile(7) };
        match collapse(second) {
            Ok(()) => {
                // SAFETY: inside the mapping.
                assert_eq!((read(second), read(unsafe { second.byte_add(huge - 1) })), (7, 0));
            }
            // Whether there is one depends on the machine.
            Err(error) => assert!([Errno::INVAL, Errno::BUSY, Errno::AGAIN, Errno::NOMEM].contains(&error)),
        }
        assert!(collapse(whole).is_err(), "nothing is there");
        // SAFETY: the whole mapping, used no more.
        unsafe { mapping::unmap(whole, 2 * huge) }.expect("unmap");
    }

    #[test]
    fn one_that_is_slow_or_refused_is_the_last_for_a_while() {
        // In one test, since others of this process would use up the pause.
        for len in [0, 1000, NEVER_KEPT, NEVER_KEPT + HUGE_PAGE + 1] {
            let mut bytes: Vec<u8> = Vec::with_capacity(len);
            populate(&mut bytes.spare_capacity_mut()[..len]);
            bytes.extend((0..len).map(|n| n as u8));
            assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == n as u8), "whatever pages it has");
        }
        PAUSED.store(0, Ordering::Relaxed);
        let busy = || {
            let from = clock::thread_time();
            while clock::thread_time() - from <= SLOW {}
        };
        let taken = take_each(5, |index| {
            if index == 2 {
                busy();
            }
            Ok(())
        });
        assert_eq!(taken, 3);
        assert!(!are_worth_a_try(PAUSE - 1));
        assert!(!are_worth_a_try(1));
        assert!(are_worth_a_try(1));
        assert_eq!(take_each(5, |index| if index == 4 { Err(Errno::NOMEM) } else { Ok(()) }), 4);
    }
}
