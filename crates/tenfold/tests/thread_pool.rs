//! The pool of threads: the same methods, shared memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenfold::{Error, Result, TaskError, ThreadPool};

#[test]
fn the_same_methods_as_the_pool_of_processes() -> Result<()> {
    let pool = ThreadPool::new(3)?;
    assert_eq!(pool.map(|x: i64| x * x, 0..1000)?, (0..1000).map(|x| x * x).collect::<Vec<_>>());
    assert_eq!(pool.map(|x: i64| x, [])?, Vec::<i64>::new());
    assert_eq!(pool.starmap(|a, b| a + b, [(1, 2), (3, 4)])?, [3, 7]);
    assert_eq!(pool.apply(|x| x + 1, 1)?, 2);
    assert_eq!(pool.apply_async(|x| x + 1, 1)?.get_timeout(Duration::from_secs(10))?, 2);
    assert_eq!(pool.imap(|x| x * 2, 0..100)?.collect::<Result<Vec<_>>>()?, (0..100).map(|x| x * 2).collect::<Vec<_>>());
    let mut any = pool.imap_unordered(|x| x * 2, 0..100)?.collect::<Result<Vec<_>>>()?;
    any.sort_unstable();
    assert_eq!(any, (0..100).map(|x| x * 2).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn threads_share_memory() -> Result<()> {
    let pool = ThreadPool::new(4)?;
    let (sum, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (s, v) = (Arc::clone(&sum), Arc::clone(&seen));
    pool.map(
        move |n| {
            s.fetch_add(n, Ordering::Relaxed);
            v.lock().unwrap().push(n);
        },
        0..100,
    )?;
    assert_eq!(sum.load(Ordering::Relaxed), 4950);
    assert_eq!(seen.lock().unwrap().len(), 100);
    Ok(())
}

#[test]
fn a_panic_is_that_tasks_error() -> Result<()> {
    let pool = ThreadPool::new(2)?;
    let error = pool.map(|x| assert!(x != 5, "no five"), 0..10).unwrap_err();
    assert!(matches!(&error, Error::Task(TaskError::Panicked { index: 5, message, .. }) if message == "no five"));
    assert_eq!(pool.apply(|x| x, 1)?, 1);
    Ok(())
}

#[test]
fn callbacks_and_cancelling() -> Result<()> {
    let pool = ThreadPool::new(1)?;
    let (send, receive) = std::sync::mpsc::channel();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let first = pool.apply_async(move |()| held.recv().is_ok(), ())?;
    let second = pool.apply_async(|x| x, 2)?;
    let third = pool.apply_async(|x| x, 3)?.on_done(move |r| send.send(r.as_ref().copied().unwrap()).unwrap());
    assert!(second.cancel()?);
    assert!(!second.is_ready());
    hold.send(()).unwrap();
    assert!(first.get()?);
    assert!(matches!(second.get(), Err(Error::Task(TaskError::Cancelled { .. }))));
    assert_eq!(third.get()?, 3);
    assert_eq!(receive.recv().unwrap(), 3);
    Ok(())
}

#[test]
fn close_terminate_join() -> Result<()> {
    let pool = ThreadPool::new(2)?;
    assert!(pool.join().is_err());
    let later = pool.map_async(|x: u64| std::thread::sleep(Duration::from_millis(x)), vec![1; 50])?;
    pool.close();
    assert!(pool.apply(|x: i32| x, 1).is_err());
    pool.join()?;
    assert_eq!(later.get()?.len(), 50);

    let pool = ThreadPool::new(1)?;
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel();
    let work = move |()| {
        begun.send(()).unwrap();
        held.recv().is_err()
    };
    let running = pool.apply_async(work, ())?;
    begins.recv().unwrap();
    let waiting = pool.apply_async(|x: i32| x, 1)?;
    pool.terminate();
    assert!(waiting.get().is_err());
    drop(hold);
    assert!(running.get()?);
    assert!(matches!(ThreadPool::new(0), Err(Error::InvalidArgument(_))));
    Ok(())
}
