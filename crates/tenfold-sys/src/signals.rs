//! Signals: dispositions, masks, the news of a child's death, and what Rust's own start-up would have installed.

use crate::error::{Result, from_minus_one};
use crate::{futex, mapping};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Has the signal ignored ([`sigaction`], `SIG_IGN`); children inherit that, also across exec. `EINVAL` for a signal
/// that cannot be ignored.
///
/// [`sigaction`]: https://man7.org/linux/man-pages/man2/sigaction.2.html
pub fn ignore(signal: i32) -> Result<()> {
    set_action(signal, libc::SIG_IGN, 0)
}

/// Gives the signal its default action back ([`sigaction`], `SIG_DFL`). Async-signal-safe.
///
/// [`sigaction`]: https://man7.org/linux/man-pages/man2/sigaction.2.html
pub fn default(signal: i32) -> Result<()> {
    set_action(signal, libc::SIG_DFL, 0)
}

/// Whether the signal is ignored. Async-signal-safe; does not block.
pub fn is_ignored(signal: i32) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a live local for the call to fill; zeroed memory is a valid sigaction.
    let now = unsafe {
        libc::sigaction(signal, null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == libc::SIG_IGN
}

fn set_action(signal: i32, handler: libc::sighandler_t, flags: i32) -> Result<()> {
    // SAFETY: all-zero is a valid sigaction with an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: `action` is a live local; the handlers passed within this module do only what a handler may.
    from_minus_one(unsafe { libc::sigaction(signal, &raw const action, null_mut()) }).map(drop)
}

/// Some signals, or all, are blocked on the calling thread until this is dropped, which puts the old mask back: in the
/// parent and in the child, if a fork lies between.
#[derive(Debug)]
#[must_use = "dropping it unblocks the signals at once"]
pub struct MaskGuard {
    old: libc::sigset_t,
    // A mask is its thread's own: not Send.
    _thread: core::marker::PhantomData<*const ()>,
}

/// Blocks all signals that can be blocked on this thread ([`pthread_sigmask`]): no handler runs here until the guard is
/// dropped. Does not block and cannot fail.
///
/// [`pthread_sigmask`]: https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html
pub fn block_all() -> MaskGuard {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a live local; zeroed memory is a valid (empty) set, so it is initialised whatever the call does.
    let all = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    };
    block_set(&all)
}

/// Blocks one signal more on this thread ([`pthread_sigmask`]), as [`block_all`] does with all.
///
/// [`pthread_sigmask`]: https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html
pub fn block(signal: i32) -> MaskGuard {
    block_set(&set_of(&[signal]))
}

/// Unblocks signals on this thread, whoever has blocked them ([`pthread_sigmask`]).
///
/// [`pthread_sigmask`]: https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html
pub fn unblock(signals: &[i32]) {
    // SAFETY: a live set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set_of(signals), null_mut()) };
}

/// The set of these signals; a number that is no signal is left out.
pub(crate) fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: as in `block_all`.
    unsafe {
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn block_set(set: &libc::sigset_t) -> MaskGuard {
    let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: live sets; zeroed memory is a valid one, so `old` is initialised whatever the call does.
    let old = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, set, old.as_mut_ptr());
        old.assume_init()
    };
    MaskGuard { old, _thread: core::marker::PhantomData }
}

impl MaskGuard {
    /// Puts the old mask back; the same as dropping the guard.
    pub fn restore(self) {}
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        // SAFETY: `old` is the set that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.old, null_mut()) };
    }
}

/// The word of [`on_child_exit`].
static CHILD_EXITS: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

