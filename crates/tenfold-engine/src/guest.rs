//! Processes that the program makes by itself, as an interpreter does: it forks and execs, tenfold lets the child into
//! the family and supervises it like any other.
//!
//! ```text
//!  maker                                   child
//!  invite ── {fd, nonce, maker} ─▶ exec ─▶ accept: attach the heap, take a slot, settle
//!  fork ─────────────────────────────────▶ (the fork handler has taken a slot) settle
//!  reaped(pid, status) ◀─────────────────── leave: says how it is about to exit
//! ```
//!
//! *Killed here:* a child that dies before it has a slot was nobody yet; its maker reaps it. One that arrives after the
//! family has ended finds that out before it runs anything.

use core::sync::atomic::{AtomicU32, Ordering};
use std::fmt;
use std::str::FromStr;

use tenfold_shm::heap::SLOTS;
use tenfold_shm::participant::{self, Identity};
use tenfold_shm::{Heap, HeapError};
use tenfold_sys::process::{ExitStatus, Pid};
use tenfold_sys::signals;

use crate::deputy::Deputy;
use crate::places::{self, Service, flag};
use crate::start_hook;
use crate::{ending, nursery, warden};

/// The participant that has told the warden of itself; in a child of fork, at first, the one that forked it.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// What a process that is exec'd must know to join the family. It travels as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invitation {
    fd: i32,
    nonce: u64,
    maker: Identity,
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}-{:x}", self.fd, self.nonce, self.maker.bits())
    }
}

impl FromStr for Invitation {
    type Err = GuestError;

    fn from_str(text: &str) -> Result<Invitation, GuestError> {
        let parse = || {
            let mut parts = text.splitn(3, '-');
            let fd = parts.next()?.parse().ok()?;
            let nonce = u64::from_str_radix(parts.next()?, 16).ok()?;
            let maker = Identity::from_bits(u32::from_str_radix(parts.next()?, 16).ok()?)?;
            Some(Invitation { fd, nonce, maker })
        };
        parse().ok_or_else(|| GuestError::Nonsense(text.to_owned()))
    }
}

/// Why a process cannot join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The invitation cannot be read.
    #[error("the invitation makes no sense: {0:?}; start processes through tenfold")]
    Nonsense(String),
    /// The descriptor of the heap is not there.
    #[error("cannot take over the shared heap's descriptor {fd}: {errno}; was it closed on the way?")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// What the system says.
        errno: tenfold_sys::Errno,
    },
    /// This process belongs to another family already.
    #[error("this process has a shared heap of its own already, so it cannot join another program's")]
    Taken,
    /// The heap said no.
    #[error(transparent)]
    Heap(#[from] HeapError),
}

/// How a process stands in the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It goes when the process that made it goes.
    pub daemon: bool,
    /// It goes on when the root has gone.
    pub outlive: bool,
}

/// An invitation by the calling process; the descriptor in it is to be inherited by the child.
///
/// # Errors
/// If this process has no slot and can get none.
pub fn invite(heap: Heap) -> Result<Invitation, HeapError> {
    use std::os::fd::AsRawFd;
    Ok(Invitation { fd: heap.fd().as_raw_fd(), nonce: heap.nonce(), maker: participant::me(heap)? })
}

impl Invitation {
    /// The number of the heap's descriptor.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// Joins the family: attaches its heap and takes a slot, unless this process is of it already.
    ///
    /// # Errors
    /// If the heap cannot be attached; [`HeapError::FamilyEnded`] if the root is gone: exit then.
    pub fn accept(&self, standing: Standing) -> Result<Heap, GuestError> {
        match Heap::existing() {
            Some(heap) if heap.nonce() == self.nonce => {
                settle(heap, standing, Some(self.maker))?;
                Ok(heap)
            }
            Some(_) => Err(GuestError::Taken),
            None => {
                let file = start_hook::take_memory_file(self.fd)
                    .map_err(|errno| GuestError::Descriptor { fd: self.fd, errno })?;
                let heap = Heap::attach(file, self.nonce)?;
                participant::adopt(heap, participant::claim(heap, self.maker)?)?;
                settle(heap, standing, Some(self.maker))?;
                warden::notify(heap);
                Ok(heap)
            }
        }
    }
}

