//! The native half of `ArrayProxy`: numbers of one type, as in the standard library's `array`.

use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PySlice, PyTuple};
use tenfold_engine::shm::data::{Access, Data};
use tenfold_engine::shm::sync::Event;

use super::manager::{self, Manager, State};
use crate::shell::Shell;
use crate::{errors, family};

/// An array that processes share.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Array {
    shared: Shell<Shared>,
}

struct Shared {
    data: Data,
    typecode: char,
    size: usize,
    closed: Event,
}

impl Shared {
    fn new(data: Data, closed: Event) -> PyResult<Shared> {
        let typecode = u32::try_from(data.fingerprint()).ok().and_then(char::from_u32).unwrap_or('\0');
        Ok(Shared { data, typecode, size: size_of(typecode)?, closed })
    }

    fn len(&self) -> usize {
        self.data.len() as usize / self.size
    }
}

/// Calls `$f!` with the type that a typecode stands for.
macro_rules! with_type {
    ($typecode:expr, $f:ident) => {
        match $typecode {
            'b' => $f!(i8),
            'B' => $f!(u8),
            'h' => $f!(i16),
            'H' => $f!(u16),
            'i' => $f!(i32),
            'I' => $f!(u32),
            'l' | 'q' => $f!(i64),
            'L' | 'Q' => $f!(u64),
            'f' => $f!(f32),
            'd' => $f!(f64),
            _ => Err(PyValueError::new_err("bad typecode (must be b, B, u, w, h, H, i, I, l, L, q, Q, f or d)")),
        }
    };
}

/// Bytes of an element.
fn size_of(typecode: char) -> PyResult<usize> {
    macro_rules! size {
        ($t:ty) => {
            Ok(core::mem::size_of::<$t>())
        };
    }
    if is_text(typecode) { Ok(4) } else { with_type!(typecode, size) }
}

/// Whether the elements are characters.
fn is_text(typecode: char) -> bool {
    matches!(typecode, 'u' | 'w')
}

impl Array {
    #[inline]
    fn shared(&self) -> PyResult<&Shared> {
        let shared = self.shared.get()?;
        manager::check(&shared.closed)?;
        Ok(shared)
    }

    fn store_bytes(shared: &Shared, from: usize, bytes: &[u8]) -> PyResult<()> {
        macro_rules! store {
            ($t:ty) => {{
                for (at, element) in (from..).zip(bytes.chunks_exact(core::mem::size_of::<$t>())) {
                    let mut value = [0; core::mem::size_of::<$t>()];
                    value.copy_from_slice(element);
                    shared.data.store(at, <$t>::from_ne_bytes(value)).map_err(errors::heap)?;
                }
                Ok(())
            }};
        }
        if is_text(shared.typecode) { store!(u32) } else { with_type!(shared.typecode, store) }
    }

    fn load_bytes<'py>(py: Python<'py>, shared: &Shared, from: usize, to: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut bytes = Vec::with_capacity((to - from) * shared.size);
        macro_rules! load {
            ($t:ty) => {{
                for at in from..to {
                    let value: $t = shared.data.load(at).map_err(errors::heap)?;
                    bytes.extend_from_slice(&value.to_ne_bytes());
                }
                Ok(())
            }};
        }
        let done: PyResult<()> = if is_text(shared.typecode) { load!(u32) } else { with_type!(shared.typecode, load) };
        done?;
        Ok(PyBytes::new(py, &bytes))
    }
}

fn index(shared: &Shared, index: &Bound<'_, PyAny>) -> PyResult<usize> {
    let out_of_range = || PyIndexError::new_err("array index out of range");
    let (len, index): (i64, i64) = (shared.len() as i64, index.extract()?);
    let at = if index < 0 { index.saturating_add(len) } else { index };
    usize::try_from(at).ok().filter(|at| *at < shared.len()).ok_or_else(out_of_range)
}

/// Such an array of the standard library's, in this process.
fn array<'py>(py: Python<'py>, typecode: char, content: impl IntoPyObject<'py>) -> PyResult<Bound<'py, PyAny>> {
    py.import("array")?.call_method1("array", (typecode, content))
}

