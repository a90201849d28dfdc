//! The consumers' side.

use core::sync::atomic::Ordering;

use tenfold_sys::clock::Deadline;

use super::position::Position;
use super::segment::{self, BLOCK_WORDS, Found, RECORD_WORDS, Record, Words};
use super::waiters::Wake;
use super::{End, Queue, QueueError};
use crate::error::{HeapError, Result};
use crate::heap::{At, BlockId, Heap};
use crate::internal_lock::{Guard, Store};
use crate::kill_point::{KillPoint, reach};
use crate::message::{INLINE, Payload};
use crate::object;
use crate::participant::{HeldCell, Seat, seat};

/// Messages that one [`Queue::get_many`] takes at most before it lets others at the lock.
const RUN: usize = 256;
/// The transit cell for a segment that has been left.
const SEGMENT: usize = 4;

/// A message that has been taken out of the queue.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// Its bytes, which were few and had no handles with them.
    Short(&'a [u8]),
    /// Its payload in shared memory.
    Long(Payload),
}

impl Arrival<'_> {
    fn into_payload(self, heap: Heap) -> Payload {
        match self {
            Arrival::Short(bytes) => Payload::inline(heap, bytes),
            Arrival::Long(payload) => payload,
        }
    }
}

/// What stood at the head of the queue. Small, so that it stays in registers.
#[derive(Clone, Copy)]
enum Next {
    /// A short message, now copied out, of this length.
    Short(usize),
    /// A message in a block, which the ledger entry names now.
    Long,
    Nothing,
    /// A message in a block, for which the consumer has no ledger entry yet.
    Block,
    /// The end of the segment: it is to be left first.
    End,
    /// Nothing that makes sense; the consumer has the error.
    Failed,
}

impl Queue {
    /// Takes the first message. Blocks while the queue is empty and not closed.
    ///
    /// # Errors
    /// [`QueueError::TimedOut`] if there was no message before the deadline; [`QueueError::Closed`]
    /// if the queue is closed and drained; if the heap is corrupt.
    #[inline]
    pub fn get(&self, deadline: Deadline) -> core::result::Result<Payload, QueueError> {
        self.get_with(Some(deadline), |arrival| arrival.into_payload(self.heap()))
    }

    /// Takes the first message if there is one now.
    ///
    /// # Errors
    /// [`QueueError::Empty`]; [`QueueError::Closed`] if the queue is closed and drained; if the heap
    /// is corrupt.
    #[inline]
    pub fn try_get(&self) -> core::result::Result<Payload, QueueError> {
        self.get_with(None, |arrival| arrival.into_payload(self.heap()))
    }

