//! Queues and pipes of values, between processes started in the usual way.

use std::time::Duration;

use tenfold::{Connection, Error, JoinableQueue, Lock, Process, Queue, QueueError, SimpleQueue, active_children, pipe};

const A_MOMENT: Duration = Duration::from_millis(30);

fn produce((queue, range): (Queue<(u32, String)>, std::ops::Range<u32>)) -> tenfold::Result<()> {
    for n in range {
        queue.put((n, "x".repeat(n as usize % 300)))?;
    }
    Ok(())
}

#[test]
fn values_arrive_from_several_processes() {
    let queue = Queue::bounded(10).unwrap();
    let children: Vec<_> =
        (0..3).map(|c| Process::spawn(produce, (queue.clone(), c * 1000..(c + 1) * 1000)).unwrap()).collect();
    let mut seen = Vec::new();
    while seen.len() < 3000 {
        let (n, text) = queue.get().unwrap();
        assert_eq!(text.len(), n as usize % 300);
        seen.push(n);
    }
    for child in children {
        child.join().unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..3000).collect::<Vec<_>>());
    assert!(queue.is_empty());
}

// Fault 21.
#[test]
fn a_full_queue_hands_the_value_back() {
    let queue = Queue::bounded(2).unwrap();
    queue.put("a".to_owned()).unwrap();
    queue.try_put("b".to_owned()).unwrap();
    let error = queue.try_put("c".to_owned()).unwrap_err();
    assert!(error.is_full() && !error.is_closed());
    assert_eq!(error.into_inner(), "c");
    let error = queue.put_timeout("d".to_owned(), A_MOMENT).unwrap_err();
    assert!(error.is_full() && matches!(error.error, Error::TimedOut { .. }));
    assert!(queue.is_full());
    assert_eq!((queue.len(), queue.capacity()), (2, Some(2)));
    queue.close().unwrap();
    let error = queue.put_many(["e".to_owned(), "f".to_owned()]).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.into_inner(), ["e", "f"]);
    assert_eq!(queue.iter().collect::<tenfold::Result<Vec<_>>>().unwrap(), ["a", "b"]);
    assert!(matches!(queue.get(), Err(Error::Queue(QueueError::Closed))));
}

#[test]
fn an_empty_queue_makes_wait_or_says_so() {
    let queue = Queue::<u8>::new().unwrap();
    assert!(matches!(queue.try_get(), Err(Error::Queue(QueueError::Empty))));
    assert!(matches!(queue.get_timeout(A_MOMENT), Err(Error::TimedOut { .. })));
    assert!(matches!(Queue::<u8>::bounded(0), Err(Error::InvalidArgument(_))));
}

#[test]
fn many_values_at_once() {
    let queue = Queue::new().unwrap();
    queue.put_many((0..1000_u64).map(|n| vec![n; n as usize % 50])).unwrap();
    let mut all = Vec::new();
    while all.len() < 1000 {
        all.extend(queue.get_many(300).unwrap());
    }
    assert!(all.iter().enumerate().all(|(n, v)| *v == vec![n as u64; n % 50]));
}

/// Refuses to be encoded if it is odd, to be decoded if it is 2 modulo 4.
#[derive(Debug, PartialEq)]
struct Picky(u32);

impl serde::Serialize for Picky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 { Err(serde::ser::Error::custom("odd")) } else { self.0.serialize(serializer) }
    }
}

impl<'de> serde::Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Picky, D::Error> {
        match u32::deserialize(deserializer)? {
            n if n % 4 == 2 => Err(serde::de::Error::custom("not a multiple of four")),
            n => Ok(Picky(n)),
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_an_error_where_it_is_put() {
    let queue = Queue::new().unwrap();
    let error = queue.put(Picky(1)).unwrap_err();
    assert!(matches!(error.error, Error::Encode { .. }), "{error}");
    assert_eq!(error.into_inner(), Picky(1));
    let error = queue.put_many([Picky(0), Picky(4), Picky(5), Picky(8)]).unwrap_err();
    assert_eq!(error.into_inner(), [Picky(5), Picky(8)]);
    queue.put(Picky(2)).unwrap();
    queue.put(Picky(12)).unwrap();
    assert_eq!(queue.get_many(2).unwrap(), [Picky(0), Picky(4)]);
    assert!(matches!(queue.get(), Err(Error::Decode { .. })));
    assert_eq!(queue.get().unwrap(), Picky(12));
}

/// Says that it holds a queue of numbers and is read as another type.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Liar<R: 'static>(Queue<u64>, #[serde(skip)] std::marker::PhantomData<fn() -> R>);

impl<'de, R: serde::Deserialize<'de>> serde::Deserialize<'de> for Liar<R> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Liar<R>, D::Error> {
        R::deserialize(deserializer)?;
        Ok(Liar(Queue::new().map_err(serde::de::Error::custom)?, std::marker::PhantomData))
    }
}

