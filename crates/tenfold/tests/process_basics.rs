//! Processes that start, end, and tell how.

use std::collections::HashSet;
use std::time::Duration;
use tenfold::{Array, Error, Process, ProcessError, StartMethod, Value};

/// All that can be tested within the threads of the test harness; `Process::fork` is in
/// `chaos_process.rs`.
const METHODS: [StartMethod; 2] = [StartMethod::Forkserver, StartMethod::Spawn];

fn nothing((): ()) {}

fn sleep_for_ever((): ()) {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + room[3] }
}

fn error_of(child: &Process) -> ProcessError {
    match child.join() {
        Err(Error::Process(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_starts_and_ends() {
    for method in METHODS {
        let child = Process::builder().start_method(method).spawn(nothing, ()).unwrap();
        child.join().unwrap();
        child.join().unwrap();
        assert_eq!((child.exit_code(), child.exit_signal()), (Some(0), None));
        assert!(!child.is_alive());
        assert!(child.try_join().unwrap());
    }
}

#[test]
fn an_exit_code_a_panic_and_an_error_reach_the_parent() {
    for method in METHODS {
        let start = || Process::builder().start_method(method);
        let child = start().spawn(|code: i32| std::process::exit(code), 3).unwrap();
        assert!(matches!(error_of(&child), ProcessError::Exited { code: 3, .. }));
        assert_eq!(child.exit_code(), Some(3));

        let child = start().spawn(|text: String| panic!("boom {text}"), "x".to_owned()).unwrap();
        match error_of(&child) {
            ProcessError::Panicked { message, backtrace, .. } => {
                assert!(message.starts_with("boom x (at "), "{message}");
                assert!(message.contains("process_basics.rs"), "{message}");
                assert!(backtrace.contains("process_basics"), "{backtrace}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(child.exit_code(), Some(101));

        let child = start().spawn(|(): ()| Err::<(), _>("no luck"), ()).unwrap();
        assert!(matches!(error_of(&child), ProcessError::Failed { message, .. } if message == "no luck"));
        assert_eq!(child.exit_code(), Some(1));
        assert!(matches!(child.join_timeout(Duration::from_secs(1)), Err(Error::Process(_))));
    }
}

#[test]
fn a_signal_a_crash_and_an_overflow_reach_the_parent() {
    for method in METHODS {
        let start = || Process::builder().start_method(method);
        let signal_of = |child: Process| match error_of(&child) {
            ProcessError::Signaled { signal, .. } => {
                assert_eq!((child.exit_code(), child.exit_signal()), (None, Some(signal)));
                signal
            }
            other => panic!("{other:?}"),
        };
        let child = start().spawn(sleep_for_ever, ()).unwrap();
        child.kill().unwrap();
        assert_eq!(signal_of(child), 9);
        let child = start().spawn(sleep_for_ever, ()).unwrap();
        child.terminate().unwrap();
        assert_eq!(signal_of(child), 15);
        assert_eq!(signal_of(start().spawn(|(): ()| std::process::abort(), ()).unwrap()), 6);
        assert_eq!(signal_of(start().spawn(|n| println!("{}", overflow(n)), 0).unwrap()), 11);
    }
}

#[test]
fn a_child_that_has_ended_cannot_be_signalled_any_more() {
    let child = Process::spawn(nothing, ()).unwrap();
    child.join().unwrap();
    child.kill().unwrap();
    child.terminate().unwrap();
    assert_eq!(child.exit_code(), Some(0));
    let child = Process::spawn(sleep_for_ever, ()).unwrap();
    assert!(child.signal(12345).is_err());
    child.kill().unwrap();
}

#[test]
fn waiting_has_a_limit() {
    let child = Process::spawn(sleep_for_ever, ()).unwrap();
    assert!(!child.try_join().unwrap());
    assert!(matches!(child.join_timeout(Duration::from_millis(30)), Err(Error::TimedOut { .. })));
    assert!(child.is_alive());
    assert_eq!((child.exit_code(), child.exit_signal()), (None, None));
    child.kill().unwrap();
    assert!(child.join_timeout(Duration::from_secs(60)).is_err());
}

#[test]
fn a_sentinel_becomes_readable() {
    use tenfold_sys::{clock::Deadline, poll::wait_readable};
    for method in METHODS {
        let child = Process::builder().start_method(method).spawn(sleep_for_ever, ()).unwrap();
        let sentinel = child.sentinel().unwrap().unwrap();
        assert_eq!(wait_readable(&[sentinel], Deadline::after(Duration::from_millis(20))).unwrap(), [] as [usize; 0]);
        child.kill().unwrap();
        assert_eq!(wait_readable(&[sentinel], Deadline::never()).unwrap(), [0]);
    }
}

#[test]
fn arguments_travel_with_the_handles_inside_them() {
    fn change((n, a, text, bytes): (Value<f64>, Array<i32>, Option<String>, Vec<u8>)) -> tenfold::Result<()> {
        *n.lock()? = bytes.len() as f64;
        for x in a.lock()?.iter_mut() {
            *x = -*x;
        }
        assert_eq!(text.as_deref(), Some("text"));
        assert!(bytes.iter().enumerate().all(|(index, &byte)| byte == index as u8));
        Ok(())
    }
    let (n, a) = (Value::new(0.0).unwrap(), Array::from_iter(0..10).unwrap());
    for method in METHODS {
        // Beyond what fits into a window of the heap.
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| index as u8).collect();
        let arguments = (n.clone(), a.clone(), Some("text".to_owned()), bytes);
        Process::builder().start_method(method).spawn(change, arguments).unwrap().join().unwrap();
        assert_eq!(*n.lock().unwrap(), 3_000_000.0);
    }
    assert_eq!(a.lock().unwrap().to_vec(), (0..10).collect::<Vec<i32>>());
}

#[test]
fn who_is_who() {
    fn child((parent, name): (u32, String)) {
        assert_eq!(tenfold::parent_pid(), parent);
        assert_eq!(tenfold::pid(), std::process::id());
        assert_eq!(tenfold::current_process().name(), name);
        assert!(!tenfold::current_process().is_daemon());
        let known = tenfold::parent_process().unwrap().unwrap();
        assert_eq!(known.pid().unwrap(), parent);
        assert!(known.is_alive());
        // And so on, one generation down.
        if name != "grandchild" {
            let next = Process::builder().name("grandchild").spawn(child, (tenfold::pid(), "grandchild".to_owned()));
            next.unwrap().join().unwrap();
        }
    }
    for method in METHODS {
        let start = Process::builder().start_method(method);
        let process = start.clone().spawn(child, (std::process::id(), "child".to_owned())).unwrap();
        assert_eq!(process.name(), "child");
        assert_ne!(process.pid().unwrap(), std::process::id());
        process.join().unwrap();
        let named = start.name("a name").spawn(child, (std::process::id(), "a name".to_owned())).unwrap();
        assert_eq!(named.name(), "a name");
        named.join().unwrap();
    }
    assert_eq!(tenfold::current_process().name(), "main");
    assert!(tenfold::parent_process().unwrap().is_none());
}

#[test]
fn children_that_run_are_listed() {
    let children: Vec<Process> = METHODS
        .into_iter()
        .map(|method| Process::builder().start_method(method).spawn(sleep_for_ever, ()).unwrap())
        .collect();
    let pids: HashSet<u32> = children.iter().map(|child| child.pid().unwrap()).collect();
    let listed = || -> HashSet<u32> {
        let active = tenfold::active_children().unwrap();
        // Another test's may end just now.
        active.iter().filter_map(|child| child.pid().ok()).collect()
    };
    assert!(pids.is_subset(&listed()));
    for child in &children {
        child.kill().unwrap();
        child.join().unwrap_err();
    }
    assert!(pids.is_disjoint(&listed()));
}

#[test]
fn a_capturing_argument_can_be_a_closure_that_captures_nothing() {
    Process::spawn(|(a, b): (u32, u32)| assert_eq!(a + b, 5), (2, 3)).unwrap().join().unwrap();
    let child = Process::spawn(|(a, b): (u32, u32)| assert_eq!(a, b), (2, 3)).unwrap();
    assert!(matches!(error_of(&child), ProcessError::Panicked { .. }));
}

#[test]
fn threads_start_processes_side_by_side() {
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            scope.spawn(move || {
                for round in 0..25_u32 {
                    let code = (thread * 25 + round) as i32;
                    let child = Process::spawn(|code: i32| std::process::exit(code), code).unwrap();
                    match child.join() {
                        Ok(()) => assert_eq!(code, 0),
                        Err(Error::Process(ProcessError::Exited { code: found, .. })) => assert_eq!(found, code),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
}

#[test]
fn many_run_at_a_time() {
    let children: Vec<Process> = (0..100).map(|_| Process::spawn(sleep_for_ever, ()).unwrap()).collect();
    let pids: HashSet<u32> = children.iter().map(|child| child.pid().unwrap()).collect();
    assert_eq!(pids.len(), 100);
    for child in &children {
        child.kill().unwrap();
    }
    for child in &children {
        assert!(matches!(error_of(child), ProcessError::Signaled { signal: 9, .. }));
    }
}

#[test]
fn a_handle_that_is_dropped_leaves_the_process_alone() {
    let value = Value::new(0_u32).unwrap();
    fn later(value: Value<u32>) -> tenfold::Result<()> {
        std::thread::sleep(Duration::from_millis(30));
        *value.lock()? = 7;
        Ok(())
    }
    drop(Process::spawn(later, value.clone()).unwrap());
    while *value.lock().unwrap() != 7 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_argument_that_cannot_be_encoded_is_an_error_here() {
    #[derive(serde::Deserialize)]
    struct Stubborn;
    impl serde::Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("I stay here"))
        }
    }
    let error = Process::spawn(|_: Stubborn| (), Stubborn).unwrap_err();
    assert!(matches!(error, Error::Encode { .. }) && error.to_string().contains("Stubborn"), "{error}");
}

#[test]
fn an_argument_that_cannot_be_decoded_is_an_error_of_join() {
    #[derive(serde::Serialize)]
    struct Cryptic;
    impl<'de> serde::Deserialize<'de> for Cryptic {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("what is this"))
        }
    }
    let child = Process::spawn(|_: Cryptic| (), Cryptic).unwrap();
    let error = error_of(&child);
    assert!(matches!(error, ProcessError::Failed { .. }) && error.to_string().contains("Cryptic"), "{error}");
}

#[test]
fn output_is_inherited_and_flushed() {
    // Seen by whoever runs this with --nocapture; what is checked is that a half line is no problem.
    Process::spawn(|text: String| print!("{text}"), "no line end".to_owned()).unwrap().join().unwrap();
}
