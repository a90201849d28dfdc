//! Kills at every point of the board, and at every point of the core that it passes: the one task
//! that was running dies, every other one gets its result once, and nothing is left over.
#![cfg(feature = "kill-points")]

#[path = "support/crash.rs"]
mod crash;

use crash::{Before, KILLED, alone, in_child};
use tenfold_shm::board::{Batch, BatchPlan, Board, OpenBatch, Outcome, Preamble, TaskInput};
use tenfold_shm::kill_point::{self, KillPoint};
use tenfold_shm::message::Outgoing;
use tenfold_shm::participant;
use tenfold_shm::{Handle, Heap};
use tenfold_sys::process::ExitStatus;

const ITEMS: u64 = 7;

/// The input of a task: short or long.
fn input(n: u64) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    match n {
        2 => bytes.resize(10_000, 1),
        3 => {}
        _ => bytes.resize(8 + 11 * n as usize, 2),
    }
    bytes
}

/// The handles in it.
fn handles_of(n: u64, handle: &Handle) -> &[Handle] {
    if n == 3 { std::slice::from_ref(handle) } else { &[] }
}

/// A plan of seven tasks: short and long inputs, one with a handle; a preamble with one, too.
fn plan(raw: bool, cancellable: bool, chunk_len: u32, handle: &Handle) -> BatchPlan {
    let mut plan = BatchPlan::default();
    plan.preamble = Preamble::Message(b"in common".to_vec(), vec![handle.clone()]);
    plan.cancellable = cancellable;
    plan.chunk_len = chunk_len;
    if raw {
        plan.stride = 8;
        for n in 0..ITEMS {
            plan.push_raw(&n.to_le_bytes());
        }
        return plan;
    }
    for n in 0..ITEMS {
        let input = input(n);
        plan.push(handle.heap(), Outgoing { parts: &[&input], handles: handles_of(n, handle) }).unwrap();
    }
    plan
}

/// A batch of a plan on the board.
fn submitted(heap: Heap, board: &Board, plan: &BatchPlan) -> Batch {
    let batch = Batch::create(heap, board.handle(), plan).unwrap();
    board.submit(&batch).unwrap();
    batch
}

/// An open batch on the board, to which the same tasks are added one by one.
fn opened(heap: Heap, board: &Board, handle: &Handle) -> Batch {
    let mut plan = BatchPlan::default();
    plan.tell_each = true;
    let first = submitted(heap, board, &self::plan(true, false, 1, handle));
    plan.preamble = Preamble::Of(first);
    let mut open = OpenBatch::create(heap, board.handle(), &plan, ITEMS as usize, 1000).unwrap();
    for n in 0..ITEMS {
        let input = input(n);
        let item = open.push(Outgoing { parts: &[&input], handles: handles_of(n, handle) }).unwrap();
        assert_eq!(item, Some(n as usize));
        board.announce(&open).unwrap();
    }
    assert!(open.push(Outgoing { parts: &[b"more"], handles: &[] }).unwrap().is_none());
    open.batch().clone()
}

/// Does what a worker does: the result of `n` is `n * n`, short for even ones, long for odd ones,
/// with a handle for 3, a failure for 5.
fn work(board: &Board, handle: &Handle) {
    board.join_as_worker().unwrap();
    while let Some(mut chunk) = board.claim().unwrap() {
        let preamble = chunk.preamble().unwrap().expect("a preamble");
        assert_eq!(chunk.read_preamble(preamble).unwrap(), (b"in common".to_vec(), vec![handle.clone()]));
        if let Some(raw) = chunk.raw().unwrap() {
            let square = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap()).pow(2);
            raw.run(8, square).unwrap();
        }
        while let Some(input) = chunk.begin().unwrap() {
            let bytes = match input {
                TaskInput::Inline(bytes) => bytes,
                TaskInput::Boxed(bytes, handles) => {
                    assert!(handles.iter().all(|h| h == handle));
                    bytes
                }
            };
            let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let square = (n * n).to_le_bytes();
            let long = [&square[..], &[9; 100]].concat();
            match n {
                5 => chunk.commit_failure(Outgoing { parts: &[b"five"], handles: &[] }).unwrap(),
                3 => {
                    let handles = std::slice::from_ref(handle);
                    chunk.commit(Outgoing { parts: &[&long], handles }).unwrap();
                }
                _ if n % 2 == 0 => chunk.commit(Outgoing { parts: &[&square], handles: &[] }).unwrap(),
                _ => chunk.commit(Outgoing { parts: &[&long], handles: &[] }).unwrap(),
            }
        }
        board.tell(&chunk);
    }
    board.leave().unwrap();
}

