//! What deaths, forks and misuse do to locks, queues and pipes, from this door.

use std::time::{Duration, Instant};

use tenfold::{
    Barrier, Condition, Connection, Error, Event, JoinableQueue, LaunchError, Lock, LockError, Message, Outcome,
    Process, Queue, QueueError, RLock, RawValue, Result, Semaphore, StartMethod, Value, pipe,
};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(30);

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Waits until `condition` holds; the watchdog is in here.
fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "did not happen");
        std::thread::yield_now();
    }
}

fn killed(child: &Process) {
    child.kill().unwrap();
    assert!(child.join().is_err());
}

/// Starts a process by that method.
fn start<F, A, R>(by: StartMethod, f: F, argument: A) -> Process
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Message,
    R: Outcome + 'static,
{
    Process::builder().start_method(by).spawn(f, argument).unwrap()
}

/// The test by each start method. Fork needs a process of one thread: a child is one, whose panic is the error of its
/// join.
macro_rules! by_each_method {
    ($name:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn forkserver() {
                super::$name(StartMethod::Forkserver);
            }

            #[test]
            fn spawn() {
                super::$name(StartMethod::Spawn);
            }

            #[test]
            fn fork() {
                fn alone((): ()) {
                    super::$name(StartMethod::Fork);
                }
                Process::spawn(alone, ()).unwrap().join().unwrap();
            }
        }
    };
}

fn hold_rlock((lock, held): (RLock, Event)) -> Result<()> {
    let _guards = (lock.lock()?, lock.lock()?);
    held.set();
    sleep_for_ever()
}

fn hold_value((value, held): (Value<u64>, Event)) -> Result<()> {
    let mut guard = value.lock()?;
    *guard = 7;
    held.set();
    sleep_for_ever()
}

fn hold_condition((condition, held): (Condition, Event)) -> Result<()> {
    let _guard = condition.lock()?;
    held.set();
    sleep_for_ever()
}

// Fault 7.
by_each_method!(the_death_of_an_rlocks_holder_is_told_once);

fn the_death_of_an_rlocks_holder_is_told_once(by: StartMethod) {
    let (lock, held) = (RLock::new().unwrap(), Event::new().unwrap());
    let child = start(by, hold_rlock, (lock.clone(), held.clone()));
    held.wait().unwrap();
    killed(&child);
    match lock.lock() {
        Err(LockError::OwnerDied(guard)) => drop(guard),
        other => panic!("{other:?}"),
    }
    drop(lock.lock().unwrap());
}

// Fault 7.
by_each_method!(the_death_of_a_values_holder_is_told_once_and_the_value_is_there);

fn the_death_of_a_values_holder_is_told_once_and_the_value_is_there(by: StartMethod) {
    let (value, held) = (Value::new(1_u64).unwrap(), Event::new().unwrap());
    let child = start(by, hold_value, (value.clone(), held.clone()));
    held.wait().unwrap();
    killed(&child);
    match value.lock() {
        Err(LockError::OwnerDied(guard)) => assert_eq!(*guard, 7),
        other => panic!("{other:?}"),
    }
    assert_eq!(*value.lock().unwrap(), 7);
}

// Fault 7.
by_each_method!(the_death_of_a_conditions_holder_is_told_once);

fn the_death_of_a_conditions_holder_is_told_once(by: StartMethod) {
    let (condition, held) = (Condition::new().unwrap(), Event::new().unwrap());
    let child = start(by, hold_condition, (condition.clone(), held.clone()));
    held.wait().unwrap();
    killed(&child);
    match condition.lock() {
        Err(LockError::OwnerDied(guard)) => drop(guard),
        other => panic!("{other:?}"),
    }
    let mut guard = condition.lock().unwrap();
    assert!(!condition.wait_timeout(&mut guard, SOON).unwrap());
}

