//! Warmers: named queries whose results a background worker keeps stored, in a *space*, a named cache. A *warmer* is a row of
//! `pgcache.warmers`, and belongs to the role that added it, its *owner*. `api/warmer.rs` adds and drops them, and
//! `workers/warming.rs` runs them. The outcome of the latest run is in a list in shared memory (`pg/warm_list.rs`), which also has
//! the runs of *kept results*: those that workers renew in spaces with the option `keep_warm` (`kept.rs`).
//!
//! A worker runs these queries as the owner. So a role may write a row only if it has the rights of the row's owner
//! ([`require_rights_of`]). The *launcher* is the background worker that starts the others.

use crate::pg::catalog::{self, Row, Rows, Table, warmers};
use crate::pg::encoding::shown;
use crate::pg::error::{Failure, Refused, SqlState};
use crate::pg::relation::RelationOid;
use crate::pg::role::Role;
use crate::pg::varlena::{OwnedJsonb, OwnedText};
use crate::pg::warm_list::{Look, Owner, Run, RunId, WarmList};
use crate::pg::{interval, memory, session, shared};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::cell::Cell;
use std::time::Duration;

/// The most warmers of one owner in a database. The worker looks at all warmers of an owner once a second.
pub const OF_OWNER_MAX: usize = 250;
/// The most warmers in a database.
pub const OF_DATABASE_MAX: usize = 1000;
/// The most bytes of a query, and of its arguments as text.
pub const TEXT_BYTES_MAX: usize = 1 << 16;
/// The most bytes of a name.
pub const NAME_BYTES_MAX: usize = 63;

/// The shortest rest of a warmer after a run: no worker runs a warmer while it rests.
const REST_MIN: Duration = Duration::from_secs(1);
/// The longest rest because of failures. A warmer whose run took longer rests longer.
const REST_MAX: Duration = Duration::from_secs(60);

/// The most milliseconds for which the last look of a worker at a warmer counts.
const LOOK_MS_MAX: u64 = 10_000;
/// If no worker has looked at a warmer for so many milliseconds, another warmer may get its place in shared memory.
const UNUSED_MS: u64 = 600_000;

/// A warmer.
#[derive(Debug)]
pub struct Warmer {
    /// Identifies the warmer in its database. A number must never be used again.
    pub number: u32,
    /// The role that added the warmer.
    pub owner: Role,
    /// The name of the warmer.
    pub name: Vec<u8>,
    /// The text of the query.
    pub query: Vec<u8>,
    /// The arguments of the query.
    pub args: Option<OwnedJsonb>,
    /// The age at which a valid result is computed again. None if it is not computed again.
    pub every: Option<Interval>,
    /// The time to live of the result. None for the default.
    pub ttl: Option<Interval>,
    /// The tags of the result, sorted, without duplicates.
    pub tags: Vec<Vec<u8>>,
    /// The name of the space that keeps the result.
    pub space: Vec<u8>,
    /// The runs of the warmer.
    pub runs: Runs,
}

impl Warmer {
    /// Reads a warmer from a row of its table.
    fn of(row: &Row<'_>) -> Self {
        memory::check();
        let bytes = |column| memory::copy(row.text(column).unwrap_or_default());
        let tags = row.texts(warmers::TAGS).unwrap_or_default();
        let number = row.oid(warmers::NUMBER).unwrap_or_default();
        Self {
            number,
            owner: Role::from_oid(row.oid(warmers::OWNER).unwrap_or_default()),
            name: bytes(warmers::NAME),
            query: bytes(warmers::QUERY),
            args: row.jsonb(warmers::ARGS),
            every: row.interval(warmers::EVERY),
            ttl: row.interval(warmers::TTL),
            tags: memory::collect(tags.into_iter().flatten().map(memory::copy)),
            space: bytes(warmers::SPACE),
            runs: Runs::of(RunId::of_warmer(shared::database(), number)),
        }
    }

    /// Returns the age in milliseconds at which a valid result is computed again.
    pub fn every_ms(&self) -> Option<u64> {
        self.every.map(|every| u64::try_from(interval::ms(every)).unwrap_or(0).max(1))
    }

