//! The ten examples print what they say they print, leave nothing on stderr and end well.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with the built examples. A test alone does not make cargo build them.
fn built_examples() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let this = std::env::current_exe().unwrap();
        let profile_folder = this.ancestors().nth(2).unwrap();
        let profile = match profile_folder.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => "dev",
            other => other,
        };
        let target_folder = profile_folder.parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "tenfold", "--examples", "--profile", profile, "--target-dir"])
            .arg(target_folder)
            .status()
            .unwrap();
        assert!(built.success(), "the examples do not build");
        profile_folder.join("examples")
    })
}

/// Runs an example and returns its standard output.
fn output_of(name: &str) -> String {
    let output = Command::new(built_examples().join(name)).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}: {errors}", output.status);
    assert_eq!(errors, "", "{name} wrote to stderr");
    String::from_utf8(output.stdout).unwrap()
}

fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn lines_of(items: impl Iterator<Item = String>) -> String {
    items.map(|item| item + "\n").collect()
}

#[test]
fn pool_map() {
    assert_eq!(output_of("01_pool_map"), "[1, 4, 9]\n");
}

#[test]
fn process_info() {
    let output = output_of("02_process_info");
    let lines: Vec<&str> = output.lines().collect();
    let number = |index: usize, before: &str| -> u32 {
        lines[index].strip_prefix(before).and_then(|rest| rest.parse().ok()).unwrap_or_else(|| panic!("{output}"))
    };
    assert_eq!(lines.len(), 9, "{output}");
    assert_eq!((lines[0], lines[4], lines[8]), ("main line", "function hello", "hello bob"));
    assert!(lines[1].starts_with("module name: ") && lines[1] == lines[5], "{output}");
    let (main, child) = (number(3, "process id: "), number(7, "process id: "));
    assert_ne!(main, child);
    assert_eq!(number(2, "parent process: "), std::process::id());
    assert_eq!(number(6, "parent process: "), main);
}

#[test]
fn threads_share() {
    let lists = (1..=10).chain([10]).map(|len| format!("{:?}", Vec::from_iter(0..len)));
    assert_eq!(output_of("03_threads_share"), lines_of(lists));
}

#[test]
fn processes_do_not_share() {
    let output = output_of("04_processes_do_not_share");
    assert_eq!(output.lines().last(), Some("parent []"));
    let mut expected: Vec<String> = (0..10).map(|n| format!("[{n}]")).collect();
    expected.push("parent []".to_string());
    assert_eq!(sorted_lines(&output), expected);
}

#[test]
fn queue() {
    assert_eq!(output_of("05_queue"), "[42, None, 'hello']\n");
}

#[test]
fn lock() {
    let expected: Vec<String> = (0..10).map(|i| format!("hello world {i}")).collect();
    assert_eq!(sorted_lines(&output_of("06_lock")), expected);
}

#[test]
fn value_and_array() {
    assert_eq!(output_of("07_value_array"), "3.1415927\n[0, -1, -2, -3, -4, -5, -6, -7, -8, -9]\n");
}

#[test]
fn manager() {
    assert_eq!(output_of("08_manager"), "{1: '1', '2': 2, 0.25: None}\n[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]\n");
}

#[test]
fn apply_async() {
    assert_eq!(output_of("09_apply_async"), "100\n[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n");
}

#[test]
fn apply() {
    assert_eq!(output_of("10_apply"), lines_of((0..10).map(|i| (i * i).to_string())));
}
