//! Processes, supervision and the pool, on top of the shared heap: bytes in, bytes out.

pub use tenfold_shm::{Handle, Heap, HeapError, ObjectKind};

pub use tenfold_shm as shm;
pub use tenfold_sys as sys;
