//! How large the heap may grow by default.

use tenfold_sys::limits::{self, Resource};

use crate::error::{HeapError, Result};

/// Nine tenths of the memory that is available now, no more than the cgroup's limit allows, and no
/// more than this process may write into one file.
pub(super) fn default_limit() -> u64 {
    let available = limits::memory_available().unwrap_or(u64::MAX / 16);
    let group = limits::cgroup_memory_limit().unwrap_or(u64::MAX / 16);
    let share = available.min(group) / 10 * 9;
    match limits::get(Resource::FileSize) {
        (Some(file), _) => share.min(file),
        _ => share,
    }
}

/// Makes sure that this process may let the file grow to `end`: beyond RLIMIT_FSIZE the kernel
/// answers with a signal that kills.
pub(super) fn check_file_size(end: u64) -> Result<()> {
    match limits::get(Resource::FileSize) {
        (Some(limit), _) if end > limit => Err(HeapError::FileSize { needed: end, limit }),
        _ => Ok(()),
    }
}
