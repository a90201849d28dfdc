//! What a task is, as bytes.
//!
//! | kind | preamble of the batch | input |
//! |---|---|---|
//! | `Map` | the function | its argument |
//! | `Star` | the function | a tuple of its arguments |
//! | `Call` | none | arguments, keywords (or nothing), function, length of keywords u32, of function u32 |
//! | `Alone` | as a `Call` without arguments | a tuple of arguments, which are large |
//!
//! Each part is a payload of [`crate::codec`]. A large payload stands alone: it is looked at where it lies.

use pyo3::prelude::*;
use smallvec::SmallVec;
use tenfold_engine::Handle;
use tenfold_engine::shm::message::Outgoing;

use crate::codec::{self, Encoded};

/// What the items of a batch are; travels as the batch's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    /// One function for all items, one argument each.
    Map = 1,
    /// One function for all items, a tuple of arguments each.
    Star = 2,
    /// Each item has its own function.
    Call = 3,
    /// One item; what it calls is in the preamble.
    Alone = 4,
}

impl Kind {
    pub(super) fn from_bits(bits: u64) -> Option<Kind> {
        [Kind::Map, Kind::Star, Kind::Call, Kind::Alone].into_iter().find(|kind| *kind as u64 == bits)
    }
}

/// A pickled function.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) bytes: Vec<u8>,
    pub(super) handles: Vec<Handle>,
}

impl Function {
    /// Pickles a function.
    ///
    /// # Errors
    /// Pickle's own.
    pub(super) fn encode(function: &Bound<'_, PyAny>) -> PyResult<Function> {
        let encoded = codec::encode(function)?;
        encoded.with(function.py(), |o| Function { bytes: o.parts.concat(), handles: o.handles.to_vec() })
    }

    /// Whether the bytes only name the function, so that the same bytes always mean the same function.
    pub(super) fn is_reference(&self) -> bool {
        is_reference(&self.bytes)
    }
}

/// Whether a payload is a pickle of nothing but a global name: module and name as short strings, and no more.
pub(super) fn is_reference(payload: &[u8]) -> bool {
    const PROTOCOL: u8 = 0x80;
    const FRAME: u8 = 0x95;
    const SHORT_STRING: u8 = 0x8c;
    const MEMOIZE: u8 = 0x94;
    const STACK_GLOBAL: u8 = 0x93;
    fn string(rest: &[u8]) -> Option<&[u8]> {
        let [SHORT_STRING, len, rest @ ..] = rest else { return None };
        match rest.get(usize::from(*len)..)? {
            [MEMOIZE, rest @ ..] => Some(rest),
            rest => Some(rest),
        }
    }
    let parse = || {
        let [codec::PICKLE, PROTOCOL, _, FRAME, rest @ ..] = payload else { return None };
        let rest = string(string(rest.get(8..)?)?)?;
        Some(matches!(rest, [STACK_GLOBAL, b'.'] | [STACK_GLOBAL, MEMOIZE, b'.']))
    };
    parse().unwrap_or(false)
}

/// Calls `f` with the input of a `Call`, or with all but the arguments.
///
/// # Errors
/// If a string among the arguments cannot be read any more.
pub(super) fn with_call<R>(
    py: Python<'_>,
    function: &Function,
    args: Option<&Encoded>,
    keywords: Option<&Encoded>,
    f: impl FnOnce(Outgoing<'_>) -> R,
) -> PyResult<R> {
    let mut trailer = [0; 8];
    trailer[4..].copy_from_slice(&(function.bytes.len() as u32).to_le_bytes());
    let assemble = |args: Outgoing<'_>, keywords: Outgoing<'_>| {
        trailer[..4].copy_from_slice(&(keywords.len() as u32).to_le_bytes());
        let parts = args.parts.iter().chain(keywords.parts).copied().chain([&function.bytes[..], &trailer]);
        let parts: SmallVec<[&[u8]; 8]> = parts.collect();
        let handles = [args.handles, keywords.handles, &function.handles];
        if handles.iter().all(|h| h.is_empty()) {
            f(Outgoing { parts: &parts, handles: &[] })
        } else {
            f(Outgoing { parts: &parts, handles: &handles.concat() })
        }
    };
    const NOTHING: Outgoing<'_> = Outgoing { parts: &[], handles: &[] };
    match (args, keywords) {
        (Some(args), Some(keywords)) => args.with(py, |args| keywords.with(py, |keywords| assemble(args, keywords)))?,
        (Some(args), None) => args.with(py, |args| assemble(args, NOTHING)),
        (None, Some(keywords)) => keywords.with(py, |keywords| assemble(NOTHING, keywords)),
        (None, None) => Ok(assemble(NOTHING, NOTHING)),
    }
}

/// The arguments in a `Call`'s input, and the rest of it. `None` if the bytes make no sense.
pub(super) fn split_call(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, function_len) = input.split_last_chunk::<4>()?;
    let (_, keywords_len) = rest.split_last_chunk::<4>()?;
    let rest_len = 8 + u32::from_le_bytes(*keywords_len) as usize + u32::from_le_bytes(*function_len) as usize;
    input.split_at_checked(input.len().checked_sub(rest_len)?)
}

/// The keywords, if any, and the function in that rest. `None` if the bytes make no sense.
pub(super) fn split_callee(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, lengths) = rest.split_last_chunk::<8>()?;
    let keywords_len = u32::from_le_bytes(*lengths.first_chunk()?) as usize;
    rest.split_at_checked(keywords_len)
}
