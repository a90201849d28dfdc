//! The test binary starts itself again and becomes a worker before `main`, as the crates above do.
//!
//! What a worker is to do comes in `TENFOLD_TEST_ROLE`; it tells the outcome by its exit code.

use std::ffi::{CString, c_char};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::exit;
use std::sync::atomic::{AtomicU32, Ordering};
use tenfold_sys::executable::{self, Entry, Exported, Function, Trampoline};
use tenfold_sys::memory_file::MemoryFile;
use tenfold_sys::process::{ExitStatus, Pid, reap_blocking};
use tenfold_sys::signals;
use tenfold_sys::spawn::{Spawn, spawn_self};

const ROLE: &str = "TENFOLD_TEST_ROLE";

#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    // SAFETY: this is the hook, run as a constructor, and it ends in exit.
    unsafe { executable::run_constructors_after(hook) };
    exit(work(&role).unwrap_or(101));
}

/// A constructor behind the hook's: the linker keeps the order within one object and puts numbered ones first.
#[used]
#[unsafe(link_section = ".init_array")]
static LATER: extern "C" fn(i32, *const *const c_char, *const *const c_char) = later;

static LATER_RUNS: AtomicU32 = AtomicU32::new(0);

extern "C" fn later(argc: i32, argv: *const *const c_char, envp: *const *const c_char) {
    // SAFETY: the C library and `run_constructors_after` pass argc pointers and a null, as to main.
    let ended = unsafe { argv.add(argc as usize).read() }.is_null();
    if ended && argc > 0 && !envp.is_null() {
        LATER_RUNS.fetch_add(1, Ordering::SeqCst);
    }
}

struct Apply;

impl<F: Fn(i32) -> i32 + Copy + Send + Sync + 'static> Trampoline<F> for Apply {
    type Context = i32;
    type Output = ();
    const FINGERPRINT: u64 = 0x5eed;
    fn call(function: F, value: &mut i32) {
        *value = function(*value);
    }
}

fn work(role: &str) -> Option<i32> {
    let (verb, argument) = role.split_once(' ').unwrap_or((role, ""));
    match verb {
        "exit" => argument.parse().ok(),
        "later" => Some(LATER_RUNS.load(Ordering::SeqCst) as i32),
        "arguments" => Some(std::env::args().count() as i32),
        "call" => {
            let entry = Exported::<Entry<i32, ()>>::at(argument.parse().ok()?, Apply::fingerprint())?;
            let mut value = 5;
            entry.value().call(&mut value);
            Some(value)
        }
        "memory" => {
            // SAFETY: the parent let us inherit this number, and nobody else here knows it.
            let fd = unsafe { OwnedFd::from_raw_fd(argument.parse().ok()?) };
            let mut byte = [0];
            MemoryFile::from_fd(fd).ok()?.read_exact_at(&mut byte, 0).ok()?;
            Some(byte[0].into())
        }
        "is-open" => Some(i32::from(std::path::Path::new(&format!("/proc/self/fd/{argument}")).exists())),
        "signals" => {
            let mask = |name: &str| {
                let status = std::fs::read_to_string("/proc/self/status").ok()?;
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                u64::from_str_radix(line.trim(), 16).ok()
            };
            let reset = 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGCHLD - 1);
            let blocked = mask("SigBlk:")?;
            signals::unblock(&[libc::SIGINT]);
            let unblocked = blocked & !mask("SigBlk:")?;
            let first = i32::from(blocked & !unblocked != 0) + 2 * i32::from(mask("SigIgn:")? & reset != 0);
            Some(first + 4 * i32::from(unblocked == 1 << (libc::SIGINT - 1)))
        }
        "overflow" => {
            signals::as_std_runtime_does().ok()?;
            Some(deeper(0))
        }
        "fault" => {
            signals::as_std_runtime_does().ok()?;
            // SAFETY: none; this is the fault that is wanted.
            Some(unsafe { std::ptr::without_provenance::<i32>(64).read_volatile() })
        }
        _ => None,
    }
}

impl Apply {
    fn fingerprint() -> u64 {
        <Self as Trampoline<fn(i32) -> i32>>::FINGERPRINT
    }
}

#[expect(unconditional_recursion, reason = "to overflow the stack")]
fn deeper(depth: i32) -> i32 {
    let frame = std::hint::black_box([depth; 300]);
    deeper(depth + 1) + frame[7]
}