/// Has `word` incremented and its futex sleepers woken each time a child dies (a `SIGCHLD` handler with `SA_NOCLDSTOP`
/// and without `SA_RESTART`). Several deaths may come as one: reap until there is nothing to reap. A later call moves
/// the news to another word. Replaces any other `SIGCHLD` handler, so only for processes that are all ours.
pub fn on_child_exit(word: &'static AtomicU32) -> Result<()> {
    CHILD_EXITS.store(core::ptr::from_ref(word).cast_mut(), Ordering::Release);
    let handler: extern "C" fn(i32) = child_exited;
    set_action(libc::SIGCHLD, handler as *const () as libc::sighandler_t, libc::SA_NOCLDSTOP)
}

extern "C" fn child_exited(_signal: i32) {
    // SAFETY: the C library gives each thread a valid errno location; what the handler interrupts must not see it change.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: null or made from a `&'static AtomicU32`.
    if let Some(word) = unsafe { CHILD_EXITS.load(Ordering::Acquire).as_ref() } {
        word.fetch_add(1, Ordering::Release);
        futex::wake(word, i32::MAX as u32);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The lowest address that the main thread's stack may have; 0 as long as it is not known.
static STACK_LIMIT: AtomicUsize = AtomicUsize::new(0);

/// How far below the limit a fault still counts as an overflow: the gap that the kernel keeps free below a stack.
const GUARD_GAP: usize = 256 * 4096;

/// Makes an overflow of the main thread's stack say so on standard error before it kills the process, as Rust's own
/// start-up does in programs that get as far as `main`. Call it on the main thread. Signals that have a handler already
/// are left alone; a fault that is no overflow ends the process as if this did not exist.
///
/// # Errors
/// `ENOMEM` when there is no memory for the handler's stack; those of [`sigaction`] and [`sigaltstack`].
///
/// [`sigaction`]: https://man7.org/linux/man-pages/man2/sigaction.2.html
/// [`sigaltstack`]: https://man7.org/linux/man-pages/man2/sigaltstack.2.html
pub fn install_stack_overflow_report() -> Result<()> {
    let Some(limit) = lowest_stack_address() else {
        return Ok(());
    };
    provide_alternate_stack()?;
    STACK_LIMIT.store(limit, Ordering::Release);
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a live local for the call to fill; zeroed memory is a valid sigaction.
        let now = unsafe {
            from_minus_one(libc::sigaction(signal, null(), now.as_mut_ptr()))?;
            now.assume_init()
        };
        if now.sa_sigaction == libc::SIG_DFL {
            let handler: extern "C" fn(i32, *const libc::siginfo_t, *const c_void) = faulted;
            set_action(signal, handler as *const () as libc::sighandler_t, libc::SA_SIGINFO | libc::SA_ONSTACK)?;
        }
    }
    Ok(())
}

extern "C" fn faulted(signal: i32, info: *const libc::siginfo_t, _context: *const c_void) {
    let limit = STACK_LIMIT.load(Ordering::Acquire);
    // SAFETY: the kernel passes a valid siginfo of a fault to an SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() } as usize;
    let overflow = limit.saturating_sub(GUARD_GAP)..limit.saturating_add(mapping::page_size());
    if overflow.contains(&address) {
        let message = "tenfold: the main thread of this process has overflowed its stack\n";
        // SAFETY: standard error is never closed by us, and a closed number makes the write fail, no more.
        let stderr = unsafe { rustix::fd::BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
        let _ = rustix::io::write(stderr, message.as_bytes());
    }
    // On return the instruction faults again, and now the signal kills.
    let _ = default(signal);
}

/// The lowest address that the calling thread's stack may have; `None` if it has no limit.
fn lowest_stack_address() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::zeroed();
    let (mut address, mut size) = (null_mut(), 0);
    // SAFETY: the attributes are initialised by the first call, read by the second and given back by the third.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut address, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
    (!address.is_null() && size != 0).then_some(address as usize)
}

/// Gives the calling thread a stack for signal handlers, with an inaccessible page below it, unless it has one. It lives
/// as long as the process.
fn provide_alternate_stack() -> Result<()> {
    let mut now = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: a live local for the call to fill; zeroed memory is a valid stack_t.
    let now = unsafe {
        from_minus_one(libc::sigaltstack(null(), now.as_mut_ptr()))?;
        now.assume_init()
    };
    if now.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    let page = mapping::page_size();
    // SAFETY: takes a number; 0 for an unknown one. Large vector registers need more than SIGSTKSZ says.
    let least = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let size = (least + 2 * libc::SIGSTKSZ).next_multiple_of(page);
    let flags = rustix::mm::MapFlags::PRIVATE;
    let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: without MAP_FIXED the kernel picks addresses that nothing uses.
    let base = unsafe { rustix::mm::mmap_anonymous(null_mut(), page + size, access, flags)? };
    let base = NonNull::new(base.cast::<u8>()).ok_or(crate::Errno::FAULT)?;
    // SAFETY: the first page of the mapping just made, which holds nothing.
    unsafe { rustix::mm::mprotect(base.as_ptr().cast(), page, rustix::mm::MprotectFlags::empty())? };
    // SAFETY: within the mapping, one page above its start.
    let bottom = unsafe { base.as_ptr().add(page) };
    let stack = libc::stack_t { ss_sp: bottom.cast(), ss_flags: 0, ss_size: size };
    // SAFETY: the stack is mapped for ever and used by nobody else.
    from_minus_one(unsafe { libc::sigaltstack(&raw const stack, null_mut()) }).map(drop)
}

/// What Rust's start-up does before `main`, for a worker that never gets there: `SIGPIPE` ignored, so that a write to a
/// closed pipe is an error, and [`install_stack_overflow_report`].
pub fn as_std_runtime_does() -> Result<()> {
    ignore(libc::SIGPIPE)?;
    install_stack_overflow_report()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;
    use crate::forked_test::{forked, shared_words};
    use crate::process::{self, ExitStatus, Fork, exit_now, kill, pid};
    use core::time::Duration;

    #[test]
    fn ignored_and_default() {
        forked(|| {
            let before = is_ignored(libc::SIGTERM);
            let good = ignore(libc::SIGTERM).is_ok() && kill(pid(), libc::SIGTERM).is_ok();
            exit_now(i32::from(!good || before || !is_ignored(libc::SIGTERM)));
        })
        .join();
        let child = forked(|| {
            let _ = ignore(libc::SIGTERM);
            let _ = default(libc::SIGTERM);
            let _ = kill(pid(), libc::SIGTERM);
        });
        assert_eq!(process::reap_blocking(child.0).map(ExitStatus::signal), Ok(Some(libc::SIGTERM)));
        assert!(ignore(libc::SIGKILL).is_err());
    }

    #[test]
    fn a_blocked_signal_waits_for_the_guard() {
        let words = shared_words();
        let child = forked(|| {
            let guard = block_all();
            let _ = kill(pid(), libc::SIGTERM);
            words[0].store(1, Ordering::SeqCst);
            guard.restore();
            words[0].store(2, Ordering::SeqCst);
        });
        assert_eq!(process::reap_blocking(child.0).map(ExitStatus::signal), Ok(Some(libc::SIGTERM)));
        assert_eq!(words[0].load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_death_of_a_child_is_counted_and_wakes() {
        let words = shared_words();
        forked(|| {
            let _ = on_child_exit(&words[0]);
            // SAFETY: as in `forked`.
            match unsafe { process::fork() } {
                Ok(Fork::Child) => {
                    std::thread::sleep(Duration::from_millis(5));
                    exit_now(3)
                }
                Ok(Fork::Parent(_)) => {
                    while words[0].load(Ordering::SeqCst) == 0 {
                        futex::wait(&words[0], 0, Deadline::never());
                    }
                    exit_now(i32::from(process::find_dead().map(|(_, status)| status) != Some(ExitStatus::Exited(3))))
                }
                Err(_) => exit_now(2),
            }
        })
        .join();
    }
}
