//! Huge pages behind large blocks.
//!
//! Blocks of 2 MiB and more begin where a huge page can. What such a block needs of new pages it gets in huge ones, as far
//! as there are some to be had quickly; the rest, and the block's end, in small ones.
//!
//! Measured for 64 MiB, in milliseconds:
//!
//! ```text
//!                                small pages   huge pages
//!   got from the system              15            4         each zeroed
//!   written                          10            3         through the file; through a mapping
//!   a number of each page read        7          0.2         by another process
//!   written once more                21            3         through a mapping, which small pages enter one by one
//! ```
//!
//! A virtual machine may have handed its free huge pages back to its host: to get one again takes 30 times as long, longer
//! than small ones, of which there are always some that the machine has kept. And a machine whose memory is in pieces may
//! have to put some together first. So a process that had to wait for one takes small ones for a while.
//!
//! *Killed here:* as in the reservation of small pages: there are some that no account tells of. The block's next owner
//! finds them there already.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use tenfold_sys::clock;
use tenfold_sys::mapping::{self, HUGE_PAGE};

use super::block::Block;
use super::{Heap, large, limit};

/// Bytes of a huge page.
pub(super) const HUGE: u64 = HUGE_PAGE as u64;
/// A huge page that takes this much processor time is not worth it: small ones take as long.
const SLOW: Duration = Duration::from_millis(1);
/// How many bytes get small pages after that.
const PAUSE: u64 = 256 << 20;

/// How many bytes are still to get small pages.
static PAUSED: AtomicU64 = AtomicU64::new(0);

impl Block {
    /// Gets huge pages for the block's bytes in `from..to`, which have no pages yet, as far as they go. Returns how many
    /// bytes have some.
    #[cold]
    pub(super) fn take_huge_pages(self, heap: Heap, from: u64, to: u64) -> u64 {
        let (first, last) = ((self.offset + from).next_multiple_of(HUGE), (self.offset + to) / HUGE * HUGE);
        if first >= last || limit::check_file_size(last).is_err() || is_paused(last - first) {
            return 0;
        }
        let (Some(mapped), Ok(file)) = (self.map_to_keep(heap, false), super::alloc::our_file()) else { return 0 };
        let mut before = clock::thread_time();
        for at in (first..last).step_by(HUGE_PAGE) {
            // SAFETY: `at` lies in the block, the whole of which is mapped.
            let address = unsafe { mapped.address().byte_add((at - self.offset) as usize) };
            // Where there is no page at all, there is nothing that could become a huge one.
            let taken = file.allocate(at, mapping::page_size() as u64).and_then(|()| mapping::collapse(address));
            let now = clock::thread_time();
            if taken.is_err() || now.saturating_sub(before) > SLOW {
                PAUSED.store(PAUSE, Ordering::Relaxed);
                // Its small pages are to be looked up at one go when they are used again.
                large::let_go(&mapped);
                return if taken.is_ok() { at + HUGE - first } else { at - first };
            }
            before = now;
        }
        last - first
    }
}

/// Whether the next `bytes` get small pages.
fn is_paused(bytes: u64) -> bool {
    let fewer = |left: u64| (left > 0).then(|| left.saturating_sub(bytes));
    PAUSED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
}
