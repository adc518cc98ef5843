//! Quotas: a space with a limit on its bytes frees memory within itself, by evicting its own entries. A *space* is a set of keys in
//! one database. `publishing.rs` calls [`Tier::reserve_within`] for each value of such a space.
//!
//! Each space with a cell of its own has a clock hand that goes round over the hash buckets of all shards, the parts of the tier.
//! The hand removes entries of the space that are of no use any more, and other entries whose visited bit is clear, except
//! counters. It clears the bits that it passes, so it removes an entry in the next round unless a reader asks for the entry in
//! between. The position of the hand is stored in the space's cell (`figures/statistics.rs`) and is written under the lock of the
//! shard that the hand stands in. The position is taken modulo the number of buckets, so a damaged position does no harm.
//!
//! The guarantee of a quota: the blocks of a space are counted from the moment they are taken until they are given back. A
//! reservation within a quota succeeds only if, after its own blocks were counted, the count of the space fits in the quota. So
//! such reservations, and the entries that they become, together never exceed the quota. The count itself may exceed it by the
//! values that are just being tried, at most one for each backend. Two backends that try at the same time may both be refused
//! because of each other.
//!
//! The cost of a quota: the entries of a space lie among all other entries. To find one of them, the hand looks on average through
//! as many buckets as the tier has, divided by the number of the space's entries. If all entries were asked for, it needs twice as
//! many. There is a bucket for every 256 bytes. So with entries of 256 bytes and a quota of a thousandth of the tier, each new
//! value takes about a thousand buckets.
//!
//! The *cell* of a space is the place of its counts in shared memory (`figures/statistics.rs`). The *visited bit* of an entry says
//! that a reader has asked for it since the bit was cleared. A *reservation* is blocks with a value that is not published yet.

use super::Tier;
use super::freeing::Unlinked;
use super::guard::Guard;
use super::header::{HIDDEN, Header, LINKED};
use super::judge::{BUCKETS_PER_HOLD, Judge};
use super::shard::Shard;
use crate::figures::Counter;
use crate::host::Host;
use crate::key::{Key, Scope};
use crate::layout::BLOCK_BYTES;
use crate::value::{Kind, NewValue, Quota, Refusal, Reservation, ReserveOptions};

impl<H: Host> Tier<'_, H> {
    /// Reserves for a space that has a cell of its own, within the quota of the space. Evicts entries of the space before and after
    /// it takes blocks, and looks through about `quota.budget` buckets each time. The second time has work to do only if the first
    /// budget was too small, if other backends have stored meanwhile, or if the entry takes more blocks than one run would have.
    /// The caller must not hold a lock.
    pub(super) fn reserve_within(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        options: ReserveOptions,
        quota: Quota,
    ) -> Result<Reservation, Refusal> {
        let Quota { bytes, budget } = quota;
        // Blocks of the space are freed before new blocks are taken. So no entry of another space is evicted for blocks that this
        // space may not have.
        let wanted = u64::from(Header::new(key, value, &options, 0).blocks()) * BLOCK_BYTES as u64;
        let rest = bytes.checked_sub(wanted).ok_or(Refusal::Quota)?;
        self.trim(&key.scope, rest, budget);
        let reserved = self.try_reserve(key, value, options)?;
        if self.trim(&key.scope, bytes, budget) {
            return Ok(reserved);
        }
        self.cancel(reserved);
        Err(Refusal::Quota)
    }

    /// Evicts entries of a space until the space has at most `quota` bytes of blocks, or until `budget` buckets were looked
    /// through. Returns whether the space now fits in the quota. A counter is evicted only if it is of no use any more, because its
    /// value cannot be computed again. For a space without a cell of its own, evicts nothing and returns true. The caller must not
    /// hold a lock.
    pub fn trim(&self, scope: &Scope, quota: u64, budget: u32) -> bool {
        if !self.is_counted_alone(scope) {
            return true;
        }
        let quota = quota / BLOCK_BYTES as u64;
        let excess = || self.statistics.blocks(scope.cell).saturating_sub(quota);
        let mut judge = Judge::new(self);
        let mut left = budget;
        while left > 0 && excess() > 0 {
            let hand = self.hand(scope);
            let shard = Shard::new(self.region, &self.layout, (hand / self.buckets()) as u32);
            let guard = shard.lock(&self.host);
            let mut unlinked = Unlinked::within(scope);
            // Another backend may have moved the hand before this one had the lock. Then the hand may stand in another shard, which
            // needs another lock.
            let from = self.hand(scope);
            let looked = if from / self.buckets() != hand / self.buckets() {
                1
            } else {
                let from = (from % self.buckets()) as u32;
                self.trim_buckets(&guard, scope, from, left, excess(), &mut judge, &mut unlinked)
            };
            drop(guard);
            self.release_all(&mut unlinked);
            left = left.saturating_sub(looked);
        }
        excess() == 0
    }

    /// Moves the hand on in the shard of `guard`, from bucket `from` of that shard, until entries with `excess` blocks were
    /// removed. Returns how many buckets the hand has passed, but at least 1, so that the caller's budget always ends.
    #[expect(clippy::too_many_arguments, reason = "a step of `trim`, with all it works on")]
    fn trim_buckets<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        scope: &Scope,
        from: u32,
        budget: u32,
        excess: u64,
        judge: &mut Judge<'t, '_, H>,
        unlinked: &mut Unlinked,
    ) -> u32 {
        let until = match guard.poisoned() {
            true => from,
            false => guard.buckets().min(from.saturating_add(budget.min(BUCKETS_PER_HOLD))),
        };
        guard.prefetch_buckets(from..until);
        let (mut at, mut freed) = (from, 0);
        while at < until && freed < excess && !unlinked.is_full() {
            for entry in guard.in_bucket(at) {
                let header = entry.header();
                if !header.has(LINKED) {
                    // This is damage, perhaps a chain that loops: each turn would unlink the same entries again.
                    break;
                }
                if header.has(HIDDEN) || header.space_id() != scope.space_id() || unlinked.is_full() {
                    continue;
                }
                let spared = || header.kind() == Kind::COUNTER || guard.take_visit(&entry) || freed >= excess;
                let reason = match judge.is_useless(&entry, &header) {
                    Some(useless) => useless,
                    None if spared() => continue,
                    None => Counter::EvictedQuota,
                };
                self.drop_entry(guard, &entry, &header, reason, unlinked);
                freed += u64::from(header.blocks());
            }
            at += 1;
        }
        let shard = u64::from(guard.index());
        let next = if at < guard.buckets() && !guard.poisoned() {
            shard * self.buckets() + u64::from(at)
        } else {
            (shard + 1) * self.buckets()
        };
        self.statistics.set_hand(scope.cell, next);
        (at - from).max(1)
    }

    /// Returns the position of a space's hand: a bucket, counted over all shards.
    fn hand(&self, scope: &Scope) -> u64 {
        self.statistics.hand(scope.cell) % (self.buckets() * u64::from(self.layout.shards))
    }

    /// Returns the number of buckets of a shard.
    fn buckets(&self) -> u64 {
        self.layout.buckets.into()
    }
}
