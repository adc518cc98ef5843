//! What prepared transactions have changed, until somebody commits them: another session, perhaps in another life of the server.
//!
//! While a transaction is merely prepared nothing of it is visible, and what is cached is right. What it has set is forgotten, but
//! not that it has: around COMMIT PREPARED
//! - the fences that it has invalidated are raised, and lowered with a new number whether the command succeeds or not, because an
//!   error may come after the commit;
//! - the keys that it has changed are removed. Others may have found the old value before the commit and be reading it after it,
//!   so their spaces' fences are raised too, and only withdrawn afterwards: what else is there misses for as long as the command
//!   takes, and is a hit again.
//!
//! Every transaction that is prepared has a record, also one that has changed nothing. One without was prepared in an earlier life,
//! or when there was no free record: nobody knows what it has changed, so everything in the database is invalidated, on
//! which whatever it can have changed depends.
//!
//! *Names come back.* Who ends a transaction raises what the record says of which he found the name, but by the time the server
//! looks for the name it may have been ended by another and given to a third one. So
//! - a name is not prepared while somebody is at ending a transaction that has it, which is an error, as it would be a moment before;
//! - who finds a name that is being prepared invalidates everything.
//!
//! *Without a command*, as a subscription with `two_phase` does it, nobody tells us the name, and nobody of the end. Such a transaction's
//! fences are raised from its preparation on, and lowered with a new number as soon as somebody sees that it is over: who applies
//! what is sent looks at the end of each transaction of his, the next one too if he has died in between, and so does whoever
//! prepares or ends one or writes anything. What was prepared in an earlier life is found by its locks (`pg/locks.rs`) by each who applies,
//! before he can have ended anything.

use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::local::Local;
use crate::pg::prepared::{self, FENCES_MAX, MARKS_MAX, Record, State, Table, Whose};
use crate::pg::{locks, shared};
use crate::store::written;
use pg_cache_core::{FenceId, KeyMark, Reserved, Stamp};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;

static AT: Local<RefCell<At>> = Local::new(RefCell::new(At::Nothing));
/// Whether this session has looked for what was prepared in an earlier life.
static ADOPTED: Local<Cell<bool>> = Local::new(Cell::new(false));

/// What this session is at.
#[derive(Debug)]
enum At {
    Nothing,
    /// Its transaction is to be prepared under this name.
    Named(Box<[u8]>),
    /// That has a record, or has found none.
    Recorded(Box<[u8]>, Option<usize>),
    /// Its transaction is to be prepared under a name that nobody has told. Its record's fences are raised.
    Unnamed(usize),
    Ending(Ending),
}

/// The attempt to end a prepared transaction. Its fences are raised.
#[derive(Debug, Default)]
struct Ending {
    record: Option<usize>,
    invalidated: Vec<FenceId>,
    changed: Vec<KeyMark>,
    /// The fences of the spaces that these are in.
    spaces: Vec<FenceId>,
    /// As of when it is known what is above what it has written, if that is to become visible.
    trees: Option<Stamp>,
}

/// Whether this session has nothing to do with prepared transactions. Cannot fail.
#[inline]
pub fn has_nothing() -> bool {
    AT.try_borrow().is_ok_and(|at| matches!(*at, At::Nothing)) && !prepared::is_applier()
}

/// The transaction is to be prepared under this name, if nothing goes wrong until its end.
pub fn preparing(gid: &[u8]) {
    AT.replace(At::Named(gid.into()));
}

