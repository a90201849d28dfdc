//! The warden: the process that notices the deaths that nobody else would.
//!
//! A small child of the nursery with no descriptors of the program's, in a session of its own. It
//! sleeps in `poll` on the pidfds of the root, of the nursery, and of every participant that the
//! nursery does not reap, and on a bell that is rung when there are new ones.
//!
//! When the root is gone it declares the family ended, so that nothing new starts, and kills what
//! tenfold started, but for what is to outlive the root. Processes that user code forked by itself
//! are left alone.
//!
//! *Killed here:* the nursery starts another, or the deputy becomes one; it begins by looking at everybody.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::os::fd::BorrowedFd;

use tenfold_shm::Heap;
use tenfold_shm::heap::SLOTS;
use tenfold_shm::kill_point::{KillPoint, reach};
use tenfold_shm::participant::{self, Identity};
use tenfold_sys::bell::{self, Bell};
use tenfold_sys::clock::Deadline;
use tenfold_sys::poll::wait_readable;
use tenfold_sys::process::{self, ExitStatus, Pid, PidFd};

use crate::deputy::Deputy;
use crate::ending;
use crate::nursery;
use crate::places::{self, Service, flag};
use crate::start_hook::CANNOT_START;

/// How long whoever reaps a process may take to tell its status before it is swept without.
const STATUS_GRACE: Duration = Duration::from_millis(100);
/// How often to look whether it has.
const LINGERING: Duration = Duration::from_millis(5);
/// How often to look around when a process cannot be watched, for lack of descriptors, or there is no deputy.
const UNWATCHED: Duration = Duration::from_millis(500);
/// How long the processes of a family that has ended may take to die.
const LAST_MOMENTS: Duration = Duration::from_millis(300);

/// Tells the warden that there is a process to watch, and returns whether there is one that hears. It looks around when
/// it starts, so nothing is lost while there is none.
pub(crate) fn notify(heap: Heap) -> bool {
    let bell = Service::Warden.identity(heap).and_then(|warden| bell_of(heap, warden));
    bell.is_some_and(|(pid, number, inode)| bell::ring_remote(pid, number, inode).is_ok())
}

/// Whether the bell of this warden hangs where it says: then the warden lives, for a dead process has no descriptors.
pub(crate) fn has_bell(heap: Heap, warden: Identity) -> bool {
    bell_of(heap, warden).is_some_and(|(pid, number, inode)| bell::is_there(pid, number, inode))
}

/// Where the bell of a warden is: the process, the descriptor's number there, the pipe's inode.
fn bell_of(heap: Heap, warden: Identity) -> Option<(Pid, i32, u64)> {
    let inode = Service::WardenBellInode.word(heap).load(Ordering::Acquire);
    let number = i32::try_from(Service::WardenBell.word(heap).load(Ordering::Acquire)).ok()?;
    (inode != 0).then(|| (participant::roster(warden.slot(), heap).pid(), number, inode))
}

struct Watched {
    who: Identity,
    pidfd: PidFd,
}

struct Lingering {
    who: Identity,
    pidfd: Option<PidFd>,
    until: Deadline,
}

struct Warden {
    heap: Heap,
    me: Identity,
    watched: Vec<Watched>,
    /// Dead, and waiting for their status; those of which there was nothing to watch have no pidfd.
    lingering: Vec<Lingering>,
    /// Whether somebody could not be watched.
    blind: bool,
    /// Who takes its place, where that is not the nursery.
    deputy: Option<Deputy>,
}

/// What the warden does until it is killed or the family ends.
pub(crate) fn run(heap: Heap, claimed: Identity, deputy: Option<Deputy>) -> ! {
    if !participant::me(heap).is_ok_and(|me| me == claimed) {
        process::exit_now(CANNOT_START);
    }
    process::set_name("tenfold-warden");
    // A process group that is killed as a whole leaves the warden to clean up.
    let _ = process::new_session();
    reach(KillPoint::WardenStarted);
    let Ok(bell) = Bell::new() else { process::exit_now(CANNOT_START) };
    Service::Warden.word(heap).store(u64::from(claimed.bits()), Ordering::Release);
    Service::WardenBell.word(heap).store(bell.write_number() as u64, Ordering::Release);
    Service::WardenBellInode.word(heap).store(bell.inode(), Ordering::Release);
    let mut warden = Warden { heap, me: claimed, watched: Vec::new(), lingering: Vec::new(), blind: false, deputy };
    loop {
        bell.drain();
        if let Some(deputy) = &mut warden.deputy {
            deputy.keep(heap, claimed);
        }
        warden.look_around();
        warden.sleep(&bell);
        if warden.root_is_gone() {
            warden.end_family();
        }
        warden.sweep_dead();
    }
}

