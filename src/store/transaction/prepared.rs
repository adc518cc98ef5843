//! The changes of prepared transactions, until a session commits them. That may be another session, and the server may have
//! restarted. A *fence* is a word in shared memory that says when something that values depend on last changed, and a *stamp* is a
//! number on the clock of changes (`docs/architecture.md`).
//!
//! While a transaction is only prepared, none of its changes is visible. Its cached values stay valid, unless it was prepared
//! without a command (see below). The values that it set are dropped. COMMIT PREPARED finds its changes again:
//! - *relations* by the locks, which the server keeps for a prepared transaction, also across a restart (`pg/locks.rs`). A record
//!   in shared memory (`pg/prepared.rs`) has the OIDs of locked relations of which the transaction has changed no rows: these are
//!   left out;
//! - *fences and keys* that it has changed in the cache, by the same record.
//!
//! Around COMMIT PREPARED
//! - the fences are raised before the command and lowered with a new stamp after it. They are lowered with a new stamp also
//!   when the command fails, because the error may come after the commit;
//! - the keys are removed after the command. Another session may have found the old value before the commit and still be reading
//!   it after the commit. So the fences of the keys' spaces are raised too, and withdrawn after the command: during the command,
//!   the other keys of these spaces are misses, and afterwards they are hits again.
//!
//! A transaction without a record was prepared before the server started. Its changes in the cache are unknown, so COMMIT PREPARED
//! invalidates everything in its database, and everything that depends on roles in all databases. It does the same for a
//! transaction that was prepared without a command.
//!
//! *A transaction is identified by its id.* Its name (gid) may be given to another transaction at any moment, so the session that
//! ends a transaction asks the server for its id and finds the record by the id. The record keeps the name until the command is
//! over: a transaction that is to be prepared under the same name is refused, as the server would have refused it a moment
//! before. If another transaction already has a record of the same name and waits for the server to give it the name, the session
//! lets it go first.
//!
//! *Without a command*: a subscription with `two_phase` prepares and ends transactions in C code. Their fences stay raised from the
//! preparation on. They are lowered with a new stamp as soon as a session sees that the transaction is over. An apply worker checks
//! this before each of its commits. Any session checks it before the commit of a transaction that has a transaction id, after
//! COMMIT PREPARED or ROLLBACK PREPARED has succeeded, and when it prepares a transaction without a command. A transaction is over
//! when it has released its locks, because the server sends its catalog invalidations after its id has ended. Each apply worker
//! looks, before its first commit, for the locks of transactions that were prepared before the server started.

use super::table_writes::{self, LOOKS_MAX, Look};
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::local::local;
use crate::pg::locks::{self, WriteLock};
use crate::pg::memory;
use crate::pg::prepared::{self, FENCES_MAX, MARKS_MAX, Record, State, Table};
use crate::pg::shared::{self, HotTier};
use crate::store::journal;
use pg_cache_core::{FenceId, KeyMark, Record as Change, Reserved, Stamp};
use pgrx::pg_sys::TransactionId;
use pgrx::prelude::PgSqlErrorCode;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::time::Duration;

local! {
    /// The two-phase command that this session is executing.
    static COMMAND: RefCell<Command> = RefCell::new(Command::Nothing);
    /// Whether this session has looked for transactions that were prepared before the server started.
    static ADOPTED: Cell<bool> = Cell::new(false);
}

/// The two-phase command that this session is executing.
#[derive(Debug)]
enum Command {
    Nothing,
    /// The session's transaction is to be prepared under this name.
    Named(Box<[u8]>),
    /// The session's transaction has this record and is being prepared.
    Recorded(usize),
    /// The session's transaction has this record and is being prepared without a command, so its name is unknown. The record's
    /// fences are raised.
    Unnamed(usize),
    /// The session is ending a prepared transaction.
    Ending(Ending),
}

/// An attempt to end a prepared transaction. Its fences are raised.
#[derive(Debug, Default)]
struct Ending {
    /// The slot of the transaction's record, if it has one.
    record: Option<usize>,
    /// The relations that the transaction has written.
    relations: Vec<u32>,
    /// The relations that the transaction has locked as a writer and not changed, from its record.
    unchanged: Vec<u32>,
    /// The fences that the transaction has changed in the cache, from its record.
    recorded: Vec<FenceId>,
    /// Whether the transaction has changed anything in the cache. The names of these changes are lost.
    has_changed_cache: bool,
    /// The keys that the transaction has changed, from its record.
    changed: Vec<KeyMark>,
    /// The raised fences of the relations and of the record. They are lowered with a new stamp.
    raised: Vec<FenceId>,
    /// The raised fences of the spaces of the changed keys. They are withdrawn.
    spaces: Vec<FenceId>,
    /// The stamp as of which this session knows the inheritance trees above the written relations. If a tree has grown since, the
    /// fences of the new ancestors may not be raised. So every entry that depends on an inheritance parent must be invalidated.
    trees: Option<Stamp>,
}

