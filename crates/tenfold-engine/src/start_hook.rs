//! How a process that was exec'd becomes what it should be, before `main`; and all else in the
//! engine that needs `unsafe`.
//!
//! ```text
//!  launcher                      the same executable, started again
//!  posix_spawn with a token ──▶  loader ─▶ .init_array: … HOOK ─▶ later constructors ─▶ role, exit
//!  in the environment            (without a token: … HOOK, … ─▶ main, as always)
//! ```
//!
//! In a guest's program tenfold is a library, which the launcher has preloaded into another process of the same
//! executable: a warden is started so, and never comes to be an interpreter.
//!
//! *Killed here:* a process that dies before it adopts its slot leaves a slot in birth whose pid is
//! known; it is swept like any dead one.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tenfold_shm::participant::{self, Forked, Identity};
use tenfold_shm::{Heap, HeapError};
use tenfold_sys::memory_file::MemoryFile;
use tenfold_sys::process::{self, Pid};
use tenfold_sys::spawn::{Spawn, spawn_self};
use tenfold_sys::{Errno, descriptors, executable, signals};

use crate::guest::{self, GuestError};
use crate::{child, nursery};

/// The variable that carries the token.
const VARIABLE: &str = "TENFOLD_START";

/// What the token begins with if it is for a guest's warden; the rest is the invitation.
const GUEST_WARDEN: &str = "warden ";

/// The exit code of a process that could not become what it should.
pub(crate) const CANNOT_START: i32 = 70;

#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    // Almost always: nothing to do, so nothing is done.
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    become_role(true);
}

/// Lets a process that tenfold started become what it should be, and does not return in it; does
/// nothing in any other.
///
/// There is no need to call it: a hook before `main` does the same. It is for programs whose linker
/// drops the hook; put it first in `main` there.
pub fn init() {
    if std::env::var_os(VARIABLE).is_some() {
        become_role(false);
    }
}

/// What a process is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forks the others.
    Nursery,
    /// Runs a function.
    Child,
}

/// What a started process must know to join the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    fd: i32,
    nonce: u64,
    role: Role,
    claimed: Identity,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Nursery => "nursery",
            Role::Child => "child",
        };
        write!(f, "{} {:x} {role} {:x}", self.fd, self.nonce, self.claimed.bits())
    }
}

impl Token {
    fn parse(text: &str) -> Option<Token> {
        let mut parts = text.split(' ');
        let token = Token {
            fd: parts.next()?.parse().ok().filter(|&fd| fd >= 0)?,
            nonce: u64::from_str_radix(parts.next()?, 16).ok()?,
            role: match parts.next()? {
                "nursery" => Role::Nursery,
                "child" => Role::Child,
                _ => return None,
            },
            claimed: Identity::from_bits(u32::from_str_radix(parts.next()?, 16).ok()?)?,
        };
        parts.next().is_none().then_some(token)
    }
}

/// Why a started process cannot join its family.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("the start token makes no sense: {0:?} (the variable {VARIABLE} is tenfold's own)")]
    Token(String),
    #[error("cannot take over descriptor {fd}: {errno}")]
    Descriptor { fd: i32, errno: Errno },
    #[error(transparent)]
    Heap(#[from] HeapError),
    #[error("nobody waits for this process any more")]
    Expired,
    #[error(
        "the executable is not the one that the program was started from (it was replaced on disk, \
         or the program changed its root directory); start the program anew"
    )]
    OtherExecutable,
}

