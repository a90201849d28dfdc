//! Keys as a dict looks for them.
//!
//! ```text
//!  ┌ kin … ┬ name … ┬ spelling … ┐
//!  └ hashed┘        │                what keys in question have in common
//!  └─────── compared┘                equal keys have these bytes in common
//! ```
//!
//! For most faces a key is its bytes, all of them. A face with keys that are equal although they are written differently
//! (Python's `1`, `1.0` and `True`) puts the way it is written behind the bytes that are compared; the spelling that came
//! first stays, like the key object in a dict of Python's. A face that has to look at some keys one by one, because it
//! alone can compare them, gives these a beginning in common, which alone is hashed, so that [`super::Dict::kin`] finds them.

/// A key to look for or to insert.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    bytes: &'a [u8],
    hashed: usize,
    compared: usize,
    /// Whether bytes behind the compared ones make another key.
    whole: bool,
}

impl<'a> Key<'a> {
    /// A key of which only the first `compared` bytes are compared, and the first `hashed` of those hashed. No key's
    /// compared bytes may be the beginning of another's.
    ///
    /// # Panics
    /// If `hashed <= compared <= bytes.len()` does not hold.
    pub fn spelled(bytes: &'a [u8], hashed: usize, compared: usize) -> Key<'a> {
        assert!(hashed <= compared && compared <= bytes.len(), "a key has fewer bytes than are compared");
        Key { bytes, hashed, compared, whole: false }
    }

    /// All bytes, spelling included.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The hash of those that count.
    #[inline]
    pub(super) fn hash(&self) -> u32 {
        super::hash::hash(&self.bytes[..self.hashed])
    }

    /// Whether an entry with the key `there` is for this one.
    #[inline]
    pub(super) fn is(&self, there: &[u8]) -> bool {
        if self.whole { there == self.bytes } else { there.starts_with(&self.bytes[..self.compared]) }
    }

    /// The same key in the spelling `there`, which [`Key::is`] has accepted.
    pub(super) fn respelled<'b>(&self, there: &'b [u8]) -> Key<'b> {
        Key { bytes: there, hashed: self.hashed, compared: self.compared, whole: self.whole }
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Key<'a> {
        Key { bytes, hashed: bytes.len(), compared: bytes.len(), whole: true }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Key<'a> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Key<'a> {
        Key::from(&bytes[..])
    }
}

impl<'a> From<&'a Vec<u8>> for Key<'a> {
    #[inline]
    fn from(bytes: &'a Vec<u8>) -> Key<'a> {
        Key::from(&bytes[..])
    }
}