/// Returns whether this session has nothing to do with prepared transactions. Cannot fail.
#[inline]
pub fn has_nothing() -> bool {
    COMMAND.try_borrow().is_ok_and(|command| matches!(*command, Command::Nothing)) && !prepared::is_applier()
}

/// Notes that the transaction is to be prepared under this name, if nothing fails before its end.
pub fn preparing(gid: &[u8]) {
    COMMAND.replace(Command::Named(gid.into()));
}

/// Raises the fences before COMMIT PREPARED (`commits`). Before ROLLBACK PREPARED only finds the record. May raise errors.
pub fn ending(gid: &[u8], commits: bool) {
    if shared::tier().is_none() {
        return;
    }
    match commits {
        true => committing(gid),
        false => _ = COMMAND.replace(Command::Ending(Ending::of_name(gid))),
    }
    COMMAND.with_borrow_mut(|command| {
        if let Command::Ending(ending) = command {
            ending.raise();
        }
    });
}

/// Finds the changes that COMMIT PREPARED of a name is going to make visible. After an error, the server's abort calls `clean_up`.
/// Where the command is going to fail, this function raises the server's own error first, so that a role cannot invalidate
/// anything by a command that it must not run.
fn committing(gid: &[u8]) {
    loop {
        let found = prepared::find(gid).unwrap_or_else(|| unknown(gid).raise());
        if !found.may_end {
            denied().raise();
        }
        if !found.is_here {
            return;
        }
        // A prepared transaction keeps its locks, so it does not matter when they are read.
        let locks = locks::of_prepared().into_iter().filter(|(xid, _)| *xid == found.xid);
        let locks = memory::collect(locks.flat_map(|(_, locks)| locks));
        let is_still_it = || prepared::find(gid).is_some_and(|again| again.xid == found.xid);
        match Ending::find(found.xid, gid) {
            // The record keeps the name from here on. It may have outlived its transaction, if another session failed after
            // ending that.
            Found::Recorded(ending) => {
                let has_changed =
                    |lock: &WriteLock| !lock.is_weak() || !ending.unchanged.contains(&lock.relation());
                let relations = locks.into_iter().filter(has_changed).map(WriteLock::relation);
                let relations = memory::collect(relations);
                COMMAND.replace(Command::Ending(Ending { relations, ..ending }));
                if is_still_it() {
                    return;
                }
                if let Command::Ending(ending) = COMMAND.replace(Command::Nothing) {
                    ending.release(false);
                }
            }
            Found::Busy => busy(gid).raise(),
            Found::Contested => pause(),
            // A record outlives its transaction. So a transaction that still exists without a named record was prepared without a
            // command, or before the server started. Otherwise another session has ended it meanwhile, and a new transaction may
            // have the name: the loop tries again.
            Found::Nothing if is_still_it() => {
                COMMAND.replace(Command::Ending(Ending { recorded: all_fences(), ..Ending::default() }));
                return;
            }
            Found::Nothing => {}
        }
    }
}

/// Waits a millisecond for a session that is preparing a transaction. That session soon gets the name or an error, and waits for
/// no other session before that.
fn pause() {
    shared::check_for_interrupts();
    std::thread::sleep(Duration::from_millis(1));
}

/// Finishes after the command has succeeded.
pub fn ended() {
    if let Command::Ending(ending) = COMMAND.replace(Command::Nothing) {
        ending.settle(true);
    }
    settle_unnamed();
}

/// Returns the server's own error for a role that must not end the transaction.
fn denied() -> Refused {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Refused::new(code, "permission denied to finish prepared transaction")
        .hint("Must be superuser or the user that prepared the transaction.")
}

/// Returns the server's own error for a name that no prepared transaction has.
fn unknown(gid: &[u8]) -> Refused {
    Refused::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("prepared transaction with identifier \"{}\" does not exist", shown(gid)),
    )
}

/// Returns the server's own error for a transaction that is still being prepared.
fn busy(gid: &[u8]) -> Refused {
    Refused::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("prepared transaction with identifier \"{}\" is busy", shown(gid)),
    )
}

/// Returns an error like the server's own one, for the case that all records are taken: more transactions are prepared than the
/// server allows.
fn no_room() -> Refused {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    Refused::new(code, "maximum number of prepared transactions reached")
        .hint("Increase max_prepared_transactions.")
}

/// Returns the fences of everything that a transaction of this database can have changed: everything cached in the database, and
/// everything that depends on roles in the other databases.
fn all_fences() -> Vec<FenceId> {
    let fences = |reserved: [Reserved; 2]| {
        shared::tier().map(|tier| reserved.map(|what| tier.fences().reserved(what))).into_iter().flatten()
    };
    fences([Reserved::Database(shared::database()), Reserved::Roles]).collect()
}

