//! Launchers, nurseries, wardens and children that are killed at each named point of their way.
#![cfg(feature = "kill-points")]

#[path = "support/stage.rs"]
mod stage;

use stage::{Stage, tell, wait_for};
use std::time::Duration;
use tenfold::{Error, Process, ProcessError, StartMethod};
use tenfold_engine::Heap;
use tenfold_engine::shm::kill_point::{self, KillPoint};

/// Not a test: what the roots run.
#[test]
#[ignore = "run by the other tests as the root of a family"]
fn stage() {
    match stage::wanted().as_deref() {
        None => {}
        Some("launchers") => launchers(),
        Some("arming_root") => arming_root(),
        Some("many") => many(),
        Some("starter") => starter(),
        Some("hopeless") => hopeless(),
        Some("leaving") => leaving(),
        Some("sleeper") => sleeper(),
        Some(other) => panic!("no such stage: {other}"),
    }
}

fn nothing((): ()) {}

fn sleep_for_ever((): ()) {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// The points that a launcher gets to.
const OF_LAUNCHERS: [KillPoint; 10] = [
    KillPoint::SlotClaimed,
    KillPoint::ObjectBuilt,
    KillPoint::MessageWritten,
    KillPoint::HeapTaken,
    KillPoint::LockTaken,
    KillPoint::RedoWritten,
    KillPoint::RedoCommitted,
    KillPoint::RedoHalfApplied,
    KillPoint::LaunchPrepared,
    KillPoint::LaunchWanted,
];

fn arm_and_launch((point, passes, method): (String, u32, u8)) -> tenfold::Result<()> {
    let method = if method == 0 { StartMethod::Forkserver } else { StartMethod::Spawn };
    kill_point::arm(named(&point), passes);
    Process::builder().start_method(method).daemon(true).spawn(nothing, ())?.join()
}

fn named(point: &str) -> KillPoint {
    *kill_point::ALL.iter().find(|known| known.name() == point).unwrap()
}

fn was_killed(joined: tenfold::Result<()>) -> bool {
    matches!(joined, Err(Error::Process(ProcessError::Signaled { signal: 9, .. })))
}

/// Launchers are killed at each point; the heap is the same afterwards, and the family goes on.
fn launchers() {
    let heap = Heap::get().unwrap();
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    let settled = |expected: Option<u64>| {
        // What the dead held is freed by whoever sweeps them, in a moment.
        let mut last = 0;
        wait_for("the heap to settle", || {
            let live = heap.stats().live_bytes;
            let steady = live == last && expected.is_none_or(|expected| live == expected);
            last = live;
            std::thread::sleep(Duration::from_millis(20));
            steady.then_some(live)
        })
    };
    let before = settled(None);
    for method in [0_u8, 1] {
        for point in OF_LAUNCHERS {
            if method == 1 && point == KillPoint::LaunchWanted {
                continue;
            }
            for passes in 0..3 {
                let name = point.name().to_owned();
                let killed = was_killed(Process::spawn(arm_and_launch, (name, passes, method)).unwrap().join());
                assert!(killed || passes > 0, "{} is not on the way", point.name());
                Process::spawn(nothing, ()).unwrap().join().unwrap();
                settled(Some(before));
            }
            tell(point.name());
        }
    }
    tell("done");
}

#[test]
fn a_launcher_is_killed_at_each_point() {
    let mut stage = Stage::start("launchers");
    loop {
        let line = stage.line();
        if line == "done" {
            break;
        }
    }
    stage.root_succeeds();
    stage.nobody_left();
}

/// The root itself is killed at the point that the environment names.
fn arming_root() {
    Process::spawn(sleep_for_ever, ()).unwrap().pid().unwrap();
    tell("ready");
    kill_point::arm(named(&std::env::var("TENFOLD_TEST_POINT").unwrap()), 0);
    let _ = Process::spawn(sleep_for_ever, ());
    unreachable!("the root is to be dead by now");
}

// Fault 11.
#[test]
fn a_launching_root_is_killed_at_each_point() {
    for point in OF_LAUNCHERS {
        let mut stage = Stage::start_with(None, "arming_root", &[("TENFOLD_TEST_POINT", point.name())]);
        stage.expect("ready");
        assert_eq!(stage.root_signal(), 9);
        stage.nobody_left();
    }
}

/// Starts and joins many children; how many ended well, and how many were lost.
fn many() {
    let (mut well, mut lost) = (0, 0);
    for _ in 0..24 {
        match Process::spawn(nothing, ()).and_then(|child| child.join()) {
            Ok(()) => well += 1,
            Err(Error::Process(_)) => lost += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    tell(well);
    tell(lost);
}

/// Runs the stage `many` with helpers that die at a point again and again.
fn many_with(wish: &str) -> (u32, u32) {
    let mut stage = Stage::start_with(None, "many", &[("TENFOLD_KILL_AT", wish)]);
    let counts = (stage.number(), stage.number());
    stage.root_succeeds();
    stage.nobody_left();
    assert_eq!(counts.0 + counts.1, 24);
    counts
}

// Fault 22.
#[test]
fn nurseries_die_after_forking() {
    let (well, _) = many_with("nursery nursery.forked 5");
    assert!(well >= 10, "{well}");
}

// Fault 22.
#[test]
fn nurseries_die_before_reaping() {
    let (well, _) = many_with("nursery nursery.buried 5");
    assert!(well >= 10, "{well}");
}

// Fault 22.
#[test]
fn nurseries_die_while_sweeping() {
    for point in ["sweep.claimed", "sweep.locks-done", "sweep.done"] {
        let (well, _) = many_with(&format!("nursery {point} 5"));
        assert!(well >= 10, "{point}: {well}");
    }
}

#[test]
fn children_die_before_they_have_told_anybody() {
    assert_eq!(many_with("nursery child.arrived 0"), (0, 24));
}

// Fault 22.
#[test]
fn wardens_die_as_soon_as_they_live() {
    assert_eq!(many_with("nursery warden.started 0"), (24, 0));
}

/// A child whose exit code is told, and which is killed before it exits, has ended all the same.
fn leaving() {
    let child = Process::spawn(
        |(): ()| {
            kill_point::arm(KillPoint::ChildLeaving, 0);
        },
        (),
    );
    child.unwrap().join().unwrap();
    tell("done");
}

#[test]
fn a_child_is_killed_between_its_word_and_its_exit() {
    let mut stage = Stage::start("leaving");
    stage.expect("done");
    stage.root_succeeds();
}

/// Whoever starts the nursery dies before there is one.
fn starter() {
    let starter = Process::builder().start_method(StartMethod::Spawn).spawn(start_nursery, ()).unwrap();
    tell(starter.pid().unwrap());
    assert!(was_killed(starter.join()));
    Process::spawn(nothing, ()).unwrap().join().unwrap();
    tell("done");
    sleep_for_ever(());
}

fn start_nursery((): ()) {
    let mut line = String::new();
    // The test kills the nursery, and says so by closing its pipe.
    while tenfold::active_children().unwrap().is_empty() && line.is_empty() {
        kill_point::arm(KillPoint::NurseryClaimed, 0);
        Process::spawn(nothing, ()).unwrap().join().ok();
        line.clear();
    }
}

#[test]
fn the_starter_of_a_nursery_is_killed() {
    let mut stage = Stage::start("starter");
    stage.number();
    stage::kill(stage.member("tenfold-nursery"));
    stage.expect("done");
    stage.kill_root();
    stage.nobody_left();
}

/// No nursery ever gets as far as serving.
fn hopeless() {
    let error = Process::spawn(nothing, ()).and_then(|child| child.join()).unwrap_err();
    tell(error);
}

// Fault 22.
#[test]
fn a_nursery_that_always_dies_is_one_clear_error() {
    let mut stage = Stage::start_with(None, "hopeless", &[("TENFOLD_KILL_AT", "nursery nursery.starting 0")]);
    let error = stage.line();
    assert!(error.contains("died 3 times before it was ready (signal 9)"), "{error}");
    stage.root_succeeds();
    stage.nobody_left();
}

fn sleeper() {
    Process::spawn(sleep_for_ever, ()).unwrap().pid().unwrap();
    tell("ready");
    sleep_for_ever(());
}

// Faults 11, 22.
#[test]
fn the_warden_dies_while_it_ends_the_family() {
    let mut stage = Stage::start_with(None, "sleeper", &[("TENFOLD_KILL_AT", "nursery warden.ending 0")]);
    stage.expect("ready");
    stage.member("tenfold-warden");
    stage.kill_root();
    stage.nobody_left();
}
