//! Which of the heap's free words and cells mean what to the engine.

use core::sync::atomic::{AtomicU32, AtomicU64};

use tenfold_shm::Heap;
use tenfold_shm::heap::{At, Word};
use tenfold_shm::participant::{self, Identity};

/// The cell of a slot that holds the launch message, until the process has taken it.
pub(crate) const LAUNCH_CELL: usize = 1;
/// The cell of a slot that holds the process's name.
pub(crate) const NAME_CELL: usize = 2;

/// The word of a slot with the pid of the process that made this one.
pub(crate) const PARENT_PID: usize = 0;
/// The word of a slot with the identity of the nursery that forked the process.
pub(crate) const MIDWIFE: usize = 1;
/// The word of a slot with the offset of the function that the process is to run.
pub(crate) const ENTRY: usize = 2;
/// The word of a slot that is not zero once its process has seen to its own record.
pub(crate) const ON_RECORD: usize = 3;

/// The word of a slot with the identity of the process that the nursery has yet to fork. It names the identity, since
/// the slot may be another's by the time that the nursery comes to take it back.
pub(crate) const WANTED: usize = 4;

/// Flags of a roster entry.
pub(crate) mod flag {
    /// Started by tenfold, so ended by it.
    pub(crate) const STARTED: u32 = 1;
    /// Goes on when the root is gone.
    pub(crate) const OUTLIVE: u32 = 1 << 1;
    /// Goes with the process that made it.
    pub(crate) const DAEMON: u32 = 1 << 2;
    /// The nursery forks and reaps it.
    pub(crate) const NURSED: u32 = 1 << 3;
    /// It is the nursery.
    pub(crate) const NURSERY: u32 = 1 << 5;
    /// It is the warden.
    pub(crate) const WARDEN: u32 = 1 << 6;
}

/// A word of the heap's header that belongs to supervision.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Service {
    /// Identity of the nursery.
    Nursery = 0,
    /// Identity of the last nursery that got as far as serving.
    NurseryReady = 1,
    /// Nurseries in a row that died before they served.
    NurseryFailures = 2,
    /// The nursery's doorbell in the lower half; in the upper one, whether it sleeps.
    NurseryBell = 3,
    /// One bit for 16 roster entries, of which one or more are wanted.
    Wanted = 4,
    /// Identity of the warden.
    Warden = 5,
    /// Number of the warden's bell.
    WardenBell = 6,
    /// Inode of the warden's bell; 0 while there is none.
    WardenBellInode = 7,
    /// Moves when a pool's worker is launched; not zero while there may be pools.
    Pools = 11,
    /// Identity of the root.
    Root = 9,
    /// The default start method.
    Method = 10,
}

impl Service {
    pub(crate) fn word(self, heap: Heap) -> &'static AtomicU64 {
        &heap.header().get().services[self as usize]
    }

    pub(crate) fn identity(self, heap: Heap) -> Option<Identity> {
        Identity::from_bits(self.word(heap).load(core::sync::atomic::Ordering::Acquire) as u32)
    }
}

/// The two words of the nursery's bell: the count of rings, and whether the nursery sleeps.
pub(crate) fn bell(heap: Heap) -> tenfold_shm::Result<(&'static AtomicU32, &'static AtomicU32)> {
    let offset = heap.header().field(|h| &h.services[Service::NurseryBell as usize]).offset();
    Ok((heap.at::<AtomicU32>(offset)?.get(), heap.at::<AtomicU32>(offset + 4)?.get()))
}

/// A cell of a participant's slot.
pub(crate) fn cell(heap: Heap, who: Identity, index: usize) -> Word {
    participant::slot(who.slot(), heap).field(|s| &s.cells[index])
}

/// A word of a participant's slot.
pub(crate) fn slot_word(heap: Heap, who: Identity, index: usize) -> &'static AtomicU64 {
    &participant::slot(who.slot(), heap).get().words[index]
}

/// The flags of a participant.
pub(crate) fn flags(heap: Heap, who: Identity) -> At<AtomicU32> {
    participant::roster(who.slot(), heap).field(|r| &r.flags)
}
