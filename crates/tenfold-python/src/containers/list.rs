//! The native half of `ListProxy`.

use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PySlice, PyTuple};
use tenfold_engine::shm::item::Item;
use tenfold_engine::shm::list::{self, Place};
use tenfold_engine::shm::sync::Event;
use tenfold_engine::{Handle, HeapError};

use super::manager::{self, Manager, State};
use super::many::Many;
use crate::shell::Shell;
use crate::{codec, errors, family};

/// A list that processes share. Its items are copies.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct List {
    shared: Shell<Shared>,
}

struct Shared {
    list: list::List,
    closed: Event,
}

fn raised(error: HeapError) -> PyErr {
    errors::heap(error)
}

/// A place as Python says it: from the end if it is negative.
#[inline]
fn place(index: i64) -> Place {
    if index < 0 { Place::Back(index.unsigned_abs()) } else { Place::Front(index as u64) }
}

/// The place that `index` says; one beyond all lists if it is larger than that.
fn place_of(index: &Bound<'_, PyAny>) -> PyResult<Place> {
    if index.is_exact_instance_of::<PyInt>()
        && let Ok(index) = index.extract()
    {
        return Ok(place(index));
    }
    let index = match index.call_method0("__index__") {
        Ok(index) => index,
        Err(_) => {
            let name = index.get_type().name()?.to_string();
            return Err(PyTypeError::new_err(format!("list indices must be integers or slices, not {name}")));
        }
    };
    match index.extract() {
        Ok(index) => Ok(place(index)),
        Err(_) if index.lt(0)? => Ok(Place::Back(u64::MAX)),
        Err(_) => Ok(Place::Front(u64::MAX)),
    }
}

/// From where to where a slice goes whose step is 1; None for other steps.
fn range_of(slice: &Bound<'_, PySlice>) -> PyResult<Option<(Place, Place)>> {
    let step = slice.getattr("step")?;
    if !step.is_none() && !step.eq(1)? {
        return Ok(None);
    }
    let end = |name: &str, missing: Place| -> PyResult<Place> {
        let value = slice.getattr(name)?;
        if value.is_none() { Ok(missing) } else { place_of(&value) }
    };
    Ok(Some((end("start", Place::Front(0))?, end("stop", Place::END)?)))
}

fn out_of_range(what: &str) -> PyErr {
    PyIndexError::new_err(format!("list {what}index out of range"))
}

impl List {
    #[inline]
    fn shared(&self) -> PyResult<&Shared> {
        let shared = self.shared.get()?;
        manager::check(&shared.closed)?;
        Ok(shared)
    }

    #[inline]
    fn list(&self) -> PyResult<&list::List> {
        Ok(&self.shared()?.list)
    }

    fn decoded<'py>(&self, py: Python<'py>, from: Place, to: Place) -> PyResult<(Bound<'py, PyList>, u64)> {
        let list = self.list()?;
        let (copies, changes) = py.detach(|| list.copy_slice(from, to)).map_err(raised)?;
        let decoded: Vec<_> = copies.iter().map(|item| codec::decode(py, item)).collect::<PyResult<_>>()?;
        Ok((PyList::new(py, decoded)?, changes))
    }

    fn slice(&self, py: Python<'_>, from: Place, to: Place) -> PyResult<(Vec<Item>, u64)> {
        let list = self.list()?;
        py.detach(|| list.slice(from, to)).map_err(raised)
    }

    /// The items as they are now, and the number of changes by then.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyList>, u64)> {
        self.decoded(py, Place::Front(0), Place::END)
    }

    /// Lets `change` work on a list of the items' numbers, and puts the items in the order that it leaves, with `new` ones
    /// for the numbers from the list's length on. Done again if the list was changed meanwhile.
    fn rearrange(
        &self,
        py: Python<'_>,
        new: &Many,
        change: impl Fn(&Bound<'_, PyList>, usize) -> PyResult<()>,
    ) -> PyResult<()> {
        let list = self.list()?;
        loop {
            let (items, changes) = self.slice(py, Place::Front(0), Place::END)?;
            let numbers = PyList::new(py, 0..items.len())?;
            change(&numbers, items.len())?;
            let wanted: Vec<usize> = numbers.extract()?;
            let mut kept = Many::default();
            items.iter().for_each(|item| kept.push_item(item));
            let write = || {
                kept.with(|kept| {
                    new.with(|new| {
                        let pick = |number: usize| kept.get(number).unwrap_or_else(|| &new[number - kept.len()]);
                        let arranged: Vec<_> = wanted.into_iter().map(|number| *pick(number)).collect();
                        list.splice_if(0, Place::END, arranged.into_iter(), changes)
                    })
                })
            };
            if py.detach(write).map_err(raised)? {
                return Ok(());
            }
        }
    }
}

