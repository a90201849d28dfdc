//! Supervision under fire: whoever is killed, what tenfold started does not stay behind, and who
//! waits is told.

#[path = "support/raw_fork.rs"]
mod raw_fork;
#[path = "support/stage.rs"]
mod stage;

use stage::{Stage, tell, wait_for};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use tenfold::{Error, LaunchError, Pool, Process, ProcessError, StartMethod};

/// Not a test: what the roots run.
#[test]
#[ignore = "run by the other tests as the root of a family"]
fn stage() {
    match stage::wanted().as_deref() {
        None => {}
        Some("idle") => idle(),
        Some("busy") => busy(),
        Some("brief") => brief(),
        Some("survivor") => survivor(),
        Some("outlive") => outlive(),
        Some("daemons") => daemons(),
        Some("programs") => programs(),
        Some("fork") => fork(),
        Some("pipes") => pipes(),
        Some("descriptors") => descriptors(),
        Some("other_executable") => other_executable(),
        Some("stolen") => stolen(),
        Some("raw_forks") => raw_forks(),
        Some("replaced") => replaced(),
        Some("stopped_nursery") => stopped_nursery(),
        Some(other) => panic!("no such stage: {other}"),
    }
}

fn sleep_for_ever((): ()) {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn fork_and_sleep((): ()) {
    let child = Process::fork(|| sleep_for_ever(())).unwrap();
    tell(child.pid().unwrap());
    child.join().unwrap();
}

fn spin((): ()) {
    loop {
        std::hint::spin_loop();
    }
}

fn nothing((): ()) {}

/// Children by each start method, then nothing.
fn idle() -> ! {
    let mut children: Vec<Process> = (0..3).map(|_| Process::spawn(sleep_for_ever, ()).unwrap()).collect();
    children.push(Process::builder().start_method(StartMethod::Spawn).spawn(sleep_for_ever, ()).unwrap());
    children.push(Process::spawn(fork_and_sleep, ()).unwrap());
    // Stopped processes die too; it has its name by then, since the test looks for the nursery's.
    let comm = format!("/proc/{}/comm", children[0].pid().unwrap());
    wait_for("its name", || (std::fs::read_to_string(&comm).unwrap() == "sleep_for_ever\n").then_some(()));
    children[0].signal(19).unwrap();
    children[1].pid().unwrap();
    children[2].pid().unwrap();
    loop {
        std::thread::park();
    }
}

/// An idle root that has all its children.
fn idle_stage() -> Stage {
    let stage = Stage::start("idle");
    stage.number();
    stage.member("tenfold-warden");
    stage
}

// Fault 11.
#[test]
fn an_idle_root_is_killed() {
    let mut stage = idle_stage();
    assert!(stage.members().len() >= 9, "{:?}", stage.members());
    stage.kill_root();
    let took = stage.nobody_left();
    println!("everybody was gone {took:?} after the root");
}

/// Children that never rest, and new ones all the time.
fn busy() -> ! {
    for _ in 0..3 {
        Process::spawn(spin, ()).unwrap();
    }
    tell("ready");
    std::thread::scope(|scope| {
        for method in [StartMethod::Forkserver, StartMethod::Forkserver, StartMethod::Spawn] {
            scope.spawn(move || {
                loop {
                    Process::builder().start_method(method).spawn(nothing, ()).unwrap().join().unwrap();
                    Process::builder().start_method(method).spawn(spin, ()).unwrap().kill().unwrap();
                }
            });
        }
    });
    unreachable!("the threads do not end")
}

// Fault 11.
#[test]
fn a_busy_root_is_killed_at_any_moment() {
    for round in 0..8 {
        let mut stage = Stage::start("busy");
        stage.expect("ready");
        std::thread::sleep(Duration::from_millis(7 * round));
        stage.kill_root();
        let took = stage.nobody_left();
        println!("round {round}: everybody was gone {took:?} after the root");
    }
}

// Fault 11.
#[test]
fn a_root_is_killed_while_it_starts() {
    for round in 0..12 {
        let mut stage = Stage::start("idle");
        std::thread::sleep(Duration::from_millis(2 * round));
        stage.kill_root();
        stage.nobody_left();
    }
}

/// Starts a child and is done.
fn brief() {
    let child = Process::spawn(sleep_for_ever, ()).unwrap();
    child.pid().unwrap();
}

#[test]
fn a_root_that_ends_takes_its_children_along() {
    let mut stage = Stage::start("brief");
    stage.root_succeeds();
    stage.nobody_left();
}

/// Starts and joins children while its helpers are shot.
fn survivor() {
    let child = Process::spawn(sleep_for_ever, ()).unwrap();
    let other = Process::builder().start_method(StartMethod::Spawn).spawn(sleep_for_ever, ()).unwrap();
    tell(child.pid().unwrap());
    let error = child.join().unwrap_err();
    match error {
        Error::Process(ProcessError::Signaled { signal: 9, .. } | ProcessError::Vanished { .. }) => tell("lost"),
        error => tell(format!("{error:?}")),
    }
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    assert!(other.is_alive());
    tell("again");
    sleep_for_ever(());
}

// Fault 22.
#[test]
fn the_nursery_is_killed() {
    let mut stage = Stage::start("survivor");
    let child = stage.number();
    let nursery = stage.member("tenfold-nursery");
    let warden = stage.member("tenfold-warden");
    stage::kill(nursery);
    stage.expect("lost");
    stage.expect("again");
    assert!(!stage.members().iter().any(|m| [child, nursery].contains(&m.pid)));
    assert_ne!(stage.member("tenfold-nursery"), nursery);
    wait_for("the new warden", || (stage.member("tenfold-warden") != warden).then_some(()));
    stage.kill_root();
    stage.nobody_left();
}

// Fault 22.
#[test]
fn the_warden_is_killed_again_and_again() {
    let mut stage = idle_stage();
    let mut warden = stage.member("tenfold-warden");
    for _ in 0..5 {
        stage::kill(warden);
        warden = wait_for("the next warden", || {
            let next = stage.members().into_iter().find(|m| m.name == "tenfold-warden" && m.pid != warden)?;
            Some(next.pid)
        });
    }
    stage.kill_root();
    stage.nobody_left();
}

// Faults 11, 22.
#[test]
fn root_and_nursery_are_killed_together() {
    let mut stage = idle_stage();
    let nursery = stage.member("tenfold-nursery");
    stage::kill(nursery);
    stage.kill_root();
    stage.nobody_left();
}

// Faults 11, 22.
#[test]
fn root_and_warden_are_killed_together() {
    let mut stage = idle_stage();
    let warden = stage.member("tenfold-warden");
    stage::kill(warden);
    stage.kill_root();
    stage.nobody_left();
}

// Faults 11, 22.
#[test]
fn root_and_nursery_are_killed_while_children_are_started() {
    for round in 0..10 {
        let mut stage = Stage::start("busy");
        stage.expect("ready");
        let nursery = stage.member("tenfold-nursery");
        std::thread::sleep(Duration::from_millis(5 * (round / 2)));
        if round % 2 == 0 {
            stage::kill(nursery);
        }
        stage.kill_root();
        stage::kill(nursery);
        let took = stage.nobody_left();
        println!("round {round}: everybody was gone {took:?} after the root");
    }
}

/// Waits for what a stopped nursery is to start.
fn stopped_nursery() {
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(|x: u32| x + 1, 1).unwrap(), 2);
    let ours = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default();
        status.starts_with("Name:\ttenfold-nursery\n") && parent.trim() == std::process::id().to_string()
    };
    let pids = || std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let nursery: u32 = pids().find(ours).unwrap();
    tenfold_sys::process::kill(nursery, 19).unwrap();
    wait_for("the stop", || (tenfold_sys::procfs::state(nursery) == Ok(b'T')).then_some(()));
    // What runs goes on, and another start method needs no nursery.
    assert_eq!(pool.apply(|x: u32| x + 1, 2).unwrap(), 3);
    Process::builder().start_method(StartMethod::Spawn).spawn(nothing, ()).unwrap().join().unwrap();
    let child = Process::spawn(nothing, ()).unwrap();
    assert!(matches!(child.join_timeout(Duration::from_millis(50)), Err(Error::TimedOut { .. })));
    match child.join().unwrap_err() {
        Error::Launch(LaunchError::NurseryStopped { pid }) => assert_eq!(pid, nursery),
        error => panic!("{error:?}"),
    }
    let starved = Pool::new(1).unwrap();
    let error = starved.apply(|x: u32| x + 1, 3).unwrap_err().to_string();
    assert!(error.contains("is stopped") && error.contains("SIGCONT"), "{error}");
    tenfold_sys::process::kill(nursery, 18).unwrap();
    child.join().unwrap();
    assert_eq!(starved.apply(|x: u32| x + 1, 4).unwrap(), 5);
    tell("done");
}

