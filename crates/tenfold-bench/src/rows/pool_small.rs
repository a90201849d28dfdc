//! How many tasks a second a pool does when a task is next to nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rayon::prelude::*;
use tenfold::Pool;

use super::{Failure, Row, Unit, parties};
use crate::cell::Cell;
use crate::clock::{now, seconds_since};

pub(crate) const ROW: Row = Row {
    name: "pool-small",
    title: "small tasks of a pool, results collected",
    unit: Unit::PerSecond,
    cells: &[
        Cell { system: "tenfold", measure: tenfold_map },
        Cell { system: "tenfold, imap_unordered", measure: tenfold_imap },
        Cell { system: "tenfold, one apply_async a task", measure: tenfold_apply },
        Cell { system: "rayon, par_iter", measure: rayon_iter },
        Cell { system: "rayon, one spawn a task", measure: rayon_spawn },
        Cell { system: "threads and crossbeam-channel", measure: crossbeam },
        Cell { system: "procspawn, pool", measure: procspawn },
    ],
};

const TASKS: u64 = 1_000_000;

fn task(x: u64) -> u64 {
    x + 1
}

/// Tasks a second, the sum of whose results must be right.
fn measured(tasks: u64, run: impl FnOnce() -> Result<u64, Failure>) -> Result<f64, Failure> {
    let start = now();
    let sum = run()?;
    let time = seconds_since(start);
    if sum != tasks * (tasks + 1) / 2 {
        return Err("the results are wrong".into());
    }
    Ok(tasks as f64 / time)
}

fn tenfold_map() -> Result<f64, Failure> {
    let pool = warm_pool()?;
    measured(TASKS, || Ok(pool.map(task, 0..TASKS)?.iter().sum()))
}

fn tenfold_imap() -> Result<f64, Failure> {
    let pool = warm_pool()?;
    measured(TASKS, || Ok(pool.imap_unordered(task, 0..TASKS)?.sum::<tenfold::Result<u64>>()?))
}

fn tenfold_apply() -> Result<f64, Failure> {
    let pool = warm_pool()?;
    let tasks = TASKS / 5;
    measured(tasks, || {
        let results = (0..tasks).map(|i| pool.apply_async(task, i)).collect::<tenfold::Result<Vec<_>>>()?;
        Ok(results.into_iter().map(|result| result.get()).sum::<tenfold::Result<u64>>()?)
    })
}

/// A pool whose workers are there, as the threads of the others are.
fn warm_pool() -> Result<Pool, Failure> {
    let pool = Pool::new(parties())?;
    pool.map(task, 0..1000)?;
    Ok(pool)
}

fn rayon_pool() -> Result<rayon::ThreadPool, Failure> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(parties()).build()?)
}

fn rayon_iter() -> Result<f64, Failure> {
    let pool = rayon_pool()?;
    measured(TASKS, || {
        let results: Vec<u64> = pool.install(|| (0..TASKS).into_par_iter().map(task).collect());
        Ok(results.iter().sum())
    })
}

fn rayon_spawn() -> Result<f64, Failure> {
    let pool = rayon_pool()?;
    let results: Vec<AtomicU64> = (0..TASKS).map(|_| AtomicU64::new(0)).collect();
    measured(TASKS, || {
        pool.scope(|scope| {
            for (i, result) in (0..TASKS).zip(&results) {
                scope.spawn(move |_| result.store(task(i), Ordering::Relaxed));
            }
        });
        Ok(results.iter().map(|result| result.load(Ordering::Relaxed)).sum())
    })
}

fn crossbeam() -> Result<f64, Failure> {
    let (to_workers, tasks) = crossbeam_channel::unbounded::<u64>();
    let (to_us, results) = crossbeam_channel::unbounded::<u64>();
    for _ in 0..parties() {
        let (tasks, to_us) = (tasks.clone(), to_us.clone());
        thread::spawn(move || tasks.iter().try_for_each(|x| to_us.send(task(x))));
    }
    measured(TASKS, || {
        (0..TASKS).try_for_each(|i| to_workers.send(i))?;
        Ok(results.iter().take(TASKS as usize).sum())
    })
}

/// Each task leaves two files open here until the process ends, so there are few.
fn procspawn() -> Result<f64, Failure> {
    let tasks = TASKS / 2_500;
    let pool = procspawn::Pool::new(parties())?;
    measured(tasks, || {
        let handles: Vec<_> = (0..tasks).map(|i| procspawn::spawn!(in pool, (i) || task(i))).collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.join()?;
        }
        Ok(sum)
    })
}
