//! What the system has no room for: a full /dev/shm, a control group's limit of memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenfold::{Dict, Error, HeapError, List, Lock, Manager, Pool, Process, Queue, Result, TaskError, pipe};

const PLAY: &str = "TENFOLD_TEST_PLAY";
const MIB: usize = 1 << 20;

fn length(text: String) -> usize {
    text.len()
}

fn put_locked((queue, lock): (Queue<String>, Lock)) -> Result<()> {
    let _held = lock.lock()?;
    Ok(queue.put("x".repeat(MIB))?)
}

/// Not a test: what the programs do that others start.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn play() {
    match std::env::var(PLAY).as_deref() {
        Ok("use everything") => use_everything().unwrap(),
        Ok("fill the heap") => fill_the_heap().unwrap(),
        _ => {}
    }
}

/// This test program again, to run [`play`]; the shell runs `script` before, and becomes it.
fn program(script: &str, play: &str) -> Command {
    let mut command = Command::new("sh");
    let line = format!("{script} && exec \"$0\" --exact play --ignored --test-threads=1");
    command.arg("-c").arg(line).arg(std::env::current_exe().unwrap()).env(PLAY, play);
    command
}

fn use_everything() -> Result<()> {
    let pool = Pool::new(2)?;
    assert_eq!(pool.map(length, (0..50).map(|n| "x".repeat(n * 1000)))?.len(), 50);
    let (queue, lock, manager) = (Queue::new()?, Lock::new()?, Manager::new()?);
    let (dict, list): (Dict<u64, String>, List<String>) = (manager.dict()?, manager.list([])?);
    dict.insert(1, "x".repeat(MIB))?;
    list.push("x".repeat(MIB))?;
    Process::spawn(put_locked, (queue.clone(), lock))?.join()?;
    assert_eq!(queue.get()?.len(), MIB);
    let (one, other) = pipe::<String, String>()?;
    one.send("x".repeat(10 * MIB))?;
    assert_eq!(other.recv()?.len(), 10 * MIB);
    pool.close();
    pool.join()
}

// Fault 23.
#[test]
fn a_full_dev_shm_is_nothing_to_us() {
    // In a mount namespace of its own, so that it is full for nobody else.
    let filled = "mount -t tmpfs -o size=4k,nr_inodes=4 none /dev/shm && cat /dev/zero > /dev/shm/full 2> /dev/null";
    let script = format!("{filled}; test \"$(stat -f -c %a /dev/shm)\" = 0");
    let probe = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        println!("skipped: this user cannot mount a /dev/shm of its own: {probe:?}");
        return;
    }
    let inner = program(&script, "use everything");
    let mut outer = Command::new("unshare");
    outer.arg("--mount").arg(inner.get_program()).args(inner.get_args()).env(PLAY, "use everything");
    let output = outer.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A control group with a limit of memory, removed at the end.
struct Group(PathBuf);

impl Group {
    /// `None`, and why on standard output, where none can be made.
    fn new(name: &str, limit: usize) -> Option<Group> {
        let root = Path::new("/sys/fs/cgroup");
        let versions = [("memory", "memory.limit_in_bytes"), (".", "memory.max")];
        let made = versions.into_iter().find_map(|(hierarchy, file)| {
            let group = Group(root.join(hierarchy).join(format!("tenfold-{name}-{}", std::process::id())));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(file), limit.to_string()).ok()?;
            // What is swapped out is not there to be killed for.
            let _ = fs::write(group.0.join("memory.swap.max"), "0");
            let _ = fs::write(group.0.join("memory.memsw.limit_in_bytes"), limit.to_string());
            Some(group)
        });
        if made.is_none() {
            println!("skipped: this user can make no control group with a limit of memory");
        }
        made
    }

    fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel counts a member until it is reaped.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.0.exists() && fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn join_group(members: String) {
    fs::write(members, "0").unwrap();
}

fn take_memory(mebibytes: usize) -> usize {
    std::hint::black_box(vec![1_u8; mebibytes * MIB]).len() / MIB
}

// Faults 4, 23.
#[test]
fn a_task_beyond_its_control_group_s_memory_is_killed_and_the_pool_goes_on() -> Result<()> {
    let Some(group) = Group::new("task", 64 * MIB) else { return Ok(()) };
    let pool = Pool::builder().workers(1).initializer(join_group, group.members().display().to_string()).build()?;
    assert_eq!(pool.apply(take_memory, 1)?, 1);
    let error = pool.apply(take_memory, 300).unwrap_err();
    assert!(matches!(error, Error::Task(TaskError::WorkerDied { .. })), "{error:?}");
    assert!(error.to_string().contains("signal 9"), "{error}");
    assert_eq!(pool.apply(take_memory, 2)?, 2);
    pool.close();
    pool.join()
}

fn fill_the_heap() -> Result<()> {
    let limit = tenfold::heap_stats()?.limit_bytes;
    assert!(limit < 256 * MIB as u64, "the heap does not know of the group's limit: {limit}");
    let queue: Queue<Vec<u8>> = Queue::new()?;
    let mut put = 0;
    let error = loop {
        match queue.put(vec![1; MIB]) {
            Ok(()) => put += 1,
            Err(error) => break Error::from(error),
        }
    };
    assert!(matches!(error, Error::Heap(HeapError::OutOfMemory { .. })), "{error:?}");
    assert!(put > 64, "{put}");
    for _ in 0..put {
        assert_eq!(queue.get()?.len(), MIB);
    }
    queue.put(vec![1; MIB])?;
    Ok(())
}

// Fault 23.
#[test]
fn a_heap_stays_below_its_control_group_s_memory() {
    let Some(group) = Group::new("heap", 256 * MIB) else { return };
    let script = format!("echo $$ > {}", group.members().display());
    let output = program(&script, "fill the heap").output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
}
