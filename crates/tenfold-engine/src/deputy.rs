//! The deputy: who takes the warden's place when it dies.
//!
//! The nursery is that in a program that has one. Any other's warden forks a copy of itself that
//! sleeps until the warden is dead, and then does what it did; of which it then forks a copy.
//!
//! ```text
//!  warden ── fork ──▶ deputy
//!    ✝                  │ wakes, puts itself on record as the warden
//!                       └ is the warden ── fork ──▶ its deputy
//! ```
//!
//! The death of one of the two at any moment is made good. What a program has started stays behind only if the warden
//! and the deputy are both killed within a moment, or a warden that has no deputy yet, and then the program before it
//! starts another process: each start sees to it, at its beginning and at its end, that there is a warden.
//!
//! *Killed here:* the warden forks another. If the next start of a process has made a warden before
//! the deputy woke, the deputy has nothing to do and exits.

use core::sync::atomic::Ordering;
use core::time::Duration;

use tenfold_shm::Heap;
use tenfold_shm::participant::{self, Forked, Identity};
use tenfold_sys::clock::{self, Deadline};
use tenfold_sys::process::{self, Pid, PidFd};

use crate::places::{self, Service, flag};
use crate::start_hook::{self, SingleThreaded};
use crate::{ending, warden};

/// How long to wait with the next one, where one could not be forked or died young.
const AGAIN: Duration = Duration::from_millis(500);

/// What a warden knows of its deputy.
pub(crate) struct Deputy {
    single: SingleThreaded,
    pid: Option<Pid>,
    /// When the next one may be forked.
    due: u64,
}

impl Deputy {
    pub(crate) fn new(single: SingleThreaded) -> Deputy {
        Deputy { single, pid: None, due: 0 }
    }

    /// Whether there was one when [`keep`](Self::keep) looked.
    pub(crate) fn is_there(&self) -> bool {
        self.pid.is_some()
    }

    /// Forks one unless there is one. In the child, the one who returns is the next warden.
    pub(crate) fn keep(&mut self, heap: Heap, me: Identity) {
        // The number is the deputy's as long as nobody else reaps it.
        if self.pid.is_some_and(|pid| process::reap(pid) != Ok(None)) {
            self.pid = None;
        }
        if self.pid.is_some() || clock::now() < self.due {
            return;
        }
        self.due = clock::now() + AGAIN.as_nanos() as u64;
        let Ok(claimed) = participant::claim(heap, me) else { return };
        places::flags(heap, claimed).store(flag::STARTED | flag::WARDEN, Ordering::Release);
        let warden = process::pid();
        match self.single.fork(heap, claimed, false) {
            Ok(Forked::Child) => stand_by(heap, me, warden, claimed, self.single),
            Ok(Forked::Parent(pid)) => self.pid = Some(pid),
            Err(_) => participant::abandon(heap, claimed),
        }
    }

    /// Ends it: there is nothing left to watch over.
    pub(crate) fn dismiss(&self) {
        let Some(pid) = self.pid else { return };
        if process::reap(pid) == Ok(None) && process::kill(pid, ending::SIGKILL).is_ok() {
            let _ = process::reap_blocking(pid);
        }
    }
}

/// What the deputy does.
fn stand_by(heap: Heap, warden: Identity, warden_pid: Pid, claimed: Identity, single: SingleThreaded) -> ! {
    #[cfg(feature = "kill-points")]
    tenfold_shm::kill_point::disarm();
    start_hook::keep_no_descriptors(heap, single);
    process::set_name("tenfold-deputy");
    let _ = process::new_session();
    match PidFd::open(warden_pid) {
        // Its number was not another's yet, if it still is this one's parent.
        Ok(pidfd) if process::parent_pid() == warden_pid => drop(pidfd.wait_dead(Deadline::never())),
        _ => {
            while process::parent_pid() == warden_pid {
                std::thread::sleep(AGAIN);
            }
        }
    }
    let (before, mine) = (u64::from(warden.bits()), u64::from(claimed.bits()));
    let word = Service::Warden.word(heap);
    if word.compare_exchange(before, mine, Ordering::AcqRel, Ordering::Acquire).is_err() {
        process::exit_now(0);
    }
    Service::WardenBellInode.word(heap).store(0, Ordering::Release);
    warden::run(heap, claimed, Some(Deputy::new(single)))
}
