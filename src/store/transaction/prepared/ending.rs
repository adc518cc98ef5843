//! An attempt of this session to end a prepared transaction: COMMIT PREPARED or ROLLBACK PREPARED. `mod.rs` has the rules; it
//! raises the fences before the command, and settles the attempt after it.
//!
//! A *record* in shared memory (`pg/prepared.rs`) has what the transaction has changed in the cache. Its number of `enders` counts
//! the attempts under way. Until that number is 0, the record stays, and no other transaction can be prepared under its name. A
//! *fence* is a word in shared memory that says when something that values depend on last changed, and a *stamp* is a number on the
//! clock of changes (`docs/architecture.md`).

use super::slots::space_fences_of;
use crate::pg::memory;
use crate::pg::prepared::{self, Record, State, Table};
use crate::pg::shared;
use crate::store::journal;
use crate::store::transaction::table_writes::{self, LOOKS_MAX, Look, trees};
use pg_cache_core::{FenceId, KeyMark, Record as Change, Reserved, Stamp};
use pgrx::pg_sys::TransactionId;

/// An attempt to end a prepared transaction. Its fences are raised.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The slot of the transaction's record, if it has one.
    pub(super) record: Option<usize>,
    /// The relations that the transaction has written.
    pub(super) relations: Vec<u32>,
    /// The relations that the transaction has locked as a writer and not changed, from its record.
    pub(super) unchanged: Vec<u32>,
    /// The fences that the transaction has changed in the cache, from its record.
    pub(super) recorded: Vec<FenceId>,
    /// Whether the transaction has changed anything in the cache. The record has fences and hashes of keys, but no names of keys,
    /// tags or spaces. So the journal, which tells caches outside of the database what has changed, cannot name these changes.
    pub(super) has_changed_cache: bool,
    /// The keys that the transaction has changed, from its record.
    pub(super) changed: Vec<KeyMark>,
    /// The raised fences of the relations and of the record. They are *lowered* with a new stamp, so that older values that depend
    /// on them stay invalid.
    pub(super) raised: Vec<FenceId>,
    /// The raised fences of the spaces (named caches) of the changed keys. They are *withdrawn*, so that the other values of these
    /// spaces become valid again.
    pub(super) spaces: Vec<FenceId>,
    /// The stamp as of which this session knows the inheritance trees above the written relations. If a tree has grown since, the
    /// fences of the new ancestors may not be raised. So every entry that depends on an inheritance parent must be invalidated.
    pub(super) trees: Option<Stamp>,
}

/// The result of looking for the record of a transaction that is to be ended.
pub(super) enum Found {
    /// The transaction has a record.
    Recorded(Ending),
    /// The transaction is still being prepared.
    Busy,
    /// Another transaction is being prepared under the same name. The server may find that one under the name.
    Contested,
    /// The transaction has no record, or one without a name (`unnamed.rs`).
    Nothing,
}

impl Ending {
    /// Finds the changes of a transaction by its record. The record keeps the name from now on.
    pub(super) fn find(xid: TransactionId, gid: &[u8]) -> Found {
        let found = prepared::with_table(|Table { records, .. }| {
            let is_rival = |record: &Record| {
                record.xid != xid && record.state() == State::Preparing && record.is_of(gid)
            };
            if records.iter().any(is_rival) {
                return Found::Contested;
            }
            let is_it = |record: &Record| {
                record.xid == xid && matches!(record.state(), State::Preparing | State::Prepared)
            };
            match records.iter_mut().enumerate().find(|(_, record)| is_it(record)) {
                None => Found::Nothing,
                Some((_, record)) if record.state() == State::Preparing => Found::Busy,
                Some((slot, record)) => {
                    record.enders += 1;
                    Found::Recorded(Self {
                        record: Some(slot),
                        recorded: record.fences().to_vec(),
                        changed: record.marks().to_vec(),
                        unchanged: record.unchanged().to_vec(),
                        ..Self::default()
                    })
                }
            }
        });
        found.unwrap_or(Found::Nothing)
    }

