//! Finds out which statements of the client would have been hits, had they been calls of `cache_query` (`pg_cache.observe`).
//!
//! The statements themselves run as always. When one begins, this file looks in a hidden space for an entry with the key that
//! `cache_query` would use, and when it has run, stores such an entry without a value. The entry has the dependencies that the
//! result of `cache_query` would have. So every change of data and definitions invalidates it by the same mechanism, and the rules
//! for transactions and settings are the same. No value is stored, so nothing can be served.
//!
//! Like the result of a fill (`run.rs`), the entry carries a *stamp* from before the run: a number on the clock of changes. A later
//! change of a dependency makes the entry invalid. Each dependency has a *fence*, the word in shared memory that says when it last
//! changed (`docs/architecture.md`). The snapshot of the statement may be older than this stamp. That is no fault: `cache_query`
//! would have taken a new snapshot at this moment, and its result would have been valid.
//!
//! `docs/queries.md` lists the differences from `cache_query`. For instance, a statement never waits for another session that runs
//! the same one, and the size of the result is an estimate. A *marker* is an entry without a result, which tells a query where to
//! look or why there is no result (`store/kind.rs`). Observing stores a marker for a statement that reads settings, but none that
//! counts results that were invalid before they could be stored.

use super::asked::Asked;
use super::freshness::{Look, lifetime_ms};
use super::job::{Rules, Wanted};
use super::refusals;
use super::run;
use super::search::Search;
use super::texts::Known;
use super::ticket::{self, MARKER_MS};
use crate::pg::client_statement::{self, Executed, Statement, Watcher};
use crate::pg::observer::Seen;
use crate::pg::query::Arguments;
use crate::pg::role::Role;
use crate::pg::shared::{self, HotTier};
use crate::pg::{invalidations, locks, transaction};
use crate::store::entry;
use crate::store::keyspace::{Keyspace, QueryKey, hash};
use crate::store::kind::{ROWS, VARIES};
use crate::store::note::{self, Facts, Form};
use crate::store::observed::{self, Reason};
use crate::store::space::{self, Space};
use crate::store::status::{self, Object, Status};
use crate::store::watch as tables;
use pg_cache_core::{Cost, FenceId, Kind, NewValue, Stamp};
use std::cell::RefCell;

/// A statement that has begun.
struct Begun {
    /// The key without settings.
    basic_key: QueryKey,
    /// The key under which the look has ended: with settings, if a marker says that the statement reads settings.
    key: QueryKey,
    outcome: Outcome,
}

/// The result of the look at the beginning of the statement.
enum Outcome {
    Hit,
    Miss {
        /// The relation that has invalidated the entry.
        culprit: Option<u32>,
        /// The plan for storing an entry. The error says why `cache_query` would have stored nothing.
        plan: Result<Plan, Status>,
    },
}

/// The values that are needed to store an entry.
struct Plan {
    stamp: Stamp,
    /// Whether it was known before the run that the statement may read settings.
    may_read_settings: bool,
    /// The number of the running command, if the transaction had written something before.
    wrote: Option<u32>,
}

thread_local! {
    /// The statement that has begun last. It may have been given up.
    static BEGUN: RefCell<Option<Begun>> = const { RefCell::new(None) };
}

/// Watches the statements of the client. Must be called while the server loads the library.
pub fn watch() {
    client_statement::watch(Watcher { begin, end });
}

/// Restores the status of the session when it is dropped, because observing must not change the status of the last cached call.
struct KeepsStatus(Option<Status>);

impl KeepsStatus {
    fn now() -> Self {
        Self(status::current())
    }
}

impl Drop for KeepsStatus {
    fn drop(&mut self) {
        match self.0 {
            Some(status) => status::set(status),
            None => status::forget(),
        }
    }
}

fn asked<'a>(statement: &'a Statement<'_>) -> Asked<'a> {
    Asked {
        text: statement.text,
        arguments: Arguments::Typed(&statement.arguments),
        ttl_ms: None,
        tags: &[],
        stale_ok_ms: None,
        refresh: false,
        depends: None,
        reader: None,
    }
}

