//! A segment: a run of records, one a message, written by producers and read by consumers.
//!
//! ```text
//!  ┌ next ┬ spare ┬ header│bytes … ┬ header│block id ┬ … ┬ header (end) ┬ slack ┐
//! ```
//!
//! A record is a header word and up to seven words of payload: short payloads lie in the record, of
//! longer ones there is the id of the block. The header repeats the low bits of the message's
//! number, so that a record that somebody scribbled over is noticed. After the last record that
//! fits stands an end mark; the slack behind it lets every record be looked at as eight words.

use core::sync::atomic::{AtomicU64, Ordering};

use super::position::Position;
use crate::error::{HeapError, Result};
use crate::heap::{At, BlockId, FIXED, Heap, Shared, Word};
use crate::message::{INLINE, Outgoing};

/// Words of the longest record.
pub(super) const RECORD_WORDS: usize = 1 + INLINE.div_ceil(8);
/// The word at which a segment's first record begins.
pub(super) const FIRST_WORD: u64 = 2;
/// Words at the end of a segment where no record begins.
const SLACK: u64 = RECORD_WORDS as u64;

const BLOCK: u64 = 0xfe;
const END: u64 = 0xff;

/// Bytes of the first segment of a queue.
pub(super) const FIRST_BYTES: u64 = 1 << 10;

/// Bytes of a further segment, in a queue that holds `messages`.
pub(super) fn bytes_for(messages: u64) -> u64 {
    match messages {
        0..1024 => 8 << 10,
        1024..32_768 => 64 << 10,
        _ => 1 << 20,
    }
}

/// The word behind the last record of a segment: where at the latest the end mark stands.
pub(super) fn limit(bytes: u64) -> u64 {
    bytes / 8 - SLACK
}

/// Eight words of a segment, of which a record takes as many as it needs.
#[repr(C)]
pub(super) struct Record([AtomicU64; RECORD_WORDS]);

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Record {}

/// What stands in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A payload of this many bytes.
    Inline(usize),
    /// A payload in its own block, named by the record's second word.
    Block,
    /// Nothing: the next record begins the next segment.
    End,
}

/// Words of a record whose payload lies in its own block.
pub(super) const BLOCK_WORDS: u64 = 2;

/// Words of a record with `len` bytes in it.
#[inline(always)]
pub(super) fn inline_words(len: usize) -> u64 {
    1 + len.div_ceil(8) as u64
}

/// Room for a short payload, as it lies in a record.
pub(super) type Words = [u64; RECORD_WORDS - 1];

/// Whether a message goes into its record, and how many bytes it has then.
#[inline(always)]
pub(super) fn short(outgoing: &Outgoing<'_>) -> Option<usize> {
    let len = outgoing.len();
    (len <= INLINE && outgoing.handles.is_empty()).then_some(len)
}

/// The record at which `position` points, in the segment at `segment`.
#[inline(always)]
pub(super) fn record(heap: Heap, segment: u64, position: Position) -> Result<At<Record>> {
    heap.at(checked(segment)? + position.offset() * 8)
}

/// The word of the segment at `segment` that owns the next one.
#[inline]
pub(super) fn next(heap: Heap, segment: u64) -> Result<Word> {
    heap.word(checked(segment)?)
}

/// An offset that was read from the queue, if it may be a segment's. The heap's own tables are not
/// written over, whatever it says.
#[inline(always)]
fn checked(segment: u64) -> Result<u64> {
    const BEYOND: u64 = 1 << 48;
    if (FIXED..BEYOND).contains(&segment) {
        Ok(segment)
    } else {
        Err(HeapError::corrupt("segment of a queue", segment))
    }
}

#[inline(always)]
fn header(position: Position, code: u64) -> u64 {
    position.count() << 8 | code
}

impl At<Record> {
    /// Writes a message of `len` bytes, which are few enough. The producer holds the tail lock and
    /// commits later.
    #[inline(always)]
    pub(super) fn write_inline(self, position: Position, outgoing: &Outgoing<'_>, len: usize) {
        match outgoing.parts {
            [part] => self.write_bytes(part),
            parts => self.write_parts(parts),
        }
        self.0[0].store(header(position, len as u64), Ordering::Relaxed);
    }

