//! Descriptors: what is known of each block, and the ids that name blocks.
//!
//! A descriptor is 64 bytes in a table apart from the blocks, so that a block can be released or
//! swept without looking into it. The table grows by pieces of 1 MiB that a directory in the fixed
//! part names; an id is `generation << 32 | index`, and the generation changes when the block is
//! freed, so that a stale id is noticed.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::large::Access;
use super::{At, FIXED, Heap, Shared, WINDOW, Word, class};
use crate::error::{HeapError, Result};
use crate::object::ObjectKind;

/// Where the directory of descriptor tables lies.
pub(super) const DIRECTORY_OFFSET: u64 = 64 << 10;
/// Tables the directory has room for.
pub(super) const DIRECTORY_LEN: u64 = 8192;
/// Descriptors in one table.
pub(super) const TABLE_LEN: u64 = WINDOW / size_of::<Descriptor>() as u64;

/// Names a block of the heap. Never zero; zero in shared memory means "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(u64);

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index(), self.generation())
    }
}

impl BlockId {
    /// The id that a word of shared memory holds, if any.
    #[inline(always)]
    pub fn from_bits(bits: u64) -> Option<BlockId> {
        (bits as u32 != 0).then_some(BlockId(bits))
    }

    /// The id as a word; never zero.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn new(index: u32, generation: u32) -> BlockId {
        BlockId(u64::from(generation) << 32 | u64::from(index))
    }

    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What is known of a block.
#[repr(C, align(64))]
pub(crate) struct Descriptor {
    /// [`State`] as bits.
    pub(crate) state: AtomicU64,
    /// Where the block begins; never changes.
    pub(crate) offset: AtomicU64,
    /// The next free descriptor of the class, while free.
    pub(crate) next: AtomicU64,
    /// Bytes asked for, while in use.
    pub(crate) len: AtomicU64,
    /// References, for objects.
    pub(crate) refs: AtomicU64,
    /// For large blocks: bytes that have pages behind them.
    pub(crate) committed: AtomicU64,
    /// For large blocks: the part of them in the header's account of warm pages.
    pub(crate) warm: AtomicU64,
    spare: AtomicU64,
}

const _: () = assert!(size_of::<Descriptor>() == 64);

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Descriptor {}

/// The state word of a descriptor: `generation:32 | owner slot:16 | class:8 | kind:8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) generation: u32,
    pub(crate) owner: u16,
    pub(crate) class: u8,
    pub(crate) kind: u8,
}

impl State {
    #[inline(always)]
    pub(crate) fn from_bits(bits: u64) -> State {
        State {
            generation: (bits >> 32) as u32,
            owner: (bits >> 16) as u16,
            class: (bits >> 8) as u8,
            kind: bits as u8,
        }
    }

    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.generation) << 32
            | u64::from(self.owner) << 16
            | u64::from(self.class) << 8
            | u64::from(self.kind)
    }
}

/// A block in use, looked up: where it is, how long, of what kind.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    pub(crate) id: BlockId,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) kind: u8,
    /// Whether most of its pages are new; known to the one who took it.
    pub(crate) fresh: bool,
    pub(crate) descriptor: At<Descriptor>,
}

impl Block {
    /// Its id.
    #[inline(always)]
    pub fn id(self) -> BlockId {
        self.id
    }

    /// Bytes that were asked for.
    #[inline(always)]
    pub fn len(self) -> u64 {
        self.len
    }

    /// Whether nothing was asked for.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Where it begins.
    #[inline(always)]
    pub fn offset(self) -> u64 {
        self.offset
    }

