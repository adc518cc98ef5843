//! Runs a query whose result is missing, and stores the result if other callers may get it. `docs/architecture.md` explains the
//! words stamp, fence and flight.
//!
//! *Filling*, that is, computing a value that was not found: the stamp is taken before the snapshot on which the query runs. A
//! result is only stored if its query ran on a new snapshot, not on the caller's. So the result is current as of the stamp, or
//! newer. Its dependencies are observed while the query runs (`pg/observer.rs`), and a reader of the entry notices every change of
//! a dependency since the stamp. The result is stored at once, not with the commit, because the query only read committed data. If
//! the transaction itself has changed a dependency, it runs the query for itself and stores nothing.
//!
//! The [`Job`] says how the query runs and what is stored of its result; this file has the rules that all jobs share.

use super::compress::compress;
use super::texts::Known;
use crate::pg::environment;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::observer::{self, Seen};
use crate::pg::query::{self, Cursors, Snapshot};
use crate::pg::role::Role;
use crate::pg::shared::HotTier;
use crate::pg::{function, locks, relation, shared, transaction};
use crate::store::entry;
use crate::store::keyspace::{Keyspace, hash, tag};
use crate::store::kind::{self, LEFT_OUT};
use crate::store::note::{self, Facts, Form};
use crate::store::space::{Privilege, Space};
use crate::store::status::{self, Object, Status};
use crate::store::transaction::{pending, table_writes};
use crate::store::{definitions, flights, journal, watch};
use pg_cache_core::{Cost, DEPENDENCIES_MAX, FenceId, Kind, NewValue, Reserved, Stamp, Stored};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Instant;

/// The most relations on which a result may depend. A result with more is not stored. Each relation needs up to three of the 255
/// dependencies that an entry can have (`watch::add_relation`).
const RELATIONS_MAX: usize = 64;
const TOO_MANY_RELATIONS: Status = Status::Refused("the query reads too many relations");

/// The caller's wishes for the result of a query.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The key that the result is stored under.
    pub key: &'a [u8],
    /// The time to live in milliseconds. None: by the cost of the query, or the default. With 0 the result is not stored.
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    /// Whether to compute the result even if there is a value.
    pub refresh: bool,
    /// The relations that the result depends on, instead of those that the query reads.
    pub depends: Option<&'a [u32]>,
}

/// A query whose result may be stored.
pub trait Job {
    /// Whether the caller has chosen the key, so that it may hold a value of something else.
    const KEY_IS_CHOSEN: bool;
    const FORM: Form;

    /// The result that the caller of the query gets.
    type Result;

