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

use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::prepared::{self, FENCES_MAX, MARKS_MAX, Record, State, Table, Watcher};
use crate::pg::shared;
use crate::store::pending;
use pg_cache_core::{FenceId, KeyMark, Reserved};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::RefCell;

/// Has the commands told to us. While the server loads the library.
pub fn watch() {
    prepared::watch(&Commands);
}

thread_local! {
    static AT: RefCell<At> = const { RefCell::new(At::Nothing) };
}

/// What this session is at.
#[derive(Debug)]
enum At {
    Nothing,
    /// Its transaction is to be prepared under this name.
    Named(Box<[u8]>),
    /// That has a record, or has found none.
    Recorded(Box<[u8]>, Option<usize>),
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
}

struct Commands;

impl Watcher for Commands {
    fn preparing(&self, gid: &[u8]) {
        pending::listen();
        AT.set(At::Named(gid.into()));
    }

    fn ending(&self, gid: &[u8], commits: bool) {
        if shared::tier().is_none() {
            return;
        }
        pending::listen();
        let find = |table: Table<'_>| Ending::find(table, gid, commits);
        let found = prepared::with_table(find).unwrap_or(Found::Nothing);
        let mut ending = match found {
            Found::Record(ending) => ending,
            // If there is none, the server would say so. That it does not come into being meanwhile, only we can see to.
            Found::Nothing if commits && !prepared::exists(gid) => unknown(gid).raise(),
            Found::Nothing => Ending { invalidated: everything(commits), ..Ending::default() },
            Found::Doubt(ending) => Ending { invalidated: everything(commits), ..ending },
        };
        ending.raise();
        AT.set(At::Ending(ending));
    }

    fn ended(&self) {
        if let At::Ending(ending) = AT.replace(At::Nothing) {
            ending.settle(true);
        }
    }
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
pub fn record(fences: &[FenceId], marks: Vec<KeyMark>) -> Result<(), Refused> {
    let At::Named(gid) = AT.replace(At::Nothing) else {
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        let refused = Refused::new(code, "cannot prepare a transaction that has changed the cache")
            .detail("It is not prepared by the command PREPARE TRANSACTION, so that nobody would know of its end.")
            .hint("For a subscription, set two_phase to false.");
        return if fences.is_empty() && marks.is_empty() { Ok(()) } else { Err(refused) };
    };
    let (fences, marks) = bounded(fences, marks);
    let written = prepared::with_table(|Table { unrecorded, records }| {
        if records.iter().any(|record| record.is_of(&gid) && record.enders > 0) {
            return Err(());
        }
        let free = records.iter_mut().enumerate().find(|(_, record)| record.state == State::Free);
        let Some((number, record)) = free else {
            *unrecorded += 1;
            return Ok(None);
        };
        record.write(&gid, &fences, &marks);
        Ok(Some(number))
    });
    match written {
        None => Ok(()),
        Some(Ok(number)) => {
            AT.set(At::Recorded(gid, number));
            Ok(())
        }
        Some(Err(())) => Err(Refused::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("transaction identifier \"{}\" is already in use", shown(&gid)),
        )),
    }
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
    let At::Recorded(gid, number) = AT.replace(At::Nothing) else { return };
    prepared::with_table(|Table { unrecorded, records }| {
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
pub fn over() {
    match AT.replace(At::Nothing) {
        At::Recorded(_, number) => {
            prepared::with_table(|Table { unrecorded, records }| match number {
                Some(number) => records[number].state = State::Free,
                None => *unrecorded = unrecorded.saturating_sub(1),
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
    fn find(Table { unrecorded, records }: Table<'_>, gid: &[u8], commits: bool) -> Found {
        let of_name = |record: &Record, state| record.state == state && record.is_of(gid);
        let doubt = *unrecorded > 0 || records.iter().any(|record| of_name(record, State::Preparing));
        let found = records.iter_mut().enumerate().find(|(_, record)| of_name(record, State::Prepared));
        let Some((number, record)) = found else { return Found::Nothing };
        record.enders += 1;
        let mut ending = Self { record: Some(number), ..Self::default() };
        if commits && !doubt {
            ending.invalidated = record.fences().to_vec();
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
            if !self.invalidated.is_empty() {
                let number = tier.fences().draw();
                for fence in &self.invalidated {
                    let _ = tier.fences().lower_as(*fence, number);
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