impl Warden {
    /// Watches all who are to be watched and are not yet.
    fn look_around(&mut self) {
        self.blind = false;
        let nursery = Service::Nursery.identity(self.heap);
        let nursery_lives = nursery.is_some_and(|nursery| nursery::lives(self.heap, nursery));
        for slot in 0..SLOTS {
            let entry = participant::roster(slot, self.heap);
            let Some(who) = entry.identity(slot) else { continue };
            if who == self.me || (!entry.is_live() && entry.pid() == 0) || self.is_watched(who) {
                continue;
            }
            let midwife = places::slot_word(self.heap, who, places::MIDWIFE).load(Ordering::Acquire) as u32;
            let nursed = entry.flags.load(Ordering::Acquire) & flag::NURSED != 0;
            if nursed && nursery_lives && nursery.map(Identity::bits) == Some(midwife) {
                continue;
            }
            self.watch(who);
        }
    }

    fn is_watched(&self, who: Identity) -> bool {
        self.watched.iter().any(|w| w.who == who) || self.lingering.iter().any(|l| l.who == who)
    }

    fn watch(&mut self, who: Identity) {
        match ending::open(self.heap, who) {
            Ok(Some(pidfd)) => self.watched.push(Watched { who, pidfd }),
            Ok(None) => self.linger(who, None),
            Err(_) => self.blind = true,
        }
    }

    fn root_is_gone(&self) -> bool {
        let Some(root) = Service::Root.identity(self.heap) else { return false };
        let seen_alive = self.watched.iter().any(|w| w.who == root);
        !(seen_alive || self.blind && ending::is_alive(self.heap, root))
    }

    fn sleep(&mut self, bell: &Bell) {
        let mut fds: Vec<BorrowedFd<'_>> = vec![bell.read_fd()];
        fds.extend(self.watched.iter().map(|w| w.pidfd.as_fd()));
        let incomplete = self.blind || self.deputy.as_ref().is_some_and(|deputy| !deputy.is_there());
        let deadline = match (self.lingering.is_empty(), incomplete) {
            (false, _) => Deadline::after(LINGERING),
            (true, true) => Deadline::after(UNWATCHED),
            (true, false) => Deadline::never(),
        };
        match wait_readable(&fds, deadline) {
            Ok(mut ready) => {
                ready.retain(|&index| index > 0);
                for index in ready.into_iter().rev() {
                    let dead = self.watched.swap_remove(index - 1);
                    self.take_leave(dead);
                }
            }
            // More descriptors than this process may have: see by looking.
            Err(_) => {
                std::thread::sleep(UNWATCHED);
                self.watched.retain(|w| !w.pidfd.is_dead());
            }
        }
    }

    /// Somebody that was watched is dead.
    fn take_leave(&mut self, dead: Watched) {
        if !dead.who.is_current(self.heap) {
            return;
        }
        match self.known_status(dead.who, Some(&dead.pidfd)) {
            Some(status) => {
                participant::sweep_participant(self.heap, dead.who, Some(status));
            }
            None => self.linger(dead.who, Some(dead.pidfd)),
        }
    }

    fn known_status(&self, who: Identity, pidfd: Option<&PidFd>) -> Option<ExitStatus> {
        let told = participant::roster(who.slot(), self.heap).exit_status();
        told.or_else(|| pidfd.and_then(PidFd::exit_status))
    }

    /// Its parent may be about to reap it; then the kernel, or the parent, tells how it ended.
    fn linger(&mut self, who: Identity, pidfd: Option<PidFd>) {
        self.lingering.push(Lingering { who, pidfd, until: Deadline::after(STATUS_GRACE) });
    }

    /// Sweeps the dead whose status is known, or was not told in time.
    fn sweep_dead(&mut self) {
        for lingering in core::mem::take(&mut self.lingering) {
            if !lingering.who.is_current(self.heap) {
                continue;
            }
            // One that had no number yet when it was looked at may have told it since.
            if lingering.pidfd.is_none()
                && let Ok(Some(pidfd)) = ending::open(self.heap, lingering.who)
            {
                self.watched.push(Watched { who: lingering.who, pidfd });
                continue;
            }
            let status = self.known_status(lingering.who, lingering.pidfd.as_ref());
            if status.is_none() && !lingering.until.expired() {
                self.lingering.push(lingering);
            } else {
                participant::sweep_participant(self.heap, lingering.who, status);
            }
        }
        ending::settle_estates(self.heap);
    }

    /// The root is gone: so is, in a moment, all that tenfold started.
    fn end_family(&self) -> ! {
        self.heap.declare_ended();
        reach(KillPoint::WardenEnding);
        let deadline = Deadline::after(LAST_MOMENTS);
        loop {
            let dying = ending::kill_all(self.heap);
            let _ = nursery::ring(self.heap);
            for pidfd in &dying {
                pidfd.wait_dead(deadline);
            }
            if dying.is_empty() || deadline.expired() {
                break;
            }
        }
        let nursery = Service::Nursery.identity(self.heap);
        let nursery = nursery.and_then(|nursery| ending::open(self.heap, nursery).ok().flatten());
        if let Some(pidfd) = nursery.filter(|pidfd| !pidfd.wait_dead(Deadline::after(LAST_MOMENTS))) {
            let _ = pidfd.signal(ending::SIGKILL);
            pidfd.wait_dead(Deadline::after(LAST_MOMENTS));
        }
        // Those who go on may wait for locks of the dead.
        participant::sweep_all(self.heap);
        if let Some(deputy) = &self.deputy {
            deputy.dismiss();
        }
        process::exit_now(0)
    }
}
