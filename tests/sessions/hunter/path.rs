//! The ways to write a *version*, a number that grows with each commit, to the rows of a table: statements, savepoints, two-phase
//! commits and others, committed or rolled back. The writers of the staleness hunter choose among them (`write.rs`), and its
//! readers check that no value from the cache is an older version than it may be (`mod.rs`).
//!
//! A new way must be added to `WritePath::choose`. It must send the statement that commits a version through [`commit`], which
//! records that readers may see the version, and then that they must. A part that is rolled back must write a negative number,
//! which no reader may see.

use super::dice::Dice;
use super::session::Session;
use super::table::{Kind, Table};
use super::write::commit;
use std::io::Write;

/// A way to write a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePath {
    Update,
    /// An update in a transaction that has switched the cache off. It must invalidate all the same.
    Disabled,
    /// An update in a transaction whose changed rows the server does not count.
    Uncounted,
    /// An update, and statements that change no row of this table and of other tables of the database.
    BesideNoOps,
    Savepoint,
    SavepointRolledBack,
    /// The transaction commits, and its only write was rolled back.
    OnlySavepointRolledBack,
    /// A PL/pgSQL block writes and fails, and its exception handler writes the version.
    Exception,
    DeleteAndInsert,
    TruncateAndInsert,
    Copy,
    Merge,
    Cte,
    TwoPhases,
    TwoPhasesRolledBack,
    RolledBack,
    /// An update, and a set of the value in the same transaction.
    AndSet,
    /// An update of another table, whose trigger writes the version.
    Trigger,
}

impl WritePath {
    /// Chooses a path that the table's kind supports. An update is twice as likely as any other path of `ALL`.
    pub fn choose(table: &Table, dice: &mut Dice) -> Self {
        use WritePath::*;
        const ALL: [WritePath; 17] = [
            Update,
            Disabled,
            Uncounted,
            BesideNoOps,
            Savepoint,
            SavepointRolledBack,
            OnlySavepointRolledBack,
            Exception,
            DeleteAndInsert,
            Copy,
            Merge,
            Cte,
            TwoPhases,
            TwoPhasesRolledBack,
            RolledBack,
            AndSet,
            Update,
        ];
        match (table.kind, dice.roll(3)) {
            (Kind::Emptied, 0) => TruncateAndInsert,
            (Kind::Indirect, 0) => Trigger,
            _ => ALL[dice.roll(ALL.len())],
        }
    }

    /// Writes the version to the row 1. Paths that are rolled back write the negative version, and commit none. `gid` names the
    /// prepared transaction. The caller must hold the table's `writer`. After an error, the transaction may be open, prepared, or
    /// committed.
    pub fn go(
        self,
        session: &mut Session<'_>,
        table: &Table,
        version: i64,
        gid: &str,
        dice: &mut Dice,
    ) -> Result<(), postgres::Error> {
        let name = &table.name;
        let target = &table.target(dice);
        let set = |v: i64| format!("UPDATE {target} SET v = {v} WHERE id = 1");
        let (new, undone) = (set(version), set(-version));
        let no_op = format!("UPDATE {target} SET v = 0 WHERE id = -1");
        let commit = |session: &mut Session<'_>, how: &str| commit(session, table, version, how);
        let block = |session: &mut Session<'_>, body: &str| {
            session.run(&format!("BEGIN; {body}"))?;
            commit(session, "COMMIT")
        };
        let delete = format!("DELETE FROM {target} WHERE id = 1");
        match self {
            WritePath::Update => commit(session, &new),
            WritePath::Disabled => block(
                session,
                &format!("SET LOCAL pg_cache.enabled = off; SET LOCAL pg_cache.bypass = on; {new}"),
            ),
            WritePath::Uncounted => match dice.roll(2) {
                0 => block(session, &format!("SET LOCAL track_counts = off; {new}")),
                _ => block(
                    session,
                    &format!("SET LOCAL track_counts = off; {new}; SET LOCAL track_counts = on; {no_op}"),
                ),
            },
            WritePath::BesideNoOps => {
                let others = session.hunt.tables.iter().filter(|other| {
                    other.database == table.database && other.kind.has_plain_rows() && other.name != *name
                });
                let others: Vec<_> =
                    others.map(|other| format!("UPDATE {} SET v = 0 WHERE id = -1", other.name)).collect();
                let one = &others[dice.roll(others.len())];
                match dice.roll(3) {
                    0 => block(session, &format!("{no_op}; {one}; {new}")),
                    1 => block(session, &format!("{no_op}; SAVEPOINT s; {new}; RELEASE s; {one}")),
                    _ => block(
                        session,
                        &format!("{no_op}; SAVEPOINT s; {undone}; ROLLBACK TO s; {one}; {new}; {no_op}"),
                    ),
                }
            }
            WritePath::Savepoint => block(session, &format!("SAVEPOINT s; {new}; RELEASE s")),
            WritePath::SavepointRolledBack => {
                block(session, &format!("{new}; SAVEPOINT s; {undone}; ROLLBACK TO s"))
            }
            WritePath::OnlySavepointRolledBack => {
                session.run(&format!("BEGIN; SAVEPOINT s; {undone}; ROLLBACK TO s"))?;
                session.run("COMMIT")
            }
            WritePath::Exception => commit(
                session,
                &format!(
                    "DO $$ BEGIN BEGIN {undone}; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN {new}; END; END $$"
                ),
            ),
            WritePath::DeleteAndInsert => {
                block(session, &format!("{delete}; INSERT INTO {target} VALUES (1, {version})"))
            }
            WritePath::TruncateAndInsert => {
                block(session, &format!("TRUNCATE {name}; INSERT INTO {name} VALUES (1, {version}), (2, 0)"))
            }
            WritePath::Copy => {
                session.run(&format!("BEGIN; DELETE FROM {name} WHERE id = 1"))?;
                let mut copy = session.client().copy_in(&format!("COPY {name} FROM STDIN"))?;
                // `finish()` reports the error.
                let _ = copy.write_all(format!("1\t{version}\n").as_bytes());
                copy.finish()?;
                commit(session, "COMMIT")
            }
            WritePath::Merge => {
                let merge = format!(
                    "MERGE INTO {name} AS t USING (VALUES (1)) AS s (id) ON s.id = t.id
                     WHEN MATCHED THEN UPDATE SET v = {version}"
                );
                commit(session, &merge)
            }
            WritePath::Cte => {
                commit(session, &format!("WITH w AS ({new} RETURNING id) SELECT count(*) FROM w"))
            }
            WritePath::TwoPhases | WritePath::TwoPhasesRolledBack => {
                let commits = self == WritePath::TwoPhases;
                let what = if commits { &new } else { &undone };
                session.run(&format!("BEGIN; {what}; PREPARE TRANSACTION '{gid}'"))?;
                match commits {
                    true => commit(session, &format!("COMMIT PREPARED '{gid}'")),
                    false => session.run(&format!("ROLLBACK PREPARED '{gid}'")),
                }
            }
            WritePath::RolledBack => {
                session.run(&format!("BEGIN; {undone}; SAVEPOINT s; {undone}; RELEASE s; ROLLBACK"))
            }
            WritePath::AndSet => block(
                session,
                &format!("{new}; SELECT cache_set('set {name}', '{version}', tags => '{{{name}}}')"),
            ),
            WritePath::Trigger => {
                commit(session, &format!("UPDATE {name}_of SET v = {version} WHERE id = 1"))
            }
        }
    }
}
