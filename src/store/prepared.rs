//! The changes of prepared transactions, until another session, perhaps in another life of the server, commits them.
//!
//! While a transaction is merely prepared, none of its changes is visible, and the cache stays as it is. Its values are dropped. What it
//! has changed is found again at COMMIT PREPARED:
//! - *relations* by the locks, which the server keeps for a prepared transaction, also across a restart (`pg/locks.rs`);
//! - *fences and keys* that it has changed in the cache by a record in shared memory (`pg/prepared.rs`).
//!
//! Around COMMIT PREPARED
//! - the fences are raised, and lowered with a new number whether the command succeeds or not, because an error may come after the
//!   commit;
//! - the keys are removed. Other sessions may have found the old value before the commit and be reading it after it, so the fences of
//!   the keys' spaces are raised too, and only withdrawn afterwards: the other keys of the space miss for as long as the command takes,
//!   and are hits again.
//!
//! A transaction without a record was prepared in an earlier life of the server. What it has changed in the cache is unknown, so
//! everything of its database is invalidated, and everything that depends on roles in all databases.
//!
//! *Transactions are known by their ids.* A name may be given to another transaction at any moment, so the session that ends one
//! asks the server for the transaction's id and finds the record by that. Until the command is over, the record keeps the name: another
//! transaction that is to be prepared under it is refused, as it would have been a moment before. One that has a record of the same
//! name already, and waits for the server to give it the name, is let through first.
//!
//! *Without a command*: a subscription with `two_phase` prepares and ends transactions in C. Their fences are raised from their preparation
//! on, and lowered with a new number as soon as a session sees that they are over: an apply worker looks at the end of each of its
//! transactions, and so does each session that prepares or ends a transaction or writes anything. A transaction is over when it has
//! released its locks, because its catalog invalidations are sent after its id has ended. What was prepared in an earlier life is
//! found by its locks by each apply worker before its first commit.

use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::local::local;
use crate::pg::prepared::{self, FENCES_MAX, MARKS_MAX, Record, State, Table};
use crate::pg::{locks, memory, shared};
use crate::store::written::{self, LOOKS_MAX};
use pg_cache_core::{FenceId, KeyMark, Reserved, Stamp};
use pgrx::pg_sys::TransactionId;
use pgrx::prelude::PgSqlErrorCode;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::time::Duration;

local! {
    static AT: RefCell<At> = RefCell::new(At::Nothing);
    /// Whether this session has looked for transactions that were prepared in an earlier life.
    static ADOPTED: Cell<bool> = Cell::new(false);
}

/// What this session is doing.
#[derive(Debug)]
enum At {
    Nothing,
    /// Its transaction is to be prepared under this name.
    Named(Box<[u8]>),
    /// Its transaction has this record and is being prepared.
    Recorded(usize),
    /// The same under an unknown name. The record's fences are raised.
    Unnamed(usize),
    Ending(Ending),
}

/// An attempt to end a prepared transaction. Its fences are raised.
#[derive(Debug, Default)]
struct Ending {
    record: Option<usize>,
    /// The relations that it has written.
    relations: Vec<u32>,
    /// The fences that it has changed in the cache, by its record.
    recorded: Vec<FenceId>,
    changed: Vec<KeyMark>,
    /// The raised fences: those of the relations, the recorded ones, and those of the spaces of the changed keys.
    raised: Vec<FenceId>,
    spaces: Vec<FenceId>,
    /// Since when inheritance trees may have grown above the relations that it has written.
    trees: Option<Stamp>,
}

/// Whether this session has nothing to do with prepared transactions. Cannot fail.
#[inline]
pub fn has_nothing() -> bool {
    AT.try_borrow().is_ok_and(|at| matches!(*at, At::Nothing)) && !prepared::is_applier()
}

/// The transaction is to be prepared under this name, if nothing fails before its end.
pub fn preparing(gid: &[u8]) {
    AT.replace(At::Named(gid.into()));
}

/// A prepared transaction is about to be ended by a command. May raise errors.
pub fn ending(gid: &[u8], commits: bool) {
    if shared::tier().is_none() {
        return;
    }
    match commits {
        true => committing(gid),
        false => _ = AT.replace(At::Ending(Ending::of_name(gid))),
    }
    AT.with_borrow_mut(|at| {
        if let At::Ending(ending) = at {
            ending.raise();
        }
    });
}

