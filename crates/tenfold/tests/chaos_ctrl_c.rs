//! Ctrl-C in each wait: the program ends by that signal, and all that it started ends with it.

#[path = "support/stage.rs"]
mod stage;

use stage::{Stage, tell};
use tenfold::{Lock, Pool, Process, Queue, StartMethod, Value};

/// A root has the threads of the test harness, so that nothing can be forked from it.
const METHODS: [&str; 2] = ["forkserver", "spawn"];

/// Not a test: what the roots run, a wait and a start method.
#[test]
#[ignore = "run by the other tests as the root of a family"]
fn stage() {
    let Some(wait) = stage::wanted() else { return };
    // A shell that runs a job in the background has it ignore Ctrl-C, and programs inherit that.
    tenfold_sys::signals::default(2).unwrap();
    let (wait, method) = wait.split_once(' ').unwrap();
    tenfold::set_start_method(if method == "spawn" { StartMethod::Spawn } else { StartMethod::Forkserver }).unwrap();
    match wait {
        "map" => drop(Pool::new(2).unwrap().map(say_and_sleep, [0, 1])),
        "apply" => drop(Pool::new(2).unwrap().apply(say_and_sleep, 0)),
        "join" => drop(Process::spawn(|()| sleep(), ()).map(|child| said(child).join())),
        "get" => {
            let queue = Queue::<u32>::new().unwrap();
            said(Process::spawn(put_nothing, queue.clone()).unwrap());
            drop(queue.get());
        }
        "lock" => {
            let (lock, taken) = (Lock::new().unwrap(), Queue::new().unwrap());
            Process::spawn(hold, (lock.clone(), taken.clone())).unwrap();
            taken.get().unwrap();
            tell("waits");
            drop(lock.lock());
        }
        "value" => {
            let (value, taken) = (Value::new(1).unwrap(), Queue::new().unwrap());
            Process::spawn(hold_value, (value.clone(), taken.clone())).unwrap();
            taken.get().unwrap();
            tell("waits");
            drop(value.lock());
        }
        other => panic!("no such stage: {other}"),
    }
    panic!("the wait has ended");
}

fn sleep() {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

fn said(child: Process) -> Process {
    tell("waits");
    child
}

fn say_and_sleep(n: u32) {
    if n == 0 {
        tell("waits");
    }
    sleep();
}

fn put_nothing(_queue: Queue<u32>) {
    sleep();
}

fn hold((lock, taken): (Lock, Queue<u32>)) {
    let _held = lock.lock().unwrap();
    taken.put(1).unwrap();
    sleep();
}

fn hold_value((value, taken): (Value<i32>, Queue<u32>)) {
    let _held = value.lock().unwrap();
    taken.put(1).unwrap();
    sleep();
}

/// What a terminal does: all processes of the group get the signal.
fn ctrl_c_in(wait: &str) {
    let mut stage = Stage::start(wait);
    stage.expect("waits");
    for member in stage.members() {
        let _ = tenfold_sys::process::kill(member.pid, 2);
    }
    assert_eq!(stage.root_signal(), 2, "in {wait}");
    stage.nobody_left();
}

// Fault 12.
#[test]
fn ctrl_c_ends_the_program_in_any_wait() {
    for wait in ["map", "apply", "join", "get", "lock", "value"] {
        for method in METHODS {
            ctrl_c_in(&format!("{wait} {method}"));
        }
    }
}

// Fault 12.
#[test]
fn ctrl_c_for_the_root_alone_ends_all() {
    for wait in ["map forkserver", "join forkserver", "join spawn"] {
        let mut stage = Stage::start(wait);
        stage.expect("waits");
        tenfold_sys::process::kill(stage.root_pid(), 2).unwrap();
        assert_eq!(stage.root_signal(), 2, "in {wait}");
        stage.nobody_left();
    }
}