    pub fn ttl_ms(&self) -> Option<u64> {
        self.ttl.map(|ttl| u64::try_from(interval::ms(ttl)).unwrap_or(0).max(1))
    }

    /// Returns whether the last worker could not begin a session of the owner.
    pub fn is_refused(&self) -> bool {
        let owner = Owner { database: shared::database(), role: self.owner.oid() };
        shared::warm_list().is_some_and(|list| list.is_refused(owner))
    }

    /// Returns the latest run, if it is known.
    pub fn run(&self) -> Option<Run> {
        self.runs.latest()
    }
}

/// The runs of a warmer or of a kept result (`kept.rs`), in shared memory.
#[derive(Debug)]
pub struct Runs {
    /// Identifies the warmer or the kept result in that list.
    id: RunId,
    /// The index at which the list in shared memory had the latest run.
    at: Cell<usize>,
}

impl Runs {
    pub fn of(id: RunId) -> Self {
        Self { id, at: Cell::new(0) }
    }

    fn with<R>(&self, call: impl FnOnce(&WarmList, RunId, &mut usize) -> R) -> Option<R> {
        let mut at = self.at.get();
        let result = shared::warm_list().map(|list| call(list, self.id, &mut at));
        self.at.set(at);
        result
    }

    /// Returns the latest run, if it is known.
    pub fn latest(&self) -> Option<Run> {
        self.with(WarmList::run).flatten()
    }

    /// Returns whether the warmer or the kept result still rests after its latest run.
    pub fn rest(&self) -> bool {
        self.latest().is_some_and(|run| shared::ms_until(run.rests_until) > 0)
    }

    /// Returns the latest run as the view shows it, and whether it goes on. A run that goes on is not counted yet, and has the
    /// outcome of the run before.
    pub fn shown(&self) -> Option<(Run, bool)> {
        let mut run = self.latest()?;
        let goes_on = session::is_alive(run.process);
        if goes_on {
            (run.runs, run.failures) = (run.runs.saturating_sub(1), run.failures.saturating_sub(1));
        } else {
            blame_process(&mut run);
        }
        Some((run, goes_on))
    }

    /// Returns whether the warmer had to run when a worker looked at it last. None if no worker has looked at it lately.
    pub fn was_due(&self) -> Option<bool> {
        let look = self.with(WarmList::look).flatten();
        look.filter(|look| shared::ms_since(look.tick) < LOOK_MS_MAX).map(|look| look.is_due)
    }

    /// Notes that a worker has looked at the warmer, and whether it must run.
    pub fn note_look(&self, is_due: bool) {
        let look = Look { tick: shared::tick().max(1), is_due };
        let unused_since = shared::tick_before(UNUSED_MS).unwrap_or(0);
        self.with(|list, id, at| list.note_look(id, at, look, unused_since));
    }

    /// Notes that a run begins now. It counts as a failure until [`Running::end`] says how it has ended: the query may end its
    /// process.
    pub fn begin(&self) -> Running<'_> {
        self.note(|run| {
            if !session::is_alive(run.process) {
                blame_process(run);
            }
            run.began = shared::tick().max(1);
            run.process = session::pid();
            (run.failures, run.runs) = (run.failures + 1, run.runs + 1);
            run.rests_until = shared::tick_in(rest(run.failures, Duration::ZERO));
        });
        Running { runs: self, has_ended: false }
    }

    /// Changes the latest run.
    fn note(&self, change: impl FnOnce(&mut Run)) {
        self.with(|list, id, at| list.note(id, at, change));
    }
}

/// If a run has not noted its end, notes as its outcome that its process has ended.
fn blame_process(run: &mut Run) {
    if run.process != 0 {
        (run.process, run.code) = (0, SqlState::ADMIN_SHUTDOWN.0);
        run.set_message("the process of the run has ended");
    }
}

/// A run that goes on in this session. If it is dropped without a call of [`end`](Self::end), the run was cancelled.
#[derive(Debug)]
pub struct Running<'r> {
    /// The runs that this run belongs to.
    runs: &'r Runs,
    /// Whether `end` was called.
    has_ended: bool,
}

