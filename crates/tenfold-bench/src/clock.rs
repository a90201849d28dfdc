//! A clock that all processes share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, comparable between processes.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Seconds since an earlier [`now`].
pub(crate) fn seconds_since(start: u64) -> f64 {
    (now() - start) as f64 / 1e9
}
