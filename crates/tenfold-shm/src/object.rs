//! Objects: blocks with a kind and a reference count.
//!
//! A reference is a cell that names the object: an entry of a process's ledger, a word of a
//! container, a word of a message's handle table. The count says how many such cells there are;
//! count and cell change in one redo record, under one of 64 stripe locks chosen by the block.
//!
//! Inside a process, handles are clones of one `Arc`, so that a process has one ledger entry for an
//! object however many handles it has.
//!
//! When the last reference goes, the object is put on the *dying chain* of the thread's lane and
//! taken apart piece by piece. *Killed here:* the sweep goes on where the dead thread stopped.

use core::cell::Cell;
use core::sync::atomic::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::error::{HeapError, Result};
use crate::guarded::Guarded;
use crate::heap::block::{Block, State};
use crate::heap::{At, BlockId, Heap, STRIPES, Shared, Word};
use crate::internal_lock::{Guard, Store};
use crate::kill_point::{KillPoint, reach};
use crate::participant::{Death, HeldCell, LedgerEntry, Seat, seat};
use crate::{board, connection, data, dict, list, message, process_record, queue, spine, sync};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal, $text:literal;)*) => {
        /// What a block is used for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ObjectKind { $($(#[doc = $doc])* $name = $value,)* }

        impl ObjectKind {
            pub(crate) fn from_bits(bits: u8) -> Option<ObjectKind> {
                match bits { $($value => Some(ObjectKind::$name),)* _ => None }
            }

            /// The kind's name in messages.
            pub fn name(self) -> &'static str {
                match self { $(ObjectKind::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// Bytes with one owner.
    Bytes = 1, "block of bytes";
    /// Bytes with one owner and a table of handles before them.
    Message = 2, "message";
    /// A mutual-exclusion lock.
    Lock = 16, "lock";
    /// A lock that its holder can take again.
    RLock = 17, "re-entrant lock";
    /// A counter of permits.
    Semaphore = 18, "semaphore";
    /// A place to wait for a change.
    Condition = 19, "condition";
    /// A flag to wait for.
    Event = 20, "event";
    /// A meeting point.
    Barrier = 21, "barrier";
    /// A lock for many readers or one writer.
    RwLock = 22, "reader-writer lock";
    /// A first-in first-out queue of messages.
    Queue = 23, "queue";
    /// Plain data of fixed size.
    Data = 24, "shared value";
    /// A map from bytes to bytes.
    Dict = 25, "dict";
    /// A sequence of byte strings.
    List = 26, "list";
    /// A pool's board of tasks.
    Board = 27, "pool";
    /// A batch of tasks.
    Batch = 28, "batch of tasks";
    /// What is known of a process, after its end too.
    ProcessRecord = 29, "process";
    /// The words of a dict or list, in segments.
    Spine = 30, "spine of a container";
    /// One end of a pipe.
    Connection = 31, "connection";
    /// Bytes that had one owner and are held by count now.
    SharedBytes = 32, "shared block of bytes";
    /// The same with a table of handles before them.
    SharedMessage = 33, "shared message";
}

impl ObjectKind {
    /// The kind byte of a free block.
    pub(crate) const FREE: u8 = 0;

    /// Whether blocks of this kind have a reference count.
    pub fn is_counted(self) -> bool {
        self as u8 >= ObjectKind::Lock as u8
    }

    /// Whether blocks of this kind are payloads, which no handle names.
    pub(crate) fn is_payload(self) -> bool {
        use ObjectKind::{Bytes, Message, SharedBytes, SharedMessage};
        matches!(self, Bytes | Message | SharedBytes | SharedMessage)
    }
}

/// Makes an object of `bytes` zeroed bytes whose one reference is `cell`, a cell of the caller's own;
/// `init` fills in what is not zero, and must not take further blocks.
///
/// # Errors
/// As [`Handle::create`]; the cell is then empty.
pub(crate) fn create_in(
    heap: Heap,
    seat: Seat,
    kind: ObjectKind,
    bytes: u64,
    cell: Word,
    init: impl FnOnce(Block) -> Result<()>,
) -> Result<Block> {
    let block = heap.take(seat, bytes.max(256), ObjectKind::Bytes, cell)?;
    if let Err(error) = block.zero(heap, u64::MAX).and_then(|()| init(block)) {
        heap.give_back(seat, block.id, cell)?;
        return Err(error);
    }
    reach(KillPoint::ObjectBuilt);
    let guard = stripe(heap, seat, block.id)?;
    let state = State::from_bits(block.descriptor.state.load(Ordering::Relaxed));
    guard.commit([
        Store::new(block.descriptor.field(|d| &d.state), State { kind: kind as u8, ..state }.bits()),
        Store::new(block.descriptor.field(|d| &d.refs), 1),
    ]);
    Ok(Block { kind: kind as u8, ..block })
}

/// One process's hold on an object.
#[derive(Debug)]
struct Holding {
    heap: Heap,
    block: Block,
    kind: ObjectKind,
    cell: HeldCell,
}

/// A counted reference to an object of the heap. Cloning is local to the process and cheap.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Holding>);

static REGISTRY: Guarded<Option<HashMap<BlockId, Weak<Holding>>>> = Guarded::new(None);

pub(crate) fn registry_mutex() -> &'static tenfold_sys::futex::PrivateMutex {
    REGISTRY.mutex()
}

impl PartialEq for Handle {
    fn eq(&self, other: &Handle) -> bool {
        self.id() == other.id()
    }
}
impl Eq for Handle {}

impl Handle {
    /// Makes an object of `bytes` zeroed bytes; `init` fills in what is not zero, and must not take
    /// further blocks.
    ///
    /// # Errors
    /// If the heap has no room, or `init` fails.
    pub fn create(heap: Heap, kind: ObjectKind, bytes: u64, init: impl FnOnce(Block) -> Result<()>) -> Result<Handle> {
        Handle::create_with(heap, kind, bytes, u64::MAX, init)
    }

    /// As [`Handle::create`], for an object of which only the first `zeroed` bytes need be zero;
    /// `init` sees to the others.
    pub(crate) fn create_with(
        heap: Heap,
        kind: ObjectKind,
        bytes: u64,
        zeroed: u64,
        init: impl FnOnce(Block) -> Result<()>,
    ) -> Result<Handle> {
        debug_assert!(kind.is_counted());
        let cell = HeldCell::take(heap)?;
        let seat = seat(heap)?;
        let transit = seat.transit(0);
        // 256 bytes and more are aligned to 64. Until it is whole it counts as mere bytes.
        let block = heap.take(seat, bytes.max(256), ObjectKind::Bytes, transit)?;
        if let Err(error) = block.zero(heap, zeroed).and_then(|()| init(block)) {
            heap.give_back(seat, block.id, transit)?;
            return Err(error);
        }
        reach(KillPoint::ObjectBuilt);
        let guard = match stripe(heap, seat, block.id) {
            Ok(guard) => guard,
            Err(error) => {
                heap.give_back(seat, block.id, transit)?;
                return Err(error);
            }
        };
        let state = State::from_bits(block.descriptor.state.load(Ordering::Relaxed));
        guard.commit([
            Store::new(block.descriptor.field(|d| &d.state), State { kind: kind as u8, ..state }.bits()),
            Store::new(block.descriptor.field(|d| &d.refs), 1),
            Store::new(cell.word(), block.id.bits()),
            Store::new(transit, 0),
        ]);
        drop(guard);
        let block = Block { kind: kind as u8, ..block };
        Ok(register(Arc::new(Holding { heap, block, kind, cell })))
    }

    /// A handle to the object that `cell` refers to; the cell keeps its own reference. The caller
    /// holds the lock that guards the cell, or owns it.
    ///
    /// # Errors
    /// [`HeapError::Stale`] if the cell names no object.
    pub fn from_cell(heap: Heap, cell: Word) -> Result<Handle> {
        Handle::from_id(heap, BlockId::from_bits(cell.load(Ordering::Acquire)).ok_or(HeapError::Stale)?)
    }

    /// A handle to the object `id`, which the caller knows to be referred to by somebody.
    ///
    /// # Errors
    /// [`HeapError::Stale`] if nothing refers to it any more.
    pub fn from_id(heap: Heap, id: BlockId) -> Result<Handle> {
        if let Some(handle) = registered(id) {
            return Ok(handle);
        }
        let block = heap.block(id)?;
        let kind = ObjectKind::from_bits(block.kind).filter(|k| k.is_counted()).ok_or(HeapError::Stale)?;
        let held = HeldCell::take(heap)?;
        add_ref(heap, seat(heap)?, id, held.word())?;
        Ok(register(Arc::new(Holding { heap, block, kind, cell: held })))
    }

    /// Puts a further reference to the object into `cell`, which is empty and owned by the caller
    /// or guarded by a lock that it holds.
    ///
    /// # Errors
    /// If the object is gone, or the heap corrupt.
    pub fn refer_from(&self, cell: Word) -> Result<()> {
        add_ref(self.0.heap, seat(self.0.heap)?, self.id(), cell)
    }

    /// The object's block.
    #[inline]
    pub fn block(&self) -> Block {
        self.0.block
    }

    /// The object's id.
    #[inline]
    pub fn id(&self) -> BlockId {
        self.0.block.id
    }

    /// The object's kind.
    pub fn kind(&self) -> ObjectKind {
        self.0.kind
    }

    /// The heap.
    #[inline]
    pub fn heap(&self) -> Heap {
        self.0.heap
    }

    /// The same handle, if the object is of kind `kind`.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`].
    pub fn expect(self, kind: ObjectKind) -> Result<Handle> {
        if self.0.kind == kind {
            Ok(self)
        } else {
            Err(HeapError::WrongKind { expected: kind.name(), found: self.0.kind.name() })
        }
    }

    /// A typed look at the object's first bytes.
    ///
    /// # Errors
    /// As [`Block::view`].
    #[inline]
    pub fn view<T: Shared>(&self) -> Result<At<T>> {
        self.0.block.view(self.0.heap, 0)
    }

    /// The number beside this process's entry in its ledger; belongs to the object's kind.
    ///
    /// # Errors
    /// If this process has no slot and can get none.
    pub(crate) fn aux(&self) -> Result<Word> {
        Ok(self.0.cell.here(self.0.heap)?.field(|e| &e.aux))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let id = self.block.id;
        REGISTRY.with(|map| {
            if let Some(map) = map
                && map.get(&id).is_some_and(|weak| weak.strong_count() == 0)
            {
                map.remove(&id);
            }
        });
        // A heap that is corrupt, or a process that cannot get a slot, leaves the reference to the
        // sweep; there is nobody to tell.
        if let (Ok(entry), Ok(seat)) = (self.cell.here(self.heap), seat(self.heap)) {
            // A lock that this process holds without a handle: others must still learn of its
            // death, so the entry stays, unless there is nobody else.
            let shared = self.block.descriptor.refs.load(Ordering::Relaxed) > 1;
            if shared && is_held_by(self.heap, seat.slot(), self.kind, self.block, entry) {
                self.cell.keep();
                return;
            }
            let _ = release(self.heap, seat, entry.field(|e| &e.id));
            entry.aux.store(0, Ordering::Relaxed);
        }
    }
}

/// Makes the holding the process's one for its object, or drops it if another thread was faster.
fn register(holding: Arc<Holding>) -> Handle {
    let first = REGISTRY.with(|map| {
        let entry = map.get_or_insert_default().entry(holding.block.id).or_default();
        let first = entry.upgrade();
        if first.is_none() {
            *entry = Arc::downgrade(&holding);
        }
        first
    });
    Handle(first.unwrap_or(holding))
}

fn registered(id: BlockId) -> Option<Handle> {
    REGISTRY.with(|map| map.as_ref()?.get(&id)?.upgrade()).map(Handle)
}

/// After a raw `clone`: takes a reference of this process's own to all it has handles for.
pub(crate) fn hold_again(heap: Heap, seat: Seat) {
    let held: Vec<Arc<Holding>> = REGISTRY.with(|map| map.iter().flatten().filter_map(|(_, w)| w.upgrade()).collect());
    for holding in held {
        // What is gone by now stays without a reference; using it reports a stale handle.
        if let Ok(entry) = crate::participant::ledger_entry(heap, seat, holding.cell.index()) {
            let _ = add_ref(heap, seat, holding.block.id, entry.field(|e| &e.id));
        }
    }
}

pub(crate) fn stripe(heap: Heap, seat: Seat, id: BlockId) -> Result<Guard> {
    heap.header().field(|h| &h.stripes[id.index() as usize % STRIPES]).lock_from(heap, seat)
}

/// Whether the block exists and has a reference count.
pub(crate) fn is_counted(heap: Heap, id: BlockId) -> bool {
    heap.block(id).is_ok_and(|b| ObjectKind::from_bits(b.kind).is_some_and(ObjectKind::is_counted))
}

/// Whether the block exists and is of this kind.
pub(crate) fn is_kind(heap: Heap, id: BlockId, kind: ObjectKind) -> bool {
    heap.block(id).is_ok_and(|b| b.kind == kind as u8)
}

/// Counts one more reference, the one from `cell`.
pub(crate) fn add_ref(heap: Heap, seat: Seat, id: BlockId, cell: Word) -> Result<()> {
    let guard = stripe(heap, seat, id)?;
    let block = heap.block(id)?;
    let refs = block.descriptor.refs.load(Ordering::Relaxed);
    if refs == 0 {
        return Err(HeapError::Stale);
    }
    guard.commit([Store::new(block.descriptor.field(|d| &d.refs), refs + 1), Store::new(cell, id.bits())]);
    Ok(())
}

/// Moves what one cell of the caller's own names to another one, which is empty.
pub(crate) fn move_block(heap: Heap, seat: Seat, id: BlockId, from: Word, to: Word) -> Result<()> {
    let guard = stripe(heap, seat, id)?;
    guard.commit([Store::new(to, id.bits()), Store::new(from, 0)]);
    Ok(())
}

/// Empties a cell: frees the block that it owns, or drops the reference that it counts for.
///
/// # Errors
/// If the heap is corrupt.
pub fn release(heap: Heap, seat: Seat, cell: Word) -> Result<()> {
    let Some(id) = BlockId::from_bits(cell.load(Ordering::Acquire)) else { return Ok(()) };
    let block = match heap.block(id) {
        Ok(block) => block,
        Err(HeapError::Stale) => {
            // Named twice for an instant, freed by the other cell.
            let _ = cell.compare_exchange(id.bits(), 0, Ordering::AcqRel, Ordering::Acquire);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::Bytes) => heap.give_back(seat, id, cell),
        Some(ObjectKind::Message) => {
            message::drop_handles(heap, seat, block)?;
            heap.give_back(seat, id, cell)
        }
        Some(_) => drop_ref(heap, seat, id, cell),
        None => Err(HeapError::corrupt("kind of a block", block.descriptor.offset())),
    }
}

fn drop_ref(heap: Heap, seat: Seat, id: BlockId, cell: Word) -> Result<()> {
    let dying = seat.dying();
    let guard = stripe(heap, seat, id)?;
    if cell.load(Ordering::Relaxed) != id.bits() {
        return Ok(());
    }
    let block = heap.block(id)?;
    let refs = block.descriptor.refs.load(Ordering::Relaxed);
    let refs_word = block.descriptor.field(|d| &d.refs);
    if refs > 1 {
        guard.commit([Store::new(refs_word, refs - 1), Store::new(cell, 0)]);
        return Ok(());
    }
    let first = dying.load(Ordering::Relaxed);
    guard.commit([
        Store::new(refs_word, 0),
        Store::new(cell, 0),
        Store::new(block.descriptor.field(|d| &d.next), first),
        Store::new(dying, id.bits()),
    ]);
    drop(guard);
    reach(KillPoint::ObjectDying);
    // If an outer call is at work on the chain, it finds this object there. What an earlier call had to
    // leave (no address space, for instance) is tried again.
    if first != 0 && DISMANTLING.get() { Ok(()) } else { dismantle_chain(heap, seat, dying) }
}

thread_local! {
    /// Whether this thread is inside [`dismantle_chain`].
    static DISMANTLING: Cell<bool> = const { Cell::new(false) };
}

/// Takes the objects of a dying chain apart and frees them, first to last.
pub(crate) fn dismantle_chain(heap: Heap, seat: Seat, chain: Word) -> Result<()> {
    let outer = DISMANTLING.replace(true);
    let done = dismantle_links(heap, seat, chain);
    DISMANTLING.set(outer);
    done
}

fn dismantle_links(heap: Heap, seat: Seat, chain: Word) -> Result<()> {
    while let Some(id) = BlockId::from_bits(chain.load(Ordering::Acquire)) {
        let block = heap.block(id)?;
        let kind = ObjectKind::from_bits(block.kind).ok_or(HeapError::corrupt("kind of a block", block.offset))?;
        dismantle(heap, seat, kind, block)?;
        let next = block.descriptor.next.load(Ordering::Acquire);
        // Parts that died meanwhile stand before this object in the chain of this thread; in the
        // chain of a dead thread they went to this thread's own.
        if chain.load(Ordering::Acquire) == id.bits() {
            heap.give_back_leaving(seat, id, chain, next)?;
        }
    }
    if chain.offset() != seat.dying().offset() {
        dismantle_links(heap, seat, seat.dying())?;
    }
    Ok(())
}

/// Frees what the object's words name. May be called again after it was cut short.
fn dismantle(heap: Heap, seat: Seat, kind: ObjectKind, block: Block) -> Result<()> {
    match kind {
        ObjectKind::ProcessRecord => process_record::dismantle(heap, seat, block),
        ObjectKind::Condition => sync::condition::dismantle(heap, seat, block),
        ObjectKind::Board => board::dismantle(heap, seat, block),
        ObjectKind::Batch => board::dismantle_batch(heap, seat, block),
        ObjectKind::Dict => dict::dismantle(heap, seat, block),
        ObjectKind::List => list::dismantle(heap, seat, block),
        ObjectKind::Spine => spine::dismantle(heap, seat, block),
        ObjectKind::Queue => queue::dismantle(heap, seat, block),
        ObjectKind::Connection => connection::dismantle(heap, seat, block),
        ObjectKind::SharedMessage => message::drop_handles(heap, seat, block),
        _ => Ok(()),
    }
}

/// Tells the object that `entry` holds that its holder is dead.
pub(crate) fn owner_died(heap: Heap, seat: Seat, death: &Death, entry: At<LedgerEntry>) -> Result<()> {
    let Some(id) = BlockId::from_bits(entry.id.load(Ordering::Acquire)) else { return Ok(()) };
    let block = heap.block(id)?;
    match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::Board) => board::owner_died(heap, death, block),
        Some(ObjectKind::Data) => data::owner_died(heap, death, block),
        Some(ObjectKind::Queue) => queue::owner_died(heap, seat, death, block),
        Some(kind) => sync::owner_died(heap, seat, death, kind, block, entry),
        None => Ok(()),
    }
}

/// Whether the process in slot `slot` has something of the object that its death must give back.
fn is_held_by(heap: Heap, slot: u32, kind: ObjectKind, block: Block, entry: At<LedgerEntry>) -> bool {
    match kind {
        ObjectKind::Data => data::is_held_by(heap, slot, block),
        kind => sync::is_held_by(heap, slot, kind, block, entry),
    }
}

/// Tells what a cell of the dead process's slot names that the process is dead.
pub(crate) fn owner_died_in_cell(heap: Heap, seat: Seat, death: &Death, cell: Word) -> Result<()> {
    let Some(id) = BlockId::from_bits(cell.load(Ordering::Acquire)) else { return Ok(()) };
    let block = heap.block(id)?;
    match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::ProcessRecord) => process_record::process_died(heap, seat, death, block),
        Some(ObjectKind::Batch) => board::worker_died(heap, seat, death, block),
        _ => Ok(()),
    }
}
