//! From typed values to bytes with handles beside them, and back.
//!
//! The engine moves bytes; a value becomes bytes by serde and postcard. Numbers and vectors of
//! numbers skip serde: they are copied as they lie in memory, since both sides run the same
//! executable on the same machine.
//!
//! A handle (a queue, a lock, a dict …) inside a value is not bytes: its object must be kept alive
//! while the message travels. While a value is encoded, a thread-local list collects the handles
//! that serde meets; the bytes hold their place in that list. Serialising a handle in any other
//! way, to a file for instance, is an error.

use core::any::{Any, TypeId, type_name};
use core::cell::{Cell, RefCell};
use core::fmt::Display;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use tenfold_engine::{Handle, ObjectKind};

use crate::depth::{Depth, Reading};
use crate::error::{Error, Result};

/// What can travel between processes: any serde type that owns its data.
///
/// Implemented for all such types; there is nothing to do.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Message for T {}

/// Bytes up to this many are encoded without an allocation.
const SMALL: usize = 64;

/// A growing buffer whose first bytes lie on the stack.
struct Buffer {
    small: [u8; SMALL],
    len: usize,
    spilled: Vec<u8>,
    depth: Depth,
}

impl Buffer {
    fn new() -> Buffer {
        Buffer { small: [0; SMALL], len: 0, spilled: Vec::new(), depth: Depth::begin() }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if self.spilled.is_empty() {
            if let Some(room) = self.small.get_mut(self.len..self.len + bytes.len()) {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
                return;
            }
            self.spilled.reserve((self.len + bytes.len()).max(4 * SMALL));
            self.spilled.extend_from_slice(&self.small[..self.len]);
        }
        self.spilled.extend_from_slice(bytes);
    }

    fn bytes(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.small[..self.len] } else { &self.spilled }
    }
}

impl postcard::ser_flavors::Flavor for Buffer {
    type Output = Buffer;
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.depth.look()?;
        self.push(&[byte]);
        Ok(())
    }
    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.depth.look()?;
        self.push(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<Buffer> {
        Ok(self)
    }
}

/// The same, appended to a vector.
struct Appending<'a>(&'a mut Vec<u8>, Depth);

impl postcard::ser_flavors::Flavor for Appending<'_> {
    type Output = ();
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.1.look()?;
        self.0.push(byte);
        Ok(())
    }
    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.1.look()?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

thread_local! {
    /// Handles met by the encoding that is under way, if one is.
    static OUTGOING: RefCell<Option<Vec<Handle>>> = const { RefCell::new(None) };
    /// Handles of the message that is being decoded, if one is.
    static INCOMING: RefCell<Option<Vec<Handle>>> = const { RefCell::new(None) };
    /// Why a handle was refused: postcard's errors carry no text.
    static REFUSAL: Cell<Option<String>> = const { Cell::new(None) };
}

/// Sets a thread-local for as long as `f` runs, and gives back what it became.
fn scoped<R>(
    local: &'static std::thread::LocalKey<RefCell<Option<Vec<Handle>>>>,
    value: Vec<Handle>,
    f: impl FnOnce() -> R,
) -> (R, Vec<Handle>) {
    struct Restore(&'static std::thread::LocalKey<RefCell<Option<Vec<Handle>>>>, Option<Vec<Handle>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.1.take();
            self.0.with(|l| *l.borrow_mut() = before);
        }
    }
    let restore = Restore(local, local.with(|l| l.borrow_mut().replace(value)));
    let result = f();
    let after = local.with(|l| l.borrow_mut().take()).unwrap_or_default();
    drop(restore);
    (result, after)
}

macro_rules! raw_types {
    ($($number:ty),*) => {
        /// The bytes of a value that is copied as it lies in memory.
        #[inline(always)]
        pub(crate) fn as_raw<T: 'static>(value: &T) -> Option<&[u8]> {
            let value = value as &dyn Any;
            $(
                if TypeId::of::<T>() == TypeId::of::<$number>() {
                    return value.downcast_ref::<$number>().map(bytemuck::bytes_of);
                }
                if TypeId::of::<T>() == TypeId::of::<Vec<$number>>() {
                    return value.downcast_ref::<Vec<$number>>().map(|v| bytemuck::cast_slice(v));
                }
            )*
            None
        }

        /// Whether values of this type are copied as they lie in memory.
        #[inline(always)]
        pub(crate) fn is_raw<T: 'static>() -> bool {
            let this = TypeId::of::<T>();
            $(this == TypeId::of::<$number>() || this == TypeId::of::<Vec<$number>>() ||)* false
        }

        /// The value of such a type; `None` if it is none, or the bytes are too few or too many.
        #[inline(always)]
        fn from_raw<T: 'static>(bytes: &[u8]) -> Option<T> {
            let mut found: Option<T> = None;
            $(
                if TypeId::of::<T>() == TypeId::of::<$number>() {
                    if let Ok(value) = bytemuck::try_pod_read_unaligned::<$number>(bytes) {
                        if let Some(slot) = (&mut found as &mut dyn Any).downcast_mut() {
                            *slot = Some(value);
                        }
                    }
                    return found;
                }
                if TypeId::of::<T>() == TypeId::of::<Vec<$number>>() {
                    let size = size_of::<$number>();
                    if bytes.len() % size == 0 {
                        let numbers: Vec<$number> = match bytemuck::try_cast_slice::<u8, $number>(bytes) {
                            Ok(slice) => slice.to_vec(),
                            Err(_) => bytes.chunks_exact(size).map(bytemuck::pod_read_unaligned).collect(),
                        };
                        if let Some(slot) = (&mut found as &mut dyn Any).downcast_mut() {
                            *slot = Some(numbers);
                        }
                    }
                    return found;
                }
            )*
            found
        }

        /// Appends numbers of eight bytes to a vector of some such type, as they lie in memory.
        #[inline(always)]
        fn extend_raw(words: &[u64], values: &mut dyn Any) {
            $(
                if let (Some(values), Ok(more)) =
                    (values.downcast_mut::<Vec<$number>>(), bytemuck::try_cast_slice::<u64, $number>(words))
                {
                    values.extend_from_slice(more);
                    return;
                }
            )*
        }

        /// Whether values of this type are copied as they lie in memory, in how many bytes.
        #[inline(always)]
        pub(crate) fn raw_size<T: 'static>() -> Option<usize> {
            $(
                if TypeId::of::<T>() == TypeId::of::<$number>() {
                    return Some(size_of::<$number>());
                }
            )*
            None
        }
    };
}