/// A prepared transaction is about to be ended. May raise errors.
pub fn ending(gid: &[u8], commits: bool) {
    if shared::tier().is_none() {
        return;
    }
    // The server will refuse it, but that is after we have invalidated what the role may not.
    let whose = if commits { prepared::whose(gid) } else { Whose::Ours };
    if whose == Whose::Others {
        denied().raise();
    }
    let find = |table: Table<'_>| Ending::find(table, gid, commits);
    let found = prepared::with_table(find).unwrap_or(Found::Nothing);
    let mut ending = match found {
        Found::Record(ending) => ending,
        // If there is none, the server would say so. That it does not come into being meanwhile, only we can see to.
        Found::Nothing if whose == Whose::Nobodys => unknown(gid).raise(),
        Found::Nothing => Ending { invalidated: everything(commits), ..Ending::default() },
        Found::Doubt(ending) => Ending { invalidated: everything(commits), ..ending },
    };
    ending.raise();
    AT.replace(At::Ending(ending));
}

/// It has ended.
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

/// The fence on which everything depends that a transaction of this database can have changed.
fn everything(commits: bool) -> Vec<FenceId> {
    let tier = shared::tier().filter(|_| commits);
    tier.map(|tier| tier.fences().reserved(Reserved::Database(shared::database()))).into_iter().collect()
}

/// Writes down what the transaction has changed that is about to be prepared. The last thing that can fail on our side; it may
/// still fail on others'.
pub fn record(
    fences: &[FenceId],
    marks: Vec<KeyMark>,
    written: &[FenceId],
    trees: Stamp,
) -> Result<(), Refused> {
    let At::Named(gid) = AT.replace(At::Nothing) else {
        let mut marks = marks;
        marks.sort_unstable();
        let all: Vec<_> = [fences, written, &spaces_of(&marks)].concat();
        return record_unnamed(all);
    };
    let mut all = fences.to_vec();
    all.extend(written);
    all.sort_unstable();
    all.dedup();
    let (fences, marks) = bounded(&all, marks);
    let own = prepared::own_number();
    let written = prepared::with_table(|Table { unrecorded, records, .. }| {
        if records.iter().any(|record| record.is_of(&gid) && record.enders > 0) {
            return Err(());
        }
        let free = records.iter_mut().enumerate().find(|(_, record)| record.state == State::Free);
        let Some((number, record)) = free else {
            *unrecorded += 1;
            return Ok(None);
        };
        record.write(own, &gid, &fences, &marks);
        record.trees = trees;
        Ok(Some(number))
    });
    match written {
        None => Ok(()),
        Some(Ok(number)) => {
            AT.replace(At::Recorded(gid, number));
            Ok(())
        }
        Some(Err(())) => Err(Refused::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("transaction identifier \"{}\" is already in use", shown(&gid)),
        )),
    }
}

/// The same for one that is not prepared by the command.
fn record_unnamed(mut fences: Vec<FenceId>) -> Result<(), Refused> {
    let Some(tier) = shared::tier() else { return Ok(()) };
    fences.sort_unstable();
    fences.dedup();
    settle_unnamed();
    let (fences, _) = bounded(&fences, Vec::new());
    let own = prepared::own_number();
    let written = prepared::with_table(|Table { records, .. }| {
        let (number, record) =
            records.iter_mut().enumerate().find(|(_, record)| record.state == State::Free)?;
        record.write(own, &[], &fences, &[]);
        fences.iter().for_each(|fence| tier.fences().raise(*fence));
        Some(number)
    });
    match written {
        // Where nothing can be prepared, the server says so.
        None => Ok(()),
        Some(Some(number)) => {
            AT.replace(At::Unnamed(number));
            Ok(())
        }
        Some(None) => Err(no_room()),
    }
}

/// Lowers the fences of what was prepared without a name, and is over. May raise errors.
#[inline]
pub fn settle_unnamed() {
    if prepared::has_unnamed() {
        settle();
    }
}

