//! 5. A queue carries values of any serde type from process to process.
use tenfold::{Process, Queue};

type Item = (i64, Option<i64>, String);

fn produce((q, n): (Queue<Item>, Option<i64>)) -> tenfold::Result<()> {
    q.put((42, n, "hello".to_string()))?;
    Ok(())
}

fn main() -> tenfold::Result<()> {
    let q = Queue::new()?;
    let child = Process::spawn(produce, (q.clone(), None))?;
    let (number, nothing, text) = q.get()?;
    println!("[{number}, {nothing:?}, '{text}']");
    child.join()
}
