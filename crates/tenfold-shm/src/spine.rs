//! A vector of words for the containers: a directory of segments, and the range of it that is owned.
//!
//! ```text
//!  ┌ owned ┬ stride ┬ items ┬ segment words ┬ directory … ┐        an object of kind Spine
//!                                              │   │
//!                                              ▼   ▼
//!                                     segment 0   segment 1  …     blocks of at most 1 MiB
//! ```
//!
//! An item is `stride` words, of which the first is a cell. `owned` is one word, `from << 32 | to`:
//! the items whose blocks belong to this spine. So one store hands over any number of blocks: a
//! reordered copy is built aside with nothing owned, and published by a record that gives it the
//! range and takes it from the old spine.
//!
//! *Killed here:* a spine that is built aside is named by a transit cell, owns nothing or just what
//! nobody else does, and is freed by the sweep. Freeing goes item by item, then segment by segment,
//! and is resumed where it stopped.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Shared, WINDOW, Word, class};
use crate::kill_point::{KillPoint, reach};
use crate::object::{self, ObjectKind};
use crate::participant::Seat;

/// Words of the largest segment.
pub(crate) const SEGMENT_WORDS: u64 = WINDOW / 8;
/// Items of the longest spine.
pub(crate) const ITEMS_MAX: u64 = LONG_DIRECTORY * SEGMENT_WORDS;
const HEAD: u64 = size_of::<Head>() as u64;
/// Directory of a spine that fits the smallest object.
const SHORT_DIRECTORY: u64 = (256 - HEAD) / 8;
/// Directory of all others: 8 GiB of words.
const LONG_DIRECTORY: u64 = 8192;

#[repr(C)]
struct Head {
    /// The items that this spine owns, see [`Range`].
    owned: AtomicU64,
    stride: AtomicU64,
    /// Items that the spine was built for.
    items: AtomicU64,
    /// Words of a segment: [`SEGMENT_WORDS`] if there is more than one.
    segment_words: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Head {}
const _: () = assert!(HEAD == 32);

/// Items `from..to` of a spine, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Range {
    /// No items.
    pub(crate) const EMPTY: Range = Range { from: 0, to: 0 };

    pub(crate) fn new(from: u64, to: u64) -> Range {
        debug_assert!(from <= to && to <= u64::from(u32::MAX));
        Range { from, to }
    }

    pub(crate) fn bits(self) -> u64 {
        if self.from == self.to && self.from == 0 { 0 } else { self.from << 32 | self.to }
    }

    fn from_bits(bits: u64) -> Range {
        Range { from: bits >> 32, to: u64::from(bits as u32) }
    }

    pub(crate) fn len(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Whether it can be the range of a spine.
    #[inline]
    pub(crate) fn makes_sense(self) -> bool {
        self.from <= self.to && self.to <= ITEMS_MAX
    }
}

/// A spine, looked up. The caller owns it or holds the lock of its container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spine {
    heap: Heap,
    block: Block,
    head: At<Head>,
    /// The words of the first segment and where they are in the heap, if they are kept at hand.
    first: Option<(&'static [AtomicU64], u64)>,
}

/// The words of a block where they lie.
pub(crate) fn words(heap: Heap, block: Block) -> Result<&'static [AtomicU64]> {
    let bytes = block.len() / 8 * 8;
    if !block.offset().is_multiple_of(8) {
        return Err(HeapError::corrupt("offset of a segment", block.offset()));
    }
    let address = block.address(heap, 0, bytes)?;
    // SAFETY: `address` is valid for `bytes` bytes of a window that is never unmapped; windows are
    // page-aligned and the offset was checked, so it is aligned; any bytes are valid atomics.
    Ok(unsafe { core::slice::from_raw_parts(address.as_ptr().cast::<AtomicU64>(), (bytes / 8) as usize) })
}

impl Spine {
    /// The spine `id`.
    #[inline]
    pub(crate) fn open(heap: Heap, id: BlockId) -> Result<Spine> {
        Spine::of(heap, heap.block(id)?)
    }

    #[inline]
    fn of(heap: Heap, block: Block) -> Result<Spine> {
        if block.kind != ObjectKind::Spine as u8 {
            return Err(HeapError::corrupt("kind of a spine", block.offset()));
        }
        Ok(Spine { heap, block, head: block.view(heap, 0)?, first: None })
    }