/// Finds what COMMIT PREPARED of a name is going to make visible. An error after that is followed by `over`. Raises the server's own
/// errors where the command is going to fail, so that a role invalidates nothing by a command that it must not run.
fn committing(gid: &[u8]) {
    loop {
        let found = prepared::find(gid).unwrap_or_else(|| unknown(gid).raise());
        if !found.may_end {
            denied().raise();
        }
        if !found.is_here {
            return;
        }
        // A prepared transaction keeps its locks, so this does not depend on when it is done.
        let relations = locks::of_prepared().into_iter().filter(|(xid, _)| *xid == found.xid);
        let relations = memory::collect(relations.flat_map(|(_, relations)| relations));
        let is_still_it = || prepared::find(gid).is_some_and(|again| again.xid == found.xid);
        match Ending::find(found.xid, gid) {
            // The record keeps the name now. It may have outlived its transaction, if another session failed after ending that.
            Found::Recorded(ending) => {
                AT.replace(At::Ending(Ending { relations, ..ending }));
                if is_still_it() {
                    return;
                }
                if let At::Ending(ending) = AT.replace(At::Nothing) {
                    ending.release(false);
                }
            }
            Found::Busy => busy(gid).raise(),
            Found::Contested => pause(),
            // A record outlives its transaction, so one that is still there without a record is of an earlier life. Otherwise another
            // session has ended it meanwhile, and perhaps there is a next one of the name.
            Found::Nothing if is_still_it() => {
                AT.replace(At::Ending(Ending { recorded: everything(), ..Ending::default() }));
                return;
            }
            Found::Nothing => {}
        }
    }
}

/// Lets a session go on that is preparing a transaction: it gets its name or an error soon, and waits for no other session before.
fn pause() {
    shared::check_for_interrupts();
    std::thread::sleep(Duration::from_millis(1));
}

/// The command has succeeded.
pub fn ended() {
    if let At::Ending(ending) = AT.replace(At::Nothing) {
        ending.settle(true);
    }
    settle_unnamed();
}

fn denied() -> Refused {
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Refused::new(code, "permission denied to finish prepared transaction")
        .hint("Must be superuser or the user that prepared the transaction.")
}

fn unknown(gid: &[u8]) -> Refused {
    Refused::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("prepared transaction with identifier \"{}\" does not exist", shown(gid)),
    )
}

fn busy(gid: &[u8]) -> Refused {
    Refused::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("prepared transaction with identifier \"{}\" is busy", shown(gid)),
    )
}

/// In the server's words: there are more records than transactions may be prepared.
fn no_room() -> Refused {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    Refused::new(code, "maximum number of prepared transactions reached")
        .hint("Increase max_prepared_transactions.")
}

/// The fences of all that a transaction of this database can have changed: whatever is cached in the database, and what depends on
/// roles in the others.
fn everything() -> Vec<FenceId> {
    let fences = |reserved: [Reserved; 2]| {
        shared::tier().map(|tier| reserved.map(|what| tier.fences().reserved(what))).into_iter().flatten()
    };
    fences([Reserved::Database(shared::database()), Reserved::Roles]).collect()
}

/// Writes down what the transaction that is about to be prepared has changed in the cache. The last step on our side that can fail;
/// other steps may still fail.
pub fn record(fences: Vec<FenceId>, mut marks: Vec<KeyMark>) -> Result<(), Refused> {
    marks.sort_unstable();
    marks.dedup();
    let At::Named(gid) = AT.replace(At::Nothing) else {
        return record_unnamed(memory::collect(fences.into_iter().chain(spaces_of(&marks))));
    };
    let (fences, marks) = bounded(fences, marks);
    let own = prepared::own_xid();
    let ended = ended_unnoticed();
    let written = prepared::with_table(|Table { records, .. }| {
        if records.iter().any(|record| record.is_of(&gid) && record.enders > 0) {
            return Err(Refused::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("transaction identifier \"{}\" is already in use", shown(&gid)),
            ));
        }
        let (number, record) = free(records, &ended).ok_or_else(no_room)?;
        record.write(own, &gid, &fences, &marks);
        Ok(number)
    });
    // Without a table nothing can be prepared, and the server says so.
    if let Some(number) = written.transpose()? {
        AT.replace(At::Recorded(number));
    }
    Ok(())
}

/// The same for a transaction that is not prepared by the command.
fn record_unnamed(mut fences: Vec<FenceId>) -> Result<(), Refused> {
    let Some(tier) = shared::tier() else { return Ok(()) };
    let (relations, trees) = written::before_unnamed_prepare(tier);
    memory::reserve(&mut fences, relations.len());
    fences.extend(relations);
    fences.sort_unstable();
    fences.dedup();
    settle_unnamed();
    let (fences, _) = bounded(fences, Vec::new());
    let own = prepared::own_xid();
    let ended = ended_unnoticed();
    let written = prepared::with_table(|Table { records, .. }| {
        let (number, record) = free(records, &ended)?;
        record.write(own, &[], &fences, &[]);
        record.trees = trees;
        fences.iter().for_each(|fence| tier.fences().raise(*fence));
        Some(number)
    });
    if let Some(number) = written {
        AT.replace(At::Unnamed(number.ok_or_else(no_room)?));
    }
    Ok(())
}

