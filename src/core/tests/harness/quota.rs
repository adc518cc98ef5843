//! Actions within quotas, and on the figures of spaces. Each method does one action of `action.rs`, which explains the parameters,
//! on the tier and on the model, and asserts that the outcomes agree. A *tier* is a cache in memory that several processes share.
//! A *space* is a set of keys in one database; its *quota* limits the memory of its entries (`tier/quota.rs`).

use super::action::{OTHER_SPACES, SPACES};
use super::both::Both;
use super::expectations::{
    as_value, expect, expect_refusal, innocents, new_value, nothing_is_left_to_evict, published,
};
use super::keys::{space_of, with_key};
use pg_cache_core::{Counter, Quota, Refusal};

impl Both<'_> {
    /// Stores a value within a quota. If this counts no eviction and no refusal for lack of room, no other space may lose an
    /// entry. A full tier also makes room by removing useless entries of other spaces, and counts them as expired or
    /// fenced. So the check is left out if the test has counted any of these.
    pub fn put_within(&mut self, key: u8, size: usize, quota: u64) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        let known = new_value(model, key, size, 0, now + 30);
        let before = innocents(tier, space_of(key));
        let was_counted = tier.counted(Counter::Evicted) + tier.counted(Counter::RefusedFull);
        let outcome = with_key(tier, key, |key| {
            tier.reserve(key, &as_value(&known, &[]), Some(Quota { bytes: quota, budget: BUDGET }).into())
        });
        // From now on, entries of this space may be missing: see `may_forget`.
        model.trimmed[space_of(key) as usize] = true;
        if tier.counted(Counter::Evicted) + tier.counted(Counter::RefusedFull) == was_counted {
            let useless = |what| tier.counted(what) > 0;
            assert!(
                before == innocents(tier, space_of(key))
                    || useless(Counter::Expired)
                    || useless(Counter::Fenced),
                "another space had to make room"
            );
        }
        match outcome {
            Ok(reservation) => {
                let stats = tier.space_stats(1, space_of(key).into()).expect("it is used");
                assert!(stats.bytes() <= quota, "{} bytes, of {quota}", stats.bytes());
                let stored = with_key(tier, key, |key| tier.publish(key, reservation));
                published(tier, model, key, known, stored, false, now);
            }
            Err(Refusal::Quota) => {
                model.count_refusal(key, Refusal::Quota);
                // An entry of the harness takes far less than 400 bytes beside its value: its key has at most 151.
                if known.value.len() + 400 < quota as usize {
                    nothing_is_left_to_evict(tier, space_of(key));
                }
            }
            Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
        }
        expect(tier, model, key, now);
    }

    /// Evicts entries of a space until the space is within a quota.
    pub fn trim(&mut self, space: u8, quota: u64) {
        let (tier, model) = (self.tier, &mut *self.model);
        let scope = tier.scope(1, space.into(), 0);
        let before = innocents(tier, space);
        let done = tier.trim(&scope, quota, BUDGET);
        model.trimmed[space as usize] = true;
        assert_eq!(done, tier.used_bytes(&scope) <= quota);
        assert!(before == innocents(tier, space), "another space had to make room");
        if !done {
            nothing_is_left_to_evict(tier, space);
        }
    }

    /// Counts an event of a space that has no entries.
    pub fn count_in_other_space(&mut self, space: u8) {
        let tier = self.tier;
        let scope = tier.scope(1, 100 + u32::from(space % OTHER_SPACES), 0);
        tier.count_for_space(&scope, Counter::Saved, 1 + u64::from(space));
    }

    /// Resets the counts of a space. The model adds them to `forgotten`, because the totals of the tier are never reset. The
    /// counts of the relation belong to no space. They are reset together with those of space 0.
    pub fn reset_counts(&mut self, space: u8) {
        let (tier, model) = (self.tier, &mut *self.model);
        let space = space % SPACES;
        if let Some(stats) = tier.space_stats(1, space.into()) {
            for what in Counter::ALL {
                model.forgotten[what as usize] += stats.counted(what);
            }
        }
        tier.reset_stats(1, space.into());
        if space == 0 {
            model.relation.forgotten += tier.relation_stats(1).map(|stats| stats.killed).sum::<u64>();
            model.relation.changes = 0;
            tier.reset_relation_stats(1);
        }
        model.counts[space as usize] = Default::default();
    }
}

/// A budget, in buckets, that is far more than twice the buckets of the regions of these tests. So a trim looks at each
/// entry twice: the first time it may only clear the visited bit, the second time it evicts the entry.
pub const BUDGET: u32 = 10_000;
