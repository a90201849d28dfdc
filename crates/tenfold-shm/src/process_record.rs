//! What is known of a process, kept as long as anybody holds a handle to it.
//!
//! The process's own slot holds a reference too, in its first cell, and gives the record its exit
//! status when it is swept.
//!
//! *Killed here:* the status is one word; the sweep writes it before it frees the slot.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tenfold_sys::clock::Deadline;
use tenfold_sys::futex;
use tenfold_sys::process::{ExitStatus, Pid};

use crate::error::Result;
use crate::heap::block::Block;
use crate::heap::{At, Heap, Shared};
use crate::internal_lock::Store;
use crate::message::{self, Outgoing};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Death, Identity, Seat};

/// The cell of a slot that names the process's record.
pub const RECORD_CELL: usize = 0;

const UNKNOWN: u32 = u32::MAX;

/// The shared part.
#[repr(C)]
struct Record {
    /// [`ExitStatus`] bits, `UNKNOWN` if the process ended in a way that nobody saw, 0 before.
    exit: AtomicU32,
    identity: AtomicU32,
    pid: AtomicU32,
    /// Moves when the process is there, and when it has ended.
    changes: AtomicU32,
    start_time: AtomicU64,
    /// The process's last words: a message, written by itself.
    last_words: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Record {}

/// A process of the family, running or ended.
#[derive(Debug, Clone)]
pub struct ProcessRecord {
    handle: Handle,
    record: At<Record>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this status.
    Known(ExitStatus),
    /// Nobody could tell: whoever would have reaped it is gone.
    Unknown,
}

impl ProcessRecord {
    /// A record for the process for which `claimed` was claimed. The slot holds it.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, claimed: Identity) -> Result<ProcessRecord> {
        let handle = Handle::create(heap, ObjectKind::ProcessRecord, size_of::<Record>() as u64, |_| Ok(()))?;
        let record = handle.view::<Record>()?;
        record.identity.store(claimed.bits(), Ordering::Release);
        handle.refer_from(participant::slot(claimed.slot(), heap).field(|s| &s.cells[RECORD_CELL]))?;
        Ok(ProcessRecord { handle, record })
    }

    /// A record for a process that will take it up itself.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn blank(heap: Heap) -> Result<ProcessRecord> {
        let handle = Handle::create(heap, ObjectKind::ProcessRecord, size_of::<Record>() as u64, |_| Ok(()))?;
        ProcessRecord::from_handle(handle)
    }

    /// Makes a blank record the calling process's own, unless it has one.
    ///
    /// # Errors
    /// If this process has no slot and can get none; if the heap is corrupt.
    pub fn take_up(&self) -> Result<()> {
        let heap = self.handle.heap();
        let me = participant::me(heap)?;
        let cell = participant::slot(me.slot(), heap).field(|s| &s.cells[RECORD_CELL]);
        if cell.load(Ordering::Acquire) == 0 {
            self.record.identity.store(me.bits(), Ordering::Release);
            self.handle.refer_from(cell)?;
            let entry = participant::roster(me.slot(), heap);
            self.announce(entry.pid(), entry.start_time());
        }
        Ok(())
    }

    /// The record behind a handle.
    ///
    /// # Errors
    /// [`crate::HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<ProcessRecord> {
        let handle = handle.expect(ObjectKind::ProcessRecord)?;
        let record = handle.view::<Record>()?;
        Ok(ProcessRecord { handle, record })
    }

    /// The record of a participant, if it has one.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn of(heap: Heap, who: Identity) -> Result<ProcessRecord> {
        let cell = participant::slot(who.slot(), heap).field(|s| &s.cells[RECORD_CELL]);
        ProcessRecord::from_handle(Handle::from_cell(heap, cell)?)
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Which participant it is or was.
    pub fn identity(&self) -> Option<Identity> {
        Identity::from_bits(self.record.identity.load(Ordering::Acquire))
    }

    /// The process puts itself on record.
    pub fn announce(&self, pid: Pid, start_time: u64) {
        self.record.start_time.store(start_time, Ordering::Relaxed);
        self.record.pid.store(pid, Ordering::Release);
        self.changed();
    }

    /// The pid and start time, once the process has put itself on record.
    pub fn process(&self) -> Option<(Pid, u64)> {
        let pid = self.record.pid.load(Ordering::Acquire);
        (pid != 0).then(|| (pid, self.record.start_time.load(Ordering::Relaxed)))
    }

    /// How it ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        match self.record.exit.load(Ordering::Acquire) {
            0 => None,
            UNKNOWN => Some(Ending::Unknown),
            bits => ExitStatus::from_bits(bits).map(Ending::Known).or(Some(Ending::Unknown)),
        }
    }

    /// Puts the ending on record, unless one is known; what was unknown may become known.
    pub fn set_ending(&self, ending: Ending) {
        set_ending(self.record, ending);
    }

    /// A number that moves whenever the record changes, to be passed to [`ProcessRecord::wait`].
    pub fn changes(&self) -> u32 {
        self.record.changes.load(Ordering::Acquire)
    }

    /// Sleeps until the record changes from `seen`, or the deadline.
    pub fn wait(&self, seen: u32, deadline: Deadline) {
        futex::wait(&self.record.get().changes, seen, deadline);
    }

    fn changed(&self) {
        changed(self.record);
    }

    /// Leaves a message for whoever asks how the process ended. The last one stands.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn leave_words(&self, words: &[u8]) -> Result<()> {
        let heap = self.handle.heap();
        let seat = participant::seat(heap)?;
        let cell = self.record.field(|r| &r.last_words);
        let (new, old) = (seat.transit(0), seat.transit(1));
        let id = message::write(heap, seat, Outgoing { parts: &[words], handles: &[] }, new)?;
        // Nobody reads half a message: the words appear whole, and in exchange for the earlier ones.
        let guard = object::stripe(heap, seat, self.handle.id())?;
        guard.commit([Store::new(old, cell.load(Ordering::Relaxed)), Store::new(cell, id.bits()), Store::new(new, 0)]);
        drop(guard);
        object::release(heap, seat, old)
    }

    /// The message, once the process has ended.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn last_words(&self) -> Result<Option<Vec<u8>>> {
        match crate::heap::BlockId::from_bits(self.record.last_words.load(Ordering::Acquire)) {
            Some(id) => message::read_in_place(self.handle.heap(), id).map(|(bytes, _)| Some(bytes)),
            None => Ok(None),
        }
    }
}

fn changed(record: At<Record>) {
    record.changes.fetch_add(1, Ordering::AcqRel);
    futex::wake(&record.get().changes, u32::MAX);
}

fn set_ending(record: At<Record>, ending: Ending) {
    let bits = match ending {
        Ending::Known(status) => status.to_bits(),
        Ending::Unknown => UNKNOWN,
    };
    let first = record.exit.compare_exchange(0, bits, Ordering::AcqRel, Ordering::Acquire);
    if first == Err(UNKNOWN) {
        let _ = record.exit.compare_exchange(UNKNOWN, bits, Ordering::AcqRel, Ordering::Acquire);
    }
    changed(record);
}

pub(crate) fn process_died(heap: Heap, _seat: Seat, death: &Death, block: Block) -> Result<()> {
    let record = block.view::<Record>(heap, 0)?;
    set_ending(record, death.status.map_or(Ending::Unknown, Ending::Known));
    Ok(())
}

pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    object::release(heap, seat, block.view::<Record>(heap, 0)?.field(|r| &r.last_words))
}
