//! The relations that this transaction has written, as the fences that its commit must raise. A *fence* is a word in shared memory
//! that says when something that values depend on last changed, and a *stamp* is a number on the clock of changes
//! (`docs/architecture.md`). `pending.rs` and `prepared/` call this file before a commit, and `store/watch.rs` when it stores an
//! entry.
//!
//! The session does not note its writes. Instead, this file reads the locks of the transaction, at the latest when it commits.
//! Every way of writing to a table locks the table until then, so no write is missed (`pg/locks.rs`). A write itself costs nothing,
//! unless single rows of the table are watched (`store/row_tags.rs`). If the server counts the changed rows of a table, a ROW
//! EXCLUSIVE lock alone is no change: the table counts as unchanged until a row was counted (`pg/row_changes.rs`).
//!
//! A relation that cached values depend on has a *record*, and so a fence of its own; relations without a record share fences.
//! Another session may give a relation a record while this session commits: after the commit has looked up the fence of the
//! relation, and before it has raised that fence. An entry may then depend on the new fence alone. So the commit must look again
//! after it has raised the fences.
//!
//! A record also has a *bulk fence*, for entries that depend on single rows of the relation. If there are such entries, a commit
//! must raise the bulk fence, unless a trigger has reported all changed rows (`store/row_tags.rs`). In that case, the commit
//! invalidates the tags of these rows instead.
//!
//! `settings::broken()` is `Off`, except in tests that break one of these rules on purpose.
//!
//! ```text
//! mod.rs      what the transaction has written, as of the last look at its locks
//! fences.rs   the fences of a relation
//! walks.rs    walks over the locks of the transaction
//! trees.rs    the fence of inheritance trees
//! ```

mod fences;
pub mod trees;
mod walks;

pub use fences::{LOOKS_MAX, Look, bulk_of, fence_of, fences_of_relation};
pub use walks::{has_seen_foreign, has_written_foreign};

use super::reported_rows;
use crate::pg::local::local;
use crate::pg::locks::{self, WriteLock};
use crate::pg::relation::Evidence;
use crate::pg::row_changes::{self, Counters};
use crate::pg::settings::{self, Broken};
use crate::pg::shared::{self, HotTier};
#[cfg(debug_assertions)]
use crate::pg::{error::Refused, targets};
use crate::pg::{invalidations, memory, relation, transaction_events};
use fences::{add_fences, each_bulk};
use pg_cache_core::{FenceId, Reserved, Stamp};
use std::borrow::Cow;
use std::cell::RefCell;
use walks::find_passed;

/// The written relations as of the last look at the locks, and the fences that follow from them. A session usually writes to the
/// same tables again and again, so most commits only have to look at the locks and the counters.
#[derive(Debug)]
struct TableWrites {
    /// The write locks of the transaction, sorted, one for each relation.
    locks: Vec<WriteLock>,
    /// The tables for which the server has counted changed rows, in the server's order. Empty if the counters are not complete.
    counted_tables: Vec<u32>,
    /// Whether the counters have every change of the heap tables (`Counters::find`).
    are_complete: bool,
    /// The relations that the transaction has written: those that it has locked as a writer, except `unchanged`. Sorted.
    relations: Vec<u32>,
    /// The relations that the transaction has locked in mode ROW EXCLUSIVE only, and of which it has changed no rows. Sorted.
    unchanged: Vec<u32>,
    /// The relations that the transaction has locked in mode ROW EXCLUSIVE only, and for which the server can count changed rows
    /// (`Evidence::Counters`), whether it has counted any or not. Sorted.
    countable: Vec<u32>,
    /// The fences of `relations`, sorted, without bulk fences.
    fences: Vec<FenceId>,
    /// The bulk fences of `relations` and of the tables above them, each with the relation that was written.
    bulk: Vec<(u32, FenceId)>,
    /// Whether one of `relations` may have tables above it.
    has_parts: bool,
    /// Those of `bulk` that the commit under way has not raised, because all changed rows were reported (`reported_rows.rs`).
    spared: Vec<(u32, FenceId)>,
    /// The value of `relation::generation` from before the search for the fences. None if the search did not finish.
    generation: Option<u64>,
    /// The value of `Fences::claim_count`, which grows when a relation is given a record, from before the search for the fences.
    claims: u64,
    /// The stamp as of which this session knows the inheritance trees. Trees may have grown since.
    trees: Stamp,
    /// Whether the commit that is under way has raised these fences.
    raised: bool,
    /// The counters of the transaction whose commit is under way.
    counters: Counters,
    /// The value of `row_changes::switches` from before the commit raised the fences.
    switches: u64,
    /// The write locks at the last look, in the order in which the walk passed them, before they were sorted into `locks`.
    passed: Vec<WriteLock>,
    /// The buffer into which the locks are read.
    found: Vec<WriteLock>,
}

