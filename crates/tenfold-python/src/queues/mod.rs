//! Queues: the native half of `tenfold.queues`.
//!
//! ```text
//!  Queue ──────┐                      the classes of multiprocessing.queues
//!  SimpleQueue ┼─▶ Channel ─▶ the engine's queue, in shared memory
//!  Reader ─────┤      └ Bell          a descriptor to poll, made when one is first asked for; or a Watch
//!  Writer ─────┘                      what `_reader` and `_writer` of a queue are
//! ```
//!
//! There is no feeder thread: `put` pickles in the caller and the message is in the queue when it returns.
//!
//! *Killed here:* a message is in the queue or it is not; all of that is the engine's. A message that was taken is the
//! taker's, and gone with it.

mod bell;
mod channel;
mod ends;
mod many;
mod queue;
mod simple;
mod watch;

use pyo3::prelude::*;

/// Puts the classes into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<queue::Queue>()?;
    module.add_class::<simple::SimpleQueue>()?;
    module.add_class::<ends::Reader>()?;
    module.add_class::<ends::Writer>()
}
