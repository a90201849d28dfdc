//! How deep a value may be nested: as deep as the stack of the thread that encodes or decodes it allows.
//!
//! serde goes into a value by recursion, and a stack that overflows ends the process. So each byte that is written or
//! read looks at how far the stack has grown since the beginning:
//!
//! ```text
//!  stack of the thread                                                     ◀── grows
//!  ├ kept free ┼ room for the recursion ……………………………………………………… ┼ begun here ┼ caller …
//!  └ beyond this point: an error
//! ```
//!
//! A type that contains itself does so in an Option, an enum or a sequence, each of which has a byte of its own. So what
//! is between two looks is bounded by the type, and not by the value.

use tenfold_engine::sys::stack;

use crate::payload::refuse;

/// A stack that has grown by less is no matter.
const SHALLOW: usize = 4 << 10;
/// What is kept free for what happens between two looks, on a stack that is large enough.
const KEPT: usize = 128 << 10;

/// How far the stack may grow, from where it was when a value was begun, without a closer look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depth(usize);

impl Depth {
    #[inline(always)]
    pub(crate) fn begin() -> Depth {
        Depth(here().saturating_sub(SHALLOW))
    }

    /// Looks how far the stack has grown.
    ///
    /// # Errors
    /// If there is no room to go deeper.
    #[inline(always)]
    pub(crate) fn look(self) -> postcard::Result<()> {
        if here() >= self.0 { Ok(()) } else { self.look_closely() }
    }

    #[inline(never)]
    fn look_closely(self) -> postcard::Result<()> {
        let (stack, begun) = (stack::bounds(), self.0 + SHALLOW);
        // Else the program has stacks of its own making.
        if stack.contains(&begun) {
            let kept = ((begun - stack.start) / 4).min(KEPT);
            if here() < stack.start + kept {
                refuse(format!(
                    "it is nested too deeply for the stack of this thread, which has {} bytes",
                    stack.len()
                ));
                return Err(postcard::Error::SerdeDeCustom);
            }
        }
        Ok(())
    }
}

/// An address on the stack.
#[inline(always)]
fn here() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

/// The bytes of a value that is being decoded.
pub(crate) struct Reading<'a> {
    rest: &'a [u8],
    depth: Depth,
}

impl<'a> Reading<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Reading<'a> {
        Reading { rest: bytes, depth: Depth::begin() }
    }
}

impl<'de> postcard::de_flavors::Flavor<'de> for Reading<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];
    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        self.depth.look()?;
        let (&first, rest) = self.rest.split_first().ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(first)
    }
    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
    #[inline]
    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }
    fn finalize(self) -> postcard::Result<&'de [u8]> {
        Ok(self.rest)
    }
}
