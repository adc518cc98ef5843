//! Returns a value by its key, or computes it by running a query (`cache_fetch`). `docs/architecture.md` explains the words stamp,
//! fence and flight.
//!
//! *Filling*, that is, computing a value that was not found: the stamp is taken before the snapshot on which the query runs. A
//! result is only stored if its query ran on a new snapshot, not on the caller's. So the result is current as of the stamp, or
//! newer. Its dependencies are observed while the query runs (`pg/observer.rs`), and a reader of the entry notices every change of
//! a dependency since the stamp. The result is stored at once, not with the commit, because the query only read committed data. If
//! the transaction itself has changed a dependency, it runs the query for itself and stores nothing.

use crate::pg::jsonb::Array;
use crate::pg::memory::OutOfMemory;
use crate::pg::observer::{self, Seen};
use crate::pg::query::{self, Query, Snapshot};
use crate::pg::varlena::Varlena;
use crate::pg::{function, locks, relation, shared, transaction};
use crate::store::entry;
use crate::store::keyspace::{self, Keyspace, hash};
use crate::store::kind::JSONB;
use crate::store::space::{Privilege, Space};
use crate::store::status::{self, Object, Status};
use crate::store::transaction::{pending, table_writes};
use crate::store::{flights, journal, note, watch};
use pg_cache_core::{
    Buffer, Cost, Counter, DEPENDENCIES_MAX, FenceId, Kind, Meta, NewValue, Reserved, Stamp, Stored,
};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::time::Instant;

/// The kind of a result: the bytes of a jsonb, and behind them its identity.
pub const RESULT: Kind = Kind(5);
/// The kind of a result that is null, or of a query that returned no row: only its identity.
pub const NOTHING: Kind = Kind(4);

/// The bytes of an identity: those of a SHA-256 hash.
pub const IDENTITY_BYTES: usize = 32;

/// The identity of a result besides its key: a SHA-256 of the query's text, its arguments, and the relations that the caller has
/// named as its dependencies. A value with another identity must never be returned, so it must be infeasible to find two queries
/// with the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([u8; IDENTITY_BYTES]);

impl Identity {
    /// Returns the identity of a result. `depends` must be sorted. None and an empty list are different: an empty list says that
    /// the result depends on no relation.
    pub fn of(query: &[u8], arguments: Array<'_>, depends: Option<&[u32]>) -> Self {
        // The lengths separate the parts, so that no byte of one can belong to another.
        let mut digest = Sha256::new().chain_update((query.len() as u64).to_le_bytes()).chain_update(query);
        let count = depends.map_or(u64::MAX, |oids| oids.len() as u64);
        digest.update(count.to_le_bytes());
        depends.unwrap_or_default().iter().for_each(|oid| digest.update(oid.to_le_bytes()));
        digest.update(arguments.bytes());
        Self(digest.finalize().into())
    }
}

/// The most relations on which a result may depend. A result with more is not stored. Each relation needs up to three of the 255
/// dependencies that an entry can have (`watch::add_relation`).
const RELATIONS_MAX: usize = 64;
const TOO_MANY_RELATIONS: Status = Status::Refused("the query reads too many relations");

/// The result of a query: the bytes of a jsonb, or null.
pub type Returned = Option<Vec<u8>>;

/// The arguments of `cache_fetch`.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub query: Query<'a>,
    pub identity: Identity,
    /// The time to live in milliseconds. None: by the cost of the query, or the default. With 0 the result is not stored.
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    /// Whether to compute the result even if there is a value.
    pub refresh: bool,
    /// The relations that the result depends on, instead of those that the query reads.
    pub depends: Option<Vec<u32>>,
}

/// The time to live of a result by its cost, in spaces with `ttl_policy => 'cost'`: pairs of seconds and minutes. A result that
/// took longer than so many seconds lives for so many minutes; the first pair that fits counts. If none fits, the result lives for
/// one minute.
const BY_COST: [(u64, u64); 3] = [(10, 30), (5, 10), (1, 5)];

/// Receives a value, and accepts the result of its own query. It also accepts a text or bytea of `cache_set_text` or
/// `cache_set_bytes`, so that `cache_fetch` can raise the error for a value of another kind.
struct Candidate {
    value: Varlena,
    identity: Identity,
    /// Why the value was not accepted.
    unwanted: Option<Status>,
}

