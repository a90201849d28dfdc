//! One cell of the table: a system measured in a row, each time in a fresh process.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::rows::Failure;

/// A system in a row.
pub(crate) struct Cell {
    /// Its name in the table.
    pub(crate) system: &'static str,
    /// Measures once, in the calling process.
    pub(crate) measure: fn() -> Result<f64, Failure>,
}

/// What a measuring process writes before its number.
pub(crate) const ANSWER: &str = "measured: ";

/// Measures `system` in `row` in a process of its own, which is killed with all that belongs to it if it
/// takes longer than `limit`.
///
/// # Errors
/// A short text for the table: the time limit, how the process ended, or the last line of its complaint.
pub(crate) fn measure_apart(row: &str, system: &str, limit: Duration) -> Result<f64, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(exe)
        .args(["--row", row, "--system", system])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    let (answers, answer) = mpsc::channel();
    if let (Some(out), Some(errors)) = (child.stdout.take(), child.stderr.take()) {
        let also = answers.clone();
        thread::spawn(move || forward_answer(out, &also));
        thread::spawn(move || forward_complaint(errors, &answers));
    }
    let deadline = Instant::now() + limit;
    let mut complaint = String::new();
    let measured = loop {
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Output::Answer(number)) => break Ok(number),
            Ok(Output::Complaint(text)) => complaint = text,
            Err(mpsc::RecvTimeoutError::Timeout) => break Err(format!("no answer in {} s", limit.as_secs())),
            Err(mpsc::RecvTimeoutError::Disconnected) => break Err("ended without an answer".to_string()),
        }
    };
    let ended = end(&mut child, deadline);
    match (measured, ended) {
        (Ok(number), Ok(())) => Ok(number),
        (Err(_), _) if !complaint.is_empty() => Err(complaint),
        (Err(reason), _) | (_, Err(reason)) => Err(reason),
    }
}

enum Output {
    Answer(f64),
    Complaint(String),
}

fn forward_answer(out: impl Read, to: &mpsc::Sender<Output>) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        if let Some(number) = line.strip_prefix(ANSWER).and_then(|number| number.parse().ok()) {
            let _ = to.send(Output::Answer(number));
        }
    }
}

fn forward_complaint(errors: impl Read, to: &mpsc::Sender<Output>) {
    let lines = BufReader::new(errors).lines().map_while(Result::ok);
    if let Some(line) = lines.filter(|line| !line.trim().is_empty() && !line.starts_with("note: ")).last() {
        let _ = to.send(Output::Complaint(line));
    }
}

/// Waits for the process and removes what is left of its group.
fn end(child: &mut Child, deadline: Instant) -> Result<(), String> {
    let group = Pid::from_child(child);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Err(error) => break Err(error.to_string()),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            Ok(None) => break Err("does not end".to_string()),
        }
    };
    // Without a group there is nobody left to kill, which is the usual case.
    let _ = kill_process_group(group, Signal::KILL);
    if status.is_err() {
        let _ = child.wait();
    }
    match status? {
        status if status.success() => Ok(()),
        status => Err(status.to_string()),
    }
}
