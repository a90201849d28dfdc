//! What the nursery does for pools between two events: it starts workers in place of dead ones.

use tenfold_shm::Heap;
use tenfold_shm::participant::Identity;

use crate::launch::{LaunchError, LaunchSpec};

/// Forks a process in the nursery.
pub(crate) type Fork<'a> = dyn FnMut(&LaunchSpec<'_>) -> Result<Identity, LaunchError> + 'a;

/// Called by the nursery after each event. It must not keep handles beyond the call: a child that
/// is forked later would take them for its own.
pub(crate) fn tend(_heap: Heap, _fork: &mut Fork<'_>) {}