impl Buffer for Candidate {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.value.allocate(meta)
    }

    fn was_allocated(&self) -> bool {
        self.value.was_allocated()
    }

    fn accepts(&mut self, meta: &Meta) -> bool {
        let is_other = || self.value.was_allocated() && !self.value.bytes().ends_with(&self.identity.0);
        self.unwanted = match meta.kind {
            RESULT | NOTHING if is_other() => Some(OTHER_QUERY),
            JSONB | Kind::COUNTER => Some(NO_QUERY),
            _ => None,
        };
        self.unwanted.is_none()
    }
}

const OTHER_QUERY: Status = Status::Miss("the key holds the result of another query or of other arguments");
const NO_QUERY: Status = Status::Miss("the key holds a value that was set, not the result of a query");

/// Returns the value, if there is one for this session and this query. Counts the cost of computing it as time saved.
pub fn read(space: &Space, key: &[u8], identity: Identity) -> Option<(Meta, Varlena)> {
    let mut candidate = Candidate { value: Varlena::default(), identity, unwanted: None };
    let found = entry::read(space, key, &mut candidate);
    if found.is_none()
        && let Some(status) = candidate.unwanted
    {
        status::set(status);
    }
    let found = found?;
    if let Some(keyspace) = space.keyspace().filter(|_| found.cost != Cost::NONE) {
        keyspace.tier.note(&keyspace.scope, Counter::Saved, found.cost.micros());
    }
    Some((found, candidate.value))
}

