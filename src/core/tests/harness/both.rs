//! The tier and the model, side by side: one action changes both. A *tier* is a cache in memory that several processes share. An
//! *announced* change of a key hides the key's value until the change is confirmed (`tier/publishing.rs`).

use super::action::{Action, SPACES};
use super::expectations::{expect, expect_stale};
use super::model::{Known, Model};
use pg_cache_core::testing::TestHost;
use pg_cache_core::{AnnouncedPattern, Lease, Reservation, Tier};

/// Operations that were begun and have not ended, each with its key. The oldest is the first of its list, and ends first.
#[derive(Default)]
pub struct Begun {
    /// Values that are written and not published.
    pub reserved: Vec<(u8, Known, Reservation)>,
    /// Announced changes. The value is None for a removal.
    pub announced: Vec<(u8, Option<Known>, Reservation)>,
    /// Leases and fills.
    pub leases: Vec<(u8, Lease)>,
    /// Claims, by their IDs.
    pub claims: Vec<(u8, u64)>,
    /// Announced invalidations by a pattern.
    pub patterns: Vec<AnnouncedPattern>,
}

/// A tier, its model, and the operations under way.
pub struct Both<'a> {
    /// The tier under test.
    pub tier: &'a Tier<'a, &'a TestHost>,
    /// The host of the tier, whose clock the test sets.
    pub host: &'a TestHost,
    /// The model: the values that the tier may and must return.
    pub model: &'a mut Model,
    /// The operations under way.
    pub begun: &'a mut Begun,
    /// The tick at which the action begins.
    pub now: u32,
}

impl Both<'_> {
    /// Does an action on both. Panics if the outcomes differ.
    pub fn act(&mut self, action: &Action) {
        match *action {
            Action::PutWithin { key, size, quota } => self.put_within(key, size, quota.into()),
            Action::Trim { space, quota } => self.trim(space % SPACES, quota.into()),
            Action::CountInOtherSpace { space } => self.count_in_other_space(space),
            Action::ResetCounts { space } => self.reset_counts(space),
            Action::Put { key, size, tags, ttl, absent } => self.put(key, size, tags, ttl, absent),
            Action::Get { key } => expect(self.tier, self.model, key, self.now),
            Action::Remove { key } => self.remove(key),
            Action::Touch { key, ttl } => self.touch(key, ttl),
            Action::Incr { key, by } => self.incr(key, by),
            Action::Wait { ticks } => self.host.now.set(self.now + ticks),
            Action::Raise { tag } => self.raise(tag),
            Action::LowerOrWithdraw { tag, commit } => self.lower_or_withdraw(tag, commit),
            Action::Flush => self.flush(),
            Action::Sweep { budget } => self.sweep(budget),
            Action::Reserve { key, size } => self.reserve(key, size),
            Action::PublishOrCancel { publish } => self.publish_or_cancel(publish),
            Action::Announce { key, size, removal } => self.announce(key, size, removal),
            Action::EndTransaction { commit } => self.end_transaction(commit),
            Action::Acquire { key, hold } => self.acquire(key, hold),
            Action::EndLease { size, give_up } => self.end_lease(size, give_up),
            Action::PutStaleOk { key, size, tags, ttl, ticks } => {
                self.put_stale_ok(key, size, tags, ttl, ticks)
            }
            Action::GetStale { key } => expect_stale(self.tier, self.model, key, self.now),
            Action::Claim { key, second, removed } => self.claim(key, second, removed),
            Action::EndClaim { size, announced, give_up } => self.end_claim(size, announced, give_up),
            Action::Mark { shard, oldest } => self.mark(shard, oldest),
            Action::Locate { leave } => self.locate(leave),
            Action::Recycle => self.recycle(),
            Action::Promote { key } => self.promote(key),
            Action::AnnouncePattern { key, pattern } => self.announce_pattern(key, pattern),
            Action::EndPattern { commit } => self.end_pattern(commit),
            // `Harness::run` has done these: they replace the tier that `self` borrows.
            Action::Reattach | Action::Restart => {}
        }
    }
}
