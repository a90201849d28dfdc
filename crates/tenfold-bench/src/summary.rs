//! From single measurements to medians, spreads and ratios.

use crate::cell;
use crate::options::Options;
use crate::rows::Row;

/// A row of the table, measured.
pub(crate) struct RowResult {
    pub(crate) row: &'static Row,
    pub(crate) systems: Vec<SystemResult>,
}

/// What one system did in it.
pub(crate) struct SystemResult {
    pub(crate) system: &'static str,
    /// In the order of time.
    pub(crate) samples: Vec<f64>,
    /// The last complaint, if a measurement failed.
    pub(crate) error: Option<String>,
}

impl SystemResult {
    /// The middle of the samples.
    pub(crate) fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    /// (largest - smallest) / median.
    pub(crate) fn spread(&self) -> Option<f64> {
        let sorted = self.sorted();
        Some((sorted.last()? - sorted.first()?) / self.median()?)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl RowResult {
    /// Tenfold's speed over this system's: above 1, tenfold is faster, whatever the unit.
    pub(crate) fn ratio(&self, system: &SystemResult) -> Option<f64> {
        let ours = self.systems.iter().find(|s| s.system == "tenfold")?.median()?;
        let theirs = system.median()?;
        Some(if self.row.unit.more_is_better() { ours / theirs } else { theirs / ours })
    }
}

/// Measures all systems of a row in turn, as often as asked for.
pub(crate) fn measure_row(row: &'static Row, options: &Options) -> RowResult {
    let wanted = row.cells.iter().filter(|cell| options.wants_system(cell.system));
    let mut systems: Vec<SystemResult> =
        wanted.map(|cell| SystemResult { system: cell.system, samples: Vec::new(), error: None }).collect();
    for _ in 0..options.repeat {
        for system in systems.iter_mut().filter(|s| s.error.is_none()) {
            match cell::measure_apart(row.name, system.system, options.limit) {
                Ok(sample) => system.samples.push(sample),
                Err(error) => system.error = Some(error),
            }
        }
    }
    RowResult { row, systems }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        let result = |samples: &[f64]| SystemResult { system: "x", samples: samples.to_vec(), error: None };
        assert_eq!(result(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(result(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(result(&[]).median(), None);
        assert_eq!(result(&[1.0, 2.0, 4.0]).spread(), Some(1.5));
    }
}
