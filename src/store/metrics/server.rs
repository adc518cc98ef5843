//! The metrics of the whole server: one function for each group of metrics, which passes them to a *sink*, the receiver of metrics
//! (`family.rs`). The *tier* is the cache in shared memory. The *journal* is a ring in shared memory that names what has changed;
//! workers follow it and may lag behind.

use super::family::{Family, Owner, Sink, Type, Value};
use crate::pg::redis_state::RedisState;
use crate::pg::shared::{self, HotTier};
use crate::pg::worker_slot::{DATABASE_SLOTS, WorkerSlot};
use crate::pg::{background, memory, session, settings};
use crate::store::changes::{self, Lag};
use crate::store::table::record;
use pg_cache_core::{BUCKETS, Event, Figures, Operation, bucket_limit_nanos};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use Type::{Counter, Gauge, Histogram};

/// Passes `pgcache_up` to a sink. The metric tells whether the server caches.
pub fn up(is_up: bool, into: &mut impl Sink) {
    into.single("pgcache_up", Gauge, "Whether this server caches: 1 or 0.", Value::Number(is_up.into()));
}

/// Passes the metrics of the server to a sink, except `pgcache_up`. May raise errors.
pub fn collect(tier: &'static HotTier, figures: &Figures, into: &mut impl Sink) {
    let events = |what| Value::Number(figures.events.counted(what));
    invalidations(figures, into);
    operations(figures, into);
    verification(figures, into);
    let limit = Value::Number(tier.block_bytes());
    into.single("pgcache_memory_limit_bytes", Gauge, "Memory for values.", limit);
    places(tier, into);
    tables(tier, into);
    results(
        into,
        Family {
            name: "pgcache_saves_total",
            kind: Counter,
            help: "Values copied to tables, by the result.",
        },
        [("saved", events(Event::Saved)), ("too_late", events(Event::SavedTooLate))],
    );
    let help = "Tables of saved values that were emptied to be used again.";
    into.single("pgcache_segments_recycled_total", Counter, help, events(Event::Recycled));
    workers(into);
    let help = "Steps of background workers that ended with an error.";
    into.single("pgcache_worker_errors_total", Counter, help, events(Event::WorkerFailed));
    journal(into);
    let help = "Notifications sent about changes.";
    into.single("pgcache_notifications_total", Counter, help, events(Event::Notified));
    let help =
        "How often the sending of notifications was paused because the queue of the server was half full.";
    into.single("pgcache_notification_pauses_total", Counter, help, events(Event::Paused));
    notifications(into);
    redis(into);
    let help = "How often all keys in Redis were compared.";
    into.single("pgcache_redis_resyncs_total", Counter, help, events(Event::Resync));
}

/// Passes a family with the label `result` to a sink.
fn results(into: &mut impl Sink, family: Family, samples: [(&str, Value); 2]) {
    into.family(&family);
    for (result, value) in samples {
        into.sample(family.name, &Owner::default(), &[("result", result)], value);
    }
}

/// Passes the numbers of invalidations to a sink, by what has changed.
fn invalidations(figures: &Figures, into: &mut impl Sink) {
    let name = "pgcache_invalidations_total";
    let help = "Committed changes that invalidate the values that depend on them, by what has changed.";
    into.family(&Family { name, kind: Counter, help });
    for (source, event) in [
        ("table", Event::ByRelation),
        ("tag", Event::ByTag),
        ("pattern", Event::ByPattern),
        ("space", Event::BySpace),
        ("database", Event::ByDatabase),
        ("definitions", Event::ByDefinitions),
        ("roles", Event::ByRoles),
    ] {
        let value = Value::Number(figures.events.counted(event));
        into.sample(name, &Owner::default(), &[("source", source)], value);
    }
}

/// Returns the name of an operation, and the name of the tier in which the operation found its value, for labels and for
/// `cache_latency`.
pub fn names_of(operation: Operation) -> (&'static str, Option<&'static str>) {
    match operation {
        Operation::GetFromMemory => ("get", Some("memory")),
        Operation::GetFromTable => ("get", Some("table")),
        Operation::QueryFromMemory => ("query_hit", Some("memory")),
        Operation::QueryFromTable => ("query_hit", Some("table")),
        Operation::Set => ("set", None),
        Operation::Fill => ("fill", None),
        Operation::Wait => ("wait", None),
    }
}

