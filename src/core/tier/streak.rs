//! The names of the two eviction queues, and streaks. A *streak* is some of the oldest entries of one queue, which are evicted
//! together in one hold of the lock: `eviction.rs` chooses them, `queues.rs` takes them out of the queue, and `freeing.rs` gives
//! their blocks back. A *hold* is the time from acquiring to releasing the lock of a *shard*, a part of the tier with a lock and
//! eviction queues of its own.

use super::entry::Entry;
use super::header::{CHAINED, Header, SPREAD};
use super::runs::NONE;
use crate::figures::Counter;

/// The two eviction queues of a shard: see `eviction.rs`. Every linked entry that is not hidden is in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Queue {
    Small,
    Main,
}

impl Queue {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Small => Self::Main,
            Self::Main => Self::Small,
        }
    }
}

/// The oldest entries of a queue, consecutive, which are evicted together.
pub(crate) struct Streak {
    /// The queue of the entries.
    pub queue: Queue,
    /// The entries. The first `count` of them are in use.
    victims: [Victim; Self::MOST],
    /// The number of entries.
    count: usize,
}

/// An entry to evict, and the parts of its header that the eviction needs.
#[derive(Clone, Copy)]
pub(crate) struct Victim {
    /// The first block.
    pub block: u32,
    /// The 32 bits of the key's hash that the entry keeps.
    pub hash: u32,
    /// Database and space in one word.
    pub space_id: u64,
    /// The number of blocks, without those that only links need.
    pub blocks: u32,
    /// Whether the entry lies in one run of this shard.
    pub whole: bool,
    /// Whether the entry may have blocks in other shards.
    pub spread: bool,
    /// `Evicted` if the entry is still of use, and otherwise the reason why it is of no use.
    pub why: Counter,
}

impl Victim {
    /// An empty slot.
    pub(crate) const NONE: Self = Self {
        block: NONE,
        hash: 0,
        space_id: 0,
        blocks: 0,
        whole: false,
        spread: false,
        why: Counter::Evicted,
    };

    pub(crate) fn is_of_space_of(&self, other: &Self) -> bool {
        self.space_id == other.space_id
    }
}

impl Streak {
    /// The most entries in a streak. The data that their eviction needs is prefetched for all of them at once. No hold evicts more
    /// entries (`EVICTIONS_PER_HOLD`).
    pub(crate) const MOST: usize = 32;

    /// Makes an empty streak.
    pub(super) fn of(queue: Queue) -> Self {
        Self { queue, victims: [Victim::NONE; Self::MOST], count: 0 }
    }

    pub(crate) fn victims(&self) -> &[Victim] {
        &self.victims[..self.count]
    }

    /// Returns how many blocks those victims have that were still of use.
    pub(crate) fn evicted_blocks(&self) -> u64 {
        let of_use = self.victims().iter().filter(|victim| victim.why == Counter::Evicted);
        of_use.map(|victim| u64::from(victim.blocks)).sum()
    }

    /// Appends an entry, with the reason if it is of no use. Returns whether the streak has room for another entry, up to `most`. A
    /// full streak ignores the entry.
    pub(super) fn push(
        &mut self,
        entry: &Entry<'_>,
        header: &Header,
        useless: Option<Counter>,
        most: usize,
    ) -> bool {
        if let Some(slot) = self.victims.get_mut(self.count) {
            *slot = Victim {
                block: entry.block,
                hash: header.hash(),
                space_id: header.space_id(),
                blocks: header.blocks(),
                whole: !header.has(CHAINED | SPREAD),
                spread: header.has(SPREAD),
                why: useless.unwrap_or(Counter::Evicted),
            };
            self.count += 1;
        }
        self.count < Self::MOST.min(most)
    }
}
