//! Places where a death could hurt, by name.
//!
//! With the feature `kill-points`, a test arms one point and the process sends itself SIGKILL when
//! it gets there; without it, [`reach`] compiles to nothing. The list is the checklist of the
//! crash tests: each name is killed at in `tests/chaos`.

macro_rules! kill_points {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A named place in the code where a test can kill the process.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum KillPoint { $($(#[doc = $doc])* $name,)* }

        /// All of them, in the order of the code.
        pub const ALL: &[KillPoint] = &[$(KillPoint::$name,)*];

        impl KillPoint {
            /// The point's name, as tests and their output write it.
            pub fn name(self) -> &'static str {
                match self { $(KillPoint::$name => $text,)* }
            }
        }
    };
}

kill_points! {
    /// The lock is taken, nothing is written yet.
    LockTaken = "lock.taken",
    /// The redo record is written but not committed.
    RedoWritten = "redo.written",
    /// The record is committed, none of its stores is done.
    RedoCommitted = "redo.committed",
    /// The first store of a committed record is done.
    RedoHalfApplied = "redo.half-applied",
    /// All stores are done, the record still stands.
    RedoApplied = "redo.applied",
    /// The record is cleared, the lock still held.
    RedoCleared = "redo.cleared",
    /// The lock is free, its name still in the lane.
    LockReleased = "lock.released",
    /// A block is taken from its free list and named by a cell of this process.
    HeapTaken = "heap.taken",
    /// A fresh slab has been reserved but not yet handed to its class.
    HeapGrown = "heap.grown",
    /// A large block is taken but its pages are not reserved yet.
    HeapLargeTaken = "heap.large-taken",
    /// The pages of a large block are there, but no account tells of them yet.
    HeapPagesTaken = "heap.pages-taken",
    /// An object is initialised but not yet held.
    ObjectBuilt = "object.built",
    /// An object's last reference is gone, its parts are not freed yet.
    ObjectDying = "object.dying",
    /// A message is written to its own block, nobody names it but its writer.
    MessageWritten = "message.written",
    /// A handle inside a message was dropped, others are still there.
    MessageHandleDropped = "message.handle-dropped",
    /// A message has a count of holders, and does not say so yet.
    MessageCounted = "message.counted",
    /// A message is held by count, so far by its one owner.
    MessageShared = "message.shared",
    /// A slot is claimed but has no process yet.
    SlotClaimed = "participant.claimed",
    /// The fork handler has copied the parent's holdings; nobody has adopted them.
    BirthPrepared = "participant.birth-prepared",
    /// A sweeper has claimed a dead slot.
    SweepClaimed = "sweep.claimed",
    /// The dead process's locks are recovered, its blocks not yet freed.
    SweepLocksDone = "sweep.locks-done",
    /// Everything is swept, the slot is not free yet.
    SweepDone = "sweep.done",
    /// A slot is claimed and filled for a new process, nobody is asked for it yet.
    LaunchPrepared = "launch.prepared",
    /// The new process is flagged as wanted, the nursery's bell is not rung.
    LaunchWanted = "launch.wanted",
    /// A starter of the nursery is on record, the nursery is not exec'd.
    NurseryClaimed = "nursery.claimed",
    /// A nursery has its slot, and does not serve yet.
    NurseryStarting = "nursery.starting",
    /// The nursery has forked a child and has not noted it.
    NurseryForked = "nursery.forked",
    /// The nursery has swept a dead child and has not reaped it.
    NurseryBuried = "nursery.buried",
    /// The warden runs, and nobody can ring its bell yet.
    WardenStarted = "warden.started",
    /// The warden has declared the family ended, and killed nobody yet.
    WardenEnding = "warden.ending",
    /// A new process has its slot, and has told nobody.
    ChildArrived = "child.arrived",
    /// A process has announced its exit code, and has not exited.
    ChildLeaving = "child.leaving",
    /// A user lock is taken.
    UserLockTaken = "user-lock.taken",
    /// A user lock is free again, its waiters not yet woken.
    UserLockReleased = "user-lock.released",
    /// A semaphore's count is frozen, nothing is changed yet.
    SemaphoreFrozen = "semaphore.frozen",
    /// A semaphore's permit is taken and recorded.
    SemaphoreTaken = "semaphore.taken",
    /// A semaphore's permit is back, nobody is woken yet.
    SemaphoreReleased = "semaphore.released",
    /// A reader-writer lock is taken and recorded.
    RwLockTaken = "rwlock.taken",
    /// A reader-writer lock is free again, nobody is woken yet.
    RwLockReleased = "rwlock.released",
    /// An event is set, nobody is woken yet.
    EventSet = "event.set",
    /// A waiter is in the condition's list, its lock not yet released.
    ConditionEnlisted = "condition.enlisted",
    /// A waiter is marked as notified but not yet woken.
    ConditionMarked = "condition.marked",
    /// A notified waiter is awake, still in the list and without the lock.
    ConditionWoken = "condition.woken",
    /// A party has arrived at a barrier and waits.
    BarrierArrived = "barrier.arrived",
    /// The last party has opened the barrier, nobody is woken yet.
    BarrierOpened = "barrier.opened",
    /// A segment of a container's spine is taken and named by the spine.
    SpineSegmentTaken = "spine.segment-taken",
    /// An item of a dying container is freed, others are still there.
    SpineItemFreed = "spine.item-freed",
    /// A queue's record is written, the tail not yet moved.
    QueueSlotWritten = "queue.slot-written",
    /// The tail has moved, nobody is woken yet.
    QueueCommitted = "queue.committed",
    /// A fresh segment is allocated but not linked.
    QueueSegmentTaken = "queue.segment-taken",
    /// A fresh segment is linked, no message is in it yet.
    QueueSegmentLinked = "queue.segment-linked",
    /// A consumer has unlinked a segment but not freed it.
    QueueSegmentLeft = "queue.segment-left",
    /// A message has left the queue and is named by the consumer only.
    QueueTaken = "queue.taken",
    /// The tail has moved, who polls the queue is not yet rung.
    QueueRinging = "queue.ringing",
    /// Who polls the queue is rung, but its bell still counts as armed.
    QueueRung = "queue.rung",
    /// A waiter is enlisted and about to sleep.
    QueueEnlisted = "queue.enlisted",
    /// A task is counted as done, who waits for the last one is not yet woken.
    QueueTaskDone = "queue.task-done",
    /// A queue is closed, nobody is woken yet.
    QueueClosed = "queue.closed",
    /// A dying queue's messages are freed, its segments are not.
    QueueEmptied = "queue.emptied",
    /// A dict's new entry is written but not in the index.
    DictEntryBuilt = "dict.entry-built",
    /// An entry is replaced, the old one not yet freed.
    DictEntryReplaced = "dict.entry-replaced",
    /// An entry is removed, not yet freed.
    DictEntryRemoved = "dict.entry-removed",
    /// Some entries of many are in the dict, others not yet.
    DictManyHalf = "dict.many-half",
    /// A dict is emptied, its old entries not yet freed.
    DictCleared = "dict.cleared",
    /// A larger index is built but not published.
    DictIndexBuilt = "dict.index-built",
    /// The larger index is published, the old one not yet freed.
    DictIndexPublished = "dict.index-published",
    /// A list's new item is written but not in the spine.
    ListItemBuilt = "list.item-built",
    /// An item is out of the spine, not yet freed.
    ListItemRemoved = "list.item-removed",
    /// Many items are copied behind the spine's end, the end not yet moved.
    ListManyCopied = "list.many-copied",
    /// A reordered spine is built but not published.
    ListSpineBuilt = "list.spine-built",
    /// The new spine is published, the old one not yet freed.
    ListSpinePublished = "list.spine-published",
    /// A batch of tasks is written but not on the board.
    BoardBatchBuilt = "board.batch-built",
    /// A worker has claimed a batch and not yet begun an item.
    BoardClaimed = "board.claimed",
    /// A worker has marked an item as running.
    BoardItemStarted = "board.item-started",
    /// An item's result is written but not committed.
    BoardResultWritten = "board.result-written",
    /// An item's result is committed.
    BoardResultCommitted = "board.result-committed",
    /// A batch is finished, nobody is woken yet.
    BoardBatchDone = "board.batch-done",
    /// An item of an open batch is published, no worker is told.
    BoardItemPublished = "board.item-published",
    /// A worker has unlinked a batch and not looked again whether it has got items.
    BoardUnlinked = "board.unlinked",
    /// It is decided to wake a worker for an item, which is still asleep.
    BoardCalling = "board.calling",
    /// A worker that slept is up again and has not said so.
    BoardRoused = "board.roused",
    /// A dead worker's batch has been taken from it and is not yet back on the board.
    BoardReclaimed = "board.reclaimed",
}

#[cfg(feature = "kill-points")]
mod armed {
    use super::KillPoint;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    static POINT: AtomicU32 = AtomicU32::new(u32::MAX);
    static PASSES: AtomicU32 = AtomicU32::new(0);

    /// Kills this process when it reaches `point` after passing it `passes` times.
    pub fn arm(point: KillPoint, passes: u32) {
        PASSES.store(passes, Relaxed);
        POINT.store(point as u32, Relaxed);
    }

    /// Kills nobody any more.
    pub fn disarm() {
        POINT.store(u32::MAX, Relaxed);
    }

    /// Called where the point is.
    #[inline]
    pub fn reach(point: KillPoint) {
        if POINT.load(Relaxed) == point as u32 && PASSES.fetch_sub(1, Relaxed) == 0 {
            tenfold_sys::process::kill_self();
        }
    }
}

#[cfg(feature = "kill-points")]
pub use armed::{arm, disarm, reach};

/// Called where the point is; nothing without the feature `kill-points`.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
pub fn reach(_: KillPoint) {}
