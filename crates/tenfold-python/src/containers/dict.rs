//! The native half of `DictProxy`.

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use tenfold_engine::shm::dict::{self, Stamp};
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::shm::sync::Event;
use tenfold_engine::{Handle, HeapError};

use super::dict_iterator::DictIterator;
use super::key::{self, Key};
use super::manager::{self, Manager, State};
use super::many::Many;
use crate::codec::{self, Encoded};
use crate::shell::Shell;
use crate::{errors, family};

/// A dict that processes share. Keys are equal when Python says so; values are copies.
#[pyclass(subclass, frozen, mapping, module = "tenfold._native")]
pub(crate) struct Dict {
    shared: Shell<Shared>,
}

struct Shared {
    dict: dict::Dict,
    closed: Event,
}

/// A heap's error, in a dict's words.
pub(super) fn raised(error: HeapError) -> PyErr {
    match error {
        HeapError::KeysChanged => PyRuntimeError::new_err("dictionary changed size during iteration"),
        error => errors::heap(error),
    }
}

fn key_error(key: &Bound<'_, PyAny>) -> PyErr {
    // In a tuple, since a tuple would be taken for the arguments.
    PyKeyError::new_err((key.clone().unbind(),))
}

/// Where a key that equals no plain value stands.
struct Other {
    /// Its entry, if it has one.
    found: Option<(Key, Stamp)>,
    /// The dict's version when it was looked for.
    version: u64,
}

impl Dict {
    pub(super) const fn empty() -> Dict {
        Dict { shared: Shell::empty() }
    }

    #[inline]
    fn shared(&self) -> PyResult<&Shared> {
        let shared = self.shared.get()?;
        manager::check(&shared.closed)?;
        Ok(shared)
    }

    #[inline]
    pub(super) fn dict(&self) -> PyResult<&dict::Dict> {
        Ok(&self.shared()?.dict)
    }

    fn other(&self, wanted: &Bound<'_, PyAny>) -> PyResult<Other> {
        let kin = self.dict()?.kin(&[key::OTHER]).map_err(raised)?;
        let mut other = Other { found: None, version: kin.version };
        if kin.keys.is_empty() {
            return Ok(other);
        }
        let hash = wanted.hash()?;
        for (bytes, stamp) in kin.keys {
            let stored = key::decode(wanted.py(), &bytes)?;
            if key::is_same(stored.bind(wanted.py()), wanted, hash)? {
                other.found = Some((Key::named(&bytes), stamp));
                break;
            }
        }
        Ok(other)
    }

    /// Calls `f` with the key's entry until it finds one that nobody removes at the same moment; None if there is none.
    fn at_other<R>(
        &self,
        wanted: &Bound<'_, PyAny>,
        mut f: impl FnMut(&Key) -> PyResult<Option<R>>,
    ) -> PyResult<Option<R>> {
        while let Some((key, _)) = self.other(wanted)?.found {
            if let Some(result) = f(&key)? {
                return Ok(Some(result));
            }
        }
        Ok(None)
    }

    #[inline]
    pub(super) fn look_up(&self, py: Python<'_>, wanted: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let mut key = Key::empty();
        if key.seek(wanted)? {
            return self.value_of(py, &key);
        }
        self.at_other(wanted, |key| self.value_of(py, key))
    }

    #[inline]
    fn value_of(&self, py: Python<'_>, key: &Key) -> PyResult<Option<Py<PyAny>>> {
        let decode = |bytes: &[u8], _handles: &[Handle]| codec::decode(py, bytes);
        self.dict()?.get_with(key.get(), decode).map_err(raised)?.transpose()
    }

    #[inline]
    pub(super) fn store(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let dict = self.dict()?;
        let mut bytes = Key::empty();
        if !bytes.spell(key)? {
            return self.store_other(py, key, value);
        }
        let encoded = codec::encode(value)?;
        encoded.with(py, |value| bytes.holding(value, |value| dict.insert(bytes.get(), value)))?.map_err(raised)?;
        Ok(())
    }

    #[cold]
    fn store_other(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (dict, encoded) = (self.dict()?, codec::encode(value)?);
        loop {
            let done = match self.other(key)? {
                Other { found: Some((mut found, stamp)), .. } => {
                    // What the key refers to is among what the entry holds now.
                    let (_, item) = dict.get_stamped(found.get()).map_err(raised)?;
                    found.handles = item.map_or(Vec::new(), |item| item.handles);
                    let write = |value: Outgoing<'_>| dict.insert_if(found.get(), value, stamp);
                    encoded.with(py, |value| found.holding(value, write))?.map_err(raised)?
                }
                Other { found: None, version } => self.add_other(py, key, &encoded, version)?,
            };
            if done {
                return Ok(());
            }
        }
    }

    /// Adds a key that is not there, if no key came or went since `version`. Returns whether it was added.
    fn add_other(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Encoded, version: u64) -> PyResult<bool> {
        let (dict, key) = (self.dict()?, Key::other(key, version)?);
        let write = |value: Outgoing<'_>| dict.insert_at_version(key.get(), value, version);
        value.with(py, |value| key.holding(value, write))?.map_err(raised)
    }

