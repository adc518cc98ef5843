//! The ticket of a session: the right to store the result of a query under a key. It holds a fill, the record in shared memory of
//! which session computes the value of a key (`store/flights.rs`).
//!
//! [`Ticket::run`] runs the query, and stores the result under these rules:
//! - The result gets the *stamp* of the ticket, a number on the clock of changes from before the query's snapshot (`run.rs`). A
//!   change of a dependency after the stamp makes the result invalid. Each dependency has a *fence*, the word in shared memory that
//!   says when the dependency last changed (`docs/architecture.md`).
//! - Nothing is stored if the query or the session gives a reason against it (`refusals.rs`, [`Rules`], [`Job`]), or if another
//!   session has changed the key meanwhile.
//! - If a dependency changes while the query runs, the result is invalid from the start. It is still stored if a session waits for
//!   it (`flight.rs`), if callers accept outdated results, or if a worker keeps it. Otherwise a *marker*, an entry without a result
//!   (`store/kind.rs`), counts it, and after two such results in a row, the query is *left out* for a while. (Under a key that a
//!   caller has chosen, the result is always stored.)
//! - If the query reads settings, the result is stored under the key with all settings, and a marker under the key without them
//!   (`asked.rs`).
//!
//! A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::compress::compress;
use super::freshness::lifetime_ms;
use super::job::{Job, Rules, Wanted};
use super::refusals::{self, LEAVES_OUT, RELATIONS_MAX};
use super::run::{self, Run};
use super::texts::Known;
use super::verify;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::observer::{self, Seen};
use crate::pg::query;
use crate::pg::role::Role;
use crate::pg::shared::HotTier;
use crate::pg::{environment, locks, shared, transaction};
use crate::store::entry;
use crate::store::flights::{self, Begun, IfBusy};
use crate::store::keyspace::{Keyspace, hash, tag};
use crate::store::kind::{self, LEFT_OUT};
use crate::store::note::{self, Facts};
use crate::store::space::{Privilege, Space};
use crate::store::status::{Object, Status};
use crate::store::transaction::{pending, table_writes};
use crate::store::{definitions, journal, kept, watch};
use pg_cache_core::{
    Cost, DEPENDENCIES_MAX, FAILURES_MAX, FenceId, InFlight, NewValue, Reserved, StaleOk, Stamp, Stored,
};
use std::collections::BTreeSet;

/// After this many results in a row that were invalid before they could be stored, the query is *left out* for a while: its results
/// are not stored, unless a session waits for the result, a caller accepts outdated results, or the call has `refresh`.
pub const TIMES_UNTIL_LEFT_OUT: u8 = 2;
/// The limits of the time for which a query is left out, in milliseconds. Within them, the time is ten times the duration of the
/// run.
const LEFT_OUT_MS_MIN: u64 = 1_000;
const LEFT_OUT_MS_MAX: u64 = 60_000;

/// The time for which an invalid result stays for the sessions that have waited for it, in milliseconds.
const HANDED_OVER_MS: u64 = 10_000;

/// The time to live of a marker of [`Rules::key_by_settings`], in milliseconds: one day.
pub(super) const MARKER_MS: u64 = 24 * 60 * 60 * 1000;

/// The right to store the result for a key: a fill (`store/flights.rs`). The session must release it with [`Ticket::give_back`]. If
/// an error ends the transaction or the savepoint, the rollback releases it.
pub struct Ticket {
    keyspace: Keyspace,
    key: Vec<u8>,
    /// The number of the fill.
    number: u64,
    /// The stamp of the result. It was taken before the snapshot of the query.
    stamp: Stamp,
    /// The tick at which the ticket was acquired.
    began: u32,
}

/// The answer to a session that asks for a ticket.
pub enum Asked {
    Ticket(Ticket),
    /// Another session computes the result, or is about to set the key. If this session may wait, the last field is the moment at
    /// which it began to wait, on the clock of changes.
    Busy(Keyspace, InFlight, Option<Stamp>),
}

