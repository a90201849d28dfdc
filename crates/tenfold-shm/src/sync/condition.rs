//! A place to wait for a change that a lock guards.
//!
//! ```text
//!  ┌ internal lock ┬ user lock ┬ next ticket ┬ waiting ┬ chunk 0 ┬ … ┬ 8 nodes ┐
//!                     │ counted reference                  └▶ ┌ 16 nodes ┐  ┌ 32 nodes ┐ …
//!  node ┌ waiter · phase ┬ ticket ┬ bell ┐
//! ```
//!
//! Each waiter has a node with its identity, a ticket that says in which order they came, and a
//! bell of its own to sleep on. `notify(n)` marks the `n` waiting nodes with the lowest tickets and
//! rings their bells: exactly so many return, the longest waiting first. A node is in use from
//! before its waiter lets go of the user lock until it has that lock back.
//!
//! *Killed here:* waiting: the sweep frees the node. Marked, but not back with the lock: the sweep
//! passes the mark on to the next, in one redo record. Between mark and bell: the marked one looks
//! at its node after a slice. Between two marks of one `notify`: those that are marked stay so.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tenfold_sys::clock::Deadline;
use tenfold_sys::futex;

use super::peers::sweep_now_and_then_thoroughly;
use super::wait_point::LONG;
use super::{Acquired, SyncError, SyncResult, UserLock};
use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, BlockId, Heap, Shared};
use crate::internal_lock::{Guard, InternalLock, Store};
use crate::kill_point::{KillPoint, reach};
use crate::object::{self, Handle, ObjectKind};
use crate::participant::{self, Death, Identity, Seat};

/// Nodes in the object itself.
const INLINE: usize = 8;
/// Further chunks: 16 nodes, doubled each time; 65 520 in all.
const CHUNKS: usize = 12;
const FIRST_CHUNK: usize = 16;
/// Nodes that are marked under one hold of the internal lock.
const AT_ONCE: usize = 16;
/// The bell's bit that says that its waiter sleeps, or is about to.
const ASLEEP: u32 = 1;
/// Looks before a waiter sleeps.
const SPINS: u32 = 100;
const FIRST_SLICE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting = 1,
    Marked = 2,
}

#[repr(C)]
struct Node {
    /// `identity of the waiter:32 | phase:32`, 0 while nobody uses it.
    state: AtomicU64,
    ticket: AtomicU64,
    /// Moves when the waiter is marked; [`ASLEEP`] says that it has to be woken.
    bell: AtomicU32,
    spare: AtomicU32,
    padding: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Node {}
const _: () = assert!(size_of::<Node>() == 32);

/// A node's state, taken apart; `None` if nobody uses it.
fn split(state: u64) -> Option<(Identity, Phase)> {
    let phase = match state as u32 {
        1 => Phase::Waiting,
        2 => Phase::Marked,
        _ => return None,
    };
    Some((Identity::from_bits((state >> 32) as u32)?, phase))
}

fn join(waiter: Identity, phase: Phase) -> u64 {
    u64::from(waiter.bits()) << 32 | phase as u64
}

#[repr(C)]
struct ConditionObject {
    lock: InternalLock,
    user_lock: AtomicU64,
    next_ticket: AtomicU64,
    /// Nodes that are waiting and not marked.
    waiting: AtomicU64,
    chunks: [AtomicU64; CHUNKS],
    nodes: [Node; INLINE],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for ConditionObject {}

/// A place to wait for a change, with the lock that guards what changes.
#[derive(Debug, Clone)]
pub struct Condition {
    handle: Handle,
    shared: At<ConditionObject>,
    lock: UserLock,
}

/// How a wait for a condition ended. The user lock is held again in any case.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionWait {
    /// Whether this waiter was notified before the deadline.
    pub notified: bool,
    /// How the user lock was taken back.
    pub acquired: Acquired,
}

impl Condition {
    /// A condition for `lock`, which others may use too.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, lock: UserLock) -> Result<Condition> {
        let bytes = size_of::<ConditionObject>() as u64;
        let handle = Handle::create(heap, ObjectKind::Condition, bytes, |_| Ok(()))?;
        let shared = handle.view::<ConditionObject>()?;
        lock.handle().refer_from(shared.field(|s| &s.user_lock))?;
        Ok(Condition { handle, shared, lock })
    }

