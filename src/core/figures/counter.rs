//! The events that are counted for each *space*, a set of keys in one database. `statistics.rs` keeps the counts. The tier counts
//! most events itself; the comment of an event says if the caller must do it.
//!
//! A *dependency* of an entry is what makes its value wrong when it changes. A *shard* is a part of the tier, the cache, with a
//! lock of its own. A *lease* and a *claim* are rights to set a key (`tier/flight.rs`). The *saver* copies entries to a place
//! outside of the memory (`tier/saving.rs`). A saved value that becomes an entry again is *promoted*. The *quota* of a space limits
//! its bytes (`tier/quota.rs`).
//!
//! A *tracked* reader must not get values of relations, because the server must see that it reads them. A change of a key is
//! *announced* while its transaction commits. A lease is *void* after a change of its key.

use crate::layout::ROW_WORDS;

/// The events that are counted. Their order matters: [`Counter::ALL`] repeats it, and the ways in which an entry ends stand
/// together, from `Replaced` to `EvictedQuota`, followed by `EvictedUnread` (`GONE` below, and `deltas.rs`). The numbers are places
/// in shared memory, so a new counter that does not come last needs a new version of the layout (`layout.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// A value was found and served.
    Hit,
    /// A key had no entry.
    MissAbsent,
    /// An entry had expired.
    MissExpired,
    /// A dependency of the entry had changed, or was about to change.
    MissFenced,
    /// The reader itself had changed a dependency of the entry, or it was tracked ([`Reader::tracked`](crate::Reader::tracked)) and
    /// the entry depended on a relation.
    MissOwn,
    /// The shard was switched off, or the entry was damaged.
    MissOff,
    /// A read was repeated because a writer disturbed it.
    Retry,
    /// A value was stored.
    Stored,
    /// A value was not made visible. Either the key had a value already, or the lease or claim was void or had ended. Or the value
    /// was not right as of its commit (`fence/mod.rs`, *set and fence*), or the shard was switched off.
    Dropped,
    /// A value was not stored because not enough blocks were free or could be freed.
    RefusedFull,
    /// A value was not stored because it is larger than the tier takes.
    RefusedSize,
    /// A value was not stored because the space had reached its quota.
    RefusedQuota,
    /// A value was not stored because the shard was switched off.
    RefusedOff,
    /// A value was not stored because its transaction held back too much already. The caller must
    /// [note](crate::Tier::count_for_space) it.
    RefusedTransaction,
    /// Microseconds that hits have saved. The caller must [note](crate::Tier::count_for_space) them.
    Saved,
    /// An entry was replaced by another value of its key, whether it was still right or not.
    Replaced,
    /// An entry was removed on request, or because an announced change of its key (`tier/publishing.rs`) was confirmed without a
    /// new value.
    Removed,
    /// An entry was removed because it had expired.
    Expired,
    /// An entry was removed because a dependency had changed.
    Fenced,
    /// An entry that was still right was evicted to free blocks, or left the memory because a copy of it was saved.
    Evicted,
    /// An entry that was still right was evicted because its space had reached its quota.
    EvictedQuota,
    /// An entry that was still right was evicted from the small queue to free blocks: as a rule no reader had ever asked for it.
    /// Such an entry is also counted as `Evicted`. Unread entries that are evicted from the main queue are not counted here.
    EvictedUnread,
    /// A saved value was served to a reader whose key had no entry in memory. The caller must [count](crate::Tier::count_saved_hit)
    /// it.
    HitSaved,
    /// A saved value became an entry again.
    Promoted,
    /// A query was run because its result was not found or had to be renewed, and its result was stored. This counter and those
    /// below must be [noted](crate::Tier::count_for_space) by the caller.
    Filled,
    /// A query was run because its result was not found or had to be renewed, but its result was not stored.
    FilledUnstored,
    /// Microseconds that the queries of `Filled` and `FilledUnstored` took.
    FillTime,
    /// A call has waited for another session that computes the value.
    Waited,
    /// Microseconds of these waits.
    WaitTime,
    /// A value was served that was no longer valid.
    Stale,
    /// Milliseconds for which these values had not been known to be valid.
    StaleTime,
}

impl Counter {
    /// All counters, in the order of their numbers.
    pub const ALL: [Self; 31] = [
        Self::Hit,
        Self::MissAbsent,
        Self::MissExpired,
        Self::MissFenced,
        Self::MissOwn,
        Self::MissOff,
        Self::Retry,
        Self::Stored,
        Self::Dropped,
        Self::RefusedFull,
        Self::RefusedSize,
        Self::RefusedQuota,
        Self::RefusedOff,
        Self::RefusedTransaction,
        Self::Saved,
        Self::Replaced,
        Self::Removed,
        Self::Expired,
        Self::Fenced,
        Self::Evicted,
        Self::EvictedQuota,
        Self::EvictedUnread,
        Self::HitSaved,
        Self::Promoted,
        Self::Filled,
        Self::FilledUnstored,
        Self::FillTime,
        Self::Waited,
        Self::WaitTime,
        Self::Stale,
        Self::StaleTime,
    ];

    /// The counters of the ways in which an entry ends. Each stored or promoted entry ends in exactly one of them, or still exists.
    const GONE: std::ops::RangeInclusive<usize> = Self::Replaced as usize..=Self::EvictedQuota as usize;
}

// A row of counts must have a word for each counter.
const _: () = assert!(Counter::ALL.len() <= ROW_WORDS);

/// The counts of a space, by the number of the counter. The words after the last counter are 0.
pub(crate) type Counts = [u64; ROW_WORDS];

/// Returns how many entries exist: the stored and promoted ones minus those that have ended.
pub(crate) fn entries(counts: &Counts) -> u64 {
    let gone = counts[Counter::GONE].iter().fold(0, |sum: u64, count| sum.wrapping_add(*count));
    let begun = counts[Counter::Stored as usize].wrapping_add(counts[Counter::Promoted as usize]);
    not_negative(begun.wrapping_sub(gone))
}

/// Returns 0 instead of a negative difference. Counts are read while other backends work, so an entry's end may be read before its
/// storing.
pub(super) fn not_negative(difference: u64) -> u64 {
    (difference as i64).max(0) as u64
}
