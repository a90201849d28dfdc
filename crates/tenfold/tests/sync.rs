//! Locks, conditions, values and arrays, handed to other processes as arguments.

use std::time::Duration;

use tenfold::{
    Array, Barrier, BoundedSemaphore, Condition, Dict, Error, Event, Lock, LockError, Manager, Pool, Process, RLock,
    RawArray, RawValue, Result, RwLock, Semaphore, StartMethod, Value,
};

const SOON: Duration = Duration::from_millis(30);

fn hold_until_killed((lock, held): (Lock, Event)) -> Result<()> {
    let _guard = lock.lock()?;
    held.set();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

// Fault 7.
#[test]
fn the_next_holder_gets_the_guard_of_one_that_was_killed() {
    let (lock, held) = (Lock::new().unwrap(), Event::new().unwrap());
    let child = Process::spawn(hold_until_killed, (lock.clone(), held.clone())).unwrap();
    held.wait().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    assert!(matches!(lock.lock_timeout(SOON), Err(LockError::TimedOut)));
    child.kill().unwrap();
    match lock.lock() {
        Err(LockError::OwnerDied(guard)) => {
            assert!(lock.is_locked());
            drop(guard);
        }
        other => panic!("{other:?}"),
    }
    drop(lock.lock().unwrap());
    assert!(child.join().is_err());
}

// Fault 7.
#[test]
fn a_question_mark_lets_go_of_the_lock_and_says_what_to_do() {
    fn take(lock: &Lock) -> Result<()> {
        let _guard = lock.lock()?;
        Ok(())
    }
    let (lock, held) = (Lock::new().unwrap(), Event::new().unwrap());
    let child = Process::spawn(hold_until_killed, (lock.clone(), held.clone())).unwrap();
    held.wait().unwrap();
    child.kill().unwrap();
    let error = take(&lock).unwrap_err();
    assert!(matches!(error, Error::OwnerDied { what: "lock" }));
    assert!(error.to_string().contains("check what the lock guards"), "{error}");
    assert!(!lock.is_locked());
    take(&lock).unwrap();
    assert!(child.join().is_err());
}

fn count((value, times): (Value<u64>, u32)) -> Result<()> {
    for _ in 0..times {
        *value.lock()? += 1;
    }
    Ok(())
}

#[test]
fn a_value_counts_right_in_any_start_method() {
    let value = Value::new(0_u64).unwrap();
    let children: Vec<Process> = [StartMethod::Spawn, StartMethod::Forkserver]
        .into_iter()
        .map(|method| Process::builder().start_method(method).spawn(count, (value.clone(), 5_000)).unwrap())
        .collect();
    count((value.clone(), 5_000)).unwrap();
    children.iter().for_each(|child| child.join().unwrap());
    assert_eq!(value.get().unwrap(), 15_000);
}

fn change((n, a): (Value<f64>, Array<i32>)) -> Result<()> {
    *n.lock()? = 2.5;
    for x in a.lock()?.iter_mut() {
        *x = -*x;
    }
    Ok(())
}

#[test]
fn the_tutorial_s_value_and_array() {
    let (n, a) = (Value::new(0.0).unwrap(), Array::from_iter(0..10).unwrap());
    Process::spawn(change, (n.clone(), a.clone())).unwrap().join().unwrap();
    assert_eq!(n.get().unwrap(), 2.5);
    assert_eq!(a.to_vec().unwrap(), (0..10).map(|x| -x).collect::<Vec<i32>>());
}

fn fill_large((a, from): (Array<u64>, usize)) -> Result<()> {
    for (index, x) in a.lock()?.iter_mut().enumerate().skip(from) {
        *x = index as u64;
    }
    Ok(())
}

#[test]
fn an_array_of_many_megabytes_is_one_slice() {
    let len = 3 << 20;
    let a = Array::<u64>::zeroed(len).unwrap();
    Process::spawn(fill_large, (a.clone(), len / 2)).unwrap().join().unwrap();
    let guard = a.lock().unwrap();
    assert_eq!(
        (guard.len(), guard[len / 2 - 1], guard[len / 2], guard[len - 1]),
        (len, 0, len as u64 / 2, len as u64 - 1)
    );
}

fn raw((value, array): (RawValue<u32>, RawArray<i16>)) -> u32 {
    value.set(value.get().unwrap() + 1).unwrap();
    for index in 0..array.len() {
        array.set(index, -array.get(index).unwrap()).unwrap();
    }
    value.get().unwrap()
}

#[test]
fn raw_data_is_shared_too() {
    let (value, array) = (RawValue::new(41).unwrap(), RawArray::from_iter(0..100_i16).unwrap());
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(raw, (value.clone(), array.clone())).unwrap(), 42);
    assert_eq!(value.get().unwrap(), 42);
    assert_eq!(array.to_vec().unwrap()[99], -99);
    assert!(matches!(array.get(100), Err(Error::InvalidArgument(_))));
}

