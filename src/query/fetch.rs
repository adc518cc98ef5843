//! A value by its key, or else by its query.
//!
//! *Filling*: the stamp is taken before the snapshot that the query runs on, and that is a new one, whatever the caller's is. So what is
//! computed is right as of the stamp, or newer. What it depends on is seen while it runs (`pg/observer.rs`), and every write
//! to that since the stamp is found by the entry's readers. It is stored at once, not with the commit, because it was read of
//! committed data only; so a transaction that has itself changed what the value depends on runs the query for itself.

use crate::pg::error::Refused;
use crate::pg::memory::OutOfMemory;
use crate::pg::observer::{self, Seen};
use crate::pg::query::{self, Snapshot};
use crate::pg::{function, locks, relation, settings, shared};
use crate::store::entry::{self, JSONB};
use crate::store::pending;
use crate::store::space::{self, Place, Privilege, Space, hash};
use crate::store::status::{self, Status};
use crate::store::{lease, watch, written};
use pg_cache_core::{
    Buffer, Cost, Counter, DEPENDENCIES_MAX, FenceId, Kind, Meta, NewValue, Reserved, Stamp, Stored,
};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::time::Instant;

/// The result of a query that has returned no row, or null.
pub const NOTHING: Kind = Kind(4);

/// More relations than that, and a result is not stored.
const RELATIONS_MAX: usize = 64;
const TOO_MANY_RELATIONS: Status = Status::Refused("the query reads too many relations");

/// What a query has returned: the bytes of a jsonb, or null.
pub type Returned = Option<Vec<u8>>;

/// What is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub key: &'a [u8],
    pub query: &'a CStr,
    /// The values of its parameters, as text, and none for null.
    pub arguments: &'a [Option<CString>],
    pub ttl_ms: Option<u64>,
    pub tags: &'a [&'a [u8]],
    /// Compute it, whether there is a value or not.
    pub refresh: bool,
    /// The relations that it depends on, instead of those that are seen.
    pub depends: Option<Vec<u32>>,
}

/// How long a result lives by its cost: so many minutes if it took longer than so many seconds, and else one.
const BY_COST: [(u64, u64); 3] = [(10, 30), (5, 10), (1, 5)];

/// The value, if there is one for this session. What it has cost is time saved.
pub fn read(space: &Space, key: &[u8], into: &mut impl Buffer) -> Option<Meta> {
    let found = entry::read(space, key, into)?;
    if let Some(place) = space.place().filter(|_| found.cost != Cost::NONE) {
        place.tier.note(&place.scope, Counter::Saved, found.cost.micros());
    }
    Some(found)
}

/// Runs the query and stores what it returns, if it can be stored. There is no value to be had.
pub fn fill(space: &Space, wanted: &Wanted<'_>) -> Result<Returned, Refused> {
    let missed = status::current().filter(|_| !wanted.refresh);
    // Whatever is cached around us depends on what we have not seen.
    observer::note_cache();
    let (result, why_not) = match ticket(space, wanted.key) {
        Ok(ticket) => {
            let (result, outcome) = ticket.run(space, wanted)?;
            (result, outcome.err())
        }
        Err(why_not) => (run(wanted)?.result, Some(why_not)),
    };
    match why_not.or(missed) {
        Some(status) => status::set(status),
        None => status::set(Status::Done),
    }
    Ok(result)
}

thread_local! {
    /// When this session last dropped its plans and its search path.
    static RENEWED: Cell<Stamp> = const { Cell::new(Stamp::VOID) };
}

/// Drops what the session remembers of catalogs if definitions or roles have changed since it last did so, or if what the query calls
/// would not be seen otherwise.
///
/// Cached plans, PL/pgSQL expressions and the resolved search path outlive the messages that make them wrong: a session may keep
/// reading a table that another one shadows by now, or a schema whose USAGE was revoked. For itself that is PostgreSQL's own
/// behaviour; a stored result is served to others.
fn renew_session() {
    let Some(tier) = shared::tier() else { return };
    let fences = tier.fences();
    let known = RENEWED.get();
    let catalogs = [written::definitions(tier), fences.reserved(Reserved::Roles)];
    let have_changed = catalogs.iter().any(|fence| !fences.holds(*fence, known, Stamp::LATEST));
    // Expressions whose plans are dropped are prepared anew. Which functions they call matters if one may keep types.
    let have_moved = || fences.passed(catalogs[0], function::compiled_since());
    let unseen = || observer::has_prepared_untracked() || observer::has_prepared_functions() && have_moved();
    if have_changed || unseen() {
        // The stamp first: a change that is announced after it is found the next time.
        RENEWED.set(fences.now());
        query::forget_catalogs();
    }
}

