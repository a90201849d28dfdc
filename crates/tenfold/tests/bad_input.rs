//! Exhausted memory: errors at the call, nothing lost, and all is well once there is room again.
//! One test in a program of its own, since the limit is the whole family's.

use tenfold::{Array, Dict, Error, HeapError, List, Pool, Process, Queue, Result};

fn grow(bytes: usize) -> Vec<u8> {
    vec![1; bytes]
}

fn is_full<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Heap(error @ HeapError::OutOfMemory { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

// Faults 4, 23.
#[test]
fn a_full_heap_is_an_error_and_not_the_end() -> Result<()> {
    let pool = Pool::new(2)?;
    let queue: Queue<Vec<u8>> = Queue::new()?;
    let dict: Dict<u32, Vec<u8>> = Dict::new()?;
    let list: List<Vec<u8>> = List::new()?;
    dict.insert(1, grow(10))?;
    list.push(grow(20))?;
    queue.put(grow(30))?;
    assert_eq!(pool.apply(grow, 40)?.len(), 40);
    let before = tenfold::heap_stats()?;

    tenfold::set_heap_limit(before.committed_bytes + (20 << 20))?;
    let text = is_full(Array::<u8>::zeroed(100 << 20));
    assert!(text.contains("limit") && text.contains("full"), "{text}");
    is_full(dict.insert(1, grow(100 << 20)));
    is_full(list.push(grow(100 << 20)));
    assert!(queue.put(grow(100 << 20)).is_err());
    assert!(Process::spawn(|v: Vec<u8>| drop(v), grow(100 << 20)).is_err());
    let error = pool.apply(grow, 100 << 20).unwrap_err();
    assert!(matches!(error, Error::Task(_)), "{error:?}");
    assert!(error.to_string().contains("full"), "{error}");
    assert!(pool.apply(|v: Vec<u8>| v.len(), grow(100 << 20)).is_err());

    // Small things still fit, what was there is there, and nothing half-made stays.
    assert_eq!(pool.apply(grow, 5)?.len(), 5);
    assert_eq!(dict.get(&1)?, Some(grow(10)));
    assert_eq!(list.len(), 1);
    assert_eq!(queue.get()?, grow(30));
    assert!(queue.is_empty());

    tenfold::set_heap_limit(before.limit_bytes)?;
    assert_eq!(pool.apply(grow, 100 << 20)?.len(), 100 << 20);
    dict.insert(1, grow(100 << 20))?;
    assert_eq!(dict.get(&1)?.map(|v| v.len()), Some(100 << 20));
    drop((dict, list, queue));
    let after = tenfold::heap_stats()?;
    assert!(after.live_bytes <= before.live_bytes + 4096, "{before:?} {after:?}");
    Ok(())
}
