//! The records of relations: how a relation *claims* a record, and which fences its writers and its entries use. A record is a
//! cache line with two fences, the words that say when the relation last changed. `fence/mod.rs` has the rules. The methods of
//! `Fences` here are for commits (`…_to_raise`), for values that are about to be stored (`…dependency_fences`), and for the journal
//! (`…named`).
//!
//! An entry depends on the *first fence* of a record, which every writer raises, or on the *bulk fence*, if it depends on single
//! rows only. The record is *marked* once an entry depends on the bulk fence. It is *settled* once no writer can be at work that
//! does not know of the claim. Relations without a record share *unclaimed* fences. A *stamp* is a number of the clock of changes,
//! which each committed change increments. The *journal* is a ring of records in shared memory that name changes; these are not the
//! records of relations. The *region* is the shared memory of the tier, the cache.

use super::fences::{Fences, PROBES};
use super::id::{FenceId, RelationFence, record, relation_fence, unclaimed_fence};
use super::stamp::Stamp;
use crate::hash::{reduce, scatter};
use crate::layout::{
    AT_ANY, AT_BULK, AT_CLAIMS, AT_SHARED, AT_STATE, BULK, BULK_SETTLED, LINE, RELATION_WORDS, SETTLED,
    WATCHED,
};
use crate::sync::Ordering;

/// The record of a relation.
struct Record {
    /// The slot of the record in the table of relations.
    slot: u32,
    /// Whether several relations share the record.
    is_shared: bool,
}

/// Returns a relation of a database as one word.
fn identity(database: u32, relation: u32) -> u64 {
    u64::from(database) << 32 | u64::from(relation)
}

impl<'m> Fences<'m> {
    /// Claims the record of a relation, and returns one of its fences, for a writer. If all records that the search looks at are
    /// taken, the relation shares one, and if the region has no records, it uses the fence of a tag. An entry must depend on the
    /// fences from [`dependency_fences`](Self::dependency_fences) instead: a writer that does not know of the claim does not raise
    /// this fence. A writer that will not look again must raise both fences of the record.
    pub fn claim_fence(&self, database: u32, relation: u32, which: RelationFence) -> FenceId {
        match self.claim_record(database, relation) {
            Some(record) => relation_fence(self.layout, record.slot, which),
            None => self.tag(scatter(identity(database, relation))),
        }
    }

    /// Returns the fences that an entry with this stamp must depend on if it depends on a relation. Claims a record. The second
    /// fence is returned only while the record is not settled. Then a writer that does not know of the claim may be under way, or
    /// may have committed after the stamp. Or the record does not have the number of such a writer's change yet.
    pub fn dependency_fences(
        &self,
        database: u32,
        relation: u32,
        stamp: Stamp,
    ) -> (FenceId, Option<FenceId>) {
        let Some(claimed) = self.claim_record(database, relation) else {
            return (self.tag(scatter(identity(database, relation))), None);
        };
        let own = relation_fence(self.layout, claimed.slot, RelationFence::Any);
        // Relations that share a record did not all claim it at the same time, so a shared record never counts as settled.
        let state = self.region.word(record(self.layout, claimed.slot) + AT_STATE);
        if !claimed.is_shared && state.load(Ordering::SeqCst) & SETTLED != 0 {
            return (own, None);
        }
        // This must come between the claim and the look at the unclaimed fence. A writer that raises the unclaimed fence after that
        // look finds the claim.
        self.region.word(AT_CLAIMS).fetch_add(1, Ordering::SeqCst);
        let unclaimed = self.unclaimed(database, relation);
        let (changed, pending) = self.last_change(unclaimed);
        if !claimed.is_shared && pending == 0 {
            self.advance_seq(own, changed);
            state.fetch_or(SETTLED, Ordering::SeqCst);
        }
        // A writer that raises the unclaimed fence after this look also raises the record's, so one look is enough.
        let is_behind = self.last_change(own).0.0 < changed.0;
        let depends = pending > 0 || changed.0 > stamp.0 || is_behind;
        (own, depends.then_some(unclaimed))
    }

    /// Returns the fence that a writer of a relation must raise. Claims nothing. The answer holds while
    /// [`claim_count`](Self::claim_count) returns the same number, so the writer must read that number before it calls this. If the
    /// number differs after the writer has raised the fence, the writer must ask again and also raise the fence that it gets then.
    pub fn fence_to_raise(&self, database: u32, relation: u32) -> FenceId {
        match self.find_record(database, relation) {
            _ if self.layout.sizes.relation_fences == 0 => self.tag(scatter(identity(database, relation))),
            Some(slot) => relation_fence(self.layout, slot, RelationFence::Any),
            None => self.unclaimed(database, relation),
        }
    }

