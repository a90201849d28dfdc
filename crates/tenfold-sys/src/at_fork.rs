//! Handlers that run around every `fork` of this process, also one by C code.

use crate::error::{Result, from_number};

// Not in the libc crate for Linux. glibc links it into each object, so that a library that is unloaded takes its
// handlers with it.
unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> libc::c_int;
}

/// Has `prepare` called before each later `fork` in the forking thread, and after it `parent` in the parent (also when
/// the fork failed) and `child` in the child ([`pthread_atfork`]). There is no way to take handlers back. Prepare
/// handlers run in reverse order of registration, the others in order. `vfork`, `posix_spawn` and raw `clone` skip them.
///
/// In the child of a program with several threads, `child` may do only what is async-signal-safe.
///
/// # Errors
/// `ENOMEM`.
///
/// [`pthread_atfork`]: https://man7.org/linux/man-pages/man3/pthread_atfork.3.html
pub fn register(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> Result<()> {
    // SAFETY: safe functions that live as long as the object which holds them.
    from_number(unsafe { pthread_atfork(Some(prepare), Some(parent), Some(child)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::{forked, shared_words};
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::sync::OnceLock;

    // Words: 0 prepare, 1 parent, 2 child, of forks by the thread that set the flag.
    static WORDS: OnceLock<&'static [AtomicU32; 16]> = OnceLock::new();
    thread_local!(static MINE: core::cell::Cell<bool> = const { core::cell::Cell::new(false) });

    fn count(index: usize) {
        if let (true, Some(words)) = (MINE.get(), WORDS.get()) {
            words[index].fetch_add(1, Ordering::SeqCst);
        }
    }
    extern "C" fn prepare() {
        count(0);
    }
    extern "C" fn parent() {
        count(1);
    }
    extern "C" fn child() {
        count(2);
    }

    #[test]
    fn each_handler_runs_once_a_fork() {
        let words = WORDS.get_or_init(shared_words);
        register(prepare, parent, child).expect("register");
        MINE.set(true);
        forked(|| ()).join();
        MINE.set(false);
        assert_eq!([0, 1, 2].map(|i| words[i].load(Ordering::SeqCst)), [1, 1, 1]);
    }
}