local! {
    static TABLE_WRITES: RefCell<TableWrites> = RefCell::new(TableWrites {
        locks: Vec::new(),
        counted_tables: Vec::new(),
        are_complete: false,
        relations: Vec::new(),
        unchanged: Vec::new(),
        countable: Vec::new(),
        fences: Vec::new(),
        bulk: Vec::new(),
        has_parts: false,
        spared: Vec::new(),
        generation: None,
        claims: 0,
        trees: Stamp::VOID,
        raised: false,
        counters: Counters::NONE,
        switches: 0,
        passed: Vec::new(),
        found: Vec::new(),
    });
}

/// Calls `call` with the fences of the relations written so far, sorted. `call` must not use other functions of this file, because
/// the list is borrowed. May raise errors before the call.
pub fn with_fences<R>(tier: &HotTier, call: impl FnOnce(&[FenceId]) -> R) -> R {
    TABLE_WRITES.with_borrow_mut(|written| {
        let counters = written.refresh(tier, find_counters());
        call(&written.all_fences(counters))
    })
}

/// Returns the first relation for which `is_wanted` is true and that the transaction has written, itself or in a child. May raise
/// errors.
pub fn first_written(tier: &HotTier, is_wanted: impl Fn(&u32) -> bool) -> Option<u32> {
    let own = TABLE_WRITES.with_borrow_mut(|written| {
        written.refresh(tier, find_counters());
        memory::copy(&written.relations)
    });
    own.into_iter().find_map(|own| {
        if is_wanted(&own) {
            return Some(own);
        }
        match relation::of(own) {
            relation::Relation::Rows { ancestors, .. } => ancestors.iter().copied().find(&is_wanted),
            _ => None,
        }
    })
}

/// Returns the fences that a write to these relations raises, sorted, and the stamp as of which this session knows the
/// inheritance trees above them. The stamp is `LATEST` if none of the relations can have a table above it. May raise errors.
pub fn fences_of_relations(tier: &HotTier, relations: &[u32], look: Look) -> (Vec<FenceId>, Stamp) {
    let trees = renew_trees(tier);
    let mut fences = Vec::new();
    add_fences(tier, relations, |oid| look.fences(tier, oid), &mut fences);
    let has_parts = relations.iter().any(|oid| relation::may_be_part(*oid));
    (fences, if has_parts { trees } else { Stamp::LATEST })
}

/// Forgets what this session knows of inheritance if a tree has grown since it learned that. Returns the stamp as of which the
/// session now knows the trees.
pub fn renew_trees(tier: &HotTier) -> Stamp {
    TABLE_WRITES.with_borrow_mut(|written| {
        written.renew_trees(tier);
        written.trees
    })
}

impl TableWrites {
    /// See the function of the same name. May raise errors.
    fn renew_trees(&mut self, tier: &HotTier) {
        if trees::have_grown(tier, self.trees, false) {
            // The stamp must be taken first: a tree that grows after it is then found to have grown. The session must forget the
            // trees itself, because no invalidation message may tell of the change: if a parent has no columns, its new child's
            // own catalog rows stay as they are.
            self.trees = tier.fences().now();
            invalidations::accept_messages();
            relation::forget_all();
        }
    }

