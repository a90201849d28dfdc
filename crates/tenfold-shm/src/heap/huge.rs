//! Huge pages behind large blocks: see [`huge_pages`].
//!
//! Blocks of 2 MiB and more begin where a huge page can. What such a block needs of new pages it gets in huge ones, as far
//! as there are some to be had quickly; the rest, and the block's end, in small ones.
//!
//! *Killed here:* as in the reservation of small pages: there are some that no account tells of. The block's next owner
//! finds them there already.

use tenfold_sys::huge_pages;
use tenfold_sys::mapping::{self, HUGE_PAGE};

use super::block::Block;
use super::{Heap, large, limit};

/// Bytes of a huge page.
pub(super) const HUGE: u64 = HUGE_PAGE as u64;

impl Block {
    /// Gets huge pages for the block's bytes in `from..to`, which have no pages yet, as far as they go. Returns how many
    /// bytes have some.
    #[cold]
    pub(super) fn take_huge_pages(self, heap: Heap, from: u64, to: u64) -> u64 {
        let (first, last) = ((self.offset + from).next_multiple_of(HUGE), (self.offset + to) / HUGE * HUGE);
        if first >= last || limit::check_file_size(last).is_err() || !huge_pages::are_worth_a_try(last - first) {
            return 0;
        }
        let (Some(mapped), Ok(file)) = (self.map_to_keep(heap, false), super::alloc::our_file()) else { return 0 };
        let count = ((last - first) / HUGE) as usize;
        let taken = huge_pages::take_each(count, |index| {
            let at = first + index as u64 * HUGE;
            // Where there is no page at all, there is nothing that could become a huge one.
            file.allocate(at, mapping::page_size() as u64)?;
            // SAFETY: `at` lies in the block, the whole of which is mapped.
            huge_pages::collapse(unsafe { mapped.address().byte_add((at - self.offset) as usize) })
        });
        if taken < count {
            // Its small pages are to be looked up at one go when they are used again.
            large::let_go(&mapped);
        }
        taken as u64 * HUGE
    }
}
