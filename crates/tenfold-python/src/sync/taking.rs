//! Acquire and release as Python's locks spell them.
//!
//! A lock that is free is taken in one step, with the GIL held; everything else is the cold path.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use tenfold_engine::HeapError;
use tenfold_engine::shm::sync::{Acquired, Lock, RLock, SyncResult};
use tenfold_engine::sys::clock::{self, Deadline};

use crate::arguments::Truth;
use crate::errors;
use crate::waiting::{blocking, deadline};

/// What the two kinds of lock have in common.
pub(super) trait Takes: Sync {
    fn at_once(&self) -> Result<bool, HeapError>;
    fn if_free(&self) -> Result<Acquired, HeapError>;
    fn until(&self, deadline: Deadline) -> Result<Acquired, HeapError>;
    fn let_go(&self) -> SyncResult<()>;
    fn look_after_holder(&self);
}

macro_rules! takes {
    ($($lock:ty),*) => {
        $(impl Takes for $lock {
            #[inline]
            fn at_once(&self) -> Result<bool, HeapError> {
                self.acquire_at_once()
            }
            fn if_free(&self) -> Result<Acquired, HeapError> {
                self.try_acquire()
            }
            fn until(&self, deadline: Deadline) -> Result<Acquired, HeapError> {
                self.acquire(deadline)
            }
            fn let_go(&self) -> SyncResult<()> {
                self.release()
            }
            fn look_after_holder(&self) {
                self.look_after_holder();
            }
        })*
    };
}
takes!(Lock, RLock);

/// `acquire(block, timeout, recover=recover)`.
///
/// # Errors
/// `OwnerDied`, with the lock free, unless `recover` is set; what a signal handler has raised.
#[inline]
pub(super) fn acquire(
    py: Python<'_>,
    lock: &impl Takes,
    block: Truth,
    timeout: Option<f64>,
    recover: bool,
) -> PyResult<bool> {
    match lock.at_once() {
        Ok(true) => Ok(true),
        _ => acquire_slowly(py, lock, block, timeout, recover),
    }
}

/// How often those who never wait look whether the holder of a lock lives.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
static LAST_LOOK: AtomicU64 = AtomicU64::new(0);

fn try_once(lock: &impl Takes) -> Result<Acquired, HeapError> {
    let acquired = lock.if_free();
    let now = clock::now();
    let since = now.saturating_sub(LAST_LOOK.load(Ordering::Relaxed));
    if acquired != Ok(Acquired::TimedOut) || since < BETWEEN_LOOKS.as_nanos() as u64 {
        return acquired;
    }
    LAST_LOOK.store(now, Ordering::Relaxed);
    lock.look_after_holder();
    lock.if_free()
}

#[cold]
fn acquire_slowly(
    py: Python<'_>,
    lock: &impl Takes,
    Truth(block): Truth,
    timeout: Option<f64>,
    recover: bool,
) -> PyResult<bool> {
    let deadline = deadline(timeout)?;
    let acquired = if block && timeout.is_none_or(|seconds| seconds > 0.0) {
        let undo = |_: Python<'_>, result: Result<Acquired, _>| {
            if result.is_ok_and(Acquired::is_held) {
                let _ = lock.let_go();
            }
        };
        blocking(py, || lock.until(deadline), undo)?
    } else {
        try_once(lock)
    };
    match acquired.map_err(errors::heap)? {
        Acquired::Yes => Ok(true),
        Acquired::TimedOut => Ok(false),
        Acquired::OwnerDied if recover => Ok(true),
        Acquired::OwnerDied => {
            lock.let_go().map_err(errors::sync)?;
            Err(errors::owner_died())
        }
    }
}