    /// Reads the locks. Finds the fences again if something has changed since the last look: the locked relations, their
    /// inheritance, which of them have changed rows by the given counters, or which relations have a record. Returns the counters.
    /// May raise errors.
    fn refresh(&mut self, tier: &HotTier, counters: Option<Counters>) -> Counters {
        if locks::has_written() {
            self.renew_trees(tier);
            if !locks::are_written(&self.passed) {
                self.read_locks();
            }
        } else if !self.passed.is_empty() {
            self.passed.clear();
            self.locks.clear();
            self.forget_fences();
        }
        let (are_complete, counters) = (counters.is_some(), counters.unwrap_or(Counters::NONE));
        if self.generation != Some(relation::generation())
            || self.are_complete != are_complete
            || !counters.relations().eq(self.counted_tables.iter().copied())
        {
            self.generation = None;
            self.are_complete = are_complete;
            counters.list(&mut self.counted_tables);
            self.resolve(tier);
        } else if self.claims != tier.fences().claim_count() {
            self.resolve(tier);
        }
        counters
    }

    /// Reads the locks into `passed` and `locks`, and forgets the fences if `locks` has changed. May raise errors, before it has
    /// changed anything.
    #[cold]
    fn read_locks(&mut self) {
        let Self { passed, found, .. } = self;
        find_passed(found, |walk| locks::each_written(|lock| walk.add(lock)));
        memory::reserve(passed, found.len());
        passed.clear();
        passed.extend_from_slice(found);
        found.sort_unstable();
        found.dedup_by_key(|lock| lock.relation());
        if self.found != self.locks {
            std::mem::swap(&mut self.found, &mut self.locks);
            self.forget_fences();
        }
    }

    /// Forgets the fences, because the locks have changed. Must be done together with that change: an error may end the look
    /// before it has found the new fences, and the next look then finds the same locks.
    fn forget_fences(&mut self) {
        (self.generation, self.raised) = (None, false);
    }

    /// Finds the fences of the relations. `Fences::claim_count` and `relation::generation` must be read before the search. If a
    /// relation is given a record or a message arrives during the search, the next look then finds the fences again; otherwise a
    /// commit would leave a fence out. May raise errors.
    #[cold]
    fn resolve(&mut self, tier: &HotTier) {
        (self.generation, self.raised) = (None, false);
        self.claims = tier.fences().claim_count();
        let generation = relation::generation();
        self.divide_relations();
        self.fences.clear();
        add_fences(tier, &self.relations, |oid| Some(fence_of(tier, oid)), &mut self.fences);
        let Self { relations, bulk, .. } = self;
        bulk.clear();
        each_bulk(tier, relations, |oid, fence| memory::push(bulk, (oid, fence)));
        self.has_parts = relations.iter().any(|oid| relation::may_be_part(*oid));
        self.generation = Some(generation);
    }

    /// Returns whether the trigger (`store/row_tags.rs`) has reported all changed rows of a relation: as many as the server has
    /// counted. Cannot fail.
    fn is_reported(&self, relation: u32, counters: Counters) -> bool {
        self.are_complete
            && self.countable.binary_search(&relation).is_ok()
            && (reported_rows::of(relation)
                .is_some_and(|reported| counters.rows(relation) == Some((reported.old, reported.new)))
                || settings::broken() == Broken::Unreported)
    }

