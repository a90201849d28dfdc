//! Shared ctypes objects under a lock: `Value` and `Array`, with their numbers at native speed.
//!
//! ```text
//!   Synchronized ─┬─ _obj ──▶ ctypes object ─▶ View ─▶ Memory
//!                 ├─ _lock ─▶ RLock or Lock               ▲
//!                 └─ numbers: the same memory ────────────┘ and the same lock, known natively
//! ```
//!
//! What is read and written most, a number of a plain type under a lock of tenfold's, is read and written here without
//! going through ctypes. For everything else, and for values that ctypes may refuse or convert, the ctypes object is
//! asked, so that errors and conversions are its own. Which of the two applies is found out at the first access, by
//! `tenfold.sharedctypes`.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice, PyTuple};
use tenfold_engine::shm::data::{Data, RawElements};
use tenfold_engine::shm::sync;

use crate::codec::exactly;
use crate::errors;
use crate::memory::Memory;
use crate::numbers::{self, Number, Truth};
use crate::sync::{Lock, RLock};

/// A shared ctypes object and the lock that guards it.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Synchronized {
    /// Known from the first access on.
    numbers: OnceLock<Option<Numbers>>,
}

/// Numbers in shared memory and their lock.
struct Numbers {
    memory: Data,
    kind: Kind,
    lock: NativeLock,
}

enum NativeLock {
    Plain(Py<Lock>),
    Recursive(sync::RLock, Py<RLock>),
}

/// A lock that is held; let go of on drop, also if Python runs out of memory.
struct Held<'a>(&'a NativeLock);

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        // This thread took it a moment ago, so it can let go of it; a process without a slot has lost it anyway.
        match self.0 {
            NativeLock::Recursive(lock, _) => _ = lock.release(),
            NativeLock::Plain(lock) => _ = lock.get().let_go(),
        }
    }
}

/// What kind of numbers.
#[derive(Debug, Clone, Copy)]
enum Kind {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Truth,
}

impl Kind {
    /// The kind that ctypes' letter and size name.
    fn of(letter: &str, size: usize) -> Option<Kind> {
        Some(match (letter, size) {
            ("f", 4) => Kind::F32,
            ("d", 8) => Kind::F64,
            ("?", 1) => Kind::Truth,
            ("b" | "h" | "i" | "l" | "q", 1) => Kind::I8,
            ("b" | "h" | "i" | "l" | "q", 2) => Kind::I16,
            ("b" | "h" | "i" | "l" | "q", 4) => Kind::I32,
            ("b" | "h" | "i" | "l" | "q", 8) => Kind::I64,
            ("B" | "H" | "I" | "L" | "Q", 1) => Kind::U8,
            ("B" | "H" | "I" | "L" | "Q", 2) => Kind::U16,
            ("B" | "H" | "I" | "L" | "Q", 4) => Kind::U32,
            ("B" | "H" | "I" | "L" | "Q", 8) => Kind::U64,
            _ => return None,
        })
    }
}

/// Runs `$body` with `$T` as the type that a kind stands for.
macro_rules! with_type {
    ($kind:expr, $T:ident => $body:expr) => {
        match $kind {
            Kind::I8 => {
                type $T = i8;
                $body
            }
            Kind::U8 => {
                type $T = u8;
                $body
            }
            Kind::I16 => {
                type $T = i16;
                $body
            }
            Kind::U16 => {
                type $T = u16;
                $body
            }
            Kind::I32 => {
                type $T = i32;
                $body
            }
            Kind::U32 => {
                type $T = u32;
                $body
            }
            Kind::I64 => {
                type $T = i64;
                $body
            }
            Kind::U64 => {
                type $T = u64;
                $body
            }
            Kind::F32 => {
                type $T = f32;
                $body
            }
            Kind::F64 => {
                type $T = f64;
                $body
            }
            Kind::Truth => {
                type $T = Truth;
                $body
            }
        }
    };
}

impl Numbers {
    /// Runs `f` with the lock held.
    #[inline]
    fn locked<R>(&self, py: Python<'_>, f: impl FnOnce() -> R) -> PyResult<R> {
        match &self.lock {
            NativeLock::Recursive(lock, object) => {
                if !matches!(lock.acquire_at_once(), Ok(true)) {
                    object.get().enter(py)?;
                }
            }
            NativeLock::Plain(lock) => _ = lock.get().enter(py)?,
        }
        let _held = Held(&self.lock);
        Ok(f())
    }