/// Passes the histograms of operations to a sink.
fn operations(figures: &Figures, into: &mut impl Sink) {
    let name = "pgcache_operation_seconds";
    let help = "Times of operations. Only some of the reads, hits of queries and sets are timed: see pg_cache.track_latency.";
    into.family(&Family { name, kind: Histogram, help });
    for operation in Operation::ALL {
        let histogram = figures.histograms.of(operation);
        let (operation, tier) = names_of(operation);
        let labels = [("operation", operation), ("tier", tier.unwrap_or_default())];
        let labels = &labels[..1 + usize::from(tier.is_some())];
        let mut count: u64 = 0;
        for bucket in 0..BUCKETS {
            count = count.wrapping_add(histogram.buckets[bucket]);
            let limit = bucket_limit_nanos(bucket).map(|nanos| (nanos as f64 / 1e9).to_string());
            let limit = limit.as_deref().unwrap_or("+Inf");
            let with_limit = [labels, &[("le", limit)]].concat();
            into.sample(
                "pgcache_operation_seconds_bucket",
                &Owner::default(),
                &with_limit,
                Value::Number(count),
            );
        }
        let sum = Value::Nanos(histogram.sum_nanos);
        into.sample("pgcache_operation_seconds_sum", &Owner::default(), labels, sum);
        into.sample("pgcache_operation_seconds_count", &Owner::default(), labels, Value::Number(count));
    }
}

/// The reasons why a hit that was to be verified could not be compared, as values of the label `reason`.
const UNVERIFIED: [(&str, Event); 7] = [
    ("stale_ok", Event::UnverifiedStale),
    ("changed", Event::UnverifiedChanged),
    ("depends", Event::UnverifiedDeclared),
    ("unclear", Event::UnverifiedUnclear),
    ("session", Event::UnverifiedSession),
    ("locked", Event::UnverifiedLocked),
    ("error", Event::UnverifiedFailed),
];

/// Returns three numbers of hits of this server: verified hits whose stored result was right, verified hits whose stored result was
/// wrong, and hits that were to be verified and could not be compared.
pub fn verified(figures: &Figures) -> [u64; 3] {
    let counted = |event| figures.events.counted(event);
    let skipped = UNVERIFIED.iter().fold(0, |sum: u64, (_, event)| sum.wrapping_add(counted(*event)));
    [counted(Event::VerifiedSame), counted(Event::VerifiedDifferent), skipped]
}

/// Passes the counts of verified hits to a sink.
fn verification(figures: &Figures, into: &mut impl Sink) {
    let events = |what| Value::Number(figures.events.counted(what));
    results(
        into,
        Family {
            name: "pgcache_verified_total",
            kind: Counter,
            help: "Hits whose query was run again, by whether the query returned the stored result.",
        },
        [("same", events(Event::VerifiedSame)), ("different", events(Event::VerifiedDifferent))],
    );
    let name = "pgcache_verify_skipped_total";
    let help = "Hits that were to be verified and could not be compared, by the reason.";
    into.family(&Family { name, kind: Counter, help });
    for (reason, event) in UNVERIFIED {
        into.sample(name, &Owner::default(), &[("reason", reason)], events(event));
    }
    let time = Value::Micros(figures.events.counted(Event::VerifyTime));
    into.single("pgcache_verify_seconds_total", Counter, "Time that the repeated queries took.", time);
}

/// Passes the number of used places of the tables of fixed size to a sink, and the number of all their places.
fn places(tier: &HotTier, into: &mut impl Sink) {
    let fills = [
        ("space_records", tier.space_records()),
        ("table_records", tier.relation_records()),
        ("saved_values", tier.saved_values()),
    ];
    let name = "pgcache_places_used";
    let help = "Taken places in the tables of fixed size in shared memory.";
    into.family(&Family { name, kind: Gauge, help });
    for (resource, fill) in fills {
        into.sample(name, &Owner::default(), &[("resource", resource)], Value::Number(fill.used));
    }
    let name = "pgcache_places_limit";
    into.family(&Family { name, kind: Gauge, help: "All places in these tables." });
    for (resource, fill) in fills {
        into.sample(name, &Owner::default(), &[("resource", resource)], Value::Number(fill.capacity));
    }
}

/// Passes the disk space of saved values to a sink.
fn tables(tier: &HotTier, into: &mut impl Sink) {
    let mut bytes = BTreeMap::new();
    record::each(tier, |_, record| *bytes.entry(record.database).or_insert(0) += record.bytes);
    let name = "pgcache_table_bytes";
    into.family(&Family { name, kind: Gauge, help: "Disk space of saved values." });
    for (database, bytes) in bytes {
        memory::check();
        into.sample(name, &of_database(database), &[], Value::Number(bytes));
    }
    let limit = Value::Number(settings::table_bytes());
    into.single("pgcache_table_limit_bytes", Gauge, "Disk space that saved values may take.", limit);
}

fn of_database(database: u32) -> Owner {
    Owner::of(&[("database", &background::database_name(database))])
}

