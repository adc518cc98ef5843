//! Saves entries: those that will be evicted soon, and then all others.
//!
//! To save an entry, the saver *marks* it under the lock of its *shard* (the part of the cache that it is in), copies it to a row,
//! and adds the row's *location* (the segment, a table, and the position in it) to the directory in shared memory. A change of the
//! entry in between takes the mark away, and the copy is then not used (`core/tier/saving.rs`).

use super::appending::Copied;
use super::{APPENDED_MAX, DueEntries, MARKED_MAX, Saver};
use crate::pg::catalog;
use crate::pg::memory;
use crate::pg::shared;
use crate::store::keyspace::Tiers;
use crate::store::space;
use pg_cache_core::{Batch, Counter, FenceId, Marked};
use std::collections::BTreeMap;

/// How many batches of one shard are saved at most before the saver goes on to the next shard, so that a busy shard does not keep
/// the others waiting.
const BATCHES_PER_SHARD: u32 = 8;

/// The most buckets that one call of [`Saver::save_rest`] looks at. Most entries are saved already, so a call would look at all of
/// them to find a few.
const WALKED_MAX: u64 = 1 << 16;

impl Saver {
    /// Saves entries that will be evicted soon: the oldest ones of all shards. Returns how many there were.
    pub fn save_due(&mut self) -> DueEntries {
        let mut due = DueEntries::None;
        // Without evictions, entries whose locations were pushed out of a full directory are not saved again: they would push out
        // others.
        let evicted =
            [Counter::Evicted, Counter::EvictedQuota].map(|what| self.tier.counted(what)).iter().sum();
        let again = std::mem::replace(&mut self.evicted, evicted) != evicted || self.has_failed;
        self.has_failed = false;
        for shard in 0..self.tier.shards() {
            // The search looks at a limited number of the oldest entries. This number of full batches comes only if entries have
            // left the memory in between.
            for _ in 0..BATCHES_PER_SHARD {
                let before = self.saved;
                let marked = self.save_batch(|saver, admits, batch| {
                    saver.tier.mark_oldest(shard, shared::database(), again, admits, batch);
                });
                let is_full = marked == MARKED_MAX as u64;
                due = due.max(match marked {
                    0 => DueEntries::None,
                    _ if is_full && self.saved > before => DueEntries::Many,
                    _ => DueEntries::Few,
                });
                if !is_full {
                    break;
                }
            }
        }
        due
    }

    /// Saves about `budget` other entries, and goes on where the last call has ended. Returns whether there were any.
    pub fn save_rest(&mut self, budget: u64) -> bool {
        let (mut saved, mut left) = (0, self.tier.buckets_total().min(WALKED_MAX));
        self.walk.begin_if_due(self.tier.counted(Counter::Stored));
        while saved < budget && left > 0 && self.walk.is_under_way() {
            let from = self.walk.bucket();
            let marked = self.save_batch(|saver, admits, batch| {
                let next = saver.tier.mark_bucket(from, shared::database(), admits, batch);
                saver.walk.go_to(next);
            });
            self.walk.note_found(marked > 0);
            saved += marked;
            left = left.saturating_sub(self.walk.bucket().abs_diff(from).max(1));
        }
        saved > 0
    }

    /// Marks entries by `mark` and saves them. `mark` gets a function that tells by the OID of its space whether an entry is to be
    /// saved. Returns how many were marked.
    fn save_batch(&mut self, mark: impl FnOnce(&mut Self, &dyn Fn(u32) -> bool, &mut Batch)) -> u64 {
        self.learn_spaces();
        let mut batch = std::mem::take(&mut self.batch);
        let spaces = std::mem::take(&mut self.spaces);
        // The default space may have no row. Another space that is not known yet may be one that must stay in memory.
        let admits = |space: u32| match spaces.1.get(&space) {
            Some(tiers) => *tiers != Tiers::Hot,
            None => space == space::DEFAULT_OID,
        };
        mark(self, &admits, &mut batch);
        self.spaces = spaces;
        self.save(batch.marked());
        let marked = batch.marked().len() as u64;
        self.batch = batch;
        shared::check_for_interrupts();
        marked
    }

    /// Reads again where the spaces keep their entries, if that may have changed.
    fn learn_spaces(&mut self) {
        let generation = catalog::generation();
        if self.spaces.0 != generation {
            let mut found = BTreeMap::new();
            space::each_with_row(|oid, options| _ = found.insert(oid, options.tiers));
            self.spaces = (generation, found);
        }
    }

    /// Copies marked entries to rows, and adds their locations.
    fn save(&mut self, marked: &[Marked]) {
        let mut rest = marked;
        while !rest.is_empty() {
            let mut bytes = 0;
            let is_within = |one: &&Marked| {
                bytes += one.meta().value_len + one.note_len() + one.key_len();
                bytes <= APPENDED_MAX
            };
            let count = rest.iter().take_while(is_within).count().max(1);
            let (some, behind) = rest.split_at(count);
            let copies = memory::collect(some.iter().map(|one| self.copy(one)));
            let Some(places) = self.append(&copies) else {
                self.has_failed = true;
                return;
            };
            for (one, place) in some.iter().zip(places) {
                // In a space that keeps values in tables only, the entry leaves the memory now.
                let leave = self.spaces.1.get(&one.space()) == Some(&Tiers::Table);
                match place.is_some_and(|place| self.tier.locate(one, place, leave)) {
                    true => self.saved += 1,
                    false => self.outdated += 1,
                }
            }
            rest = behind;
        }
    }

    /// Copies an entry. The copy may be torn: only `Tier::locate` tells whether the entry has stayed the same.
    fn copy(&self, marked: &Marked) -> Copied {
        let mut copied = Copied {
            key: memory::zeroed(marked.key_len()),
            dependencies: no_fences(marked.dependency_count()),
            content: memory::zeroed(marked.note_len() + marked.meta().value_len),
            note_len: marked.note_len(),
            meta: marked.meta(),
            stale_ok: None,
            space: marked.space(),
            role: marked.role(),
        };
        let (note, value) = copied.content.split_at_mut(copied.note_len);
        copied.stale_ok =
            self.tier.read_marked(marked, &mut copied.key, &mut copied.dependencies, note, value);
        copied
    }
}

/// Returns a list of so many fences, to be overwritten. Raises an error if there is no memory.
fn no_fences(count: usize) -> Vec<FenceId> {
    memory::collect(std::iter::repeat_n(FenceId::from_number(0), count))
}
