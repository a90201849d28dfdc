//! What a pool does when its workers die.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tenfold::{Error, Event, Pool, Result, TaskError, Value};

fn kill(pid: u32) {
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
}

fn suicide_at_three(x: u32) -> u32 {
    if x == 3 {
        kill(std::process::id());
        std::thread::sleep(Duration::from_secs(60));
    }
    x * 2
}

fn exit_at_three(x: u32) -> u32 {
    if x == 3 {
        std::process::exit(3);
    }
    x * 2
}

fn abort_at_three(x: u32) -> u32 {
    if x == 3 {
        std::process::abort();
    }
    x * 2
}

fn overflow_at_three(x: u32) -> u32 {
    fn deep(n: u64) -> u64 {
        let room = std::hint::black_box([n; 512]);
        if n == u64::MAX { 0 } else { deep(n + 1) + room[7] }
    }
    if x == 3 { deep(0) as u32 } else { x * 2 }
}

/// The one that dies fails, the others do not, and the pool goes on.
macro_rules! dies {
    ($name:ident, $function:ident, $text:literal) => {
        // Faults 1, 3.
        #[test]
        fn $name() -> Result<()> {
            let pool = Pool::new(2)?;
            for _ in 0..3 {
                let error = pool.map($function, 0..40).unwrap_err();
                let Error::Task(TaskError::WorkerDied { index, .. }) = &error else { panic!("{error:?}") };
                assert_eq!(*index, 3);
                assert!(error.to_string().contains($text), "{error}");
                let results: Vec<Result<u32>> = pool.imap($function, 0..40)?.collect();
                assert_eq!(results.len(), 40);
                for (index, result) in results.into_iter().enumerate() {
                    match result {
                        Ok(value) => assert_eq!(value, index as u32 * 2),
                        Err(Error::Task(TaskError::WorkerDied { .. })) => assert_eq!(index, 3),
                        Err(error) => panic!("{error:?}"),
                    }
                }
                assert!(pool.apply($function, 3).is_err());
                assert_eq!(pool.apply($function, 4)?, 8);
            }
            Ok(())
        }
    };
}

dies!(killed, suicide_at_three, "signal 9");
dies!(exited, exit_at_three, "code 3");
dies!(aborted, abort_at_three, "SIGABRT");
dies!(overflowed, overflow_at_three, "SIGSEGV");

// Fault 2.
#[test]
fn a_death_is_the_one_result_s_however_it_was_asked_for() -> Result<()> {
    let pool = Pool::new(2)?;
    let died = |result: &Result<u32>| matches!(result, Err(Error::Task(TaskError::WorkerDied { .. })));
    let (send, told) = std::sync::mpsc::channel();
    let one = pool.apply_async(suicide_at_three, 3)?.on_done(move |result| send.send(died(result)).unwrap());
    assert!(died(&one.get()));
    assert!(told.recv_timeout(Duration::from_secs(20)).unwrap());

    let error = pool.map_async(suicide_at_three, 0..10)?.get().unwrap_err();
    assert!(matches!(error, Error::Task(TaskError::WorkerDied { index: 3, .. })), "{error:?}");

    let results: Vec<Result<u32>> = pool.imap_unordered(suicide_at_three, 0..10)?.collect();
    assert_eq!(results.iter().filter(|result| died(result)).count(), 1);
    let mut values: Vec<u32> = results.into_iter().flatten().collect();
    values.sort_unstable();
    assert_eq!(values, (0..10).filter(|n| *n != 3).map(|n| n * 2).collect::<Vec<_>>());
    Ok(())
}

fn first_try_dies(path: String) -> u32 {
    if std::fs::remove_file(&path).is_ok() {
        kill(std::process::id());
        std::thread::sleep(Duration::from_secs(60));
    }
    7
}

// Fault 1.
#[test]
fn a_retried_task_succeeds() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tenfold-retry-{}", std::process::id()));
    let pool = Pool::new(2)?;
    for _ in 0..3 {
        std::fs::write(&path, "x").unwrap();
        assert_eq!(pool.options().retries(1).apply(first_try_dies, path.display().to_string())?, 7);
        std::fs::write(&path, "x").unwrap();
        let all = pool.options().retries(1).map(first_try_dies, vec![path.display().to_string(); 50])?;
        assert_eq!(all, vec![7; 50]);
    }
    Ok(())
}

fn slow_square(x: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(200));
    x * x
}

