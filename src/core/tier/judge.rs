//! Judges entries: whether an entry can ever be served again. Evictions (`eviction.rs`), quotas (`quota.rs`), the sweep through all
//! entries (`removing.rs`), the census (`census.rs`) and the saver (`saving.rs`) ask this, always under the lock of the entry's
//! *shard*, the part of the tier that its key belongs to.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. A *pattern* invalidates all keys that
//! it matches (`patterns/mod.rs`). A *stale* value is not valid any more but may still be served to readers that accept one. A
//! *scope* is the database, the space (a set of keys in one database) and the role of a key. A *hold* is the time from acquiring to
//! releasing a lock. A *tick* is the unit of time, which the host of the tier chooses.

use super::Tier;

use super::entry::Entry;
use super::header::{Header, MAY_BE_STALE};
use crate::fence::Stamp;
use crate::figures::Counter;
use crate::host::Host;
use crate::key::Scope;

/// The most buckets that a walk looks through in one hold of a shard's lock. Waiting writers get the lock in between.
pub(crate) const BUCKETS_PER_HOLD: u32 = 64;

/// The steps of comparisons with patterns that a judge has at first: less than a millisecond. The sweep gets as many for each hold
/// of a shard's lock, and ends the hold when they are used up. An allocation and a quota have this number for all their holds
/// together. Without steps, a judge takes no pattern for the reason to remove an entry.
const STEPS_PER_HOLD: u32 = 1 << 18;

/// Decides for one entry after another whether it can ever be served again. It keeps the scope of the last entry, because the next
/// entry probably has the same one. It also keeps the tick at which it was made; a later tick would only find more entries useless.
pub(crate) struct Judge<'t, 'm, H> {
    /// The tier.
    tier: &'t Tier<'m, H>,
    /// The tick at which the judge was made.
    now: u32,
    /// The scope of the last entry.
    scope: Option<Scope>,
    /// The steps that are left for comparisons with patterns.
    steps: u32,
}

impl<'t, 'm, H: Host> Judge<'t, 'm, H> {
    pub(crate) fn new(tier: &'t Tier<'m, H>) -> Self {
        Self { tier, now: tier.host.now(), scope: None, steps: STEPS_PER_HOLD }
    }

    /// Allows as many steps for comparisons with patterns as at first. The sweep calls this each time after it has taken a lock.
    pub(crate) fn refill(&mut self) {
        self.steps = STEPS_PER_HOLD;
    }

    /// Allows this number of steps for comparisons with patterns instead.
    pub(crate) fn limit(&mut self, steps: u32) {
        self.steps = steps;
    }

    /// Returns whether steps are left.
    pub(crate) fn has_steps(&self) -> bool {
        self.steps > 0
    }

    /// Returns the scope of the entry's space. Only its fences are used, and they do not depend on the role.
    fn scope_of(&mut self, header: &Header) -> Scope {
        match self.scope {
            Some(scope) if scope.space_id() == header.space_id() => scope,
            _ => *self.scope.insert(self.tier.scope_of(header.database(), header.space(), header.role())),
        }
    }

    /// *Renews* an entry that is not useless: gives it a later stamp, if there are patterns later than the entry and none of them
    /// matches (`patterns/mod.rs`). `as_of` must have been read from the clock before. The caller must hold the lock of the entry's
    /// shard.
    pub(crate) fn renew(&mut self, entry: &Entry<'_>, header: &Header, as_of: Stamp) {
        let scope = self.scope_of(header);
        if self.tier.has_pattern_since(&scope, header.stamp(), Stamp::LATEST) {
            self.tier.renew_locked(entry, header, &scope, as_of, &mut self.steps);
        }
    }

    /// Returns why an entry will never be served again, or None if it still may be. The caller must hold the lock of the entry's
    /// shard. A change that is only pending does not count, because it may be withdrawn.
    pub(crate) fn is_useless(&mut self, entry: &Entry<'_>, header: &Header) -> Option<Counter> {
        let expired = header.expires() <= self.now;
        if expired && !header.has(MAY_BE_STALE) {
            return Some(Counter::Expired);
        }
        let tier = self.tier;
        let fences = tier.fences();
        let scope = self.scope_of(header);
        let has_changed = |fence| fences.has_changed_since(fence, header.stamp());
        // An entry that was flushed with its space or database is never served, not even stale.
        if scope.fences.into_iter().any(has_changed) {
            return Some(Counter::Fenced);
        }
        // Neither is an entry that a pattern has removed.
        if has_changed(scope.patterns) && tier.has_lost_to_pattern(entry, header, &mut self.steps) {
            return Some(Counter::Fenced);
        }
        let fenced = (0..header.dependency_count())
            .any(|index| has_changed(entry.dependency(&tier.layout, header, index)));
        match (expired, fenced) {
            (false, false) => None,
            _ if self.may_be_stale(entry, header, fenced) => None,
            (true, _) => Some(Counter::Expired),
            (false, true) => Some(Counter::Fenced),
        }
    }

    /// Whether an entry that is no longer valid may still be served stale.
    fn may_be_stale(&self, entry: &Entry<'_>, header: &Header, fenced: bool) -> bool {
        header.has(MAY_BE_STALE) && self.tier.stale_until(entry, header, fenced) > self.now
    }
}
