//! What the fuzz targets share: garbage from the fuzzer, and a heap that is as good as new each time.
//!
//! `cargo +nightly fuzz run dict`, likewise `blocks`, `messages`, `list` and `queue`. The bodies also
//! run with random garbage under `cargo test`, see `crates/tenfold-shm/tests/garbage.rs`.

use std::cell::OnceCell;
use std::sync::atomic::Ordering;

use garbage::{Input, Scene};
use tenfold_shm::Heap;

#[path = "../../crates/tenfold-shm/tests/support/garbage.rs"]
mod garbage;

/// What is scribbled over and used.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Descriptors and free lists.
    Blocks,
    /// Messages and their tables of handles.
    Messages,
    /// Dicts: root, index, positions, entries.
    Dict,
    /// Lists: root, spine, items.
    List,
    /// Queues: ends, segments, messages.
    Queue,
}

/// The header, the directory of descriptors, the roster; then this process's slot.
const SAVED: [std::ops::Range<u64>; 2] = [8..192 << 10, 1 << 20..(1 << 20) + (16 << 10)];

/// The heap as it was when it was empty. What lies behind counts as never taken.
struct Fresh {
    heap: Heap,
    words: Vec<(u64, u64)>,
}

impl Fresh {
    fn new() -> Fresh {
        let heap = Heap::get().expect("a heap");
        // This thread's seat is part of the state.
        tenfold_shm::participant::seat(heap).expect("a seat");
        let offsets = SAVED.into_iter().flat_map(|range| range.step_by(8));
        let words = offsets.map(|at| (at, heap.word(at).expect("a fixed word").load(Ordering::Relaxed))).collect();
        Fresh { heap, words }
    }

    fn restore(&self) {
        for (at, value) in &self.words {
            self.heap.word(*at).expect("a fixed word").store(*value, Ordering::Relaxed);
        }
    }
}

/// Scribbles and uses, as `data` says.
pub fn run(target: Target, data: &[u8]) {
    thread_local! {
        static FRESH: OnceCell<Fresh> = const { OnceCell::new() };
    }
    FRESH.with(|fresh| {
        let fresh = fresh.get_or_init(Fresh::new);
        fresh.restore();
        let body = match target {
            Target::Blocks => garbage::blocks,
            Target::Messages => garbage::messages,
            Target::Dict => garbage::dict,
            Target::List => garbage::list,
            Target::Queue => garbage::queue,
        };
        body(&mut Input::new(data), Scene::new(fresh.heap));
    });
}
