//! A space that may not take more than so many bytes makes room within itself.
//!
//! Each space has a hand that goes round over the buckets of all shards and takes out what is of no use any more, and what
//! was not asked for since it came by last. Where it stands is written in the space's cell, under the lock of the shard that it
//! stands in; a hand that damage has put anywhere is taken back into the round.
//!
//! What is promised: the blocks of a space are counted from when they are taken until they are given back. A reservation
//! [within](Tier::reserve_within) a quota succeeds only if all that was counted after its own blocks were fits. So what such
//! reservations have and what has become of them never exceeds the quota together; what is counted exceeds it by the
//! values that are just being tried, one for each backend at most. Two that try at once may each be refused for the other.
//!
//! What it costs: the entries of a space lie among all others, so to find one takes as many buckets as the tier has for each
//! of the space's entries, and twice as many if all are asked for. A quota of a thousandth of the tier means a
//! thousand buckets for each new value.

use crate::entry::{HIDDEN, Header, Kind, LINKED};
use crate::layout::BLOCK_BYTES;
use crate::room::Unlinked;
use crate::shard::{Guard, Shard};
use crate::statistics::Counter;
use crate::terms::{Host, IncrError, Key, NewValue, Refusal, Reservation, Scope};
use crate::tier::{BUCKETS_PER_HOLD, Judge, Tier};

impl<H: Host> Tier<'_, H> {
    /// Reserves like [`reserve`](Self::reserve) for a space that may take `quota` bytes of blocks, making room within it first and
    /// looking through `budget` buckets at most for that. Refused if there is no room then.
    ///
    /// A space that shares the last cell with others has no quota: what it takes is not known.
    pub fn reserve_within(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        quota: u64,
        budget: u32,
    ) -> Result<Reservation, Refusal> {
        let scope = &key.scope;
        if !self.is_counted_alone(scope) {
            return self.reserve(key, value);
        }
        // Room is made before it is taken, so that no other space has to give way for what this one may not have.
        let wanted = u64::from(Header::new(key, value, 0).blocks()) * BLOCK_BYTES as u64;
        let reserved = match quota.checked_sub(wanted) {
            Some(rest) => {
                self.trim(scope, rest, budget);
                self.reserve(key, value)?
            }
            None => return self.refuse(scope),
        };
        if self.trim(scope, quota, budget) {
            return Ok(reserved);
        }
        self.cancel(reserved);
        self.refuse(scope)
    }

    fn refuse(&self, scope: &Scope) -> Result<Reservation, Refusal> {
        self.statistics.count(scope.cell, Counter::RefusedQuota);
        Err(Refusal::Quota)
    }

    /// Adds like [`incr`](Self::incr); a new counter is reserved [within](Self::reserve_within) a quota.
    pub fn incr_within(
        &self,
        key: &Key<'_>,
        by: i64,
        new: &NewValue<'_>,
        quota: u64,
        budget: u32,
    ) -> Result<i64, IncrError> {
        self.incr_with(key, by, new, |value| self.reserve_within(key, value, quota, budget))
    }

    /// Takes entries out of a space until it has at most `quota` bytes of blocks, or until `budget` buckets were looked
    /// through. Whether it has no more now. Counters stay while they are of any use: nobody can compute them anew.
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
            // Somebody else may have moved it until we had the lock. Then where it is now is the lock of another shard.
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

    /// Moves the hand on in the shard that we hold. Returns how many buckets it has passed.
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
        guard.foresee_buckets(from..until);
        let (mut at, mut freed) = (from, 0);
        while at < until && freed < excess && !unlinked.is_full() {
            for entry in guard.in_bucket(at) {
                let header = entry.header();
                if !header.has(LINKED) {
                    // Damage, perhaps a chain that goes round: each turn would unlink the same entries again.
                    break;
                }
                if header.has(HIDDEN) || header.place() != scope.place() || unlinked.is_full() {
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
        let shard = u64::from(guard.number());
        let next = if at < guard.buckets() && !guard.poisoned() {
            shard * self.buckets() + u64::from(at)
        } else {
            (shard + 1) * self.buckets()
        };
        self.statistics.set_hand(scope.cell, next);
        (at - from).max(1)
    }

    /// Where the hand of a space stands: a bucket, counted over all shards.
    fn hand(&self, scope: &Scope) -> u64 {
        self.statistics.hand(scope.cell) % (self.buckets() * u64::from(self.layout.shards))
    }

    /// Buckets of a shard.
    fn buckets(&self) -> u64 {
        self.layout.buckets.into()
    }
}
