//! Payloads: bytes on their way, and the handles inside them.
//!
//! ```text
//!  Bytes    ┌ payload … ┐
//!  Message  ┌ count ┬ handle 0 ┬ handle 1 ┬ … ┬ … 64 ┬ payload … ┐      a handle is a counted reference
//! ```
//!
//! The heap cannot see into a payload, so whoever writes one passes the handles in it beside the
//! bytes; the message holds them until it is received or dropped.
//!
//! A message has one owner. A receiver that wants to go on looking at the bytes where they lie
//! ([`share`]) turns it into an object that is held by count: then a fork's child holds it
//! too. One store of the kind does it.
//!
//! *Killed here:* a message belongs to a cell at every instant: of the writer, of the queue, of the
//! reader. The sweep drops the handles that it still has, then frees it.

use core::borrow::Borrow;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use tenfold_sys::limits::{self, Resource};

use crate::error::{HeapError, Result};
use crate::heap::block::{Block, State};
use crate::heap::large::Access;
use crate::heap::{BlockId, Heap, MappedBlock, Word};
use crate::kill_point::{KillPoint, reach};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{HeldCell, Seat, seat};
use crate::private_view::PrivateView;

/// A payload on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The bytes, in parts that are laid end to end.
    pub parts: &'a [&'a [u8]],
    /// The objects that the bytes refer to, by their place in this list.
    pub handles: &'a [Handle],
}

impl Outgoing<'_> {
    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|p| p.len()).sum()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes of the handle table before the payload, which keeps its alignment.
fn table_len(handles: u64) -> u64 {
    if handles == 0 { 0 } else { (8 + 8 * handles).next_multiple_of(64) }
}

/// Writes a payload to a block of its own, owned by `cell`.
///
/// # Errors
/// If the heap has no room or a handle is stale; the cell is then empty.
pub fn write(heap: Heap, seat: Seat, outgoing: Outgoing<'_>, cell: Word) -> Result<BlockId> {
    write_block(heap, seat, outgoing, cell).map(|block| block.id())
}

/// As [`write`]; returns the block, whose kind may have changed since it was taken.
pub(crate) fn write_block(heap: Heap, seat: Seat, outgoing: Outgoing<'_>, cell: Word) -> Result<Block> {
    let table = table_len(outgoing.handles.len() as u64);
    let block = heap.take(seat, table + outgoing.len() as u64, ObjectKind::Bytes, cell)?;
    let written = fill(heap, seat, block, table, outgoing);
    if let Err(error) = written {
        object::release(heap, seat, cell)?;
        return Err(error);
    }
    reach(KillPoint::MessageWritten);
    Ok(block)
}

fn fill(heap: Heap, seat: Seat, block: Block, table: u64, outgoing: Outgoing<'_>) -> Result<()> {
    let mut at = table;
    for part in outgoing.parts {
        block.write(heap, at, part)?;
        at += part.len() as u64;
    }
    if table > 0 {
        for index in 0..outgoing.handles.len() as u64 {
            block.word(heap, 8 + 8 * index)?.store(0, Ordering::Relaxed);
        }
        block.word(heap, 0)?.store(outgoing.handles.len() as u64, Ordering::Relaxed);
        let state = State::from_bits(block.descriptor.state.load(Ordering::Relaxed));
        let message = State { kind: ObjectKind::Message as u8, ..state };
        block.descriptor.state.store(message.bits(), Ordering::Release);
        for (index, handle) in outgoing.handles.iter().enumerate() {
            object::add_ref(heap, seat, handle.id(), block.word(heap, 8 + 8 * index as u64)?)?;
        }
    }
    Ok(())
}

fn handle_count(heap: Heap, block: Block) -> Result<u64> {
    let count = block.word(heap, 0)?.load(Ordering::Relaxed);
    if count > block.len() / 8 || table_len(count) > block.len() {
        return Err(HeapError::corrupt("handle table of a message", block.offset()));
    }
    Ok(count)
}

/// Where the payload of a block of bytes or a message begins.
#[inline]
pub(crate) fn payload_start(heap: Heap, block: Block) -> Result<u64> {
    match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::Bytes | ObjectKind::SharedBytes) => Ok(0),
        Some(ObjectKind::Message | ObjectKind::SharedMessage) => Ok(table_len(handle_count(heap, block)?)),
        _ => Err(HeapError::corrupt("kind of a message", block.offset())),
    }
}

/// Where in its block byte `from` of a payload is, which begins at `at`.
fn behind(block: Block, at: u64, from: usize) -> Result<u64> {
    at.checked_add(from as u64).ok_or(HeapError::corrupt("length of a message", block.offset()))
}

