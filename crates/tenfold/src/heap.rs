//! The shared heap, as far as a program needs to know of it.

use tenfold_engine::Heap;
pub use tenfold_engine::shm::heap::stats::Stats as HeapStats;

use crate::error::Result;

/// Counts what the program and all its processes have in the shared heap.
///
/// ```
/// let before = tenfold::heap_stats()?;
/// let value = tenfold::Value::new(7)?;
/// assert!(tenfold::heap_stats()?.live_bytes > before.live_bytes);
/// drop(value);
/// # tenfold::Result::Ok(())
/// ```
///
/// # Errors
/// If there is no heap yet and none can be made.
pub fn heap_stats() -> Result<HeapStats> {
    Ok(Heap::get()?.stats())
}

/// Sets how many bytes the shared heap may take from the system, for the program and all its
/// processes; at first nine tenths of the memory that is available. What is in use stays. At the
/// limit, whatever needs more fails with [`tenfold_engine::HeapError::OutOfMemory`].
///
/// # Errors
/// If there is no heap yet and none can be made.
pub fn set_heap_limit(bytes: u64) -> Result<()> {
    Heap::get()?.set_limit(bytes);
    Ok(())
}
