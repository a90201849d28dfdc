//! What the heap contains, counted.

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;

use super::block::State;
use super::{Heap, class};
use crate::object::ObjectKind;

/// A count of the heap's contents. Exact when nothing else runs; otherwise each number is right at
/// some moment of the call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes of the blocks in use, rounded up to their size classes.
    pub live_bytes: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// Bytes taken from the system.
    pub committed_bytes: u64,
    /// The most bytes taken from the system at a time.
    pub high_water_bytes: u64,
    /// The limit on bytes taken from the system.
    pub limit_bytes: u64,
}

/// Blocks in use by who took them and what for.
pub type Census = BTreeMap<(u32, &'static str), u64>;

impl Heap {
    /// Counts what is in use.
    pub fn stats(self) -> Stats {
        let header = self.header();
        let mut stats = Stats {
            committed_bytes: header.committed.load(Ordering::Relaxed),
            high_water_bytes: header.high_water.load(Ordering::Relaxed),
            limit_bytes: header.limit.load(Ordering::Relaxed),
            ..Stats::default()
        };
        for index in 0..class::CLASSES {
            let live = self.class(index).live.load(Ordering::Acquire);
            stats.live_blocks += live;
            stats.live_bytes += live.saturating_mul(class::size_of_class(index));
        }
        stats
    }

    /// Counts the blocks in use by the slot of the process that took them and by kind. Walks all
    /// descriptors.
    pub fn census(self) -> Census {
        let mut census = Census::new();
        for index in 1..self.header().descriptors.load(Ordering::Acquire) {
            let Ok(descriptor) = self.descriptor(index) else { continue };
            let state = State::from_bits(descriptor.state.load(Ordering::Acquire));
            if let Some(kind) = ObjectKind::from_bits(state.kind) {
                *census.entry((u32::from(state.owner), kind.name())).or_default() += 1;
            }
        }
        census
    }

    /// Sets the limit on bytes taken from the system, for the whole family. What is in use stays.
    pub fn set_limit(self, bytes: u64) {
        self.header().limit.store(bytes, Ordering::Relaxed);
    }
}
