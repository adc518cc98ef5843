//! The changes of prepared transactions, until a session commits them. That may be another session, and the server may have
//! restarted. `pending.rs` calls this folder at the events of a transaction, and `store/command.rs` at two-phase commands. A
//! *fence* is a word in shared memory that says when something that values depend on last changed, and a *stamp* is a number on the
//! clock of changes (`docs/architecture.md`).
//!
//! While a transaction is only prepared, none of its changes is visible. Its cached values stay valid, unless it was prepared
//! without a command (`unnamed.rs`). The values that it set are dropped. COMMIT PREPARED finds its changes again:
//! - *relations* by the locks, which the server keeps for a prepared transaction, also across a restart (`pg/locks.rs`). A record
//!   in shared memory (`pg/prepared.rs`) has the OIDs of locked relations of which the transaction has changed no rows: these are
//!   left out;
//! - *fences and keys* that it has changed in the cache, by the same record.
//!
//! Around COMMIT PREPARED
//! - the fences are raised before the command and lowered with a new stamp after it. They are lowered with a new stamp also when
//!   the command fails, because the error may come after the commit;
//! - the keys are removed after the command. Another session may have found the old value before the commit and still be reading it
//!   after the commit. So the fences of the keys' spaces are raised too, and withdrawn after the command: during the command, the
//!   other keys of these spaces are misses, and afterwards they are hits again.
//!
//! A transaction without a record was prepared before the server started. Its changes in the cache are unknown, so COMMIT PREPARED
//! invalidates everything in its database, and everything that depends on roles in all databases. It does the same for a
//! transaction that was prepared without a command.
//!
//! *A transaction is identified by its id.* Its name (gid) may be given to another transaction at any moment, so the session that
//! ends a transaction asks the server for its id and finds the record by the id. The record keeps the name until the command is
//! over: a transaction that is to be prepared under the same name is refused, as the server would have refused it a moment before.
//! If another transaction already has a record of the same name and waits for the server to give it the name, the session lets it
//! go first.
//!
//! `unnamed.rs` has the rules for transactions that are prepared without a command.
//!
//! ```text
//! mod.rs       the two-phase command that this session is executing
//! ending.rs    an attempt to end a prepared transaction
//! unnamed.rs   transactions that C code prepares and ends, without a command
//! slots.rs     the slots for records
//! ```

mod ending;
mod slots;
mod unnamed;

pub use unnamed::before_commit;

use super::table_writes;
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::local::local;
use crate::pg::locks::{self, WriteLock};
use crate::pg::memory;
use crate::pg::prepared::{self, State, Table};
use crate::pg::shared;
use ending::{Ending, Found};
use pg_cache_core::{FenceId, KeyMark};
use pgrx::prelude::PgSqlErrorCode;
use slots::{all_fences, ended_unnoticed, find_free, fit_into_record, no_room, space_fences_of};
use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Duration;
use unnamed::{record_unnamed, settle_unnamed};

local! {
    /// The two-phase command that this session is executing.
    static COMMAND: RefCell<Command> = RefCell::new(Command::Nothing);
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

/// Records the changes in the cache of the transaction that is about to be prepared. This is the last step of this library that can
/// fail; the server's own steps may still fail. `unchanged` holds the relations that the transaction has locked as a writer and not
/// changed.
pub fn record(fences: Vec<FenceId>, mut marks: Vec<KeyMark>, unchanged: &[u32]) -> Result<(), Refused> {
    marks.sort_unstable();
    marks.dedup();
    let Command::Named(gid) = COMMAND.replace(Command::Nothing) else {
        let fences = memory::collect(fences.into_iter().chain(space_fences_of(&marks)));
        if let Some(slot) = record_unnamed(fences)? {
            COMMAND.replace(Command::Unnamed(slot));
        }
        return Ok(());
    };
    let (fences, marks) = fit_into_record(fences, marks);
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