/// A query that was run.
struct Run {
    result: Returned,
    seen: Seen,
    cost: Cost,
}

fn run(wanted: &Wanted<'_>) -> Result<Run, Refused> {
    let on = if query::is_parallel() {
        Snapshot::Active
    } else if query::looks_at_one_moment() {
        Snapshot::Transaction
    } else {
        Snapshot::New
    };
    let began = Instant::now();
    let (result, seen) = observer::observe(|| query::first_value(wanted.query, wanted.arguments, on));
    Ok(Run { result: result?, seen, cost: Cost::of(began.elapsed()) })
}

/// The right to store what is computed for a key.
struct Ticket {
    place: Place,
    number: u64,
    stamp: Stamp,
}

/// Why what is computed cannot be stored, is what the error says.
fn ticket(space: &Space, key: &[u8]) -> Result<Ticket, Status> {
    let place = entry::place_to_compute(space)?;
    if !space.allows(Privilege::Write) {
        return Err(Status::Refused("the privilege write is missing"));
    }
    if query::is_parallel() {
        return Err(Status::Bypass("the query around runs in parallel"));
    }
    if query::looks_at_one_moment() {
        return Err(Status::Bypass("the transaction looks at the database as it was"));
    }
    let (number, stamp) = lease::lead(&place, key)?;
    Ok(Ticket { place, number, stamp })
}

/// Whether a result is one of those that the space keeps.
fn admit(space: &Space, run: &Run) -> Result<(), Status> {
    let options = &space.options;
    let bytes = run.result.as_ref().map_or(0, Vec::len) as u64;
    if options.min_cost_ms.is_some_and(|least| run.cost.micros() < least.saturating_mul(1000)) {
        return Err(Status::Refused("computed in less than min_cost of the space"));
    }
    if options.max_result.is_some_and(|most| bytes > most) {
        return Err(Status::Refused("larger than max_result_size of the space"));
    }
    if bytes > settings::max_value_bytes() as u64 || options.max_value.is_some_and(|most| bytes > most) {
        return Err(Status::Refused("larger than a value may be"));
    }
    Ok(())
}

/// Milliseconds that a result lives by its cost, if the space has it so.
fn lifetime_ms(space: &Space, cost: Cost) -> Option<u64> {
    let longer = |(seconds, _): &&(u64, u64)| cost.micros() > seconds * 1_000_000;
    let minutes = BY_COST.iter().find(longer).map_or(1, |(_, minutes)| *minutes);
    space.options.by_cost.then_some(minutes * 60_000)
}

impl Ticket {
    /// Runs the query, and stores the result or says why not. An error of the query gives the ticket back with the (sub)transaction.
    fn run(self, space: &Space, wanted: &Wanted<'_>) -> Result<(Returned, Result<(), Status>), Refused> {
        renew_session();
        // On the other server, the transaction may have written, or look at one moment.
        let has_seen_foreign = wanted.depends.is_some() && written::has_seen_foreign();
        let wrote = locks::has_written().then(crate::pg::transaction::command);
        let run = run(wanted)?;
        let stored = if locks::has_written().then(crate::pg::transaction::command) == wrote {
            admit(space, &run)
                .and_then(|()| self.dependencies(space, wanted, &run.seen, has_seen_foreign))
                .and_then(|dependencies| self.store(space, wanted, &run, &dependencies))
        } else {
            Err(Status::Refused("the query has written something"))
        };
        self.give_back(wanted.key);
        Ok((run.result, stored))
    }