#[cold]
fn settle() {
    let Some(tier) = shared::tier() else { return };
    let is_unnamed = |record: &Record| record.state == State::Unnamed;
    let waiting = prepared::with_table(|Table { records, .. }| {
        records.iter().filter(|record| is_unnamed(record)).map(|record| record.number).collect::<Vec<_>>()
    });
    let over: Vec<_> =
        waiting.into_iter().flatten().filter(|number| !prepared::is_in_progress(*number)).collect();
    if over.is_empty() {
        return;
    }
    prepared::with_table(|Table { unnamed, records, .. }| {
        let number = tier.fences().draw();
        for record in records.iter_mut().filter(|record| is_unnamed(record) && over.contains(&record.number))
        {
            for fence in record.fences() {
                let _ = tier.lower_as(*fence, number);
            }
            record.state = State::Free;
            unnamed.fetch_sub(1, Ordering::Relaxed);
        }
    });
}

/// A transaction of this session is about to commit. Whoever applies what another server sends may have ended a prepared one in it,
/// or be about to. May raise errors.
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

/// Gives a record to whatever was prepared in an earlier life, with its fences raised.
#[cold]
fn adopt() {
    let Some(tier) = shared::tier() else { return };
    for (number, relations) in locks::of_prepared() {
        let (fences, _) = bounded(&written::of_relations(tier, &relations), Vec::new());
        if !prepared::is_in_progress(number) {
            continue;
        }
        let recorded = prepared::with_table(|Table { unnamed, records, .. }| {
            if records.iter().any(|record| record.state != State::Free && record.number == number) {
                return true;
            }
            let Some(record) = records.iter_mut().find(|record| record.state == State::Free) else {
                return false;
            };
            record.write(number, &[], &fences, &[]);
            record.state = State::Unnamed;
            unnamed.fetch_add(1, Ordering::Relaxed);
            // Another who applies may end it as soon as he sees the record, so they are raised under the same lock.
            fences.iter().for_each(|fence| tier.fences().raise(*fence));
            true
        });
        if recorded == Some(false) {
            // Who applies will be started again, when those who are preparing something now have done so.
            no_room().raise();
        }
    }
}

/// In the server's words: there are as many records as there may be transactions.
fn no_room() -> Refused {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    Refused::new(code, "maximum number of prepared transactions reached")
        .hint("Increase max_prepared_transactions.")
}

/// What a record has room for: instead of too many keys their spaces, and instead of too many fences the database's.
fn bounded(fences: &[FenceId], mut marks: Vec<KeyMark>) -> (Vec<FenceId>, Vec<KeyMark>) {
    let mut fences = fences.to_vec();
    marks.sort_unstable();
    marks.dedup();
    if marks.len() > MARKS_MAX {
        fences.extend(spaces_of(&marks));
        marks.clear();
    }
    if fences.len() > FENCES_MAX {
        (fences, marks) = (everything(true), Vec::new());
    }
    (fences, marks)
}

/// The fences of the spaces that some keys are in, each once. The keys are in order.
fn spaces_of(marks: &[KeyMark]) -> Vec<FenceId> {
    let Some(tier) = shared::tier() else { return Vec::new() };
    let place = |mark: &KeyMark| (mark.database, mark.space);
    let spaces = marks.chunk_by(|one, next| place(one) == place(next)).map(|marks| {
        let KeyMark { database, space, .. } = marks[0];
        tier.fences().reserved(Reserved::Space { database, space })
    });
    spaces.collect()
}

/// The transaction is prepared now, and others may end it from the next moment on. Must not fail.
pub fn stands() {
    let (gid, number) = match AT.replace(At::Nothing) {
        At::Recorded(gid, number) => (gid, number),
        At::Unnamed(number) => {
            prepared::with_table(|Table { unnamed, records, .. }| {
                records[number].state = State::Unnamed;
                unnamed.fetch_add(1, Ordering::Relaxed);
            });
            return;
        }
        _ => return,
    };
    prepared::with_table(|Table { unrecorded, records, .. }| {
        // The name was free: whatever else has a record of it has ended, unnoticed.
        let others =
            records.iter_mut().filter(|record| record.is_of(&gid) && record.state == State::Prepared);
        others.for_each(retire);
        match number {
            Some(number) => records[number].state = State::Prepared,
            None => *unrecorded = unrecorded.saturating_sub(1),
        }
    });
}

