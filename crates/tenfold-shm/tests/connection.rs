//! Pipes among processes: both directions, the end of the other side, however it comes.

#[path = "support/crash.rs"]
mod crash;

use std::time::Duration;

use crash::{Before, alone, in_child};
use tenfold_shm::connection::{Connection, one_way_pipe, pipe};
use tenfold_shm::message::Outgoing;
use tenfold_shm::queue::{Queue, QueueError};
use tenfold_sys::clock::Deadline;

const NEVER: Deadline = Deadline::never();

fn send(end: &Connection, bytes: &[u8]) {
    end.send(Outgoing { parts: &[bytes], handles: &[] }).unwrap();
}

fn receive(end: &Connection) -> Vec<u8> {
    end.receive(NEVER).unwrap().to_vec().unwrap()
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(30))
}

#[test]
fn both_ends_send_and_receive() {
    alone(|heap| {
        let before = Before::of(heap);
        let (here, there) = pipe(heap).unwrap();
        let child = in_child(|| {
            for _ in 0..1000 {
                let mut message = receive(&there);
                message.push(b'!');
                send(&there, &message);
            }
        });
        for length in 0..1000 {
            send(&here, &vec![b'x'; length]);
            let echo = receive(&here);
            assert_eq!((echo.len(), echo.last()), (length + 1, Some(&b'!')));
        }
        child.succeeds();
        send(&here, b"left behind");
        drop((here, there));
        before.assert_unchanged();
    });
}

#[test]
fn the_last_message_is_followed_by_the_end() {
    alone(|heap| {
        let (here, there) = pipe(heap).unwrap();
        send(&there, b"one");
        send(&there, b"two");
        assert_eq!(receive(&here), b"one");
        let clone = there.clone();
        drop(there);
        assert_eq!(receive(&here), b"two");
        assert_eq!(here.receive(soon()).unwrap_err(), QueueError::TimedOut);
        assert_eq!(here.poll(soon()), Ok(false));
        send(&clone, b"three");
        assert_eq!(here.poll(NEVER), Ok(true));
        drop(clone);
        assert_eq!(receive(&here), b"three");
        assert_eq!(here.poll(NEVER), Ok(true));
        assert_eq!(here.receive(NEVER).unwrap_err(), QueueError::Closed);
        assert_eq!(here.send(Outgoing { parts: &[], handles: &[] }), Err(QueueError::Closed));
    });
}

#[test]
fn a_killed_process_closes_its_end() {
    alone(|heap| {
        let before = Before::of(heap);
        let (here, there) = pipe(heap).unwrap();
        let child = in_child(|| {
            drop(here.clone());
            send(&there, b"last words");
            crash::in_child(|| ()).succeeds();
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        drop(there);
        assert_eq!(receive(&here), b"last words");
        child.kill();
        crash::sweep(heap);
        assert_eq!(here.receive(NEVER).unwrap_err(), QueueError::Closed);
        drop(here);
        before.assert_unchanged();
    });
}

#[test]
fn an_end_in_a_message_is_not_closed() {
    alone(|heap| {
        let before = Before::of(heap);
        let post = Queue::create(heap, None).unwrap();
        let (here, there) = pipe(heap).unwrap();
        post.put(Outgoing { parts: &[b"end"], handles: std::slice::from_ref(there.handle()) }, NEVER).unwrap();
        drop(there);
        send(&here, b"ping");
        let child = in_child(|| {
            let message = post.get(NEVER).unwrap();
            let there = Connection::from_handle(message.handles().unwrap().remove(0)).unwrap();
            assert_eq!(receive(&there), b"ping");
            send(&there, b"pong");
        });
        assert_eq!(receive(&here), b"pong");
        child.succeeds();
        crash::sweep(heap);
        assert_eq!(here.receive(NEVER).unwrap_err(), QueueError::Closed);
        drop(here);
        // Not taken out: the queue's end is the end's end.
        let (here, there) = pipe(heap).unwrap();
        post.put(Outgoing { parts: &[b"end"], handles: std::slice::from_ref(there.handle()) }, NEVER).unwrap();
        drop(there);
        drop(post);
        assert_eq!(here.receive(NEVER).unwrap_err(), QueueError::Closed);
        drop(here);
        before.assert_unchanged();
    });
}

#[test]
fn a_one_way_pipe_has_a_receiver_and_a_sender() {
    alone(|heap| {
        let (receiver, sender) = one_way_pipe(heap).unwrap();
        send(&sender, b"x");
        assert_eq!(receiver.send(Outgoing { parts: &[], handles: &[] }), Err(QueueError::Closed));
        assert_eq!(sender.receive(NEVER).unwrap_err(), QueueError::Closed);
        assert_eq!(receive(&receiver), b"x");
        drop(sender);
        assert_eq!(receiver.receive(NEVER).unwrap_err(), QueueError::Closed);
    });
}
