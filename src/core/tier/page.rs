//! The pages of a walk through all entries. A walk holds the lock of a shard for one page at a time, so other backends never wait
//! long. A *shard* is a part of the tier with a lock of its own, and a *bucket* is a list of its entries.

use super::Tier;
use super::judge::BUCKETS_PER_HOLD;
use crate::host::Host;
use std::ops::Range;

/// Some buckets of a shard, see [`Tier::page`].
pub(super) struct Page {
    /// The number of the shard.
    pub shard: u32,
    /// The numbers of the buckets in the shard.
    pub buckets: Range<u32>,
    /// The number of the bucket behind them, through all shards.
    pub next: u64,
}

impl<H: Host> Tier<'_, H> {
    /// Returns the buckets that a walk through all entries looks at under one lock, from bucket `from` on. The numbers of buckets
    /// run through all shards. None if there is no bucket with this number.
    pub(super) fn page(&self, from: u64) -> Option<Page> {
        let buckets = u64::from(self.layout.buckets);
        let shard = u32::try_from(from / buckets).ok().filter(|shard| *shard < self.layout.shards)?;
        let first = (from % buckets) as u32;
        let until = self.layout.buckets.min(first.saturating_add(BUCKETS_PER_HOLD));
        Some(Page { shard, buckets: first..until, next: from - u64::from(first) + u64::from(until) })
    }
}
