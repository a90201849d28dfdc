//! The list under its lock, and changes of its spine.

use core::sync::atomic::Ordering;

use super::Root;
use super::place::Place;
use crate::error::Result;
use crate::heap::{At, BlockId, Heap, Word};
use crate::internal_lock::{Guard, Store};
use crate::item::Transit;
use crate::kill_point::{KillPoint, reach};
use crate::spine::{Range, SEGMENT_WORDS, Spine};

const ROOM_MIN: u64 = 8;

/// The list under its lock.
pub(super) struct Locked {
    pub(super) heap: Heap,
    pub(super) root: At<Root>,
    pub(super) guard: Guard,
    pub(super) spine: Option<Spine>,
    pub(super) range: Range,
}

/// What a splice puts in.
pub(super) enum Added {
    None,
    /// A block that `cell` owns.
    One {
        id: BlockId,
        cell: Word,
    },
    /// All that a spine owns, from its first item on.
    Many(Spine),
}

impl Locked {
    pub(super) fn len(&self, len: u64) -> Store {
        Store::new(self.root.field(|r| &r.len), len)
    }

    pub(super) fn change(&self) -> Store {
        Store::new(self.root.field(|r| &r.changes), self.root.changes.load(Ordering::Relaxed).wrapping_add(1))
    }

    pub(super) fn clamp(&self, from: Place, to: Place) -> (u64, u64) {
        let len = self.range.len();
        let from = from.clamped(len);
        (from, to.clamped(len).max(from))
    }

    /// The cell of the item at `at`.
    #[inline]
    pub(super) fn word(&self, at: Place) -> Result<Option<Word>> {
        match (self.spine, at.index(self.range.len())) {
            (Some(spine), Some(at)) => spine.word(self.range.from + at).map(Some),
            _ => Ok(None),
        }
    }

    /// Makes room for `more` items at the end; if the spine must be replaced, the old one goes to
    /// `old`.
    #[inline]
    pub(super) fn with_room(&mut self, old: &Transit, more: u64) -> Result<Spine> {
        let seat = self.guard.seat();
        if let Some(spine) = self.spine {
            // Items that left at the front leave room there, which a copy gets back.
            let mut room = self.range.from < SEGMENT_WORDS.max(self.range.len() + more);
            // Segment by segment, since each is taken on its own.
            let mut next = self.range.to;
            let end = self.range.to + more;
            while room && next < end {
                let step = (next + SEGMENT_WORDS).min(end);
                room = spine.grow_in_place(seat, step - 1)?;
                next = step;
            }
            if room {
                return Ok(spine);
            }
        }
        self.rebuild(old, more)
    }

    #[cold]
    fn rebuild(&mut self, old: &Transit, more: u64) -> Result<Spine> {
        let len = self.range.len();
        // A spine of whole segments grows in place from then on.
        let spare = if len < SEGMENT_WORDS { len.max(ROOM_MIN) } else { 0 };
        let spine = Spine::build(self.heap, self.guard.seat(), old.word(), len + more.max(spare), 1)?;
        if let Some(before) = self.spine {
            spine.copy_from(&before, self.range.from, 0, len)?;
        }
        self.publish(old, spine, Range::new(0, len), Range::EMPTY, None);
        Ok(spine)
    }

    /// Makes `spine`, which `aside` names, the list's; `aside` then names the old one, which owns
    /// `left` of its items.
    fn publish(&mut self, aside: &Transit, spine: Spine, range: Range, left: Range, source: Option<Store>) {
        reach(KillPoint::ListSpineBuilt);
        let cell = self.root.field(|r| &r.spine);
        let (fresh, old) = (aside.word().load(Ordering::Relaxed), cell.load(Ordering::Relaxed));
        let new = Store::new(cell, fresh);
        let aside = Store::new(aside.word(), old);
        let owned = Store::new(spine.owned_word(), range.bits());
        // A list without a spine has nothing to give up; a source that is not there changes nothing.
        let given_up = self.spine.map_or(owned, |old| Store::new(old.owned_word(), left.bits()));
        self.guard.commit([new, aside, owned, given_up, source.unwrap_or(owned), self.len(range.len()), self.change()]);
        (self.spine, self.range) = (Some(spine), range);
    }

    /// Replaces `removed` items from number `at` on. The old spine, owning what was removed, goes to
    /// `old`.
    pub(super) fn splice(&mut self, old: &Transit, at: u64, removed: u64, added: &Added) -> Result<()> {
        let (len, Range { from, .. }) = (self.range.len(), self.range);
        let (count, source) = match added {
            Added::None => (0, None),
            Added::One { cell, .. } => (1, Some(Store::new(*cell, 0))),
            Added::Many(spine) => (spine.owned().len(), Some(Store::new(spine.owned_word(), Range::EMPTY.bits()))),
        };
        if count == 0 && removed == 0 {
            return Ok(());
        }
        let after = len - removed + count;
        // Who inserts at the front will do so again.
        let front = if at == 0 && count > 0 { (after / 2).max(ROOM_MIN) } else { 0 };
        let back = (after / 8).max(ROOM_MIN);
        let spine = Spine::build(self.heap, self.guard.seat(), old.word(), front + after + back, 1)?;
        if let Some(before) = self.spine {
            spine.copy_from(&before, from, front, at)?;
            spine.copy_from(&before, from + at + removed, front + at + count, len - at - removed)?;
        }
        match added {
            Added::None => {}
            Added::One { id, .. } => spine.word(front + at)?.store(id.bits(), Ordering::Relaxed),
            Added::Many(aside) => spine.copy_from(aside, 0, front + at, count)?,
        }
        let left = if removed == 0 { Range::EMPTY } else { Range::new(from + at, from + at + removed) };
        self.publish(old, spine, Range::new(front, front + after), left, source);
        Ok(())
    }

    /// Publishes a spine in which item number `n` is the one that was number `source(n)`.
    pub(super) fn reorder(&mut self, old: &Transit, source: impl Fn(u64) -> u64) -> Result<()> {
        let (Some(before), Range { from, to }) = (self.spine, self.range) else { return Ok(()) };
        let len = to - from;
        if len < 2 {
            return Ok(());
        }
        let spine = Spine::build(self.heap, self.guard.seat(), old.word(), len + len / 8, 1)?;
        spine.pieces(0, len, |first, piece| {
            for (at, target) in (first..).zip(piece) {
                target.store(before.word(from + source(at))?.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            Ok(())
        })?;
        self.publish(old, spine, Range::new(0, len), Range::EMPTY, None);
        Ok(())
    }
}
