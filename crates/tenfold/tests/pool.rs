//! What a pool does when nothing goes wrong, in real processes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tenfold::{Error, Pool, Result, TaskError};

fn square(x: i64) -> i64 {
    x * x
}

fn length(text: String) -> usize {
    text.len()
}

fn shout(text: String) -> String {
    format!("{}!", text.repeat(3))
}

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn whoami(_: u32) -> u32 {
    std::thread::sleep(Duration::from_millis(20));
    std::process::id()
}

// Not inlined, so that the backtrace names it.
#[inline(never)]
fn bomb(x: u32) -> u32 {
    assert!(x != 3, "three is not allowed");
    x
}

#[test]
fn map_keeps_the_order() -> Result<()> {
    let pool = Pool::new(2)?;
    assert_eq!(pool.map(square, [1, 2, 3])?, [1, 4, 9]);
    assert_eq!(pool.map(square, Vec::<i64>::new())?, Vec::<i64>::new());
    assert_eq!(pool.map(square, 0..100_000)?, (0..100_000).map(square).collect::<Vec<_>>());
    let words: Vec<String> = (0..5000).map(|n| "x".repeat(n)).collect();
    assert_eq!(pool.map(length, words.clone())?, (0..5000).collect::<Vec<_>>());
    assert_eq!(pool.map(shout, words[..50].to_vec())?, words[..50].iter().cloned().map(shout).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn large_items_go_both_ways() -> Result<()> {
    let pool = Pool::new(2)?;
    let items: Vec<Vec<u8>> = (0..6_u8).map(|n| vec![n; 3 << 20]).collect();
    let grown = pool.map(
        |mut v: Vec<u8>| {
            v.push(7);
            v
        },
        items.clone(),
    )?;
    for (mut item, grown) in items.into_iter().zip(grown) {
        item.push(7);
        assert!(item == grown);
    }
    Ok(())
}

#[test]
fn closures_tuples_and_options() -> Result<()> {
    let pool = Pool::new(2)?;
    assert_eq!(pool.apply(|x: i64| x + 1, 1)?, 2);
    assert_eq!(pool.map(|(a, b): (i32, i32)| a * b, [(2, 3), (4, 5)])?, [6, 20]);
    assert_eq!(pool.starmap(|a: i32, b: String| format!("{a}{b}"), [(1, "x".to_string())])?, ["1x"]);
    assert_eq!(pool.options().chunk_size(7).map(square, 0..100)?, (0..100).map(square).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn several_processes_work() -> Result<()> {
    let pool = Pool::new(3)?;
    let pids: HashSet<u32> = pool.map(whoami, 0..30)?.into_iter().collect();
    assert!(pids.len() > 1, "{pids:?}");
    assert!(!pids.contains(&std::process::id()));
    Ok(())
}

#[test]
fn imap_in_order_and_out_of_order() -> Result<()> {
    let pool = Pool::new(2)?;
    let ordered: Vec<i64> = pool.imap(square, 0..3000)?.collect::<Result<_>>()?;
    assert_eq!(ordered, (0..3000).map(square).collect::<Vec<_>>());
    let mut any: Vec<i64> = pool.imap_unordered(square, 0..3000)?.collect::<Result<_>>()?;
    any.sort_unstable();
    assert_eq!(any, ordered);
    // The slow one does not hold the quick one back.
    let first = pool.imap_unordered(nap, [2000, 1])?.next();
    assert_eq!(first.transpose()?, Some(1));
    Ok(())
}

#[test]
fn imap_reads_no_further_than_its_buffer() -> Result<()> {
    let pool = Pool::new(2)?;
    let read = std::cell::Cell::new(0);
    let mut results = pool.options().buffer(5).imap(square, (0..).inspect(|_| read.set(read.get() + 1)))?;
    for n in 0..100 {
        assert_eq!(results.next().transpose()?, Some(n * n));
        assert!(read.get() <= n + 1 + 5 + 1, "{} read at {n}", read.get());
    }
    Ok(())
}

#[test]
fn results_later() -> Result<()> {
    let pool = Pool::new(2)?;
    let later = pool.apply_async(nap, 300)?;
    assert!(!later.is_ready());
    assert!(matches!(later.get_timeout(Duration::from_millis(10)), Err(Error::Pool(_))));
    assert!(!later.wait_timeout(Duration::from_millis(1))?);
    assert_eq!(later.get_timeout(Duration::from_secs(10))?, 300);
    let all = pool.map_async(square, 0..10)?;
    assert_eq!(all.get()?, (0..10).map(square).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn callbacks_run_before_the_result_is_ready() -> Result<()> {
    let pool = Pool::new(1)?;
    let (send, receive) = std::sync::mpsc::channel();
    let other = send.clone();
    let good = pool.apply_async(square, 7)?.on_done(move |r| send.send(r.as_ref().ok().copied()).unwrap());
    let bad = pool.apply_async(bomb, 3)?.on_done(move |r| other.send(r.as_ref().ok().map(|n| i64::from(*n))).unwrap());
    assert_eq!(good.get()?, 49);
    assert_eq!(receive.try_recv().unwrap(), Some(49));
    assert!(bad.get().is_err());
    assert_eq!(receive.try_recv().unwrap(), None);
    Ok(())
}

#[test]
fn results_can_be_awaited() -> Result<()> {
    use std::future::IntoFuture;
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let pool = Pool::new(1)?;
    let mut future = std::pin::pin!(pool.apply_async(nap, 100)?.into_future());
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let value = loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => break value?,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(20)),
        }
    };
    assert_eq!(value, 100);
    Ok(())
}

// Fault 18.
#[test]
fn a_panic_is_that_tasks_error() -> Result<()> {
    let pool = Pool::new(2)?;
    let error = pool.map(bomb, 0..6).unwrap_err();
    let Error::Task(TaskError::Panicked { index, message, backtrace }) = error else { panic!("{error:?}") };
    assert_eq!(index, 3);
    assert!(message.contains("three is not allowed") && message.contains("pool.rs"), "{message}");
    assert!(backtrace.contains("bomb"), "{backtrace}");
    let results: Vec<Result<u32>> = pool.imap(bomb, 0..6)?.collect();
    let good: Vec<u32> = results.into_iter().flatten().collect();
    assert_eq!(good, [0, 1, 2, 4, 5]);
    Ok(())
}

fn prepare(text: String) -> Result<()> {
    // SAFETY-free way to leave a mark in the process: its working directory.
    std::env::set_current_dir(text).map_err(|e| Error::InvalidArgument(e.to_string()))
}

fn directory(_: ()) -> String {
    std::env::current_dir().unwrap().display().to_string()
}

#[test]
fn initializer_and_replacement() -> Result<()> {
    let pool = Pool::builder().workers(2).initializer(prepare, "/".to_string()).max_tasks_per_child(3).build()?;
    assert_eq!(pool.map(directory, vec![(); 20])?, vec!["/"; 20]);
    let pids: HashSet<u32> = pool.map(whoami, 0..12)?.into_iter().collect();
    assert!(pids.len() >= 4, "{pids:?}");
    Ok(())
}

// Fault 6.
#[test]
fn a_failing_initializer_is_one_clear_error() -> Result<()> {
    let pool = Pool::builder().workers(4).initializer(prepare, "/no/such/folder".to_string()).build()?;
    let error = pool.map(directory, vec![(); 3]).unwrap_err().to_string();
    assert!(error.contains("initializer") && error.contains("No such file"), "{error}");
    let again = pool.apply(directory, ()).unwrap_err().to_string();
    assert!(again.contains("initializer"), "{again}");
    Ok(())
}

// Faults 20, 21.
#[test]
fn close_finishes_and_terminate_does_not() -> Result<()> {
    let pool = Pool::new(2)?;
    let later = pool.map_async(nap, vec![20; 20])?;
    pool.close();
    assert!(pool.apply(square, 1).is_err());
    pool.join()?;
    assert_eq!(later.get()?, vec![20; 20]);

    let pool = Pool::new(2)?;
    let later = pool.map_async(nap, vec![60_000; 4])?;
    pool.terminate();
    pool.join()?;
    assert!(later.get().is_err());
    Ok(())
}

#[test]
fn cancelling() -> Result<()> {
    let pool = Pool::new(1)?;
    let running = pool.apply_async(nap, 60_000)?;
    let waiting = pool.apply_async(nap, 60_000)?;
    let after = pool.apply_async(square, 5)?;
    std::thread::sleep(Duration::from_millis(200));
    assert!(waiting.cancel()?);
    assert!(running.cancel()?);
    assert!(matches!(running.get(), Err(Error::Task(TaskError::Cancelled { .. }))));
    assert!(matches!(waiting.get(), Err(Error::Task(TaskError::Cancelled { .. }))));
    assert_eq!(after.get()?, 25);
    Ok(())
}

#[test]
fn a_task_that_takes_too_long_is_killed() -> Result<()> {
    let pool = Pool::new(2)?;
    let start = Instant::now();
    let results: Vec<Result<u64>> =
        pool.options().timeout(Duration::from_millis(300)).imap(nap, [1, 60_000, 2])?.collect();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(matches!(results[1], Err(Error::Task(TaskError::TimedOut { index: 1 }))), "{results:?}");
    assert!(matches!((&results[0], &results[2]), (Ok(1), Ok(2))));
    assert_eq!(pool.apply(square, 3)?, 9);
    Ok(())
}

fn nested(x: i64) -> i64 {
    let pool = Pool::new(2).unwrap();
    pool.map(square, [x, x + 1]).unwrap().into_iter().sum()
}

// Fault 17.
#[test]
fn pools_in_workers_of_pools() -> Result<()> {
    let pool = Pool::new(2)?;
    assert_eq!(pool.map(nested, [1, 2])?, [5, 13]);
    Ok(())
}

// Fault 21.
#[test]
fn a_pool_needs_workers() {
    assert!(matches!(Pool::new(0), Err(Error::InvalidArgument(_))));
    assert!(matches!(Pool::new(100_000), Err(Error::InvalidArgument(_))));
}

// Fault 5.
#[test]
fn what_cannot_travel_is_an_error_and_the_pool_goes_on() -> Result<()> {
    #[derive(serde::Serialize, serde::Deserialize, Debug)]
    struct Picky(#[serde(deserialize_with = "refuse")] u8);
    fn refuse<'de, D: serde::Deserializer<'de>>(_: D) -> std::result::Result<u8, D::Error> {
        Err(serde::de::Error::custom("not today"))
    }
    let pool = Pool::new(1)?;
    let error = pool.apply(|p: Picky| p.0, Picky(1)).unwrap_err().to_string();
    assert!(error.contains("Picky"), "{error}");
    let error = pool.apply(Picky, 1).unwrap_err().to_string();
    assert!(error.contains("Picky"), "{error}");
    assert_eq!(pool.apply(square, 2)?, 4);
    Ok(())
}
