//! Which files the demo reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Failure;

/// The source files below some folders.
pub(crate) struct Sources {
    place: String,
    files: Vec<PathBuf>,
    /// Bytes of each.
    lengths: Vec<u64>,
}

impl Sources {
    /// All text-like files below `folder`.
    pub(crate) fn below(folder: &Path) -> Result<Sources, Failure> {
        let place = folder.display().to_string();
        Sources::collect(place, vec![folder.to_path_buf()], is_text)
    }

    /// The Rust files of the crates that ./Cargo.lock names and cargo has fetched.
    pub(crate) fn of_dependencies() -> Result<Sources, Failure> {
        let lock = fs::read_to_string("Cargo.lock")
            .map_err(|error| format!("cannot read ./Cargo.lock ({error}); name a folder: make demo DIR=FOLDER"))?;
        let mut crates = Vec::new();
        for registry in fs::read_dir(cargo_home()?.join("registry/src"))
            .map_err(|error| format!("cargo has fetched no sources ({error}); name a folder: make demo DIR=FOLDER"))?
        {
            let registry = registry?.path();
            crates.extend(packages(&lock).map(|package| registry.join(package)).filter(|folder| folder.is_dir()));
        }
        let place = format!("{} crates that Cargo.lock names", crates.len());
        Sources::collect(place, crates, |path| path.extension().is_some_and(|e| e == "rs"))
    }

    fn collect(place: String, folders: Vec<PathBuf>, wanted: fn(&Path) -> bool) -> Result<Sources, Failure> {
        let mut files = Vec::new();
        for folder in folders {
            walk(&folder, wanted, &mut files)?;
        }
        // The same order, and so the same numbers, in every run.
        files.sort_unstable();
        if files.is_empty() {
            return Err(format!("no source files in {place}; name another folder: make demo DIR=FOLDER").into());
        }
        let (files, lengths) = files.into_iter().unzip();
        Ok(Sources { place, files, lengths })
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lengths.iter().sum()
    }

    /// A file's last parts, for people.
    pub(crate) fn name(&self, file: u32) -> String {
        let Some(path) = self.files.get(file as usize) else { return String::new() };
        let parts: Vec<_> = path.iter().collect();
        parts[parts.len().saturating_sub(3)..].iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
    }

    /// Runs of neighbouring files of about `bytes` each, as ranges, with their bytes.
    pub(crate) fn portions(&self, bytes: u64) -> Vec<(std::ops::Range<usize>, u64)> {
        let mut portions = Vec::new();
        let (mut start, mut sum) = (0, 0);
        for (index, length) in self.lengths.iter().enumerate() {
            sum += length;
            if sum >= bytes || index + 1 == self.lengths.len() {
                portions.push((start..index + 1, sum));
                (start, sum) = (index + 1, 0);
            }
        }
        portions
    }
}

fn cargo_home() -> Result<PathBuf, Failure> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home =
        std::env::var_os("HOME").ok_or("neither CARGO_HOME nor HOME is set; name a folder: make demo DIR=FOLDER")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

/// The names of the folders of the packages in a lock file.
fn packages(lock: &str) -> impl Iterator<Item = String> {
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_string());
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines
        .windows(2)
        .filter_map(move |pair| Some(format!("{}-{}", value(pair[0], "name = ")?, value(pair[1], "version = ")?)));
    pairs.collect::<Vec<_>>().into_iter()
}

fn is_text(path: &Path) -> bool {
    const TEXT: &[&str] = &[
        "c", "cc", "cpp", "go", "h", "hpp", "html", "java", "js", "json", "md", "py", "rb", "rs", "rst", "sh", "toml",
        "ts", "txt", "yaml", "yml",
    ];
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| TEXT.contains(&e))
}

fn walk(folder: &Path, wanted: fn(&Path) -> bool, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            walk(&path, wanted, files)?;
        } else if kind.is_file() && wanted(&path) {
            files.push((path, entry.metadata()?.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_are_understood() {
        let lock = "[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nsource = \"x\"\n\n[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n";
        assert_eq!(packages(lock).collect::<Vec<_>>(), ["libc-0.2.1", "own-1.0.0"]);
    }

    #[test]
    fn portions_cover_all_files_once() {
        let files = (0..5).map(|i| PathBuf::from(i.to_string())).collect();
        let sources = Sources { place: String::new(), files, lengths: vec![5, 1, 1, 9, 2] };
        assert_eq!(sources.portions(6), [(0..2, 6), (2..4, 10), (4..5, 2)]);
    }
}
