//! Starting this executable again.

use crate::error::{Errno, Result, from_number};
use crate::process::Pid;
use crate::signals;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

/// How to start a process; [`Default`] is the own executable with the own arguments and environment.
#[derive(Clone, Debug, Default)]
pub struct Spawn<'a> {
    /// The file to run; `None` is `/proc/self/exe`, the own executable even if it has been replaced on disk.
    pub program: Option<&'a CStr>,
    /// The arguments, the first being the name; `None` is the own.
    pub argv: Option<Vec<CString>>,
    /// Environment variables to set on top of the own.
    pub env: &'a [(&'a str, String)],
    /// Descriptors that stay open at their numbers, close-on-exec or not; the others that are close-on-exec are closed.
    pub inherit: &'a [BorrowedFd<'a>],
    /// Signals that it has blocked at first, until it is ready for them and calls [`unblock`](signals::unblock).
    pub blocked: &'a [i32],
}

/// Starts a process ([`posix_spawn`]): no fork handlers run, and the size of this process does not matter. The child
/// has no signals blocked but those listed, and `SIGPIPE` and `SIGCHLD` at their defaults. Blocks until the child has
/// called exec. The caller reaps it.
///
/// Reads the environment; as everywhere, C code that changes it meanwhile on another thread is trouble.
///
/// # Errors
/// Those of exec (`ENOENT`, `EACCES`, `ENOMEM`, `E2BIG` …), `EAGAIN` at the limit of processes, `EBADF` for a bad
/// descriptor, `EINVAL` for a NUL in a variable or an `=` in its name.
///
/// [`posix_spawn`]: https://man7.org/linux/man-pages/man3/posix_spawn.3.html
pub fn spawn_self(options: &Spawn<'_>) -> Result<Pid> {
    let program = options.program.unwrap_or(c"/proc/self/exe");
    let argv = match &options.argv {
        Some(argv) => argv.clone(),
        None => own_arguments()?,
    };
    let envp = environment(options.env)?;
    let actions = FileActions::keeping(options.inherit)?;
    let attributes = Attributes::new(options.blocked)?;
    let (arguments, variables) = (pointers(&argv), pointers(&envp));
    let mut pid = 0;
    // SAFETY: the program is NUL-terminated, both vectors are null-terminated arrays of NUL-terminated strings whose
    // owners (`argv`, `envp`) live on, and the actions and attributes are initialised.
    from_number(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            arguments.as_ptr(),
            variables.as_ptr(),
        )
    })?;
    Ok(pid as Pid)
}

fn own_arguments() -> Result<Vec<CString>> {
    let mut arguments: Vec<CString> = std::env::args_os().map(c_string).collect::<Result<_>>()?;
    if arguments.is_empty() {
        arguments.push(c"/proc/self/exe".to_owned());
    }
    Ok(arguments)
}

fn environment(added: &[(&str, String)]) -> Result<Vec<CString>> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for (name, value) in added {
        if name.is_empty() || name.contains('=') {
            return Err(Errno::INVAL);
        }
        variables.insert(name.into(), value.into());
    }
    let join = |(mut entry, value): (OsString, OsString)| {
        entry.push("=");
        entry.push(value);
        c_string(entry)
    };
    variables.into_iter().map(join).collect()
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|_| Errno::INVAL)
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|string| string.as_ptr().cast_mut()).chain([null_mut()]).collect()
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn keeping(descriptors: &[BorrowedFd<'_>]) -> Result<Self> {
        let mut actions = Self::new()?;
        for fd in descriptors {
            actions.keep(fd.as_raw_fd())?;
        }
        Ok(actions)
    }

    fn new() -> Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: a live local, which the call initialises when it returns 0.
        from_number(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised just now.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    /// A dup2 onto itself means, here, to clear close-on-exec (POSIX 2024; glibc since 2.29, musl).
    fn keep(&mut self, number: RawFd) -> Result<()> {
        // SAFETY: initialised actions and two numbers.
        from_number(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, number, number) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised, and used no more.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// Only those signals blocked, `SIGPIPE` and `SIGCHLD` at their defaults.
    fn new(blocked: &[i32]) -> Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: a live local, which the call initialises when it returns 0.
        from_number(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised just now.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let (blocked, default) = (signals::set_of(blocked), signals::set_of(&[libc::SIGPIPE, libc::SIGCHLD]));
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: initialised attributes and live sets.
        unsafe {
            from_number(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &raw const blocked))?;
            from_number(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &raw const default))?;
            from_number(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags as libc::c_short))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and used no more.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}
