//! How long it takes to lock and unlock, alone and against others.

use std::sync::{Arc, Barrier};
use std::{hint, thread};

use tenfold::{List, Lock, Process, Value};

use super::{Failure, Row, Unit};
use crate::cell::Cell;
use crate::clock::{now, seconds_since};

pub(crate) const UNCONTENDED: Row = Row {
    name: "lock",
    title: "lock and unlock, uncontended",
    unit: Unit::Seconds,
    cells: &[
        Cell { system: "tenfold", measure: || Ok(tenfold_alone()?) },
        Cell { system: "tenfold, a Value", measure: || Ok(tenfold_value_alone()?) },
        Cell { system: "parking_lot::Mutex", measure: || alone(&parking_lot::Mutex::new(0), |m| *m.lock() += 1) },
        Cell { system: "std::sync::Mutex", measure: || alone(&std::sync::Mutex::new(0), add_std) },
    ],
};

pub(crate) const CONTENDED: Row = Row {
    name: "lock-contended",
    title: "lock, add 1, unlock, 4 at once",
    unit: Unit::Seconds,
    cells: &[
        Cell { system: "tenfold", measure: tenfold_contended },
        Cell {
            system: "parking_lot::Mutex (threads)",
            measure: || threads(parking_lot::Mutex::new(0), |m| *m.lock() += 1, |m| *m.lock()),
        },
        Cell {
            system: "std::sync::Mutex (threads)",
            measure: || threads(std::sync::Mutex::new(0), add_std, |m| m.lock().map_or(0, |n| *n)),
        },
    ],
};

const PARTIES: u64 = 4;
/// Rounds when alone.
const ROUNDS: u64 = 10_000_000;
/// Rounds of each party when there are several.
const CONTENDED_ROUNDS: u64 = 500_000;

fn add_std(mutex: &std::sync::Mutex<u64>) {
    if let Ok(mut number) = mutex.lock() {
        *number += 1;
    }
}

fn alone<M>(mutex: &M, add: impl Fn(&M)) -> Result<f64, Failure> {
    let start = now();
    for _ in 0..ROUNDS {
        add(hint::black_box(mutex));
    }
    Ok(seconds_since(start) / ROUNDS as f64)
}

fn tenfold_alone() -> tenfold::Result<f64> {
    let lock = Lock::new()?;
    let mut number = 0_u64;
    let start = now();
    for _ in 0..ROUNDS {
        let _held = lock.lock()?;
        number = hint::black_box(number + 1);
    }
    Ok(seconds_since(start) / ROUNDS as f64)
}

fn tenfold_value_alone() -> tenfold::Result<f64> {
    let number = Value::new(0_u64)?;
    let start = now();
    for _ in 0..ROUNDS {
        *number.lock()? += 1;
    }
    Ok(seconds_since(start) / ROUNDS as f64)
}

type Span = (u64, u64);

fn add_apart((number, barrier, spans): (Value<u64>, tenfold::Barrier, List<Span>)) -> tenfold::Result<()> {
    barrier.wait()?;
    let start = now();
    for _ in 0..CONTENDED_ROUNDS {
        *number.lock()? += 1;
    }
    spans.push((start, now()))
}

fn tenfold_contended() -> Result<f64, Failure> {
    let (number, barrier, spans) = (Value::new(0)?, tenfold::Barrier::new(PARTIES)?, List::new()?);
    let parties = (0..PARTIES)
        .map(|_| Process::spawn(add_apart, (number.clone(), barrier.clone(), spans.clone())))
        .collect::<tenfold::Result<Vec<_>>>()?;
    for party in parties {
        party.join()?;
    }
    let total = number.get()?;
    per_round(spans.to_vec()?, total)
}

/// Seconds a round, all parties together, if none of their additions was lost.
fn per_round(spans: impl IntoIterator<Item = Span>, total: u64) -> Result<f64, Failure> {
    let (first, last) = spans.into_iter().fold((u64::MAX, 0), |all, one| (all.0.min(one.0), all.1.max(one.1)));
    if total != PARTIES * CONTENDED_ROUNDS {
        return Err("an addition was lost".into());
    }
    Ok((last - first) as f64 / 1e9 / total as f64)
}

fn threads<M: Send + Sync + 'static>(mutex: M, add: fn(&M), total: impl Fn(&M) -> u64) -> Result<f64, Failure> {
    let shared = Arc::new((mutex, Barrier::new(PARTIES as usize)));
    let parties: Vec<_> = (0..PARTIES)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.wait();
                let start = now();
                (0..CONTENDED_ROUNDS).for_each(|_| add(&shared.0));
                (start, now())
            })
        })
        .collect();
    let mut spans = Vec::new();
    for party in parties {
        spans.push(party.join().map_err(|_| "a party has panicked")?);
    }
    per_round(spans, total(&shared.0))
}