/// Records the changes in the cache of the transaction that is about to be prepared. This is the last step of this library that can
/// fail; the server's own steps may still fail. `unchanged` holds the relations that the transaction has locked as a writer and not
/// changed.
pub fn record(fences: Vec<FenceId>, mut marks: Vec<KeyMark>, unchanged: &[u32]) -> Result<(), Refused> {
    marks.sort_unstable();
    marks.dedup();
    let Command::Named(gid) = COMMAND.replace(Command::Nothing) else {
        return record_unnamed(memory::collect(fences.into_iter().chain(spaces_of(&marks))));
    };
    let (fences, marks) = bound(fences, marks);
    let own = prepared::own_xid();
    let ended = ended_unnoticed();
    let written = prepared::with_table(|Table { records, .. }| {
        if records.iter().any(|record| record.is_of(&gid) && record.enders > 0) {
            return Err(Refused::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("transaction identifier \"{}\" is already in use", shown(&gid)),
            ));
        }
        let (slot, record) = find_free(records, &ended).ok_or_else(no_room)?;
        record.write(own, &gid, &fences, &marks);
        record.set_unchanged(unchanged);
        Ok(slot)
    });
    // Without a table of records no transaction can be prepared, and the server raises that error itself.
    if let Some(slot) = written.transpose()? {
        COMMAND.replace(Command::Recorded(slot));
    }
    Ok(())
}

/// Records a transaction that is prepared without a command, and raises its fences.
fn record_unnamed(mut fences: Vec<FenceId>) -> Result<(), Refused> {
    let Some(tier) = shared::tier() else { return Ok(()) };
    let (relations, trees) = table_writes::before_unnamed_prepare(tier);
    memory::reserve(&mut fences, relations.len());
    fences.extend(relations);
    fences.sort_unstable();
    fences.dedup();
    settle_unnamed();
    let (fences, _) = bound(fences, Vec::new());
    let own = prepared::own_xid();
    let ended = ended_unnoticed();
    let written = prepared::with_table(|Table { records, .. }| {
        let (slot, record) = find_free(records, &ended)?;
        record.write(own, &[], &fences, &[]);
        record.trees = trees;
        fences.iter().for_each(|fence| tier.fences().raise(*fence));
        Some(slot)
    });
    if let Some(slot) = written {
        COMMAND.replace(Command::Unnamed(slot.ok_or_else(no_room)?));
    }
    Ok(())
}

/// Returns a record that can be used for a new transaction: a free one, or the record of a transaction that has ended unnoticed.
fn find_free<'r>(records: &'r mut [Record], ended: &[TransactionId]) -> Option<(usize, &'r mut Record)> {
    let is_free = |record: &Record| match record.state() {
        State::Free => true,
        State::Prepared => record.enders == 0 && ended.contains(&record.xid),
        _ => false,
    };
    records.iter_mut().enumerate().find(|(_, record)| is_free(record))
}

