//! 6. A lock lets one process print at a time.
use tenfold::{Lock, Process};

fn say((lock, i): (Lock, u32)) -> tenfold::Result<()> {
    let _held = lock.lock()?;
    println!("hello world {i}");
    Ok(())
}

fn main() -> tenfold::Result<()> {
    let lock = Lock::new()?;
    let children = (0..10).map(|i| Process::spawn(say, (lock.clone(), i))).collect::<tenfold::Result<Vec<_>>>()?;
    for child in children {
        child.join()?;
    }
    Ok(())
}
