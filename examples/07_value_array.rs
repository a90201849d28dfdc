//! 7. A value and an array in shared memory, changed in place by another process.
use tenfold::{Array, Process, Value};

#[expect(clippy::approx_constant, reason = "the tutorial's number")]
fn change((n, a): (Value<f64>, Array<i32>)) -> tenfold::Result<()> {
    *n.lock()? = 3.1415927;
    for x in a.lock()?.iter_mut() {
        *x = -*x;
    }
    Ok(())
}

fn main() -> tenfold::Result<()> {
    let (n, a) = (Value::new(0.0)?, Array::from_iter(0..10)?);
    Process::spawn(change, (n.clone(), a.clone()))?.join()?;
    println!("{}", *n.lock()?);
    println!("{:?}", &*a.lock()?);
    Ok(())
}