fn has_table(block: Block) -> bool {
    matches!(ObjectKind::from_bits(block.kind), Some(ObjectKind::Message | ObjectKind::SharedMessage))
}

/// Handles to the objects that a block of bytes or a message refers to.
pub(crate) fn handles_of(heap: Heap, block: Block) -> Result<Vec<Handle>> {
    if !has_table(block) {
        return Ok(Vec::new());
    }
    let cells = (0..handle_count(heap, block)?).map(|n| block.word(heap, 8 + 8 * n));
    cells.map(|cell| Handle::from_cell(heap, cell?)).collect()
}

/// Drops the references of a message's handle table.
pub(crate) fn drop_handles(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    for index in 0..handle_count(heap, block)? {
        let cell = block.word(heap, 8 + 8 * index)?;
        // A message among its own handles would be dropped for ever.
        let is_object = |kind: ObjectKind| kind.is_counted() && !kind.is_payload();
        let no_object = |id| heap.block(id).is_ok_and(|b| !ObjectKind::from_bits(b.kind).is_some_and(is_object));
        if BlockId::from_bits(cell.load(Ordering::Acquire)).is_some_and(no_object) {
            return Err(HeapError::corrupt("handle of a message", cell.offset()));
        }
        object::release(heap, seat, cell)?;
        reach(KillPoint::MessageHandleDropped);
    }
    Ok(())
}

/// A payload that has arrived.
#[derive(Debug)]
pub struct Payload {
    heap: Heap,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Inline { len: u8, bytes: [u8; INLINE] },
    Block { block: Block, cell: HeldCell, at: u64 },
    Shared { handle: Handle, at: u64 },
    Owned(Vec<u8>, Vec<Handle>),
}

/// Bytes that a payload may have to travel without a block of its own.
pub const INLINE: usize = 56;

impl Payload {
    /// A short payload that was copied out of shared memory.
    pub fn inline(heap: Heap, source: &[u8]) -> Payload {
        let mut bytes = [0; INLINE];
        let len = source.len().min(INLINE);
        bytes[..len].copy_from_slice(&source[..len]);
        Payload { heap, body: Body::Inline { len: len as u8, bytes } }
    }

    /// A payload that was copied out of shared memory, and the handles inside it.
    pub fn owned(heap: Heap, bytes: Vec<u8>, handles: Vec<Handle>) -> Payload {
        Payload { heap, body: Body::Owned(bytes, handles) }
    }

    /// Writes a payload to a block of its own, which an entry of this process's ledger names until
    /// it goes elsewhere.
    ///
    /// # Errors
    /// If the heap has no room or a handle is stale.
    pub fn write(heap: Heap, outgoing: Outgoing<'_>) -> Result<Payload> {
        let cell = HeldCell::take(heap)?;
        write(heap, seat(heap)?, outgoing, cell.word())?;
        Payload::held(heap, cell)
    }

    /// The payload in the block that `cell` names, a cell of the caller's own; it is empty then.
    ///
    /// # Errors
    /// If the cell names no message, or this process can hold no more.
    pub fn take(heap: Heap, id: BlockId, cell: Word) -> Result<Payload> {
        let held = HeldCell::take(heap)?;
        object::move_block(heap, seat(heap)?, id, cell, held.word())?;
        Payload::held(heap, held)
    }

    /// Moves the payload's block to `cell`, which is empty and the caller's own; without one, it gets
    /// one. What is left is empty.
    ///
    /// # Errors
    /// If the heap has no room or is corrupt.
    pub fn move_to(&self, heap: Heap, cell: Word) -> Result<()> {
        match &self.body {
            Body::Block { cell: held, block, .. } if held.is_original() => {
                object::move_block(heap, seat(heap)?, block.id(), held.word(), cell)
            }
            _ => {
                let (bytes, handles) = (self.to_vec()?, self.handles()?);
                write(heap, seat(heap)?, Outgoing { parts: &[&bytes], handles: &handles }, cell).map(drop)
            }
        }
    }