    /// What the result depends on.
    fn dependencies(
        &self,
        space: &Space,
        wanted: &Wanted<'_>,
        seen: &Seen,
        has_seen_foreign: bool,
    ) -> Result<Vec<FenceId>, Status> {
        let tier = self.place.tier;
        if !space.options.by_role && seen.relations.iter().any(|number| relation::has_row_security(*number)) {
            return Err(Status::Refused("row security makes the result one of the role"));
        }
        if seen.lost {
            return Err(OutOfMemory.into());
        }
        if seen.cache {
            return Err(Status::Refused("the query asks the cache itself"));
        }
        if seen.sampled {
            return Err(Status::Refused("the query samples a table"));
        }
        let observed = || seen.relations.union(&seen.parts);
        if observed().any(|number| relation::is_temporary(*number)) {
            return Err(Status::Refused("the query reads a temporary table"));
        }
        // Whatever the result is declared to depend on: uncommitted rows must not be published.
        if written::has_written_any(tier, |number| {
            seen.relations.contains(number) || seen.parts.contains(number)
        }) {
            return Err(Status::Bypass("the transaction has changed what the query reads"));
        }
        // What the transaction has written there, its locks do not tell.
        let unobserved = || {
            let native = |number: &u32| function::is_native(*number);
            seen.volatile
                || seen.untracked
                || observed().any(|number| relation::is_catalog(*number))
                || locks::has_seen_large_objects()
                || seen.functions.iter().any(native)
        };
        if wanted.depends.is_some() && locks::has_written() && unobserved() {
            return Err(Status::Bypass("the transaction may have changed what the query reads"));
        }
        if observed().any(|number| relation::is_foreign(*number)) {
            if has_seen_foreign {
                return Err(Status::Bypass("the transaction has looked at a foreign table before"));
            }
            if written::has_written_foreign() {
                return Err(Status::Refused("the query has written something"));
            }
        }
        let definitions = written::definitions(tier);
        let has_moved = || tier.fences().passed(definitions, function::compiled_since());
        if has_moved() && seen.functions.iter().any(|number| function::keeps_types(*number)) {
            return Err(Status::Refused(
                "a function of this session keeps types from before a definition changed",
            ));
        }
        let relations = match &wanted.depends {
            Some(relations) if relations.len() > RELATIONS_MAX => return Err(TOO_MANY_RELATIONS),
            Some(relations) => relations.clone(),
            None if seen.volatile => return Err(Status::Refused("the query calls a volatile function")),
            None if seen.untracked || !observed().all(|number| relation::is_followed(*number)) => {
                return Err(Status::Refused("the query reads what changes without a commit"));
            }
            None if locks::has_seen_large_objects() => {
                return Err(Status::Refused("the query reads large objects"));
            }
            None if seen.relations.len() > RELATIONS_MAX => return Err(TOO_MANY_RELATIONS),
            None => seen.relations.iter().copied().collect(),
        };
        let mut fences = watch::dependencies(tier, wanted.tags, self.stamp);
        fences.try_reserve(wanted.tags.len() + RELATIONS_MAX + 2).map_err(OutOfMemory::from)?;
        fences.extend(wanted.tags.iter().map(|tag| space::tag(tier, tag)));
        relations.iter().for_each(|number| watch::add_relation(tier, *number, self.stamp, &mut fences));
        fences.extend([definitions, tier.fences().reserved(Reserved::Roles)]);
        fences.sort_unstable();
        fences.dedup();
        if fences.len() > DEPENDENCIES_MAX {
            return Err(watch::too_many_relations(tier, wanted.tags));
        }
        if pending::has_changed(tier, &fences) {
            return Err(Status::Bypass("the transaction has changed what the result depends on"));
        }
        Ok(fences)
    }

    fn store(
        &self,
        space: &Space,
        wanted: &Wanted<'_>,
        run: &Run,
        dependencies: &[FenceId],
    ) -> Result<(), Status> {
        let tier = self.place.tier;
        let value = NewValue {
            bytes: run.result.as_deref().unwrap_or_default(),
            kind: if run.result.is_some() { JSONB } else { NOTHING },
            stamp: self.stamp,
            expires: entry::expires(space, wanted.ttl_ms.or_else(|| lifetime_ms(space, run.cost))),
            cost: run.cost,
            dependencies,
        };
        let Some(key) = self.place.key(wanted.key, hash(wanted.key)) else { return Ok(()) };
        let reservation = self.place.reserve(&key, &value, None).map_err(Status::from)?;
        match tier.publish_leased(&key, reservation, self.number) {
            Stored::Dropped => Err(Status::Refused("the key was changed meanwhile")),
            _ => Ok(()),
        }
    }

    fn give_back(&self, key: &[u8]) {
        lease::land(&self.place, key, self.number);
    }
}
