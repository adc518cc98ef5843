//! Verifies a share of the hits of queries (`pg_cache.verify_rate`): runs the query again, and compares its result with the stored
//! one. Every hit of a function that can run the query must be drawn by [`is_drawn`], so that the verification covers all these
//! functions. They get stored results from [`find`], with one exception: `cache_fetch` draws first, and calls this file only if the
//! hit is drawn (`api/fetch.rs`).
//!
//! The query runs on a new snapshot, as after a miss, or on the snapshot of a transaction that keeps one. The stored result may be
//! newer than the snapshot of the caller's statement: in READ COMMITTED, a call may return rows that were committed after its
//! statement began. But the stored result is never newer than the new snapshot. If the results differ, this file checks again
//! whether the entry is valid. If it is valid, no dependency has changed from before the snapshot of the entry until after the new
//! snapshot, so the stored result was wrong. If it is not valid, the new snapshot may be from after the change, so the difference
//! proves nothing.
//!
//! A difference also proves nothing if the result of the run could not be stored, because the query then means something else in
//! this session, or if the query may return different rows for the same data (`pg/unclear.rs`, `clock.rs`). The hit then counts as
//! skipped.
//!
//! The caller of a verified hit gets the rows of the run. The run stores nothing, takes no fill (the right to store a value) and
//! leaves the status as it is, except after a difference. It runs in a subtransaction. If the run fails, the caller gets the stored
//! result, unless the query was cancelled.
//!
//! After a difference, a marker (`store/kind.rs`) replaces the entry. While the marker stands, calls run the query and store
//! nothing.

use super::clock;
use super::freshness::Look;
use super::job::{Found, Job, Rules, Wanted};
use super::refusals;
use super::run::{self, Run};
use crate::pg::encoding::{clipped, shown};
use crate::pg::error::{OrRaise, Refused, SqlState};
use crate::pg::memory;
use crate::pg::observer::{self, Seen};
use crate::pg::role::Role;
use crate::pg::rows::Room;
use crate::pg::{environment, query, relation, server_log, settings, shared, subtransaction, transaction};
use crate::store::entry::{self, Accepts};
use crate::store::keyspace::{Keyspace, hash};
use crate::store::kind::DIFFERED;
use crate::store::note::{self, Facts, OnlyNote};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use pg_cache_core::{Buffer, Cost, Event, Meta, NewValue, Stamp};
use pgrx::PgSqlErrorCode;
use std::time::Duration;

/// The status of a query whose results are not stored because a stored result was wrong.
pub const FAILED: Status = Status::Refused("verification failed: a stored result of the query was wrong");

/// The time to live of the marker: 30 days.
const MARK_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// The cost of the marker. It is high because evictions keep expensive entries.
const MARK_COST: Duration = Duration::from_secs(60 * 60);
/// The most bytes of the text of a query that the log shows.
const TEXT_BYTES_MAX: usize = 1024;

/// Decides by chance whether the next hit is verified.
#[inline]
pub fn is_drawn() -> bool {
    let rate = settings::verify_rate();
    rate > 0.0 && draw(rate)
}

#[cold]
#[inline(never)]
fn draw(rate: f64) -> bool {
    shared::chance() < rate
}

/// Looks for a stored result for the caller of the query. If `is_drawn` is true, verifies the result first, and returns the result
/// of the run instead.
#[inline]
pub fn find<J: Job>(
    space: &Space,
    wanted: &Wanted<'_>,
    look: &Look,
    is_drawn: bool,
    job: &mut J,
) -> Found<J::Result> {
    let stored = match job.look(space, look) {
        Found::Result(stored) => stored,
        Found::Old(stamp) => return Found::Old(stamp),
        Found::Nothing => return Found::Nothing,
    };
    if is_drawn && let Some(result) = verify(space, wanted, job, &stored) {
        return Found::Result(result);
    }
    job.give(stored).map_or(Found::Nothing, Found::Result)
}

/// Verifies a stored result. Returns the result of the run, or None if the caller must get the stored result.
#[cold]
#[inline(never)]
fn verify<J: Job>(space: &Space, wanted: &Wanted<'_>, job: &mut J, stored: &J::Stored) -> Option<J::Result> {
    let keyspace = space.keyspace()?;
    let status = status::current();
    let checked = match before_run(space, wanted, job, &J::meta(stored)) {
        Ok(note) => observer::apart(|| check(space, &keyspace, wanted, job, stored, &note)),
        Err(why) => Checked { outcome: Some(why), result: None },
    };
    checked.outcome.into_iter().for_each(|event| keyspace.tier.count_event(event, 1));
    match checked.outcome {
        Some(Event::VerifiedDifferent) => status::set(FAILED),
        _ => status.into_iter().for_each(status::set),
    }
    checked.result
}