/// The reason why a result was not stored.
struct Unstored {
    status: Status,
    /// The number of failures that the fill counts. It must be [`FAILURES_MAX`] if the results of the query can never be stored, so
    /// that no session waits for the query.
    failures: u8,
}

impl From<Status> for Unstored {
    fn from(status: Status) -> Self {
        let is_of_this_session = matches!(status, Status::Miss(_)) || status.is_bypass();
        Self { status, failures: if is_of_this_session { 0 } else { FAILURES_MAX } }
    }
}

impl From<OutOfMemory> for Unstored {
    fn from(short: OutOfMemory) -> Self {
        Self::by_chance(short.into())
    }
}

impl Unstored {
    /// Makes a reason that holds for this run only: the result of the next run may be stored.
    fn by_chance(status: Status) -> Self {
        Self { status, failures: 0 }
    }
}

impl Ticket {
    /// Acquires the right to store a result. `if_busy` says what to do if another session computes the result. The error is the
    /// reason why the result cannot be stored.
    pub fn ask(space: &Space, key: &[u8], if_busy: IfBusy) -> Result<Asked, Status> {
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
        let (key, began) = (memory::try_copy(key)?, shared::tick());
        Ok(match flights::begin_fill(&keyspace, &key, if_busy)? {
            Begun::Fill(number, stamp) => Asked::Ticket(Self { keyspace, key, number, stamp, began }),
            Begun::Busy(leader, arrived) => Asked::Busy(keyspace, leader, arrived),
        })
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Runs the query, and stores the result or returns the reason why not. If the query fails, the rollback of the transaction
    /// or savepoint releases the ticket.
    pub fn run<J: Job>(
        self,
        space: &Space,
        wanted: &Wanted<'_>,
        job: &mut J,
    ) -> (J::Result, Result<(), Status>) {
        run::renew_session();
        // On a foreign server, the transaction may have written rows, or may use an older snapshot. This only matters with
        // `depends`: without it, a result that reads a foreign table is always refused.
        let has_seen_foreign = wanted.depends.is_some() && table_writes::has_seen_foreign();
        // If the query writes, this value changes: the transaction gets a transaction ID, or its command ID grows.
        let wrote = locks::has_written().then(transaction::command_id);
        let (keyspace, stamp) = (self.keyspace, self.stamp);
        let tier = keyspace.tier;
        // `own` is the ticket for the key of the rules, and `other` the ticket for the key with all settings.
        let by_settings = job.rules().key_by_settings();
        let (mut own, mut other, mut cursors, mut refused) = (Some(self), None, None, None);
        let mut run = run::run(job, &mut |relations| {
            if let Err(status) = observer::look(|seen| refusals::check_plan(wanted, seen)) {
                // The result will not be stored, so the other sessions must not wait until the query has run.
                refused = Some(status);
                own.take().into_iter().for_each(|ticket| ticket.give_back(FAILURES_MAX));
                return;
            }
            relations.iter().for_each(|relation| watch::claim_record(tier, *relation));
            if !observer::may_read_settings() {
                return;
            }
            cursors = Some(query::cursors());
            let Some((key, kind)) = &by_settings else { return };
            let reads_settings = observer::reads_settings();
            observer::apart(|| {
                // The result gets the stamp of the first ticket, not the later stamp of the second. Both stamps are from before the
                // query's snapshot.
                if let Ok(Asked::Ticket(ticket)) = Self::ask(space, key, IfBusy::GiveWay) {
                    other = Some(ticket);
                }
                // Sessions with other settings must not wait for this run. If the plan does not show that the query reads settings,
                // they wait once.
                if let Some(basic) = own.take_if(|_| reads_settings) {
                    if basic.is_awaited() {
                        other.iter().for_each(Self::set_awaited);
                    }
                    // If there is no memory for the marker, sessions with different settings wait for each other once.
                    let _ = basic.store_marker(*kind);
                    basic.give_back(0);
                }
            });
        });
        let stored = if let Some(status) = refused {
            let calls_cache = Status::Refused("the query calls the cache");
            Err(if run.seen.cache { calls_cache } else { status }.into())
        } else if locks::has_written().then(transaction::command_id) == wrote {
            admit(space, &run, job.rules())
                .and_then(|()| refusals::check(tier, wanted, &run.seen, has_seen_foreign))
                .and_then(|()| job.check())
                .and_then(|()| job.rules().check(space, &run.seen))
                .and_then(|()| refusals::relations_of(wanted, &run.seen).map(|_| ()))
                .map_err(Unstored::from)
                .and_then(|()| refusals::check_cursors(cursors).map_err(Unstored::by_chance))
                .and_then(|()| job.rules().check_names(&run.seen).map_err(Unstored::by_chance))
                .and_then(|()| {
                    let has_composites = job.has_composites(&run.result);
                    Ok(dependencies(tier, stamp, wanted, &run.seen, job.rules().known(), has_composites)?)
                })
                .and_then(|dependencies| {
                    let target = match &by_settings {
                        Some((_, kind)) if run.seen.reads_settings => {
                            own.iter().try_for_each(|basic| basic.store_marker(*kind))?;
                            let unknown = "it was not known before that the query reads settings";
                            other.as_ref().ok_or(Unstored::by_chance(Status::Refused(unknown)))?
                        }
                        _ => own.as_ref().ok_or(Unstored::by_chance(Status::Refused(CHANGED)))?,
                    };
                    target.store(stamp, space, wanted, &mut run, job, &dependencies)
                })
        } else {
            let why = match &run.seen {
                seen if seen.writes => "the query writes",
                seen if seen.locks_rows => "the query locks rows",
                _ => "the query has written something",
            };
            Err(Status::Refused(why).into())
        };
        let failures = stored.as_ref().err().map_or(0, |unstored| unstored.failures);
        own.into_iter().chain(other).for_each(|ticket| ticket.give_back(failures));
        keyspace.count_fill(run.cost, stored.is_ok());
        (run.result, stored.map_err(|unstored| unstored.status))
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
    ) -> Result<(), Unstored> {
        let is_chosen = J::Rules::KEY_IS_CHOSEN;
        let Run { result, seen, cost } = run;
        let tier = self.keyspace.tier;
        let ttl_ms_max = job.rules().ttl_ms_max(seen).filter(|_| wanted.ttl_ms.is_none());
        let read = refusals::relations_of(wanted, seen)?;
        let defined = seen.relations_named.iter().filter(|oid| !read.contains(oid));
        let bytes =
            |oids: &mut dyn Iterator<Item = &u32>| memory::try_collect(oids.map(|oid| oid.to_ne_bytes()));
        let facts = Facts {
            rows: job.rows(result),
            form: J::FORM,
            clock: seen.reads_clock,
            settings: seen.reads_settings,
            names_more: run::may_name_more(seen),
            environment: if is_chosen { environment::short() } else { 0 },
            role: Role::current().oid(),
            read: &bytes(&mut read.iter())?,
            defined: &bytes(&mut defined.into_iter())?,
            text: job.query().text.to_bytes(),
            is_cut: false,
            terms: job.terms().filter(|_| kept::may_be_kept(space)),
        };
        // An invalid result is stored if a session has waited for it, if callers with `stale_ok` may use it, or if a worker keeps
        // the result. Callers with `stale_ok` are expected if this call has `stale_ok`, or if the previous result of the key was
        // stored for such callers.
        let name = self.name();
        let stale_ticks = name.as_ref().map_or(0, |name| tier.stale_ticks(name));
        let left_for_ms = facts.terms.map(|_| kept::LEFT_FOR_MS).filter(|_| !is_chosen);
        let stale_ok_ms = wanted.stale_ok_ms.into_iter().chain(left_for_ms);
        let stale_ticks = stale_ok_ms.map(shared::ticks).fold(stale_ticks, u32::max);
        let is_wanted = stale_ticks > 0 || self.is_awaited();
        let times = job.rules().times_left_out();
        if times >= TIMES_UNTIL_LEFT_OUT && !wanted.refresh && !is_wanted {
            return Err(Unstored::by_chance(LEAVES_OUT));
        }
        let first_changed = || {
            let has_changed = |fence: &&FenceId| tier.fences().has_changed_since(**fence, stamp);
            dependencies.iter().rfind(has_changed).copied()
        };
        let is_late = |fence| {
            let changed = Object::Dependency(fence, self.keyspace.scope.space);
            Status::Of("refused: {} changed while the query ran", changed)
        };
        let changed = first_changed();
        let too_late = changed.filter(|_| !is_chosen).map(|fence| Unstored::by_chance(is_late(fence)));
        if let (Some(fence), false, false) = (changed, is_chosen, is_wanted) {
            self.leave_out(fence, times, *cost, facts)?;
            return too_late.map_or(Ok(()), Err);
        }
        // Without callers with `stale_ok`, only the sessions that have waited can use an invalid result, so it must not live long.
        let is_handed_over = changed.is_some() && !is_chosen && stale_ticks == 0;
        let ttl_ms_max = if is_handed_over { Some(HANDED_OVER_MS) } else { ttl_ms_max };
        let is_kept = facts.terms.is_some() && !is_chosen;
        let note = note::of_result(wanted.tags, &facts)?;
        let (mut outcome, mut is_by_chance) = (Stored::New, false);
        let stored = job.with_value(space, result, |kind, bytes| {
            if wanted.ttl_ms == Some(0) {
                is_by_chance = true;
                return Err(entry::NO_LIFE);
            }
            let is_large = bytes.len() as u64 > space.options.compress_above_bytes();
            let form = kind::compressed(kind).filter(|_| is_large && !is_chosen);
            let compressed = form.and_then(|kind| Some((kind, compress(bytes)?)));
            let (kind, bytes) = compressed.as_ref().map_or((kind, bytes), |(kind, bytes)| (*kind, bytes));
            if !is_chosen {
                refusals::admit_value(space, bytes.len())?;
            }
            let previous = || tier.compare(name.as_ref()?, bytes);
            let ttl_ms = wanted.ttl_ms.or_else(|| lifetime_ms(space, *cost, previous));
            let ttl_ms = ttl_ms_max.map_or(ttl_ms, |most| Some(space.options.ttl_ms(ttl_ms).min(most)));
            // A dependency may have changed during the compression. A value that is stored without `StaleOk` must be valid now.
            let changed = changed.or_else(first_changed);
            if let (Some(fence), false, false) = (changed, is_chosen, is_wanted) {
                is_by_chance = true;
                return Err(is_late(fence));
            }
            let may_be_stale = stale_ticks > 0 || changed.is_some();
            let stale_ok = may_be_stale.then_some(StaleOk { ticks: stale_ticks, valid_at: self.began });
            let value = NewValue {
                bytes,
                note: &note,
                kind,
                stamp,
                expires: entry::expires(space, ttl_ms),
                cost: *cost,
                dependencies,
            };
            outcome = self.publish(&value, stale_ok, is_chosen)?;
            if is_kept {
                kept::announce();
            }
            Ok(())
        });
        if stored.is_err() && (wanted.refresh || is_chosen) {
            // For this caller, the previous value of the key is outdated, as after a refused `cache_set`.
            entry::remove_previous(&self.keyspace, &self.key);
        }
        match (outcome, too_late) {
            (Stored::Dropped, _) => Err(Unstored::by_chance(Status::Refused(CHANGED))),
            (_, Some(too_late)) if stored.is_ok() && wanted.stale_ok_ms.is_none() => Err(too_late),
            _ if is_by_chance => stored.map_err(Unstored::by_chance),
            _ => Ok(stored?),
        }
    }

    /// Stores a marker which says that the result is under the key with all settings. A marker is never wrong, so it has no
    /// dependencies.
    fn store_marker(&self, kind: pg_cache_core::Kind) -> Result<(), Status> {
        let marker = NewValue {
            bytes: &[],
            note: &[],
            kind,
            stamp: self.stamp,
            expires: shared::tick_in(MARKER_MS),
            cost: Cost::NONE,
            dependencies: &[],
        };
        self.publish(&marker, None, false).map(|_| ())
    }

    /// Stores a marker which says that the result was invalid before it could be stored, because this dependency has changed.
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
        self.publish(&marker, None, false).map(|_| ())
    }