/// A record for a transaction: a free one, or that of a transaction that has ended unnoticed.
fn free<'r>(records: &'r mut [Record], ended: &[TransactionId]) -> Option<(usize, &'r mut Record)> {
    let is_free = |record: &Record| match record.state() {
        State::Free => true,
        State::Prepared => record.enders == 0 && ended.contains(&record.xid),
        _ => false,
    };
    records.iter_mut().enumerate().find(|(_, record)| is_free(record))
}

/// The recorded transactions that are prepared no more, if every record is taken. May raise errors.
fn ended_unnoticed() -> Vec<TransactionId> {
    let prepared = prepared::with_table(|Table { records, .. }| {
        if records.iter().any(|record| record.state() == State::Free) {
            return Ok(Vec::new());
        }
        let prepared = records.iter().filter(|record| record.state() == State::Prepared);
        memory::try_collect(prepared.map(|record| record.xid))
    });
    let mut ended = prepared.unwrap_or(Ok(Vec::new())).unwrap_or_else(|short| short.raise());
    ended.retain(|xid| !prepared::is_in_progress(*xid));
    ended
}

/// Lowers the fences of the unnamed transactions that are over. May raise errors.
#[inline]
pub fn settle_unnamed() {
    if prepared::has_unnamed() {
        settle();
    }
}

#[cold]
fn settle() {
    let Some(tier) = shared::tier() else { return };
    let is_unnamed = |record: &Record| record.state() == State::Unnamed;
    let waiting = prepared::with_table(|Table { records, .. }| {
        memory::try_collect(records.iter().filter(|record| is_unnamed(record)).map(|record| record.xid))
    });
    let mut over = waiting.unwrap_or(Ok(Vec::new())).unwrap_or_else(|short| short.raise());
    over.retain(|xid| prepared::is_over(*xid));
    if over.is_empty() {
        return;
    }
    prepared::with_table(|Table { unnamed, records }| {
        let number = tier.fences().draw();
        for record in records.iter_mut().filter(|record| is_unnamed(record) && over.contains(&record.xid)) {
            if written::have_grown(tier, record.trees, false) {
                written::invalidate_trees(tier);
            }
            for fence in record.fences() {
                let _ = tier.lower_as(*fence, number);
            }
            record.set_state(State::Free);
            unnamed.fetch_sub(1, Ordering::Relaxed);
        }
    });
}

/// A transaction of this session is about to commit. An apply worker may have ended a prepared transaction in it, or be about to. May
/// raise errors.
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

/// Gives a record to each transaction that was prepared in an earlier life, with its fences raised.
#[cold]
fn adopt() {
    let Some(tier) = shared::tier() else { return };
    for (xid, relations) in locks::of_prepared() {
        let claim = |number| written::claimed_fence_of(tier, number);
        let (fences, trees) = written::of_relations(tier, &relations, claim);
        let (fences, _) = bounded(fences, Vec::new());
        if !prepared::is_in_progress(xid) {
            continue;
        }
        let ended = ended_unnoticed();
        let recorded = prepared::with_table(|Table { unnamed, records }| {
            if records.iter().any(|record| record.state() != State::Free && record.xid == xid) {
                return true;
            }
            let Some((_, record)) = free(records, &ended) else { return false };
            record.write(xid, &[], &fences, &[]);
            record.trees = trees;
            record.set_state(State::Unnamed);
            unnamed.fetch_add(1, Ordering::Relaxed);
            // Another apply worker may end it as soon as it sees the record, so they are raised under the same lock.
            fences.iter().for_each(|fence| tier.fences().raise(*fence));
            true
        });
        if recorded == Some(false) {
            // The apply worker will be started again, when those who are preparing something now have done so.
            no_room().raise();
        }
    }
}

/// What fits into a record: instead of too many keys the fences of their spaces, and instead of too many fences that of the database,
/// with that of roles if they have changed. The keys must be in order.
fn bounded(mut fences: Vec<FenceId>, mut marks: Vec<KeyMark>) -> (Vec<FenceId>, Vec<KeyMark>) {
    if marks.len() > MARKS_MAX {
        let spaces = spaces_of(&marks);
        memory::reserve(&mut fences, spaces.len());
        fences.extend(spaces);
        marks.clear();
    }
    if fences.len() > FENCES_MAX {
        let roles = shared::tier().map(|tier| tier.fences().reserved(Reserved::Roles));
        let changes_roles = roles.is_some_and(|roles| fences.contains(&roles));
        fences = everything();
        fences.retain(|fence| changes_roles || Some(*fence) != roles);
        marks.clear();
    }
    (fences, marks)
}

