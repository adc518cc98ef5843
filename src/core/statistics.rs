//! What happened, counted without anybody waiting for anybody.
//!
//! Each backend has a slot of its own, on lines of its own, and is the only one that writes there: counting is a
//! plain load and store. Whoever wants the totals adds up the slots, which are each right and together
//! as old as the reading takes.

use crate::layout::{Layout, SLOT_WORDS};
use crate::region::Region;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// A value was found and served.
    Hit,
    /// No entry of that key.
    MissAbsent,
    /// The entry's time was over.
    MissExpired,
    /// Something the entry depends on has changed, or is about to.
    MissFenced,
    /// The reader had itself changed something the entry depends on.
    MissOwn,
    /// The tier, or the shard, is switched off.
    MissOff,
    /// A read had to be repeated because a writer got in its way.
    Retry,
    /// A value was stored.
    Stored,
    /// A value was not stored for want of room.
    RefusedFull,
    /// A value was not stored because it is larger than the tier takes.
    RefusedSize,
    /// An entry was removed because it was told to.
    Removed,
    /// An entry went because its time was over.
    Expired,
    /// An entry went because something it depends on had changed.
    Fenced,
    /// An entry that was still right went to make room.
    Evicted,
    /// Such an entry, out of the small queue: as a rule nobody had ever asked for it. What nobody asked for in the main queue is
    /// not among them.
    EvictedUnread,
}

impl Counter {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Hit,
        Self::MissAbsent,
        Self::MissExpired,
        Self::MissFenced,
        Self::MissOwn,
        Self::MissOff,
        Self::Retry,
        Self::Stored,
        Self::RefusedFull,
        Self::RefusedSize,
        Self::Removed,
        Self::Expired,
        Self::Fenced,
        Self::Evicted,
        Self::EvictedUnread,
    ];
}

const _: () = assert!(Counter::ALL.len() <= SLOT_WORDS);

/// The slot of one backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'m> {
    region: Region<'m>,
    at: usize,
}

impl<'m> Slot<'m> {
    /// The slot of a backend. A number without a slot counts into the last one, inexactly.
    pub(crate) fn of(region: Region<'m>, layout: &Layout, backend: u32) -> Self {
        let slot = backend.min(layout.sizes.counters.saturating_sub(1)) as usize;
        Self { region, at: layout.counters_at + slot * SLOT_WORDS }
    }

    #[inline]
    pub(crate) fn count(&self, what: Counter) {
        self.count_many(what, 1);
    }

    #[inline]
    pub(crate) fn count_many(&self, what: Counter, times: usize) {
        let at = self.at + what as usize;
        self.region.store(at, self.region.load(at).wrapping_add(times as u64));
    }
}

/// The sum of all slots.
pub(crate) fn total(region: &Region<'_>, layout: &Layout, what: Counter) -> u64 {
    (0..layout.sizes.counters as usize)
        .map(|slot| region.load(layout.counters_at + slot * SLOT_WORDS + what as usize))
        .fold(0, u64::wrapping_add)
}