    /// The condition behind a handle.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle) -> Result<Condition> {
        let handle = handle.expect(ObjectKind::Condition)?;
        let shared = handle.view::<ConditionObject>()?;
        let lock = UserLock::from_handle(Handle::from_cell(handle.heap(), shared.field(|s| &s.user_lock))?)?;
        Ok(Condition { handle, shared, lock })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The lock.
    pub fn lock(&self) -> &UserLock {
        &self.lock
    }

    /// Lets go of the lock, waits to be notified, or until the deadline, and takes the lock back as
    /// often as this thread had it.
    ///
    /// # Errors
    /// [`SyncError::NotOwner`] if this thread does not hold the lock; if the heap has no room for
    /// the waiter.
    pub fn wait(&self, deadline: Deadline) -> SyncResult<ConditionWait> {
        if !self.lock.is_mine()? {
            return Err(SyncError::NotOwner);
        }
        let waiter = self.enlist()?;
        let how = self.lock.let_go()?;
        let slept = waiter.sleep(deadline);
        let acquired = self.lock.take_back(how, Deadline::never())?;
        slept?;
        Ok(ConditionWait { notified: waiter.leave()?, acquired })
    }

    /// Enters the list of waiters, which the caller does before it lets go of the lock.
    ///
    /// # Errors
    /// If the heap has no room for the waiter.
    pub fn enlist(&self) -> Result<Waiter<'_>> {
        let heap = self.handle.heap();
        let seat = participant::seat(heap)?;
        let shared = self.shared;
        let guard = shared.field(|s| &s.lock).lock_from(heap, seat)?;
        let node = match self.find(heap, |state| split(state).is_none())? {
            Some(node) => node,
            None => self.grow(&guard, heap, seat)?,
        };
        let ticket = shared.next_ticket.load(Ordering::Relaxed);
        node.bell.store(node.bell.load(Ordering::Relaxed) & !ASLEEP, Ordering::Relaxed);
        guard.commit([
            Store::new(node.field(|n| &n.ticket), ticket),
            Store::new(node.field(|n| &n.state), join(seat.identity(), Phase::Waiting)),
            Store::new(shared.field(|s| &s.next_ticket), ticket.wrapping_add(1)),
            Store::new(shared.field(|s| &s.waiting), shared.waiting.load(Ordering::Relaxed).wrapping_add(1)),
        ]);
        drop(guard);
        reach(KillPoint::ConditionEnlisted);
        Ok(Waiter { condition: self, node, identity: seat.identity(), enlisted: true })
    }

    fn find(&self, heap: Heap, wanted: impl Fn(u64) -> bool) -> Result<Option<At<Node>>> {
        let mut found = None;
        each_node(heap, self.shared, |node| {
            let hit = wanted(node.state.load(Ordering::Relaxed));
            if hit {
                found = Some(node);
            }
            !hit
        })?;
        Ok(found)
    }

    /// All nodes are in use: makes more, and returns one of them.
    fn grow(&self, guard: &Guard, heap: Heap, seat: Seat) -> Result<At<Node>> {
        let free = |chunk: &usize| self.shared.chunks[*chunk].load(Ordering::Relaxed) == 0;
        let Some(chunk) = (0..CHUNKS).find(free) else {
            let most = (INLINE + FIRST_CHUNK * ((1 << CHUNKS) - 1)) as u64;
            return Err(HeapError::TooLarge { bytes: (most + 1) * size_of::<Node>() as u64, limit: most });
        };
        let bytes = ((FIRST_CHUNK << chunk) * size_of::<Node>()) as u64;
        let transit = seat.transit(0);
        let block = heap.take(seat, bytes, ObjectKind::Bytes, transit)?;
        if let Err(error) = block.zero(heap, u64::MAX) {
            heap.give_back(seat, block.id(), transit)?;
            return Err(error);
        }
        let cell = self.shared.field(|s| &s.chunks[chunk]);
        guard.commit([Store::new(cell, block.id().bits()), Store::new(transit, 0)]);
        block.view(heap, 0)
    }

    /// Notifies the `count` waiters that have waited longest. Returns how many there were.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn notify(&self, count: usize) -> Result<usize> {
        if self.shared.waiting.load(Ordering::Acquire) == 0 {
            return Ok(0);
        }
        let heap = self.handle.heap();
        let before = self.shared.next_ticket.load(Ordering::Acquire);
        let mut marked = 0;
        while marked < count {
            let batch = self.mark(heap, (count - marked).min(AT_ONCE), before)?;
            let rung = batch.iter().flatten().count();
            reach(KillPoint::ConditionMarked);
            batch.into_iter().flatten().for_each(|node| ring(heap, node));
            marked += rung;
            if rung == 0 {
                break;
            }
        }
        Ok(marked)
    }

    /// Notifies all waiters. Returns how many there were.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn notify_all(&self) -> Result<usize> {
        self.notify(usize::MAX)
    }

    fn mark(&self, heap: Heap, count: usize, before: u64) -> Result<[Option<At<Node>>; AT_ONCE]> {
        let guard = self.shared.field(|s| &s.lock).lock(heap)?;
        let first = first_waiting(heap, self.shared, count, before)?;
        for node in first.iter().flatten() {
            mark(&guard, self.shared, *node);
        }
        Ok(first)
    }

    /// How many wait and are not notified.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Sweeps the process of a waiter that has been marked and does not come back, if it is dead.
    fn look_after_marked(&self, own: Identity, looks: u32) -> Result<()> {
        let heap = self.handle.heap();
        let missing = {
            let _guard = self.shared.field(|s| &s.lock).lock(heap)?;
            let mut missing = None;
            each_node(heap, self.shared, |node| {
                match split(node.state.load(Ordering::Relaxed)) {
                    Some((waiter, Phase::Marked)) if waiter.slot() != own.slot() => missing = Some(waiter),
                    _ => {}
                }
                missing.is_none()
            })?;
            missing
        };
        if let Some(waiter) = missing {
            sweep_now_and_then_thoroughly(heap, waiter.slot() + 1, looks);
        }
        Ok(())
    }
}

