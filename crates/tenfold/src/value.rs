//! One shared value of a plain data type: [`Value`] and [`RawValue`].

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use bytemuck::Pod;
use tenfold_engine::shm::data::{Access, Data, DataGuard};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::{Handle, Heap};

use crate::error::{Error, Result};
use crate::handle::handle_type;
use crate::lock::{LockError, LockResult, sealed};
use crate::payload::fingerprint;

/// Data for `len` items of type `T`.
pub(crate) fn create<T: Pod>(access: Access, len: usize) -> Result<Data> {
    let bytes = (len as u64)
        .checked_mul(size_of::<T>() as u64)
        .ok_or_else(|| Error::InvalidArgument(format!("{len} elements are more than memory can hold")))?;
    Ok(Data::create(Heap::get()?, access, fingerprint::<T>(), bytes)?)
}

/// The data behind a handle, if it is of items of type `T`.
pub(crate) fn receive<T: Pod>(access: Access, handle: Handle) -> Result<Data> {
    let data = Data::from_handle(handle, access)?;
    if data.fingerprint() == fingerprint::<T>() {
        Ok(data)
    } else {
        Err(Error::Decode {
            type_name: core::any::type_name::<T>(),
            reason: "the shared data is of another type".into(),
        })
    }
}

/// The outcome of a lock as a result with a guard.
pub(crate) fn locked<'a, T: Pod, G>(
    guard: Option<DataGuard<'a, T>>,
    wrap: impl FnOnce(DataGuard<'a, T>) -> G,
) -> LockResult<G> {
    match guard {
        None => Err(LockError::TimedOut),
        Some(guard) if guard.owner_died() => Err(LockError::OwnerDied(wrap(guard))),
        Some(guard) => Ok(wrap(guard)),
    }
}

/// The same where nobody waits.
pub(crate) fn tried<'a, T: Pod, G>(
    guard: Option<DataGuard<'a, T>>,
    wrap: impl FnOnce(DataGuard<'a, T>) -> G,
) -> core::result::Result<Option<G>, LockError<G>> {
    match locked(guard, wrap) {
        Ok(guard) => Ok(Some(guard)),
        Err(LockError::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A value that all processes share, with a lock.
///
/// `T` is plain data: a number, an array of them, or a struct that derives
/// [`bytemuck::Pod`].
///
/// ```
/// use tenfold::Value;
/// # fn main() -> tenfold::Result<()> {
/// let n = Value::new(1.5)?;
/// *n.lock()? += 1.0;
/// assert_eq!(n.get()?, 2.5);
/// # Ok(())
/// # }
/// ```
///
/// # If the holder of the lock dies
/// As for [`crate::Lock`]: the next to take it gets [`LockError::OwnerDied`] with the guard.
#[derive(Debug)]
pub struct Value<T: Pod> {
    data: Data,
    _value: PhantomData<fn(T) -> T>,
}

handle_type!(Value<T: Pod>, Data);

impl<T: Pod> Clone for Value<T> {
    fn clone(&self) -> Self {
        Value { data: self.data.clone(), _value: PhantomData }
    }
}

/// A [`Value`] that is locked until this is dropped.
#[must_use = "the lock is free again once the guard is dropped"]
#[derive(Debug)]
pub struct ValueGuard<'a, T: Pod>(DataGuard<'a, T>);

impl<T: Pod> sealed::Guard for ValueGuard<'_, T> {
    const WHAT: &'static str = "shared value's lock";
}

impl<T: Pod> Deref for ValueGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0[0]
    }
}

impl<T: Pod> DerefMut for ValueGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

impl<T: Pod> Value<T> {
    /// A shared value.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new(value: T) -> Result<Value<T>> {
        const { assert!(size_of::<T>() > 0, "a shared value needs a size") }
        let shared = Value { data: create::<T>(Access::Guarded, 1)?, _value: PhantomData };
        shared.set(value)?;
        Ok(shared)
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<Value<T>> {
        let data = receive::<T>(Access::Guarded, handle)?;
        if data.len() == size_of::<T>() as u64 {
            Ok(Value { data, _value: PhantomData })
        } else {
            Err(Error::Decode { type_name: core::any::type_name::<Self>(), reason: "it is not one value".into() })
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.data.handle()
    }

    /// Takes the value's lock. Blocks while another holds it.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`], which carries the guard.
    #[inline]
    pub fn lock(&self) -> LockResult<ValueGuard<'_, T>> {
        locked(self.data.lock(Deadline::never())?, ValueGuard)
    }

