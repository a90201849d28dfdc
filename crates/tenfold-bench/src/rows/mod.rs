//! The rows of the table: what is measured, and for which systems.

mod ipc;
mod large_messages;
mod lock;
mod pool_map;
mod pool_small;
mod process;
mod queue;
mod round_trip;

use crate::cell::Cell;

pub(crate) use ipc::child as ipc_child;

/// Why a cell has no number.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the number of a cell means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things per second.
    PerSecond,
    /// Bytes per second.
    BytesPerSecond,
    /// Seconds per thing.
    Seconds,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        self != Unit::Seconds
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "1/s",
            Unit::BytesPerSecond => "B/s",
            Unit::Seconds => "s",
        }
    }
}

/// One thing that is measured.
pub(crate) struct Row {
    /// For the command line.
    pub(crate) name: &'static str,
    /// For the reader.
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    /// Tenfold first, then its peers.
    pub(crate) cells: &'static [Cell],
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[&Row] = &[
    &queue::ONE_TO_ONE,
    &queue::FOUR_TO_FOUR,
    &round_trip::ROW,
    &large_messages::ROW,
    &process::ROW,
    &pool_small::ROW,
    &pool_map::ROW,
    &lock::UNCONTENDED,
    &lock::CONTENDED,
];

pub(crate) fn find(name: &str) -> Option<&'static Row> {
    ALL.iter().copied().find(|row| row.name == name)
}

/// How many parties the parallel cells use: as many as there are processors.
fn parties() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
