//! The alarm that kills its own process.

use crate::error::{Errno, Result, last};
use crate::process::{self, Pid};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::time::Duration;

/// A POSIX timer whose expiry is a `SIGKILL` to this process ([`timer_create`], `CLOCK_MONOTONIC`): no code of the
/// process has to run for it to work, and none can put it off. A forked child has no timers: there, [`arm`](Self::arm)
/// fails. Deleted when dropped; gone at exec.
///
/// [`timer_create`]: https://man7.org/linux/man-pages/man2/timer_create.2.html
#[derive(Debug)]
pub struct KillTimer {
    // The kernel's own number: glibc's `timer_t` is a pointer, which adds nothing here.
    id: libc::c_int,
    owner: Pid,
}

impl KillTimer {
    /// A timer that is not armed. `EAGAIN` when the user has too many timers and signals pending
    /// (`RLIMIT_SIGPENDING`).
    pub fn new() -> Result<Self> {
        // SAFETY: all-zero is a valid sigevent.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut id: libc::c_int = 0;
        // SAFETY: both pointers are to live locals of the kernel's own layout (glibc's sigevent is the kernel's).
        let made = unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) };
        if made == -1 { Err(last()) } else { Ok(Self { id, owner: process::pid() }) }
    }

    /// The process dies `after` from now unless the timer is armed anew or [`disarm`](Self::disarm)ed. `EINVAL` in a
    /// forked child.
    pub fn arm(&self, after: Duration) -> Result<()> {
        // A time of zero would disarm.
        let after = after.max(Duration::from_nanos(1));
        let seconds = libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX);
        self.set(libc::timespec { tv_sec: seconds, tv_nsec: after.subsec_nanos().into() })
    }

    /// Calls the alarm off. Errors as for [`arm`](Self::arm).
    pub fn disarm(&self) -> Result<()> {
        self.set(libc::timespec { tv_sec: 0, tv_nsec: 0 })
    }

    fn set(&self, value: libc::timespec) -> Result<()> {
        // A timer of a forked child may bear the same number by chance.
        if process::pid() != self.owner {
            return Err(Errno::INVAL);
        }
        let setting = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the pointer is to a live local of the kernel's layout on 64-bit machines; the old value is not asked.
        let set = unsafe {
            libc::syscall(libc::SYS_timer_settime, self.id, 0, &raw const setting, null_mut::<libc::itimerspec>())
        };
        if set == -1 { Err(last()) } else { Ok(()) }
    }
}

impl Drop for KillTimer {
    fn drop(&mut self) {
        if process::pid() == self.owner {
            // SAFETY: no pointers are passed, and the number is ours to delete.
            unsafe { libc::syscall(libc::SYS_timer_delete, self.id) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::{forever, forked};
    use crate::process::{ExitStatus, reap_blocking};

    #[test]
    fn kills_the_process_in_time() {
        let child = forked(|| {
            let timer = KillTimer::new();
            if timer.as_ref().is_ok_and(|timer| timer.arm(Duration::from_millis(5)).is_ok()) {
                forever();
            }
        });
        assert_eq!(reap_blocking(child.0), Ok(ExitStatus::Signaled { signal: libc::SIGKILL, core: false }));
    }

    #[test]
    fn disarmed_or_dropped_it_does_not_kill() {
        forked(|| {
            let timer = KillTimer::new();
            let Ok(timer) = timer else { process::exit_now(1) };
            let good = timer.arm(Duration::from_millis(20)).is_ok() && timer.disarm().is_ok();
            let armed = timer.arm(Duration::from_millis(20)).is_ok();
            drop(timer);
            std::thread::sleep(Duration::from_millis(60));
            process::exit_now(i32::from(!(good && armed)));
        })
        .join();
    }

    #[test]
    fn a_child_cannot_use_its_parents_timer() {
        let timer = KillTimer::new().expect("timer");
        forked(|| {
            process::exit_now(i32::from(timer.arm(Duration::from_secs(1)) != Err(Errno::INVAL)));
        })
        .join();
    }
}