raw_types!(u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64);

/// The value of a type with a [`raw_size`], from just as many bytes.
#[inline(always)]
pub(crate) fn read_raw<T: 'static>(bytes: &[u8]) -> T {
    match from_raw(bytes) {
        Some(value) => value,
        // Callers have asked `raw_size` and cut the bytes to it.
        _ => unreachable!("{} is not copied as it lies in memory", type_name::<T>()),
    }
}

/// Values with a [`raw_size`], side by side as they lie in memory.
#[inline]
pub(crate) fn raw_slice<T: 'static>(values: &Vec<T>) -> &[u8] {
    as_raw(values).unwrap_or_default()
}

/// Appends the values that words of [`to_word`] stand for.
pub(crate) fn extend_from_words<T: 'static>(words: &[u64], values: &mut Vec<T>) {
    match raw_size::<T>() {
        Some(8) => extend_raw(words, values),
        Some(size) => values.extend(words.iter().map(|word| read_raw::<T>(&word.to_le_bytes()[..size]))),
        None => {}
    }
}

/// A value whose [`raw_size`] is at most 8, as a word.
#[inline(always)]
pub(crate) fn to_word<T: 'static>(value: &T) -> u64 {
    let mut word = [0; 8];
    if let Some(bytes) = as_raw(value).filter(|b| b.len() <= 8) {
        word[..bytes.len()].copy_from_slice(bytes);
    }
    u64::from_le_bytes(word)
}

#[cold]
fn wrong_length<T>(bytes: usize) -> Error {
    Error::Decode { type_name: type_name::<T>(), reason: format!("{bytes} bytes are no such value") }
}

/// Encodes `value` and calls `f` with its bytes and the handles inside it.
///
/// # Errors
/// [`Error::Encode`] if serde or the value's own `Serialize` refuses.
#[inline]
pub(crate) fn encoded<T: Serialize + 'static, R>(value: &T, f: impl FnOnce(&[u8], &[Handle]) -> R) -> Result<R> {
    if let Some(bytes) = as_raw(value) {
        return Ok(f(bytes, &[]));
    }
    let (buffer, handles) =
        scoped(&OUTGOING, Vec::new(), || postcard::serialize_with_flavor::<T, Buffer, Buffer>(value, Buffer::new()));
    let buffer = buffer.map_err(|error| cannot_encode::<T>(&error))?;
    Ok(f(buffer.bytes(), &handles))
}

/// Encodes `value` at the end of `bytes`, and the handles inside it at the end of `handles`.
///
/// # Errors
/// As [`encoded`]; `bytes` and `handles` are then as before.
pub(crate) fn append<T: Serialize + 'static>(value: &T, bytes: &mut Vec<u8>, handles: &mut Vec<Handle>) -> Result<()> {
    if let Some(raw) = as_raw(value) {
        bytes.extend_from_slice(raw);
        return Ok(());
    }
    let (len, count) = (bytes.len(), handles.len());
    let (done, all) = scoped(&OUTGOING, core::mem::take(handles), || {
        postcard::serialize_with_flavor::<T, Appending<'_>, ()>(value, Appending(bytes, Depth::begin()))
    });
    *handles = all;
    done.map_err(|error| {
        bytes.truncate(len);
        handles.truncate(count);
        cannot_encode::<T>(&error)
    })
}

#[cold]
fn cannot_encode<T>(error: &dyn Display) -> Error {
    Error::Encode { type_name: type_name::<T>(), reason: REFUSAL.take().unwrap_or_else(|| error.to_string()) }
}

/// Decodes a value from its bytes and the handles beside them.
///
/// # Errors
/// [`Error::Decode`] if the bytes are not a `T`.
#[inline]
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: &[u8], handles: Vec<Handle>) -> Result<T> {
    if is_raw::<T>() { decode_raw(bytes) } else { decode_by_serde(bytes, handles) }
}

