//! Waits that hear of signals, for programs that run their signal handlers outside of signal context.
//!
//! An interpreter only notes a signal when it arrives and runs the handler when it gets to it, so it must get to it
//! while a thread of its sleeps in [`futex::wait`](crate::futex::wait). [`listen`] has every such sleep of this thread
//! call a function when a signal or a slice of time has ended it. If that function asks to give up, all finite
//! [`Deadline`](crate::clock::Deadline)s count as expired until [`listen`] returns.
//!
//! Killed here: all of this is one thread's own.

use core::cell::Cell;

/// Runs handlers that are due; returns whether the wait is to be given up.
pub type Listener = fn() -> bool;

thread_local! {
    static LISTENER: Cell<Option<Listener>> = const { Cell::new(None) };
    static GIVEN_UP: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f`; whatever sleeps in it calls `listener` when it wakes up.
pub fn listen<R>(listener: Listener, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Listener>, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            LISTENER.set(self.0);
            GIVEN_UP.set(self.1);
        }
    }
    let _restore = Restore(LISTENER.replace(Some(listener)), GIVEN_UP.replace(false));
    f()
}

/// A sleep has ended without being woken: the listener, if there is one, looks whether there is something to do.
#[cold]
pub(crate) fn look_up() {
    if let Some(listener) = LISTENER.get()
        && !GIVEN_UP.get()
    {
        // Not called from within itself, should it wait for something.
        LISTENER.set(None);
        let give_up = listener();
        LISTENER.set(Some(listener));
        GIVEN_UP.set(give_up);
    }
}

/// Whether waits of this thread are to end now. Whoever took something for a caller that has given up would lose it.
pub fn has_given_up() -> bool {
    GIVEN_UP.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;
    use crate::futex;
    use core::sync::atomic::{AtomicU32, Ordering};
    use core::time::Duration;

    static LOOKS: AtomicU32 = AtomicU32::new(0);

    fn at_the_third_look() -> bool {
        LOOKS.fetch_add(1, Ordering::Relaxed) == 2
    }

    #[test]
    fn a_listener_ends_a_wait_and_only_that() {
        let word = AtomicU32::new(0);
        let long = Deadline::after(Duration::from_secs(1000));
        listen(at_the_third_look, || {
            while !long.expired() {
                futex::wait(&word, 0, Deadline::after(Duration::from_millis(1)));
            }
            assert!(!Deadline::never().expired());
        });
        assert_eq!(LOOKS.load(Ordering::Relaxed), 3);
        assert!(!long.expired());
    }
}