    /// Returns whether a session waits for the result, or may be about to.
    fn is_awaited(&self) -> bool {
        self.name().is_some_and(|name| self.keyspace.tier.is_awaited(&name, self.number))
    }

    fn set_awaited(&self) {
        self.name().iter().for_each(|name| self.keyspace.tier.set_awaited(name, self.number));
    }

    fn name(&self) -> Option<pg_cache_core::Key<'_>> {
        self.keyspace.key(&self.key, hash(&self.key))
    }

    /// Stores a value under the key, unless the key was changed since the ticket was acquired. The error is the reason if there is
    /// no room for the value.
    fn publish(
        &self,
        value: &NewValue<'_>,
        stale_ok: Option<StaleOk>,
        is_chosen: bool,
    ) -> Result<Stored, Status> {
        let Some(key) = self.name() else { return Ok(Stored::Dropped) };
        let reservation = self.keyspace.reserve(&key, value, stale_ok)?;
        let stored = self.keyspace.tier.publish_leased(&key, reservation, self.number);
        // Caches outside of the database can only hold keys that a caller has chosen.
        if stored != Stored::Dropped && is_chosen {
            journal::key_changed(&self.keyspace, &self.key);
        }
        Ok(stored)
    }

    /// Removes the marker after a wrong stored result, so that the results of the query are stored again.
    pub fn resume(&self, rules: &impl Rules) {
        verify::resume(&self.keyspace, rules);
    }

    /// Releases the right to store the result, and counts this number of failures of the query.
    pub fn give_back(self, failures: u8) {
        flights::end_fill(&self.keyspace, &self.key, self.number, failures);
    }
}

