//! Values that are nested so deeply that their recursion does not fit on a stack.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use tenfold::{Dict, Error, Pool, Process, Queue, Result, TaskError};

#[derive(Serialize, Deserialize)]
struct Nest {
    inner: Option<Box<Nest>>,
    depth: u32,
}

impl Drop for Nest {
    /// Without recursion: that of a destructor is the type's own affair.
    fn drop(&mut self) {
        let mut next = self.inner.take();
        while let Some(mut nest) = next {
            next = nest.inner.take();
        }
    }
}

fn nested(depth: u32) -> Nest {
    (1..=depth).fold(Nest { inner: None, depth: 0 }, |inner, depth| Nest { inner: Some(Box::new(inner)), depth })
}

fn depth_of(nest: Nest) -> u32 {
    nest.depth
}

fn discard(nest: Nest) {
    drop(nest);
}

const DEEP: u32 = 200_000;
const SMALL_STACKS: [usize; 2] = [64 << 10, 2 << 20];

/// Runs `f` in a thread with a stack of that size.
fn on_stack<R: Send>(size: usize, f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(size).spawn_scoped(scope, f).unwrap().join().unwrap()
    })
}

/// On a stack that is large enough for anything.
fn on_large_stack<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    on_stack(2 << 30, f)
}

fn says_so<T, E: Display>(result: std::result::Result<T, E>) {
    let error = result.err().expect("an error").to_string();
    assert!(error.contains("nested too deeply"), "{error}");
}

// Fault 18.
#[test]
fn what_is_too_deep_for_the_sender_is_its_error() -> Result<()> {
    let (queue, dict, pool) = (Queue::new()?, Dict::new()?, Pool::new(1)?);
    for size in SMALL_STACKS {
        on_stack(size, || {
            says_so(queue.put(nested(DEEP)));
            says_so(queue.put_many([nested(DEEP), nested(1)]));
            says_so(dict.insert(1, nested(DEEP)));
            says_so(pool.apply(depth_of, nested(DEEP)));
            says_so(pool.map(depth_of, [nested(1), nested(DEEP)]));
            says_so(Process::spawn(discard, nested(DEEP)));
            // What is not that deep goes through.
            queue.put(nested(10)).unwrap();
            assert_eq!(queue.get().unwrap().depth, 10);
            assert_eq!(pool.apply(depth_of, nested(10)).unwrap(), 10);
        });
    }
    Ok(())
}

// Fault 18.
#[test]
fn what_is_too_deep_for_the_receiver_is_its_error() -> Result<()> {
    let (queue, dict) = (Queue::new()?, Dict::new()?);
    for size in SMALL_STACKS {
        on_large_stack(|| {
            queue.put(nested(DEEP)).unwrap();
            queue.put(nested(10)).unwrap();
            dict.insert(1, nested(DEEP)).unwrap();
        });
        on_stack(size, || {
            says_so(queue.get());
            assert_eq!(queue.get().unwrap().depth, 10);
            says_so(dict.get(&1));
        });
    }
    // Where there is room, it arrives.
    on_large_stack(|| {
        queue.put(nested(DEEP)).unwrap();
        assert_eq!(queue.get().unwrap().depth, DEEP);
    });
    Ok(())
}

// Fault 18.
#[test]
fn what_is_too_deep_for_a_worker_is_its_task_s_error_and_the_worker_goes_on() -> Result<()> {
    let pool = Pool::new(1)?;
    let pids = pool.apply(nested, 1).map(|_| pool.worker_pids())?;
    for error in [
        on_large_stack(|| pool.apply(depth_of, nested(DEEP)).map(drop).unwrap_err()),
        pool.apply(nested, DEEP).map(drop).unwrap_err(),
    ] {
        assert!(!matches!(error, Error::Task(TaskError::WorkerDied { .. })), "{error:?}");
        assert!(error.to_string().contains("nested too deeply"), "{error}");
    }
    assert_eq!(pool.apply(depth_of, nested(1000))?, 1000);
    assert_eq!(pool.worker_pids(), pids);
    Ok(())
}

// Fault 18.
#[test]
fn a_result_that_the_worker_could_send_may_be_too_deep_for_who_asks_for_it() -> Result<()> {
    let pool = Pool::new(1)?;
    // The worker's stack is that of a main thread.
    let depth = (1..).map(|n| n * 500).take_while(|&depth| pool.apply(nested, depth).is_ok()).take(8).last().unwrap();
    on_stack(64 << 10, || {
        says_so(pool.apply(nested, depth));
        says_so(pool.map(nested, [1, depth]));
        says_so(pool.imap(nested, [depth]).unwrap().next().unwrap());
        says_so(pool.apply_async(nested, depth).unwrap().get());
        assert_eq!(pool.apply(nested, 10).unwrap().depth, 10);
    });
    Ok(())
}
