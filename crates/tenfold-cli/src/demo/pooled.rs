//! The same index, by a pool of processes.
//!
//! ```text
//!  portions of files ──read──▶ parts: Dict<(bucket, portion), words and files> ──merge──▶ index: Dict<word, files>
//! ```
//!
//! A task of the first round reads a portion of the files and leaves one part for each bucket of words; a
//! task of the second merges the parts of a bucket. Every insert puts a value that depends on the key alone,
//! so a task that is killed half-way and runs again does no harm.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tenfold::{Dict, Manager, Pool};

use super::Failure;
use super::index::{self, Index};
use super::sources::Sources;

/// Groups of words that are merged in one task.
const BUCKETS: u32 = 32;
/// Bytes of files in a task.
const PORTION: u64 = 512 << 10;

/// The words of one bucket in one portion, with their files.
type Part = Vec<(String, Vec<u32>)>;

/// What the workers share.
#[derive(Clone, Serialize, Deserialize)]
struct Tables {
    parts: Dict<(u32, u32), Part>,
    index: Dict<String, Vec<u32>>,
    /// Which process has begun which portion.
    starts: Dict<(u32, u32), ()>,
}

/// A task of the first round.
#[derive(Serialize, Deserialize)]
struct Portion {
    tables: Tables,
    number: u32,
    first_file: u32,
    files: Vec<PathBuf>,
    bytes: u64,
}

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) index: Dict<String, Vec<u32>>,
    pub(crate) time: Duration,
    pub(crate) tasks: usize,
    /// How often a task of the first round has begun: more often than there are tasks if some ran again.
    pub(crate) starts: usize,
    /// Which worker was killed, and how many tasks were done by then.
    pub(crate) killed: Option<(u32, usize)>,
}

/// Builds the index; with `kill`, kills a worker when half of the files are read.
pub(crate) fn run(sources: &Sources, workers: usize, kill: bool) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let pool = Pool::new(workers)?;
    let manager = Manager::new()?;
    let tables = Tables { parts: manager.dict()?, index: manager.dict()?, starts: manager.dict()? };
    let portions: Vec<Portion> = sources
        .portions(PORTION)
        .into_iter()
        .enumerate()
        .map(|(number, (files, bytes))| Portion {
            tables: tables.clone(),
            number: number as u32,
            first_file: files.start as u32,
            files: sources.files()[files].to_vec(),
            bytes,
        })
        .collect();
    let tasks = portions.len();

    let bar = ProgressBar::new(sources.bytes()).with_style(style()?);
    let (mut killed, mut done) = (None, HashSet::new());
    for portion in pool.options().retries(1).imap_unordered(read, portions)? {
        let (number, bytes) = portion??;
        bar.inc(bytes);
        done.insert(number);
        if kill && killed.is_none() && done.len() >= tasks / 2 {
            killed = kill_one_at_work(&pool, &tables, &done)?.map(|pid| (pid, done.len()));
        }
    }
    let buckets: Vec<_> = (0..BUCKETS).map(|bucket| (tables.clone(), bucket, tasks as u32)).collect();
    for merged in pool.options().retries(1).imap_unordered(merge, buckets)? {
        merged??;
    }
    bar.finish_and_clear();
    let time = start.elapsed();
    Ok(Outcome { index: tables.index, time, tasks, starts: tables.starts.len(), killed })
}

fn style() -> Result<ProgressStyle, Failure> {
    Ok(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}")?)
}

/// Kills a worker that has begun a portion and not ended it, if there is one just now.
fn kill_one_at_work(pool: &Pool, tables: &Tables, done: &HashSet<u32>) -> Result<Option<u32>, Failure> {
    let workers = pool.worker_pids();
    let at_work = |(number, pid): &(u32, u32)| !done.contains(number) && workers.contains(pid);
    let Some((_, pid)) = tables.starts.keys()?.into_iter().find(at_work) else { return Ok(None) };
    let Some(process) = Pid::from_raw(pid.cast_signed()) else { return Ok(None) };
    kill_process(process, Signal::KILL)?;
    Ok(Some(pid))
}

/// First round, in a worker: the words of some files, by bucket. Returns the portion's number and bytes.
fn read(portion: Portion) -> Result<(u32, u64), String> {
    let Portion { tables, number, first_file, files, bytes } = portion;
    let started = tables.starts.insert((number, tenfold::pid()), ());
    started.map_err(|error| error.to_string())?;
    let mut index = Index::new();
    for (file, path) in (first_file..).zip(&files) {
        let text = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        index::add_file(&mut index, file, &text);
    }
    let mut parts = vec![Part::new(); BUCKETS as usize];
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    for (word, files) in index {
        parts[(hasher.hash_one(&word) % u64::from(BUCKETS)) as usize].push((word, files));
    }
    for (bucket, part) in (0..BUCKETS).zip(parts) {
        tables.parts.insert((bucket, number), part).map_err(|error| error.to_string())?;
    }
    Ok((number, bytes))
}

/// Second round, in a worker: the files of all words of a bucket.
fn merge((tables, bucket, portions): (Tables, u32, u32)) -> Result<(), String> {
    let mut merged: HashMap<String, Vec<u32>> = HashMap::new();
    for portion in 0..portions {
        let part = tables.parts.get(&(bucket, portion)).map_err(|error| error.to_string())?;
        for (word, mut files) in part.ok_or("a part is missing")? {
            merged.entry(word).or_default().append(&mut files);
        }
    }
    for (word, files) in merged {
        tables.index.insert(word, files).map_err(|error| error.to_string())?;
    }
    Ok(())
}
