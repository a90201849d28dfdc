//! Everything at once under random SIGKILLs: producers and consumers of a queue, lockers, writers of a
//! dict, tasks of a pool. What must have arrived is known from a model:
//!
//! - each producer puts (itself, 0), (itself, 1), … and after each put notes how far it is;
//! - a consumer enters each message into the dict, and notes a second entry of the same as a double;
//! - so of each producer's messages all up to its last note must be in the dict, but for at most one
//!   for each killed consumer (the one that it had in its hands);
//! - lockers change two numbers under a lock, which must be equal whenever it is free, or whoever gets
//!   `OwnerDied` makes them so;
//! - a pool squares numbers, with retries, and must be right about all of them.
//!
//! `TENFOLD_SOAK` is how long to go on, in seconds (default 5). A long run goes in rounds, each with a model of its own:
//! the model keeps each message, so that a round ends when there are many.
//!
//! The memory of this process is printed in two parts. *Private* is its own: malloc, which keeps what the counting of a
//! round has needed. *Shared* are the heap's pages that it has looked at: the heap keeps its pages for the next round,
//! so this rises to what the largest round has needed, and stays there. Both are held against the rounds of the first
//! minute.

use std::time::{Duration, Instant};

use tenfold::{Dict, Lock, LockError, Pool, Process, Queue, RawArray, Result, Value};

/// Producers there can be in one round, replacements included.
const PRODUCERS: usize = 20_000;
/// How long one round lasts, unless there are so many messages before.
const ROUND: Duration = Duration::from_secs(15);
const MESSAGES: u64 = 500_000;
/// When the memory has been seen that the largest rounds need.
const SETTLED: Duration = Duration::from_secs(60);
/// By how much it may differ from then on: a round is a little larger than another.
const SLACK: u64 = 48 << 20;

fn seconds() -> u64 {
    std::env::var("TENFOLD_SOAK").ok().and_then(|s| s.parse().ok()).unwrap_or(5)
}

/// A small generator of numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

type Message = (u32, u64, String);

fn produce((queue, notes, me): (Queue<Message>, RawArray<u64>, u32)) -> Result<()> {
    for n in 0.. {
        // Short ones travel inside the queue, long ones in blocks of their own.
        let load = "x".repeat((n % 7) as usize * 40);
        queue.put((me, n, load))?;
        notes.set(me as usize, n + 1)?;
        if n % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

type Arrivals = (Queue<Message>, Dict<(u32, u64), u32>, Value<u64>);

fn consume((queue, seen, doubles): Arrivals) -> Result<()> {
    loop {
        let (producer, n, load) = queue.get()?;
        assert_eq!(load.len(), (n % 7) as usize * 40);
        if seen.insert((producer, n), std::process::id())?.is_some() {
            // The lock of a Value recovers from the death of its holder by itself here: a lost
            // count of doubles is still a count of doubles.
            match doubles.lock() {
                Ok(mut count) => *count += 1,
                Err(error) => *error.recover()? += 1,
            }
        }
    }
}

fn hold((lock, pair, died): (Lock, RawArray<u64>, RawArray<u64>)) -> Result<()> {
    loop {
        let guard = match lock.lock() {
            Ok(guard) => {
                assert_eq!(pair.get(0)?, pair.get(1)?, "a lock was given away while its guarded data was half-changed");
                guard
            }
            Err(LockError::OwnerDied(guard)) => {
                died.set(0, died.get(0)? + 1)?;
                pair.set(1, pair.get(0)?)?;
                guard
            }
            Err(error) => return Err(error.into()),
        };
        pair.set(0, pair.get(0)? + 1)?;
        for _ in 0..20 {
            std::hint::spin_loop();
        }
        pair.set(1, pair.get(0)?)?;
        drop(guard);
    }
}

fn scribble((dict, me): (Dict<String, Vec<u32>>, u32)) -> Result<()> {
    let mut dice = Dice(u64::from(me) * 2 + 1);
    loop {
        let key = format!("key {}", dice.throw(50));
        match dice.throw(4) {
            0 => drop(dict.remove(&key)?),
            // Each value is the same number over and over, so a torn one would be seen.
            _ => drop(dict.insert(key.clone(), vec![me; dice.throw(300) as usize])?),
        }
        if let Some(value) = dict.get(&key)? {
            assert!(value.windows(2).all(|w| w[0] == w[1]), "torn: {value:?}");
        }
    }
}

fn square(n: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(100));
    n * n
}

fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Memory, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    /// This process's own.
    private: u64,
    /// Of the heap's pages, those that this process has looked at.
    shared: u64,
    /// The heap's pages.
    heap: u64,
}

