//! Where an end of the queue is: one word that says how many messages have passed and where in its
//! segment the next one lies.
//!
//! `messages passed: 40 bits | offset in the segment, in words: 24 bits`. Both move in one store.
//! Counts wrap around; only their differences mean something.

use super::segment::FIRST_WORD;

const OFFSET_BITS: u32 = 24;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const COUNT_MASK: u64 = u64::MAX >> OFFSET_BITS;

/// The most messages a queue can hold.
pub(super) const MOST: u64 = COUNT_MASK >> 1;

/// How many messages have passed an end, and where the next one lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(u64);

impl Position {
    /// Of an end that no message has passed.
    pub(super) const START: Position = Position(FIRST_WORD);

    #[inline(always)]
    pub(super) fn from_bits(bits: u64) -> Position {
        Position(bits)
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Messages that have passed, modulo 2^40.
    #[inline(always)]
    pub(super) fn count(self) -> u64 {
        self.0 >> OFFSET_BITS
    }

    /// The word of the segment at which the next record begins.
    #[inline(always)]
    pub(super) fn offset(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    /// After one more message, whose record has `words` words.
    #[inline(always)]
    pub(super) fn after(self, words: u64) -> Position {
        let count = (self.count() + 1) & COUNT_MASK;
        Position(count << OFFSET_BITS | ((self.offset() + words) & OFFSET_MASK))
    }

    /// The same number of messages, at the beginning of the next segment.
    #[inline(always)]
    pub(super) fn in_next_segment(self) -> Position {
        Position(self.count() << OFFSET_BITS | FIRST_WORD)
    }

    /// Messages between `earlier` and this.
    #[inline(always)]
    pub(super) fn since(self, earlier: Position) -> u64 {
        distance(earlier.count(), self.count())
    }
}

/// From one count to a later one.
#[inline(always)]
pub(super) fn distance(from: u64, to: u64) -> u64 {
    to.wrapping_sub(from) & COUNT_MASK
}

/// The count after `count`.
#[inline(always)]
pub(super) fn next(count: u64) -> u64 {
    count.wrapping_add(1) & COUNT_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_wrap_without_touching_the_offset() {
        let last = Position::from_bits(COUNT_MASK << OFFSET_BITS | 100);
        let first = last.after(2);
        assert_eq!((first.count(), first.offset()), (0, 102));
        assert_eq!(first.since(last), 1);
        assert_eq!(first.in_next_segment().offset(), FIRST_WORD);
        assert_eq!(distance(last.count(), next(next(last.count()))), 2);
    }
}