// Fault 22.
#[test]
fn a_stopped_nursery_is_a_clear_error_and_serves_when_it_goes_on() {
    let mut stage = Stage::start("stopped_nursery");
    stage.expect("done");
    stage.root_succeeds();
    stage.nobody_left();
}

// Faults 11, 22.
#[test]
fn a_root_is_killed_while_its_nursery_is_stopped() {
    let mut stage = idle_stage();
    let nursery = stage.member("tenfold-nursery");
    tenfold_sys::process::kill(nursery, 19).unwrap();
    wait_for("the stop", || (tenfold_sys::procfs::state(nursery) == Ok(b'T')).then_some(()));
    stage.kill_root();
    stage.nobody_left();
}

/// One child that is to go on, one that is not, and a program of the user's own.
#[expect(clippy::zombie_processes, reason = "the program is to outlive this process")]
fn outlive() {
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        let child = Process::builder().outlive(true).start_method(method).spawn(sleep_for_ever, ()).unwrap();
        tell(child.pid().unwrap());
    }
    let program = Command::new("sleep").arg("3600").spawn().unwrap();
    tell(program.id());
    Process::spawn(sleep_for_ever, ()).unwrap().pid().unwrap();
    tell("ready");
    sleep_for_ever(());
}

// Fault 11.
#[test]
fn what_is_told_to_outlives_the_root_and_so_does_what_the_user_started() {
    let mut stage = Stage::start("outlive");
    let staying = [stage.number(), stage.number(), stage.number()];
    stage.expect("ready");
    stage.member("tenfold-warden");
    stage.kill_root();
    stage.only_left(&staying);
    // They are still there a while later.
    std::thread::sleep(Duration::from_millis(300));
    stage.only_left(&staying);
}