/// Runs the query and stores its result, if it can be stored, and returns the result. The caller must have found no value by
/// [`read`], or wants a new one (`refresh`). If the result was not stored, the status says why. If it was stored, the status still
/// says why there was no value, and is `Done` with `refresh`.
pub fn fill(space: &Space, wanted: &Wanted<'_>) -> Returned {
    let missed = status::current().filter(|_| !wanted.refresh);
    // If this call runs inside the query of another fill, the outer result depends on what the cache returns here, which is not
    // tracked.
    observer::note_cache();
    let (result, why_not) = match ticket(space, wanted.query.key) {
        Ok(ticket) => {
            let (result, outcome) = ticket.run(space, wanted);
            (result, outcome.err())
        }
        Err(why_not) => (run(wanted, |_| {}).result, Some(why_not)),
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
    let catalogs = [table_writes::definitions_fence(tier), fences.reserved(Reserved::Roles)];
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
struct Run {
    result: Returned,
    seen: Seen,
    cost: Cost,
}

/// Runs the query and observes what it reads. In a parallel query or a transaction that keeps one snapshot, it runs on the snapshot
/// that is there, and its result must not be stored. Before it runs, `before` is called for each relation that it names.
fn run(wanted: &Wanted<'_>, before: impl FnMut(u32)) -> Run {
    let on = if transaction::is_parallel() {
        Snapshot::Active
    } else if transaction::keeps_one_snapshot() {
        Snapshot::Transaction
    } else {
        Snapshot::New
    };
    let began = Instant::now();
    let (result, seen) = observer::observe(|| query::scalar(&wanted.query, on, before));
    Run { result, seen, cost: Cost::of(began.elapsed()) }
}

/// Returns the relations that the result depends on. The error says why they are not all known.
fn relations_of(wanted: &Wanted<'_>, seen: &Seen) -> Result<Vec<u32>, Status> {
    let unfollowed = || seen.relations.union(&seen.parts).find(|oid| !relation::is_followed(**oid));
    match &wanted.depends {
        Some(relations) if relations.len() > RELATIONS_MAX => Err(TOO_MANY_RELATIONS),
        Some(relations) => Ok(relations.clone()),
        None if let Some(function) = seen.volatile => Err(volatile(function)),
        None if seen.untracked => {
            Err(Status::Refused("the query calls a function that reads more than tables"))
        }
        None if let Some(oid) = unfollowed() => {
            let text = "refused: changes of {} cannot be followed";
            Err(Status::Of(text, Object::Relation(*oid)))
        }
        None if locks::has_seen_large_objects() => Err(Status::Refused("the query reads large objects")),
        None if seen.relations.len() > RELATIONS_MAX => Err(TOO_MANY_RELATIONS),
        None => Ok(seen.relations.iter().copied().collect()),
    }
}

/// The right to store the result for a key: a fill (`flights.rs`). It must end with [`Ticket::give_back`], unless an error ends the
/// transaction or savepoint, which releases it.
struct Ticket {
    keyspace: Keyspace,
    /// The number of the fill.
    number: u64,
    /// The stamp of the result, which was taken before the snapshot of its query.
    stamp: Stamp,
}

/// Acquires the right to store a result. The error says why the result cannot be stored.
fn ticket(space: &Space, key: &[u8]) -> Result<Ticket, Status> {
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
    let (number, stamp) = flights::begin_fill(&keyspace, key)?;
    Ok(Ticket { keyspace, number, stamp })
}

/// Returns the status for a query that calls a volatile function; 0 stands for an unknown one.
fn volatile(function: u32) -> Status {
    match function {
        0 => Status::Refused("the query is volatile"),
        _ => Status::Of("refused: {} is volatile", Object::Function(function)),
    }
}

/// Returns an error if the options of the space exclude a result because it was computed too fast.
fn admit(space: &Space, run: &Run) -> Result<(), Status> {
    let options = &space.options;
    if options.min_cost_ms.is_some_and(|least| run.cost.micros() < least.saturating_mul(1000)) {
        return Err(Status::Refused("computed in less than min_cost of the space"));
    }
    Ok(())
}

/// Returns an error if the result must not be stored because of its size or its time to live.
fn admit_size(space: &Space, wanted: &Wanted<'_>, run: &Run) -> Result<(), Status> {
    let options = &space.options;
    let bytes = run.result.as_ref().map_or(0, Vec::len) as u64;
    if wanted.ttl_ms == Some(0) {
        return Err(entry::NO_LIFE);
    }
    if options.max_result.is_some_and(|most| bytes > most) {
        return Err(Status::Refused("larger than max_result_size of the space"));
    }
    if bytes > options.max_value_bytes() {
        return Err(Status::Refused("larger than a value may be"));
    }
    Ok(())
}

/// Returns the time to live of a result in milliseconds, by its cost. None if the space does not use this policy.
fn lifetime_ms(space: &Space, cost: Cost) -> Option<u64> {
    let longer = |(seconds, _): &&(u64, u64)| cost.micros() > seconds * 1_000_000;
    let minutes = BY_COST.iter().find(longer).map_or(1, |(_, minutes)| *minutes);
    space.options.by_cost.then_some(minutes * 60_000)
}

impl Ticket {
    /// Runs the query, and stores the result or returns the reason why not. If the query fails, the rollback of the transaction
    /// or savepoint releases the ticket.
    fn run(self, space: &Space, wanted: &Wanted<'_>) -> (Returned, Result<(), Status>) {
        renew_session();
        // On the foreign server, the transaction may have written rows, or may be using an older snapshot. Without `depends`, a
        // result that reads a foreign table is refused anyway.
        let has_seen_foreign = wanted.depends.is_some() && table_writes::has_seen_foreign();
        // This changes if the query writes: the transaction gets a transaction id, or the id of the command grows.
        let wrote = locks::has_written().then(transaction::command_id);
        let tier = self.keyspace.tier;
        let mut run = run(wanted, |relation| watch::claim_record(tier, relation));
        let stored = if locks::has_written().then(transaction::command_id) == wrote {
            admit(space, &run)
                .and_then(|()| self.check(space, wanted, &run.seen, has_seen_foreign))
                .and_then(|()| self.dependencies(wanted, &run.seen))
                .and_then(|dependencies| self.store(space, wanted, &mut run, &dependencies))
        } else {
            Err(Status::Refused("the query has written something"))
        };
        self.give_back(wanted.query.key);
        (run.result, stored)
    }

    /// Returns an error if the result must not be given to other sessions. `has_seen_foreign` tells whether the transaction had
    /// accessed a foreign table before the query ran.
    fn check(
        &self,
        space: &Space,
        wanted: &Wanted<'_>,
        seen: &Seen,
        has_seen_foreign: bool,
    ) -> Result<(), Status> {
        let tier = self.keyspace.tier;
        let secured = seen.relations.iter().find(|oid| relation::has_row_security(**oid));
        if let Some(oid) = secured.filter(|_| !space.options.by_role) {
            let text = "refused: {} has row security, and the space is shared by all roles";
            return Err(Status::Of(text, Object::Relation(*oid)));
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
        let definitions = table_writes::definitions_fence(tier);
        let has_moved = || tier.fences().has_changed_since(definitions, function::compiled_since());
        let keeping = || seen.functions.iter().find(|oid| function::keeps_types(**oid));
        if let Some(oid) = has_moved().then(keeping).flatten() {
            let text = "refused: {} keeps types in this session from before a definition changed";
            return Err(Status::Of(text, Object::Function(*oid)));
        }
        Ok(())
    }

    /// Returns the fences that the result depends on. The error says why the result cannot be stored.
    fn dependencies(&self, wanted: &Wanted<'_>, seen: &Seen) -> Result<Vec<FenceId>, Status> {
        let tier = self.keyspace.tier;
        let relations = relations_of(wanted, seen)?;
        let mut fences = watch::dependencies(tier, wanted.tags, self.stamp);
        fences.try_reserve(wanted.tags.len() + RELATIONS_MAX + 2).map_err(OutOfMemory::from)?;
        fences.extend(wanted.tags.iter().map(|tag| keyspace::tag(tier, tag)));
        relations.iter().for_each(|oid| watch::add_relation(tier, *oid, self.stamp, &mut fences));
        fences.extend([table_writes::definitions_fence(tier), tier.fences().reserved(Reserved::Roles)]);
        fences.sort_unstable();
        fences.dedup();
        if fences.len() > DEPENDENCIES_MAX {
            return Err(watch::too_many_relations(tier, wanted.tags));
        }
        if pending::has_changed(tier, &fences) {
            return Err(Status::Bypass("this transaction has changed what the result depends on"));
        }
        Ok(fences)
    }

    /// Stores the result under its key, if the key was not changed meanwhile.
    fn store(
        &self,
        space: &Space,
        wanted: &Wanted<'_>,
        run: &mut Run,
        dependencies: &[FenceId],
    ) -> Result<(), Status> {
        // If the result does not fit, the previous value of the key is outdated for this caller, as after a refused `cache_set`.
        let does_not_fit = |_: &Status| entry::remove_previous(&self.keyspace, wanted.query.key);
        admit_size(space, wanted, run).inspect_err(does_not_fit)?;
        let kind = if run.result.is_some() { RESULT } else { NOTHING };
        let mut nothing = Vec::new();
        let bytes = run.result.as_mut().unwrap_or(&mut nothing);
        bytes.try_reserve_exact(IDENTITY_BYTES).map_err(OutOfMemory::from)?;
        let length = bytes.len();
        bytes.extend_from_slice(&wanted.identity.0);
        let note = note::of_tags(wanted.tags)?;
        let value = NewValue {
            bytes,
            note: &note,
            kind,
            stamp: self.stamp,
            expires: entry::expires(space, wanted.ttl_ms.or_else(|| lifetime_ms(space, run.cost))),
            cost: run.cost,
            dependencies,
        };
        let stored = self.publish(wanted.query.key, &value);
        bytes.truncate(length);
        stored
    }

    /// Stores a value under the key with these bytes. The error says why it was not stored.
    fn publish(&self, bytes: &[u8], value: &NewValue<'_>) -> Result<(), Status> {
        let Some(key) = self.keyspace.key(bytes, hash(bytes)) else { return Ok(()) };
        let reserved = self.keyspace.reserve(&key, value, None).map_err(Status::from);
        let reservation = reserved.inspect_err(|_| entry::remove_previous(&self.keyspace, bytes))?;
        match self.keyspace.tier.publish_leased(&key, reservation, self.number) {
            Stored::Dropped => Err(Status::Refused("another session has changed the key meanwhile")),
            _ => {
                journal::key_changed(&self.keyspace, bytes);
                Ok(())
            }
        }
    }

    /// Releases the right to store the result.
    fn give_back(&self, key: &[u8]) {
        flights::end_fill(&self.keyspace, key, self.number);
    }
}
