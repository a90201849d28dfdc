//! How many items a second `map(x * x)` does over a hundred million numbers, results in a vector.

use rayon::prelude::*;
use tenfold::Pool;

use super::{Failure, Row, Unit, parties};
use crate::cell::Cell;
use crate::clock::{now, seconds_since};

pub(crate) const ROW: Row = Row {
    name: "pool-map",
    title: "map of x * x over 10^8 numbers",
    unit: Unit::PerSecond,
    cells: &[
        Cell { system: "tenfold", measure: tenfold },
        Cell { system: "rayon", measure: rayon },
        Cell { system: "one thread, no pool", measure: alone },
    ],
};

const ITEMS: u64 = 100_000_000;

fn square(x: u64) -> u64 {
    x * x
}

/// Items a second, after a look at some results.
fn measured(run: impl FnOnce() -> Result<Vec<u64>, Failure>) -> Result<f64, Failure> {
    let start = now();
    let results = run()?;
    let time = seconds_since(start);
    let right = (0..ITEMS).step_by(9_999_991).all(|x| results.get(x as usize) == Some(&square(x)));
    if !right || results.len() as u64 != ITEMS {
        return Err("the results are wrong".into());
    }
    Ok(ITEMS as f64 / time)
}

fn tenfold() -> Result<f64, Failure> {
    let pool = Pool::new(parties())?;
    pool.map(square, 0..1000)?;
    measured(|| Ok(pool.map(square, 0..ITEMS)?))
}

fn rayon() -> Result<f64, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(parties()).build()?;
    measured(|| Ok(pool.install(|| (0..ITEMS).into_par_iter().map(square).collect())))
}

fn alone() -> Result<f64, Failure> {
    measured(|| Ok((0..ITEMS).map(square).collect()))
}
