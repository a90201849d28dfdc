//! `tenfold demo`: an inverted index of real source files (for each word, the files it is in), built
//! three times: by one process alone, by a pool, and by a pool one of whose workers is killed half-way.

mod index;
mod pooled;
mod sources;

use std::path::Path;
use std::time::{Duration, Instant};

use index::Index;
use pooled::Outcome;
use sources::Sources;

/// Anything that ends the demo early.
type Failure = Box<dyn std::error::Error>;

/// Runs the demo and prints what it found.
pub(crate) fn run(folder: Option<&Path>, workers: Option<usize>) -> Result<(), Failure> {
    let workers = match workers {
        Some(workers) => workers,
        None => std::thread::available_parallelism()?.get(),
    };
    let sources = match folder {
        Some(folder) => Sources::below(folder)?,
        None => Sources::of_dependencies()?,
    };
    let megabytes = sources.bytes() as f64 / 1e6;
    println!("{} files, {megabytes:.1} MB in {}", sources.files().len(), sources.place());

    let start = Instant::now();
    let alone = index::of_files(sources.files())?;
    let alone_time = start.elapsed();
    println!("\n{:<46} {:>8} {:>10}", "", "time", "speed");
    print_run("one process, no tenfold", alone_time, megabytes);

    let calm = pooled::run(&sources, workers, false)?;
    print_run(&format!("a pool of {workers} processes"), calm.time, megabytes);
    let disturbed = pooled::run(&sources, workers, true)?;
    print_run("the same, a worker killed half-way", disturbed.time, megabytes);

    println!("\nspeed-up over one process: {:.2}", alone_time.as_secs_f64() / calm.time.as_secs_f64());
    if let Some((pid, done)) = disturbed.killed {
        let again = disturbed.starts - disturbed.tasks;
        let tasks = disturbed.tasks;
        println!("worker {pid} got SIGKILL after {done} of {tasks} tasks; {again} task(s) began a second time");
    }
    describe(&alone, &sources);
    for (name, outcome) in [("the pool", &calm), ("the pool with the killed worker", &disturbed)] {
        compare(name, outcome, &alone)?;
    }
    println!("all three indexes are identical");
    Ok(())
}

fn print_run(name: &str, time: Duration, megabytes: f64) {
    println!("{name:<46} {:>6.2} s {:>5.0} MB/s", time.as_secs_f64(), megabytes / time.as_secs_f64());
}

/// What the index knows, so that one can see that it is one.
fn describe(index: &Index, sources: &Sources) {
    let places: usize = index.values().map(Vec::len).sum();
    println!("the index: {} words, {places} pairs of word and file; for instance", index.len());
    for word in ["unsafe", "mmap", "futex"] {
        let files = index.get(word).map_or(&[][..], Vec::as_slice);
        let first = files.first().map(|file| sources.name(*file)).unwrap_or_default();
        println!("  {word:<8} in {:>5} files, first {first}", files.len());
    }
}

fn compare(name: &str, outcome: &Outcome, expected: &Index) -> Result<(), Failure> {
    let items = outcome.index.items()?;
    let wrong = items.iter().find(|(word, files)| expected.get(word) != Some(files));
    match wrong {
        Some((word, _)) => Err(format!("{name} has other files for the word {word:?}").into()),
        None if items.len() != expected.len() => {
            Err(format!("{name} has {} words instead of {}", items.len(), expected.len()).into())
        }
        None => Ok(()),
    }
}
