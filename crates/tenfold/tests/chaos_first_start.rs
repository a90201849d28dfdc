//! Several threads that start the first processes of a program at the same time.

#[path = "support/stage.rs"]
mod stage;

use std::sync::Barrier;

use stage::{Stage, tell};
use tenfold::Process;

/// Not a test: what the roots run.
#[test]
#[ignore = "run by the other tests as the root of a family"]
fn stage() {
    if stage::wanted().is_some() {
        start_at_once();
    }
}

fn nothing((): ()) {}

const THREADS: usize = 6;

/// Tells how many nurseries there are when all have had their processes.
fn start_at_once() {
    // Who has made the nursery shall be late to say so.
    for _ in 0..THREADS {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..5 {
                    Process::spawn(nothing, ()).unwrap().join().unwrap();
                }
            });
        }
    });
    tell(nurseries());
}

fn nurseries() -> usize {
    let parent = format!(" {} ", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        Some(name.ends_with("(tenfold-nursery") && rest.get(2..)?.starts_with(&parent))
    });
    processes.filter(|is_one| *is_one).count()
}

// Fault 22.
#[test]
fn there_is_one_nursery_for_all_who_need_it_first() {
    for _ in 0..40 {
        let mut stage = Stage::start("start_at_once");
        stage.expect("1");
        stage.root_succeeds();
        stage.nobody_left();
    }
}