impl Memory {
    fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let (private, shared) = (kibibytes("RssAnon:") << 10, kibibytes("RssShmem:") << 10);
        Ok(Memory { private, shared, heap: tenfold::heap_stats()?.committed_bytes })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [private, shared, heap] = [self.private, self.shared, self.heap].map(|bytes| bytes >> 10);
        write!(f, "{private} KiB private, {shared} KiB shared of a heap of {heap} KiB")
    }
}

/// What has happened in a round, or in all of them.
#[derive(Default)]
struct Tally {
    kills: u64,
    tasks: u64,
    put: u64,
    seen: u64,
    lost: u64,
    killed_consumers: u64,
    owners_died: u64,
    killed_lockers: u64,
    turns: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.kills += other.kills;
        self.tasks += other.tasks;
        self.put += other.put;
        self.seen += other.seen;
        self.lost += other.lost;
        self.killed_consumers += other.killed_consumers;
        self.owners_died += other.owners_died;
        self.killed_lockers += other.killed_lockers;
        self.turns += other.turns;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} kills; {} tasks done, 0 lost; {} messages put, {} seen, {} lost in the hands of {} killed consumers, \
             0 beyond; {} times the lock's owner had died, of {} killed lockers, {} turns",
            self.kills,
            self.tasks,
            self.put,
            self.seen,
            self.lost,
            self.killed_consumers,
            self.owners_died,
            self.killed_lockers,
            self.turns
        )
    }
}

/// One of the kinds of process that the soak keeps going.
struct Crew<F: Fn(u32) -> Result<Process>> {
    start: F,
    members: Vec<Process>,
    started: u32,
    killed: u32,
}

impl<F: Fn(u32) -> Result<Process>> Crew<F> {
    fn new(size: u32, start: F) -> Result<Self> {
        let members = (0..size).map(&start).collect::<Result<_>>()?;
        Ok(Crew { start, members, started: size, killed: 0 })
    }

    /// Kills one member and starts another in its place.
    fn kill_one(&mut self, dice: &mut Dice) -> Result<()> {
        let place = dice.throw(self.members.len() as u64) as usize;
        let next = (self.start)(self.started)?;
        let victim = std::mem::replace(&mut self.members[place], next);
        self.started += 1;
        victim.kill()?;
        let error = victim.join().expect_err("a killed process does not end well").to_string();
        assert!(error.contains("signal 9"), "{error}");
        self.killed += 1;
        Ok(())
    }

    fn end(self) -> Result<()> {
        for member in &self.members {
            member.kill()?;
        }
        for member in self.members {
            let error = member.join().expect_err("a killed process does not end well").to_string();
            assert!(error.contains("signal 9"), "{error}");
        }
        Ok(())
    }
}

#[test]
fn everything_at_once_under_fire() -> Result<()> {
    // What is made once a family (nursery, warden, the heap itself), and kept.
    Process::spawn(|()| (), ())?.join()?;
    drop(Pool::new(1)?);
    let heap = tenfold::heap_stats()?;
    let open = fds();
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds()));
    println!("rust soak: {} bytes in use, {open} descriptors, {} at the start", heap.live_bytes, Memory::now()?);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut total = Tally::default();
    let mut settled = None;
    while start.elapsed() < limit {
        total.add(&round(&mut dice, ROUND.min(limit - start.elapsed()))?);
        let memory = Memory::now()?;
        println!("rust soak, {:.0} s: {total}; {memory}", start.elapsed().as_secs_f64());
        if start.elapsed() < SETTLED {
            settled = Some(memory);
        } else if let Some(settled) = settled {
            assert!(memory.private <= settled.private + SLACK, "private memory grows: {settled}, later {memory}");
            assert!(memory.heap <= settled.heap + SLACK, "the heap grows: {settled}, later {memory}");
        }
    }
    // The last of the swept are freed by the warden in its own time.
    let patience = Instant::now() + Duration::from_secs(20);
    while tenfold::heap_stats()?.live_blocks > heap.live_blocks && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = tenfold::heap_stats()?;
    println!(
        "rust soak, heap: {} blocks and {} bytes at the start, {} and {} at the end; descriptors {open} and {}; \
         {} at the end",
        heap.live_blocks,
        heap.live_bytes,
        after.live_blocks,
        after.live_bytes,
        fds(),
        Memory::now()?
    );
    assert!(after.live_blocks <= heap.live_blocks, "{heap:?} {after:?}");
    assert_eq!(fds(), open);
    Ok(())
}

