//! Removes entries: on request, or because they will never be served again. The public functions take locks; the caller must not
//! hold one.
//!
//! An entry is *spread* if it may have blocks in other shards than that of its key; a *shard* is a part of the tier with a lock of
//! its own. A *flight* is the right to publish a value for a key: a lease, a fill or a claim (`tier/flight.rs`). A change of the
//! key *voids* it: its value will be refused. An *announced* change of a key hides the key's value until the change is confirmed
//! (`tier/publishing.rs`). A [`Judge`] decides whether an entry can still be served (`tier/judge.rs`). The *mark* of a key is the
//! key without its bytes (`key.rs`). A *space* is a set of keys in one database. A *location* says where the copy of a value is
//! saved (`tier/directory.rs`).

use super::Tier;

use super::entry::Entry;
use super::freeing::Unlinked;
use super::guard::Guard;
use super::header::{HIDDEN, Header, LINKED};
use super::judge::{BUCKETS_PER_HOLD, Judge};
use super::shard::Shard;
use crate::figures::Counter;
use crate::host::Host;
use crate::key::{Key, KeyMark};

impl<H: Host> Tier<'_, H> {
    /// Removes a key and voids its flight. Returns whether the key had a value in memory that would have been served to a reader
    /// without changes of its own. A change of the key that a transaction has announced stays announced.
    pub fn remove(&self, key: &Key<'_>) -> bool {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        guard.flights().void(key.hash);
        guard.forget_location(key.fingerprint());
        let Some((entry, header)) = guard.find(key).filter(|_| !guard.poisoned()) else { return false };
        let valid = self.is_valid_in(&key.scope, &entry, &header, now);
        let mut unlinked = Unlinked::within(&key.scope);
        self.drop_entry(&guard, &entry, &header, Counter::Removed, &mut unlinked);
        drop(guard);
        self.release_all(&mut unlinked);
        valid
    }

    /// Removes a key that the caller knows only by its mark, without its bytes, and voids its flight. Changes of the key that other
    /// transactions have announced stay announced, as with [`remove`](Self::remove). Takes a bounded number of steps, allocates
    /// nothing and cannot fail.
    pub fn remove_marked(&self, mark: &KeyMark) {
        let is_it = |header: &Header| {
            header.hash() == mark.fingerprint()
                && header.space_id() == mark.space_id()
                && header.role() == mark.role
                && header.has(LINKED)
                && !header.has(HIDDEN)
        };
        // Several keys may have the same mark. If their entries fill the list of spread entries, another round removes the others.
        loop {
            let guard = Shard::of_hash(self.region, &self.layout, mark.hash()).lock(&self.host);
            guard.flights().void(mark.hash());
            guard.forget_location(mark.fingerprint());
            if guard.poisoned() {
                return;
            }
            let mut unlinked = Unlinked::default();
            for entry in guard.in_bucket(guard.bucket_of(mark.fingerprint())) {
                let header = entry.header();
                if is_it(&header) && !unlinked.is_full() {
                    self.drop_entry(&guard, &entry, &header, Counter::Removed, &mut unlinked);
                }
            }
            drop(guard);
            self.release_all(&mut unlinked);
            if !unlinked.is_full() {
                return;
            }
        }
    }

    /// Looks through the next `budget` buckets and removes entries that will never be served again. If the space of another entry
    /// has patterns newer than the entry, and none of them matches, the sweep *renews* the entry: gives it a newer stamp
    /// (`patterns/mod.rs`). Returns how many entries it removed. All backends together go round over the buckets: each call
    /// continues where the last call of any backend ended.
    pub fn sweep(&self, budget: u32) -> u64 {
        self.sweep_within(budget, None)
    }

    /// Does the same as [`sweep`](Self::sweep). With `steps`, the call ends earlier when all its comparisons with patterns have
    /// taken this number of steps. Without it, only the steps in each hold of a lock are limited.
    pub(super) fn sweep_within(&self, budget: u32, steps: Option<u32>) -> u64 {
        let mut judge = Judge::new(self);
        steps.into_iter().for_each(|steps| judge.limit(steps));
        let mut removed = 0;
        let mut left = budget;
        while left > 0 && (steps.is_none() || judge.has_steps()) {
            let shard = Shard::new(self.region, &self.layout, self.layout.swept_shard(&self.region));
            let guard = shard.lock(&self.host);
            let as_of = self.fences().now();
            if steps.is_none() {
                judge.refill();
            }
            let mut unlinked = Unlinked::default();
            let from = guard.sweep_bucket().min(guard.buckets());
            let until = guard.buckets().min(from.saturating_add(left.min(BUCKETS_PER_HOLD)));
            let mut at = from;
            while at < until && !guard.poisoned() && !unlinked.is_full() && judge.has_steps() {
                for entry in guard.in_bucket(at) {
                    let header = entry.header();
                    if !header.has(LINKED) {
                        // The chain is damaged and perhaps a cycle. Following it would unlink the same entries again.
                        break;
                    }
                    if header.has(HIDDEN) {
                        continue;
                    }
                    let Some(reason) = judge.is_useless(&entry, &header) else {
                        judge.renew(&entry, &header, as_of);
                        continue;
                    };
                    if !unlinked.is_full() {
                        // A saved copy is of no use either.
                        guard.forget_location(header.hash());
                        self.drop_entry(&guard, &entry, &header, reason, &mut unlinked);
                        removed += 1;
                    }
                }
                at += 1;
            }
            let done = at >= guard.buckets() || guard.poisoned();
            guard.set_sweep_bucket(if done { 0 } else { at });
            drop(guard);
            self.release_all(&mut unlinked);
            left -= (at - from).clamp(1, left);
            if done {
                self.layout.advance_sweep(&self.region);
            }
        }
        removed
    }

    /// Unlinks an entry, gives its blocks back, and counts it under `reason`. The caller must not be inside [`Guard::change`],
    /// because its calls must not be nested. `unlinked` must not be full: it takes *spread* entries, which may have blocks in
    /// several shards, and the blocks of an entry without a place there would be lost. After the caller has released the lock, it
    /// must call `release_all` with `unlinked` (`freeing.rs`).
    pub(crate) fn drop_entry<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        entry: &Entry<'t>,
        header: &Header,
        reason: Counter,
        unlinked: &mut Unlinked,
    ) {
        guard.change(|| guard.unlink(entry, header));
        self.note_gone(&mut unlinked.deltas, header.space_id(), reason, 1);
        self.note_killed(&mut unlinked.deltas, entry, header);
        self.give_back(guard, entry, header, unlinked);
    }
}
