//! Places in a list, counted from either end.

/// A place in a list. It is looked up under the list's lock: what is last may change until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// So many items stand before it; 0 is the first.
    Front(u64),
    /// So many items stand from it to the end; 1 is the last.
    Back(u64),
}

impl Place {
    /// The place behind the last item.
    pub const END: Place = Place::Back(0);

    /// Its number in a list of `len` items, if there is an item.
    #[inline]
    pub(super) fn index(self, len: u64) -> Option<u64> {
        match self {
            Place::Front(at) => (at < len).then_some(at),
            Place::Back(from_end) if from_end > 0 => len.checked_sub(from_end),
            Place::Back(_) => None,
        }
    }

    /// Its number in a list of `len` items: the nearest end if it lies outside.
    #[inline]
    pub(super) fn clamped(self, len: u64) -> u64 {
        match self {
            Place::Front(at) => at.min(len),
            Place::Back(from_end) => len.saturating_sub(from_end),
        }
    }
}

impl From<u64> for Place {
    #[inline]
    fn from(at: u64) -> Place {
        Place::Front(at)
    }
}