fn in_turn((lock, depth): (RLock, u32)) -> u32 {
    let _guard = lock.lock().unwrap();
    if depth == 0 { 0 } else { 1 + in_turn((lock.clone(), depth - 1)) }
}

#[test]
fn an_rlock_is_re_entered_by_its_thread_alone() {
    let lock = RLock::new().unwrap();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(in_turn, (0..20).map(|d| (lock.clone(), d))).unwrap(), (0..20).collect::<Vec<_>>());
    let _mine = lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(lock.try_lock().unwrap().is_none()));
    });
    assert!(lock.try_lock().unwrap().is_some());
}

fn visit((places, inside, most): (Semaphore, Value<u32>, Value<u32>)) {
    let _permit = places.acquire().unwrap();
    let now = {
        let mut inside = inside.lock().unwrap();
        *inside += 1;
        *inside
    };
    let mut record = most.lock().unwrap();
    *record = (*record).max(now);
    drop(record);
    std::thread::sleep(Duration::from_millis(1));
    *inside.lock().unwrap() -= 1;
}

#[test]
fn a_semaphore_lets_so_many_in() {
    let (places, inside, most) = (Semaphore::new(2).unwrap(), Value::new(0).unwrap(), Value::new(0).unwrap());
    let pool = Pool::new(4).unwrap();
    pool.map(visit, (0..60).map(|_| (places.clone(), inside.clone(), most.clone()))).unwrap();
    assert!(most.get().unwrap() <= 2);
    assert_eq!((inside.get().unwrap(), places.value()), (0, 2));
}