fn become_role(before_main: bool) -> ! {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    // SAFETY: a constructor, or the first thing in main: no other thread exists yet that could read
    // the environment.
    unsafe { std::env::remove_var(VARIABLE) };
    if let Some(invitation) = text.strip_prefix(GUEST_WARDEN) {
        become_warden(invitation);
    }
    let (heap, token) = match join_family(&text) {
        Ok(joined) => joined,
        Err(JoinError::Expired) => process::exit_now(CANNOT_START),
        Err(error) => {
            eprintln!("tenfold: this process cannot start: {error}");
            process::exit_now(CANNOT_START);
        }
    };
    #[cfg(feature = "kill-points")]
    arm_from_environment(token.role);
    if token.role == Role::Nursery {
        // SAFETY: exec'd just now. Constructors that ran before may have opened a descriptor; what
        // matters more is that no pipe of the starter is kept open. std uses none but 0 to 2.
        unsafe { descriptors::close_all_but(heap.fd().as_raw_fd()) };
    }
    if before_main {
        // SAFETY: called by the hook itself, which does not return.
        unsafe { executable::run_constructors_after(hook) };
        // A report of stack overflow is a courtesy: without it, the signal alone tells.
        let _ = signals::as_std_runtime_does();
    }
    match token.role {
        Role::Nursery => nursery::run(heap, token.claimed),
        Role::Child => child::run(heap, token.claimed),
    }
}

pub(crate) fn warden_variable(invitation: &str) -> (&'static str, String) {
    // Named here so that the hook is part of the library.
    core::hint::black_box(&HOOK);
    (VARIABLE, format!("{GUEST_WARDEN}{invitation}"))
}

/// The hook is that of a library here, which needs no other constructors: its code is tenfold's own.
fn become_warden(invitation: &str) -> ! {
    let _ = signals::as_std_runtime_does();
    match guest::run_warden(invitation) {
        // There is another one, or nothing left to watch over.
        GuestError::Heap(HeapError::Stale | HeapError::FamilyEnded) => {}
        error => eprintln!("tenfold: the warden cannot start: {error}"),
    }
    process::exit_now(CANNOT_START);
}

/// For the crash tests: `TENFOLD_KILL_AT=nursery nursery.forked 2` has each nursery, and what it
/// forks, killed when it gets to that point after passing it twice.
#[cfg(feature = "kill-points")]
fn arm_from_environment(role: Role) {
    use tenfold_shm::kill_point;
    let wish = std::env::var("TENFOLD_KILL_AT").unwrap_or_default();
    let mut words = wish.split(' ');
    let wanted = match words.next() {
        Some("nursery") => Role::Nursery,
        Some("child") => Role::Child,
        _ => return,
    };
    let name = words.next().unwrap_or_default();
    let point = kill_point::ALL.iter().find(|point| point.name() == name);
    let passes = words.next().and_then(|passes| passes.parse().ok());
    match (point, passes) {
        (Some(&point), Some(passes)) if wanted == role => kill_point::arm(point, passes),
        (Some(_), Some(_)) => {}
        _ => panic!("TENFOLD_KILL_AT makes no sense: {wish}"),
    }
}

/// Takes over the descriptor of the heap, which whoever started this process kept open for it.
pub(crate) fn take_memory_file(number: i32) -> Result<MemoryFile, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the launcher kept this descriptor open for us and nobody else here knows of it. If the
    // token lies, the file behind it turns out not to be the heap.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let taken = descriptors::close_on_exec(std::os::fd::AsFd::as_fd(&fd));
    taken.and_then(|()| MemoryFile::from_fd(fd))
}

/// Closes all descriptors of a process that does nothing but look after the family.
pub(crate) fn close_descriptors(heap: Heap) {
    // SAFETY: the process was exec'd for this and never returns to what has opened them.
    unsafe { descriptors::close_all_but(heap.fd().as_raw_fd()) };
    let _ = descriptors::null_stdio();
}

fn join_family(text: &str) -> Result<(Heap, Token), JoinError> {
    let token = Token::parse(text).ok_or_else(|| JoinError::Token(text.to_owned()))?;
    let file = take_memory_file(token.fd).map_err(|errno| JoinError::Descriptor { fd: token.fd, errno })?;
    let heap = Heap::attach(file, token.nonce)?;
    if !same_executable(heap) {
        return Err(JoinError::OtherExecutable);
    }
    // Whoever claimed the slot is dead, or the whole family: then this process was not to be.
    participant::adopt(heap, token.claimed).map_err(|error| match error {
        HeapError::Stale | HeapError::FamilyEnded => JoinError::Expired,
        error => JoinError::Heap(error),
    })?;
    Ok((heap, token))
}