    /// Builds a spine that owns nothing into `cell`, with room for `items` items of `stride` words.
    /// What the items contain is whatever was there before.
    ///
    /// # Errors
    /// If the heap has no room; the cell then names what was built so far, or nothing.
    pub(crate) fn build(heap: Heap, seat: Seat, cell: Word, items: u64, stride: u64) -> Result<Spine> {
        let words = items.saturating_mul(stride).max(1);
        let segments = words.div_ceil(SEGMENT_WORDS);
        let directory = if segments <= SHORT_DIRECTORY / 2 { SHORT_DIRECTORY } else { LONG_DIRECTORY };
        if segments > LONG_DIRECTORY || items > ITEMS_MAX {
            return Err(HeapError::TooLarge { bytes: words.saturating_mul(8), limit: LONG_DIRECTORY * WINDOW });
        }
        let segment_words = if segments > 1 {
            SEGMENT_WORDS
        } else {
            class::class_of(words * 8).map_or(SEGMENT_WORDS, |class| class::size_of_class(class) / 8)
        };
        let block = object::create_in(heap, seat, ObjectKind::Spine, HEAD + 8 * directory, cell, |block| {
            let head = block.view::<Head>(heap, 0)?;
            head.stride.store(stride, Ordering::Relaxed);
            head.items.store(items, Ordering::Relaxed);
            head.segment_words.store(segment_words, Ordering::Relaxed);
            Ok(())
        })?;
        let spine = Spine::of(heap, block)?;
        for segment in 0..segments {
            spine.add_segment(seat, segment)?;
        }
        Ok(spine)
    }

    fn add_segment(&self, seat: Seat, segment: u64) -> Result<()> {
        let words = self.head.segment_words.load(Ordering::Relaxed).min(SEGMENT_WORDS);
        let cell = self.directory_cell(segment)?;
        self.heap.take(seat, words * 8, ObjectKind::Bytes, cell)?;
        reach(KillPoint::SpineSegmentTaken);
        Ok(())
    }

    #[inline]
    fn directory_len(&self) -> u64 {
        (self.block.len() - HEAD) / 8
    }

    #[inline]
    fn directory_cell(&self, segment: u64) -> Result<Word> {
        self.block.word(self.heap, HEAD + 8 * segment)
    }

    /// Makes sure that there is room for item number `item`, if that is possible in place.
    pub(crate) fn grow_in_place(&self, seat: Seat, item: u64) -> Result<bool> {
        if item >= ITEMS_MAX {
            return Ok(false);
        }
        let word = (item + 1) * self.stride() - 1;
        let length = self.head.segment_words.load(Ordering::Relaxed);
        if word < length {
            return Ok(true);
        }
        let segment = word / SEGMENT_WORDS;
        if length != SEGMENT_WORDS || segment >= self.directory_len() {
            return Ok(false);
        }
        if self.directory_cell(segment)?.load(Ordering::Relaxed) == 0 {
            self.add_segment(seat, segment)?;
        }
        Ok(true)
    }

    #[inline]
    fn stride(&self) -> u64 {
        // Only 1 and 2 are used.
        self.head.stride.load(Ordering::Relaxed).clamp(1, 2)
    }

    /// Items that the spine was built for.
    #[inline]
    pub(crate) fn items(&self) -> u64 {
        self.head.items.load(Ordering::Relaxed)
    }

    /// The items that it owns.
    #[inline]
    pub(crate) fn owned(&self) -> Range {
        Range::from_bits(self.head.owned.load(Ordering::Relaxed))
    }

    /// The word that says which items it owns.
    #[inline]
    pub(crate) fn owned_word(&self) -> Word {
        self.head.field(|h| &h.owned)
    }

    /// Word number `word`, counted over all segments.
    #[inline]
    pub(crate) fn word(&self, word: u64) -> Result<Word> {
        if let Some((words, offset)) = self.first
            && let Some(target) = words.get(word as usize)
        {
            return Ok(At::known(offset + 8 * word, target));
        }
        let (segment, at) = self.place(word);
        self.segment(segment)?.word(self.heap, at * 8)
    }

