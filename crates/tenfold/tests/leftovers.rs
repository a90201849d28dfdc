//! A program that used everything leaves nothing behind: no process, no open file, no file in /dev/shm or the
//! temporary folder; also if it is killed.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tenfold::{Lock, Manager, Pool, Process, Queue};

/// Against a hang of this test, not a promise.
const WATCHDOG: Duration = Duration::from_secs(60);
const MARK: &str = "TENFOLD_LEFTOVERS_MARK";
const FOREVER: &str = "TENFOLD_LEFTOVERS_FOREVER";

fn square(x: u64) -> u64 {
    x * x
}

fn put_locked((queue, lock): (Queue<u64>, Lock)) -> tenfold::Result<()> {
    let _held = lock.lock()?;
    queue.put(1)?;
    Ok(())
}

fn wait_for_ever(queue: Queue<u64>) -> tenfold::Result<()> {
    queue.get().map(drop)
}

/// A pool, a process, a queue, a lock and a dict, used once.
fn use_everything() -> tenfold::Result<()> {
    let pool = Pool::new(2)?;
    assert_eq!(pool.map(square, 0..100)?.len(), 100);
    let (queue, lock, manager) = (Queue::new()?, Lock::new()?, Manager::new()?);
    let dict = manager.dict()?;
    dict.insert(1_u64, "x".repeat(100_000))?;
    Process::spawn(put_locked, (queue.clone(), lock.clone()))?.join()?;
    assert_eq!(queue.get()?, 1);
    pool.close();
    pool.join()
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The processes, other than this one, that carry the mark in their environment.
fn marked(mark: &str) -> BTreeSet<u32> {
    let entry = format!("{MARK}={mark}");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let is_marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
    };
    pids.filter(is_marked).collect()
}

fn files_in_shared_memory() -> BTreeSet<std::ffi::OsString> {
    fs::read_dir("/dev/shm").map(|files| files.map(|file| file.unwrap().file_name()).collect()).unwrap_or_default()
}

/// This test program again, running only [`role`].
fn start(mark: &str, folder: &std::path::Path, forever: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "role", "--ignored"]).env(MARK, mark).env("TMPDIR", folder);
    if forever {
        command.env(FOREVER, "1");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < WATCHDOG, "{what}: not within {} s", WATCHDOG.as_secs());
        thread::sleep(Duration::from_millis(10));
    }
}

fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}", std::process::id(), now.as_nanos())
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn role() {
    use_everything().unwrap();
    if std::env::var_os(FOREVER).is_some() {
        let queue = Queue::new().unwrap();
        let _children: Vec<_> = (0..3).map(|_| Process::spawn(wait_for_ever, queue.clone()).unwrap()).collect();
        queue.get().unwrap();
    }
}

#[test]
fn a_program_that_ends_leaves_nothing() {
    let mark = unique("ends");
    let folder = std::env::temp_dir().join(&mark);
    fs::create_dir(&folder).unwrap();
    let shared_before = files_in_shared_memory();
    assert!(start(&mark, &folder, false).wait().unwrap().success());
    until("its processes end", || marked(&mark).is_empty());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(files_in_shared_memory().is_subset(&shared_before));
    fs::remove_dir(&folder).unwrap();
}

// Fault 11.
#[test]
fn a_program_that_is_killed_leaves_nothing() {
    let mark = unique("killed");
    let folder = std::env::temp_dir().join(&mark);
    fs::create_dir(&folder).unwrap();
    let shared_before = files_in_shared_memory();
    let mut child = start(&mark, &folder, true);
    // The program, its nursery and warden, and three processes that wait.
    until("its processes begin", || marked(&mark).len() >= 6);
    child.kill().unwrap();
    child.wait().unwrap();
    until("its processes end", || marked(&mark).is_empty());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(files_in_shared_memory().is_subset(&shared_before));
    fs::remove_dir(&folder).unwrap();
}

// Fault 15.
#[test]
fn files_are_closed_again() {
    use_everything().unwrap();
    let before = open_files();
    for _ in 0..5 {
        use_everything().unwrap();
    }
    // Other tests of this process open files too, for moments.
    until("as few files are open as before", || open_files() <= before);
}
