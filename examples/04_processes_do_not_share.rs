//! 4. Processes do not share a list: each has its own. (What they share, examples 5 to 8 show.)
use std::sync::Mutex;

use tenfold::Process;

static LIST: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn run(n: u32) {
    let mut list = LIST.lock().unwrap();
    list.push(n);
    println!("{list:?}");
}

fn main() -> tenfold::Result<()> {
    let children = (0..10).map(|n| Process::spawn(run, n)).collect::<tenfold::Result<Vec<_>>>()?;
    for child in children {
        child.join()?;
    }
    println!("parent {:?}", LIST.lock().unwrap());
    Ok(())
}
