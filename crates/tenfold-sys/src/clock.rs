//! Time that only goes forward, and the moments at which a wait gives up.

use crate::interrupt;
use core::time::Duration;
use rustix::time::{ClockId, Timespec};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds of [`CLOCK_MONOTONIC`], the same clock in every process of the machine. Does not block, cannot fail.
///
/// [`CLOCK_MONOTONIC`]: https://man7.org/linux/man-pages/man2/clock_gettime.2.html
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).saturating_mul(NANOS_PER_SECOND).saturating_add(time.tv_nsec as u64)
}

/// The processor time that the calling thread has used ([`CLOCK_THREAD_CPUTIME_ID`]). Does not block, cannot fail.
///
/// [`CLOCK_THREAD_CPUTIME_ID`]: https://man7.org/linux/man-pages/man2/clock_gettime.2.html
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An absolute moment of [`now`], or never. Survives interruptions of a wait, where a relative timeout would start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<u64>);

impl Deadline {
    /// The deadline that does not come.
    pub const fn never() -> Self {
        Self(None)
    }

    /// The deadline that has passed long ago: for one look, without waiting.
    pub const fn passed() -> Self {
        Self(Some(0))
    }

    /// The moment `timeout` from now; never, when that lies beyond the clock.
    pub fn after(timeout: Duration) -> Self {
        let nanos = u64::try_from(timeout.as_nanos()).ok();
        // The kernel's own clock ends at i64::MAX nanoseconds; a later moment would be refused as invalid.
        Self(nanos.and_then(|nanos| now().checked_add(nanos)).filter(|&at| at <= i64::MAX as u64))
    }

    /// [`after`](Self::after) for `Some`, [`never`](Self::never) for `None`.
    pub fn from_timeout(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self::never(), Self::after)
    }

    /// Whether the moment has come, or this thread's waits are to end now ([`crate::interrupt`]).
    pub fn expired(self) -> bool {
        self.0.is_some_and(|at| now() >= at || interrupt::has_given_up())
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// The moment in nanoseconds of [`now`], or `None` for never.
    pub const fn at(self) -> Option<u64> {
        self.0
    }

    /// The time that is left (zero once expired), or `None` for never.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| Duration::from_nanos(at.saturating_sub(now())))
    }

    /// The moment in the kernel's form.
    pub(crate) fn timespec(self) -> Option<Timespec> {
        self.0.map(timespec)
    }

    /// The time that is left in the kernel's form.
    pub(crate) fn remaining_timespec(self) -> Option<Timespec> {
        self.0.map(|at| timespec(at.saturating_sub(now())))
    }
}

fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / NANOS_PER_SECOND) as i64, tv_nsec: (nanos % NANOS_PER_SECOND) as _ }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_forward() {
        let first = now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(now() >= first + 2_000_000);
    }

    #[test]
    fn deadlines_saturate_to_never() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::never());
        assert_eq!(Deadline::after(Duration::from_nanos(u64::MAX)), Deadline::never());
        assert_eq!(Deadline::after(Duration::from_nanos(i64::MAX as u64)), Deadline::never());
        assert_eq!(Deadline::from_timeout(None), Deadline::never());
        assert!(!Deadline::never().expired());
        assert_eq!(Deadline::never().remaining(), None);
    }

    #[test]
    fn the_earlier_deadline_wins() {
        let soon = Deadline::after(Duration::ZERO);
        let later = Deadline::after(Duration::from_secs(1000));
        assert_eq!(soon.min(later), soon);
        assert_eq!(later.min(soon), soon);
        assert_eq!(Deadline::never().min(soon), soon);
        assert_eq!(soon.min(Deadline::never()), soon);
        assert!(soon.expired());
        assert_eq!(soon.remaining(), Some(Duration::ZERO));
        assert!(!later.expired());
        assert!(Deadline::passed().expired());
    }
}