    /// As [`Queue::get`] (or, without a deadline, [`Queue::try_get`]), and calls `f` with the
    /// message. No lock is held meanwhile. Faster for short messages, which are not copied again.
    ///
    /// # Errors
    /// As [`Queue::get`], [`Queue::try_get`].
    #[inline]
    pub fn get_with<R>(
        &self,
        deadline: Option<Deadline>,
        f: impl FnOnce(Arrival<'_>) -> R,
    ) -> core::result::Result<R, QueueError> {
        let mut words = Words::default();
        let arrival = match self.arrive(deadline, &mut words)? {
            Ok(len) => Arrival::Short(bytes_of(&words, len)),
            Err(payload) => Arrival::Long(payload),
        };
        Ok(f(arrival))
    }

    /// Takes the first message: the length of a short one, which is in `words` then, or the payload.
    #[inline(always)]
    fn arrive(
        &self,
        deadline: Option<Deadline>,
        words: &mut Words,
    ) -> core::result::Result<core::result::Result<usize, Payload>, QueueError> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let mut next = Next::Block;
        if !self.expects_block.load(Ordering::Relaxed) {
            let mut failure = None;
            next = self.take_first(heap, seat, &None, words, &mut failure)?;
            if let Next::Short(len) = next {
                return Ok(Ok(len));
            }
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
        self.arrive_slowly(heap, seat, deadline, next, words)
    }

    /// Takes what stands at the head, or says what is in the way.
    #[inline(always)]
    fn take_first(
        &self,
        heap: Heap,
        seat: Seat,
        entry: &Option<HeldCell>,
        words: &mut Words,
        failure: &mut Option<HeapError>,
    ) -> Result<Next> {
        let head = self.shape.field(|s| &s.head);
        // The guard stays where it is: moving it costs more than the lock.
        let (next, wake) = {
            let guard = head.field(|h| &h.lock).lock_from(heap, seat)?;
            let mut consumer = Consumer::new(self, heap, head, &guard, failure);
            (consumer.take(entry, words), consumer.wake)
        };
        head.waiters.send(wake);
        Ok(next)
    }

    /// What there is to do if the first message cannot be had at once as a short one: the payload, or
    /// the length of a short message that has come meanwhile.
    #[inline(never)]
    fn arrive_slowly(
        &self,
        heap: Heap,
        seat: Seat,
        deadline: Option<Deadline>,
        mut next: Next,
        words: &mut Words,
    ) -> core::result::Result<core::result::Result<usize, Payload>, QueueError> {
        let mut entry = None;
        loop {
            match (next, entry.take()) {
                (Next::Short(len), spare) => {
                    if spare.is_some() {
                        self.expects_block.store(false, Ordering::Relaxed);
                    }
                    return Ok(Ok(len));
                }
                (Next::Long, Some(cell)) => return Ok(Err(received(heap, cell)?)),
                (Next::Nothing, _) => self.wait_for_message(seat, deadline)?,
                (Next::End, _) => self.leave_segment(heap, seat)?,
                _ => {
                    entry = Some(HeldCell::take(heap)?);
                    self.expects_block.store(true, Ordering::Relaxed);
                }
            }
            let mut failure = None;
            next = self.take_first(heap, seat, &entry, words, &mut failure)?;
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
    }

    /// Takes up to `max` messages, in order, with few lock operations: as many as there are, but
    /// blocks until there is one.
    ///
    /// # Errors
    /// As [`Queue::get`]. An error behind the first message waits for the next call.
    pub fn get_many(&self, max: usize, deadline: Deadline) -> core::result::Result<Vec<Payload>, QueueError> {
        let mut payloads = Vec::new();
        self.get_many_with(max, deadline, |arrival| payloads.push(arrival.into_payload(self.heap())))?;
        Ok(payloads)
    }

    /// As [`Queue::get_many`], and calls `f` with each message. No lock is held meanwhile. Returns how many there
    /// were.
    ///
    /// # Errors
    /// As [`Queue::get_many`].
    #[inline]
    pub fn get_many_with(
        &self,
        max: usize,
        deadline: Deadline,
        mut f: impl FnMut(Arrival<'_>),
    ) -> core::result::Result<usize, QueueError> {
        let heap = self.heap();
        let seat = seat(heap)?;
        let (mut taken, mut run) = (0, Run::default());
        while taken < max {
            let next = match self.take_run(heap, seat, max - taken, &mut run) {
                Ok(next) => next,
                Err(error) if taken == 0 => return Err(error.into()),
                Err(_) => break,
            };
            taken += run.messages;
            run.each(|bytes| f(Arrival::Short(bytes)));
            match next {
                Behind::Block(payload) => {
                    taken += 1;
                    f(Arrival::Long(payload));
                }
                Behind::Unknown => {}
                Behind::Nothing if taken == 0 => self.wait_for_message(seat, Some(deadline))?,
                Behind::Nothing => break,
            }
        }
        Ok(taken)
    }

    /// Takes short messages to `run`, under one lock, or one in a block.
    #[inline(never)]
    fn take_run(&self, heap: Heap, seat: Seat, max: usize, run: &mut Run) -> Result<Behind> {
        // Nothing is allocated under the lock.
        run.empty_for(max.min(RUN).min(self.len().max(1) as usize));
        let mut entry = None;
        if self.expects_block.load(Ordering::Relaxed) {
            entry = Some(HeldCell::take(heap)?);
        }
        let head = self.shape.field(|s| &s.head);
        let mut failure = None;
        let (last, wake) = {
            let guard = head.field(|h| &h.lock).lock_from(heap, seat)?;
            let mut consumer = Consumer::new(self, heap, head, &guard, &mut failure);
            let mut last = consumer.take_shorts(run);
            if let (Next::Block, Some(_), 0) = (last, &entry, run.messages) {
                last = consumer.take(&entry, &mut Words::default());
            }
            (last, consumer.wake)
        };
        head.waiters.send(wake);
        if let Some(error) = failure {
            return Err(error);
        }
        match (last, entry) {
            (Next::Nothing, _) => return Ok(Behind::Nothing),
            (Next::Long, Some(cell)) => return Ok(Behind::Block(received(heap, cell)?)),
            (Next::Block, _) => self.expects_block.store(true, Ordering::Relaxed),
            (Next::End, _) => self.leave_segment(heap, seat)?,
            _ => {}
        }
        Ok(Behind::Unknown)
    }

    /// Goes on to the next segment, unless somebody else has meanwhile, and frees the one behind.
    #[cold]
    fn leave_segment(&self, heap: Heap, seat: Seat) -> Result<()> {
        let head = self.shape.field(|s| &s.head);
        let first = self.shape.field(|s| &s.first);
        let transit = seat.transit(SEGMENT);
        {
            let guard = head.field(|h| &h.lock).lock_from(heap, seat)?;
            let (now, at) = (head.now(), head.at.load(Ordering::Relaxed));
            // Without a message behind it, what looks like an end mark may be a leftover.
            if now.count() == self.shape.tail.now().count() || segment::record(heap, at, now)?.found(now)? != Found::End
            {
                return Ok(());
            }
            let next = BlockId::from_bits(segment::next(heap, at)?.load(Ordering::Acquire));
            let next = next.ok_or(HeapError::corrupt("chain of a queue", at))?;
            guard.commit([
                Store::new(first, next.bits()),
                Store::new(head.field(|h| &h.at), heap.block(next)?.offset()),
                Store::new(head.field(|h| &h.position), now.in_next_segment().bits()),
                Store::new(transit, first.load(Ordering::Relaxed)),
            ]);
        }
        reach(KillPoint::QueueSegmentLeft);
        object::release(heap, seat, transit)
    }
}

/// What comes behind a run of short messages.
enum Behind {
    /// This message, which has been taken, too.
    Block(Payload),
    /// There may be more.
    Unknown,
    Nothing,
}

/// Short messages that were taken together: of each a word with its length, and its bytes, in words.
#[derive(Default)]
struct Run {
    words: Vec<u64>,
    messages: usize,
    /// How many there is room for.
    room: usize,
}

impl Run {
    fn empty_for(&mut self, messages: usize) {
        self.words.clear();
        self.words.reserve(messages * RECORD_WORDS);
        (self.messages, self.room) = (0, messages);
    }

    #[inline]
    fn push(&mut self, record: At<Record>, len: usize) {
        self.words.push(len as u64);
        for word in record.inline(len) {
            self.words.push(word);
        }
        self.messages += 1;
    }

    fn each(&self, mut f: impl FnMut(&[u8])) {
        let mut rest = &self.words[..];
        while let Some((len, words)) = rest.split_first() {
            let (bytes, after) = words.split_at(len.div_ceil(8) as usize);
            f(&bytemuck::cast_slice(bytes)[..*len as usize]);
            rest = after;
        }
    }
}

/// The bytes of a short message.
#[inline(always)]
fn bytes_of(words: &Words, len: usize) -> &[u8] {
    &bytemuck::cast_slice(words)[..len.min(INLINE)]
}

/// The payload that `cell` names, as it came out of the queue.
fn received(heap: Heap, cell: HeldCell) -> Result<Payload> {
    let word = cell.word();
    let payload = Payload::held(heap, cell);
    if payload.is_err() {
        // No message: some process has written over the queue, and there is nothing to free.
        word.store(0, Ordering::Release);
    }
    payload
}

/// Who holds the head lock.
struct Consumer<'q> {
    queue: &'q Queue,
    heap: Heap,
    head: At<End>,
    guard: &'q Guard,
    failure: &'q mut Option<HeapError>,
    wake: Wake,
}

impl<'q> Consumer<'q> {
    #[inline(always)]
    fn new(
        queue: &'q Queue,
        heap: Heap,
        head: At<End>,
        guard: &'q Guard,
        failure: &'q mut Option<HeapError>,
    ) -> Consumer<'q> {
        Consumer { queue, heap, head, guard, failure, wake: Wake::NOBODY }
    }

    /// Takes the first message: a short one to `words`, a long one to `entry` if there is one.
    #[inline(always)]
    fn take(&mut self, entry: &Option<HeldCell>, words: &mut Words) -> Next {
        match self.try_take(entry, words) {
            Ok(next) => next,
            Err(error) => {
                *self.failure = Some(error);
                Next::Failed
            }
        }
    }

    #[inline(always)]
    fn try_take(&mut self, entry: &Option<HeldCell>, words: &mut Words) -> Result<Next> {
        let now = self.head.now();
        let Some((record, found)) = self.look(now)? else { return Ok(Next::Nothing) };
        match found {
            Found::Inline(len) => {
                record.read_inline(len, words);
                let after = now.after(segment::inline_words(len));
                self.head.position.store(after.bits(), Ordering::Release);
                self.taken(1);
                Ok(Next::Short(len))
            }
            Found::Block => {
                let Some(cell) = entry else { return Ok(Next::Block) };
                let id = record.block_cell().load(Ordering::Relaxed);
                self.guard.commit([
                    Store::new(self.head.field(|h| &h.position), now.after(BLOCK_WORDS).bits()),
                    Store::new(cell.word(), id),
                ]);
                self.taken(1);
                Ok(Next::Long)
            }
            Found::End => Ok(Next::End),
        }
    }

    /// Takes short messages, by one store, until the run is full or there is something else.
    fn take_shorts(&mut self, run: &mut Run) -> Next {
        let mut now = self.head.now();
        let last = loop {
            if run.messages == run.room {
                break Next::Short(0);
            }
            match self.look(now) {
                Ok(Some((record, Found::Inline(len)))) => {
                    run.push(record, len);
                    now = now.after(segment::inline_words(len));
                }
                Ok(Some((_, Found::Block))) => break Next::Block,
                Ok(Some((_, Found::End))) => break Next::End,
                Ok(None) => break Next::Nothing,
                // Told by the next call, if there are messages before it.
                Err(_) if run.messages > 0 => break Next::Short(0),
                Err(error) => {
                    *self.failure = Some(error);
                    break Next::Failed;
                }
            }
        };
        if run.messages > 0 {
            self.head.position.store(now.bits(), Ordering::Release);
            self.taken(run.messages as u64);
        }
        last
    }

    /// What stands at `now`, which is the head or will be; `None` if that is the tail.
    #[inline(always)]
    fn look(&self, now: Position) -> Result<Option<(At<Record>, Found)>> {
        if now.count() == self.head.other_as_seen().count() {
            let tail = self.queue.shape.tail.now();
            if now.count() == tail.count() {
                return Ok(None);
            }
            self.head.seen.store(tail.bits(), Ordering::Relaxed);
        }
        let at = self.head.at.load(Ordering::Relaxed);
        let record = segment::record(self.heap, at, now)?;
        Ok(Some((record, record.found(now)?)))
    }

    #[inline(always)]
    fn taken(&mut self, messages: u64) {
        reach(KillPoint::QueueTaken);
        if self.queue.is_bounded() {
            self.wake.0 = self.wake.0.saturating_add(self.head.waiters.notify(messages).0);
        }
    }
}
