//! From a dict's keys to bytes and back: equal keys have equal bytes.
//!
//! Unlike a value's, a key's bytes always come from serde, so that types which `Borrow` one another and
//! look alike to serde (`String` and `str`, `Vec<T>` and `[T]`) have the same ones.

use core::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Keys up to this many bytes are encoded without an allocation.
const SMALL: usize = 128;

/// Encodes `key` and calls `f` with its bytes.
///
/// # Errors
/// [`Error::Encode`] if serde refuses, or if there is a handle in the key.
#[inline]
pub(crate) fn encoded<T: Serialize + ?Sized, R>(key: &T, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
    let refused = |error: postcard::Error| Error::Encode { type_name: type_name::<T>(), reason: error.to_string() };
    let mut small = [0; SMALL];
    match postcard::to_slice(key, &mut small) {
        Ok(bytes) => Ok(f(bytes)),
        Err(postcard::Error::SerializeBufferFull) => Ok(f(&postcard::to_stdvec(key).map_err(refused)?)),
        Err(error) => Err(refused(error)),
    }
}

/// The key that has these bytes.
///
/// # Errors
/// [`Error::Decode`] if there is none.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let refused = |reason: String| Error::Decode { type_name: type_name::<T>(), reason };
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((key, [])) => Ok(key),
        Ok((_, rest)) => Err(refused(format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(refused(error.to_string())),
    }
}
