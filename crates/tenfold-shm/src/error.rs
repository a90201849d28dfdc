//! What can go wrong with the heap itself.

use tenfold_sys::Errno;

/// The result of an operation on the heap.
pub type Result<T> = core::result::Result<T, HeapError>;

/// Why the heap could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeapError {
    /// The heap's own limit would be passed.
    #[error(
        "the shared heap is full: {needed} bytes are needed, {committed} of at most {limit} are in \
         use; free something or raise the limit"
    )]
    OutOfMemory {
        /// Bytes that the failed request needs.
        needed: u64,
        /// Bytes the heap has taken from the system.
        committed: u64,
        /// The heap's limit in bytes.
        limit: u64,
    },
    /// This process may not map more memory (RLIMIT_AS, or too many mappings).
    #[error(
        "cannot map {length} bytes of the shared heap into this process: its address-space limit \
         (RLIMIT_AS) or its number of mappings is exhausted"
    )]
    AddressSpace {
        /// Bytes that were to be mapped.
        length: u64,
    },
    /// This process may not let the heap's file grow (RLIMIT_FSIZE).
    #[error(
        "the shared heap cannot grow to {needed} bytes: this process may write files of at most {limit} bytes \
         (RLIMIT_FSIZE)"
    )]
    FileSize {
        /// How large the file would have to be.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A word in shared memory does not make sense.
    #[error(
        "the shared heap is corrupt: {what} at offset {offset:#x}; some process of this program has \
         written over it"
    )]
    Corrupt {
        /// What was looked at.
        what: &'static str,
        /// Where, as an offset in the heap.
        offset: u64,
    },
    /// The handle's object has been freed, or the handle belongs to another program.
    #[error("the handle is stale or foreign: its object no longer exists in this family of processes")]
    Stale,
    /// The object behind the handle is of another kind.
    #[error("the handle names a {found}, not a {expected}")]
    WrongKind {
        /// What the caller wanted.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The participants table is full.
    #[error("too many processes: a family has room for {limit} at a time; wait for some to end")]
    TooManyProcesses {
        /// Size of the table.
        limit: u32,
    },
    /// More objects are held by this process than its ledger has room for.
    #[error("this process holds too many shared objects at once ({limit}); drop some")]
    TooManyHoldings {
        /// Size of the ledger.
        limit: u32,
    },
    /// A block of that size cannot exist.
    #[error("{bytes} bytes are more than one block can hold ({limit})")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes the largest block has.
        limit: u64,
    },
    /// The descriptor of the heap was closed, and its number perhaps reused, behind our back.
    #[error(
        "the shared heap's file descriptor was closed by this program (a daemoniser?); start \
         tenfold after closing descriptors"
    )]
    FileTaken,
    /// Keys came or went while a dict was read piece by piece.
    #[error("the dict's keys changed during iteration; iterate over a copy instead")]
    KeysChanged,
    /// The family has ended: its root is gone.
    #[error("the program that this process belongs to has ended")]
    FamilyEnded,
    /// A system call failed.
    #[error("{call} failed: {errno}")]
    Os {
        /// The call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
}

impl HeapError {
    /// Pairs a failed call's name with its error.
    pub fn os(call: &'static str) -> impl FnOnce(Errno) -> HeapError {
        move |errno| HeapError::Os { call, errno }
    }

    /// Shared memory at `offset` makes no sense.
    pub fn corrupt(what: &'static str, offset: u64) -> HeapError {
        HeapError::Corrupt { what, offset }
    }
}
