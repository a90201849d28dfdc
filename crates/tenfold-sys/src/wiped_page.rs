//! A page that a forked child finds empty.
//!
//! The kernel itself zeroes it in the child, whoever forked: `fork`, `vfork`'s big sister `clone`, C code that never
//! heard of fork handlers. So a process that reads its identity from here cannot take itself for its parent.

use crate::error::Result;
use crate::mapping::page_size;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::AtomicU32;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Sixteen words that are zero at first and zero again in each forked child. The page lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct WipedPage {
    words: &'static [AtomicU32; 16],
}

impl WipedPage {
    /// Maps the page ([`madvise`], `MADV_WIPEONFORK`, Linux 4.14). Does not block; the page is never given back.
    ///
    /// # Errors
    /// `ENOMEM`, or `EINVAL` on a kernel that does not know the advice.
    ///
    /// [`madvise`]: https://man7.org/linux/man-pages/man2/madvise.2.html
    pub fn new() -> Result<Self> {
        let len = page_size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing uses.
        let page = unsafe { rustix::mm::mmap_anonymous(null_mut(), len, protection, MapFlags::PRIVATE)? };
        // SAFETY: the range is the fresh mapping, whose contents nobody relies on yet.
        if let Err(error) = unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) } {
            // SAFETY: the mapping was made above and nothing refers to it.
            let _ = unsafe { rustix::mm::munmap(page, len) };
            return Err(error);
        }
        let page = NonNull::new(page.cast::<[AtomicU32; 16]>()).ok_or(crate::Errno::FAULT)?;
        // SAFETY: the page is mapped for ever, aligned, at least 64 bytes, zero-filled, and reached by atomics alone;
        // the wipe happens in a new process before it runs its first instruction.
        let words = unsafe { page.as_ref() };
        Ok(Self { words })
    }

    /// The words.
    pub fn words(&self) -> &'static [AtomicU32; 16] {
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::forked;
    use core::sync::atomic::Ordering;

    #[test]
    fn a_child_finds_zero_and_the_parent_keeps_its_value() {
        let page = WipedPage::new().expect("page");
        page.words()[3].store(9, Ordering::Relaxed);
        let child = forked(|| {
            if page.words()[3].load(Ordering::Relaxed) != 0 {
                crate::process::exit_now(1);
            }
        });
        child.join();
        assert_eq!(page.words()[3].load(Ordering::Relaxed), 9);
    }
}
