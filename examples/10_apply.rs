//! 10. A pool does one task at a time, each in a process of the pool.
use tenfold::Pool;

fn square(x: i64) -> i64 {
    x * x
}

fn main() -> tenfold::Result<()> {
    let pool = Pool::new(4)?;
    for i in 0..10 {
        println!("{}", pool.apply(square, i)?);
    }
    Ok(())
}
