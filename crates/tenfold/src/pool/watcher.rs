//! The thread that runs callbacks and wakes futures. A pool has one only once it has a callback.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tenfold_engine::pool::Pool;
use tenfold_engine::pool::board::{Batch, WATCHER_BELL};
use tenfold_engine::sys::clock::Deadline;

/// Items that somebody waits for.
pub(super) enum Awaited {
    /// All of a batch.
    All(Batch),
    /// One item of it.
    One(Batch, usize),
}

impl Awaited {
    /// Has the watcher's bell ring for them, too.
    fn watch(&self) {
        let (Awaited::All(batch) | Awaited::One(batch, _)) = self;
        batch.watch();
    }

    fn is_ready(&self) -> bool {
        match self {
            Awaited::All(batch) => batch.is_finished(),
            Awaited::One(batch, item) => batch.is_final(*item),
        }
    }
}

/// What is watched, and what to do when all of it is there (or the pool has ended).
pub(super) struct Watched {
    pub(super) awaited: Vec<Awaited>,
    pub(super) finish: Box<dyn FnOnce() + Send>,
}

/// The pool's line to its watcher thread.
#[derive(Default)]
pub(super) struct Watcher(Mutex<Option<Sender<Watched>>>);

impl Watcher {
    /// Has the thread watch, which it starts if there is none yet.
    pub(super) fn watch(&self, engine: &Arc<Pool>, watched: Watched) {
        watched.awaited.iter().for_each(Awaited::watch);
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = line.get_or_insert_with(|| start(engine));
        if let Err(lost) = sender.send(watched) {
            // The thread has ended with the pool: nothing will finish any more.
            drop(line);
            (lost.0.finish)();
            return;
        }
        drop(line);
        engine.board().ring(WATCHER_BELL);
    }
}

fn start(engine: &Arc<Pool>) -> Sender<Watched> {
    let (sender, receiver) = channel();
    let engine = Arc::clone(engine);
    let thread = std::thread::Builder::new().name("tenfold-callbacks".into());
    // Without a thread the receiver is dropped, and `watch` finishes at once with what is there.
    let _ = thread.spawn(move || run(&engine, &receiver));
    sender
}

fn run(engine: &Pool, receiver: &Receiver<Watched>) {
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        let seen = engine.board().rings(WATCHER_BELL);
        watched.extend(receiver.try_iter());
        let is_finished = |w: &Watched| w.awaited.iter().all(Awaited::is_ready);
        while let Some(index) = watched.iter().position(is_finished) {
            // A panic in a callback must not take the others with it.
            let finish = watched.swap_remove(index).finish;
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(finish));
        }
        let rung = || engine.board().rings(WATCHER_BELL) != seen;
        if engine.wait(WATCHER_BELL, Deadline::never(), rung).is_err() {
            break;
        }
    }
    watched.extend(receiver.try_iter());
    for left in watched {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(left.finish));
    }
}
