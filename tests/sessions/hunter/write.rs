//! The writers of the staleness hunter (`mod.rs`), which checks that no reader gets an outdated value. A writer takes a table,
//! writes the next *version* to it, a number that grows with each commit, and finds out whether the write was committed.

use super::DATABASES;
use super::definition::{Ending, define};
use super::dice::Dice;
use super::hunt::Hunt;
use super::path::WritePath;
use super::session::{Session, is_expected};
use super::table::Table;
use postgres::error::SqlState;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

impl Hunt<'_> {
    /// Writes at random until the hunt is over. Pauses while there are fewer reads for each write than the plan asks for, and
    /// between two writes.
    pub fn write(&self, slot: usize, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = Session::writer(self, slot);
        let one_in = self.plan.defining_one_in;
        let mut wrote = Instant::now();
        while !self.over.load(SeqCst) {
            let is_early = wrote.elapsed() < self.plan.rest;
            if is_early || self.reads.load(SeqCst) < self.writes.load(SeqCst) * self.plan.pace {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            wrote = Instant::now();
            let defines = self.writes.fetch_add(1, SeqCst) % one_in == one_in / 2;
            let fits =
                |table: &Table| if defines { table.kind.is_defined() } else { table.kind.has_plain_rows() };
            let table = loop {
                let table = &self.tables[dice.roll(self.tables.len())];
                if fits(table) {
                    break table;
                }
            };
            let Ok(mut last) = table.writer.try_lock() else { continue };
            session.go_to(table.database);
            self.focus[slot].store(table.number, SeqCst);
            let gid = format!("hunt_{}_{}", DATABASES[table.database], table.name);
            *last += 1;
            let (result, how) = if defines {
                self.definitions.fetch_add(1, SeqCst);
                let ending = Ending::choose(&mut dice);
                (define(ending, &mut session, table, *last, &gid), format!("{:?} {ending:?}", table.kind))
            } else {
                let path = WritePath::choose(table, &mut dice);
                (path.go(&mut session, table, *last, &gid, &mut dice), format!("{path:?}"))
            };
            if let Err(error) = result {
                session.recover(&error, &how);
            }
            // After an error, only the table shows whether the transaction was committed.
            settle(&mut session, table, &gid);
        }
    }
}

/// Commits a version with the command `how`. Before the commit, records that readers may see it; after the commit, that they must
/// see it. After an error, the outcome is unknown.
pub fn commit(
    session: &mut Session<'_>,
    table: &Table,
    version: i64,
    how: &str,
) -> Result<(), postgres::Error> {
    table.at_most.fetch_max(version, SeqCst);
    session.run(how)?;
    table.at_least.fetch_max(version, SeqCst);
    Ok(())
}

/// Ends what an error may have left of a write, and finds out which version the table has. Rolls back the prepared transaction
/// `gid` if one is left, and waits until no session changes names or rules of the table any more. Then records the table's version
/// as one that readers must see. The caller must hold the table's `writer`, so that no other version is tried.
fn settle(session: &mut Session<'_>, table: &Table, gid: &str) {
    loop {
        let found = session.row(&format!("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{gid}'"));
        let settled = found.and_then(|row| {
            if row[0].as_deref() != Some("0") {
                session.run(&format!("ROLLBACK PREPARED '{gid}'"))?;
            }
            // A terminated session may still be sending the messages about its change.
            let lock = table.number;
            session.run(&format!("SELECT pg_advisory_lock({lock}); SELECT pg_advisory_unlock({lock})"))?;
            session.row(&table.read_all())
        });
        match settled {
            Ok(row) => {
                let value = row[0].as_deref().and_then(|value| value.parse().ok()).unwrap_or(-1);
                table.at_least.fetch_max(value, SeqCst);
                return;
            }
            Err(error) => {
                // A terminated session may still be committing the prepared transaction.
                let is_busy = error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
                    || error.code() == Some(&SqlState::UNDEFINED_OBJECT);
                if !is_busy && !is_expected(&error) {
                    session.hunt.report(format!("settling {}: {error:?}", table.name));
                }
                while session.run("ROLLBACK").is_err() {}
            }
        }
    }
}