/// Calls `f` with each node until it says `false`. The caller holds the condition's lock.
fn each_node(heap: Heap, shared: At<ConditionObject>, mut f: impl FnMut(At<Node>) -> bool) -> Result<()> {
    for index in 0..INLINE {
        if !f(shared.field(|s| &s.nodes[index])) {
            return Ok(());
        }
    }
    for chunk in 0..CHUNKS {
        let Some(id) = BlockId::from_bits(shared.chunks[chunk].load(Ordering::Acquire)) else { break };
        let block = heap.block(id)?;
        for index in 0..FIRST_CHUNK << chunk {
            if !f(block.view(heap, (index * size_of::<Node>()) as u64)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The first `count` nodes that wait, by their tickets, of those given out before `before`.
fn first_waiting(
    heap: Heap,
    shared: At<ConditionObject>,
    count: usize,
    before: u64,
) -> Result<[Option<At<Node>>; AT_ONCE]> {
    let mut first: [Option<(u64, At<Node>)>; AT_ONCE] = [None; AT_ONCE];
    let first = &mut first[..count.min(AT_ONCE)];
    each_node(heap, shared, |node| {
        let waiter = split(node.state.load(Ordering::Relaxed));
        let ticket = node.ticket.load(Ordering::Relaxed);
        let lives = matches!(waiter, Some((who, Phase::Waiting)) if who.is_current(heap));
        if lives && ticket < before {
            // Sorted insertion; what is beyond the end is for a later batch.
            let mut candidate = Some((ticket, node));
            for place in first.iter_mut() {
                if place.is_none_or(|(other, _)| candidate.is_some_and(|(mine, _)| mine < other)) {
                    core::mem::swap(place, &mut candidate);
                }
                if candidate.is_none() {
                    break;
                }
            }
        }
        true
    })?;
    let mut nodes = [None; AT_ONCE];
    for (node, place) in nodes.iter_mut().zip(first.iter()) {
        *node = place.map(|(_, node)| node);
    }
    Ok(nodes)
}

fn marked(node: At<Node>) -> u64 {
    (node.state.load(Ordering::Relaxed) >> 32 << 32) | Phase::Marked as u64
}

fn one_less(shared: At<ConditionObject>) -> Store {
    Store::new(shared.field(|s| &s.waiting), shared.waiting.load(Ordering::Relaxed).saturating_sub(1))
}

fn mark(guard: &Guard, shared: At<ConditionObject>, node: At<Node>) {
    guard.commit([Store::new(node.field(|n| &n.state), marked(node)), one_less(shared)]);
}

/// Moves a marked waiter's bell, and wakes the waiter if it sleeps. Returns `false` if it said so
/// and did not: it is dead, or about to sleep and will see the mark.
fn wake(node: At<Node>) -> bool {
    let moved = |bell: u32| Some(bell.wrapping_add(2) & !ASLEEP);
    let before = node.bell.fetch_update(Ordering::AcqRel, Ordering::Relaxed, moved).unwrap_or_default();
    before & ASLEEP == 0 || futex::wake(&node.get().bell, 1) > 0
}

/// Rings a marked waiter's bell.
fn ring(heap: Heap, node: At<Node>) {
    if !wake(node) {
        // If it is dead, its mark belongs to the next.
        if let Some((waiter, Phase::Marked)) = split(node.state.load(Ordering::Acquire)) {
            participant::sweep_if_dead(heap, waiter.slot() + 1);
        }
    }
}

/// A place in a condition's list. Left on drop.
#[derive(Debug)]
pub struct Waiter<'a> {
    condition: &'a Condition,
    node: At<Node>,
    identity: Identity,
    enlisted: bool,
}

impl Waiter<'_> {
    /// Sleeps until notified or until the deadline. Returns whether it was notified.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn sleep(&self, deadline: Deadline) -> Result<bool> {
        let bell = &self.node.get().bell;
        let (mut slice, mut looks) = (FIRST_SLICE, 0);
        for _ in 0..SPINS {
            if self.is_marked() {
                break;
            }
            core::hint::spin_loop();
        }
        loop {
            let seen = bell.load(Ordering::Acquire);
            if self.is_marked() {
                reach(KillPoint::ConditionWoken);
                return Ok(true);
            }
            if deadline.expired() {
                return Ok(false);
            }
            let asleep = seen | ASLEEP;
            if seen != asleep && bell.compare_exchange(seen, asleep, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            if futex::wait(bell, asleep, deadline.min(Deadline::after(slice))) == futex::Wait::TimedOut {
                slice = (slice * 2).min(LONG);
                looks += 1;
                self.condition.look_after_marked(self.identity, looks)?;
            }
        }
    }

    fn is_marked(&self) -> bool {
        self.node.state.load(Ordering::Acquire) == join(self.identity, Phase::Marked)
    }

    /// Leaves the list. Returns whether this waiter was notified, be it in the last moment.
    ///
    /// # Errors
    /// If the heap is corrupt.
    pub fn leave(mut self) -> Result<bool> {
        self.unlink()
    }

    fn unlink(&mut self) -> Result<bool> {
        if !core::mem::replace(&mut self.enlisted, false) {
            return Ok(false);
        }
        let shared = self.condition.shared;
        let guard = shared.field(|s| &s.lock).lock(self.condition.handle.heap())?;
        let notified = self.is_marked();
        let state = self.node.field(|n| &n.state);
        if notified {
            state.store(0, Ordering::Release);
        } else if state.load(Ordering::Relaxed) == join(self.identity, Phase::Waiting) {
            guard.commit([Store::new(state, 0), one_less(shared)]);
        }
        Ok(notified)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // If the heap is corrupt there is nobody to tell; the node is then lost.
        let _ = self.unlink();
    }
}

pub(super) fn owner_died(heap: Heap, seat: Seat, death: &Death, block: Block) -> Result<()> {
    let shared = block.view::<ConditionObject>(heap, 0)?;
    let dead = |node: At<Node>| {
        split(node.state.load(Ordering::Relaxed)).filter(|(who, _)| who.slot() == death.slot).map(|(_, phase)| phase)
    };
    loop {
        let guard = shared.field(|s| &s.lock).lock_from(heap, seat)?;
        // First those that wait, so that no mark is passed to them.
        let mut marked_one = None;
        each_node(heap, shared, |node| {
            match dead(node) {
                Some(Phase::Waiting) => guard.commit([Store::new(node.field(|n| &n.state), 0), one_less(shared)]),
                Some(Phase::Marked) => marked_one = Some(node),
                None => {}
            }
            true
        })?;
        let Some(node) = marked_one else { return Ok(()) };
        let next = first_waiting(heap, shared, 1, u64::MAX)?[0];
        match next {
            Some(next) => guard.commit([
                Store::new(node.field(|n| &n.state), 0),
                Store::new(next.field(|n| &n.state), marked(next)),
                one_less(shared),
            ]),
            None => node.state.store(0, Ordering::Release),
        }
        drop(guard);
        if let Some(next) = next {
            wake(next);
        }
    }
}

pub(crate) fn dismantle(heap: Heap, seat: Seat, block: Block) -> Result<()> {
    let shared = block.view::<ConditionObject>(heap, 0)?;
    for chunk in 0..CHUNKS {
        object::release(heap, seat, shared.field(|s| &s.chunks[chunk]))?;
    }
    object::release(heap, seat, shared.field(|s| &s.user_lock))
}
