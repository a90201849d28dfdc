//! Everything made and dropped again and again: descriptors, threads, memory and the heap are where they were.
//!
//! Each test is a root of its own, since these things belong to the whole process.

#[path = "support/stage.rs"]
mod stage;

use stage::{Stage, tell, wait_for};
use tenfold::{
    Array, Barrier, BoundedSemaphore, Condition, Dict, Event, JoinableQueue, List, Lock, Manager, Pool, Process, Queue,
    RLock, RwLock, Semaphore, SimpleQueue, StartMethod, Value, pipe,
};

/// Not a test: what the roots run.
#[test]
#[ignore = "run by the other tests as the root of a family"]
fn stage() {
    match stage::wanted().as_deref() {
        None => {}
        Some("objects") => objects(10_000),
        Some("processes") => processes(500),
        Some("pools") => pools(50),
        Some(other) => panic!("no such stage: {other}"),
    }
}

/// By how much a process may have grown, in KiB: malloc keeps some of what was freed, and of the heap's pages others
/// are used now.
const SLACK: u64 = 4096;
/// By how many bytes as many blocks may have grown: a pool's batch for single calls has more room when there were many.
const LARGER: u64 = 64 << 10;

/// What must not grow.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    resident: u64,
    blocks: u64,
    bytes: u64,
    mappings: usize,
}

impl Holdings {
    fn now() -> Holdings {
        let entries = |path| std::fs::read_dir(path).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let heap = tenfold::heap_stats().unwrap();
        Holdings {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            resident: line.split_whitespace().next().unwrap().parse().unwrap(),
            blocks: heap.live_blocks,
            bytes: heap.live_bytes,
            mappings: std::fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        }
    }

    fn are_within(self, before: Holdings) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.resident <= before.resident + SLACK
            && self.blocks <= before.blocks
            && self.bytes <= before.bytes + LARGER
            && self.mappings <= before.mappings + 16
    }
}