/// Whether this process runs the file that the family's first launcher ran; the first one to ask
/// puts it on record. Where `/proc` is missing nothing is known and all is well.
fn same_executable(heap: Heap) -> bool {
    use core::sync::atomic::Ordering::{AcqRel, Acquire};
    let Ok(own) = executable::identity() else { return true };
    let mine = [own.dev, own.ino, own.size, own.mtime_ns as u64];
    heap.header().get().executable.iter().zip(mine).all(|(word, value)| {
        let seen = word.compare_exchange(0, value, AcqRel, Acquire);
        seen.is_ok() || seen == Err(value)
    })
}

/// Starts this executable again, to be `claimed` and do what `role` says.
pub(crate) fn exec(heap: Heap, role: Role, claimed: Identity) -> Result<Pid, ExecError> {
    // Named here so that the hook is part of every program that starts processes.
    core::hint::black_box(&HOOK);
    if std::env::var_os(VARIABLE).is_some() {
        return Err(ExecError::HookMissing);
    }
    if !same_executable(heap) {
        return Err(ExecError::OtherExecutable);
    }
    let fd = heap.fd();
    let token = Token { fd: fd.as_raw_fd(), nonce: heap.nonce(), role, claimed };
    // Whoever looks after the others must not die of a Ctrl-C before it can say that it does not want to.
    let blocked: &[i32] = if role == Role::Nursery { &nursery::KEYBOARD } else { &[] };
    let options = Spawn { env: &[(VARIABLE, token.to_string())], inherit: &[fd], blocked, ..Spawn::default() };
    spawn_self(&options).map_err(ExecError::Os)
}

/// Why the executable could not be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecError {
    HookMissing,
    OtherExecutable,
    Os(Errno),
}

/// Proof that this process has one thread, so that a forked child may do as it likes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Asks the kernel; the number of threads if there are several. Where `/proc` is missing, the
    /// caller is believed.
    pub(crate) fn check() -> Result<SingleThreaded, usize> {
        match process::thread_count() {
            None | Some(1) => Ok(SingleThreaded(())),
            Some(several) => Err(several),
        }
    }

    /// Forks. The proof is still good in parent and child, unless threads were started meanwhile:
    /// whoever keeps one starts none.
    pub(crate) fn fork(self, heap: Heap, claimed: Identity, inherit: bool) -> Result<Forked, Errno> {
        // SAFETY: this process has one thread, as `check` found.
        unsafe { participant::fork_into(heap, claimed, inherit) }
    }
}

/// The descriptors of a forked helper process: the heap's, and nothing for the standard streams.
pub(crate) fn keep_no_descriptors(heap: Heap, _forked: SingleThreaded) {
    // SAFETY: forked just now from the nursery or the warden, which have opened nothing that this one uses.
    unsafe { descriptors::close_all_but(heap.fd().as_raw_fd()) };
    // Without /dev/null the streams stay: they are the least of this machine's troubles.
    let _ = descriptors::null_stdio();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_journey() {
        let claimed = Identity::from_bits(0x403).unwrap_or_else(|| unreachable!());
        let token = Token { fd: 7, nonce: 0xfeed_beef, role: Role::Child, claimed };
        assert_eq!(token.to_string(), "7 feedbeef child 403");
        assert_eq!(Token::parse(&token.to_string()), Some(token));
    }

    #[test]
    fn nonsense_is_no_token() {
        for text in ["", "7", "-1 1 child 403", "7 1 king 403", "7 1 child 0", "7 1 child 403 5", "7 xyz child 403"] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
