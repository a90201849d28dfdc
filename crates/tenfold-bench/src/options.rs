//! The command line: `--rows`, `--peers`, `--repeat`, `--limit`, `--json`, and the internal forms.

use std::path::PathBuf;
use std::time::Duration;

/// What this process was started for.
pub(crate) enum Command {
    /// To run everything and print the table.
    Run(Options),
    /// To measure one cell.
    Measure { row: String, system: String },
    /// To be the other process of an ipc-channel cell.
    IpcChild { role: String, server: String },
    /// To start and end, for the cost of that.
    Nothing,
}

/// How to run.
pub(crate) struct Options {
    /// Parts of the names of rows; empty for all.
    rows: Vec<String>,
    /// Parts of the names of peers; empty for all.
    peers: Vec<String>,
    /// Measurements a cell.
    pub(crate) repeat: usize,
    /// Time limit of one measurement.
    pub(crate) limit: Duration,
    /// Where the JSON goes.
    pub(crate) json: PathBuf,
}

impl Options {
    pub(crate) fn wants_row(&self, name: &str) -> bool {
        matches(&self.rows, name)
    }

    /// Tenfold itself is always measured.
    pub(crate) fn wants_system(&self, name: &str) -> bool {
        name.starts_with("tenfold") || matches(&self.peers, name)
    }
}

fn matches(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()))
}

impl Command {
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Result<Command, String> {
        let (mut row, mut system, mut ipc, mut server) = (None, None, None, None);
        let mut options = Options {
            rows: Vec::new(),
            peers: Vec::new(),
            repeat: 5,
            limit: Duration::from_secs(60),
            json: PathBuf::from("target/bench-rust.json"),
        };
        let mut args = args;
        while let Some(name) = args.next() {
            if name == "--nothing" {
                return Ok(Command::Nothing);
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name} needs a number, not {value:?}"));
            match name.as_str() {
                "--row" => row = Some(value),
                "--system" => system = Some(value),
                "--ipc-child" => ipc = Some(value),
                "--server" => server = Some(value),
                "--rows" => options.rows = words(&value),
                "--peers" => options.peers = words(&value),
                "--repeat" => options.repeat = number()?.max(1) as usize,
                "--limit" => options.limit = Duration::from_secs(number()?.max(1)),
                "--json" => options.json = PathBuf::from(value),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(match (row, system, ipc, server) {
            (Some(row), Some(system), _, _) => Command::Measure { row, system },
            (_, _, Some(role), Some(server)) => Command::IpcChild { role, server },
            _ => Command::Run(options),
        })
    }
}

fn words(list: &str) -> Vec<String> {
    list.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_string).collect()
}