fn take_and_say((lock, told): (Lock, Queue<bool>)) -> Result<()> {
    let died = match lock.lock() {
        Ok(_guard) => false,
        Err(LockError::OwnerDied(_guard)) => true,
        Err(LockError::Failed(error)) => return Err(error),
        Err(_) => unreachable!("it has no time limit"),
    };
    told.put(died)?;
    Ok(())
}

fn hold_lock((lock, held): (Lock, Event)) -> Result<()> {
    let _guard = lock.lock()?;
    held.set();
    sleep_for_ever()
}

// Fault 7.
by_each_method!(of_many_who_wait_one_is_told);

fn of_many_who_wait_one_is_told(by: StartMethod) {
    let (lock, held, told) = (Lock::new().unwrap(), Event::new().unwrap(), Queue::new().unwrap());
    let holder = start(by, hold_lock, (lock.clone(), held.clone()));
    held.wait().unwrap();
    let waiters: Vec<_> = (0..4).map(|_| start(by, take_and_say, (lock.clone(), told.clone()))).collect();
    killed(&holder);
    let heard: Vec<bool> = waiters.iter().map(|_| told.get_timeout(LONG).unwrap()).collect();
    assert_eq!(heard.iter().filter(|died| **died).count(), 1);
    waiters.iter().for_each(|w| w.join().unwrap());
    drop(lock.lock().unwrap());
}

fn exit_holding(lock: Lock) -> Result<()> {
    std::mem::forget(lock.lock()?);
    std::process::exit(0);
}

// Fault 7.
by_each_method!(a_normal_exit_leaves_the_lock_taken);

fn a_normal_exit_leaves_the_lock_taken(by: StartMethod) {
    let lock = Lock::new().unwrap();
    start(by, exit_holding, lock.clone()).join().unwrap();
    assert!(matches!(lock.lock_timeout(SOON), Err(LockError::TimedOut)));
    assert!(lock.is_locked());
}

fn wait_for_event((event, ready, done): (Event, Semaphore, Semaphore)) -> Result<()> {
    ready.release_raw(1)?;
    event.wait()?;
    done.release_raw(1)
}

fn take_permit((places, ready, done): (Semaphore, Semaphore, Semaphore)) -> Result<()> {
    ready.release_raw(1)?;
    places.acquire_raw(None)?;
    done.release_raw(1)
}

fn wait_at((condition, ready, done): (Condition, Semaphore, Semaphore)) -> Result<()> {
    let mut guard = condition.lock()?;
    ready.release_raw(1)?;
    condition.wait(&mut guard)?;
    done.release_raw(1)
}

fn meet((barrier, ready, done): (Barrier, Semaphore, Semaphore)) -> Result<()> {
    ready.release_raw(1)?;
    match barrier.wait() {
        Err(Error::BrokenBarrier) => done.release_raw(1),
        other => other.map(|_| ()),
    }
}

fn get((queue, ready, done): (Queue<u32>, Semaphore, Semaphore)) -> Result<()> {
    ready.release_raw(1)?;
    queue.get()?;
    done.release_raw(1)
}

/// Kills one of two, started by `by`, that wait in `wait`, after `before`; does `wake`, and expects that the other goes on.
fn kill_waiter<T: Message + Clone>(
    by: StartMethod,
    thing: T,
    wait: impl Fn((T, Semaphore, Semaphore)) -> Result<()> + Copy + Send + Sync + 'static,
    before: impl Fn(&T),
    wake: impl Fn(&T),
) {
    let (ready, done) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
    let waiter = || start(by, wait, (thing.clone(), ready.clone(), done.clone()));
    let (dies, waits) = (waiter(), waiter());
    for _ in 0..2 {
        assert!(ready.acquire_raw(Some(LONG)).unwrap());
    }
    before(&thing);
    killed(&dies);
    wake(&thing);
    assert!(done.acquire_raw(Some(LONG)).unwrap());
    waits.join().unwrap();
}

// Fault 8.
by_each_method!(a_killed_waiter_takes_no_wake_up_with_it);