/// Everything at once for a while. A violation of the model panics.
fn round(dice: &mut Dice, limit: Duration) -> Result<Tally> {
    let queue: Queue<Message> = Queue::bounded(5000)?;
    let notes = RawArray::zeroed(PRODUCERS)?;
    let (seen, doubles) = (Dict::new()?, Value::new(0_u64)?);
    let (lock, pair, died) = (Lock::new()?, RawArray::zeroed(2)?, RawArray::zeroed(1)?);
    let dict: Dict<String, Vec<u32>> = Dict::new()?;

    let (q, n) = (queue.clone(), notes.clone());
    let mut producers = Crew::new(2, move |me| Process::spawn(produce, (q.clone(), n.clone(), me)))?;
    let (q, s, d) = (queue.clone(), seen.clone(), doubles.clone());
    let mut consumers = Crew::new(2, move |_| Process::spawn(consume, (q.clone(), s.clone(), d.clone())))?;
    let (l, p, d) = (lock.clone(), pair.clone(), died.clone());
    let mut lockers = Crew::new(3, move |_| Process::spawn(hold, (l.clone(), p.clone(), d.clone())))?;
    let d = dict.clone();
    let mut scribes = Crew::new(2, move |me| Process::spawn(scribble, (d.clone(), me)))?;
    let pool = Pool::new(2)?;

    let start = Instant::now();
    let (mut kills, mut tasks) = (0_u64, 0_u64);
    let put = || Ok::<u64, tenfold::Error>(notes.to_vec()?.into_iter().sum());
    while start.elapsed() < limit && (producers.started as usize) < PRODUCERS && put()? < MESSAGES {
        let map = pool.options().retries(100).map_async(square, tasks..tasks + 200)?;
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(dice.throw(15)));
            match dice.throw(5) {
                0 => producers.kill_one(dice)?,
                1 => consumers.kill_one(dice)?,
                2 => lockers.kill_one(dice)?,
                3 => scribes.kill_one(dice)?,
                _ => {
                    let pids = pool.worker_pids();
                    if let Some(pid) = pids.get(dice.throw(pids.len().max(1) as u64) as usize) {
                        // It may have died by itself meanwhile.
                        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).output();
                    }
                }
            }
            kills += 1;
        }
        let squares = map.get_timeout(Duration::from_secs(60))?;
        assert_eq!(squares, (tasks..tasks + 200).map(|n| n * n).collect::<Vec<_>>());
        tasks += 200;
    }

    let (begun, killed_consumers, killed_lockers) = (producers.started, consumers.killed, lockers.killed);
    producers.end()?;
    lockers.end()?;
    scribes.end()?;
    // What is still in the queue belongs to the count.
    let patience = Instant::now() + Duration::from_secs(60);
    while !queue.is_empty() {
        assert!(Instant::now() < patience, "the queue is never emptied: {} left", queue.len());
        std::thread::sleep(Duration::from_millis(10));
    }
    // The consumers may be entering their last ones.
    std::thread::sleep(Duration::from_millis(300));
    consumers.end()?;

    let mut counts = vec![0_u64; PRODUCERS];
    let mut highest = vec![0_u64; PRODUCERS];
    for (producer, n) in seen.keys()? {
        counts[producer as usize] += 1;
        highest[producer as usize] = highest[producer as usize].max(n + 1);
    }
    let (mut messages, mut lost) = (0, 0);
    for producer in 0..begun as usize {
        let noted = notes.get(producer)?;
        // A producer killed between its put and its note has put one more.
        assert!(highest[producer] <= noted + 1, "{producer}: {} of {noted}", highest[producer]);
        messages += counts[producer];
        lost += highest[producer].max(noted) - counts[producer];
    }
    assert_eq!(*doubles.lock()?, 0, "messages were seen twice");
    // Two more consumers were killed at the end, with nothing in their hands as a rule.
    assert!(lost <= u64::from(killed_consumers) + 2, "{lost} lost, {killed_consumers} consumers killed");
    assert!(died.get(0)? <= u64::from(killed_lockers) + 3);
    Ok(Tally {
        kills,
        tasks,
        put: messages + lost,
        seen: messages,
        lost,
        killed_consumers: u64::from(killed_consumers),
        owners_died: died.get(0)?,
        killed_lockers: u64::from(killed_lockers),
        turns: pair.get(0)?,
    })
}
