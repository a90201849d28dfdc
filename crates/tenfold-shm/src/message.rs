//! Payloads: bytes on their way, and the handles inside them.
//!
//! ```text
//!  Bytes    ┌ payload … ┐
//!  Message  ┌ count ┬ handle 0 ┬ handle 1 ┬ … ┬ payload … ┐      a handle is a counted reference
//! ```
//!
//! The heap cannot see into a payload, so whoever writes one passes the handles in it beside the
//! bytes; the message holds them until it is received or dropped.
//!
//! *Killed here:* a message belongs to a cell at every instant: of the writer, of the queue, of the
//! reader. The sweep drops the handles that it still has, then frees it.

use core::sync::atomic::Ordering;

use crate::error::{HeapError, Result};
use crate::heap::block::{Block, State};
use crate::heap::{BlockId, Heap, Word};
use crate::kill_point::{KillPoint, reach};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{HeldCell, Seat, seat};

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

/// Bytes of the handle table before the payload.
fn table_len(handles: usize) -> u64 {
    if handles == 0 { 0 } else { 8 + 8 * handles as u64 }
}

/// Writes a payload to a block of its own, owned by `cell`.
///
/// # Errors
/// If the heap has no room or a handle is stale; the cell is then empty.
pub fn write(heap: Heap, seat: Seat, outgoing: Outgoing<'_>, cell: Word) -> Result<BlockId> {
    let table = table_len(outgoing.handles.len());
    let block = heap.take(seat, table + outgoing.len() as u64, ObjectKind::Bytes, cell)?;
    let written = fill(heap, seat, block, table, outgoing);
    if let Err(error) = written {
        object::release(heap, seat, cell)?;
        return Err(error);
    }
    reach(KillPoint::MessageWritten);
    Ok(block.id())
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
    if count.checked_mul(8).and_then(|n| n.checked_add(8)).is_none_or(|n| n > block.len()) {
        return Err(HeapError::corrupt("handle table of a message", block.offset()));
    }
    Ok(count)
}

/// Where the payload of a block of bytes or a message begins.
#[inline]
pub(crate) fn payload_start(heap: Heap, block: Block) -> Result<u64> {
    match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::Bytes) => Ok(0),
        Some(ObjectKind::Message) => Ok(table_len(handle_count(heap, block)? as usize)),
        _ => Err(HeapError::corrupt("kind of a message", block.offset())),
    }
}

/// Handles to the objects that a block of bytes or a message refers to.
pub(crate) fn handles_of(heap: Heap, block: Block) -> Result<Vec<Handle>> {
    if ObjectKind::from_bits(block.kind) != Some(ObjectKind::Message) {
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
        let uncounted = |id| heap.block(id).is_ok() && !object::is_counted(heap, id);
        if BlockId::from_bits(cell.load(Ordering::Acquire)).is_some_and(uncounted) {
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

    /// A payload whose block is named by `cell`, an entry of this process's ledger.
    ///
    /// # Errors
    /// If the cell names no message.
    pub fn held(heap: Heap, cell: HeldCell) -> Result<Payload> {
        let id = BlockId::from_bits(cell.word().load(Ordering::Acquire)).ok_or(HeapError::Stale)?;
        let block = heap.block(id)?;
        let at = match ObjectKind::from_bits(block.kind) {
            Some(ObjectKind::Bytes) => 0,
            Some(ObjectKind::Message) => table_len(handle_count(heap, block)? as usize),
            _ => return Err(HeapError::corrupt("kind of a message", block.offset())),
        };
        Ok(Payload { heap, body: Body::Block { block, cell, at } })
    }

    /// Bytes of the payload.
    pub fn len(&self) -> usize {
        match &self.body {
            Body::Inline { len, .. } => usize::from(*len),
            Body::Block { block, at, .. } => (block.len() - at) as usize,
            Body::Owned(bytes, _) => bytes.len(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
            Body::Block { block, cell, at } => {
                check_ours(cell)?;
                let (start, len) = (block.offset() + at, block.len() - at);
                if let Ok(address) = self.heap.address(start, len) {
                    // SAFETY: in bounds of a window that is never unmapped; the block is owned by
                    // this payload's cell, so no process that keeps the rules writes to it, and it
                    // is not freed before `self` is dropped.
                    let bytes = unsafe { core::slice::from_raw_parts(address.as_ptr(), len as usize) };
                    return Ok(f(bytes));
                }
                if let Ok(mapped) = self.heap.map_range(start, len) {
                    // SAFETY: as above, and mapped until after the call.
                    return Ok(f(unsafe { core::slice::from_raw_parts(mapped.as_ptr(), mapped.len()) }));
                }
                Ok(f(&self.to_vec()?))
            }
        }
    }

    /// A copy of the bytes.
    ///
    /// # Errors
    /// If the bytes cannot be read.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Inline { len, bytes } => Ok(bytes[..usize::from(*len)].to_vec()),
            Body::Owned(bytes, _) => Ok(bytes.clone()),
            Body::Block { block, cell, at } => {
                check_ours(cell)?;
                let mut bytes = vec![0; (block.len() - at) as usize];
                block.read(self.heap, *at, &mut bytes)?;
                Ok(bytes)
            }
        }
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
        match &self.body {
            Body::Block { block, cell, at } if *at > 0 => {
                check_ours(cell)?;
                let cells = (0..handle_count(self.heap, *block)?).map(|n| block.word(self.heap, 8 + 8 * n));
                cells.map(|cell| Handle::from_cell(self.heap, cell?)).collect()
            }
            Body::Owned(_, handles) => Ok(handles.clone()),
            _ => Ok(Vec::new()),
        }
    }
}

/// A fork leaves a payload's block with the parent, who may free it at any time.
#[inline]
fn check_ours(cell: &HeldCell) -> Result<()> {
    if cell.is_original() { Ok(()) } else { Err(HeapError::Stale) }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Body::Block { cell, .. } = &self.body
            && let (Ok(entry), Ok(seat)) = (cell.here(self.heap), seat(self.heap))
        {
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
    let (at, handles) = match ObjectKind::from_bits(block.kind) {
        Some(ObjectKind::Message) => {
            let count = handle_count(heap, block)?;
            let cells = (0..count).map(|n| block.word(heap, 8 + 8 * n));
            let handles: Result<Vec<Handle>> = cells.map(|cell| Handle::from_cell(heap, cell?)).collect();
            (table_len(count as usize), handles?)
        }
        _ => (0, Vec::new()),
    };
    let mut bytes = vec![0; (block.len() - at) as usize];
    block.read(heap, at, &mut bytes)?;
    Ok((bytes, handles))
}
