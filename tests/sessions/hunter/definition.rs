//! The ways to make a *version* visible by a change of a name or a rule, and the ways to end the transaction of that change. A
//! version is the number that grows with each commit (`mod.rs`).

use super::DATABASES;
use super::dice::Dice;
use super::session::{READER, Session};
use super::table::{Kind, Table};
use super::write::commit;

/// How the transaction of a change of a name or a rule ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Commit,
    /// The commit takes long: the transaction has also set many keys.
    Slow,
    /// The change is made in a savepoint, which is released.
    Savepoint,
    TwoPhases,
    TwoPhasesRolledBack,
    RolledBack,
}

impl Ending {
    /// Chooses an ending. `Slow` is three times as likely as any other, because a slow commit leaves more time for a stale read.
    pub fn choose(dice: &mut Dice) -> Self {
        use Ending::*;
        [Commit, Slow, Slow, Slow, Savepoint, TwoPhases, TwoPhasesRolledBack, RolledBack][dice.roll(8)]
    }

    /// Returns whether the change is committed, if no error occurs.
    fn commits(self) -> bool {
        !matches!(self, Self::TwoPhasesRolledBack | Self::RolledBack)
    }
}

/// Changes a name or a rule so that a version becomes visible, or rolls that back. `gid` names the prepared transaction. The caller
/// must hold the table's `writer`. After an error, the transaction may be open, prepared, or committed. A transaction that commits
/// must end through [`commit`], which moves the bounds of the version.
pub fn define(
    ending: Ending,
    session: &mut Session<'_>,
    table: &Table,
    version: i64,
    gid: &str,
) -> Result<(), postgres::Error> {
    let change = statements(table, if ending.commits() { version } else { -version });
    // The transaction holds the lock until the server has sent the messages about the change. `settle` in `write.rs` waits for
    // it.
    session.run(&format!("BEGIN; SELECT pg_advisory_xact_lock({})", table.number))?;
    match ending {
        Ending::Commit => session.run(&change)?,
        Ending::Slow => session.run(&format!(
            "{change}; SELECT count(cache_set_text('slow ' || i, 'v')) FROM generate_series(1, 3000) AS i"
        ))?,
        Ending::Savepoint => session.run(&format!("SAVEPOINT s; {change}; RELEASE s"))?,
        Ending::TwoPhases => {
            session.run(&format!("{change}; PREPARE TRANSACTION '{gid}'"))?;
            return commit(session, table, version, &format!("COMMIT PREPARED '{gid}'"));
        }
        Ending::TwoPhasesRolledBack => {
            session.run(&format!("{change}; PREPARE TRANSACTION '{gid}'"))?;
            return session.run(&format!("ROLLBACK PREPARED '{gid}'"));
        }
        Ending::RolledBack => return session.run(&format!("{change}; ROLLBACK")),
    }
    commit(session, table, version, "COMMIT")
}

/// Returns the statements that make a version visible. The version is negative if they will be rolled back. They must work
/// whichever version was committed last, because the transactions of some versions are rolled back.
fn statements(table: &Table, version: i64) -> String {
    let name = &table.name;
    let side = Kind::side(version);
    let other = 1 - side;
    let set = format!("UPDATE {name} SET v = {version} WHERE side = {side}");
    match table.kind {
        Kind::Function => format!(
            "CREATE OR REPLACE FUNCTION {name}_version() RETURNS bigint STABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN {version}; END'"
        ),
        Kind::View => format!("CREATE OR REPLACE VIEW {name} AS SELECT 1 AS id, {version}::bigint AS v"),
        Kind::Label => format!(
            "DO $$ BEGIN EXECUTE format('ALTER TYPE {name} RENAME VALUE %L TO %L', enumlabel, {version})
                 FROM pg_enum WHERE enumtypid = '{name}'::regtype; END $$"
        ),
        Kind::Shadow if side == 0 => format!(
            "DROP TABLE IF EXISTS {name}_ahead.{name};
             CREATE TABLE {name}_ahead.{name} AS SELECT 1 AS id, {version}::bigint AS v;
             GRANT SELECT ON {name}_ahead.{name} TO PUBLIC"
        ),
        Kind::Shadow => format!(
            "UPDATE public.{name} SET v = {version} WHERE id = 1; DROP TABLE IF EXISTS {name}_ahead.{name}"
        ),
        Kind::Column => format!(
            "UPDATE {name} SET w = {version} WHERE id = 1; ALTER TABLE {name} RENAME v TO x;
             ALTER TABLE {name} RENAME w TO v; ALTER TABLE {name} RENAME x TO w"
        ),
        Kind::Swapped => format!(
            "UPDATE {name}_other SET v = {version} WHERE id = 1; ALTER TABLE {name} RENAME TO {name}_old;
             ALTER TABLE {name}_other RENAME TO {name}; ALTER TABLE {name}_old RENAME TO {name}_other"
        ),
        Kind::Attached => format!(
            "DO $$ DECLARE attached regclass; spare regclass; BEGIN
                 SELECT inhrelid INTO attached FROM pg_inherits
                  WHERE inhparent = '{name}'::regclass AND inhrelid <> '{name}_high'::regclass;
                 spare := CASE attached WHEN '{name}_low'::regclass THEN '{name}_spare' ELSE '{name}_low' END;
                 EXECUTE format('UPDATE %s SET v = {version} WHERE id = 1', spare);
                 EXECUTE format('ALTER TABLE {name} DETACH PARTITION %s', attached);
                 EXECUTE format('ALTER TABLE {name} ATTACH PARTITION %s FOR VALUES FROM (0) TO (2)', spare);
             END $$"
        ),
        Kind::Member => {
            let roles = format!("{}_{name}", DATABASES[table.database]);
            format!("{set}; GRANT {roles}_{side} TO {READER}; REVOKE {roles}_{other} FROM {READER}")
        }
        Kind::Policy => format!("{set}; ALTER POLICY p ON {name} USING (side = {side})"),
        Kind::Schema => format!(
            "UPDATE {name}_{side}.{name} SET v = {version}; GRANT USAGE ON SCHEMA {name}_{side} TO {READER};
             REVOKE USAGE ON SCHEMA {name}_{other} FROM {READER}"
        ),
        Kind::Plain | Kind::Emptied | Kind::Part | Kind::Indirect | Kind::Joined => {
            unreachable!("no name and no rule of {name} changes")
        }
    }
}