    // Word by word: a copy through a buffer costs more than all the rest, as the processor cannot
    // forward small stores to wide loads.
    #[inline(always)]
    fn write_bytes(self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for (word, bytes) in self.0[1..].iter().zip(words) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        if let (false, Some(word)) = (rest.is_empty(), self.0[1..].get(words.len())) {
            let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            word.store(last, Ordering::Relaxed);
        }
    }

    #[inline(never)]
    fn write_parts(self, parts: &[&[u8]]) {
        let (mut bytes, mut len) = ([0; INLINE], 0);
        for part in parts {
            if let Some(room) = bytes.get_mut(len..len + part.len()) {
                room.copy_from_slice(part);
                len += part.len();
            }
        }
        self.write_bytes(&bytes[..len]);
    }

    /// Names the block of a message. The producer holds the tail lock and commits later.
    #[inline(always)]
    pub(super) fn write_block(self, position: Position, id: BlockId) {
        self.0[1].store(id.bits(), Ordering::Relaxed);
        self.0[0].store(header(position, BLOCK), Ordering::Relaxed);
    }

    /// Says that no further record follows in this segment.
    #[inline]
    pub(super) fn write_end(self, position: Position) {
        self.0[0].store(header(position, END), Ordering::Relaxed);
    }

    /// What stands here, as message number `position`.
    ///
    /// # Errors
    /// [`HeapError::Corrupt`] if that is not a record of this message.
    #[inline(always)]
    pub(super) fn found(self, position: Position) -> Result<Found> {
        let word = self.0[0].load(Ordering::Relaxed);
        let code = word & 0xff;
        if word ^ header(position, code) != 0 {
            return Err(HeapError::corrupt("record of a queue", self.offset()));
        }
        match code {
            0..=56 => Ok(Found::Inline(code as usize)),
            BLOCK => Ok(Found::Block),
            END => Ok(Found::End),
            _ => Err(HeapError::corrupt("record of a queue", self.offset())),
        }
    }

    /// Copies a payload of `len` bytes out.
    #[inline(always)]
    pub(super) fn read_inline(self, len: usize, words: &mut Words) {
        for (to, from) in words.iter_mut().zip(self.inline(len)) {
            *to = from;
        }
    }

    /// The words of a payload of `len` bytes.
    #[inline(always)]
    pub(super) fn inline(self, len: usize) -> impl Iterator<Item = u64> {
        self.get().0[1..].iter().take(len.div_ceil(8)).map(|word| word.load(Ordering::Relaxed).to_le())
    }

    /// The word that names the message's block.
    #[inline(always)]
    pub(super) fn block_cell(self) -> Word {
        self.field(|r| &r.0[1])
    }
}

const _: () = assert!(INLINE == 56);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_room_for_any_record() {
        for bytes in [FIRST_BYTES, bytes_for(0), bytes_for(1024), bytes_for(u64::MAX)] {
            assert!(limit(bytes) > FIRST_WORD + RECORD_WORDS as u64);
            assert!((limit(bytes) + SLACK) * 8 <= bytes);
            assert_eq!(Position::START.after(limit(bytes) - FIRST_WORD).offset(), limit(bytes));
        }
    }

    #[test]
    fn only_short_payloads_without_handles_are_short() {
        let len = |parts: &[&[u8]]| short(&Outgoing { parts, handles: &[] });
        assert_eq!(len(&[]), Some(0));
        assert_eq!(len(&[&[1; 30], &[2; 26]]), Some(56));
        assert_eq!(len(&[&[1; 30], &[2; 27]]), None);
    }

    #[test]
    fn payloads_come_back_from_their_records() {
        let bytes: Vec<u8> = (1..=56).collect();
        let record: &'static Record = Box::leak(Box::new(Record(Default::default())));
        let at = At::known(8, record);
        for len in 0..=56 {
            for cut in 0..=len {
                let halves = [&bytes[..cut], &bytes[cut..len]];
                let whole = [&bytes[..len]];
                for parts in [&halves[..], &whole[..]] {
                    let outgoing = Outgoing { parts, handles: &[] };
                    at.write_inline(Position::START, &outgoing, short(&outgoing).unwrap());
                    assert_eq!(at.found(Position::START).unwrap(), Found::Inline(len));
                    let mut words = Words::default();
                    at.read_inline(len, &mut words);
                    assert_eq!(&bytemuck::cast_slice::<u64, u8>(&words)[..len], &bytes[..len]);
                }
            }
        }
        assert!(at.found(Position::START.after(8)).is_err());
    }
}
