//! What a manager hands out: dicts and lists in the shared heap, without a server process.
//!
//! ```text
//!  tenfold.managers   DictProxy  ListProxy …        Python: names, isinstance, pickling
//!        │
//!  Dict  List  Array  native: `d[k]`, `l.append(x)` enter here, with no Python frame between
//!        │
//!  key  codec         keys so that equal ones have equal bytes; values as in queues
//!        │
//!  the engine's dict and list, bytes in and out
//! ```
//!
//! No Python code runs under a lock of the engine: keys and values are bytes before it is taken, and copies when they are
//! decoded. What only Python can decide (`==` of odd keys, `sort`, `remove`) is computed on a copy and written if nothing
//! has changed since, else tried again.
//!
//! *Killed here:* nothing is kept in the process but handles; the engine sees to the rest.

mod array;
mod dict;
mod dict_iterator;
mod key;
mod list;
mod manager;
mod many;
mod namespace;

use pyo3::prelude::*;

/// Puts the classes into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<dict::Dict>()?;
    module.add_class::<dict_iterator::DictIterator>()?;
    module.add_class::<list::List>()?;
    module.add_class::<array::Array>()?;
    module.add_class::<namespace::Namespace>()?;
    module.add_class::<manager::Membership>()?;
    module.add_class::<manager::Manager>()
}