/// The calling process, which has a slot, is one that tenfold started: it ends with the root. `maker` is on whose behalf
/// it was started, if not its parent's.
///
/// # Errors
/// [`HeapError::FamilyEnded`] if the root is gone, or the maker of a daemon: exit then.
pub fn settle(heap: Heap, standing: Standing, maker: Option<Identity>) -> Result<(), HeapError> {
    // Whoever forked this process has told the warden, unless there was no slot yet that it could have looked at.
    let unheard_of = !participant::have_slot();
    let me = participant::me(heap)?;
    if let Some(maker) = maker {
        participant::roster(me.slot(), heap).made_by(maker);
    }
    let chosen = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag::STARTED | chosen(standing.daemon, flag::DAEMON) | chosen(standing.outlive, flag::OUTLIVE);
    // In this order: whoever ends the family looks at the flags after it has declared the end.
    places::flags(heap, me).store(flags, Ordering::SeqCst);
    // A maker that dies from now on takes its daemon with it; one that was swept before did not know of it.
    let orphaned = participant::roster(me.slot(), heap).parent().is_some_and(|maker| !maker.is_current(heap));
    if heap.has_ended() || standing.daemon && orphaned {
        return Err(HeapError::FamilyEnded);
    }
    if unheard_of {
        warden::notify(heap);
    }
    Ok(())
}

/// The calling process says with which code it is about to exit.
pub fn leave(heap: Heap, code: i32) {
    participant::announce_exit(heap, code);
}

/// This thread has forked a child by itself. Returns whether the warden knows: not if it was killed since the start began,
/// or has not come to serve yet; then [`ensure_warden`] is due again.
pub fn forked(heap: Heap, pid: Pid) -> bool {
    if let Some(child) = participant::tell_forked(heap, pid) {
        note_started(heap, child);
    }
    warden::notify(heap)
}