    /// Runs the query. Calls `before` after the query is planned and before it runs, with the relations that the query names.
    fn run(&mut self, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Self::Result;

    /// Returns an error if this kind of job does not store such a result.
    fn check(&self, space: &Space, wanted: &Wanted<'_>, seen: &Seen) -> Result<(), Status>;

    /// Returns an error if a name in the query may mean something else in another session.
    fn check_names(&self, _seen: &Seen) -> Result<(), Status> {
        Ok(())
    }

    /// Adds the fences of the definitions that the result depends on ([`add_definitions`]). May raise errors.
    fn add_definitions(&self, result: &Self::Result, seen: &Seen, fences: &mut Vec<FenceId>);

    /// Returns the text of the query.
    fn text(&self) -> &[u8];

    /// Returns how many rows the query has returned.
    fn rows(&self, result: &Self::Result) -> u64;

    /// Returns the least cost in milliseconds of a result that is stored, if there is one.
    fn min_cost_ms(&self, space: &Space) -> Option<u64>;

    /// Calls `store` with the value to store for a result. The error says why it was not stored, by `store` or by the job.
    fn with_value(
        &mut self,
        space: &Space,
        result: &mut Self::Result,
        store: impl FnOnce(Kind, &[u8]) -> Result<(), Status>,
    ) -> Result<(), Status>;

    /// Returns the longest time to live in milliseconds for a caller that has asked for none.
    fn ttl_ms_max(&self, _seen: &Seen) -> Option<u64> {
        None
    }

    /// Returns how many results in a row were invalid before they could be stored.
    fn times_left_out(&self) -> u8 {
        0
    }

    /// Returns the key that the result belongs under if its query reads settings, and the kind of the marker that is then stored
    /// under the other key. None if the key is the same for all settings.
    fn key_by_settings(&self) -> Option<(Vec<u8>, Kind)> {
        None
    }
}

/// After this many results in a row that were invalid before they could be stored, the query is left out for a while: it runs and
/// nothing is stored.
pub const TIMES_UNTIL_LEFT_OUT: u8 = 2;
/// For how long a query is left out, in milliseconds: ten times as long as it ran, within these limits.
const LEFT_OUT_MS_MIN: u64 = 1_000;
const LEFT_OUT_MS_MAX: u64 = 60_000;

/// With more dependencies than this, a result depends on all definitions together instead of each by itself. The rest of the 255
/// dependencies of an entry is for what is added behind them.
const FENCES_MAX: usize = 240;

/// Returns whether the query may use names that are not identifiers of its text: in the text of a function, in a query that a function
/// in C has run, or in a literal or an argument that names an object.
pub fn may_name_more(seen: &Seen) -> bool {
    let runs_queries = !seen.functions.is_empty() && seen.plans > 1;
    seen.user_function || seen.names_objects || runs_queries
}

/// Adds the fences of the definitions that a result depends on. Composite values have a form that follows types, which are not
/// known here. May raise errors.
pub fn add_definitions(known: &Known, seen: &Seen, has_composites: bool, fences: &mut Vec<FenceId>) {
    let Some(tier) = shared::tier() else { return };
    let path = environment::search_path_names();
    let are_all_seen = !may_name_more(seen) && !has_composites;
    let names = known.text.identifiers.as_ref().filter(|names| {
        are_all_seen && fences.len() + seen.relations_named.len() + names.len() + path.len() <= FENCES_MAX
    });
    let names = names.map(|names| names.iter().chain(&path).map(Vec::as_slice));
    definitions::dependencies(tier, seen.relations_named.iter().copied(), names, fences);
}

/// The time to live of a result by its cost, in spaces with `ttl_policy => 'cost'`: pairs of seconds and minutes. A result that
/// took longer than so many seconds lives for so many minutes; the first pair that fits counts. If none fits, the result lives for
/// one minute.
const BY_COST: [(u64, u64); 3] = [(10, 30), (5, 10), (1, 5)];

/// The time to live of a marker ([`Job::key_by_settings`]): one day.
const MARKER_MS: u64 = 24 * 60 * 60 * 1000;

/// Runs the query and stores its result, if it can be stored, and returns the result. The caller must have found no value, or wants
/// a new one (`refresh`). If the result was not stored, the status says why. If it was stored, the status still says why there was
/// no value, and is `Done` with `refresh`.
pub fn fill<J: Job>(space: &Space, wanted: &Wanted<'_>, job: &mut J) -> J::Result {
    let missed = status::current().filter(|_| !wanted.refresh);
    // If this call runs inside the query of another fill, the outer result depends on what the cache returns here, which is not
    // tracked.
    observer::note_cache();
    let is_left_out = job.times_left_out() >= TIMES_UNTIL_LEFT_OUT && !wanted.refresh;
    let ticket = match is_left_out {
        true => Err(LEAVES_OUT),
        false => Ticket::acquire(space, wanted.key),
    };
    let (result, why_not) = match ticket {
        Ok(ticket) => {
            let (result, outcome) = ticket.run(space, wanted, job);
            (result, outcome.err())
        }
        Err(why_not) => (run(job, &mut |_| {}).result, Some(why_not)),
    };
    match why_not.or(missed) {
        Some(status) => status::set(status),
        None => status::set(Status::Done),
    }
    result
}

thread_local! {
    /// The stamp at which this session last dropped its plans and its search path.
    static RENEWED: Cell<Stamp> = const { Cell::new(Stamp::VOID) };
}

/// Drops the session's plans and search path if definitions or roles have changed since it last did so, or if the functions that
/// the query calls would not be observed otherwise.
///
/// Cached plans, PL/pgSQL expressions and the resolved search path outlive the invalidation messages that make them wrong. A
/// session may keep reading a table that another table shadows by now, or a schema whose USAGE was revoked. For the session
/// itself this is PostgreSQL's normal behaviour, but a stored result is served to other sessions.
fn renew_session() {
    let Some(tier) = shared::tier() else { return };
    let fences = tier.fences();
    let known = RENEWED.get();
    let catalogs = [definitions::any(tier), fences.reserved(Reserved::Roles)];
    let have_changed = catalogs.iter().any(|fence| !fences.holds(*fence, known, Stamp::LATEST));
    // PostgreSQL prepares an expression again after its plan was dropped, and then its functions are observed. Functions that are
    // not built in need this only if definitions have changed since this session first compiled one: one of them may then keep
    // outdated types.
    let have_moved = || fences.has_changed_since(catalogs[0], function::compiled_since());
    let unseen = || observer::has_prepared_untracked() || observer::has_prepared_functions() && have_moved();
    if have_changed || unseen() {
        // The stamp must be taken first: a change that is announced after it is found the next time.
        RENEWED.set(fences.now());
        query::forget_catalogs();
    }
}

/// The outcome of running a query: its result, what it has read and called, and how long it took.
struct Run<R> {
    result: R,
    seen: Seen,
    cost: Cost,
}

/// Runs the query and observes what it reads. In a parallel query or a transaction that keeps one snapshot, it runs on the snapshot
/// that is there, and its result must not be stored. Before it runs, `before` is called with the relations that it names.
fn run<J: Job>(job: &mut J, before: &mut dyn FnMut(&[u32])) -> Run<J::Result> {
    let on = if transaction::is_parallel() {
        Snapshot::Active
    } else if transaction::keeps_one_snapshot() {
        Snapshot::Transaction
    } else {
        Snapshot::New
    };
    let began = Instant::now();
    let (result, seen) = observer::observe(|| job.run(on, before));
    Run { result, seen, cost: Cost::of(began.elapsed()) }
}

/// Returns why a result would not be stored, as far as is known of its query. The other reasons are those of the job.
pub fn check_before(tier: &HotTier, wanted: &Wanted<'_>, seen: &Seen) -> Result<(), Status> {
    check(tier, wanted, seen, false)?;
    relations_of(wanted, seen).map(|_| ())
}

/// Returns an error if the result must not be given to other sessions. `has_seen_foreign` tells whether the transaction had
/// accessed a foreign table before the query ran.
fn check(tier: &HotTier, wanted: &Wanted<'_>, seen: &Seen, has_seen_foreign: bool) -> Result<(), Status> {
    if seen.writes || seen.locks_rows {
        return Err(Status::Refused(if seen.writes { "the query writes" } else { "the query locks rows" }));
    }
    if seen.lost {
        return Err(OutOfMemory.into());
    }
    if seen.cache {
        return Err(Status::Refused("the query calls the cache"));
    }
    if seen.sampled {
        return Err(Status::Refused("the query uses TABLESAMPLE"));
    }
    let observed = || seen.relations.union(&seen.parts);
    if let Some(oid) = observed().find(|oid| relation::is_temporary(**oid)) {
        return Err(Status::Of("refused: {} is temporary", Object::Relation(*oid)));
    }
    // This holds regardless of `depends`: uncommitted rows must never be published.
    let is_read = |oid: &u32| seen.relations.contains(oid) || seen.parts.contains(oid);
    if let Some(oid) = table_writes::first_written(tier, is_read) {
        return Err(Status::Of("bypass: this transaction has changed {}", Object::Relation(oid)));
    }
    // The locks do not tell whether the transaction has written to these objects.
    let unobserved = || {
        let native = |oid: &u32| function::is_native(*oid);
        seen.volatile.is_some()
            || seen.untracked
            || observed().any(|oid| relation::is_catalog(*oid))
            || locks::has_seen_large_objects()
            || seen.functions.iter().any(native)
    };
    if wanted.depends.is_some() && locks::has_written() && unobserved() {
        return Err(Status::Bypass("this transaction may have changed what the query reads"));
    }
    if observed().any(|oid| relation::is_foreign(*oid)) {
        if has_seen_foreign {
            return Err(Status::Bypass("this transaction has read a foreign table before"));
        }
        if table_writes::has_written_foreign() {
            return Err(Status::Refused("the query has written something"));
        }
    }
    let definitions = definitions::any(tier);
    let has_moved = || tier.fences().has_changed_since(definitions, function::compiled_since());
    let keeping = || seen.functions.iter().find(|oid| function::keeps_types(**oid));
    if let Some(oid) = has_moved().then(keeping).flatten() {
        let text = "refused: {} keeps types in this session from before a definition changed";
        return Err(Status::Of(text, Object::Function(*oid)));
    }
    Ok(())
}

/// Returns an error if a function of the query may have used a cursor of the session. `before` are the cursors before the query ran,
/// if it may call functions.
fn check_cursors(before: Option<Cursors>) -> Result<(), Status> {
    match before {
        Some(Cursors { held: 1.., .. }) => {
            Err(Status::Refused("the query may read from a cursor that was opened before"))
        }
        Some(before) if before != query::cursors() => {
            Err(Status::Refused("the query opens or closes a cursor"))
        }
        _ => Ok(()),
    }
}

/// Returns the relations that the result depends on. The error says why they are not all known.
fn relations_of(wanted: &Wanted<'_>, seen: &Seen) -> Result<Vec<u32>, Status> {
    let unfollowed = || seen.relations.union(&seen.parts).find(|oid| !relation::is_followed(**oid));
    match wanted.depends {
        Some(relations) if relations.len() > RELATIONS_MAX => Err(TOO_MANY_RELATIONS),
        Some(relations) => Ok(relations.to_vec()),
        None if let Some(function) = seen.volatile => Err(volatile(function)),
        None if seen.untracked => {
            Err(Status::Refused("the query calls a function that reads more than tables"))
        }
        None if let Some(oid) = unfollowed() => {
            let text = "refused: changes of {} cannot be followed";
            Err(Status::Of(text, Object::Relation(*oid)))
        }
        None if locks::has_seen_large_objects() => Err(Status::Refused("the query reads large objects")),
        None => match seen.rows_of_relations() {
            relations if relations.len() > RELATIONS_MAX => Err(TOO_MANY_RELATIONS),
            relations => Ok(relations.into_iter().collect()),
        },
    }
}

/// Returns an error if a value of this size must not be stored in the space.
pub fn admit_value(space: &Space, bytes: usize) -> Result<(), Status> {
    match bytes as u64 > space.options.max_value_bytes() {
        true => Err(Status::Refused("larger than a value may be")),
        false => Ok(()),
    }
}

/// The status of a query that is left out for a while.
const LEAVES_OUT: Status = Status::Refused("the query is invalidated faster than it runs");

pub const TOO_LARGE: Status = Status::Refused("larger than max_result_size");

/// Returns an error if a result of this size must not be stored in the space.
pub fn admit_size(space: &Space, bytes: usize) -> Result<(), Status> {
    match bytes as u64 > space.options.max_result_bytes() {
        true => Err(TOO_LARGE),
        false => Ok(()),
    }
}

/// The right to store the result for a key: a fill (`flights.rs`). It must end with [`Ticket::give_back`], unless an error ends the
/// transaction or savepoint, which releases it.
struct Ticket {
    keyspace: Keyspace,
    key: Vec<u8>,
    /// The number of the fill.
    number: u64,
    /// The stamp of the result, which was taken before the snapshot of its query.
    stamp: Stamp,
}

/// Returns the status for a query that calls a volatile function; 0 stands for an unknown one.
fn volatile(function: u32) -> Status {
    match function {
        0 => Status::Refused("the query is volatile"),
        _ => Status::Of("refused: {} is volatile", Object::Function(function)),
    }
}

/// Returns the time to live of a result in milliseconds, by its cost. None if the space does not use this policy.
fn lifetime_ms(space: &Space, cost: Cost) -> Option<u64> {
    let longer = |(seconds, _): &&(u64, u64)| cost.micros() > seconds * 1_000_000;
    let minutes = BY_COST.iter().find(longer).map_or(1, |(_, minutes)| *minutes);
    space.options.by_cost.then_some(minutes * 60_000)
}

impl Ticket {
    /// Acquires the right to store a result. The error says why the result cannot be stored.
    fn acquire(space: &Space, key: &[u8]) -> Result<Self, Status> {
        let keyspace = entry::keyspace_to_compute(space, key)?;
        if !space.allows(Privilege::Write) {
            return Err(Status::Refused("the role does not have the privilege write"));
        }
        if transaction::is_parallel() {
            return Err(Status::Bypass("the enclosing query runs in parallel"));
        }
        if transaction::keeps_one_snapshot() {
            return Err(Status::Bypass("the transaction keeps one snapshot"));
        }
        let key = memory::try_copy(key)?;
        let (number, stamp) = flights::begin_fill(&keyspace, &key)?;
        Ok(Self { keyspace, key, number, stamp })
    }

    /// Runs the query, and stores the result or returns the reason why not. If the query fails, the rollback of the transaction
    /// or savepoint releases the ticket.
    fn run<J: Job>(self, space: &Space, wanted: &Wanted<'_>, job: &mut J) -> (J::Result, Result<(), Status>) {
        renew_session();
        // On the foreign server, the transaction may have written rows, or may be using an older snapshot. Without `depends`, a
        // result that reads a foreign table is refused anyway.
        let has_seen_foreign = wanted.depends.is_some() && table_writes::has_seen_foreign();
        // This changes if the query writes: the transaction gets a transaction id, or the id of the command grows.
        let wrote = locks::has_written().then(transaction::command_id);
        let tier = self.keyspace.tier;
        let by_settings = job.key_by_settings();
        let (mut other, mut cursors) = (None, None);
        let mut run = run(job, &mut |relations| {
            relations.iter().for_each(|relation| watch::claim_record(tier, *relation));
            if observer::may_read_settings() {
                cursors = Some(query::cursors());
            }
            // The second ticket has a later stamp, and its own is not used: both are from before the query's snapshot.
            if let Some((key, _)) = by_settings.as_ref().filter(|_| observer::may_read_settings()) {
                other = observer::apart(|| Self::acquire(space, key)).ok();
            }
        });
        let stored = if locks::has_written().then(transaction::command_id) == wrote {
            self.admit(space, &run, job)
                .and_then(|()| check(tier, wanted, &run.seen, has_seen_foreign))
                .and_then(|()| check_cursors(cursors))
                .and_then(|()| job.check(space, wanted, &run.seen))
                .and_then(|()| relations_of(wanted, &run.seen).map(|_| ()))
                .and_then(|()| job.check_names(&run.seen))
                .and_then(|()| self.dependencies(wanted, &run, job))
                .and_then(|dependencies| {
                    let marker =
                        by_settings.as_ref().filter(|_| run.seen.reads_settings).map(|(_, kind)| *kind);
                    let target = match marker {
                        Some(kind) => {
                            self.store_marker(kind)?;
                            other.as_ref().ok_or(Status::Refused(
                                "it was not known before that the query reads settings",
                            ))?
                        }
                        None => &self,
                    };
                    target.store(self.stamp, space, wanted, &mut run, job, &dependencies)
                })
        } else {
            let why = match &run.seen {
                seen if seen.writes => "the query writes",
                seen if seen.locks_rows => "the query locks rows",
                _ => "the query has written something",
            };
            Err(Status::Refused(why))
        };
        [Some(self), other].into_iter().flatten().for_each(Self::give_back);
        (run.result, stored)
    }

    /// Returns an error if the result was computed too fast to be stored.
    fn admit<J: Job>(&self, space: &Space, run: &Run<J::Result>, job: &J) -> Result<(), Status> {
        if job.min_cost_ms(space).is_some_and(|least| run.cost.micros() < least.saturating_mul(1000)) {
            return Err(Status::Refused("computed in less than min_cost"));
        }
        Ok(())
    }

    /// Returns the fences that the result depends on. The error says why the result cannot be stored.
    fn dependencies<J: Job>(
        &self,
        wanted: &Wanted<'_>,
        Run { result, seen, .. }: &Run<J::Result>,
        job: &J,
    ) -> Result<Vec<FenceId>, Status> {
        let tier = self.keyspace.tier;
        let relations = relations_of(wanted, seen)?;
        let mut fences = watch::dependencies(tier, wanted.tags, self.stamp);
        fences.try_reserve(wanted.tags.len() + RELATIONS_MAX + 2).map_err(OutOfMemory::from)?;
        fences.extend(wanted.tags.iter().map(|name| tag(tier, name)));
        relations.iter().for_each(|oid| watch::add_relation(tier, *oid, self.stamp, &mut fences));
        if wanted.depends.is_none() {
            // The leaves of a partitioned table stand for it. `cache_invalidate_relation` for the table itself raises this fence.
            let above = seen.relations.union(&seen.parts).filter(|oid| !relations.contains(oid));
            above.for_each(|oid| memory::push(&mut fences, definitions::of_relation(tier, *oid)));
        }
        let rows_and_tags = fences.len();
        memory::push(&mut fences, tier.fences().reserved(Reserved::Roles));
        job.add_definitions(result, seen, &mut fences);
        // If several dependencies have changed, the status names the last one of the list: rather a table than all definitions.
        fences.rotate_left(rows_and_tags);
        memory::check();
        let mut known = BTreeSet::new();
        fences.reverse();
        fences.retain(|fence| known.insert(*fence));
        fences.reverse();
        if fences.len() > DEPENDENCIES_MAX {
            return Err(watch::too_many_relations(tier, wanted.tags));
        }
        if pending::has_changed(tier, &fences) {
            return Err(Status::Bypass("this transaction has changed what the result depends on"));
        }
        Ok(fences)
    }

    /// Stores the result under this ticket's key, if the key was not changed meanwhile.
    fn store<J: Job>(
        &self,
        stamp: Stamp,
        space: &Space,
        wanted: &Wanted<'_>,
        run: &mut Run<J::Result>,
        job: &mut J,
        dependencies: &[FenceId],
    ) -> Result<(), Status> {
        let Run { result, seen, cost } = run;
        let ttl_ms = wanted.ttl_ms.or_else(|| lifetime_ms(space, *cost));
        let ttl_ms = match job.ttl_ms_max(seen).filter(|_| wanted.ttl_ms.is_none()) {
            Some(most) => Some(space.options.ttl_ms(ttl_ms).min(most)),
            None => ttl_ms,
        };
        let read = relations_of(wanted, seen)?;
        let defined = seen.relations_named.iter().filter(|oid| !read.contains(oid));
        let bytes =
            |oids: &mut dyn Iterator<Item = &u32>| memory::try_collect(oids.map(|oid| oid.to_ne_bytes()));
        let facts = Facts {
            rows: job.rows(result),
            form: J::FORM,
            clock: seen.reads_clock,
            settings: seen.reads_settings,
            names_more: may_name_more(seen),
            role: Role::current().oid(),
            read: &bytes(&mut read.iter())?,
            defined: &bytes(&mut defined.into_iter())?,
            text: job.text(),
            is_cut: false,
        };
        let tier = self.keyspace.tier;
        let has_changed = |fence: &&FenceId| tier.fences().has_changed_since(**fence, stamp);
        if let Some(fence) = dependencies.iter().find(has_changed).filter(|_| !J::KEY_IS_CHOSEN) {
            self.leave_out(*fence, job.times_left_out(), *cost, facts)?;
            let changed = Object::Dependency(*fence, self.keyspace.scope.space);
            return Err(Status::Of("refused: {} changed while the query ran", changed));
        }
        let note = note::of_result(wanted.tags, &facts)?;
        let mut outcome = Stored::New;
        let stored = job.with_value(space, result, |kind, bytes| {
            if wanted.ttl_ms == Some(0) {
                return Err(entry::NO_LIFE);
            }
            let is_large = bytes.len() as u64 > space.options.compress_above_bytes();
            let form = kind::compressed(kind).filter(|_| is_large && !J::KEY_IS_CHOSEN);
            let compressed = form.and_then(|kind| Some((kind, compress(bytes)?)));
            let (kind, bytes) = compressed.as_ref().map_or((kind, bytes), |(kind, bytes)| (*kind, bytes));
            if !J::KEY_IS_CHOSEN {
                admit_value(space, bytes.len())?;
            }
            let value = NewValue {
                bytes,
                note: &note,
                kind,
                stamp,
                expires: entry::expires(space, ttl_ms),
                cost: *cost,
                dependencies,
            };
            outcome = self.publish(&value, J::KEY_IS_CHOSEN)?;
            Ok(())
        });
        if stored.is_err() && (wanted.refresh || J::KEY_IS_CHOSEN) {
            // The previous value of the key is outdated for this caller, as after a refused `cache_set`.
            entry::remove_previous(&self.keyspace, &self.key);
        }
        match outcome {
            Stored::Dropped => Err(Status::Refused("another session has changed the key meanwhile")),
            _ => stored,
        }
    }

    /// Stores a marker that the result lies under another key. A marker is never wrong, so it depends on nothing.
    fn store_marker(&self, kind: Kind) -> Result<(), Status> {
        let marker = NewValue {
            bytes: &[],
            note: &[],
            kind,
            stamp: self.stamp,
            expires: shared::tick_in(MARKER_MS),
            cost: Cost::NONE,
            dependencies: &[],
        };
        self.publish(&marker, false).map(|_| ())
    }

    /// Stores a marker that the result was invalid before it could be stored, because of this dependency.
    fn leave_out(&self, fence: FenceId, times: u8, cost: Cost, facts: Facts<'_>) -> Result<(), Status> {
        let relation = self.keyspace.tier.fences().relation_of(fence);
        let culprit = relation.map(|(_, oid)| oid.to_ne_bytes());
        let note = note::of_result(&[], &Facts { read: culprit.as_slice(), defined: &[], ..facts })?;
        let marker = NewValue {
            bytes: &[times.saturating_add(1)],
            note: &note,
            kind: LEFT_OUT,
            stamp: self.stamp,
            expires: shared::tick_in((cost.micros() / 100).clamp(LEFT_OUT_MS_MIN, LEFT_OUT_MS_MAX)),
            cost,
            dependencies: &[],
        };
        self.publish(&marker, false).map(|_| ())
    }

    /// Stores a value under the key, unless the key was changed since the ticket was acquired. The error says why there was no room
    /// for the value.
    fn publish(&self, value: &NewValue<'_>, chosen: bool) -> Result<Stored, Status> {
        let Some(key) = self.keyspace.key(&self.key, hash(&self.key)) else { return Ok(Stored::Dropped) };
        let reservation = self.keyspace.reserve(&key, value, None)?;
        let stored = self.keyspace.tier.publish_leased(&key, reservation, self.number);
        // No cache outside of the database can know a key that the caller has not chosen.
        if stored != Stored::Dropped && chosen {
            journal::key_changed(&self.keyspace, &self.key);
        }
        Ok(stored)
    }

    /// Releases the right to store the result.
    fn give_back(self) {
        flights::end_fill(&self.keyspace, &self.key, self.number);
    }
}