/// Each task's result, `None` for one that died.
fn results(batch: &Batch) -> Vec<Option<u64>> {
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes[..8].try_into().unwrap()));
    let outcomes = (0..batch.items()).map(|item| batch.take(item).unwrap().expect("a result for every task"));
    outcomes
        .map(|outcome| match outcome {
            Outcome::Short(bytes, 8) => number(&bytes),
            Outcome::Long(bytes, handles) => {
                assert_eq!(bytes.len(), 108);
                assert_eq!(handles.len(), usize::from(bytes[0] == 9));
                number(&bytes)
            }
            Outcome::Failed(text, _) => {
                assert_eq!(text, b"five");
                Some(25)
            }
            Outcome::Died { status, .. } => {
                assert_eq!(status, Some(KILLED));
                None
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Sweeps the child `pid`, of which we know how it ended.
fn sweep(heap: Heap, pid: u32, status: ExitStatus) {
    for slot in 0..tenfold_shm::heap::SLOTS {
        if participant::roster(slot, heap).pid() == pid {
            participant::sweep(heap, slot, Some(status));
        }
    }
}

fn child(heap: Heap, point: KillPoint, passes: u32, work: impl FnOnce()) -> bool {
    let child = in_child(|| {
        kill_point::arm(point, passes);
        work();
        kill_point::disarm();
    });
    let pid = child.pid();
    let status = child.wait();
    sweep(heap, pid, status);
    assert!(matches!(status, KILLED | ExitStatus::Exited(0)), "{} after {passes}: {status:?}", point.name());
    status == KILLED
}

/// What one round must come to when its worker is killed at `point`.
fn check(results: &[Option<u64>], place: &str) {
    assert_eq!(results.len(), ITEMS as usize, "{place}");
    for (n, result) in results.iter().enumerate() {
        assert!(result.is_none_or(|value| value == (n * n) as u64), "{place}: {results:?}");
    }
    let died = results.iter().filter(|r| r.is_none()).count();
    assert!(died <= 1, "{place}: {results:?}");
}

fn worker_killed_at(point: KillPoint) -> u32 {
    let mut kills = 0;
    alone(|heap| {
        let handle = Board::create(heap, 1).unwrap();
        let handle = handle.handle();
        {
            // What is made once, and kept.
            let board = Board::create(heap, 1).unwrap();
            submitted(heap, &board, &plan(false, true, 1, handle));
            opened(heap, &board, handle);
            in_child(|| work(&board, handle)).succeeds();
            crash::sweep(heap);
        }
        let before = Before::of(heap);
        let open = (false, false, 0);
        let raw = [(true, false, 2), (true, false, 5), (true, true, 2)];
        for (raw, cancellable, chunk_len) in [(false, true, 1), (false, false, 3), open].into_iter().chain(raw) {
            let mut passes = 0;
            loop {
                let board = Board::create(heap, 1).unwrap();
                let batch = match chunk_len {
                    0 => opened(heap, &board, handle),
                    _ => submitted(heap, &board, &plan(raw, cancellable, chunk_len, handle)),
                };
                let killed = child(heap, point, passes, || work(&board, handle));
                // Another worker finishes.
                in_child(|| work(&board, handle)).succeeds();
                crash::sweep(heap);
                let place = format!("{} after {passes} passes, raw {raw}", point.name());
                assert!(batch.is_finished(), "{place}");
                check(&results(&batch), &place);
                assert!(!board.has_work(), "{place}");
                drop((batch, board));
                before.assert_unchanged();
                kills += u32::from(killed);
                if !killed {
                    break;
                }
                passes += 1 + passes / 4;
            }
        }
        println!("{}: {kills} kills of a worker", point.name());
        assert!(kills > 0, "{} was never reached", point.name());
    });
    kills
}

fn submitter_killed_at(point: KillPoint) {
    alone(|heap| {
        let other = Board::create(heap, 1).unwrap();
        let handle = other.handle();
        let round = |heap: Heap| {
            let board = Board::create(heap, 1).unwrap();
            let batches = [submitted(heap, &board, &plan(false, true, 1, handle)), opened(heap, &board, handle)];
            work(&board, handle);
            for batch in batches {
                assert_eq!(results(&batch).len(), ITEMS as usize);
            }
        };
        round(heap);
        in_child(|| round(heap)).succeeds();
        crash::sweep(heap);
        let before = Before::of(heap);
        let (mut passes, mut kills) = (0, 0);
        while child(heap, point, passes, || round(heap)) {
            crash::sweep(heap);
            before.assert_unchanged();
            round(heap);
            before.assert_unchanged();
            kills += 1;
            passes += 1 + passes / 4;
        }
        println!("{}: {kills} kills of a submitter", point.name());
        assert!(kills > 0, "{} was never reached", point.name());
    });
}

macro_rules! workers {
    ($($name:ident: $point:ident,)*) => { $(
        #[test]
        fn $name() {
            worker_killed_at(KillPoint::$point);
        }
    )* };
}

workers! {
    a_worker_dies_having_claimed: BoardClaimed,
    a_worker_dies_in_its_task: BoardItemStarted,
    a_worker_dies_with_a_result_written: BoardResultWritten,
    a_worker_dies_after_its_commit: BoardResultCommitted,
    a_worker_dies_before_it_rings: BoardBatchDone,
    a_worker_dies_having_unlinked: BoardUnlinked,
    a_worker_dies_with_a_lock: LockTaken,
    a_worker_dies_before_the_redo_record_counts: RedoWritten,
    a_worker_dies_with_a_redo_record: RedoCommitted,
    a_worker_dies_half_applied: RedoHalfApplied,
    a_worker_dies_before_it_unlocks: RedoCleared,
    a_worker_dies_with_a_fresh_block: HeapTaken,
    a_worker_dies_with_a_message_written: MessageWritten,
}

macro_rules! submitters {
    ($($name:ident: $point:ident,)*) => { $(
        #[test]
        fn $name() {
            submitter_killed_at(KillPoint::$point);
        }
    )* };
}

submitters! {
    a_submitter_dies_with_a_batch: BoardBatchBuilt,
    a_submitter_dies_with_an_item: BoardItemPublished,
    a_submitter_dies_with_a_message: MessageWritten,
    a_submitter_dies_with_an_object: ObjectBuilt,
    a_submitter_dies_freeing: ObjectDying,
    a_submitter_dies_half_applied: RedoHalfApplied,
    a_submitter_dies_with_a_redo_record: RedoCommitted,
    a_submitter_dies_with_a_fresh_block: HeapTaken,
}

/// The sweeper dies while it settles a dead worker's tasks: the next one does all of it again.
#[test]
fn a_sweeper_dies_settling() {
    alone(|heap| {
        let other = Board::create(heap, 1).unwrap();
        let handle = other.handle();
        for point in [KillPoint::BoardReclaimed, KillPoint::RedoHalfApplied, KillPoint::SweepLocksDone] {
            let board = Board::create(heap, 1).unwrap();
            let batch = submitted(heap, &board, &plan(false, false, 3, handle));
            let worker = in_child(|| {
                kill_point::arm(KillPoint::BoardItemStarted, 2);
                work(&board, handle);
            });
            let pid = worker.pid();
            assert_eq!(worker.wait(), KILLED);
            let sweeper = in_child(|| {
                kill_point::arm(point, 0);
                sweep(heap, pid, KILLED);
            });
            assert_eq!(sweeper.wait(), KILLED, "{}", point.name());
            crash::sweep(heap);
            in_child(|| work(&board, handle)).succeeds();
            crash::sweep(heap);
            let results = results(&batch);
            check(&results, point.name());
            assert_eq!(results[2], None, "{}", point.name());
        }
    });
}