/// The child says so itself when it settles. One that is stopped before that goes with the root, too.
fn note_started(heap: Heap, child: Identity) {
    let word = places::flags(heap, child);
    if child.is_current(heap)
        && word.compare_exchange(0, flag::STARTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
        && !child.is_current(heap)
    {
        // Dead and swept in that instant: the slot may be another's by now.
        let _ = word.compare_exchange(flag::STARTED, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The kernel has refused this thread a fork that it made by itself.
pub fn not_forked(heap: Heap) {
    participant::tell_not_forked(heap);
}

/// A child of the calling process was reaped: what it held is dealt with according to how it ended.
pub fn reaped(heap: Heap, pid: Pid, status: ExitStatus) {
    for slot in 0..SLOTS {
        let entry = participant::roster(slot, heap);
        if entry.pid() == pid
            && let Some(who) = entry.identity(slot)
        {
            participant::sweep_participant(heap, who, Some(status));
        }
    }
    ending::settle_estates(heap);
}

/// Makes sure that the family has a warden, which ends it when the root is gone. `start` execs a process that calls
/// [`run_warden`] with the text that it is given.
///
/// # Errors
/// If this process has no slot, or `start` fails.
pub fn ensure_warden<E: From<HeapError>>(heap: Heap, start: impl FnOnce(&str, i32) -> Result<Pid, E>) -> Result<(), E> {
    use std::os::fd::AsRawFd;
    let word = Service::Warden.word(heap);
    let before = word.load(Ordering::Acquire);
    let me = participant::me(heap)?;
    if let Some(who) = Identity::from_bits(before as u32)
        && (warden::has_bell(heap, who) || nursery::lives(heap, who))
    {
        // If this process dies before it has told of a child, the warden looks around; so it must know of this process.
        // Nobody has told of one that the program forked by itself.
        let started = places::flags(heap, me).load(Ordering::Acquire) & flag::STARTED != 0;
        if !started && TOLD.swap(me.bits(), Ordering::AcqRel) != me.bits() {
            warden::notify(heap);
        }
        return Ok(());
    }
    note_root(heap, me);
    let claimed = participant::claim(heap, me)?;
    places::flags(heap, claimed).store(flag::STARTED | flag::WARDEN, Ordering::Release);
    let mine = u64::from(claimed.bits());
    if word.compare_exchange(before, mine, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // Somebody else is at it.
        participant::abandon(heap, claimed);
        return Ok(());
    }
    Service::WardenBellInode.word(heap).store(0, Ordering::Release);
    let fd = heap.fd().as_raw_fd();
    match start(&Invitation { fd, nonce: heap.nonce(), maker: claimed }.to_string(), fd) {
        Ok(pid) => {
            participant::announce_pid(heap, claimed, pid);
            Ok(())
        }
        Err(error) => {
            let _ = word.compare_exchange(mine, 0, Ordering::AcqRel, Ordering::Acquire);
            participant::abandon(heap, claimed);
            Err(error)
        }
    }
}

/// The pid of the warden, if there is one.
pub fn warden_pid(heap: Heap) -> Option<Pid> {
    let warden = Service::Warden.identity(heap).filter(|warden| warden.is_current(heap))?;
    Some(participant::roster(warden.slot(), heap).pid()).filter(|&pid| pid != 0)
}

/// The variable, and its value, that make a process a warden as soon as the library is loaded into it, before it does
/// anything else: for the environment of a process that has the library preloaded.
pub fn warden_variable(invitation: &str) -> (&'static str, String) {
    start_hook::warden_variable(invitation)
}

/// Becomes the warden; the descriptors of the process are closed.
///
/// # Errors
/// If the invitation cannot be accepted.
pub fn run_warden(invitation: &str) -> GuestError {
    let run = || -> Result<core::convert::Infallible, GuestError> {
        let invitation: Invitation = invitation.parse()?;
        let fd = invitation.fd;
        let file = start_hook::take_memory_file(fd).map_err(|errno| GuestError::Descriptor { fd, errno })?;
        let heap = Heap::attach(file, invitation.nonce)?;
        // Another one may have been made meanwhile, or the family may have ended.
        participant::adopt(heap, invitation.maker)?;
        start_hook::close_descriptors(heap);
        for signal in nursery::KEYBOARD {
            let _ = signals::ignore(signal);
        }
        // Beside other threads of the program's nothing can be forked.
        let deputy = start_hook::SingleThreaded::check().ok().map(Deputy::new);
        warden::run(heap, invitation.maker, deputy)
    };
    match run() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The root is who first has processes started, if the one that made the heap is gone: a program that became a daemon.
fn note_root(heap: Heap, me: Identity) {
    let word = Service::Root.word(heap);
    let before = word.load(Ordering::Acquire);
    let known = Identity::from_bits(before as u32);
    let made_it = || participant::root(heap).and_then(|slot| participant::roster(slot, heap).identity(slot));
    let started = places::flags(heap, me).load(Ordering::Acquire) & flag::STARTED != 0;
    let root = known.or_else(made_it).filter(|&root| started || ending::is_alive(heap, root)).unwrap_or(me);
    let _ = word.compare_exchange(before, root.bits().into(), Ordering::AcqRel, Ordering::Acquire);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invitations_survive_the_journey() {
        let maker = Identity::from_bits(0x403).unwrap_or_else(|| unreachable!());
        let invitation = Invitation { fd: 7, nonce: 0xfeed_beef, maker };
        assert_eq!(invitation.to_string(), "7-feedbeef-403");
        assert_eq!(invitation.to_string().parse::<Invitation>().ok(), Some(invitation));
        for nonsense in ["", "7", "7-1", "7-1-0", "x-1-403", "7-xyz-403"] {
            assert!(nonsense.parse::<Invitation>().is_err(), "{nonsense}");
        }
    }
}