    /// A payload whose block is named by `cell`, an entry of this process's ledger.
    ///
    /// # Errors
    /// If the cell names no message.
    pub fn held(heap: Heap, cell: HeldCell) -> Result<Payload> {
        let id = BlockId::from_bits(cell.word().load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
        let block = heap.block(id)?;
        let at = payload_start(heap, block)?;
        Ok(Payload { heap, body: Body::Block { block, cell, at } })
    }

    /// A payload in a block that several may hold.
    ///
    /// # Errors
    /// If the handle is none of [`share`].
    pub fn shared(handle: Handle) -> Result<Payload> {
        let (heap, block) = (handle.heap(), handle.block());
        let at = payload_start(heap, block)?;
        Ok(Payload { heap, body: Body::Shared { handle, at } })
    }

    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        match &self.body {
            Body::Inline { len, .. } => usize::from(*len),
            Body::Block { block, at, .. } => (block.len() - at) as usize,
            Body::Shared { handle, at } => (handle.block().len() - at) as usize,
            Body::Owned(bytes, _) => bytes.len(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The block that the bytes are in, and where in it they begin.
    ///
    /// # Errors
    /// [`HeapError::Stale`] in a child of fork, whose parent has the payload and may free it at any time.
    fn block(&self) -> Result<Option<(Block, u64)>> {
        match &self.body {
            Body::Inline { .. } | Body::Owned(..) => Ok(None),
            Body::Block { block, cell, at } if cell.is_original() => Ok(Some((*block, *at))),
            Body::Block { .. } => Err(HeapError::Stale),
            Body::Shared { handle, at } => Ok(Some((handle.block(), *at))),
        }
    }

    fn own_bytes(&self) -> &[u8] {
        match &self.body {
            Body::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Body::Owned(bytes, _) => bytes,
            Body::Block { .. } | Body::Shared { .. } => &[],
        }
    }

    /// Calls `f` with the bytes: where they lie, or, if this process cannot map them in one piece,
    /// in a copy.
    ///
    /// # Errors
    /// [`HeapError::Stale`] in a child of fork, whose parent has the payload; if the bytes cannot be
    /// read.
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        match &self.body {
            Body::Inline { len, bytes } => Ok(f(&bytes[..usize::from(*len)])),
            Body::Owned(bytes, _) => Ok(f(bytes)),
            _ => match InPlace::of(self)? {
                Some(bytes) => Ok(f(&bytes)),
                None => Ok(f(&self.to_vec()?)),
            },
        }
    }

    /// Copies bytes out, from byte `from` on.
    ///
    /// # Errors
    /// [`HeapError::Corrupt`] if there are not as many; as [`Payload::with`].
    pub fn read(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let Some((block, at)) = self.block()? else {
            let own = self.own_bytes().get(from..).and_then(|own| own.get(..bytes.len()));
            bytes.copy_from_slice(own.ok_or(HeapError::corrupt("length of a message", 0))?);
            return Ok(());
        };
        block.read(self.heap, behind(block, at, from)?, bytes)
    }

    /// A copy of the bytes.
    ///
    /// # Errors
    /// As [`Payload::with`].
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let Some((block, at)) = self.block()? else { return Ok(self.own_bytes().to_vec()) };
        let mut bytes = vec![0; (block.len() - at) as usize];
        block.read(self.heap, at, &mut bytes)?;
        Ok(bytes)
    }

    /// A look of this process's own at `len` bytes from byte `from` on, where they lie: written to, its pages
    /// are copied, and nobody else sees it. It outlives the payload, and holds its block. `None` if the bytes are
    /// not in a block.
    ///
    /// # Errors
    /// [`HeapError::AddressSpace`] if they cannot be mapped; [`HeapError::Corrupt`] if there are not
    /// as many; as [`Payload::with`].
    pub fn look_privately(&self, from: usize, len: usize) -> Result<Option<PrivateView>> {
        let Some((block, at)) = self.block()? else { return Ok(None) };
        let handle = match &self.body {
            Body::Shared { handle, .. } => handle.clone(),
            _ => share(self.heap, block)?,
        };
        PrivateView::of(handle, behind(block, at, from)?, len as u64).map(Some)
    }

    /// As [`Payload::look_privately`], for a caller that does not look at these bytes in any other way, if this payload is
    /// the only one with its block: then what is written lands there, and no page is copied. `None` if that cannot be.
    ///
    /// # Errors
    /// As [`Payload::look_privately`].
    pub fn look_alone(&self, from: usize, len: usize) -> Result<Option<PrivateView>> {
        let Some((block, at)) = self.block()? else { return Ok(None) };
        let kind = ObjectKind::from_bits(self.heap.block(block.id())?.kind);
        let is_shared = matches!(self.body, Body::Shared { .. }) || kind.is_some_and(ObjectKind::is_counted);
        // A fork will want private memory instead, which may be limited.
        if is_shared || limits::get(Resource::Data).0.is_some() {
            return Ok(None);
        }
        let Some(mapped) = block.mapped(self.heap, Access::Look) else { return Ok(None) };
        let from = behind(block, at, from)?;
        PrivateView::alone(share(self.heap, block)?, mapped, from, len as u64).map(Some)
    }

    /// The bytes as a vector, without a copy if they already are one.
    ///
    /// # Errors
    /// If the bytes cannot be read.
    pub fn into_vec(self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Owned(..) => {}
            _ => return self.to_vec(),
        }
        let mut this = self;
        match &mut this.body {
            Body::Owned(bytes, _) => Ok(core::mem::take(bytes)),
            _ => this.to_vec(),
        }
    }

