//! Words that a test shares with the children that it forks, apart from the heap.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenfold_sys::memory_file::MemoryFile;

/// Sixty-four words, zero at first. They are never given back.
pub(crate) fn words() -> &'static [AtomicU64; 64] {
    let file = MemoryFile::create("test").unwrap();
    file.allocate(0, 4096).unwrap();
    let page = tenfold_sys::mapping::map_shared(file.as_fd(), 0, 4096).unwrap();
    // SAFETY: a fresh page that is never unmapped, zero-filled, aligned, used through atomics alone.
    unsafe { page.cast::<[AtomicU64; 64]>().as_ref() }
}

/// Waits, for as long as the watchdog lets it, until `ready` says so.
pub(crate) fn until(ready: impl Fn() -> bool) {
    while !ready() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the word is `value` or more.
pub(crate) fn reaches(word: &AtomicU64, value: u64) {
    until(|| word.load(Ordering::SeqCst) >= value);
}

/// Sleeps until somebody kills this process.
pub(crate) fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