    /// Returns the fences that an entry with this stamp must depend on if it depends on single rows of a relation, in addition to
    /// the fences of the tags of these rows. The first one is the bulk fence of the relation; if the region has no records, it is
    /// the fence of a tag that every write of the relation raises. The others are the unclaimed fence and the first fence of the
    /// record: a writer that does not know of the claim or of the mark raises only these. They are returned only while the record
    /// or the mark is not settled. Claims a record and marks it.
    pub fn row_dependency_fences(
        &self,
        database: u32,
        relation: u32,
        stamp: Stamp,
    ) -> (FenceId, [Option<FenceId>; 2]) {
        let (any, unclaimed) = self.dependency_fences(database, relation, stamp);
        let Some(record) = self.record_of(any) else { return (any, [unclaimed, None]) };
        let bulk = FenceId((record + AT_BULK) as u32);
        let state = self.region.word(record + AT_STATE);
        // Other relations may have marked a shared record, so its mark never counts as settled.
        let is_shared = self.region.word(record + AT_SHARED).load(Ordering::SeqCst) != 0;
        if !is_shared && state.load(Ordering::SeqCst) & BULK_SETTLED != 0 {
            return (bulk, [unclaimed, None]);
        }
        let was = state.fetch_or(BULK, Ordering::SeqCst);
        // This must come between the mark and the look at the fence. A writer that raises the fence after that look finds the mark.
        self.region.word(AT_CLAIMS).fetch_add(1, Ordering::SeqCst);
        let (changed, pending) = self.last_change(any);
        // Only the first fence of a settled record has the numbers of the unclaimed fence.
        if is_shared || was & SETTLED == 0 || pending > 0 {
            return (bulk, [unclaimed, Some(any)]);
        }
        // If this entry's stamp is before that number, the bulk fence excludes it now.
        self.advance_seq(bulk, changed);
        state.fetch_or(BULK_SETTLED, Ordering::SeqCst);
        (bulk, [unclaimed, None])
    }

    /// Returns the bulk fence that a writer of a relation must raise unless it has invalidated the tags of all rows that it
    /// changes. None if no entry depends on it. The answer holds as long as that of [`fence_to_raise`](Self::fence_to_raise). A
    /// writer that will not look again must raise [`RelationFence::Bulk`] instead.
    pub fn bulk_fence_to_raise(&self, database: u32, relation: u32) -> Option<FenceId> {
        if self.layout.sizes.relation_fences == 0 {
            return None;
        }
        let record = record(self.layout, self.find_record(database, relation)?);
        let is_marked = self.region.word(record + AT_STATE).load(Ordering::SeqCst) & BULK != 0;
        is_marked.then_some(FenceId((record + AT_BULK) as u32))
    }

    /// Whether a fence is the bulk fence of a record.
    pub fn is_bulk(&self, fence: FenceId) -> bool {
        self.record_of(fence).is_some_and(|record| record + AT_BULK == fence.0 as usize)
    }

    /// From now on, writers of a relation must name it in the journal ([`relation_to_name`](Self::relation_to_name)). Claims a
    /// record. Returns whether this is new. If the region has no records, this does nothing and returns false.
    ///
    /// A session may give a stored value out of the database, to a cache that follows the journal. It must first call this for each
    /// relation that the value depends on, and then read the value with all its fences. A writer raises and lowers the relation's
    /// fence, or the unclaimed fence that the value then also depends on, before it asks whether the relation is named. So either
    /// the reader finds the fence raised or changed, or the writer finds the mark. A mark that another session has set may be
    /// younger than the read, so it does not replace a call before the read.
    pub fn mark_named(&self, database: u32, relation: u32) -> bool {
        let Some(claimed) = self.claim_record(database, relation) else { return false };
        let state = self.region.word(record(self.layout, claimed.slot) + AT_STATE);
        state.load(Ordering::SeqCst) & WATCHED == 0
            && state.fetch_or(WATCHED, Ordering::SeqCst) & WATCHED == 0
    }

    /// Marks the relation that a fence belongs to as one that must be named, as [`mark_named`](Self::mark_named) does, and with it
    /// each relation that shares its record. The caller must do this before it reads the value, too. Does nothing for other fences.
    pub(crate) fn mark_relation_named(&self, fence: FenceId) {
        if let Some(at) = self.record_of(fence) {
            self.region.word(at + AT_STATE).fetch_or(WATCHED, Ordering::SeqCst);
        }
    }

    /// Returns the database and the relation of a fence, if the writer that has lowered the fence must name them in the journal.
    /// The outer None means that it need not. The inner None stands for a record that several relations share.
    pub fn relation_to_name(&self, fence: FenceId) -> Option<Option<(u32, u32)>> {
        let at = self.record_of(fence)?;
        let is_named = self.region.word(at + AT_STATE).load(Ordering::SeqCst) & WATCHED != 0;
        is_named.then(|| self.relation_of(fence))
    }

