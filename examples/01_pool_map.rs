//! 1. A pool of processes maps a function over a list.
use tenfold::Pool;

fn square(x: i64) -> i64 {
    x * x
}

fn main() -> tenfold::Result<()> {
    println!("{:?}", Pool::new(5)?.map(square, [1, 2, 3])?);
    Ok(())
}
