//! A shared array of a plain data type: [`Array`] and [`RawArray`].

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use bytemuck::Pod;
use tenfold_engine::Handle;
use tenfold_engine::shm::data::{Access, Data, DataGuard};
use tenfold_engine::sys::clock::Deadline;

use crate::error::{Error, Result};
use crate::handle::handle_type;
use crate::lock::{LockError, LockResult, sealed};
use crate::value::{create, locked, receive, tried};

/// How many elements the data has.
fn elements<T: Pod>(data: &Data) -> usize {
    (data.len() / size_of::<T>().max(1) as u64) as usize
}

/// An array of fixed length that all processes share, with one lock.
///
/// ```
/// use tenfold::Array;
/// # fn main() -> tenfold::Result<()> {
/// let a = Array::from_iter(0..4)?;
/// for x in a.lock()?.iter_mut() {
///     *x = -*x;
/// }
/// assert_eq!(a.to_vec()?, [0, -1, -2, -3]);
/// # Ok(())
/// # }
/// ```
///
/// # If the holder of the lock dies
/// As for [`crate::Lock`]: the next to take it gets [`LockError::OwnerDied`] with the guard.
#[derive(Debug)]
pub struct Array<T: Pod> {
    data: Data,
    _elements: PhantomData<fn(T) -> T>,
}

handle_type!(Array<T: Pod>, Data);

impl<T: Pod> Clone for Array<T> {
    fn clone(&self) -> Self {
        Array { data: self.data.clone(), _elements: PhantomData }
    }
}

/// An [`Array`] that is locked until this is dropped: a `[T]`.
#[must_use = "the lock is free again once the guard is dropped"]
#[derive(Debug)]
pub struct ArrayGuard<'a, T: Pod>(DataGuard<'a, T>);

impl<T: Pod> sealed::Guard for ArrayGuard<'_, T> {
    const WHAT: &'static str = "shared array's lock";
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Pod> Array<T> {
    /// An array of `len` zeros.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn zeroed(len: usize) -> Result<Array<T>> {
        const { assert!(size_of::<T>() > 0, "the elements of a shared array need a size") }
        Ok(Array { data: create::<T>(Access::Guarded, len)?, _elements: PhantomData })
    }

    /// An array of these elements.
    ///
    /// # Errors
    /// If the shared heap has no room.
    #[expect(clippy::should_implement_trait, reason = "the trait's method cannot fail")]
    pub fn from_iter(elements: impl IntoIterator<Item = T>) -> Result<Array<T>> {
        let elements: Vec<T> = elements.into_iter().collect();
        Array::from_slice(&elements)
    }

    /// An array of copies of these elements.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn from_slice(elements: &[T]) -> Result<Array<T>> {
        let array = Array::zeroed(elements.len())?;
        array.lock()?.copy_from_slice(elements);
        Ok(array)
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<Array<T>> {
        Ok(Array { data: receive::<T>(Access::Guarded, handle)?, _elements: PhantomData })
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.data.handle()
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        elements::<T>(&self.data)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Takes the array's lock. Blocks while another holds it.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], which carries the guard.
    #[inline]
    pub fn lock(&self) -> LockResult<ArrayGuard<'_, T>> {
        locked(self.data.lock(Deadline::never())?, ArrayGuard)
    }

    /// Takes the lock if it is free, without blocking.
    ///
    /// # Errors
    /// As [`Array::lock`].
    pub fn try_lock(&self) -> core::result::Result<Option<ArrayGuard<'_, T>>, LockError<ArrayGuard<'_, T>>> {
        tried(self.data.try_lock()?, ArrayGuard)
    }

    /// Takes the lock, blocking for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`]; as [`Array::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<ArrayGuard<'_, T>> {
        locked(self.data.lock(Deadline::after(timeout))?, ArrayGuard)
    }

    /// A copy of the elements, made with the lock held.
    ///
    /// # Errors
    /// As [`Array::lock`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        Ok(self.lock()?.to_vec())
    }
}

/// An array of fixed length that all processes share, without a lock.
///
/// Elements are read and written one by one, each as in [`crate::RawValue`]: whole if it has 1, 2, 4
/// or 8 bytes, else perhaps torn. Nothing is said about two elements together.
///
/// ```
/// use tenfold::RawArray;
/// # fn main() -> tenfold::Result<()> {
/// let done = RawArray::<u8>::zeroed(100)?;
/// done.set(42, 1)?;
/// assert_eq!(done.get(42)?, 1);
/// assert!(done.get(100).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RawArray<T: Pod> {
    data: Data,
    _elements: PhantomData<fn(T) -> T>,
}

handle_type!(RawArray<T: Pod>, Data);

impl<T: Pod> Clone for RawArray<T> {
    fn clone(&self) -> Self {
        RawArray { data: self.data.clone(), _elements: PhantomData }
    }
}

impl<T: Pod> RawArray<T> {
    /// An array of `len` zeros.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn zeroed(len: usize) -> Result<RawArray<T>> {
        const { assert!(size_of::<T>() > 0, "the elements of a shared array need a size") }
        Ok(RawArray { data: create::<T>(Access::Raw, len)?, _elements: PhantomData })
    }

    /// An array of these elements.
    ///
    /// # Errors
    /// If the shared heap has no room.
    #[expect(clippy::should_implement_trait, reason = "the trait's method cannot fail")]
    pub fn from_iter(elements: impl IntoIterator<Item = T>) -> Result<RawArray<T>> {
        let elements: Vec<T> = elements.into_iter().collect();
        let array = RawArray::zeroed(elements.len())?;
        for (index, element) in elements.into_iter().enumerate() {
            array.set(index, element)?;
        }
        Ok(array)
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<RawArray<T>> {
        Ok(RawArray { data: receive::<T>(Access::Raw, handle)?, _elements: PhantomData })
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.data.handle()
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        elements::<T>(&self.data)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    fn check(&self, index: usize) -> Result<()> {
        if index < self.len() {
            Ok(())
        } else {
            Err(Error::InvalidArgument(format!("index {index} is beyond an array of {}", self.len())))
        }
    }

    /// A copy of element `index`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none.
    #[inline]
    pub fn get(&self, index: usize) -> Result<T> {
        self.check(index)?;
        Ok(self.data.load(index)?)
    }

    /// Replaces element `index`.
    ///
    /// # Errors
    /// As [`RawArray::get`].
    #[inline]
    pub fn set(&self, index: usize, element: T) -> Result<()> {
        self.check(index)?;
        Ok(self.data.store(index, element)?)
    }

    /// A copy of all elements, read one after the other.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}