fn start(role: impl Into<String>, options: Spawn<'_>) -> Pid {
    spawn_self(&Spawn { env: &[(ROLE, role.into())], ..options }).expect("spawn")
}

fn code(role: impl Into<String>, options: Spawn<'_>) -> i32 {
    let status = reap_blocking(start(role, options)).expect("reap");
    status.code().unwrap_or_else(|| panic!("ended by {status:?}"))
}

#[test]
fn a_worker_never_reaches_main() {
    assert_eq!(code("exit 7", Spawn::default()), 7);
}

#[test]
fn constructors_after_the_hook_run_once_in_a_worker_and_in_the_parent() {
    assert_eq!(LATER_RUNS.load(Ordering::SeqCst), 1);
    assert_eq!(code("later", Spawn::default()), 1);
}

#[test]
fn a_function_is_called_in_the_worker() {
    fn triple(x: i32) -> i32 {
        3 * x
    }
    for (entry, expected) in
        [(Function::of(triple).entry::<Apply>(), 15), (Function::of(|x: i32| x + 1).entry::<Apply>(), 6)]
    {
        let offset = entry.offset().expect("offset");
        assert_eq!(code(format!("call {offset}"), Spawn::default()), expected);
        assert_eq!(code(format!("call {}", offset + 8), Spawn::default()), 101);
    }
}

#[test]
fn arguments_are_ours_unless_given() {
    assert_eq!(code("arguments", Spawn::default()), std::env::args().count() as i32);
    let argv = Some([c"a", c"b", c"c", c"d"].map(CString::from).to_vec());
    assert_eq!(code("arguments", Spawn { argv, ..Spawn::default() }), 4);
}

#[test]
fn listed_descriptors_stay_open_at_their_numbers_and_others_do_not() {
    let file = MemoryFile::create("spawn-test").expect("create");
    file.write_all_at(&[33], 0).expect("write");
    let inherit: &[BorrowedFd<'_>] = &[file.as_fd()];
    assert_eq!(code(format!("memory {}", file.raw_fd()), Spawn { inherit, ..Spawn::default() }), 33);
    assert_eq!(code(format!("is-open {}", file.raw_fd()), Spawn::default()), 0);
    let flags = rustix::io::fcntl_getfd(file.as_fd()).expect("flags");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "still close-on-exec here");
}

#[test]
fn signals_are_as_at_first() {
    let guard = signals::block_all();
    // Rust's start-up has SIGPIPE ignored here.
    assert_eq!(code("signals", Spawn::default()), 0);
    guard.restore();
}

#[test]
fn listed_signals_are_blocked_until_they_are_unblocked() {
    assert_eq!(code("signals", Spawn { blocked: &[libc::SIGINT], ..Spawn::default() }), 4);
}

#[test]
fn errors_of_exec_are_told() {
    let program = Some(c"/no/such/program");
    let error = spawn_self(&Spawn { program, ..Spawn::default() });
    assert_eq!(error, Err(tenfold_sys::Errno::NOENT));
    let error = spawn_self(&Spawn { env: &[("A=B", String::new())], ..Spawn::default() });
    assert_eq!(error, Err(tenfold_sys::Errno::INVAL));
}

/// Runs a worker with its standard error in a pipe. The shell moves the descriptor, as `Spawn` does not.
fn stderr_of(role: &str) -> (ExitStatus, String) {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let script = format!("exec \"$0\" 2>&{}", writer.as_raw_fd());
    let script = CString::new(script).expect("script");
    let own = std::fs::read_link("/proc/self/exe").expect("own path");
    let own = CString::new(own.into_os_string().into_encoded_bytes()).expect("own path");
    let argv = Some(vec![c"sh".to_owned(), c"-c".to_owned(), script, own]);
    let inherit: &[BorrowedFd<'_>] = &[writer.as_fd()];
    let pid = start(role, Spawn { program: Some(c"/bin/sh"), argv, inherit, ..Spawn::default() });
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("read");
    (reap_blocking(pid).expect("reap"), said)
}

#[test]
fn an_overflow_of_the_main_stack_says_so() {
    let (status, said) = stderr_of("overflow");
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    assert_eq!(said, "tenfold: the main thread of this process has overflowed its stack\n");
}

#[test]
fn another_fault_says_nothing() {
    let (status, said) = stderr_of("fault");
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    assert_eq!(said, "");
}