fn a_killed_waiter_takes_no_wake_up_with_it(by: StartMethod) {
    let set = |event: &Event| event.set();
    kill_waiter(by, Event::new().unwrap(), wait_for_event, |_| (), set);
    let release = |places: &Semaphore| places.release_raw(1).unwrap();
    kill_waiter(by, Semaphore::new(0).unwrap(), take_permit, |_| (), release);
    // The lock is free once both wait: who was killed on the way there would leave it to recover.
    let both_wait = |condition: &Condition| drop(condition.lock().unwrap());
    let notify = |condition: &Condition| {
        let _guard = condition.lock().unwrap();
        assert!(condition.notify_one().unwrap());
    };
    kill_waiter(by, Condition::new().unwrap(), wait_at, both_wait, notify);
    kill_waiter(by, Queue::new().unwrap(), get, |_| (), |queue| queue.put(1).unwrap());
}

// Fault 8.
by_each_method!(a_killed_party_breaks_the_wait_of_the_others);

fn a_killed_party_breaks_the_wait_of_the_others(by: StartMethod) {
    let (barrier, ready, broken) = (Barrier::new(3).unwrap(), Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
    let start = || start(by, meet, (barrier.clone(), ready.clone(), broken.clone()));
    let (dies, waits) = (start(), start());
    eventually(|| barrier.waiting() == 2);
    killed(&dies);
    assert!(broken.acquire_raw(Some(LONG)).unwrap());
    waits.join().unwrap();
}

fn put_large((queue, ready): (Queue<Vec<u8>>, Event)) -> Result<()> {
    let large = vec![7; 50 << 20];
    ready.set();
    queue.put(large)?;
    Ok(())
}

// Fault 9.
by_each_method!(a_producer_killed_in_fifty_megabytes_leaves_whole_messages);

fn a_producer_killed_in_fifty_megabytes_leaves_whole_messages(by: StartMethod) {
    for delay in [0, 1, 3, 9, 27] {
        let (queue, ready) = (Queue::new().unwrap(), Event::new().unwrap());
        let child = start(by, put_large, (queue.clone(), ready.clone()));
        ready.wait().unwrap();
        // Not a wait for something: it moves the kill.
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        let _ = child.join();
        queue.put(vec![1]).unwrap();
        let first = queue.get_timeout(LONG).unwrap();
        if first != [1] {
            assert!(first.len() == 50 << 20 && first.iter().all(|b| *b == 7));
            assert_eq!(queue.get_timeout(LONG).unwrap(), [1]);
        }
        assert!(queue.is_empty());
    }
}

fn get_for_ever((queue, count): (Queue<u32>, RawValue<u64>)) -> Result<()> {
    loop {
        queue.get()?;
        count.set(count.get()? + 1)?;
    }
}

// Fault 10.
by_each_method!(a_consumer_killed_in_get_blocks_nobody);

fn a_consumer_killed_in_get_blocks_nobody(by: StartMethod) {
    let queue = Queue::new().unwrap();
    // A counter each, so that there is nothing to lock.
    let (count, other) = (RawValue::new(0_u64).unwrap(), RawValue::new(0_u64).unwrap());
    let dies = start(by, get_for_ever, (queue.clone(), count.clone()));
    let lives = start(by, get_for_ever, (queue.clone(), other.clone()));
    queue.put_many(0..10_000).unwrap();
    eventually(|| count.get().unwrap() > 0 || queue.is_empty());
    killed(&dies);
    let by_the_dead = count.get().unwrap();
    queue.put_many(0..1000).unwrap();
    // At most the message that it held is gone.
    eventually(|| queue.is_empty() && by_the_dead + other.get().unwrap() >= 11_000 - 1);
    killed(&lives);
}

fn put_one_large(queue: Queue<Vec<u8>>) -> Result<()> {
    Ok(queue.put(vec![3; 50 << 20])?)
}

fn put_many_small(queue: Queue<u32>) -> Result<()> {
    for n in 0..100_000 {
        queue.put(n)?;
    }
    Ok(())
}

// Fault 13.
by_each_method!(join_before_drain);

fn join_before_drain(by: StartMethod) {
    let queue = Queue::new().unwrap();
    start(by, put_one_large, queue.clone()).join().unwrap();
    assert!(queue.get_timeout(LONG).unwrap() == vec![3; 50 << 20]);
    let queue = Queue::new().unwrap();
    start(by, put_many_small, queue.clone()).join().unwrap();
    assert_eq!(queue.len(), 100_000);
    assert!((0..100_000).all(|n| queue.get_timeout(LONG).unwrap() == n));
}

fn fork_beside_threads((): ()) {
    let (lock, queue) = (Lock::new().unwrap(), Queue::new().unwrap());
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let (busy_lock, busy_queue) = (lock.clone(), queue.clone());
    let busy = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            drop(busy_lock.lock().unwrap());
            busy_queue.put(1).unwrap();
            busy_queue.get().unwrap();
            eprint!("");
        }
    });
    for _ in 0..100 {
        let error = Process::fork(|| ()).unwrap_err();
        assert!(matches!(error, Error::Launch(LaunchError::ThreadsRunning { threads: 2 })), "{error:?}");
        assert!(error.to_string().contains("thread"), "{error}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.join().unwrap();
    // Alone again, it may.
    Process::fork(move || drop(lock.lock().unwrap())).unwrap().join().unwrap();
}

// Fault 16.
#[test]
fn fork_beside_busy_threads_is_refused() {
    // In a process of its own, which has one thread at first.
    Process::spawn(fork_beside_threads, ()).unwrap().join().unwrap();
}

// Fault 21.
#[test]
fn misuse_is_an_error() {
    let queue = Queue::new().unwrap();
    queue.close().unwrap();
    assert!(queue.put(1_u8).unwrap_err().is_closed());
    assert!(matches!(queue.get(), Err(Error::Queue(QueueError::Closed))));
    assert!(JoinableQueue::<u8>::new().unwrap().task_done().is_err());
    let places = Semaphore::new(1).unwrap();
    drop(places.acquire().unwrap());
    assert_eq!(places.value(), 1);
}

fn say_and_sleep(end: Connection<u8, u8>) {
    end.send(1).unwrap();
    sleep_for_ever()
}

// Fault 21.
by_each_method!(sending_to_a_dead_reader_is_an_error);

fn sending_to_a_dead_reader_is_an_error(by: StartMethod) {
    let (here, there) = pipe::<u8, u8>().unwrap();
    let child = start(by, say_and_sleep, there);
    assert_eq!(here.recv().unwrap(), 1);
    killed(&child);
    // The join may return a moment before what the child held is taken from it.
    eventually(|| here.send(2).is_err_and(|error| error.is_closed()));
    assert!(matches!(here.recv(), Err(Error::Queue(QueueError::Closed))));
}

fn put_three_gibibytes(queue: Queue<Vec<u8>>) -> Result<()> {
    Ok(queue.put(vec![3; 3 << 30])?)
}

fn three_gibibytes(byte: u8) -> Vec<u8> {
    vec![byte; 3 << 30]
}

// Fault 14.
#[test]
#[ignore = "slow: takes 9 GiB; make chaos runs it"]
fn slow_messages_of_three_gibibytes() {
    let before = tenfold::heap_stats().unwrap().live_bytes;
    for by in [StartMethod::Forkserver, StartMethod::Spawn] {
        let queue = Queue::new().unwrap();
        let child = start(by, put_three_gibibytes, queue.clone());
        let message = queue.get_timeout(LONG).unwrap();
        assert!(message.len() == 3 << 30 && message.iter().step_by(4096).all(|byte| *byte == 3));
        child.join().unwrap();
    }
    let pool = tenfold::Pool::new(1).unwrap();
    let result = pool.apply(three_gibibytes, 5).unwrap();
    assert!(result.len() == 3 << 30 && result.iter().step_by(4096).all(|byte| *byte == 5));
    drop((result, pool));
    eventually(|| tenfold::heap_stats().unwrap().live_bytes <= before + (1 << 20));
}
