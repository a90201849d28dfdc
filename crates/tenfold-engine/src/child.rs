//! What a new process does from its adoption to its exit.
//!
//! *Killed here:* whoever reaps it records how it died; before it has announced itself it is known
//! by the pid that its maker put into its slot.

use core::sync::atomic::Ordering;
use std::io::Write;

use tenfold_shm::Heap;
use tenfold_shm::kill_point::{KillPoint, reach};
use tenfold_shm::message::Payload;
use tenfold_shm::participant::{self, HeldCell, Identity};
use tenfold_shm::process_record::ProcessRecord;
use tenfold_sys::process;

use crate::function::{self, Call, Outcome};
use crate::places;
use crate::process::LastWords;
use crate::start_hook::CANNOT_START;

/// The exit code after a panic, as in any Rust program.
pub(crate) const PANICKED: i32 = 101;
/// The exit code of a function that returned an error, as from `main`.
const FAILED: i32 = 1;

/// Runs the function for which this process was started, and exits.
pub(crate) fn run(heap: Heap, claimed: Identity) -> ! {
    let record = arrive(heap, claimed);
    function::install_panic_hook();
    run_entry(heap, claimed, &record)
}

/// Runs a closure that came along by fork, and exits.
pub(crate) fn run_closure(heap: Heap, claimed: Identity, f: impl FnOnce() -> Result<(), String>) -> ! {
    let record = arrive(heap, claimed);
    function::install_panic_hook();
    finish(heap, &record, function::catch(f))
}

fn run_entry(heap: Heap, claimed: Identity, record: &ProcessRecord) -> ! {
    let entry = places::slot_word(heap, claimed, places::ENTRY).load(Ordering::Relaxed);
    let outcome = match (function::entry_at(entry), take_argument(heap, claimed)) {
        (Some(entry), Ok(input)) => {
            let mut call = Call { input, output: Vec::new(), output_handles: Vec::new() };
            function::call(entry, &mut call)
        }
        (None, _) => Outcome::Failed("the executable has no such function; was it replaced on disk?".to_owned()),
        (_, Err(error)) => Outcome::Failed(format!("the argument cannot be read: {error}")),
    };
    finish(heap, record, outcome)
}

/// Makes sure that this process is who it should be, and says so if nobody has done so for it.
fn arrive(heap: Heap, claimed: Identity) -> ProcessRecord {
    // Another one may have taken the slot (the nursery died and its successor forked again), or the
    // family may have ended.
    let myself = participant::me(heap).is_ok_and(|me| me == claimed);
    if !myself || heap.has_ended() {
        process::exit_now(CANNOT_START);
    }
    let Ok(record) = ProcessRecord::of(heap, claimed) else { process::exit_now(CANNOT_START) };
    reach(KillPoint::ChildArrived);
    if let Some(name) = name_of(heap, claimed) {
        process::set_name(&name);
    }
    if record.process().is_none() {
        let entry = participant::roster(claimed.slot(), heap);
        record.announce(entry.pid(), entry.start_time());
    }
    record
}

/// The name that a process was given when it was started.
pub(crate) fn name_of(heap: Heap, who: Identity) -> Option<String> {
    let bits = places::cell(heap, who, places::NAME_CELL).load(Ordering::Acquire);
    let id = tenfold_shm::heap::BlockId::from_bits(bits)?;
    let (bytes, _) = tenfold_shm::message::read_in_place(heap, id).ok()?;
    String::from_utf8(bytes).ok()
}

fn take_argument(heap: Heap, claimed: Identity) -> tenfold_shm::Result<Payload> {
    let cell = places::cell(heap, claimed, places::LAUNCH_CELL);
    let held = HeldCell::take(heap)?;
    // Both cells are this process's own: named twice for an instant, freed once.
    held.word().store(cell.load(Ordering::Acquire), Ordering::Release);
    cell.store(0, Ordering::Release);
    Payload::held(heap, held)
}

fn finish(heap: Heap, record: &ProcessRecord, outcome: Outcome) -> ! {
    let (code, words) = match outcome {
        Outcome::Returned => (0, None),
        Outcome::Failed(text) => (FAILED, Some(LastWords::Failed(text))),
        Outcome::Panicked(panic) => (PANICKED, Some(LastWords::Panicked(panic))),
    };
    if let Some(words) = words {
        // Without room for the words, the exit code still tells.
        let _ = record.leave_words(&words.encode());
    }
    flush();
    participant::announce_exit(heap, code);
    reach(KillPoint::ChildLeaving);
    std::process::exit(code)
}

/// Writes out what std has in its buffers.
pub(crate) fn flush() {
    // A closed standard output is nobody's mistake here.
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
}