/// The reason if another session has set or removed the key while the query ran.
const CHANGED: &str = "another session has changed the key meanwhile";

/// Returns an error if the result was computed too fast to be stored.
fn admit<R>(space: &Space, run: &Run<R>, rules: &impl Rules) -> Result<(), Status> {
    if rules.min_cost_ms(space).is_some_and(|least| run.cost.micros() < least.saturating_mul(1000)) {
        return Err(Status::Refused("computed in less than min_cost"));
    }
    Ok(())
}

/// Returns the fences that the result depends on. The error is the reason why the result cannot be stored.
pub(super) fn dependencies(
    tier: &HotTier,
    stamp: Stamp,
    wanted: &Wanted<'_>,
    seen: &Seen,
    known: &Known,
    has_composites: bool,
) -> Result<Vec<FenceId>, Status> {
    let relations = refusals::relations_of(wanted, seen)?;
    let mut fences = watch::dependencies(tier, wanted.tags, stamp);
    fences.try_reserve(wanted.tags.len() + RELATIONS_MAX + 2).map_err(OutOfMemory::from)?;
    fences.extend(wanted.tags.iter().map(|name| tag(tier, name)));
    relations.iter().for_each(|oid| watch::add_relation(tier, *oid, stamp, &mut fences));
    if wanted.depends.is_none() {
        // A result that has read leaves of a partitioned table depends on their rows. This fence is for the partitioned table
        // itself: `cache_invalidate_relation` raises it.
        let above = seen.relations.union(&seen.parts).filter(|oid| !relations.contains(oid));
        above.for_each(|oid| memory::push(&mut fences, definitions::of_relation(tier, *oid)));
    }
    let rows_and_tags = fences.len();
    memory::push(&mut fences, tier.fences().reserved(Reserved::Roles));
    run::add_definitions(known, seen, has_composites, &mut fences);
    // If several dependencies of a stored result have changed, the status of a miss names the last one of the list. So the fences
    // of definitions must come first, and the status names a table if it can.
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
