//! What the compiler says to those who pass a function that cannot travel.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The builds of this crate beside this test, the newest first.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = files
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("libtenfold-") && name.ends_with(".rlib")
        })
        .collect();
    found.sort_by_key(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok());
    found.reverse();
    found
}

/// Compiles a program's `main`, to machine code, since captures are seen no earlier; what the compiler
/// said, if it refused.
fn compile(body: &str) -> Result<(), String> {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let folder = std::env::temp_dir().join(format!("tenfold-compile-{}-{:x}", std::process::id(), hash(body)));
    std::fs::create_dir(&folder).unwrap();
    let source = folder.join("program.rs");
    let program = "use tenfold::Process;\nfn main() -> tenfold::Result<()> { BODY; Ok(()) }\n".replace("BODY", body);
    std::fs::write(&source, program).unwrap();
    let mut said = String::new();
    let mut refused = true;
    for library in libraries(&deps) {
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
            .args(["--edition=2024", "--crate-type=bin", "--emit=obj", "-Cdebuginfo=0"])
            .arg(&source)
            .arg("--out-dir")
            .arg(&folder)
            .arg("-L")
            .arg(format!("dependency={}", deps.display()))
            .arg("--extern")
            .arg(format!("tenfold={}", library.display()))
            .output()
            .unwrap();
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        refused = !output.status.success();
        // An old build, of which a part is gone.
        let stale = ["E0460", "E0461", "E0462", "E0463", "E0514"].iter().any(|code| said.contains(code));
        if !stale {
            break;
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    if refused { Err(said) } else { Ok(()) }
}

fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn what_captures_nothing_compiles() {
    compile("Process::spawn(|x: i64| println!(\"{x}\"), 5)?").unwrap();
}

#[test]
fn a_capturing_closure_is_refused_with_advice() {
    let said = compile("let factor = 3; Process::spawn(move |x: i64| println!(\"{}\", factor * x), 5)?").unwrap_err();
    assert!(said.contains("the function captures variables"), "{said}");
    assert!(said.contains("pass them as arguments"), "{said}");
}

#[test]
fn a_function_pointer_is_refused_too() {
    let said = compile("let f: fn(i64) = |_| (); Process::spawn(f, 5)?").unwrap_err();
    assert!(said.contains("pass them as arguments"), "{said}");
}

#[test]
fn a_result_has_no_way_back_and_the_compiler_says_which_way_to_go() {
    let said = compile("Process::spawn(|x: i64| x * x, 5)?").unwrap_err();
    assert!(said.contains("the function of a process returns nothing or a `Result<(), E>`, not `i64`"), "{said}");
    assert!(said.contains("Pool::apply"), "{said}");
}