    /// As [`Numbers::locked`], for steps that run no Python code.
    #[inline]
    fn briefly<R>(&self, py: Python<'_>, step: impl Fn() -> R) -> PyResult<R> {
        match &self.lock {
            NativeLock::Recursive(lock, _) if let Ok(Some(result)) = lock.briefly(&step) => Ok(result),
            _ => self.locked(py, step),
        }
    }

    /// How many numbers there are.
    fn len(&self) -> PyResult<usize> {
        with_type!(self.kind, T => Ok(self.elements::<T>()?.len()))
    }

    fn elements<T: Number>(&self) -> PyResult<RawElements<'_, T>> {
        self.memory.raw_elements().map_err(errors::heap)
    }

    /// The number with this index, if there is one; negative indices count from the end.
    #[inline]
    fn get<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Option<Bound<'py, PyAny>>> {
        with_type!(self.kind, T => {
            let elements = self.elements::<T>()?;
            let number = self.briefly(py, || elements.load(place(index, elements.len())))?;
            Ok(number.map(|number| number.to_python(py)))
        })
    }

    /// Sets the number with this index; whether the object was plain, and there is one.
    #[inline]
    fn set(&self, index: isize, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        with_type!(self.kind, T => {
            let Some(number) = T::from_python(object) else { return Ok(false) };
            let elements = self.elements::<T>()?;
            self.briefly(object.py(), || elements.store(place(index, elements.len()), number))
        })
    }

    fn get_slice<'py>(&self, slice: &Bound<'py, PySlice>) -> PyResult<Bound<'py, PyList>> {
        let py = slice.py();
        with_type!(self.kind, T => {
            let elements = self.elements::<T>()?;
            let range = Range::of(slice, elements.len())?;
            self.locked(py, || {
                PyList::new(py, range.map(|index| elements.load(index).unwrap_or_default().to_python(py)))
            })?
        })
    }

    /// Sets what a slice names to the plain numbers in a list or tuple; whether that is done.
    fn set_slice(&self, slice: &Bound<'_, PySlice>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let range = Range::of(slice, self.len()?)?;
        if let Some(list) = exactly::<PyList>(value) {
            if range.left != list.len() {
                return Ok(false);
            }
            with_type!(self.kind, T => self.set_each(value.py(), range, |number| numbers::at::<T>(list, number)))
        } else if let Some(tuple) = exactly::<PyTuple>(value) {
            if range.left != tuple.len() {
                return Ok(false);
            }
            let at = |number| tuple.get_borrowed_item(number).ok();
            with_type!(self.kind, T => self.set_each(value.py(), range, |number| T::from_python(&*at(number)?)))
        } else {
            Ok(false)
        }
    }

    /// Sets as many numbers as `number` has from 0 on; whether that is all of them.
    fn set_each<T: Number>(
        &self,
        py: Python<'_>,
        mut range: Range,
        number: impl Fn(usize) -> Option<T>,
    ) -> PyResult<bool> {
        let elements = self.elements::<T>()?;
        let mut count = 0..;
        self.locked(py, || {
            range.all(|index| {
                let number = count.next().and_then(&number);
                number.is_some_and(|number| elements.store(index, number))
            })
        })
    }
}

/// Where an index points; beyond the end if nowhere.
#[inline]
fn place(index: isize, len: usize) -> usize {
    if index < 0 { len.checked_add_signed(index).unwrap_or(usize::MAX) } else { index as usize }
}

/// Indices of a slice.
#[derive(Debug, Clone)]
struct Range {
    next: isize,
    step: isize,
    left: usize,
}

impl Range {
    fn of(slice: &Bound<'_, PySlice>, len: usize) -> PyResult<Range> {
        let indices = slice.indices(len as isize)?;
        Ok(Range { next: indices.start, step: indices.step, left: indices.slicelength })
    }
}