    /// Returns the fences of the relations and the bulk fences that must be raised, sorted. May raise errors.
    fn all_fences(&self, counters: Counters) -> Cow<'_, [FenceId]> {
        if self.bulk.is_empty() {
            return Cow::Borrowed(&self.fences);
        }
        let unreported = self.bulk.iter().filter(|(relation, _)| !self.is_reported(*relation, counters));
        let unreported = memory::collect(unreported.map(|(_, fence)| *fence));
        if unreported.is_empty() {
            return Cow::Borrowed(&self.fences);
        }
        let mut all = memory::joined(&self.fences, &unreported);
        all.sort_unstable();
        all.dedup();
        Cow::Owned(all)
    }

    /// Returns [`all_fences`](Self::all_fences), and notes in `spared` which bulk fences the commit does not raise. May raise
    /// errors.
    #[inline]
    fn fences_to_raise(&mut self) -> Cow<'_, [FenceId]> {
        self.spared.clear();
        if self.bulk.is_empty() {
            return Cow::Borrowed(&self.fences);
        }
        let is_reported = |(relation, _): &&(u32, FenceId)| self.is_reported(*relation, self.counters);
        self.spared = memory::collect(self.bulk.iter().filter(is_reported).copied());
        self.all_fences(self.counters)
    }

    /// Returns whether the commit under way has raised the fences of every relation that the transaction has locked as a writer by
    /// now: the locks are still those of the last look, and all of them count as changes. Cannot fail.
    fn has_raised_all(&self) -> bool {
        self.raised && self.unchanged.is_empty() && self.spared.is_empty() && locks::are_written(&self.passed)
    }

    /// Calls `with` with the fences of relations that were written after the commit has raised its fences. Returns whether one of
    /// them has tables above it. Like the function of the same name, it must not ask the server, allocate or fail.
    #[cold]
    fn each_late_fence(&self, tier: &HotTier, with: &mut impl FnMut(FenceId)) -> bool {
        let (mut are_all_known, mut has_parts) = (true, false);
        let mut add = |oid| match relation::remembered(oid) {
            Some(relation::Relation::Irrelevant | relation::Relation::Catalog) => {}
            Some(relation::Relation::Rows { ancestors, .. }) => {
                has_parts |= !ancestors.is_empty();
                for oid in std::iter::once(oid).chain(ancestors.iter().copied()) {
                    with(fence_of(tier, oid));
                    bulk_of(tier, oid).into_iter().for_each(&mut *with);
                }
            }
            None => are_all_known &= relation::was_temporary(oid),
        };
        // A relation that was unchanged before the commit may have been changed since. The counters show it, unless they have been
        // switched off.
        let is_counted = self.raised && self.switches == row_changes::switches();
        let was_unchanged = |oid: u32| is_counted && self.unchanged.binary_search(&oid).is_ok();
        locks::each_written(|lock| {
            let oid = lock.relation();
            let was_raised = self.raised && self.relations.binary_search(&oid).is_ok();
            let is_covered = was_raised || lock.is_weak() && was_unchanged(oid);
            if !is_covered {
                add(oid);
            }
        });
        if is_counted {
            self.counters.relations().filter(|oid| was_unchanged(*oid)).for_each(&mut add);
        }
        // Since the commit spared these bulk fences, other libraries may have changed rows without the trigger.
        let spared = self.spared.iter().filter(|_| self.raised);
        let is_reported = |oid| is_counted && self.is_reported(oid, self.counters);
        spared.filter(|(oid, _)| !is_reported(*oid)).for_each(|(_, fence)| with(*fence));
        if !are_all_known {
            // The relation may have any table as its parent, and the catalogs must not be read any more, so the whole database is
            // invalidated.
            with(tier.fences().reserved(Reserved::Database(shared::database())));
        }
        has_parts
    }

    /// Divides the locked relations into those that count as changed and those that are unchanged. May raise errors.
    fn divide_relations(&mut self) {
        let mut counted = memory::copy(&self.counted_tables);
        counted.sort_unstable();
        self.relations.clear();
        self.unchanged.clear();
        self.countable.clear();
        for lock in &self.locks {
            let oid = lock.relation();
            let of_relation = relation::of(oid);
            if lock.is_weak()
                && matches!(of_relation, relation::Relation::Rows { evidence: Evidence::Counters, .. })
            {
                memory::push(&mut self.countable, oid);
            }
            let is_unchanged = lock.is_weak()
                && match of_relation {
                    relation::Relation::Rows { evidence: Evidence::Counters, .. } => {
                        self.are_complete
                            && (counted.binary_search(&oid).is_err()
                                || settings::broken() == Broken::Uncounted)
                    }
                    relation::Relation::Rows { evidence: Evidence::NoRows, .. } => true,
                    _ => false,
                };
            memory::push(if is_unchanged { &mut self.unchanged } else { &mut self.relations }, oid);
        }
    }
}