#[test]
fn a_queue_received_as_another_type_is_an_error() {
    fn sent_as_queue_of_numbers<R: serde::de::DeserializeOwned + 'static>() -> tenfold::Result<()> {
        let queue = Queue::new()?;
        queue.put(Liar::<R>(Queue::new()?, std::marker::PhantomData))?;
        queue.get().map(drop)
    }
    sent_as_queue_of_numbers::<Queue<u64>>().unwrap();
    for wrong in [
        sent_as_queue_of_numbers::<Queue<String>>(),
        sent_as_queue_of_numbers::<JoinableQueue<u64>>(),
        sent_as_queue_of_numbers::<Lock>(),
    ] {
        assert!(matches!(wrong, Err(Error::Decode { .. })), "{wrong:?}");
    }
}

#[test]
fn handles_travel_inside_values() {
    let queue = Queue::new().unwrap();
    let child = Process::spawn(
        |queue: Queue<(Queue<String>, Lock, Option<JoinableQueue<u8>>)>| -> tenfold::Result<()> {
            let (answers, lock, more) = queue.get()?;
            let _held = lock.lock()?;
            answers.put(format!("more is {}", more.is_some()))?;
            Ok(())
        },
        queue.clone(),
    )
    .unwrap();
    let answers = Queue::new().unwrap();
    queue.put_many([(answers.clone(), Lock::new().unwrap(), Some(JoinableQueue::new().unwrap()))]).unwrap();
    assert_eq!(answers.get().unwrap(), "more is true");
    child.join().unwrap();
}

#[test]
fn join_waits_for_all_tasks() {
    let queue = JoinableQueue::bounded(4).unwrap();
    let results = SimpleQueue::new().unwrap();
    let work = |(queue, results): (JoinableQueue<u64>, SimpleQueue<u64>)| -> tenfold::Result<()> {
        for task in queue.iter() {
            results.put(task? * 2)?;
            queue.task_done()?;
        }
        Ok(())
    };
    let children: Vec<_> = (0..2).map(|_| Process::spawn(work, (queue.clone(), results.clone())).unwrap()).collect();
    queue.put_many(0..100).unwrap();
    queue.join().unwrap();
    assert_eq!(queue.unfinished(), 0);
    let mut all: Vec<u64> = (0..100).map(|_| results.get().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).map(|n| n * 2).collect::<Vec<_>>());
    assert!(matches!(queue.task_done(), Err(Error::Queue(QueueError::TooManyDone))));
    queue.put(1).unwrap();
    queue.close().unwrap();
    results.get().unwrap();
    for child in children {
        child.join().unwrap();
    }
    assert!(results.is_empty());
}

fn answer(end: Connection<u64, Vec<f64>>) -> tenfold::Result<()> {
    while let Ok(numbers) = end.recv() {
        end.send(numbers.len() as u64)?;
    }
    Ok(())
}

// Fault 21.
#[test]
fn a_pipe_goes_both_ways_and_ends() {
    let (here, there) = pipe::<Vec<f64>, u64>().unwrap();
    let child = Process::spawn(answer, there).unwrap();
    for n in [0, 1, 100, 100_000] {
        here.send(vec![1.5; n]).unwrap();
        assert_eq!(here.recv().unwrap(), n as u64);
    }
    assert!(!here.poll(Duration::ZERO).unwrap());
    assert!(matches!(here.try_recv(), Err(Error::Queue(QueueError::Empty))));
    assert!(matches!(here.recv_timeout(A_MOMENT), Err(Error::TimedOut { .. })));
    here.close();
    child.join().unwrap();

    let (here, there) = pipe::<Vec<f64>, u64>().unwrap();
    let child = Process::spawn(
        |end: Connection<u64, Vec<f64>>| {
            let _ = end.send(1);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        },
        there,
    )
    .unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    child.kill().unwrap();
    assert!(child.join().is_err());
    assert!(matches!(here.recv(), Err(Error::Queue(QueueError::Closed))));
    assert!(here.poll(Duration::ZERO).unwrap());
    let error = here.send(vec![2.5]).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.into_inner(), [2.5]);
    let _ = active_children();
}

#[test]
fn clones_and_debug_show_the_queue() {
    let queue = Queue::new().unwrap();
    queue.put(1_u8).unwrap();
    assert_eq!(format!("{queue:?}"), "Queue { len: 1, .. }");
    assert_eq!(queue.clone().get().unwrap(), 1);
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Queue<std::cell::Cell<u8>>>();
    is_send_and_sync::<Connection<String, u8>>();
}
