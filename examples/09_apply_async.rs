//! 9. A pool takes a task now and gives its result later.
use std::time::Duration;

use tenfold::Pool;

fn square(x: i64) -> i64 {
    x * x
}

fn main() -> tenfold::Result<()> {
    let pool = Pool::new(4)?;
    println!("{}", pool.apply_async(square, 10)?.get_timeout(Duration::from_secs(10))?);
    let later = (0..10).map(|i| pool.apply_async(square, i)).collect::<tenfold::Result<Vec<_>>>()?;
    let results =
        later.into_iter().map(|r| r.get_timeout(Duration::from_secs(10))).collect::<tenfold::Result<Vec<_>>>()?;
    println!("{results:?}");
    Ok(())
}