fn take_two((places, taken): (BoundedSemaphore, Event)) -> Result<()> {
    let _one = places.acquire()?;
    assert!(places.acquire_raw(None)?);
    taken.set();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

// Fault 7.
#[test]
fn a_killed_holder_gives_its_permits_back_but_not_its_tokens() {
    let (places, taken) = (BoundedSemaphore::new(2).unwrap(), Event::new().unwrap());
    let child = Process::spawn(take_two, (places.clone(), taken.clone())).unwrap();
    taken.wait().unwrap();
    assert!(matches!(places.acquire_timeout(SOON), Err(Error::TimedOut { .. })));
    child.kill().unwrap();
    let permit = places.acquire().unwrap();
    assert!(places.try_acquire().unwrap().is_none());
    places.release_raw(1).unwrap();
    drop(permit);
    assert!(matches!(places.release_raw(1), Err(Error::Misuse(_))));
    assert!(child.join().is_err());
}

fn consume((changed, stock, n): (Condition, Value<u64>, u64)) -> Result<()> {
    for _ in 0..n {
        let mut held = changed.lock()?;
        changed.wait_for(&mut held, || Ok(stock.get()? > 0))?;
        *stock.lock()? -= 1;
    }
    Ok(())
}

#[test]
fn a_condition_hands_every_item_to_somebody() {
    let (changed, stock) = (Condition::new().unwrap(), Value::new(0_u64).unwrap());
    let consumers: Vec<Process> =
        (0..3).map(|_| Process::spawn(consume, (changed.clone(), stock.clone(), 100)).unwrap()).collect();
    for _ in 0..300 {
        let _held = changed.lock().unwrap();
        *stock.lock().unwrap() += 1;
        changed.notify_one().unwrap();
    }
    consumers.iter().for_each(|c| c.join().unwrap());
    assert_eq!(stock.get().unwrap(), 0);
}

// Fault 21.
#[test]
fn a_condition_wants_its_own_lock() {
    let (lock, other) = (RLock::new().unwrap(), Lock::new().unwrap());
    let condition = Condition::with_rlock(&lock).unwrap();
    assert!(matches!(condition.lock(), Err(LockError::Failed(Error::InvalidArgument(_)))));
    let mut wrong = other.lock().unwrap();
    assert!(matches!(condition.wait(&mut wrong), Err(Error::InvalidArgument(_))));
    let _outer = lock.lock().unwrap();
    let mut inner = lock.lock().unwrap();
    assert!(!condition.wait_timeout(&mut inner, SOON).unwrap());
    assert!(!condition.wait_for_timeout(&mut inner, SOON, || Ok(false)).unwrap());
    assert!(condition.wait_for_timeout(&mut inner, SOON, || Ok(true)).unwrap());
    assert_eq!((condition.notify_all().unwrap(), condition.notify_one().unwrap()), (0, false));
}

fn meet((barrier, places): (Barrier, RawArray<u32>)) -> Result<()> {
    for _ in 0..50 {
        let place = barrier.wait()? as usize;
        places.set(place, places.get(place)? + 1)?;
        barrier.wait()?;
    }
    Ok(())
}

#[test]
fn a_barrier_gives_each_place_once_a_round() {
    let (barrier, places) = (Barrier::new(3).unwrap(), RawArray::zeroed(3).unwrap());
    let others: Vec<Process> =
        (0..2).map(|_| Process::spawn(meet, (barrier.clone(), places.clone())).unwrap()).collect();
    meet((barrier, places.clone())).unwrap();
    others.iter().for_each(|c| c.join().unwrap());
    assert_eq!(places.to_vec().unwrap(), [50, 50, 50]);
}

fn arrive(barrier: Barrier) -> Result<()> {
    barrier.wait().map(|_| ())
}

// Fault 7.
#[test]
fn a_killed_party_breaks_the_barrier() {
    let barrier = Barrier::new(3).unwrap();
    let child = Process::spawn(arrive, barrier.clone()).unwrap();
    while barrier.waiting() == 0 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert!(matches!(barrier.wait(), Err(Error::BrokenBarrier)));
    assert!(barrier.is_broken());
    barrier.reset().unwrap();
    assert!(matches!(barrier.wait_timeout(SOON), Err(Error::TimedOut { .. })));
    assert!(child.join().is_err());
}

fn read_and_write((lock, low, high): (RwLock, RawValue<u64>, RawValue<u64>)) -> Result<()> {
    for round in 0..500 {
        if round % 3 == 0 {
            let _alone = lock.write()?;
            low.set(low.get()? + 1)?;
            high.set(high.get()? + 1)?;
        } else {
            let _shared = lock.read()?;
            assert_eq!(low.get()?, high.get()?);
        }
    }
    Ok(())
}

#[test]
fn readers_never_see_half_a_write() {
    let (lock, low, high) = (RwLock::new().unwrap(), RawValue::new(0).unwrap(), RawValue::new(0).unwrap());
    let arguments = || (lock.clone(), low.clone(), high.clone());
    let others: Vec<Process> = (0..2).map(|_| Process::spawn(read_and_write, arguments()).unwrap()).collect();
    read_and_write(arguments()).unwrap();
    others.iter().for_each(|c| c.join().unwrap());
    assert_eq!(low.get().unwrap(), 3 * 167);
}

fn through_a_dict(dict: Dict<String, (Lock, Value<i64>)>) -> Result<()> {
    let (lock, value) = dict.get("account")?.ok_or_else(|| Error::InvalidArgument("nothing there".into()))?;
    let _held = lock.lock()?;
    value.set(7)
}

#[test]
fn handles_live_inside_containers() {
    let dict = Manager::new().unwrap().dict().unwrap();
    let value = Value::new(0_i64).unwrap();
    dict.insert("account".to_string(), (Lock::new().unwrap(), value.clone())).unwrap();
    Process::spawn(through_a_dict, dict.clone()).unwrap().join().unwrap();
    assert_eq!(value.get().unwrap(), 7);
}

// Fault 16.
#[test]
fn a_forked_child_does_not_free_what_its_parent_holds() {
    // In a process of its own, since this test program has other threads.
    let child = Process::spawn(fork_holding, ()).unwrap();
    child.join().unwrap();
}

fn fork_holding((): ()) -> Result<()> {
    let (lock, places, value) = (Lock::new()?, Semaphore::new(1)?, Value::new(1)?);
    let (guard, permit, mut locked) = (lock.lock()?, places.acquire()?, value.lock()?);
    Process::fork(|| {
        assert!(lock.try_lock().unwrap().is_none());
        assert!(places.try_acquire().unwrap().is_none());
    })?
    .join()?;
    assert!(lock.is_locked());
    assert_eq!(places.value(), 0);
    *locked += 1;
    drop((guard, permit, locked));
    assert_eq!((lock.is_locked(), places.value(), value.get()?), (false, 1, 2));
    Ok(())
}
