//! Processes that start, end, and tell how.

use std::time::Duration;
use tenfold::{Error, Process, ProcessError};

fn nothing((): ()) {}

#[test]
fn a_process_starts_and_ends() {
    let child = Process::spawn(nothing, ()).unwrap();
    child.join().unwrap();
    assert_eq!(child.exit_code(), Some(0));
    assert!(!child.is_alive());
}

#[test]
fn an_exit_code_a_panic_and_an_error_reach_the_parent() {
    let child = Process::spawn(|code: i32| std::process::exit(code), 3).unwrap();
    let error = child.join().unwrap_err();
    assert!(matches!(&error, Error::Process(ProcessError::Exited { code: 3, .. })), "{error:?}");
    let child = Process::spawn(|text: String| panic!("boom {text}"), "x".to_owned()).unwrap();
    match child.join().unwrap_err() {
        Error::Process(ProcessError::Panicked { message, backtrace, .. }) => {
            assert!(message.starts_with("boom x (at "), "{message}");
            assert!(backtrace.contains("process_basics"), "{backtrace}");
        }
        other => panic!("{other:?}"),
    }
    let child = Process::spawn(|(): ()| Err::<(), _>("no luck"), ()).unwrap();
    match child.join().unwrap_err() {
        Error::Process(ProcessError::Failed { message, .. }) => assert_eq!(message, "no luck"),
        other => panic!("{other:?}"),
    }
    assert!(child.join_timeout(Duration::from_secs(1)).is_err());
}
