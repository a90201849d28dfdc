//! The family's memory: one anonymous file, mapped window by window.
//!
//! ```text
//!  offset 0        64 KiB        128 KiB            1 MiB                   17 MiB          file end
//!  ├─ header ──────┼─ descriptor ─┼──── (spare) ─────┼─ participants table ──┼─ blocks … ───────┤
//!  │ grow lock     │  directory   │                  │ 1024 slots of 16 KiB  │ slabs, large     │
//!  │ stripes       │              │                  │                       │ blocks, tables   │
//!  │ class heads   │              │                  │                       │ of descriptors   │
//! ```
//!
//! The file is looked at through *windows* of 1 MiB, mapped when first touched and never unmapped,
//! so that a reference into a window is valid as long as the process. No block of up to 1 MiB
//! straddles two windows; larger ones are mapped in one piece for a while ([`large`]), or read and
//! written through the file, and have huge pages where there are some ([`huge`]).
//!
//! *Killed here:* mapping is process-local and leaves nothing behind. Everything that is shared
//! changes under the locks of [`alloc`].

pub mod alloc;
pub mod block;
pub mod class;
mod huge;
pub(crate) mod large;
mod limit;
pub mod stats;
mod window;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::os::fd::BorrowedFd;

use tenfold_sys::memory_file::MemoryFile;

use crate::error::{HeapError, Result};
use crate::internal_lock::InternalLock;
pub use block::BlockId;
pub use window::{At, MappedBlock, Shared, Word};
pub(crate) use window::{attach_mutex, fixed};

/// Size of a window in bytes.
pub const WINDOW: u64 = 1 << 20;
/// Bytes of the header, tables and slots, which are always mapped.
pub(crate) const FIXED: u64 = PARTICIPANTS + (SLOTS as u64) * crate::participant::SLOT_SIZE;
/// Where the participants table begins.
pub(crate) const PARTICIPANTS: u64 = WINDOW;
/// How many processes a family has room for.
pub const SLOTS: u32 = 1024;
/// Reference counts are changed under one of this many locks, chosen by the block's index.
pub(crate) const STRIPES: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"tenfold\x01");

/// The first bytes of the file.
#[repr(C)]
pub struct Header {
    magic: AtomicU64,
    /// Tells this family from any other.
    pub(crate) nonce: AtomicU64,
    /// Bytes of the file in use, whole slabs.
    pub(crate) end: AtomicU64,
    /// Descriptors in use, the null descriptor included.
    pub(crate) descriptors: AtomicU64,
    /// Bytes taken from the system.
    pub(crate) committed: AtomicU64,
    /// The most that `committed` may become.
    pub(crate) limit: AtomicU64,
    /// Bytes of freed large blocks whose pages are kept warm.
    pub(crate) warm: AtomicU64,
    /// The most that `committed` has been.
    pub(crate) high_water: AtomicU64,
    /// Not zero once the root is known to be gone.
    pub(crate) ended: AtomicU32,
    /// Slot of the root process plus one.
    pub(crate) root: AtomicU32,
    /// Free for the layer above: who the nursery and the warden are, their doorbells.
    pub services: [AtomicU64; 16],
    /// Free for the layer above: the identity of the executable.
    pub executable: [AtomicU64; 4],
    pub(crate) grow: InternalLock,
    pub(crate) stripes: [InternalLock; STRIPES],
    pub(crate) classes: [class::ClassHead; class::CLASSES],
}

const _: () = assert!(size_of::<Header>() <= block::DIRECTORY_OFFSET as usize);

// SAFETY: repr(C), made of atomics only.
unsafe impl Shared for Header {}

/// The shared heap of this process's family.
///
/// A value of this type proves that the heap is attached; it is copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap(());

impl Heap {
    /// The family's heap. The first call in a process that was not started by tenfold makes a new
    /// family with this process as its root.
    ///
    /// # Errors
    /// If the memory file cannot be made or mapped.
    #[inline]
    pub fn get() -> Result<Heap> {
        if window::is_attached() { Ok(Heap(())) } else { Heap::create() }
    }

    /// The heap, if this process has one already.
    pub fn existing() -> Option<Heap> {
        window::is_attached().then_some(Heap(()))
    }

    #[cold]
    fn create() -> Result<Heap> {
        crate::participant::register_fork_handlers()?;
        window::attach_once(|| {
            limit::check_file_size(FIXED)?;
            let file = MemoryFile::create("tenfold").map_err(HeapError::os("memfd_create"))?;
            file.allocate(0, WINDOW).map_err(HeapError::os("fallocate"))?;
            // The participants table is sparse: a slot costs memory once it is used.
            file.set_len(FIXED).map_err(HeapError::os("ftruncate"))?;
            window::map_fixed(file)?;
            let heap = Heap(());
            let header = heap.header();
            header.nonce.store(random_nonce(), Ordering::Relaxed);
            header.end.store(FIXED, Ordering::Relaxed);
            header.descriptors.store(1, Ordering::Relaxed);
            header.committed.store(WINDOW, Ordering::Relaxed);
            header.limit.store(limit::default_limit(), Ordering::Relaxed);
            header.magic.store(MAGIC, Ordering::Release);
            // Before any other thread sees the heap, or it would make itself a participant too.
            crate::participant::join_as_root(heap)
        })?;
        Ok(Heap(()))
    }

    /// Attaches to the family whose memory file was handed to this process.
    ///
    /// # Errors
    /// [`HeapError::Stale`] if the file is not that family's heap; an error of the system if it
    /// cannot be mapped.
    pub fn attach(file: MemoryFile, nonce: u64) -> Result<Heap> {
        window::attach_once(|| {
            window::map_fixed(file)?;
            let header = Heap(()).header();
            let same = header.magic.load(Ordering::Acquire) == MAGIC && header.nonce.load(Ordering::Relaxed) == nonce;
            if same { Ok(()) } else { Err(HeapError::Stale) }
        })?;
        Ok(Heap(()))
    }

    /// The header, for the layer above.
    #[inline]
    pub fn header(self) -> At<Header> {
        window::fixed::<Header>(0)
    }

    /// What tells this family from any other.
    pub fn nonce(self) -> u64 {
        self.header().nonce.load(Ordering::Relaxed)
    }

    /// The memory file, to be inherited by a child process.
    pub fn fd(self) -> BorrowedFd<'static> {
        window::file().as_fd()
    }

    /// Which file it is, as the list of a process's mappings names it.
    pub(crate) fn file_identity(self) -> tenfold_sys::memory_file::FileIdentity {
        window::file().identity()
    }

    /// Whether the family's root has been declared dead.
    pub fn has_ended(self) -> bool {
        self.header().ended.load(Ordering::SeqCst) != 0
    }

    /// Declares the family's root dead: nothing new may start.
    pub fn declare_ended(self) {
        self.header().ended.store(1, Ordering::SeqCst);
    }
}

/// A nonce that two families do not share: the kernel's random bytes.
fn random_nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // RandomState is seeded by the system's random numbers, once a process; the clock and the pid
    // tell apart two families of processes forked from one.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(tenfold_sys::clock::now());
    hasher.write_u32(tenfold_sys::process::pid());
    hasher.finish() | 1
}