/// The fences of the spaces that some keys are in, each once. The keys must be in order.
fn spaces_of(marks: &[KeyMark]) -> Vec<FenceId> {
    let Some(tier) = shared::tier() else { return Vec::new() };
    let space = |mark: &KeyMark| (mark.database, mark.space);
    let spaces = marks.chunk_by(|one, next| space(one) == space(next)).map(|marks| {
        let KeyMark { database, space, .. } = marks[0];
        tier.fences().reserved(Reserved::Space { database, space })
    });
    memory::collect(spaces)
}

/// The transaction is prepared now, and other sessions may end it from the next moment on. Must not fail.
pub fn stands() {
    let number = match AT.replace(At::Nothing) {
        At::Recorded(number) => number,
        At::Unnamed(number) => {
            prepared::with_table(|Table { unnamed, records }| {
                records[number].set_state(State::Unnamed);
                unnamed.fetch_add(1, Ordering::Relaxed);
            });
            return;
        }
        _ => return,
    };
    prepared::with_table(|Table { records, .. }| records[number].set_state(State::Prepared));
}

/// The transaction of this session has ended without being prepared. Must not fail.
#[inline]
pub fn over() {
    if !matches!(*AT.borrow(), At::Nothing) {
        abandon();
    }
}

/// A function of its own, because it is rare.
#[cold]
fn abandon() {
    match AT.replace(At::Nothing) {
        At::Recorded(number) => {
            prepared::with_table(|Table { records, .. }| records[number].set_state(State::Free));
        }
        At::Unnamed(number) => {
            prepared::with_table(|Table { records, .. }| {
                if let Some(tier) = shared::tier() {
                    records[number].fences().iter().for_each(|fence| tier.fences().withdraw(*fence));
                }
                records[number].set_state(State::Free);
            });
        }
        At::Ending(ending) => ending.settle(false),
        At::Nothing | At::Named(_) => {}
    }
}

fn retire(record: &mut Record) {
    record.set_state(if record.enders == 0 { State::Free } else { State::Gone });
}

enum Found {
    Recorded(Ending),
    /// The transaction is still being prepared.
    Busy,
    /// Another transaction is being prepared under the same name, and may have it when the server looks for it.
    Contested,
    Nothing,
}

impl Ending {
    /// What a transaction has changed by its record, which keeps the name from now on.
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
                Some((number, record)) => {
                    record.enders += 1;
                    Found::Recorded(Self {
                        record: Some(number),
                        recorded: record.fences().to_vec(),
                        changed: record.marks().to_vec(),
                        ..Self::default()
                    })
                }
            }
        });
        found.unwrap_or(Found::Nothing)
    }

    /// Keeps the record of a name until the command has rolled its transaction back.
    fn of_name(gid: &[u8]) -> Self {
        let record = prepared::with_table(|Table { records, .. }| {
            let is_it = |record: &Record| record.state() == State::Prepared && record.is_of(gid);
            let (number, record) = records.iter_mut().enumerate().find(|(_, record)| is_it(record))?;
            record.enders += 1;
            Some(number)
        });
        Self { record: record.flatten(), ..Self::default() }
    }

    /// May raise errors. What was raised before is lowered by `settle`.
    fn raise(&mut self) {
        let Some(tier) = shared::tier() else { return };
        let fences = tier.fences();
        let spaces = spaces_of(&self.changed);
        memory::reserve(&mut self.spaces, spaces.len());
        for space in spaces {
            fences.raise(space);
            self.spaces.push(space);
        }
        let mut wanted = std::mem::take(&mut self.recorded);
        for look in 1..=LOOKS_MAX {
            let claims = fences.claims();
            let fence = |number| match look {
                LOOKS_MAX => written::claimed_fence_of(tier, number),
                _ => written::fence_of(tier, number),
            };
            let (relations, trees) = written::of_relations(tier, &self.relations, fence);
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

    /// After the command, whether it has succeeded or not. Must not fail.
    fn settle(self, succeeded: bool) {
        if let Some(tier) = shared::tier() {
            if !self.spaces.is_empty() {
                self.changed.iter().for_each(|mark| tier.remove_marked(mark));
            }
            let grows = self.raised.contains(&written::trees(tier));
            if self.trees.is_some_and(|trees| written::have_grown(tier, trees, grows)) {
                written::invalidate_trees(tier);
            }
            if !self.raised.is_empty() {
                let number = tier.fences().draw();
                for fence in &self.raised {
                    let _ = tier.lower_as(*fence, number);
                }
            }
            self.spaces.iter().for_each(|fence| tier.fences().withdraw(*fence));
        }
        self.release(succeeded);
    }

    /// Lets go of the record. Must not fail.
    fn release(self, succeeded: bool) {
        prepared::with_table(|Table { records, .. }| {
            let Some(record) = self.record.map(|number| &mut records[number]) else { return };
            record.enders = record.enders.saturating_sub(1);
            // A failed attempt may have failed after the commit: the next attempt raises the same.
            if succeeded || record.state() == State::Gone {
                retire(record);
            }
        });
    }
}