/// Returns the server's counters of the rows that the transaction has changed. None if the transaction has written nothing, or if
/// they are not complete. May raise errors.
pub fn find_counters() -> Option<Counters> {
    locks::has_written().then(Counters::find).flatten()
}

/// Calls `call` with the fences that a commit must raise, sorted. `call` must raise them, and must not use other functions of this
/// file. `counters` has the counters of the transaction, if it has written and they are complete. May raise errors before the call.
pub fn before_commit<R>(tier: &HotTier, counters: Option<Counters>, call: impl FnOnce(&[FenceId]) -> R) -> R {
    if [Broken::Late, Broken::Never, Broken::Unseen].contains(&settings::broken()) {
        check_targets_are_fenced(tier, &[], &[], None);
        return call(&[]);
    }
    TABLE_WRITES.with_borrow_mut(|written| {
        written.switches = row_changes::switches();
        written.counters = written.refresh(tier, counters);
        check_targets_are_fenced(
            tier,
            &written.fences,
            &written.unchanged,
            Some((written.claims, written.generation)),
        );
        written.raised = true;
        call(&written.fences_to_raise())
    })
}

/// Returns all fences that the commit must raise, if a relation was given a record since they were found. Must be called after
/// the fences were raised, and again until it returns none. May raise errors.
pub fn fences_claimed_meanwhile(tier: &HotTier) -> Option<Vec<FenceId>> {
    TABLE_WRITES.with_borrow_mut(|written| {
        if !written.raised || written.claims == tier.fences().claim_count() {
            return None;
        }
        written.resolve(tier);
        written.raised = true;
        Some(written.fences_to_raise().into_owned())
    })
}

/// Returns all fences that the commit must raise, for a commit that has looked [`LOOKS_MAX`] times. Gives a record to each
/// relation, so that the commit need not look again. May raise errors.
pub fn claim_all(tier: &HotTier) -> Vec<FenceId> {
    let relations = TABLE_WRITES.with_borrow(|written| memory::copy(&written.relations));
    fences_of_relations(tier, &relations, Look::Final).0
}

/// Returns the fences that a transaction must raise if it is prepared by C code and not by a command, as for a subscription with
/// `two_phase` (`prepared/unnamed.rs`). Also returns the stamp as of which this session knows the trees above the relations. Gives
/// each relation a record, because the session does not look again. Relations that are unchanged so far also count, because
/// callbacks of other libraries may still change them. May raise errors.
pub fn before_unnamed_prepare(tier: &HotTier) -> (Vec<FenceId>, Stamp) {
    if [Broken::Never, Broken::Unseen].contains(&settings::broken()) {
        return (Vec::new(), Stamp::LATEST);
    }
    let relations = TABLE_WRITES.with_borrow_mut(|written| {
        written.refresh(tier, find_counters());
        memory::collect(written.locks.iter().map(|lock| lock.relation()))
    });
    fences_of_relations(tier, &relations, Look::Final)
}

/// Returns the relations that a transaction to be prepared has locked as a writer and not changed. Checks in debug builds that
/// there is a fence for every other relation that its statements have named as their target. May raise errors.
pub fn before_prepare(tier: &HotTier) -> Vec<u32> {
    if [Broken::Never, Broken::Unseen].contains(&settings::broken()) {
        check_targets_are_fenced(tier, &[], &[], None);
        return Vec::new();
    }
    TABLE_WRITES.with_borrow_mut(|written| {
        written.switches = row_changes::switches();
        written.counters = written.refresh(tier, find_counters());
        check_targets_are_fenced(
            tier,
            &written.fences,
            &written.unchanged,
            Some((written.claims, written.generation)),
        );
        memory::copy(&written.unchanged)
    })
}