    /// Finds the record of a name for ROLLBACK PREPARED. The record keeps the name until the command has rolled the transaction
    /// back.
    pub(super) fn of_name(gid: &[u8]) -> Self {
        let record = prepared::with_table(|Table { records, .. }| {
            let is_it = |record: &Record| record.state() == State::Prepared && record.is_of(gid);
            let (slot, record) = records.iter_mut().enumerate().find(|(_, record)| is_it(record))?;
            record.enders += 1;
            Some(slot)
        });
        Self { record: record.flatten(), ..Self::default() }
    }

    /// Returns whether the transaction has changed anything beside relations.
    fn changes_cache(&self) -> bool {
        !self.recorded.is_empty() || !self.changed.is_empty()
    }

    /// Raises the fences. While this looks them up, a relation may claim a record in the table of fences (`core/fence/mod.rs`), and
    /// so get another fence. `claim_count` grows with each such claim. So it is read before the lookup and compared after the
    /// raise. If it differs, the lookup is repeated. The last look claims a record for every relation, so that their fences stay
    /// the same. May raise errors; `settle` then lowers the fences that were raised before the error.
    pub(super) fn raise(&mut self) {
        let Some(tier) = shared::tier() else { return };
        let fences = tier.fences();
        let spaces = space_fences_of(&self.changed);
        memory::reserve(&mut self.spaces, spaces.len());
        for space in spaces {
            fences.raise(space);
            self.spaces.push(space);
        }
        self.has_changed_cache = self.changes_cache();
        let mut wanted = std::mem::take(&mut self.recorded);
        for look in 1..=LOOKS_MAX {
            let claims = fences.claim_count();
            let look = Look::of_number(look);
            let (relations, trees) = table_writes::fences_of_relations(tier, &self.relations, look);
            self.trees.get_or_insert(trees);
            memory::reserve(&mut wanted, relations.len());
            wanted.extend(relations);
            wanted.retain(|fence| !self.raised.contains(fence));
            wanted.sort_unstable();
            wanted.dedup();
            memory::reserve(&mut self.raised, wanted.len());
            for fence in wanted.drain(..) {
                fences.raise(fence);
                self.raised.push(fence);
            }
            if fences.claim_count() == claims {
                return;
            }
        }
    }

    /// Removes the changed keys, lowers or withdraws the fences, writes the changes to the journal, and releases the record. Runs
    /// after the command, also if the command has failed. Must not fail.
    pub(super) fn settle(self, succeeded: bool) {
        if let Some(tier) = shared::tier() {
            if !self.spaces.is_empty() {
                self.changed.iter().for_each(|mark| tier.remove_marked(mark));
            }
            // If the transaction has grown a tree itself, its own raise must not count as that of another transaction.
            let grows = self.raised.contains(&trees::fence(tier));
            if self.trees.is_some_and(|trees| trees::have_grown(tier, trees, grows)) {
                trees::invalidate(tier);
            }
            if !self.raised.is_empty() {
                let stamp = tier.fences().draw();
                for fence in &self.raised {
                    let _ = tier.lower_as(*fence, stamp);
                }
            }
            self.spaces.iter().for_each(|fence| tier.fences().withdraw(*fence));
            // The names of the changes are lost, so the journal says that everything in the database has changed. A change of roles
            // concerns all databases.
            let roles = tier.fences().reserved(Reserved::Roles);
            let all = self.has_changed_cache.then(|| match self.raised.contains(&roles) {
                true => Change::EVERYTHING,
                false => journal::of_database(shared::database()),
            });
            let relations = self.raised.iter().filter_map(|fence| journal::of_fence(tier, *fence));
            journal::append(tier, all.into_iter().chain(relations));
        }
        self.release(succeeded);
    }

    /// Releases the record. Must not fail.
    pub(super) fn release(self, succeeded: bool) {
        prepared::with_table(|Table { records, .. }| {
            let Some(record) = self.record.map(|slot| &mut records[slot]) else { return };
            record.enders = record.enders.saturating_sub(1);
            // The command may have failed after the commit, so a failed attempt keeps the record: the next attempt then raises
            // the same fences.
            if succeeded || record.state() == State::Gone {
                retire(record);
            }
        });
    }
}

/// Frees a record. If other sessions still use it, marks it as gone, and the last of them frees it.
fn retire(record: &mut Record) {
    record.set_state(if record.enders == 0 { State::Free } else { State::Gone });
}