// Fault 1.
#[test]
fn a_map_survives_random_kills_with_retries() -> Result<()> {
    let pool = Pool::new(4)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                let pids = pool.worker_pids();
                if let Some(pid) = pids.get(turn % pids.len().max(1)) {
                    kill(*pid);
                }
                turn += 1;
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        let result = pool.options().retries(200).map(slow_square, 0..10_000);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(result.unwrap(), (0..10_000).map(|x| x * x).collect::<Vec<_>>());
    });
    Ok(())
}

// Fault 19.
#[test]
fn idle_workers_are_replaced() -> Result<()> {
    let pool = Pool::new(3)?;
    assert_eq!(pool.map(slow_square, 0..10)?.len(), 10);
    for _ in 0..5 {
        for pid in pool.worker_pids() {
            kill(pid);
        }
        assert_eq!(pool.apply(slow_square, 9)?, 81);
        assert_eq!(pool.map(slow_square, 0..100)?.len(), 100);
    }
    Ok(())
}

fn die(_: ()) {
    std::process::abort();
}

// Fault 6.
#[test]
fn workers_that_cannot_start_break_the_pool_once() -> Result<()> {
    let pool = Pool::builder().workers(3).initializer(die, ()).build()?;
    let error = pool.apply(slow_square, 1).unwrap_err().to_string();
    assert!(error.contains("cannot start"), "{error}");
    Ok(())
}

fn count_and_panic(started: Value<u32>) {
    *started.lock().unwrap() += 1;
    panic!("no such model file");
}

// Fault 6.
#[test]
fn a_panicking_initializer_is_one_error_for_everybody_and_no_storm() -> Result<()> {
    const WORKERS: u32 = 4;
    let started = Value::new(0)?;
    let pool = Pool::builder().workers(WORKERS as usize).initializer(count_and_panic, started.clone()).build()?;
    let fails = |error: Error| assert!(error.to_string().contains("no such model file"), "{error}");
    let count = || started.lock().map(|count| *count).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fails(pool.apply(slow_square, 1).unwrap_err()));
            scope.spawn(|| fails(pool.map(slow_square, 0..100).unwrap_err()));
            // It may be known when the stream is made.
            scope.spawn(|| match pool.imap(slow_square, 0..100) {
                Ok(mut stream) => fails(stream.next().unwrap().unwrap_err()),
                Err(error) => fails(error),
            });
        }
    });
    fails(pool.apply(slow_square, 1).unwrap_err());
    pool.terminate();
    pool.join()?;
    // Those that had been started when the first one failed, and none again.
    assert!((1..=WORKERS).contains(&count()), "{} were started", count());
    Ok(())
}

/// How the workers of a pool start: the first well, the others wait for `go` and fail until `well` is set.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Starts {
    count: Value<u32>,
    go: Event,
    well: Event,
    aborts: bool,
}

fn start_well_or_not(starts: Starts) {
    let nth = starts.count.lock().map(|mut count| {
        *count += 1;
        *count
    });
    if nth.unwrap() == 1 || starts.well.is_set() {
        return;
    }
    starts.go.wait().unwrap();
    if starts.aborts {
        std::process::abort();
    }
    panic!("not this one");
}

/// A pool whose second and third worker have failed several times, and how they start.
fn pool_with_one_good_worker(aborts: bool) -> Result<(Pool, Starts)> {
    let starts = Starts { count: Value::new(0)?, go: Event::new()?, well: Event::new()?, aborts };
    let pool = Pool::builder().workers(3).initializer(start_well_or_not, starts.clone()).build()?;
    assert_eq!(pool.apply(slow_square, 9)?, 81);
    starts.go.set();
    eventually(|| starts.count() >= 6);
    Ok((pool, starts))
}

impl Starts {
    fn count(&self) -> u32 {
        self.count.lock().map(|count| *count).unwrap()
    }
}

// Fault 6.
#[test]
fn a_pool_with_a_worker_that_works_goes_on_and_has_others_tried_at_leisure() -> Result<()> {
    for aborts in [true, false] {
        let (pool, starts) = pool_with_one_good_worker(aborts)?;
        let (before, begin) = (starts.count(), std::time::Instant::now());
        for _ in 0..20 {
            assert_eq!(pool.map(slow_square, 0..100)?.len(), 100);
        }
        // The pauses grow from 100 ms on: there is time for so many.
        let most = begin.elapsed().as_millis() as u32 / 100 + 1;
        assert!(starts.count() - before <= most, "{} in {:?}", starts.count() - before, begin.elapsed());
        // What hindered them is over.
        starts.well.set();
        eventually(|| pool.worker_pids().len() == 3);
    }
    Ok(())
}