    /// Returns a number that grows whenever an entry may depend on another fence than an earlier answer of
    /// [`fence_to_raise`](Self::fence_to_raise).
    pub fn claim_count(&self) -> u64 {
        self.region.word(AT_CLAIMS).load(Ordering::SeqCst)
    }

    /// Returns the fence that writers of a relation raise while the relation has no record.
    pub(super) fn unclaimed(&self, database: u32, relation: u32) -> FenceId {
        let index = reduce(scatter(identity(database, relation)), self.layout.unclaimed());
        unclaimed_fence(self.layout, index)
    }

    /// Claims the record of a relation. If all records that the search looks at are taken, the relation shares the record that its
    /// hash selects. Returns None if the region was formatted without records.
    fn claim_record(&self, database: u32, relation: u32) -> Option<Record> {
        let identity = identity(database, relation);
        let hash = scatter(identity);
        let slots = self.layout.sizes.relation_fences;
        match self.claim(self.layout.relations_at, RELATION_WORDS, slots, hash, identity) {
            Some(slot) => Some(Record { slot, is_shared: self.is_shared(slot) }),
            None if slots == 0 => None,
            None => {
                let slot = reduce(hash, slots);
                if !self.is_shared(slot) {
                    self.region.word(record(self.layout, slot) + AT_SHARED).store(1, Ordering::SeqCst);
                }
                Some(Record { slot, is_shared: true })
            }
        }
    }

    /// Finds the record of a relation for a writer, its own or the one that it shares. Claims nothing. Returns None if the relation
    /// has no record yet.
    fn find_record(&self, database: u32, relation: u32) -> Option<u32> {
        let identity = identity(database, relation);
        let slots = self.layout.sizes.relation_fences;
        let first = reduce(scatter(identity), slots);
        for probe in 0..PROBES.min(slots) {
            let slot = (first + probe) % slots;
            match self.region.word(record(self.layout, slot)).load(Ordering::SeqCst) {
                0 => return None,
                found if found == identity => return Some(slot),
                _ => {}
            }
        }
        self.is_shared(first).then_some(first)
    }

    fn is_shared(&self, slot: u32) -> bool {
        self.region.word(record(self.layout, slot) + AT_SHARED).load(Ordering::SeqCst) != 0
    }

    /// Whether a fence is that of a relation's record.
    pub fn is_of_relation(&self, fence: FenceId) -> bool {
        self.record_of(fence).is_some()
    }

    /// Returns the database and the OID of the relation whose record a fence belongs to. None for the fence of a record that
    /// relations share, and for every other fence.
    pub fn relation_of(&self, fence: FenceId) -> Option<(u32, u32)> {
        let at = self.record_of(fence).filter(|at| self.region.load(at + AT_SHARED) == 0)?;
        let identity = self.region.word(at).load(Ordering::Acquire);
        (identity != 0).then_some(((identity >> 32) as u32, identity as u32))
    }

    /// Returns the unclaimed fence of the relation whose record a fence belongs to. None if [`relation_of`](Self::relation_of)
    /// returns None.
    pub(crate) fn unclaimed_of(&self, fence: FenceId) -> Option<FenceId> {
        self.relation_of(fence).map(|(database, relation)| self.unclaimed(database, relation))
    }

    /// Whether a fence is that of relations without a record, which share it.
    pub fn is_of_unclaimed(&self, FenceId(at): FenceId) -> bool {
        let words = (at as usize).checked_sub(self.layout.unclaimed_at);
        words.is_some_and(|words| words < self.layout.unclaimed() as usize * LINE)
    }

    /// Returns the position of the record that a fence belongs to, or None if it is no fence of a record.
    pub(crate) fn record_of(&self, FenceId(at): FenceId) -> Option<usize> {
        let words = (at as usize).checked_sub(self.layout.relations_at)?;
        let slot = words / RELATION_WORDS;
        (slot < self.layout.sizes.relation_fences as usize).then(|| record(self.layout, slot as u32))
    }

    /// Returns the position of the record if the fence is the one that every write of its relation raises.
    pub(crate) fn record_of_first_fence(&self, fence: FenceId) -> Option<usize> {
        self.record_of(fence).filter(|record| record + AT_ANY == fence.0 as usize)
    }

    /// Returns the claimed records: the position of each, and its database and relation. The latter is None if relations share the
    /// record.
    pub(crate) fn records(&self) -> impl Iterator<Item = (usize, Option<(u32, u32)>)> + use<'m> {
        let (region, layout) = (self.region, self.layout);
        (0..layout.sizes.relation_fences).map(move |slot| record(layout, slot)).filter_map(move |at| {
            let identity = region.word(at).load(Ordering::Acquire);
            let owner = ((identity >> 32) as u32, identity as u32);
            (identity != 0).then(|| (at, Some(owner).filter(|_| region.load(at + AT_SHARED) == 0)))
        })
    }
}