#[pymethods]
impl List {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> List {
        List { shared: Shell::empty() }
    }

    /// Makes the shared list, one of `manager`'s, of the items of an iterable.
    #[pyo3(signature = (manager, items=None))]
    fn _create(&self, py: Python<'_>, manager: &Manager, items: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let list = list::List::create(family::heap()?).map_err(raised)?;
        manager.enrol(list.handle()).map_err(raised)?;
        self.shared.fill(Shared { list, closed: manager.closing().clone() });
        items.map_or(Ok(()), |items| self.extend(py, items))
    }

    fn _state(&self) -> PyResult<State> {
        let shared = self.shared()?;
        Ok(manager::state(shared.list.handle(), &shared.closed))
    }

    fn _restore(&self, state: State) -> PyResult<()> {
        let (handle, closed) = manager::found(state)?;
        self.shared.fill(Shared { list: list::List::from_handle(handle).map_err(raised)?, closed });
        Ok(())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.list()?.len() as usize)
    }

    fn __getitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            return match range_of(slice)? {
                Some((from, to)) => Ok(self.decoded(py, from, to)?.0.into_any().unbind()),
                None => Ok(self.snapshot(py)?.0.as_any().get_item(slice)?.unbind()),
            };
        }
        let decode = |bytes: &[u8], _handles: &[Handle]| codec::decode(py, bytes);
        let found = self.list()?.get_with(place_of(index)?, decode).map_err(raised)?;
        found.ok_or_else(|| out_of_range(""))?
    }

    fn __setitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = self.list()?;
        if let Ok(slice) = index.cast::<PySlice>() {
            let new = Many::of(value)?;
            return match range_of(slice)? {
                Some((from, to)) => {
                    let write = || new.with(|new| list.splice(from, to, new.iter().copied()));
                    py.detach(write).map_err(raised)
                }
                None => self.rearrange(py, &new, |numbers, len| {
                    let added = PyList::new(py, len..len + new.len())?;
                    numbers.as_any().set_item(slice, added)
                }),
            };
        }
        let (place, encoded) = (place_of(index)?, codec::encode(value)?);
        let done = encoded.with(py, |item| list.set(place, item))?.map_err(raised)?;
        if done { Ok(()) } else { Err(out_of_range("assignment ")) }
    }

    fn __delitem__(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = self.list()?;
        if let Ok(slice) = index.cast::<PySlice>() {
            return match range_of(slice)? {
                Some((from, to)) => py.detach(|| list.remove_range(from, to)).map_err(raised),
                None => self.rearrange(py, &Many::default(), |numbers, _| numbers.as_any().del_item(slice)),
            };
        }
        match list.remove(place_of(index)?).map_err(raised)? {
            Some(_) => Ok(()),
            None => Err(out_of_range("assignment ")),
        }
    }

    fn __contains__(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.snapshot(py)?.0.contains(value)
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.snapshot(py)?.0.call_method0("__reversed__")
    }

    fn __add__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let (mine, _) = self.snapshot(py)?;
        let theirs = match other.cast::<List>() {
            Ok(shared) => shared.get().snapshot(py)?.0.into_any(),
            Err(_) => other.clone(),
        };
        Ok(mine.as_any().add(theirs)?.unbind())
    }

    fn __mul__(&self, py: Python<'_>, times: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Ok(self.snapshot(py)?.0.as_any().mul(times)?.unbind())
    }

    fn __rmul__(&self, py: Python<'_>, times: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__mul__(py, times)
    }

    fn __iadd__(&self, py: Python<'_>, items: &Bound<'_, PyAny>) -> PyResult<()> {
        self.extend(py, items)
    }

    fn __imul__(&self, py: Python<'_>, times: &Bound<'_, PyAny>) -> PyResult<()> {
        self.rearrange(py, &Many::default(), |numbers, _| {
            let repeated = numbers.as_any().mul(times)?;
            numbers.as_any().set_item(PySlice::full(py), repeated)
        })
    }

    /// Puts an item at the end.
    fn append(&self, py: Python<'_>, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = self.list()?;
        codec::encode(item)?.with(py, |item| list.push(item))?.map_err(raised)
    }

    /// Puts the items of an iterable at the end, all at once.
    fn extend(&self, py: Python<'_>, items: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = self.list()?;
        let new = match items.cast::<List>() {
            Ok(shared) => {
                let mut new = Many::default();
                let (items, _) = shared.get().slice(py, Place::Front(0), Place::END)?;
                items.iter().for_each(|item| new.push_item(item));
                new
            }
            Err(_) => Many::of(items)?,
        };
        py.detach(|| new.with(|new| list.extend(new.iter().copied()))).map_err(raised)
    }

    /// Puts an item before the one at `index`.
    fn insert(&self, py: Python<'_>, index: i64, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let (list, place) = (self.list()?, place(index));
        codec::encode(item)?.with(py, |item| list.insert(place, item))?.map_err(raised)
    }

    /// Removes the item at `index`, the last by default, and returns it.
    #[pyo3(signature = (index=-1, /))]
    fn pop(&self, py: Python<'_>, index: i64) -> PyResult<Py<PyAny>> {
        let list = self.list()?;
        match list.remove(place(index)).map_err(raised)? {
            Some(item) => codec::decode(py, &item.bytes),
            None if list.is_empty() => Err(PyIndexError::new_err("pop from empty list")),
            None => Err(PyIndexError::new_err("pop index out of range")),
        }
    }

    /// Removes the first item that equals `value`.
    fn remove(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = self.list()?;
        loop {
            let (items, changes) = self.snapshot(py)?;
            let Ok(index) = items.index(value) else {
                return Err(PyValueError::new_err("list.remove(x): x not in list"));
            };
            let index = index as u64;
            if list.splice_if(index, index + 1, core::iter::empty(), changes).map_err(raised)? {
                return Ok(());
            }
        }
    }

    /// Removes all items.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let list = self.list()?;
        py.detach(|| list.clear()).map_err(raised)
    }

    /// The number of the first item that equals `value`, from `start` to `stop`.
    #[pyo3(signature = (*args))]
    fn index<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.snapshot(py)?.0.call_method1("index", args)
    }

    /// How many items equal `value`.
    fn count<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.snapshot(py)?.0.call_method1("count", (value,))
    }

    /// Turns the order round.
    fn reverse(&self, py: Python<'_>) -> PyResult<()> {
        let list = self.list()?;
        py.detach(|| list.reverse()).map_err(raised)
    }

    /// Sorts the items, as `list.sort` does.
    #[pyo3(signature = (*, key=None, reverse=false))]
    fn sort(&self, py: Python<'_>, key: Option<&Bound<'_, PyAny>>, reverse: bool) -> PyResult<()> {
        let list = self.list()?;
        loop {
            let (items, changes) = self.snapshot(py)?;
            let keys = match key.filter(|key| !key.is_none()) {
                Some(key) => {
                    PyList::new(py, items.iter().map(|item| key.call1((item,))).collect::<PyResult<Vec<_>>>()?)?
                }
                None => items,
            };
            // Sorting the numbers by the items keeps equal ones in their order.
            let numbers = PyList::new(py, 0..keys.len())?;
            let keywords = PyDict::new(py);
            keywords.set_item("key", keys.getattr("__getitem__")?)?;
            keywords.set_item("reverse", reverse)?;
            numbers.call_method("sort", (), Some(&keywords))?;
            let order: Vec<u32> = numbers.extract()?;
            if py.detach(|| list.reorder(&order, changes)).map_err(raised)? {
                return Ok(());
            }
        }
    }

    /// An ordinary list of the same items.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        Ok(self.snapshot(py)?.0)
    }

    /// An ordinary list of the same items.
    fn _getvalue<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.copy(py)
    }
}
