//! What crash tests share: a process for each test, children that die on purpose, a watchdog, and
//! the question whether the heap is back where it was.
//!
//! ```ignore
//! #[path = "support/crash.rs"]
//! mod crash;
//!
//! #[test]
//! fn nothing_is_lost() {
//!     crash::alone(|heap| {
//!         let lock = …;
//!         let before = crash::Before::of(heap);
//!         crash::kill_at(KillPoint::UserLockTaken, 0, || { lock.acquire()…; });
//!         before.assert_unchanged();
//!     });
//! }
//! ```
#![allow(dead_code, unused_imports)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use tenfold_shm::{Heap, participant};
use tenfold_sys::process::{self, ExitStatus, Fork, Pid};

/// How a process ends that reached its kill-point.
pub(crate) const KILLED: ExitStatus = ExitStatus::Signaled { signal: libc::SIGKILL, core: false };

const ALONE: &str = "TENFOLD_TEST_ALONE";
/// Seconds that one test may take before it counts as hanging.
const PATIENCE: u32 = 60;

/// Runs the body of a test in a process of its own: with a fresh heap, as its root, with no other
/// test beside it, and with a watchdog. The calling test is run again by this test program.
#[track_caller]
pub(crate) fn alone(body: impl FnOnce(Heap)) {
    let name = std::thread::current().name().map(str::to_owned).unwrap_or_default();
    if std::env::var(ALONE).is_ok_and(|wanted| wanted == name || name == "main") {
        let watchdog = Watchdog::start(PATIENCE);
        body(Heap::get().unwrap());
        drop(watchdog);
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", &name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(ALONE, &name)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} alone: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{name} was not found again:\n{out}\n{err}");
}

/// Ends the process by SIGALRM if it is not dropped in time. Forked children do not inherit it; they
/// die with the thread that made them.
pub(crate) struct Watchdog(());

impl Watchdog {
    pub(crate) fn start(seconds: u32) -> Watchdog {
        // SAFETY: takes a number; the default action of the signal ends the process.
        unsafe { libc::alarm(seconds) };
        Watchdog(())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: as above; 0 takes the alarm back.
        unsafe { libc::alarm(0) };
    }
}

/// A forked process. It dies with the test.
#[derive(Debug)]
#[must_use]
pub(crate) struct Child(Pid);

/// Forks a child that runs `work` and exits with 0, or with 101 if it panics.
pub(crate) fn in_child(work: impl FnOnce()) -> Child {
    // SAFETY: the test runs alone, so that no other thread holds a lock which the child may need.
    match unsafe { process::fork() }.unwrap() {
        Fork::Parent(pid) => Child(pid),
        Fork::Child => {
            let _ = process::die_with_parent();
            let ended = catch_unwind(AssertUnwindSafe(work));
            process::exit_now(if ended.is_ok() { 0 } else { 101 });
        }
    }
}

impl Child {
    pub(crate) fn pid(&self) -> Pid {
        self.0
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: i32) {
        process::kill(self.0, signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn wait(self) -> ExitStatus {
        process::reap_blocking(self.0).unwrap()
    }

    /// Waits until it is dead, but leaves it a zombie.
    pub(crate) fn wait_unreaped(&self) {
        assert!(process::PidFd::open(self.0).unwrap().wait_dead(tenfold_sys::clock::Deadline::never()));
    }

    /// Waits for the end, which must be a good one.
    #[track_caller]
    pub(crate) fn succeeds(self) {
        assert_eq!(self.wait(), ExitStatus::Exited(0));
    }

    /// Kills it, and waits.
    pub(crate) fn kill(self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.wait(), KILLED);
    }
}

/// Runs `work` in a child that is killed when it reaches `point` after passing it `passes` times;
/// fails if it never gets there. The dead child is reaped but not swept: who needs it swept finds
/// out, or calls [`sweep`].
#[cfg(feature = "kill-points")]
#[track_caller]
pub(crate) fn kill_at(point: tenfold_shm::kill_point::KillPoint, passes: u32, work: impl FnOnce()) {
    let child = in_child(|| {
        tenfold_shm::kill_point::arm(point, passes);
        work();
        tenfold_shm::kill_point::disarm();
    });
    assert_eq!(child.wait(), KILLED, "{} was not reached {} times", point.name(), passes + 1);
}

/// As [`kill_at`], but the work may end before the point is reached that often; says whether it was
/// killed. For loops over all passes of a point.
#[cfg(feature = "kill-points")]
#[track_caller]
pub(crate) fn killed_at(point: tenfold_shm::kill_point::KillPoint, passes: u32, work: impl FnOnce()) -> bool {
    let child = in_child(|| {
        tenfold_shm::kill_point::arm(point, passes);
        work();
        tenfold_shm::kill_point::disarm();
    });
    match child.wait() {
        KILLED => true,
        ExitStatus::Exited(0) => false,
        other => panic!("{} after {passes} passes: the child ended with {other:?}", point.name()),
    }
}

/// Sweeps all that is dead, also what nobody told the status of (which takes a moment).
pub(crate) fn sweep(heap: Heap) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        participant::sweep_all(heap);
        let dead = (0..tenfold_shm::heap::SLOTS).any(|index| {
            let entry = participant::roster(index, heap);
            entry.identity(index).is_some()
                && !(entry.is_live() && participant::is_alive(entry.pid(), entry.start_time()))
        });
        if !dead {
            return;
        }
        assert!(Instant::now() < end, "a dead participant is never swept");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the heap contained at a time.
#[derive(Debug)]
pub(crate) struct Before {
    heap: Heap,
    counts: Counts,
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    live_blocks: u64,
    live_bytes: u64,
    kinds: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn of(heap: Heap) -> Counts {
        let stats = heap.stats();
        let mut kinds = BTreeMap::new();
        for ((_, kind), count) in heap.census() {
            *kinds.entry(kind).or_default() += count;
        }
        Counts { live_blocks: stats.live_blocks, live_bytes: stats.live_bytes, kinds }
    }
}

impl Before {
    /// Sweeps what is dead and counts.
    pub(crate) fn of(heap: Heap) -> Before {
        sweep(heap);
        Before { heap, counts: Counts::of(heap) }
    }

    /// Sweeps what has died meanwhile; by then the heap must contain what it contained before.
    #[track_caller]
    pub(crate) fn assert_unchanged(&self) {
        sweep(self.heap);
        let now = Counts::of(self.heap);
        assert_eq!(now, self.counts, "the heap has changed; right is what it was before");
        let by_kind: u64 = now.kinds.values().sum();
        assert_eq!(by_kind, now.live_blocks, "the blocks in use and the free lists do not add up");
    }
}