#[pymethods]
impl Array {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Array {
        Array { shared: Shell::empty() }
    }

    /// Makes the shared array, one of `manager`'s, of the elements of `content`, an `array.array`.
    fn _create(&self, manager: &Manager, content: &Bound<'_, PyAny>) -> PyResult<()> {
        let typecode: char = content.getattr("typecode")?.extract()?;
        let bytes: Bound<'_, PyBytes> = content.call_method0("tobytes")?.cast_into()?;
        let length = bytes.as_bytes().len() as u64;
        let data = Data::create(family::heap()?, Access::Raw, typecode.into(), length).map_err(errors::heap)?;
        manager.enrol(data.handle()).map_err(errors::heap)?;
        let shared = Shared::new(data, manager.closing().clone())?;
        Array::store_bytes(&shared, 0, bytes.as_bytes())?;
        self.shared.fill(shared);
        Ok(())
    }

    fn _state(&self) -> PyResult<State> {
        let shared = self.shared()?;
        Ok(manager::state(shared.data.handle(), &shared.closed))
    }

    fn _restore(&self, state: State) -> PyResult<()> {
        let (handle, closed) = manager::found(state)?;
        self.shared.fill(Shared::new(Data::from_handle(handle, Access::Raw).map_err(errors::heap)?, closed)?);
        Ok(())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.shared()?.len())
    }

    fn __getitem__<'py>(&self, py: Python<'py>, at: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared()?;
        if let Ok(slice) = at.cast::<PySlice>() {
            let range = slice.indices(shared.len() as isize)?;
            if range.step == 1 {
                let (from, to) = (range.start as usize, (range.start as usize).max(range.stop as usize));
                return array(py, shared.typecode, Array::load_bytes(py, shared, from, to)?);
            }
            return self._getvalue(py)?.get_item(at);
        }
        let at = index(shared, at)?;
        macro_rules! load {
            ($t:ty) => {{
                let value: $t = shared.data.load(at).map_err(errors::heap)?;
                Ok(value.into_pyobject(py)?.into_any())
            }};
        }
        if is_text(shared.typecode) {
            let value: u32 = shared.data.load(at).map_err(errors::heap)?;
            let text = char::from_u32(value).ok_or_else(|| PyValueError::new_err("not a character"))?;
            return Ok(text.into_pyobject(py)?.into_any());
        }
        with_type!(shared.typecode, load)
    }

    fn __setitem__(&self, py: Python<'_>, at: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let shared = self.shared()?;
        if let Ok(slice) = at.cast::<PySlice>() {
            let range = slice.indices(shared.len() as isize)?;
            let same_type = value.getattr("typecode").and_then(|code| code.extract::<char>());
            if same_type.ok() != Some(shared.typecode) {
                let name = value.get_type().name()?.to_string();
                return Err(PyTypeError::new_err(format!(
                    "can only assign an array of typecode {:?} (not {name:?}) to array slice",
                    shared.typecode
                )));
            }
            if value.len()? != range.slicelength {
                return Err(PyValueError::new_err("a shared array cannot change its length"));
            }
            if range.step == 1 {
                let bytes: Bound<'_, PyBytes> = value.call_method0("tobytes")?.cast_into()?;
                return Array::store_bytes(shared, range.start as usize, bytes.as_bytes());
            }
            for (position, element) in (0..).zip(value.try_iter()?) {
                let at = range.start + position * range.step;
                self.__setitem__(py, &at.into_pyobject(py)?.into_any(), &element?)?;
            }
            return Ok(());
        }
        let at = index(shared, at)?;
        macro_rules! store {
            ($t:ty) => {
                shared.data.store::<$t>(at, value.extract()?).map_err(errors::heap)
            };
        }
        if is_text(shared.typecode) {
            let text: char =
                value.extract().map_err(|_| PyTypeError::new_err("array item must be a unicode character"))?;
            return shared.data.store(at, u32::from(text)).map_err(errors::heap);
        }
        with_type!(shared.typecode, store)
    }

    /// An `array.array` of the same elements.
    fn _getvalue<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared()?;
        array(py, shared.typecode, Array::load_bytes(py, shared, 0, shared.len())?)
    }
}
