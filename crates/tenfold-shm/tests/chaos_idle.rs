//! Kills between deciding to wake an idle worker and its being up: whoever comes after must not wait for a
//! wake-up that will never be answered.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;

use std::time::Duration;

use crash::{Child, KILLED, alone, in_child};
use tenfold_shm::Heap;
use tenfold_shm::board::{Batch, BatchPlan, Board, BoardState, OpenBatch, TaskInput};
use tenfold_shm::kill_point::{self, KillPoint};
use tenfold_shm::message::Outgoing;
use tenfold_shm::sync::Barrier;
use tenfold_sys::clock::Deadline;
use tenfold_sys::process::PidFd;

/// Long enough for a worker to go to sleep; if it does not, the round proves less.
const IDLE: Duration = Duration::from_millis(5);

/// A worker that answers items, and sleeps when there are none. Those that want company wait at the barrier
/// until another worker has one, too.
fn serve(board: &Board, barrier: &Barrier) {
    board.join_as_worker().unwrap();
    loop {
        match board.claim().unwrap() {
            Some(mut chunk) => {
                while let Some(input) = chunk.begin().unwrap() {
                    if matches!(input, TaskInput::Inline(bytes) if bytes == COMPANY) {
                        let _ = barrier.wait(Deadline::never()).unwrap();
                    }
                    chunk.commit(Outgoing { parts: &[b"done"], handles: &[] }).unwrap();
                }
                board.tell(&chunk);
            }
            None if board.state() != BoardState::Open => break,
            None => board.wait_for_work().unwrap(),
        }
    }
    board.leave().unwrap();
}

const COMPANY: &[u8] = b"company";
const ALONE: &[u8] = b"alone";

fn open(heap: Heap, board: &Board) -> OpenBatch {
    let mut plan = BatchPlan::default();
    plan.cancellable = true;
    plan.tell_each = true;
    OpenBatch::create(heap, board.handle(), &plan, 1000, 10_000).unwrap()
}

fn push(board: &Board, open: &mut OpenBatch, input: &[u8]) -> usize {
    let item = open.push(Outgoing { parts: &[input], handles: &[] }).unwrap().unwrap();
    board.announce(open).unwrap();
    item
}

/// Waits for the item; the watchdog ends the test if it never comes.
fn answered(batch: &Batch, item: usize) {
    // Without a pause: the next item is to find one worker still spinning, and another asleep.
    while !batch.is_final(item) {
        std::thread::yield_now();
    }
}

fn is_dead(child: &Child) -> bool {
    PidFd::open(child.pid()).unwrap().wait_dead(Deadline::after(4 * IDLE))
}

/// Items that come in pairs, one right after the other, of which no worker can run both: whether the
/// second worker is called is up to the caller, and to the first worker.
fn both_workers_come(board: &Board, open: &mut OpenBatch) {
    for round in 0..200 {
        if round % 10 == 0 {
            std::thread::sleep(IDLE);
        }
        let items = [push(board, open, COMPANY), push(board, open, COMPANY)];
        items.into_iter().for_each(|item| answered(open.batch(), item));
    }
}

#[test]
fn a_worker_dies_being_woken() {
    alone(|heap| {
        let (board, barrier) = (Board::create(heap, 2).unwrap(), Barrier::create(heap, 2).unwrap());
        let victim = in_child(|| {
            kill_point::arm(KillPoint::BoardRoused, 0);
            serve(&board, &barrier);
        });
        let survivor = in_child(|| serve(&board, &barrier));
        let mut open = open(heap, &board);
        let mut items = Vec::new();
        loop {
            // Several at once, so that both ways of waking a worker are gone.
            items.extend([ALONE; 3].map(|input| push(&board, &mut open, input)));
            if is_dead(&victim) {
                break;
            }
        }
        assert_eq!(victim.wait(), KILLED);
        crash::sweep(heap);
        items.into_iter().for_each(|item| answered(open.batch(), item));
        let second = in_child(|| serve(&board, &barrier));
        both_workers_come(&board, &mut open);
        board.close();
        [survivor, second].into_iter().for_each(Child::succeeds);
    });
}

#[test]
fn a_caller_dies_before_it_wakes_a_worker() {
    alone(|heap| {
        let (board, barrier) = (Board::create(heap, 2).unwrap(), Barrier::create(heap, 2).unwrap());
        let workers = [in_child(|| serve(&board, &barrier)), in_child(|| serve(&board, &barrier))];
        let caller = in_child(|| {
            let mut open = open(heap, &board);
            kill_point::arm(KillPoint::BoardCalling, 0);
            loop {
                std::thread::sleep(IDLE);
                // The first one puts the batch on the board; those that come right after it find it there.
                let _ = [ALONE; 3].map(|input| push(&board, &mut open, input));
            }
        });
        assert_eq!(caller.wait(), KILLED);
        crash::sweep(heap);
        both_workers_come(&board, &mut open(heap, &board));
        board.close();
        workers.into_iter().for_each(Child::succeeds);
    });
}

#[test]
fn a_woken_worker_calls_the_next_one() {
    alone(|heap| {
        let (board, barrier) = (Board::create(heap, 2).unwrap(), Barrier::create(heap, 2).unwrap());
        let workers = [in_child(|| serve(&board, &barrier)), in_child(|| serve(&board, &barrier))];
        both_workers_come(&board, &mut open(heap, &board));
        board.close();
        workers.into_iter().for_each(Child::succeeds);
    });
}