/// A child with a daemon and a child that is none.
fn daemons() {
    fn parent((): ()) {
        let daemon = Process::builder().daemon(true).spawn(sleep_for_ever, ()).unwrap();
        let child = Process::spawn(sleep_for_ever, ()).unwrap();
        tell(format!("{} {}", daemon.pid().unwrap(), child.pid().unwrap()));
        sleep_for_ever(());
    }
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        let parent = Process::builder().start_method(method).spawn(parent, ()).unwrap();
        tell(parent.pid().unwrap());
    }
    sleep_for_ever(());
}

#[test]
fn a_daemon_goes_with_its_parent_and_a_plain_child_stays() {
    let stage = Stage::start("daemons");
    let (mut parents, mut families) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let line = stage.line();
        match line.split_once(' ') {
            Some((daemon, child)) => families.push([daemon.parse::<u32>().unwrap(), child.parse().unwrap()]),
            None => parents.push(line.parse::<u32>().unwrap()),
        }
    }
    let lives = |pid: u32| stage.members().iter().any(|m| m.pid == pid);
    assert!(families.iter().flatten().all(|&pid| lives(pid)));
    for parent in parents {
        stage::kill(parent);
    }
    for [daemon, child] in families {
        wait_for("the daemon's end", || (!lives(daemon)).then_some(()));
        assert!(lives(child));
    }
}

