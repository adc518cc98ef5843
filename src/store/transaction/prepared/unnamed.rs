//! Transactions that are prepared without a command: a subscription with `two_phase` prepares and ends transactions in C code, in a
//! worker of the server, the *apply worker*.
//!
//! Their fences stay raised from the preparation on: the values that depend on them are misses. A fence is lowered with a new stamp
//! as soon as a session sees that the transaction is over. An apply worker checks this before each of its commits. Any session
//! checks it before the commit of a transaction that has a transaction id, and after COMMIT PREPARED or ROLLBACK PREPARED has
//! succeeded. It also checks it when it prepares a transaction without a command. A transaction is over when it has released its
//! locks, because the server sends its catalog invalidations after its id has ended. Each apply worker looks, before its first
//! commit, for the locks of transactions that were prepared before the server started.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed, and a *stamp* is a number on
//! the clock of changes (`docs/architecture.md`).

use super::slots::{ended_unnoticed, find_free, fit_into_record, no_room};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::local::local;
use crate::pg::locks::{self, WriteLock};
use crate::pg::memory;
use crate::pg::prepared::{self, Record, State, Table};
use crate::pg::shared::{self, HotTier};
use crate::store::journal;
use crate::store::transaction::table_writes::{self, Look, trees};
use pg_cache_core::{FenceId, Record as Change};
use std::cell::Cell;
use std::sync::atomic::Ordering;

local! {
    /// Whether this session has looked for transactions that were prepared before the server started.
    static ADOPTED: Cell<bool> = Cell::new(false);
}

/// Records a transaction that is prepared without a command, and raises its fences. Returns the slot of the record. None if no
/// transaction can be prepared: the server raises that error itself.
pub(super) fn record_unnamed(mut fences: Vec<FenceId>) -> Result<Option<usize>, Refused> {
    let Some(tier) = shared::tier() else { return Ok(None) };
    let (relations, trees) = table_writes::before_unnamed_prepare(tier);
    memory::reserve(&mut fences, relations.len());
    fences.extend(relations);
    fences.sort_unstable();
    fences.dedup();
    settle_unnamed();
    let (fences, _) = fit_into_record(fences, Vec::new());
    let own = prepared::own_xid();
    let ended = ended_unnoticed();
    let written = prepared::with_table(|Table { records, .. }| {
        let (slot, record) = find_free(records, &ended)?;
        record.write(own, &[], &fences, &[]);
        record.trees = trees;
        fences.iter().for_each(|fence| tier.fences().raise(*fence));
        Some(slot)
    });
    written.map(|slot| slot.ok_or_else(no_room)).transpose()
}

/// Lowers the fences of the transactions that were prepared without a command and are over. May raise errors.
#[inline]
pub fn settle_unnamed() {
    if prepared::has_unnamed() {
        settle();
    }
}

/// Does the work of [`settle_unnamed`].
#[cold]
fn settle() {
    let Some(tier) = shared::tier() else { return };
    let is_unnamed = |record: &Record| record.state() == State::Unnamed;
    let waiting = prepared::with_table(|Table { records, .. }| {
        memory::try_collect(records.iter().filter(|record| is_unnamed(record)).map(|record| record.xid))
    });
    let mut over = waiting.unwrap_or(Ok(Vec::new())).or_raise();
    over.retain(|xid| prepared::is_over(*xid));
    if over.is_empty() {
        return;
    }
    prepared::with_table(|Table { unnamed, records }| {
        let stamp = tier.fences().draw();
        for record in records.iter_mut().filter(|record| is_unnamed(record) && over.contains(&record.xid)) {
            // A transaction that has grown a tree itself keeps the fence of trees raised, and `false` counts that as another's.
            // The trees are then invalidated twice, which is harmless.
            if trees::have_grown(tier, record.trees, false) {
                trees::invalidate(tier);
            }
            for fence in record.fences() {
                let _ = tier.lower_as(*fence, stamp);
            }
            journal_unnamed(tier, record.fences());
            record.set_state(State::Free);
            unnamed.fetch_sub(1, Ordering::Relaxed);
        }
    });
}

/// Writes the changes of a transaction that was prepared without a command to the journal. The transaction may belong to another
/// database, and the names of its changes in the cache are lost.
fn journal_unnamed(tier: &HotTier, fences: &[FenceId]) {
    let is_of_table =
        |fence: &FenceId| tier.fences().is_of_relation(*fence) || tier.fences().is_of_unclaimed(*fence);
    let others = fences.iter().any(|fence| !is_of_table(fence)).then_some(Change::EVERYTHING);
    let relations = fences.iter().filter_map(|fence| journal::of_fence(tier, *fence));
    journal::append(tier, others.into_iter().chain(relations));
}

/// Runs before each commit of this session. In an apply worker, that transaction may have ended a prepared transaction, or be
/// about to end one. May raise errors.
#[inline]
pub fn before_commit(has_written: bool) {
    let applies = prepared::is_applier();
    if applies && !ADOPTED.get() {
        adopt();
        ADOPTED.set(true);
    }
    if applies || has_written {
        settle_unnamed();
    }
}

/// Gives a record to each transaction that was prepared before the server started and has none. Raises the fences of the relations
/// that it has written. Its other changes in the cache are unknown.
#[cold]
fn adopt() {
    let Some(tier) = shared::tier() else { return };
    for (xid, locks) in locks::of_prepared() {
        let relations = memory::collect(locks.into_iter().map(WriteLock::relation));
        let (fences, trees) = table_writes::fences_of_relations(tier, &relations, Look::Final);
        let (fences, _) = fit_into_record(fences, Vec::new());
        if !prepared::is_in_progress(xid) {
            continue;
        }
        let ended = ended_unnoticed();
        let recorded = prepared::with_table(|Table { unnamed, records }| {
            if records.iter().any(|record| record.state() != State::Free && record.xid == xid) {
                return true;
            }
            let Some((_, record)) = find_free(records, &ended) else { return false };
            record.write(xid, &[], &fences, &[]);
            record.trees = trees;
            record.set_state(State::Unnamed);
            unnamed.fetch_add(1, Ordering::Relaxed);
            // Another apply worker may end the transaction as soon as it sees the record, so the fences must be raised under the
            // same lock.
            fences.iter().for_each(|fence| tier.fences().raise(*fence));
            true
        });
        if recorded == Some(false) {
            // The server will start this apply worker again, and by then the sessions that are preparing transactions now will be
            // done.
            no_room().raise();
        }
    }
}