    /// Handles to the objects that the payload refers to, in the writer's order. They stay valid
    /// after the payload is dropped.
    ///
    /// # Errors
    /// If the heap is corrupt or this process can hold no more objects.
    pub fn handles(&self) -> Result<Vec<Handle>> {
        match (&self.body, self.block()?) {
            (Body::Owned(_, handles), _) => Ok(handles.clone()),
            (_, Some((block, _))) => handles_of(self.heap, block),
            _ => Ok(Vec::new()),
        }
    }
}

/// The bytes of a payload where they lie in shared memory, for reading.
#[derive(Debug)]
pub struct InPlace<P: Borrow<Payload>> {
    address: NonNull<u8>,
    len: usize,
    _mapped: Option<Arc<MappedBlock>>,
    _payload: P,
}

// SAFETY: bytes that nobody writes to, for as long as the payload is there.
unsafe impl<P: Borrow<Payload> + Send> Send for InPlace<P> {}
// SAFETY: as above.
unsafe impl<P: Borrow<Payload> + Sync> Sync for InPlace<P> {}

impl<P: Borrow<Payload>> InPlace<P> {
    /// The bytes of `payload`, unless they are not in a block, or this process cannot map that in one piece.
    ///
    /// # Errors
    /// As [`Payload::with`].
    pub fn of(payload: P) -> Result<Option<InPlace<P>>> {
        let Some((block, at)) = payload.borrow().block()? else { return Ok(None) };
        let (heap, len) = (payload.borrow().heap, block.len() - at);
        let (address, mapped) = if let Ok(address) = block.address(heap, at, len) {
            (address, None)
        } else if let Some(mapped) = block.mapped(heap, Access::Look) {
            // SAFETY: the payload lies inside its block, all of which is mapped.
            (unsafe { mapped.address().add(at as usize) }, Some(mapped))
        } else {
            return Ok(None);
        };
        Ok(Some(InPlace { address, len: len as usize, _mapped: mapped, _payload: payload }))
    }
}

impl<P: Borrow<Payload>> Deref for InPlace<P> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: in bounds of a window that is never unmapped, or of a mapping that this value keeps; the
        // block is held by the payload, so no process that keeps the rules writes to it, and it is not
        // freed before the payload is dropped.
        unsafe { core::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

/// Makes `block`, a payload that the caller alone owns, one that is held by count: by the cell that owns
/// it now, and by the handle. A payload that is held by count already gets a further handle.
///
/// # Errors
/// If it is no payload, or this process can hold no more objects.
pub fn share(heap: Heap, block: Block) -> Result<Handle> {
    // As it is now: what the caller knows of it may be from before it was shared.
    let block = heap.block(block.id())?;
    let kind = match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::Bytes) => ObjectKind::SharedBytes,
        Some(ObjectKind::Message) => ObjectKind::SharedMessage,
        Some(ObjectKind::SharedBytes | ObjectKind::SharedMessage) => return Handle::from_id(heap, block.id()),
        _ => return Err(HeapError::corrupt("kind of a message", block.offset())),
    };
    let state = State::from_bits(block.descriptor.state.load(Ordering::Relaxed));
    // The one reference is the cell's. Nobody looks at the count before the kind says that there is one.
    block.descriptor.refs.store(1, Ordering::Relaxed);
    reach(KillPoint::MessageCounted);
    block.descriptor.state.store(State { kind: kind as u8, ..state }.bits(), Ordering::Release);
    reach(KillPoint::MessageShared);
    Handle::from_id(heap, block.id())
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Body::Block { cell, at, block } = &self.body
            && let (Ok(entry), Ok(seat)) = (cell.here(self.heap), seat(self.heap))
        {
            // Views of the bytes may outlive the payload; the objects it mentions need not.
            if *at > 0
                && cell.is_original()
                && let Ok(now) = self.heap.block(block.id())
                && now.kind == ObjectKind::SharedMessage as u8
            {
                let _ = drop_handles(self.heap, seat, now);
            }
            // After a fork the entry is empty: the block is the parent's.
            let _ = object::release(self.heap, seat, entry.field(|e| &e.id));
        }
    }
}

/// Reads a block that a lock held by the caller keeps in place: a container's item.
///
/// # Errors
/// If the heap is corrupt or this process can hold no more objects.
pub fn read_in_place(heap: Heap, id: BlockId) -> Result<(Vec<u8>, Vec<Handle>)> {
    let block = heap.block(id)?;
    let (at, handles) = (payload_start(heap, block)?, handles_of(heap, block)?);
    let mut bytes = vec![0; (block.len() - at) as usize];
    block.read(heap, at, &mut bytes)?;
    Ok((bytes, handles))
}