/// A child that becomes another program.
fn programs() {
    fn become_program(line: String) {
        panic!("{}", Command::new("sh").args(["-c", &line]).exec());
    }
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        let start = |line: &str| {
            let child = Process::builder().start_method(method).spawn(become_program, line.to_owned()).unwrap();
            child.join()
        };
        start("true").unwrap();
        assert!(matches!(start("exit 7"), Err(Error::Process(ProcessError::Exited { code: 7, .. }))));
        assert!(matches!(start("kill -15 $$"), Err(Error::Process(ProcessError::Signaled { signal: 15, .. }))));
    }
    Process::spawn(become_program, "exec sleep 3600".to_owned()).unwrap().pid().unwrap();
    tell("ready");
    sleep_for_ever(());
}

#[test]
fn a_child_that_becomes_another_program_is_joined_and_ended_alike() {
    let mut stage = Stage::start("programs");
    stage.expect("ready");
    wait_for("the program", || stage.members().iter().any(|m| m.name == "sleep").then_some(()));
    stage.kill_root();
    stage.nobody_left();
}

/// Forks that capture, and forks that are refused: the root has the threads of the test harness, its
/// children have one.
fn fork() {
    Process::spawn(fork_in_child, ()).unwrap().join().unwrap();
    let error = Process::fork(|| ()).unwrap_err();
    assert!(matches!(error, Error::Launch(LaunchError::ThreadsRunning { .. })), "{error:?}");
    tell("done");
}

fn fork_in_child((): ()) {
    let captured = std::sync::Arc::new(std::sync::Mutex::new(vec![1, 2, 3]));
    let seen = captured.clone();
    let child = Process::fork(move || {
        let mut seen = seen.lock().unwrap();
        seen.push(4);
        assert_eq!(seen[..], [1, 2, 3, 4]);
        assert_eq!(tenfold::current_process().name(), "fork");
        assert_eq!(tenfold::parent_process().unwrap().unwrap().pid().unwrap(), tenfold::parent_pid());
        // A child has children of its own.
        Process::fork(|| Err::<(), _>("inner")).unwrap().join().unwrap_err();
        Process::builder().start_method(StartMethod::Fork).spawn(nothing, ()).unwrap().join().unwrap();
        Process::spawn(nothing, ()).unwrap().join()
    });
    child.unwrap().join().unwrap();
    assert_eq!(captured.lock().unwrap()[..], [1, 2, 3]);
    match Process::fork(|| panic!("in the fork")).unwrap().join().unwrap_err() {
        Error::Process(ProcessError::Panicked { message, .. }) => assert!(message.starts_with("in the fork")),
        error => panic!("{error:?}"),
    }
    let thread = std::thread::spawn(std::thread::park);
    let error = Process::fork(|| ()).unwrap_err();
    assert!(matches!(error, Error::Launch(LaunchError::ThreadsRunning { threads: 2 })), "{error:?}");
    thread.thread().unpark();
    thread.join().unwrap();
}

#[test]
fn fork_captures_and_is_refused_beside_threads() {
    let mut stage = Stage::start("fork");
    stage.expect("done");
    stage.root_succeeds();
    stage.nobody_left();
}

/// A pipe that is not close-on-exec, open while the helpers start.
fn pipes() {
    use std::io::Read;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let both = [std::os::fd::AsFd::as_fd(&reader), std::os::fd::AsFd::as_fd(&writer)];
    for fd in both {
        tenfold_sys::descriptors::keep_on_exec(fd).unwrap();
    }
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    drop(writer);
    // Ends only if nobody else has the other end.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    tell("ended");
}

#[test]
fn the_helpers_hold_no_pipe_of_the_program() {
    let mut stage = Stage::start("pipes");
    stage.expect("ended");
    stage.root_succeeds();
}

/// Many processes, and no descriptor is lost.
fn descriptors() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    let before = open();
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        for _ in 0..20 {
            Process::builder().start_method(method).spawn(nothing, ()).unwrap().join().unwrap();
        }
    }
    assert_eq!(open(), before);
    assert!(tenfold::active_children().unwrap().is_empty());
    tell("done");
}