impl Running<'_> {
    /// Notes how the run has ended. After each run, the warmer rests for as long as the run took, and at least for one second.
    /// After the second failure in a row, it rests at least for two seconds, and each further failure doubles this time, up to
    /// [`REST_MAX`].
    pub fn end(mut self, took: Duration, outcome: &Outcome) {
        self.has_ended = true;
        self.runs.note(|run| {
            run.process = 0;
            run.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let (failures, code, message) = match outcome {
                Outcome::Stored => (0, 0, ""),
                Outcome::NotStored(why) => (run.failures, 0, why.as_str()),
                Outcome::Failed(failure) => (run.failures, failure.code.0, failure.message.as_str()),
            };
            (run.failures, run.code) = (failures, code);
            run.set_message(message);
            run.rests_until = shared::tick_in(rest(failures, took));
        });
    }

    /// Does the same as [`end`](Self::end) for the run of a kept result. After a success, the run is removed from the list, so that
    /// the list has room for the runs of warmers.
    pub fn end_kept(mut self, took: Duration, outcome: &Outcome) {
        if let Outcome::Stored = outcome {
            self.has_ended = true;
            self.runs.with(WarmList::forget);
        } else {
            self.end(took, outcome);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.runs.note(|run| {
                (run.process, run.code) = (0, SqlState::QUERY_CANCELED.0);
                run.set_message("the run was cancelled");
            });
        }
    }
}

/// Returns for how many milliseconds a warmer rests after a run that took so long, and after so many failures in a row.
fn rest(failures: u32, took: Duration) -> u64 {
    let backoff = REST_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10));
    u64::try_from(took.max(backoff.min(REST_MAX)).as_millis()).unwrap_or(u64::MAX)
}

/// The outcome of a run.
#[derive(Debug)]
pub enum Outcome {
    Stored,
    /// The status of the query says why its result was not stored.
    NotStored(String),
    Failed(Failure),
}

impl Outcome {
    /// Returns the error with its SQLSTATE, or why the result was not stored. None after a success.
    pub fn in_words(&self) -> Option<String> {
        match self {
            Self::Stored => None,
            Self::NotStored(why) => Some(why.clone()),
            Self::Failed(Failure { code, message }) => Some(format!("{code}: {message}")),
        }
    }
}

/// Calls `with` for each warmer of the database, in any order. Reads nothing if the table does not belong to the extension.
fn each(rows: Rows<'_>, mut with: impl FnMut(&Row<'_>)) {
    if catalog::is_of_extension(Table::Warmers) {
        catalog::read(Table::Warmers, rows, |row| with(row));
    }
}

/// Returns the warmers of the owners for which `wanted` returns true, ordered by name.
pub fn all(wanted: impl Fn(Role) -> bool) -> Vec<Warmer> {
    let mut all = Vec::new();
    each(Rows::All, |row| {
        if wanted(Role::from_oid(row.oid(warmers::OWNER).unwrap_or_default())) {
            memory::push(&mut all, Warmer::of(row));
        }
    });
    all.sort_unstable_by(|one, other| (&one.name, one.owner.oid()).cmp(&(&other.name, other.owner.oid())));
    all
}

/// Returns whether the warmers of a role may run. The owner of the table can write any row, so it must have the rights of the role.
/// The owner is a superuser, unless the tables were given to another role.
pub fn is_trusted(role: Role) -> bool {
    let owner = catalog::table_oid(Table::Warmers).and_then(|table| RelationOid::of(table).owner());
    owner.is_some_and(|owner| owner.has_rights_of(role))
}

/// Returns the warmers of a role, ordered by name, if they may run.
pub fn to_run(role: Role) -> Vec<Warmer> {
    match is_trusted(role) {
        true => all(|owner| owner == role),
        false => Vec::new(),
    }
}

/// Returns an error unless the current role may write a row of an owner. A role that may write to all tables (`pg_write_all_data`)
/// must not be able to run queries as another role.
pub fn require_rights_of(owner: Role) -> Result<(), Refused> {
    if Role::current().has_rights_of(owner) && !owner.is_everybody() {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, format!("permission denied to write a warmer of role {}", owner.quoted()))
        .hint("As this role, run cache_warmer_add."))
}