    #[inline]
    fn place(&self, word: u64) -> (u64, u64) {
        // A short segment is the only one.
        if word < self.head.segment_words.load(Ordering::Relaxed) && word < SEGMENT_WORDS {
            (0, word)
        } else {
            (word / SEGMENT_WORDS, word % SEGMENT_WORDS)
        }
    }

    #[inline]
    fn segment(&self, segment: u64) -> Result<Block> {
        let cell = self.directory_cell(segment)?;
        let id = BlockId::from_bits(cell.load(Ordering::Relaxed))
            .ok_or(HeapError::corrupt("segment of a spine", cell.offset()))?;
        self.heap.block(id)
    }

    /// The words from number `word` on, to the end of its segment, and where they are in the heap.
    #[inline]
    pub(crate) fn piece(&self, word: u64) -> Result<(&'static [AtomicU64], u64)> {
        if let Some((words, offset)) = self.first
            && let Some(piece) = words.get(word as usize..).filter(|piece| !piece.is_empty())
        {
            return Ok((piece, offset + 8 * word));
        }
        let (segment, within) = self.place(word);
        let block = self.segment(segment)?;
        let words = words(self.heap, block)?;
        match words.get(within as usize..).filter(|piece| !piece.is_empty()) {
            Some(piece) => Ok((piece, block.offset() + 8 * within)),
            None => Err(HeapError::corrupt("segment of a spine", block.offset())),
        }
    }

    /// The same with its first segment at hand, which stays as long as the spine: for many looks under one lock.
    pub(crate) fn at_hand(self) -> Result<Spine> {
        Ok(Spine { first: Some(self.piece(0)?), ..self })
    }

    /// The first `count` words, one after the other.
    pub(crate) fn words(&self, count: u64) -> impl Iterator<Item = Result<Word>> {
        let mut at_hand = None;
        (0..count).map(move |word| {
            let (number, at) = self.place(word);
            let segment = match at_hand {
                Some((had, segment)) if had == number => segment,
                _ => at_hand.insert((number, self.segment(number)?)).1,
            };
            segment.word(self.heap, at * 8)
        })
    }

    /// Calls `f` with the words `from..to`, piece by piece, and the number of each piece's first.
    pub(crate) fn pieces(
        &self,
        from: u64,
        to: u64,
        mut f: impl FnMut(u64, &'static [AtomicU64]) -> Result<()>,
    ) -> Result<()> {
        let mut at = from;
        while at < to {
            let (piece, _) = self.piece(at)?;
            let piece = &piece[..piece.len().min((to - at) as usize)];
            f(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Sets all words that the spine was built for to zero. The caller owns it.
    pub(crate) fn zero(&self) -> Result<()> {
        self.pieces(0, self.items() * self.stride(), |_, piece| {
            piece.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            Ok(())
        })
    }

    /// Copies `count` words of `source` from its word `from` to this spine's word `to`. What is copied
    /// is owned by neither or by `source` until a record says otherwise.
    pub(crate) fn copy_from(&self, source: &Spine, from: u64, to: u64, count: u64) -> Result<()> {
        source.pieces(from, from + count, |first, piece| {
            let to = to + (first - from);
            self.pieces(to, to + piece.len() as u64, |first, target| {
                let skip = (first - to) as usize;
                for (target, source) in target.iter().zip(&piece[skip..]) {
                    target.store(source.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                Ok(())
            })
        })
    }
}

/// Frees the items that a spine owns, then its segments. May be called again after it was cut short.
pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let spine = Spine::of(heap, block)?;
    let (owned, stride) = (spine.owned(), spine.stride());
    for segment in 0..spine.directory_len() {
        let cell = spine.directory_cell(segment)?;
        let Some(id) = BlockId::from_bits(cell.load(Ordering::Acquire)) else { continue };
        if owned.len() > 0 {
            let part = heap.block(id)?;
            let first = segment * SEGMENT_WORDS;
            let words = (part.len() / 8).min(SEGMENT_WORDS);
            // Items never straddle: segments of more than one item have an even number of words.
            let from = (owned.from * stride).max(first);
            let to = (owned.to * stride).min(first + words);
            for word in (from..to).step_by(stride as usize) {
                object::release(heap, seat, part.word(heap, (word - first) * 8)?)?;
                reach(KillPoint::SpineItemFreed);
            }
        }
        object::release(heap, seat, cell)?;
    }
    Ok(())
}