    /// Takes the lock if it is free, without blocking.
    ///
    /// # Errors
    /// As [`Value::lock`].
    pub fn try_lock(&self) -> core::result::Result<Option<ValueGuard<'_, T>>, LockError<ValueGuard<'_, T>>> {
        tried(self.data.try_lock()?, ValueGuard)
    }

    /// Takes the lock, blocking for `timeout` at most.
    ///
    /// # Errors
    /// [`LockError::TimedOut`]; as [`Value::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<ValueGuard<'_, T>> {
        locked(self.data.lock(Deadline::after(timeout))?, ValueGuard)
    }

    /// A copy of the value, made with the lock held.
    ///
    /// # Errors
    /// As [`Value::lock`].
    pub fn get(&self) -> Result<T> {
        Ok(*self.lock()?)
    }

    /// Replaces the value, with the lock held.
    ///
    /// # Errors
    /// As [`Value::lock`].
    pub fn set(&self, value: T) -> Result<()> {
        *self.lock()? = value;
        Ok(())
    }
}

/// A value that all processes share, without a lock.
///
/// A read sees some write's value. Values of 1, 2, 4 or 8 bytes are read and written whole (like a
/// `volatile` in C, only sound); larger ones may be *torn*: half of one write, half of another.
/// `set(get()? + 1)` loses counts; [`Value`] does not.
///
/// ```
/// use tenfold::RawValue;
/// # fn main() -> tenfold::Result<()> {
/// let progress = RawValue::new(0_u32)?;
/// progress.set(7)?;
/// assert_eq!(progress.get()?, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RawValue<T: Pod> {
    data: Data,
    _value: PhantomData<fn(T) -> T>,
}

handle_type!(RawValue<T: Pod>, Data);

impl<T: Pod> Clone for RawValue<T> {
    fn clone(&self) -> Self {
        RawValue { data: self.data.clone(), _value: PhantomData }
    }
}

impl<T: Pod> RawValue<T> {
    /// A shared value.
    ///
    /// # Errors
    /// If the shared heap has no room.
    pub fn new(value: T) -> Result<RawValue<T>> {
        const { assert!(size_of::<T>() > 0, "a shared value needs a size") }
        let shared = RawValue { data: create::<T>(Access::Raw, 1)?, _value: PhantomData };
        shared.set(value)?;
        Ok(shared)
    }

    pub(crate) fn from_handle(handle: Handle) -> Result<RawValue<T>> {
        Ok(RawValue { data: receive::<T>(Access::Raw, handle)?, _value: PhantomData })
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.data.handle()
    }

    /// A copy of the value.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    #[inline]
    pub fn get(&self) -> Result<T> {
        Ok(self.data.load(0)?)
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// If the shared heap is corrupt.
    #[inline]
    pub fn set(&self, value: T) -> Result<()> {
        Ok(self.data.store(0, value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{append, decode};

    fn travel<T: crate::Message, U: crate::Message>(value: &T) -> Result<U> {
        let (mut bytes, mut handles) = (Vec::new(), Vec::new());
        append(value, &mut bytes, &mut handles)?;
        decode(&bytes, handles)
    }

    #[test]
    fn a_value_travels_as_itself_and_as_nothing_else() {
        let value = Value::new(1.5_f64).unwrap();
        let copy: Value<f64> = travel(&value).unwrap();
        copy.set(2.5).unwrap();
        assert_eq!(value.get().unwrap(), 2.5);
        assert_eq!(copy, value);
        assert!(matches!(travel::<_, Value<i64>>(&value), Err(Error::Decode { .. })));
        assert!(matches!(travel::<_, RawValue<f64>>(&value), Err(Error::Decode { .. })));
        assert!(matches!(travel::<_, crate::Array<f64>>(&value), Err(Error::Decode { .. })));
        assert!(matches!(travel::<_, crate::Lock>(&value), Err(Error::Decode { .. })));
    }

    #[test]
    fn a_handle_to_data_of_another_type_is_refused() {
        let value = Value::new(1_u64).unwrap();
        assert!(Value::<i64>::from_handle(value.handle().clone()).is_err());
        assert!(RawValue::<u64>::from_handle(value.handle().clone()).is_err());
        assert!(Value::<u64>::from_handle(crate::Array::<u64>::zeroed(2).unwrap().handle().clone()).is_err());
    }
}