    pub(super) fn take(&self, py: Python<'_>, wanted: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let dict = self.dict()?;
        let pop = |key: &Key| {
            let item = dict.pop(key.get()).map_err(raised)?;
            item.map(|item| codec::decode(py, &item.bytes)).transpose()
        };
        let mut key = Key::empty();
        if key.seek(wanted)? { pop(&key) } else { self.at_other(wanted, pop) }
    }

    fn decoded_items<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Py<PyAny>, Py<PyAny>)>> {
        let dict = self.dict()?;
        let copies = py.detach(|| dict.copy_items()).map_err(raised)?;
        let mut all = copies.iter();
        let mut pairs = Vec::with_capacity(copies.len() / 2);
        while let (Some(key), Some(value)) = (all.next(), all.next()) {
            pairs.push((key::decode(py, key)?, codec::decode(py, value)?));
        }
        Ok(pairs)
    }

    fn merge(&self, py: Python<'_>, entries: &Bound<'_, PyDict>) -> PyResult<()> {
        let dict = self.dict()?;
        let mut plain = Entries::default();
        let mut scratch = Key::empty();
        for (key, value) in entries {
            if scratch.spell(&key)? {
                plain.push(&scratch, &value)?;
            } else {
                plain.insert_into(py, dict)?;
                self.store_other(py, &key, &value)?;
            }
        }
        plain.insert_into(py, dict)
    }
}

/// Entries on their way into a dict, all at once.
#[derive(Default)]
struct Entries {
    /// The keys' bytes, end to end.
    keys: Vec<u8>,
    /// For each, how many bytes it has and how many of them are compared.
    lengths: Vec<(usize, usize)>,
    values: Many,
}

impl Entries {
    fn push(&mut self, key: &Key, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.values.push(value, &key.handles)?;
        let (bytes, compared) = key.parts();
        self.keys.extend_from_slice(bytes);
        self.lengths.push((bytes.len(), compared));
        Ok(())
    }

    /// Inserts them, and forgets them.
    fn insert_into(&mut self, py: Python<'_>, dict: &dict::Dict) -> PyResult<()> {
        let entries = core::mem::take(self);
        if entries.lengths.is_empty() {
            return Ok(());
        }
        let insert = || {
            entries.values.with(|values| {
                let mut rest = &entries.keys[..];
                let keys = entries.lengths.iter().map(|&(length, compared)| {
                    let (bytes, behind) = rest.split_at(length);
                    rest = behind;
                    dict::Key::spelled(bytes, compared, compared)
                });
                dict.insert_many(keys.zip(values.iter().copied()))
            })
        };
        py.detach(insert).map_err(raised)
    }
}

/// What `dict(*args, **kwargs)` is.
fn as_dict<'py>(
    py: Python<'py>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    if let (1, Ok(shared)) = (args.len(), args.get_item(0).and_then(|first| Ok(first.cast_into::<Dict>()?))) {
        let dict = shared.get().copy(py)?;
        if let Some(kwargs) = kwargs {
            dict.update(kwargs.as_mapping())?;
        }
        return Ok(dict);
    }
    Ok(py.get_type::<PyDict>().call(args, kwargs)?.cast_into::<PyDict>()?)
}

#[pymethods]
impl Dict {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Dict {
        Dict::empty()
    }

    /// Makes the shared dict, one of `manager`'s; the arguments are those of `dict()`.
    #[pyo3(signature = (manager, args, kwargs))]
    pub(super) fn _create(
        &self,
        py: Python<'_>,
        manager: &Manager,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let dict = dict::Dict::create(family::heap()?).map_err(raised)?;
        manager.enrol(dict.handle()).map_err(raised)?;
        self.shared.fill(Shared { dict, closed: manager.closing().clone() });
        if args.is_empty() && kwargs.is_none_or(|kwargs| kwargs.is_empty()) {
            return Ok(());
        }
        self.merge(py, &as_dict(py, args, kwargs)?)
    }

    pub(super) fn _state(&self) -> PyResult<State> {
        let shared = self.shared()?;
        Ok(manager::state(shared.dict.handle(), &shared.closed))
    }