    fn check(self, at: u64, length: u64) -> Result<()> {
        match at.checked_add(length) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(HeapError::corrupt("range outside its block", self.offset)),
        }
    }

    /// A typed look at the block's bytes from `at`.
    ///
    /// # Errors
    /// [`HeapError::Corrupt`] if it does not lie inside; [`HeapError::AddressSpace`].
    #[inline]
    pub fn view<T: Shared>(self, heap: Heap, at: u64) -> Result<At<T>> {
        self.check(at, size_of::<T>() as u64)?;
        heap.at::<T>(self.offset + at)
    }

    /// `count` things of one type, side by side from byte `at`.
    ///
    /// # Errors
    /// As [`Block::view`]; also if they are misaligned.
    pub(crate) fn slice<T: Shared>(self, heap: Heap, at: u64, count: usize) -> Result<&'static [T]> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        let address = self.address(heap, at, bytes)?.cast::<T>();
        if !address.is_aligned() {
            return Err(HeapError::corrupt("misaligned table", self.offset));
        }
        // SAFETY: in bounds of a window that is never unmapped, aligned, and T is atomics only.
        Ok(unsafe { core::slice::from_raw_parts(address.as_ptr(), count) })
    }

    /// The word at byte `at`.
    ///
    /// # Errors
    /// As [`Block::view`].
    #[inline]
    pub fn word(self, heap: Heap, at: u64) -> Result<Word> {
        self.view::<AtomicU64>(heap, at)
    }

    /// Copies `bytes` to byte `at` of the block. The caller owns the block or its lock.
    ///
    /// # Errors
    /// [`HeapError::Corrupt`] if they do not fit; an error of the system.
    #[inline]
    pub fn write(self, heap: Heap, at: u64, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len() as u64)?;
        if self.len > WINDOW
            && let Some(mapped) = self.mapped(heap, Access::Write(bytes.len()))
        {
            // SAFETY: the range lies inside the block, which is mapped; the caller owns the block, so nobody
            // else reads or writes it; a Rust slice never overlaps a mapping of the heap.
            unsafe { bytes.as_ptr().copy_to_nonoverlapping(mapped.as_ptr().add(at as usize), bytes.len()) };
            return Ok(());
        }
        heap.write_bytes(self.offset + at, bytes)
    }

    /// Copies bytes out of the block from byte `at`.
    ///
    /// # Errors
    /// As [`Block::write`].
    #[inline]
    pub fn read(self, heap: Heap, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.check(at, bytes.len() as u64)?;
        if self.len > WINDOW
            && let Some(mapped) = self.mapped(heap, Access::Read(bytes.len()))
        {
            // SAFETY: as in `write`, the other way round.
            unsafe { mapped.as_ptr().add(at as usize).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
            return Ok(());
        }
        heap.read_bytes(self.offset + at, bytes)
    }

    /// Sets the block's bytes to zero, the first `most` of them. The caller owns the block.
    ///
    /// # Errors
    /// As [`Block::write`].
    pub fn zero(self, heap: Heap, most: u64) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = 0;
        let end = self.len.min(most);
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            self.write(heap, at, &ZEROS[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    /// The bytes from `at` on, where they are, if they lie in one window.
    ///
    /// # Errors
    /// As [`Block::view`].
    #[inline]
    pub(crate) fn address(self, heap: Heap, at: u64, length: u64) -> Result<core::ptr::NonNull<u8>> {
        self.check(at, length)?;
        heap.address(self.offset + at, length)
    }
}

impl Heap {
    /// The descriptor with this index, whatever its state.
    #[inline]
    pub(crate) fn descriptor(self, index: u64) -> Result<At<Descriptor>> {
        if index == 0 || index >= self.header().descriptors.load(Ordering::Acquire) {
            return Err(HeapError::corrupt("descriptor index", index));
        }
        self.descriptor_in_growth(index)
    }

    /// The same for one that may be beyond those in use.
    #[inline]
    pub(super) fn descriptor_in_growth(self, index: u64) -> Result<At<Descriptor>> {
        let table = index / TABLE_LEN;
        if table >= DIRECTORY_LEN {
            return Err(HeapError::corrupt("descriptor index", index));
        }
        let directory = super::window::fixed::<AtomicU64>(DIRECTORY_OFFSET + table * 8);
        self.at::<Descriptor>(directory.load(Ordering::Acquire) + index % TABLE_LEN * size_of::<Descriptor>() as u64)
    }

    /// Looks a block up.
    ///
    /// # Errors
    /// [`HeapError::Stale`] if it has been freed, [`HeapError::Corrupt`] if its descriptor makes no
    /// sense.
    #[inline]
    pub fn block(self, id: BlockId) -> Result<Block> {
        let descriptor = self.descriptor(u64::from(id.index()))?;
        let state = State::from_bits(descriptor.state.load(Ordering::Acquire));
        if state.generation != id.generation() || state.kind == ObjectKind::FREE {
            return Err(HeapError::Stale);
        }
        let (offset, len) = (descriptor.offset.load(Ordering::Relaxed), descriptor.len.load(Ordering::Relaxed));
        if state.class as usize >= class::CLASSES
            || len > class::size_of_class(state.class as usize)
            || !self.has_blocks(offset, len)
        {
            return Err(HeapError::corrupt("descriptor", descriptor.offset()));
        }
        Ok(Block { id, offset, len, kind: state.kind, fresh: false, descriptor })
    }

    /// Whether `len` bytes at `offset` lie where blocks do.
    #[inline]
    pub(super) fn has_blocks(self, offset: u64, len: u64) -> bool {
        let end = self.header().end.load(Ordering::Relaxed);
        offset >= FIXED && offset.is_multiple_of(16) && offset.checked_add(len).is_some_and(|last| last <= end)
    }
}
