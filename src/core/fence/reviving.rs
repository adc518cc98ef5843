//! Makes the fences of a region usable again after all processes that used it have ended. `tier/reviving.rs` calls this for a
//! region, the shared memory of the cache, that was saved in a file. A *fence* is a word that says when a dependency of entries
//! last changed; it is *raised* while a *writer*, a transaction that changes the dependency, commits (`fence/mod.rs`).
//!
//! A fence that is still raised belongs to a writer that has ended, and it is unknown whether its change was committed. So the
//! fence counts as changed: it gets a new number, and no writer is left that would lower it.
//!
//! A relation keeps its *record*, the place of its fences, while sessions use the region, so the records of dropped relations would
//! fill the table in the long run. When more than a quarter of the records is claimed, this gives back the records that no entry
//! depends on and that the journal does not name. While fewer are claimed, there is room enough. Three rules make it safe to give a
//! record back:
//! - No session may exist. A session could still use the fence of a record that is given away.
//! - A search for a relation ends at the first free record. So a record must stay claimed if the search for a relation with
//!   dependents passes it, also if the relation has no place of its own and shares the record that its hash selects.
//! - The fences of a record that is given back get a new number. So an entry that depends on them after all is not valid any more.

use super::fences::{Fences, PENDING_BITS, PENDING_MASK, PROBES};
use super::id::{FenceId, record};
use super::stamp::{STAMP_MAX, Stamp};
use crate::hash::{reduce, scatter};
use crate::layout::{AT_ANY, AT_BULK, AT_NOW, AT_SHARED, AT_STATE, RELATION_WORDS, WATCHED};
use std::collections::TryReserveError;

/// The records of relations that entries depend on, by slot.
pub(crate) struct Dependents(Vec<bool>);

impl Dependents {
    /// Makes a list in which no record has dependents.
    pub(crate) fn none(fences: &Fences<'_>) -> Result<Self, TryReserveError> {
        let records = fences.layout.sizes.relation_fences as usize;
        let mut all = Vec::new();
        all.try_reserve_exact(records)?;
        all.resize(records, false);
        Ok(Self(all))
    }

    /// Notes that an entry depends on a fence.
    pub(crate) fn add(&mut self, fences: &Fences<'_>, fence: FenceId) {
        if let Some(at) = fences.record_of(fence)
            && let Some(has) = self.0.get_mut((at - fences.layout.relations_at) / RELATION_WORDS)
        {
            *has = true;
        }
    }
}

impl Fences<'_> {
    /// Counts the change of every raised fence as committed. Returns the number on the clock that all these changes get. Returns
    /// None if the clock or a fence is damaged: a fence never has a later number than the clock. Then the region must be formatted.
    pub(crate) fn settle_all(&self) -> Option<Stamp> {
        if self.region.load(AT_NOW) >= STAMP_MAX {
            return None;
        }
        let change = self.draw();
        for fence in self.all_fences() {
            let word = self.region.load(fence.0 as usize);
            if word >> PENDING_BITS >= change.0 {
                return None;
            }
            if word & PENDING_MASK > 0 {
                self.region.store(fence.0 as usize, change.0 << PENDING_BITS);
            }
        }
        Some(change)
    }

    /// Gives records back, by the rules at the head of this file. `change` must be the result of [`settle_all`](Self::settle_all).
    pub(crate) fn give_back_records(&self, dependents: Dependents, change: Stamp) {
        let slots = self.layout.sizes.relation_fences;
        let Dependents(mut has_dependents) = dependents;
        let at = |slot: u32| record(self.layout, slot % slots);
        let claimed = (0..slots).filter(|slot| self.region.load(at(*slot)) != 0).count();
        if claimed as u64 * 4 <= u64::from(slots) {
            return;
        }
        // Copies of values outside of the database may depend on a relation that the journal names.
        for slot in 0..slots {
            has_dependents[slot as usize] |= self.region.load(at(slot) + AT_STATE) & WATCHED != 0;
        }
        let mut kept = has_dependents.clone();
        for slot in (0..slots).filter(|slot| has_dependents[*slot as usize]) {
            let first = reduce(scatter(self.region.load(at(slot))), slots);
            let passed = ((slot + slots - first) % slots).min(PROBES);
            let searched_by_sharers =
                if self.region.load(at(slot) + AT_SHARED) == 0 { 0 } else { PROBES.min(slots) };
            for passed in (first..first + passed).chain(slot..slot + searched_by_sharers) {
                kept[(passed % slots) as usize] = true;
            }
        }
        for slot in (0..slots).filter(|slot| !has_dependents[*slot as usize]) {
            if !kept[slot as usize] {
                for word in 0..RELATION_WORDS {
                    self.region.store(at(slot) + word, 0);
                }
            }
            // A value that is saved outside of the region may depend on this record, and a search may not find the record any more.
            // So the value must not be valid any more, even if the record is kept for the searches of others.
            for fence in [AT_ANY, AT_BULK] {
                self.region.store(at(slot) + fence, change.0 << PENDING_BITS);
            }
        }
    }
}