/// A statement begins. Returns whether to observe what it reads.
fn begin(statement: &Statement<'_>) -> bool {
    BEGUN.replace(None);
    let _status = KeepsStatus::now();
    // Without the extension, this database has no cache. On a standby, nothing is stored or counted.
    let (Some(tier), Ok(space)) = (shared::tier(), space::observed()) else { return false };
    let asked = asked(statement);
    let Ok(mut search) = Search::new(&asked, Form::Rows) else { return false };
    let basic_key = search.key;
    let outcome = match search.find_any(&space, ROWS, &Look::default()) {
        Some(_) => Outcome::Hit,
        None => Outcome::Miss {
            culprit: status::current().and_then(|status| culprit(tier, status)),
            plan: plan(tier, &space, &search.key, statement.tree.as_deref()),
        },
    };
    let observes = matches!(outcome, Outcome::Miss { plan: Ok(_), .. });
    BEGUN.replace(Some(Begun { basic_key, key: search.key, outcome }));
    observes
}

/// Returns the relation whose change has caused a miss.
fn culprit(tier: &HotTier, missed: Status) -> Option<u32> {
    let Status::Of(text, Object::Dependency(fence, _)) = missed else { return None };
    let relation = tier.fences().relation_of(fence).filter(|(database, _)| *database == shared::database());
    relation.filter(|_| text.starts_with("invalidated")).map(|(_, oid)| oid)
}

/// Returns what is needed to store an entry, by the rules of a ticket (`ticket.rs`).
fn plan(tier: &HotTier, space: &Space, key: &[u8], tree: Option<&Seen>) -> Result<Plan, Status> {
    entry::keyspace_to_compute(space, key)?;
    if transaction::keeps_one_snapshot() {
        return Err(Status::Bypass("the transaction keeps one snapshot"));
    }
    let stamp = tier.fences().now();
    // Must be done before the run: the relations get fences of their own. Otherwise a write to another relation with the same fence
    // could invalidate the entry.
    let relations = tree.into_iter().flat_map(|tree| &tree.relations_named);
    relations.for_each(|oid| tables::claim_record(tier, *oid));
    Ok(Plan {
        stamp,
        may_read_settings: tree
            .is_some_and(|tree| tree.lost || tree.reads_settings || !tree.functions.is_empty()),
        wrote: locks::has_written().then(transaction::command_id),
    })
}

/// The statement that has begun last has run to its end.
fn end(statement: &Statement<'_>, executed: Executed) {
    let Some(begun) = BEGUN.take() else { return };
    let _status = KeepsStatus::now();
    let took_us = executed.took.as_micros().try_into().unwrap_or(u64::MAX);
    let (culprit, reason) = match &begun.outcome {
        Outcome::Hit => (None, None),
        Outcome::Miss { culprit, plan: Err(status) } => (*culprit, Some(Reason::Status(*status))),
        Outcome::Miss { culprit, plan: Ok(plan) } => {
            (*culprit, store(statement, &begun, plan, &executed).err())
        }
    };
    let is_hit = matches!(begun.outcome, Outcome::Hit);
    observed::count(statement.query_id, statement.text, is_hit, took_us, culprit, reason);
}

/// Stores an entry for a statement. The error says why `cache_query` would have stored nothing.
fn store(statement: &Statement<'_>, begun: &Begun, plan: &Plan, executed: &Executed) -> Result<(), Reason> {
    if statement.tree.is_none() {
        // The session keeps a plan of the statement from before it was observed. The next line drops all plans that the session
        // keeps, so that the next run of the statement plans it again.
        invalidations::forget_catalogs();
        return Err(Reason::Observing("planned before pg_cache observed the session"));
    }
    let (Some(tier), Ok(space), Some(seen)) = (shared::tier(), space::observed(), &executed.seen) else {
        return Err(Status::Bypass("there is no cache in this server").into());
    };
    let (asked, cost) = (asked(statement), Cost::of(executed.took));
    let (search, wanted) = (Search::new(&asked, Form::Rows).map_err(Status::from)?, asked.wanted());
    let run = Run { tier, space: &space, search: &search, wanted: &wanted, plan, executed, seen };
    run.check()?;
    let dependencies = run.dependencies()?;
    let keyspace = space.keyspace().ok_or(Status::Bypass("there is no cache in this server"))?;
    let mut key = begun.key;
    if seen.reads_settings && begun.key == begun.basic_key {
        if !plan.may_read_settings {
            return Err(Status::Refused("it was not known before that the query reads settings").into());
        }
        let expires = shared::tick_in(MARKER_MS);
        put(&keyspace, &begun.basic_key, (VARIES, &[]), plan.stamp, expires, Cost::NONE, &[])?;
        key = search.full_key();
    }
    let facts = Facts {
        rows: executed.rows,
        form: Form::Rows,
        clock: seen.reads_clock,
        settings: seen.reads_settings,
        names_more: run::may_name_more(seen),
        environment: 0, // The key depends on the environment.
        role: Role::current().oid(),
        read: &[],
        defined: &[],
        text: &[],
        is_cut: false,
        terms: None,
    };
    let note = note::of_result(&[], &facts).map_err(Status::from)?;
    let ttl_ms = lifetime_ms(&space, cost, || None);
    let most_ms = search.ttl_ms_max(seen);
    let ttl_ms = most_ms.map_or(ttl_ms, |most| Some(space.options.ttl_ms(ttl_ms).min(most)));
    let expires = entry::expires(&space, ttl_ms);
    Ok(put(&keyspace, &key, (ROWS, &note), plan.stamp, expires, cost, &dependencies)?)
}