/// The outcome of a verification.
struct Checked<R> {
    /// The event to count.
    outcome: Option<Event>,
    /// The result of the run. None if the caller must get the stored result.
    result: Option<R>,
}

/// The note of the entry that is verified, and its metadata. A later look recognizes the entry by the stamp in the metadata.
struct Note {
    meta: Meta,
    bytes: Vec<u8>,
}

/// Returns the note of the stored result. The error says why the result cannot be verified.
fn before_run<J: Job>(space: &Space, wanted: &Wanted<'_>, job: &J, meta: &Meta) -> Result<Note, Event> {
    if meta.valid_at != u32::MAX {
        return Err(Event::UnverifiedStale);
    }
    if wanted.depends.is_some() {
        return Err(Event::UnverifiedDeclared);
    }
    // No subtransaction can begin while a query runs in parallel.
    if transaction::is_parallel() {
        return Err(Event::UnverifiedSession);
    }
    let note = note_of(space, job.rules().key(), meta.stamp).ok_or(Event::UnverifiedChanged)?;
    let facts = note::facts(note.meta.kind, &note.bytes).ok_or(Event::UnverifiedSession)?;
    // If the caller has chosen the key, the query may have run in another environment.
    let is_of_other =
        || facts.settings || facts.role != Role::current().oid() || facts.environment != environment::short();
    match J::Rules::KEY_IS_CHOSEN && is_of_other() {
        true => Err(Event::UnverifiedSession),
        false => Ok(note),
    }
}

/// Returns the note of the entry under a key, if the entry is valid and has this stamp. Does not count as a read.
fn note_of(space: &Space, key: &[u8], stamp: Stamp) -> Option<Note> {
    let accepts = Accepts { repeats: true, ..Accepts::default() };
    let mut note = OnlyNote::new();
    let meta = entry::read_accepting(space, key, accepts, &mut note)?;
    if !note.0.is_empty() {
        return (meta.stamp == stamp).then_some(Note { meta, bytes: note.0 });
    }
    // A value in a table is read with its note, or not at all.
    let mut whole = NoteAndValue { note: OnlyNote::new(), value: Room::default() };
    let meta = entry::read_accepting(space, key, accepts, &mut whole)?;
    (meta.stamp == stamp).then_some(Note { meta, bytes: whole.note.0 })
}

/// A buffer that receives a value and its note.
struct NoteAndValue {
    note: OnlyNote,
    value: Room,
}

impl Buffer for NoteAndValue {
    const WANTS_NOTE: bool = true;

    fn note_target(&mut self, bytes: usize) -> &mut [u8] {
        self.note.note_target(bytes)
    }

    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.value.allocate(meta)
    }

    fn was_allocated(&self) -> bool {
        self.value.was_allocated()
    }
}

/// Returns whether a look would find the entry with this stamp under the key. Does not count as a read.
fn is_valid(space: &Space, key: &[u8], stamp: Stamp) -> bool {
    entry::peek(space, key).is_some_and(|meta| meta.stamp == stamp)
}

/// Runs the query, and compares its result with the stored one. If the query is cancelled, raises its error. Another error proves
/// nothing: with another plan, the server evaluates the conditions of a query in another order, and may fail in a row that the
/// first run has never reached.
fn check<J: Job>(
    space: &Space,
    keyspace: &Keyspace,
    wanted: &Wanted<'_>,
    job: &mut J,
    stored: &J::Stored,
    note: &Note,
) -> Checked<J::Result> {
    let Some(facts) = note::facts(note.meta.kind, &note.bytes) else {
        return Checked { outcome: None, result: None };
    };
    let run = subtransaction::catch(|| {
        let oids = facts.read.iter().chain(facts.defined).map(|oid| u32::from_ne_bytes(*oid));
        // A hit waits for no lock, so a verified hit should not wait either.
        if !relation::lock_at_once(oids) {
            return None;
        }
        run::renew_session();
        job.prepare_to_compare();
        Some(run::run(job, &mut |_| {}))
    });
    let caught = match run {
        Ok(None) => return Checked { outcome: Some(Event::UnverifiedLocked), result: None },
        Ok(Some(run)) => {
            keyspace.tier.count_event(Event::VerifyTime, run.cost.micros());
            let outcome = compare(space, keyspace, wanted, job, stored, (note, &facts), &run);
            return Checked { outcome: Some(outcome), result: Some(run.result) };
        }
        Err(caught) => caught,
    };
    job.start_anew();
    let Some(failure) = caught.failure() else { caught.raise() };
    if failure.code == SqlState::QUERY_CANCELED {
        keyspace.tier.count_event(Event::UnverifiedFailed, 1);
        caught.raise()
    }
    Checked { outcome: Some(Event::UnverifiedFailed), result: None }
}