/// Passes the number of workers of each kind to a sink, and the time since their last step. If a kind has several workers, the time
/// is that of the worker whose last step is the longest ago.
fn workers(into: &mut impl Sink) {
    // `shared::worker_slots` returns the slots in this order.
    let workers = std::iter::repeat_n("worker", DATABASE_SLOTS);
    let kinds = ["launcher", "redis"].into_iter().chain(workers).chain(std::iter::repeat("warmer"));
    let mut found = ["launcher", "redis", "worker", "warmer"].map(|kind| (kind, 0, 0));
    for (slot, kind) in shared::worker_slots().zip(kinds).filter(|(slot, _)| is_alive(slot)) {
        if let Some((_, count, ms)) = found.iter_mut().find(|(known, ..)| *known == kind) {
            *count += 1;
            *ms = shared::ms_since(slot.worked.load(Relaxed)).max(*ms);
        }
    }
    let name = "pgcache_workers";
    into.family(&Family { name, kind: Gauge, help: "Background workers that run, by kind." });
    for (kind, count, _) in found {
        into.sample(name, &Owner::default(), &[("kind", kind)], Value::Number(count));
    }
    let name = "pgcache_worker_lag_seconds";
    let help = "Time since the last step of a background worker, by kind.";
    into.family(&Family { name, kind: Gauge, help });
    for (kind, _, ms) in found.into_iter().filter(|(_, count, _)| *count > 0) {
        into.sample(name, &Owner::default(), &[("kind", kind)], Value::Millis(ms));
    }
}

fn is_alive(slot: &WorkerSlot) -> bool {
    session::is_alive(slot.pid.load(Relaxed))
}

/// Passes the number of lines of the journal and its reach in time to a sink.
fn journal(into: &mut impl Sink) {
    if let Some(last) = changes::last() {
        let help = "Number of the last line of the journal of changes. It grows by 1 with each line, and does not begin with 0.";
        into.single("pgcache_journal_lines_total", Counter, help, Value::Number(last));
    }
    if let Some(ms) = changes::reach_ms() {
        let help = "How far the journal of changes reaches back.";
        into.single("pgcache_journal_reach_seconds", Gauge, help, Value::Millis(ms));
    }
}

/// Passes the lag of the notifications behind the journal to a sink.
fn notifications(into: &mut impl Sink) {
    let mut found = Vec::new();
    if settings::notify_channel().is_some() {
        for slot in shared::database_slots().filter(|slot| is_alive(slot)) {
            let sent = slot.sent.load(Relaxed);
            if let Some(lag) = changes::lag(sent).filter(|_| sent > 0) {
                memory::check();
                let is_paused = slot.is_paused.load(Relaxed);
                memory::push(&mut found, (of_database(slot.database.load(Relaxed)), lag, is_paused));
            }
        }
    }
    let name = "pgcache_notification_lag_lines";
    let help = "Lines of the journal of which no notification was sent yet.";
    into.family(&Family { name, kind: Gauge, help });
    for (owner, lag, _) in &found {
        into.sample(name, owner, &[], Value::Number(lag.lines));
    }
    let name = "pgcache_notification_lag_seconds";
    into.family(&Family { name, kind: Gauge, help: "Age of the oldest of these lines." });
    for (owner, lag, _) in &found {
        lag_seconds(name, owner, lag, into);
    }
    let name = "pgcache_notifications_paused";
    let help = "Whether notifications wait because the queue of the server is half full: 1 or 0.";
    into.family(&Family { name, kind: Gauge, help });
    for (owner, _, is_paused) in &found {
        into.sample(name, owner, &[], Value::Number(*is_paused));
    }
}

/// Passes the time of a lag to a sink, if the time is known.
fn lag_seconds(name: &'static str, owner: &Owner, lag: &Lag, into: &mut impl Sink) {
    if let Some(ms) = lag.ms {
        into.sample(name, owner, &[], Value::Millis(ms));
    }
}

/// Passes the state of Redis to a sink, if values are copied to Redis.
fn redis(into: &mut impl Sink) {
    let is_running = settings::redis_url().is_some() && shared::redis_slot().is_some_and(is_alive);
    let Some(state) = shared::redis_state().filter(|_| is_running) else { return };
    let is_up = Value::Number(state.is_connected.load(Relaxed));
    into.single("pgcache_redis_up", Gauge, "Whether Redis answers: 1 or 0.", is_up);
    let Some((lag, is_comparing)) = redis_lag(state) else { return };
    let lines = Value::Number(lag.lines.max(is_comparing.into()));
    let help = "Lines of the journal that Redis has not confirmed; at least 1 while keys are compared.";
    into.single("pgcache_redis_lag_lines", Gauge, help, lines);
    let name = "pgcache_redis_lag_seconds";
    into.family(&Family { name, kind: Gauge, help: "Age of the oldest of these lines." });
    lag_seconds(name, &Owner::default(), &lag, into);
}

/// Returns how far Redis is behind, and whether the worker still compares keys. None if the lag is not known.
fn redis_lag(state: &RedisState) -> Option<(Lag, bool)> {
    let (acked, is_comparing) = state.progress();
    changes::lag(acked).filter(|_| acked > 0).map(|lag| (lag, is_comparing))
}
