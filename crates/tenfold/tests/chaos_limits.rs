//! What the system has no room for: a full /dev/shm, a control group's limit of memory, no descriptors, no processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenfold::{
    Dict, Error, HeapError, List, Lock, Manager, Pool, Process, ProcessError, Queue, Result, StartMethod, TaskError,
    pipe,
};
use tenfold_sys::limits::{self, Resource};

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
        Ok("use up the descriptors") => use_up_the_descriptors().unwrap(),
        Ok("use up the processes") => use_up_the_processes().unwrap(),
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

fn put_one(queue: Queue<u32>) -> Result<()> {
    Ok(queue.put(1)?)
}

fn sleep_for_ever((): ()) {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// What `f` returns where no file can be opened.
fn without_descriptors<T>(f: impl Fn() -> T) -> T {
    let before = limits::get(Resource::OpenFiles).0;
    // The next that is opened gets the lowest number that is free.
    let lowest = fs::File::open("/dev/null").map(|file| std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
    limits::set_soft(Resource::OpenFiles, Some(lowest as u64)).unwrap();
    let result = f();
    limits::set_soft(Resource::OpenFiles, before).unwrap();
    result
}

fn start(method: StartMethod, queue: &Queue<u32>) -> Result<Process> {
    Process::builder().start_method(method).spawn(put_one, queue.clone())
}

fn put_by(method: StartMethod, queue: &Queue<u32>) -> Result<()> {
    start(method, queue)?.join()?;
    assert_eq!(queue.get()?, 1);
    Ok(())
}

fn use_up_the_descriptors() -> Result<()> {
    // The very first thing: there is no heap yet.
    let error = without_descriptors(Queue::<u32>::new).unwrap_err();
    assert!(error.to_string().contains("os error 24"), "{error}");
    let queue: Queue<u32> = Queue::new()?;
    // Then there is a heap, but nobody who starts processes.
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        if let Ok(child) = without_descriptors(|| start(method, &queue)) {
            without_descriptors(|| child.join()).unwrap_err();
            // Nor is it started later: a spawned one was there, and could not load its libraries.
            let error = child.join().unwrap_err();
            let not_started = matches!(error, Error::Process(ProcessError::NotStarted { .. }));
            assert_eq!(not_started, method == StartMethod::Forkserver, "{error}");
        }
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        put_by(method, &queue)?;
        let before = open();
        for _ in 0..5 {
            // What needs no descriptor works, and the rest is an error: that of a join says nothing of the child.
            if let Ok(child) = without_descriptors(|| start(method, &queue)) {
                let joined = without_descriptors(|| child.join());
                if joined.or_else(|_| child.join()).is_ok() {
                    assert_eq!(queue.get()?, 1);
                }
            }
            without_descriptors(|| queue.put(2))?;
            assert_eq!(without_descriptors(|| queue.get())?, 2);
        }
        put_by(method, &queue)?;
        assert_eq!(open(), before);
    }
    assert!(queue.is_empty());
    Ok(())
}

// Fault 23.
#[test]
fn without_descriptors_there_are_errors_and_nothing_half_made() {
    let output = program("true", "use up the descriptors").output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
}

/// Starts processes until there is no room for another, by each method.
fn use_up_the_processes() -> Result<()> {
    let queue: Queue<u32> = Queue::new()?;
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        put_by(method, &queue)?;
        let live = tenfold::heap_stats()?.live_bytes;
        let mut children = Vec::new();
        let error = loop {
            let child = Process::builder().start_method(method).spawn(sleep_for_ever, ());
            match child.and_then(|child| child.pid().map(|_| child)) {
                Ok(child) => children.push(child),
                Err(error) => break error,
            }
            assert!(children.len() < 100, "there is no limit");
        };
        assert!(error.to_string().contains("EAGAIN") || error.to_string().contains("unavailable"), "{error}");
        // The rest goes on.
        queue.put(2)?;
        assert_eq!(queue.get()?, 2);
        for child in children.drain(..) {
            child.kill()?;
            assert!(child.join().is_err());
        }
        put_by(method, &queue)?;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while tenfold::heap_stats()?.live_bytes > live {
            assert!(std::time::Instant::now() < end, "{} bytes at first, {:?}", live, tenfold::heap_stats());
        }
    }
    Ok(())
}

// Fault 23.
#[test]
fn without_processes_there_are_errors_and_nothing_half_made() {
    // The limit counts all processes of a user, and root is exempt. So it is somebody whom there is not, who may read our
    // folders all the same.
    let reads = "-all,+dac_override,+dac_read_search";
    let somebody = format!(
        "setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps={reads} --ambient-caps={reads} --bounding-set={reads}"
    );
    let run = |line: &str| {
        let script = format!("exec {somebody} prlimit --nproc=16: sh -c '{line}' \"$0\"");
        let own = std::env::current_exe().unwrap();
        Command::new("sh").arg("-c").arg(script).arg(own).env(PLAY, "use up the processes").output()
    };
    let probe = run("test -x \"$0\"");
    if !probe.as_ref().is_ok_and(|probe| probe.status.success()) {
        println!("skipped: this user cannot become another: {probe:?}");
        return;
    }
    let output = run("exec \"$0\" --exact play --ignored --test-threads=1").unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
}