/// Returns whether a running transaction may be about to commit a warmer of this owner.
pub fn may_be_added(owner: Role) -> bool {
    let mut found = false;
    each(Rows::AllUncommitted, |row| found |= row.oid(warmers::OWNER) == Some(owner.oid()));
    found
}

/// Tells the launcher that a role of this database may have warmers.
pub fn announce(role: Role) {
    if let Some(list) = shared::warm_list() {
        list.add(Owner { database: shared::database(), role: role.oid() });
    }
}

/// Tells the launcher which roles of this database have warmers.
pub fn announce_all() {
    each(Rows::All, |row| announce(Role::from_oid(row.oid(warmers::OWNER).unwrap_or_default())));
}

/// Removes the warmers of dropped roles, because a new role may get the OID of a dropped one.
pub fn forget_dropped_roles() {
    let mut has_dropped = false;
    each(Rows::All, |row| {
        has_dropped |= !Role::from_oid(row.oid(warmers::OWNER).unwrap_or_default()).exists();
    });
    if has_dropped {
        catalog::clean_up(
            "DELETE FROM pgcache.warmers WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                 SELECT w.ctid FROM pgcache.warmers AS w
                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) w.owner)
                 FOR UPDATE SKIP LOCKED))",
        );
    }
}

/// The columns of a new row, in the order of the table.
pub type NewRow<'a> = [DatumWithOid<'a>; 9];

/// Writes a warmer of a role. Returns an error if the role has a warmer of this name. Raises the errors of the server, and those of
/// the trigger `changed` on the table (`warmer_changed` in `api/warmer.rs`). The trigger calls [`written`], which returns an error
/// if there are too many warmers.
pub fn write(owner: Role, name: &[u8], row: &NewRow<'_>) -> Result<(), Refused> {
    forget_dropped_roles();
    let count = catalog::write(
        "INSERT INTO pgcache.warmers
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (owner, name) DO NOTHING",
        row,
    );
    if count == 0 {
        let code = PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT;
        let name = shown(name);
        return Err(Refused::new(
            code,
            format!("warmer \"{name}\" of role {} already exists", owner.quoted()),
        )
        .hint(format!(
            "To replace it, first run: SELECT cache_warmer_drop({});",
            crate::pg::role::literal(&name)
        )));
    }
    Ok(())
}

/// Returns the warmer with this number, which this transaction has just written. Returns an error if there are too many warmers.
/// Also counts the warmers that running transactions have added. So if several transactions exceed a limit together, at least the
/// last of them gets the error, and no transaction waits for another.
pub fn written(owner: Role, number: u32) -> Result<Option<Warmer>, Refused> {
    let (mut of_owner, mut of_database, mut written) = (0, 0, None);
    each(Rows::AllUncommitted, |row| {
        of_database += 1;
        of_owner += usize::from(row.oid(warmers::OWNER) == Some(owner.oid()));
        if row.oid(warmers::NUMBER) == Some(number) {
            written = Some(Warmer::of(row));
        }
    });
    let message = if of_owner > OF_OWNER_MAX {
        format!("role {} would have more than {OF_OWNER_MAX} warmers", owner.quoted())
    } else if of_database > OF_DATABASE_MAX {
        format!("the database would have more than {OF_DATABASE_MAX} warmers")
    } else {
        return Ok(written);
    };
    let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    Err(Refused::new(code, message).hint(
        "To remove a warmer that is not needed, run cache_warmer_drop. The view cache_warmers lists them.",
    ))
}

/// Removes a warmer of a role. Returns whether the role had it.
pub fn remove(owner: Role, name: &[u8]) -> bool {
    let statement = "DELETE FROM pgcache.warmers
         WHERE owner OPERATOR(pg_catalog.=) $1 AND name OPERATOR(pg_catalog.=) $2";
    let owner = pg_sys::Oid::from(owner.oid());
    catalog::write(statement, &[owner.into(), OwnedText(memory::copy(name)).into()]) > 0
}
