//! The table and the JSON.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::options::Options;
use crate::rows::Unit;
use crate::summary::RowResult;

pub(crate) fn print_head(options: &Options) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {} interleaved runs a cell, each in a fresh process", options.repeat);
    println!("ratio: tenfold's speed over the peer's; above 1, tenfold is faster\n");
    println!("{:<44} {:>14} {:>8} {:>8}", "", "median", "spread", "ratio");
}

pub(crate) fn print_row(result: &RowResult) {
    println!("{} ({})", result.row.title, result.row.name);
    for system in &result.systems {
        let name = system.system;
        let Some((median, spread)) = system.median().zip(system.spread()) else {
            println!("  {name:<42} {}", system.error.as_deref().unwrap_or("not measured"));
            continue;
        };
        let ratio = match result.ratio(system) {
            Some(ratio) if name != "tenfold" => format!("{ratio:.2}"),
            _ => String::new(),
        };
        let median = show(result.row.unit, median);
        println!("  {name:<42} {median:>14} {:>6.0} % {ratio:>8}", spread * 100.0);
        if let Some(error) = &system.error {
            println!("    then failed: {error}");
        }
    }
    // Rows appear as they are done; a closed pipe is not worth a panic.
    let _ = std::io::stdout().flush();
}

/// A figure with three digits and the fitting prefix.
fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => scaled(value, &[(1e9, "G/s"), (1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")]),
        Unit::BytesPerSecond => scaled(value, &[(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")]),
        Unit::Seconds => scaled(value, &[(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")]),
    }
}

fn scaled(value: f64, scales: &[(f64, &str)]) -> String {
    let scale = scales.iter().find(|(size, _)| value >= *size).or(scales.last());
    let (size, name) = scale.copied().unwrap_or((1.0, ""));
    let value = value / size;
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {name}")
}

#[derive(Serialize)]
struct Report<'a> {
    cores: usize,
    repeat: usize,
    rows: Vec<RowReport<'a>>,
}

#[derive(Serialize)]
struct RowReport<'a> {
    name: &'a str,
    title: &'a str,
    unit: &'a str,
    more_is_better: bool,
    systems: Vec<SystemReport<'a>>,
}

#[derive(Serialize)]
struct SystemReport<'a> {
    system: &'a str,
    median: Option<f64>,
    spread: Option<f64>,
    ratio: Option<f64>,
    samples: &'a [f64],
    error: Option<&'a str>,
}

pub(crate) fn write_json(path: &Path, results: &[RowResult], options: &Options) -> Result<(), String> {
    let rows = results.iter().map(|result| RowReport {
        name: result.row.name,
        title: result.row.title,
        unit: result.row.unit.name(),
        more_is_better: result.row.unit.more_is_better(),
        systems: result
            .systems
            .iter()
            .map(|system| SystemReport {
                system: system.system,
                median: system.median(),
                spread: system.spread(),
                ratio: result.ratio(system).filter(|_| system.system != "tenfold"),
                samples: &system.samples,
                error: system.error.as_deref(),
            })
            .collect(),
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report { cores, repeat: options.repeat, rows: rows.collect() };
    let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    fs::write(path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(show(Unit::PerSecond, 12_345_678.0), "12.3 M/s");
        assert_eq!(show(Unit::Seconds, 0.000_000_019_9), "19.9 ns");
        assert_eq!(show(Unit::BytesPerSecond, 5.43e9), "5.43 GB/s");
        assert_eq!(show(Unit::Seconds, 0.000_000_000_4), "0.40 ns");
    }
}
