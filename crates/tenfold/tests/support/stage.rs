//! Programs for tests to kill: a *stage* is this test executable, run again as the root of a family
//! of its own, whose processes all carry a mark in their environment.
//!
//! The root runs the function that the test names, on its main thread, and tells what it does by
//! lines that begin with `@`. Its standard output is a pipe: that it ends proves that nobody holds it
//! any more.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const STAGE: &str = "TENFOLD_TEST_STAGE";
const MARK: &str = "TENFOLD_TEST_MARK";
/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which function this process is to run, if it is a root on stage.
pub(crate) fn wanted() -> Option<String> {
    std::env::var(STAGE).ok()
}

/// Tells the test something.
pub(crate) fn tell(text: impl std::fmt::Display) {
    println!("@{text}");
}

/// A family on stage. All of its processes are killed when it is dropped.
pub(crate) struct Stage {
    root: Child,
    mark: String,
    lines: Receiver<String>,
}

/// A process of the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

impl Stage {
    /// Starts `program` (`None` is this test executable) to run the function `name` in its test `stage`.
    pub(crate) fn start_with(program: Option<&std::path::Path>, name: &str, env: &[(&str, &str)]) -> Stage {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let own = std::env::current_exe().unwrap();
        let mut root = Command::new(program.unwrap_or(&own))
            .args(["--exact", "stage", "--ignored", "--nocapture", "--test-threads=1"])
            .env(STAGE, name)
            .env(MARK, &mark)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = root.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test harness may have written the beginning of the line.
                if let Some((_, told)) = line.split_once('@') {
                    let _ = sender.send(told.to_owned());
                }
            }
        });
        Stage { root, mark, lines }
    }

    pub(crate) fn start(name: &str) -> Stage {
        Stage::start_with(None, name, &[])
    }

    /// The next thing that the root or a child tells.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(error) => panic!("nothing was told: {error}; {:?}", self.members()),
        }
    }

    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        assert_eq!(self.line(), text);
    }

    /// A number that is told.
    #[track_caller]
    pub(crate) fn number(&self) -> u32 {
        self.line().parse().unwrap()
    }

    pub(crate) fn root_pid(&self) -> u32 {
        self.root.id()
    }

    /// Kills the root and waits until it is dead.
    pub(crate) fn kill_root(&mut self) {
        self.root.kill().unwrap();
        self.root.wait().unwrap();
    }

    /// Waits until the root has ended well.
    #[track_caller]
    pub(crate) fn root_succeeds(&mut self) {
        let status = wait_for("the root's end", || self.root.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    /// Waits until the root is dead, which a signal must have ended.
    #[track_caller]
    pub(crate) fn root_signal(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = wait_for("the root's end", || self.root.try_wait().unwrap());
        status.signal().unwrap_or_else(|| panic!("the root was not killed: {status}"))
    }

    /// All processes of the family that run, by the mark in their environment.
    pub(crate) fn members(&self) -> Vec<Member> {
        let mark = format!("{MARK}={}", self.mark);
        let mut members = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A zombie has no environment any more.
            let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
            if environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()) {
                let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                members.push(Member { pid, name: name.trim_end().to_owned() });
            }
        }
        members
    }

    /// Waits for the one process with this name.
    #[track_caller]
    pub(crate) fn member(&self, name: &str) -> u32 {
        wait_for(name, || match &self.members().into_iter().filter(|m| m.name == name).collect::<Vec<_>>()[..] {
            [one] => Some(one.pid),
            _ => None,
        })
    }

    /// Waits until nobody is left but those with these pids, and tells how long that took.
    #[track_caller]
    pub(crate) fn only_left(&self, pids: &[u32]) -> Duration {
        let begin = Instant::now();
        loop {
            let members = self.members();
            if members.len() == pids.len() && members.iter().all(|m| pids.contains(&m.pid)) {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < PATIENCE, "only {pids:?} should be left, but there are {members:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until nobody is left, nor holds the root's standard output.
    #[track_caller]
    pub(crate) fn nobody_left(&self) -> Duration {
        let took = self.only_left(&[]);
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        took
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.root.kill();
        let _ = self.root.wait();
        for member in self.members() {
            kill(member.pid);
        }
    }
}

/// Kills a process.
pub(crate) fn kill(pid: u32) {
    let _ = tenfold_sys::process::kill(pid, 9);
}

/// Waits until `look` finds something; fails if that takes too long.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