/// The transaction of this session has ended without being prepared. Must not fail.
#[inline]
pub fn over() {
    if !matches!(*AT.borrow(), At::Nothing) {
        abandon();
    }
}

/// Apart, as it is rare.
#[cold]
fn abandon() {
    match AT.replace(At::Nothing) {
        At::Recorded(_, number) => {
            prepared::with_table(|Table { unrecorded, records, .. }| match number {
                Some(number) => records[number].state = State::Free,
                None => *unrecorded = unrecorded.saturating_sub(1),
            });
        }
        At::Unnamed(number) => {
            prepared::with_table(|Table { records, .. }| {
                if let Some(tier) = shared::tier() {
                    records[number].fences().iter().for_each(|fence| tier.fences().withdraw(*fence));
                }
                records[number].state = State::Free;
            });
        }
        At::Ending(ending) => ending.settle(false),
        At::Nothing | At::Named(_) => {}
    }
}

fn retire(record: &mut Record) {
    record.state = if record.enders == 0 { State::Free } else { State::Gone };
}

enum Found {
    Record(Ending),
    Nothing,
    /// It may be another one by the time the server looks for it.
    Doubt(Ending),
}

impl Ending {
    fn find(Table { unrecorded, records, .. }: Table<'_>, gid: &[u8], commits: bool) -> Found {
        let of_name = |record: &Record, state| record.state == state && record.is_of(gid);
        let doubt = *unrecorded > 0 || records.iter().any(|record| of_name(record, State::Preparing));
        let found = records.iter_mut().enumerate().find(|(_, record)| of_name(record, State::Prepared));
        let Some((number, record)) = found else { return Found::Nothing };
        record.enders += 1;
        let mut ending = Self { record: Some(number), ..Self::default() };
        if commits && !doubt {
            let has_grown = shared::tier().is_some_and(|tier| written::have_grown(tier, record.trees, false));
            ending.invalidated = record.fences().to_vec();
            if has_grown {
                // What has come above what it has written is not in the record.
                ending.invalidated.extend(everything(commits));
            }
            ending.trees = Some(record.trees);
            ending.changed = record.marks().to_vec();
        }
        if doubt { Found::Doubt(ending) } else { Found::Record(ending) }
    }

    fn raise(&mut self) {
        self.spaces = spaces_of(&self.changed);
        if let Some(tier) = shared::tier() {
            self.invalidated.iter().chain(&self.spaces).for_each(|fence| tier.fences().raise(*fence));
        }
    }

    /// After the command, whatever has become of it. Must not fail.
    fn settle(self, succeeded: bool) {
        if let Some(tier) = shared::tier() {
            self.changed.iter().for_each(|mark| tier.remove_marked(mark));
            let grows = self.invalidated.contains(&written::trees(tier));
            if self.trees.is_some_and(|trees| written::have_grown(tier, trees, grows)) {
                // Perhaps only while the server was at it: late, and better than never.
                let fence = tier.fences().reserved(Reserved::Database(shared::database()));
                tier.fences().raise(fence);
                let _ = tier.lower_as(fence, tier.fences().draw());
            }
            if !self.invalidated.is_empty() {
                let number = tier.fences().draw();
                for fence in &self.invalidated {
                    let _ = tier.lower_as(*fence, number);
                }
            }
            self.spaces.iter().for_each(|fence| tier.fences().withdraw(*fence));
        }
        prepared::with_table(|Table { records, .. }| {
            let Some(record) = self.record.map(|number| &mut records[number]) else { return };
            record.enders = record.enders.saturating_sub(1);
            // Of an attempt that failed nobody knows whether it did so before the commit: who tries again raises the same.
            if succeeded || record.state == State::Gone {
                retire(record);
            }
        });
    }
}