/// As [`decode`], without handles.
///
/// # Errors
/// As [`decode`].
#[inline(always)]
pub(crate) fn decode_bare<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T> {
    if is_raw::<T>() { decode_raw(bytes) } else { decode_by_serde(bytes, Vec::new()) }
}

#[inline(always)]
fn decode_raw<T: 'static>(bytes: &[u8]) -> Result<T> {
    match from_raw(bytes) {
        Some(value) => Ok(value),
        None => Err(wrong_length::<T>(bytes.len())),
    }
}

fn decode_by_serde<T: DeserializeOwned + 'static>(bytes: &[u8], handles: Vec<Handle>) -> Result<T> {
    let (value, _) = scoped(&INCOMING, handles, || {
        let mut deserializer = postcard::Deserializer::from_flavor(Reading::new(bytes));
        let value = T::deserialize(&mut deserializer)?;
        Ok::<_, postcard::Error>((value, deserializer.finalize()?))
    });
    match value {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(cannot_decode::<T>(&format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(cannot_decode::<T>(&error)),
    }
}

#[cold]
fn cannot_decode<T>(reason: &dyn Display) -> Error {
    Error::Decode { type_name: type_name::<T>(), reason: REFUSAL.take().unwrap_or_else(|| reason.to_string()) }
}

/// A number that tells types apart, the same in all processes of one executable.
pub(crate) fn fingerprint<T: ?Sized>() -> u64 {
    // FNV-1a over the type's name.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in type_name::<T>().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// How a handle looks inside a message.
#[derive(Serialize, Deserialize)]
struct Reference {
    place: u32,
    fingerprint: u64,
}

/// Keeps the text of a refusal for the error that the caller will see.
pub(crate) fn refuse(text: String) -> String {
    REFUSAL.set(Some(text.clone()));
    text
}

/// For `Serialize` of a handle type; `face` is the type as its user writes it.
///
/// # Errors
/// If no message of tenfold's is being encoded.
pub(crate) fn serialize_handle<F, S: Serializer>(
    handle: &Handle,
    serializer: S,
) -> core::result::Result<S::Ok, S::Error> {
    let place = OUTGOING.with(|outgoing| {
        let mut outgoing = outgoing.borrow_mut();
        let handles = outgoing.as_mut()?;
        handles.push(handle.clone());
        u32::try_from(handles.len() - 1).ok()
    });
    let Some(place) = place else {
        let face = type_name::<F>();
        return Err(S::Error::custom(refuse(format!(
            "a {face} lives in the shared heap: it can be sent through tenfold's own queues, pools, processes and \
             containers, but not written elsewhere"
        ))));
    };
    Reference { place, fingerprint: fingerprint::<F>() }.serialize(serializer)
}

/// For `Deserialize` of a handle type: the handle, if it was sent as the same type.
///
/// # Errors
/// If no message is being decoded, or another type was sent.
pub(crate) fn deserialize_handle<'de, F, D: Deserializer<'de>>(
    kind: ObjectKind,
    deserializer: D,
) -> core::result::Result<Handle, D::Error> {
    let reference = Reference::deserialize(deserializer)?;
    let face = type_name::<F>();
    if reference.fingerprint != fingerprint::<F>() {
        return Err(D::Error::custom(refuse(format!("the message holds a handle of another type than {face}"))));
    }
    let handle = INCOMING.with(|incoming| incoming.borrow().as_ref()?.get(reference.place as usize).cloned());
    let handle = handle.ok_or_else(|| D::Error::custom(refuse(format!("a {face} was not sent through tenfold"))))?;
    handle.expect(kind).map_err(|error| D::Error::custom(refuse(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Message + PartialEq + core::fmt::Debug>(value: T) {
        let copy: T = encoded(&value, |bytes, handles| decode(bytes, handles.to_vec())).unwrap().unwrap();
        assert_eq!(copy, value);
        let (mut bytes, mut handles) = (vec![1, 2, 3], Vec::new());
        append(&value, &mut bytes, &mut handles).unwrap();
        assert_eq!(decode::<T>(&bytes[3..], handles).unwrap(), value);
    }

    #[test]
    fn values_come_back_as_they_were() {
        round_trip(7_i64);
        round_trip(-1.5_f32);
        round_trip(vec![1_u16, 2, 3]);
        round_trip(Vec::<f64>::new());
        round_trip((1_u8, "two".to_string(), Some(vec![3_i32])));
        round_trip("x".repeat(1000));
        round_trip(());
    }

    #[test]
    fn other_bytes_are_an_error() {
        assert!(matches!(decode::<u64>(&[1, 2], vec![]), Err(Error::Decode { .. })));
        assert!(matches!(decode::<Vec<u32>>(&[1, 2], vec![]), Err(Error::Decode { .. })));
        assert!(matches!(decode::<String>(&[200], vec![]), Err(Error::Decode { .. })));
        assert!(matches!(decode::<bool>(&[1, 1], vec![]), Err(Error::Decode { .. })));
    }
}