#[test]
fn no_descriptor_is_lost() {
    let mut stage = Stage::start("descriptors");
    stage.expect("done");
    stage.root_succeeds();
}

/// What the family knows of its executable is not what this process runs.
fn other_executable() {
    let heap = tenfold_engine::Heap::get().unwrap();
    heap.header().get().executable[1].store(12345, std::sync::atomic::Ordering::Relaxed);
    let error = Process::spawn(nothing, ()).unwrap_err();
    assert!(matches!(error, Error::Launch(LaunchError::OtherExecutable)), "{error:?}");
    tell(error);
}

#[test]
fn another_executable_is_an_error_that_says_so() {
    let stage = Stage::start("other_executable");
    assert!(stage.line().contains("another executable"));
}

fn end_somehow(how: u32) {
    match how {
        0 => {}
        1 => std::process::exit(9),
        _ => std::process::abort(),
    }
}

/// Somebody else reaps all children, as `os.wait()` loops do.
fn stolen() {
    for (end, code) in [(0, Some(0)), (1, Some(9)), (2, None)] {
        let child = Process::builder().start_method(StartMethod::Spawn).spawn(end_somehow, end).unwrap();
        let pid = child.pid().unwrap();
        let stolen = wait_for("the death", || {
            std::thread::sleep(Duration::from_millis(1));
            tenfold_sys::process::reap(pid).unwrap()
        });
        assert_eq!(stolen.code(), code);
        let joined = child.join();
        assert_eq!(joined.is_ok(), code == Some(0), "{joined:?}");
        assert_eq!(child.exit_code(), code);
        assert_eq!(child.exit_signal(), if code.is_none() { Some(6) } else { None });
    }
    tell("done");
}

#[test]
fn a_status_that_somebody_else_reaped_is_still_known() {
    let stage = Stage::start("stolen");
    stage.expect("done");
}

/// The file that this process runs is replaced before anything is started.
fn replaced() {
    let own = std::env::current_exe().unwrap();
    std::fs::remove_file(&own).unwrap();
    std::fs::write(&own, "#!/bin/sh\nexit 3\n").unwrap();
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    Process::builder().start_method(StartMethod::Spawn).spawn(nothing, ()).unwrap().join().unwrap();
    tell("done");
}

#[test]
fn an_executable_that_is_replaced_on_disk_goes_on() {
    let folder = std::env::temp_dir().join(format!("tenfold-replaced-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let copy = folder.join("copy");
    // By a process of its own: what another test forks while this one writes would keep the file open, and busy.
    let copied = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status();
    assert!(copied.unwrap().success());
    let stage = Stage::start_with(Some(&copy), "replaced", &[]);
    let line = stage.line();
    drop(stage);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(line, "done");
}

/// A process of ours that forks behind our back.
fn raw_forks() {
    fn fork_and_wait((): ()) {
        tell(raw_fork::fork(|| sleep_for_ever(())));
        sleep_for_ever(());
    }
    Process::spawn(fork_and_wait, ()).unwrap().join().unwrap();
}

// Fault 11.
#[test]
fn what_user_code_forks_by_itself_is_left_alone() {
    let mut stage = Stage::start("raw_forks");
    let forked = stage.number();
    stage.member("tenfold-warden");
    stage.kill_root();
    stage.only_left(&[forked]);
    std::thread::sleep(Duration::from_millis(300));
    stage.only_left(&[forked]);
}

#[test]
fn an_idle_family_sleeps() {
    let stage = idle_stage();
    let sleeps = || -> Vec<(u32, String)> {
        let mut all = Vec::new();
        for member in stage.members() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", member.pid)).unwrap();
            all.extend(status.lines().filter(|l| l.contains("ctxt_switches")).map(|l| (member.pid, l.to_owned())));
        }
        all
    };
    // Once everything has come to rest, nobody wakes up any more.
    wait_for("rest", || {
        let before = sleeps();
        std::thread::sleep(Duration::from_millis(700));
        (sleeps() == before).then_some(())
    });
}