/// A statement that has run to its end, and what the rules of `cache_query` need to know of it. They are applied as if the
/// statement was a call of `cache_query` with the same text.
struct Run<'a> {
    tier: &'a HotTier,
    space: &'a Space,
    search: &'a Search<'a>,
    wanted: &'a Wanted<'a>,
    plan: &'a Plan,
    executed: &'a Executed,
    seen: &'a Seen,
}

impl Run<'_> {
    /// Returns the reason why `cache_query` would not have stored the result. If there are several, it is the one that
    /// `cache_query` would give, except for the size: `cache_query` checks the dependencies before it.
    fn check(&self) -> Result<(), Reason> {
        let Self { tier, space, search, wanted, plan, executed, seen } = *self;
        if let Err(status) = refusals::check_plan(wanted, seen) {
            let calls_cache = Status::Refused("the query calls the cache");
            return Err(if seen.cache { calls_cache } else { status }.into());
        }
        if locks::has_written().then(transaction::command_id) != plan.wrote {
            return Err(Status::Refused("the query has written something").into());
        }
        if executed.took.as_micros() < u128::from(space.options.min_cost_ms()) * 1000 {
            return Err(Status::Refused("computed in less than min_cost").into());
        }
        refusals::check(tier, wanted, seen, false)?;
        if executed.has_records {
            return Err(Reason::Observing("a column is an anonymous record"));
        }
        search.check(space, seen)?;
        refusals::relations_of(wanted, seen)?;
        search.check_names(seen)?;
        if seen.in_workers {
            return Err(Reason::Observing(
                "functions ran in parallel workers, where pg_cache cannot observe them",
            ));
        }
        let bytes = executed.rows.saturating_mul(executed.row_bytes);
        refusals::admit_size(space, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(())
    }

    /// Returns the fences that the entry depends on.
    fn dependencies(&self) -> Result<Vec<FenceId>, Status> {
        let Self { tier, space, search, wanted, plan, executed, seen } = *self;
        let known: &Known = search.known();
        let fences = ticket::dependencies(tier, plan.stamp, wanted, seen, known, executed.has_composites)?;
        let has_changed = |fence: &&FenceId| tier.fences().has_changed_since(**fence, plan.stamp);
        match fences.iter().rfind(has_changed) {
            Some(fence) => {
                let changed = Object::Dependency(*fence, space.oid);
                Err(Status::Of("refused: {} changed while the query ran", changed))
            }
            None => Ok(fences),
        }
    }
}

/// Stores an entry without a value.
fn put(
    keyspace: &Keyspace,
    key: &[u8],
    (kind, note): (Kind, &[u8]),
    stamp: Stamp,
    expires: u32,
    cost: Cost,
    dependencies: &[FenceId],
) -> Result<(), Status> {
    let value = NewValue { bytes: &[], note, kind, stamp, expires, cost, dependencies };
    let Some(name) = keyspace.key(key, hash(key)) else { return Ok(()) };
    let reservation = keyspace.reserve(&name, &value, None)?;
    keyspace.tier.publish(&name, reservation);
    Ok(())
}