/// Returns the recorded transactions that are not prepared any more. Returns an empty list if a record is free: then the caller
/// needs none of theirs. May raise errors.
fn ended_unnoticed() -> Vec<TransactionId> {
    let prepared = prepared::with_table(|Table { records, .. }| {
        if records.iter().any(|record| record.state() == State::Free) {
            return Ok(Vec::new());
        }
        let prepared = records.iter().filter(|record| record.state() == State::Prepared);
        memory::try_collect(prepared.map(|record| record.xid))
    });
    let mut ended = prepared.unwrap_or(Ok(Vec::new())).or_raise();
    ended.retain(|xid| !prepared::is_in_progress(*xid));
    ended
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
            if table_writes::have_trees_grown(tier, record.trees, false) {
                table_writes::invalidate_trees(tier);
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
        let (fences, _) = bound(fences, Vec::new());
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

/// Returns fences and keys that fit into a record. If there are too many keys, the fences of their spaces replace them. If there
/// are too many fences, the fence of the database replaces them, with the fence of roles if roles have changed. The keys must be
/// sorted.
fn bound(mut fences: Vec<FenceId>, mut marks: Vec<KeyMark>) -> (Vec<FenceId>, Vec<KeyMark>) {
    if marks.len() > MARKS_MAX {
        let spaces = spaces_of(&marks);
        memory::reserve(&mut fences, spaces.len());
        fences.extend(spaces);
        marks.clear();
    }
    if fences.len() > FENCES_MAX {
        let roles = shared::tier().map(|tier| tier.fences().reserved(Reserved::Roles));
        let changes_roles = roles.is_some_and(|roles| fences.contains(&roles));
        fences = all_fences();
        fences.retain(|fence| changes_roles || Some(*fence) != roles);
        marks.clear();
    }
    (fences, marks)
}

/// Returns the fences of the spaces of these keys, each once. The keys must be sorted.
fn spaces_of(marks: &[KeyMark]) -> Vec<FenceId> {
    let Some(tier) = shared::tier() else { return Vec::new() };
    let space = |mark: &KeyMark| (mark.database, mark.space);
    let spaces = marks.chunk_by(|one, next| space(one) == space(next)).map(|marks| {
        let KeyMark { database, space, .. } = marks[0];
        tier.fences().reserved(Reserved::Space { database, space })
    });
    memory::collect(spaces)
}

/// Marks the record as prepared. The transaction is prepared now, and other sessions may end it from this moment on. Removes from
/// the unchanged relations those that callbacks of other libraries have changed since `record`. Must not fail.
pub fn mark_prepared() {
    let slot = match COMMAND.replace(Command::Nothing) {
        Command::Recorded(slot) => slot,
        Command::Unnamed(slot) => {
            prepared::with_table(|Table { unnamed, records }| {
                records[slot].set_state(State::Unnamed);
                unnamed.fetch_add(1, Ordering::Relaxed);
            });
            return;
        }
        _ => return,
    };
    prepared::with_table(|Table { records, .. }| {
        table_writes::with_changed_since(|has_changed| records[slot].retain_unchanged(has_changed));
        records[slot].set_state(State::Prepared);
    });
}

/// Cleans up after this session's transaction has ended without being prepared. Must not fail.
#[inline]
pub fn clean_up() {
    if !matches!(*COMMAND.borrow(), Command::Nothing) {
        abandon();
    }
}

/// Undoes the two-phase command of this session, as far as it has begun. Must not fail.
#[cold]
fn abandon() {
    match COMMAND.replace(Command::Nothing) {
        Command::Recorded(slot) => {
            prepared::with_table(|Table { records, .. }| records[slot].set_state(State::Free));
        }
        Command::Unnamed(slot) => {
            prepared::with_table(|Table { records, .. }| {
                if let Some(tier) = shared::tier() {
                    records[slot].fences().iter().for_each(|fence| tier.fences().withdraw(*fence));
                }
                records[slot].set_state(State::Free);
            });
        }
        Command::Ending(ending) => ending.settle(false),
        Command::Nothing | Command::Named(_) => {}
    }
}

/// Frees a record. If other sessions still use it, marks it as gone, and the last of them frees it.
fn retire(record: &mut Record) {
    record.set_state(if record.enders == 0 { State::Free } else { State::Gone });
}

/// The result of looking for the record of a transaction that is to be ended.
enum Found {
    /// The transaction has a record.
    Recorded(Ending),
    /// The transaction is still being prepared.
    Busy,
    /// Another transaction is being prepared under the same name. The server may find that one under the name.
    Contested,
    /// There is no record with a name.
    Nothing,
}

impl Ending {
    /// Finds the changes of a transaction by its record. The record keeps the name from now on.
    fn find(xid: TransactionId, gid: &[u8]) -> Found {
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
    fn of_name(gid: &[u8]) -> Self {
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
    /// so get another fence. So `claims`, which grows with each such claim, is read before the lookup and compared after the raise,
    /// and the lookup is repeated if it differs. The last look claims a record for every relation, so that their fences stay the
    /// same. May raise errors; `settle` then lowers the fences that were raised before the error.
    fn raise(&mut self) {
        let Some(tier) = shared::tier() else { return };
        let fences = tier.fences();
        let spaces = spaces_of(&self.changed);
        memory::reserve(&mut self.spaces, spaces.len());
        for space in spaces {
            fences.raise(space);
            self.spaces.push(space);
        }
        self.has_changed_cache = self.changes_cache();
        let mut wanted = std::mem::take(&mut self.recorded);
        for look in 1..=LOOKS_MAX {
            let claims = fences.claims();
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
            if fences.claims() == claims {
                return;
            }
        }
    }

    /// Removes the changed keys and lowers the fences. Runs after the command, also if the command has failed. Must not fail.
    fn settle(self, succeeded: bool) {
        if let Some(tier) = shared::tier() {
            if !self.spaces.is_empty() {
                self.changed.iter().for_each(|mark| tier.remove_marked(mark));
            }
            // If the transaction has grown a tree itself, its own raise must not count as that of another transaction.
            let grows = self.raised.contains(&table_writes::trees_fence(tier));
            if self.trees.is_some_and(|trees| table_writes::have_trees_grown(tier, trees, grows)) {
                table_writes::invalidate_trees(tier);
            }
            if !self.raised.is_empty() {
                let stamp = tier.fences().draw();
                for fence in &self.raised {
                    let _ = tier.lower_as(*fence, stamp);
                }
            }
            self.spaces.iter().for_each(|fence| tier.fences().withdraw(*fence));
            // A change of roles concerns all databases.
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
    fn release(self, succeeded: bool) {
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