impl Iterator for Range {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let now = self.next;
        self.next = now.wrapping_add(self.step);
        Some(now as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Range {}

impl Synchronized {
    fn empty() -> Synchronized {
        Synchronized { numbers: OnceLock::new() }
    }

    /// The numbers, if they can be had natively.
    #[inline]
    fn numbers<'a>(slf: &'a Bound<'_, Synchronized>) -> PyResult<Option<&'a Numbers>> {
        match slf.get().numbers.get() {
            Some(numbers) => Ok(numbers.as_ref()),
            None => Synchronized::look(slf),
        }
    }

    #[cold]
    fn look<'a>(slf: &'a Bound<'_, Synchronized>) -> PyResult<Option<&'a Numbers>> {
        type Found<'py> = Option<(Bound<'py, Memory>, String, usize, Bound<'py, PyAny>)>;
        let found = slf.py().import("tenfold.sharedctypes")?.call_method1("_numbers_of", (slf,))?;
        let numbers = match found.extract::<Found<'_>>()? {
            Some((memory, letter, size, lock)) => match Kind::of(&letter, size).zip(native_lock(lock)) {
                Some((kind, lock)) => Some(Numbers { memory: memory.get().data()?.clone(), kind, lock }),
                None => None,
            },
            None => None,
        };
        Ok(slf.get().numbers.get_or_init(|| numbers).as_ref())
    }

    fn object<'py>(slf: &Bound<'py, Synchronized>) -> PyResult<Bound<'py, PyAny>> {
        slf.getattr(pyo3::intern!(slf.py(), "_obj"))
    }

    /// Runs `f` with the ctypes object, with whatever lock there is held.
    fn locked<'py, R>(slf: &Bound<'py, Synchronized>, f: impl FnOnce(Bound<'py, PyAny>) -> PyResult<R>) -> PyResult<R> {
        slf.call_method0(pyo3::intern!(slf.py(), "acquire"))?;
        let result = Synchronized::object(slf).and_then(f);
        slf.call_method0(pyo3::intern!(slf.py(), "release"))?;
        result
    }
}

fn native_lock(lock: Bound<'_, PyAny>) -> Option<NativeLock> {
    let lock = match lock.cast_into::<RLock>() {
        Ok(lock) => return Some(NativeLock::Recursive(lock.get().shared().ok()?.clone(), lock.unbind())),
        Err(other) => other.into_inner(),
    };
    Some(NativeLock::Plain(lock.cast_into::<Lock>().ok()?.unbind()))
}

#[pymethods]
impl Synchronized {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Synchronized {
        Synchronized::empty()
    }
}

/// A shared number, as `value`.
#[pyclass(extends = Synchronized, subclass, frozen, module = "tenfold._native")]
pub(crate) struct SynchronizedValue;

#[pymethods]
impl SynchronizedValue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> (SynchronizedValue, Synchronized) {
        (SynchronizedValue, Synchronized::empty())
    }

    /// The number.
    #[getter]
    fn get_value(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let base = slf.as_super();
        if let Some(numbers) = Synchronized::numbers(base)?
            && let Some(number) = numbers.get(slf.py(), 0)?
        {
            return Ok(number.unbind());
        }
        Synchronized::locked(base, |object| Ok(object.getattr("value")?.unbind()))
    }

    #[setter]
    fn set_value(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let base = slf.as_super();
        if let Some(numbers) = Synchronized::numbers(base)?
            && numbers.set(0, value)?
        {
            return Ok(());
        }
        Synchronized::locked(base, |object| object.setattr("value", value))
    }
}

/// A shared array of fixed length.
#[pyclass(extends = Synchronized, subclass, frozen, module = "tenfold._native")]
pub(crate) struct SynchronizedArray;

#[pymethods]
impl SynchronizedArray {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> (SynchronizedArray, Synchronized) {
        (SynchronizedArray, Synchronized::empty())
    }

    fn __len__(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Synchronized::object(slf.as_super())?.len()
    }

    fn __getitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let base = slf.as_super();
        if let Some(numbers) = Synchronized::numbers(base)? {
            if let Some(index) = numbers::index(key) {
                if let Some(number) = numbers.get(slf.py(), index)? {
                    return Ok(number.unbind());
                }
            } else if let Some(slice) = exactly::<PySlice>(key) {
                return Ok(numbers.get_slice(slice)?.into_any().unbind());
            }
        }
        Synchronized::locked(base, |object| Ok(object.get_item(key)?.unbind()))
    }

    fn __setitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let base = slf.as_super();
        if let Some(numbers) = Synchronized::numbers(base)? {
            let done = if let Some(index) = numbers::index(key) {
                numbers.set(index, value)?
            } else if let Some(slice) = exactly::<PySlice>(key) {
                // What is not plain is set again from the start by ctypes, as far as this came to the same values.
                numbers.set_slice(slice, value)?
            } else {
                false
            };
            if done {
                return Ok(());
            }
        }
        Synchronized::locked(base, |object| object.set_item(key, value))
    }
}

/// Puts the classes into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Synchronized>()?;
    module.add_class::<SynchronizedValue>()?;
    module.add_class::<SynchronizedArray>()
}