    pub(super) fn _restore(&self, state: State) -> PyResult<()> {
        let (handle, closed) = manager::found(state)?;
        self.shared.fill(Shared { dict: dict::Dict::from_handle(handle).map_err(raised)?, closed });
        Ok(())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.dict()?.len() as usize)
    }

    fn __getitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.look_up(py, key)?.ok_or_else(|| key_error(key))
    }

    fn __setitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.store(py, key, value)
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let dict = self.dict()?;
        let remove = |key: &Key| Ok(dict.remove(key.get()).map_err(raised)?.then_some(()));
        let mut bytes = Key::empty();
        let removed = if bytes.seek(key)? { remove(&bytes)? } else { self.at_other(key, remove)? };
        removed.ok_or_else(|| key_error(key))
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut bytes = Key::empty();
        if bytes.seek(key)? {
            return self.dict()?.contains(bytes.get()).map_err(raised);
        }
        Ok(self.other(key)?.found.is_some())
    }

    fn __iter__(&self) -> PyResult<DictIterator> {
        Ok(DictIterator::new(self.dict()?.clone()))
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let keys = self.keys(py)?;
        keys.reverse()?;
        Ok(keys.try_iter()?.into_any())
    }

    /// The value of `key`, or `default`.
    #[pyo3(signature = (key, default=None, /))]
    fn get(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        Ok(self.look_up(py, key)?.unwrap_or_else(|| default.unwrap_or_else(|| py.None())))
    }

    /// The value of `key`, which becomes `default` if it has none.
    #[pyo3(signature = (key, default=None, /))]
    fn setdefault<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let dict = self.dict()?;
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        let encoded = codec::encode(&default)?;
        let mut plain = Key::empty();
        if plain.spell(key)? {
            let insert = |value: Outgoing<'_>| plain.holding(value, |value| dict.get_or_insert(plain.get(), value));
            return match encoded.with(py, insert)?.map_err(raised)? {
                Some(item) => codec::decode(py, &item.bytes),
                None => Ok(default.unbind()),
            };
        }
        loop {
            match self.other(key)? {
                Other { found: Some((found, _)), .. } => {
                    if let Some(value) = self.value_of(py, &found)? {
                        return Ok(value);
                    }
                }
                Other { found: None, version } => {
                    if self.add_other(py, key, &encoded, version)? {
                        return Ok(default.unbind());
                    }
                }
            }
        }
    }

    /// Removes `key` and returns its value, or `default` if it is given and there is none.
    #[pyo3(signature = (key, *default))]
    fn pop(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        if default.len() > 1 {
            let given = default.len() + 1;
            return Err(PyTypeError::new_err(format!("pop expected at most 2 arguments, got {given}")));
        }
        match self.take(py, key)? {
            Some(value) => Ok(value),
            None if default.is_empty() => Err(key_error(key)),
            None => Ok(default.get_item(0)?.unbind()),
        }
    }

    /// Removes the key that was inserted last, and returns it with its value.
    fn popitem(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        match self.dict()?.pop_last().map_err(raised)? {
            Some((key, item)) => Ok((key::decode(py, &key)?, codec::decode(py, &item.bytes)?)),
            None => Err(PyKeyError::new_err("popitem(): dictionary is empty")),
        }
    }

    /// Removes all keys.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let dict = self.dict()?;
        py.detach(|| dict.clear()).map_err(raised)
    }

    /// Sets many keys, as `dict.update` does. Other processes see none or all of them.
    #[pyo3(signature = (*args, **kwargs))]
    fn update(&self, py: Python<'_>, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        if args.len() > 1 {
            let given = args.len();
            return Err(PyTypeError::new_err(format!("update expected at most 1 argument, got {given}")));
        }
        self.merge(py, &as_dict(py, args, kwargs)?)
    }

    /// All keys, as a list.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let dict = self.dict()?;
        let keys = py.detach(|| dict.copy_keys()).map_err(raised)?;
        let decoded: Vec<_> = keys.iter().map(|key| key::decode(py, key)).collect::<PyResult<_>>()?;
        PyList::new(py, decoded)
    }

    /// All values, as a list.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let dict = self.dict()?;
        let values = py.detach(|| dict.copy_values()).map_err(raised)?;
        let decoded: Vec<_> = values.iter().map(|value| codec::decode(py, value)).collect::<PyResult<_>>()?;
        PyList::new(py, decoded)
    }

    /// All keys with their values, as a list of pairs.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.decoded_items(py)?)
    }

    /// An ordinary dict with the same entries.
    pub(super) fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (key, value) in self.decoded_items(py)? {
            dict.set_item(key, value)?;
        }
        Ok(dict)
    }

    /// An ordinary dict with the same entries.
    fn _getvalue<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.copy(py)
    }

    fn __or__<'py>(&self, py: Python<'py>, other: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let mine = self.copy(py)?;
        match operand(other)? {
            Some(theirs) => {
                mine.update(theirs.as_mapping())?;
                Ok(mine.into_any().unbind())
            }
            None => Ok(py.NotImplemented()),
        }
    }

    fn __ror__<'py>(&self, py: Python<'py>, other: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        match operand(other)? {
            Some(theirs) => {
                theirs.update(self.copy(py)?.as_mapping())?;
                Ok(theirs.into_any().unbind())
            }
            None => Ok(py.NotImplemented()),
        }
    }

    fn __ior__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> PyResult<()> {
        let args = PyTuple::new(slf.py(), [other])?;
        slf.get().merge(slf.py(), &as_dict(slf.py(), &args, None)?)
    }
}

/// The other side of `|` as a dict of its own: a dict or a shared one.
fn operand<'py>(other: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    if let Ok(shared) = other.cast::<Dict>() {
        return shared.get().copy(other.py()).map(Some);
    }
    match other.cast::<PyDict>() {
        Ok(dict) => dict.copy().map(Some),
        Err(_) => Ok(None),
    }
}