/// Compares the result of the run with the stored one.
fn compare<J: Job>(
    space: &Space,
    keyspace: &Keyspace,
    wanted: &Wanted<'_>,
    job: &mut J,
    stored: &J::Stored,
    (note, facts): (&Note, &Facts<'_>),
    run: &Run<J::Result>,
) -> Event {
    if job.is_same(stored, &run.result) {
        return Event::VerifiedSame;
    }
    if !is_valid(space, job.rules().key(), note.meta.stamp) {
        return Event::UnverifiedChanged;
    }
    if !could_be_stored(space, keyspace, wanted, job, &run.seen) {
        return Event::UnverifiedSession;
    }
    let (query, rules) = (job.query(), job.rules());
    let reads_clock = clock::was_read(rules.known(), query.arguments, &run.seen).or_raise();
    // The stored form of a composite value depends on the place from which the server has read its fields: a table or an index.
    if reads_clock || job.has_composites(&run.result) || query::is_unclear(query, job.reader()) {
        return Event::UnverifiedUnclear;
    }
    suspend(keyspace, job, facts);
    let rows = job.rows(&run.result);
    report(job, facts, &format!("Rows stored: {}, rows of the query: {rows}", facts.rows));
    Event::VerifiedDifferent
}

/// Returns whether the result of the run could be stored. If not, the query may mean something else in this session.
fn could_be_stored<J: Job>(
    space: &Space,
    keyspace: &Keyspace,
    wanted: &Wanted<'_>,
    job: &J,
    seen: &Seen,
) -> bool {
    let may_read_cursors = !seen.functions.is_empty() && query::cursors().held > 0;
    !may_read_cursors
        && refusals::check(keyspace.tier, wanted, seen, false).is_ok()
        && refusals::relations_of(wanted, seen).is_ok()
        && job.check().is_ok()
        && job.rules().check(space, seen).is_ok()
        && job.rules().check_names(seen).is_ok()
}

/// Replaces the stored result with the marker. If there is no room for the marker, removes the result without it.
fn suspend<J: Job>(keyspace: &Keyspace, job: &J, facts: &Facts<'_>) {
    let (tier, mark_key, key) = (keyspace.tier, job.rules().mark_key(), job.rules().key());
    let name = |bytes| keyspace.key(bytes, hash(bytes));
    let facts =
        Facts { clock: false, text: job.query().text.to_bytes(), is_cut: false, terms: None, ..*facts };
    let note = note::of_result(&[], &facts);
    let stored = name(&mark_key).zip(note.ok()).and_then(|(name, note)| {
        let mark = NewValue {
            bytes: &[],
            note: &note,
            kind: DIFFERED,
            stamp: tier.fences().now(),
            expires: shared::tick_in(MARK_MS),
            cost: Cost::of(MARK_COST),
            dependencies: &[],
        };
        let reservation = keyspace.reserve(&name, &mark, None).ok()?;
        Some(tier.publish(&name, reservation))
    });
    if stored.is_none() || mark_key != key {
        name(key).iter().for_each(|name| _ = tier.remove(name));
    }
}

/// Removes the marker of a query, so that its results are stored again. Does nothing if the marker is under the key of the result:
/// a new result replaces it there.
pub fn resume(keyspace: &Keyspace, rules: &impl Rules) {
    let mark_key = rules.mark_key();
    if mark_key != rules.key() {
        keyspace.key(&mark_key, hash(&mark_key)).iter().for_each(|name| _ = keyspace.tier.remove(name));
    }
}

/// Writes a warning about a wrong stored result to the server's log.
fn report<J: Job>(job: &J, facts: &Facts<'_>, what: &str) {
    let mut dependencies = String::new();
    for oid in facts.read.iter().chain(facts.defined) {
        memory::check();
        if let Some(name) = relation::in_words(u32::from_ne_bytes(*oid), true) {
            let separator = if dependencies.is_empty() { "" } else { ", " };
            dependencies.extend([separator, &name]);
        }
    }
    if dependencies.is_empty() {
        dependencies.push_str("no table");
    }
    let text = clipped(&job.rules().known().text.normal, TEXT_BYTES_MAX);
    let role = Role::current().name();
    let role = role.as_deref().map_or_else(Default::default, |name| shown(name.to_bytes()));
    let message = format!(
        "pg_cache has verified a hit and found a wrong result. {what}. Role: {role}. Depends on: {dependencies}. Query: {}",
        shown(text)
    );
    server_log::warn(
        Refused::new(PgSqlErrorCode::ERRCODE_WARNING, message)
            .hint("Results of the query are not stored until cache_flush() of its space, or a call with refresh => true."),
    );
}