/// Calls `call` with a function that tells whether a relation that was unchanged in [`before_prepare`] may have been changed since.
/// Must be called while the transaction's counters are still there. Cannot fail, and neither must `call`.
pub fn with_changed_since(call: impl FnOnce(&dyn Fn(u32) -> bool)) {
    TABLE_WRITES.with_borrow(|written| {
        let is_counted = written.switches == row_changes::switches();
        call(&|oid| !is_counted || written.counters.relations().any(|counted| counted == oid));
    });
}

/// Makes the next look find the fences again.
#[cfg(feature = "measure")]
pub fn forget() {
    TABLE_WRITES.with_borrow_mut(|written| written.generation = None);
}

/// Notes that the commit, or the abort, is over. Cannot fail.
pub fn end() {
    if let Ok(mut written) = TABLE_WRITES.try_borrow_mut() {
        written.raised = false;
    }
}

/// Checks in debug builds that the fences include those of every relation that a statement has named as its target
/// (`pg/targets.rs`). A target in `_unchanged` needs no fence, because none of its rows have changed. But if a statement has
/// processed rows of the target, these rows have changed, so the target needs its fences even if it is in `_unchanged`.
///
/// `_as_of` has `Fences::claim_count` and `relation::generation` from before the fences were found. If a relation was given a
/// record since, or the session has learned that a tree has grown, the fences cannot be compared: the commit looks again itself, or
/// raises the fence of trees.
fn check_targets_are_fenced(
    _tier: &HotTier,
    _fences: &[FenceId],
    _unchanged: &[u32],
    _as_of: Option<(u64, Option<u64>)>,
) {
    #[cfg(debug_assertions)]
    if locks::has_written() && ![Broken::Late, Broken::Never, Broken::Uncounted].contains(&settings::broken())
    {
        let is_missing = |oid: &u32| {
            let mut fences = Vec::new();
            add_fences(_tier, &[*oid], |oid| Some(fence_of(_tier, oid)), &mut fences);
            fences.iter().any(|fence| _fences.binary_search(fence).is_err())
        };
        let named = targets::named().into_iter().filter(|oid| _unchanged.binary_search(oid).is_err());
        let missing = named.chain(targets::changed()).find(is_missing);
        let now = || (_tier.fences().claim_count(), Some(relation::generation()));
        let comparable = || _as_of.is_none_or(|as_of| as_of == now());
        if let Some(oid) = missing.filter(|_| comparable()) {
            let code = pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
            Refused::new(code, format!("relation {oid} is written to and not fenced")).raise();
        }
    }
}

/// Calls `with` with the fences of relations that have changed after [`before_commit`] (`transaction_events::may_change_late`).
/// Raising these fences is late, but better than not invalidating at all. Returns the stamp as of which this session knows the
/// tables above the written relations ([`trees::have_grown`]). Returns None if there can be no tables above them. Runs in the
/// COMMIT callback: it must not ask the server, allocate or fail, and neither must `with`.
pub fn each_late_fence(tier: &HotTier, mut with: impl FnMut(FenceId)) -> Option<Stamp> {
    match settings::broken() {
        Broken::Off | Broken::Early | Broken::Unreported => {}
        // During this pause other sessions see changes that have no fence.
        Broken::Late => std::thread::sleep(std::time::Duration::from_millis(2)),
        Broken::Never | Broken::Unseen | Broken::Uncounted => return None,
    }
    TABLE_WRITES.with_borrow(|written| {
        let has_raised_all =
            written.raised && !transaction_events::may_change_late() || written.has_raised_all();
        let has_late_parts = !has_raised_all && written.each_late_fence(tier, &mut with);
        // The lock on a written relation prevents that it is given new parents. A tree can only grow above its ancestors.
        (has_late_parts || written.raised && written.has_parts).then_some(written.trees)
    })
}