// Fault 6.
#[test]
fn a_pool_whose_last_worker_that_works_is_killed_is_broken_soon() -> Result<()> {
    for aborts in [true, false] {
        let (pool, starts) = pool_with_one_good_worker(aborts)?;
        let before = starts.count();
        pool.worker_pids().into_iter().for_each(kill);
        let mut result = pool.apply(slow_square, 9);
        while result.is_ok() {
            result = pool.apply(slow_square, 9);
        }
        let error = result.unwrap_err().to_string();
        assert!(error.contains("cannot start"), "{error}");
        assert!(starts.count() - before <= 6, "{} more were started", starts.count() - before);
    }
    Ok(())
}

fn panic_at_length(bytes: usize) {
    panic!("{}", "x".repeat(bytes));
}

fn fail_at_length(bytes: usize) -> std::result::Result<(), String> {
    Err("x".repeat(bytes))
}

/// An error of that length reaches the caller, whole, and its memory goes back.
fn texts_of(bytes: usize) -> Result<()> {
    let pool = Pool::new(1)?;
    pool.apply(slow_square, 1)?;
    let before = tenfold::heap_stats()?.live_bytes;
    match pool.apply(panic_at_length, bytes).unwrap_err() {
        Error::Task(TaskError::Panicked { message, .. }) => assert!(message.matches('x').count() >= bytes),
        error => panic!("{error:?}"),
    }
    let failed = pool.apply(fail_at_length, bytes)?;
    assert_eq!(failed.unwrap_err().len(), bytes);
    assert_eq!(pool.apply(slow_square, 3)?, 9);
    // The place of a single call is reused, so that its last result stays.
    pool.apply(slow_square, 1)?;
    assert!(tenfold::heap_stats()?.live_bytes <= before + (1 << 20));
    Ok(())
}

// Fault 18.
#[test]
fn an_error_s_text_may_be_long() -> Result<()> {
    texts_of(2 << 20)
}

// Fault 18.
#[test]
#[ignore = "slow: moves gigabytes; make chaos runs it"]
fn slow_an_error_s_text_of_two_hundred_megabytes() -> Result<()> {
    texts_of(200_000_000)
}

// Fault 20.
#[test]
fn an_iterator_that_panics_reaches_the_caller_and_the_pool_is_usable() -> Result<()> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let pool = Pool::new(2)?;
    pool.apply(slow_square, 1)?;
    let before = tenfold::heap_stats()?.live_blocks;
    let items = || (0..400_u64).inspect(|n| assert!(*n != 200, "the input file is torn"));
    let torn = |result: std::thread::Result<()>| {
        let panic = result.unwrap_err();
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        assert_eq!(text, Some("the input file is torn"));
    };
    torn(catch_unwind(AssertUnwindSafe(|| drop(pool.map(slow_square, items())))));
    torn(catch_unwind(AssertUnwindSafe(|| drop(pool.map_async(slow_square, items())))));
    torn(catch_unwind(AssertUnwindSafe(|| {
        let results = pool.imap(slow_square, items()).unwrap();
        for (n, result) in results.enumerate() {
            assert_eq!(result.unwrap(), (n * n) as u64);
        }
    })));
    torn(catch_unwind(AssertUnwindSafe(|| {
        let results = pool.imap_unordered(slow_square, items()).unwrap();
        results.for_each(|result| assert!(result.is_ok()));
    })));
    assert_eq!(pool.map(slow_square, 0..100)?, (0..100).map(|x| x * x).collect::<Vec<_>>());
    // A cancelled stream's last tasks end in their own time.
    eventually(|| tenfold::heap_stats().is_ok_and(|stats| stats.live_blocks <= before));
    Ok(())
}

/// Waits until `condition` holds; the watchdog is in here.
fn eventually(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < end, "did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

// Fault 19.
#[test]
fn terminate_while_idle_workers_are_killed() -> Result<()> {
    for _ in 0..10 {
        let pool = Pool::new(3)?;
        pool.apply(slow_square, 1)?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    pool.worker_pids().into_iter().for_each(kill);
                }
            });
            pool.terminate();
            let joined = pool.join();
            stop.store(true, Ordering::Relaxed);
            joined
        })?;
        assert!(pool.apply(slow_square, 1).is_err());
    }
    Ok(())
}

// Fault 19.
#[test]
fn terminate_under_fire() -> Result<()> {
    for _ in 0..10 {
        let pool = Pool::new(3)?;
        let later = pool.map_async(slow_square, 0..100_000)?;
        std::thread::sleep(Duration::from_millis(5));
        for pid in pool.worker_pids() {
            kill(pid);
        }
        pool.terminate();
        pool.join()?;
        assert!(later.get().is_err());
    }
    Ok(())
}