/// Does something once, so that all is there that is kept, then many times, and compares. What processes held that are
/// gone is given back by whoever sweeps them, in a moment.
fn again_and_again(name: &str, times: usize, mut cycle: impl FnMut()) {
    for _ in 0..3 {
        cycle();
    }
    let mut last = Holdings::now();
    let before = wait_for("everything to settle", || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let now = Holdings::now();
        let settled = now.blocks == last.blocks;
        last = now;
        settled.then_some(now)
    });
    for _ in 0..times {
        cycle();
    }
    let begin = std::time::Instant::now();
    loop {
        let now = Holdings::now();
        if now.are_within(before) {
            break;
        }
        assert!(begin.elapsed().as_secs() < 10, "{times} cycles of {name}: {before:?} has become {now:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    tell(name);
}

fn square(x: u64) -> u64 {
    x * x
}

/// Each kind of object, used a little.
fn objects(times: usize) {
    again_and_again("Lock", times, || drop(Lock::new().unwrap().lock().unwrap()));
    again_and_again("RLock", times, || {
        let lock = RLock::new().unwrap();
        let _guards = (lock.lock().unwrap(), lock.lock().unwrap());
    });
    again_and_again("RwLock", times, || drop(RwLock::new().unwrap().read().unwrap()));
    again_and_again("Semaphore", times, || drop(Semaphore::new(2).unwrap().acquire().unwrap()));
    again_and_again("BoundedSemaphore", times, || drop(BoundedSemaphore::new(2).unwrap().acquire().unwrap()));
    again_and_again("Condition", times, || {
        let condition = Condition::new().unwrap();
        let _guard = condition.lock().unwrap();
        condition.notify_all().unwrap();
    });
    again_and_again("Event", times, || {
        let event = Event::new().unwrap();
        event.set();
        event.wait().unwrap();
    });
    again_and_again("Barrier", times, || assert_eq!(Barrier::new(1).unwrap().wait().unwrap(), 0));
    again_and_again("Value", times, || *Value::new(1_u64).unwrap().lock().unwrap() += 1);
    again_and_again("Array", times, || drop(Array::<u64>::zeroed(1000).unwrap().lock().unwrap()));
    again_and_again("Queue", times, || {
        let queue = Queue::new().unwrap();
        queue.put("short".to_owned()).unwrap();
        queue.put("long".repeat(1000)).unwrap();
        // One is left in it.
        assert_eq!(queue.get().unwrap(), "short");
    });
    again_and_again("JoinableQueue", times, || {
        let queue = JoinableQueue::new().unwrap();
        queue.put(1_u64).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        queue.task_done().unwrap();
        queue.join().unwrap();
    });
    again_and_again("SimpleQueue", times, || {
        let queue = SimpleQueue::new().unwrap();
        queue.put(1_u64).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
    });
    again_and_again("pipe", times, || {
        let (one, other) = pipe::<String, String>().unwrap();
        one.send("there".to_owned()).unwrap();
        other.send("and back".to_owned()).unwrap();
        assert_eq!(other.recv().unwrap(), "there");
    });
    again_and_again("Dict", times, || {
        let dict = Dict::new().unwrap();
        for key in 0..10_u32 {
            dict.insert(key, "x".repeat(100)).unwrap();
        }
        // A dict may hold what has a handle itself.
        let nested = Dict::new().unwrap();
        nested.insert(1, dict).unwrap();
    });
    again_and_again("List", times, || {
        let list = List::from_iter((0..10).map(|n| "x".repeat(n))).unwrap();
        list.push("y".to_owned()).unwrap();
        assert_eq!(list.to_vec().unwrap().len(), 11);
    });
    let manager = Manager::new().unwrap();
    again_and_again("Manager's dict and list", times, || {
        let dict = manager.dict().unwrap();
        dict.insert("list".to_owned(), manager.list([1, 2, 3]).unwrap()).unwrap();
    });
    again_and_again("Manager", times, || drop(Manager::new().unwrap().namespace().unwrap()));
    let pool = Pool::new(1).unwrap();
    again_and_again("a pool's result", times, || {
        assert_eq!(pool.apply(square, 3).unwrap(), 9);
        // One that nobody fetches.
        drop(pool.apply_async(square, 4).unwrap());
    });
    again_and_again("a pool's results", times / 10, || {
        assert_eq!(pool.map(|n: usize| "x".repeat(n), 0..100).unwrap().len(), 100);
        assert_eq!(pool.imap(square, 0..20).unwrap().count(), 20);
    });
}

fn put_and_take((queue, lock): (Queue<u64>, Lock)) {
    let _guard = lock.lock().unwrap();
    queue.put(1).unwrap();
}

/// Children by each way to start one.
fn processes(times: usize) {
    let (queue, lock) = (Queue::new().unwrap(), Lock::new().unwrap());
    for method in [StartMethod::Forkserver, StartMethod::Spawn] {
        again_and_again(&format!("{method:?}"), times, || {
            let child = Process::builder().start_method(method).spawn(put_and_take, (queue.clone(), lock.clone()));
            child.unwrap().join().unwrap();
            assert_eq!(queue.get().unwrap(), 1);
        });
    }
    again_and_again("killed", times, || {
        let child = Process::spawn(|event: Event| event.wait().unwrap(), Event::new().unwrap()).unwrap();
        child.kill().unwrap();
        assert!(child.join().is_err());
    });
}

fn pools(times: usize) {
    again_and_again("closed", times, || {
        let pool = Pool::new(2).unwrap();
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
        pool.close();
        pool.join().unwrap();
    });
    again_and_again("terminated", times, || {
        let pool = Pool::new(2).unwrap();
        drop(pool.map_async(square, 0..1000).unwrap());
        pool.terminate();
        pool.join().unwrap();
    });
    again_and_again("dropped", times, || assert_eq!(Pool::new(2).unwrap().apply(square, 7).unwrap(), 49));
}

fn plays(name: &str, parts: usize) {
    let mut stage = Stage::start(name);
    for _ in 0..parts {
        stage.line();
    }
    stage.root_succeeds();
    stage.nobody_left();
}

// Fault 15.
#[test]
fn ten_thousand_objects_of_each_kind_leave_nothing() {
    plays("objects", 20);
}

// Fault 15.
#[test]
fn five_hundred_processes_of_each_kind_leave_nothing() {
    plays("processes", 3);
}

// Fault 15.
#[test]
fn fifty_pools_leave_nothing() {
    plays("pools", 3);
}
