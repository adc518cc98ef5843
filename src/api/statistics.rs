//! SQL functions for the statistics of spaces and relations, for the memory in use, and for the workers. They are behind views of
//! `sql/`, and `cache_stats_reset` resets the counts.

use crate::pg::error::OrRaise;
use crate::pg::shared;
use crate::store::space;
use pgrx::prelude::*;

/// Sets the statistics of all spaces and all relations of the database to zero.
#[pg_extern(volatile, parallel_restricted)]
fn cache_stats_reset() {
    space::require_owner("reset statistics").or_raise();
    if let Some(tier) = shared::tier() {
        // The owner may see statistics, so these are all spaces.
        space::each_visible(|oid, _, _| {
            tier.reset_stats(shared::database(), oid);
        });
        tier.reset_relation_stats(shared::database());
    }
}

/// The functions behind the views of statistics.
#[pg_schema]
mod pgcache {
    use crate::pg::error::OrRaise;
    use crate::pg::redis_state::RedisState;
    use crate::pg::worker_slot::DATABASE_SLOTS;
    use crate::pg::{memory, relation, session, shared};
    use crate::store::changes;
    use crate::store::space;
    use crate::store::usage::{self, Part};
    use pg_cache_core::{Counter, SpaceStats};
    use pgrx::prelude::*;
    use std::sync::atomic::Ordering::Relaxed;

    /// The counters of reads that return no value.
    const MISSES: [Counter; 5] =
        [Counter::MissAbsent, Counter::MissExpired, Counter::MissFenced, Counter::MissOwn, Counter::MissOff];

    /// The counters of reads that return a value, from memory and from a table.
    const HITS: [Counter; 2] = [Counter::Hit, Counter::HitSaved];

    /// The counters of values that were refused.
    const REFUSALS: [Counter; 5] = [
        Counter::RefusedFull,
        Counter::RefusedSize,
        Counter::RefusedQuota,
        Counter::RefusedTransaction,
        Counter::RefusedOff,
    ];

    /// Returns the statistics of the relations of the database on which cached values have depended and that have changed since.
    /// Leaves out the system catalogs. Relations that share records in shared memory are summed up in one row without a relation.
    /// `fences` is the number of transactions that have changed the relation: each of them has raised the relation's *fence*, the
    /// word in shared memory that says when the relation last changed. `entries_killed` is the number of entries that these changes
    /// have invalidated and whose memory was reclaimed. The SQL is written out because pgrx would declare `relation` as an oid, not
    /// as a regclass.
    #[pg_extern(
        volatile,
        parallel_restricted,
        sql = "
        CREATE FUNCTION pgcache.\"relation_statistics\"()
        RETURNS TABLE (relation pg_catalog.regclass, fences pg_catalog.int8, entries_killed pg_catalog.int8,
            last pg_catalog.timestamptz)
        VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'relation_statistics_wrapper';
    "
    )]
    #[allow(clippy::type_complexity)]
    fn relation_statistics() -> TableIterator<
        'static,
        (
            name!(relation, Option<pg_sys::Oid>),
            name!(fences, i64),
            name!(entries_killed, i64),
            name!(last, Option<TimestampWithTimeZone>),
        ),
    > {
        space::require_monitor("look at the statistics of tables").or_raise();
        let found = shared::tier().into_iter().flat_map(|tier| tier.relation_stats(shared::database()));
        let found = found.filter(|stats| !stats.relation.is_some_and(relation::is_catalog));
        TableIterator::new(found.map(|stats| {
            (
                stats.relation.map(pg_sys::Oid::from),
                stats.changes as i64,
                stats.killed as i64,
                TimestampWithTimeZone::try_from(shared::time_of(stats.last_change)).ok(),
            )
        }))
    }

    /// The counts of a space. All are 0 if nothing was counted yet.
    struct Figures(Option<SpaceStats>);

    impl Figures {
        /// Returns the counts of the space of this database with this OID.
        fn of_space(oid: u32) -> Self {
            Self(shared::tier().and_then(|tier| tier.space_stats(shared::database(), oid)))
        }

        fn of(&self, what: Counter) -> i64 {
            self.0.as_ref().map_or(0, |stats| stats.counted(what) as i64)
        }

        fn sum(&self, all: &[Counter]) -> i64 {
            all.iter().map(|what| self.of(*what)).sum()
        }
    }

    /// Returns the most important counts of the spaces that the caller may read, or of all spaces if the caller may see statistics.
    /// A *live* entry is one that a read can return now. A *dead* one has expired or is invalid, and its memory is not reclaimed
    /// yet.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn space_summary() -> TableIterator<
        'static,
        (
            name!(space, String),
            name!(hits, i64),
            name!(misses, i64),
            name!(hit_ratio, Option<f64>),
            name!(live_entries, i64),
            name!(live_bytes, i64),
            name!(dead_entries, i64),
            name!(dead_bytes, i64),
            name!(evicted, i64),
            name!(refused, i64),
        ),
    > {
        let mut rows = Vec::new();
        for (name, census) in usage::of_spaces() {
            let figures = Figures::of_space(census.space);
            let (hits, misses) = (figures.sum(&HITS), figures.sum(&MISSES));
            memory::check();
            memory::push(
                &mut rows,
                (
                    name,
                    hits,
                    misses,
                    (hits + misses > 0).then(|| rounded(hits as f64 / (hits + misses) as f64)),
                    census.live as i64,
                    census.live_bytes as i64,
                    census.dead as i64,
                    census.dead_bytes as i64,
                    figures.sum(&[Counter::Evicted, Counter::EvictedQuota]),
                    figures.sum(&REFUSALS),
                ),
            );
        }
        TableIterator::new(rows)
    }

    /// Rounds a ratio to hundredths of a percent.
    fn rounded(ratio: f64) -> f64 {
        (ratio * 10_000.0).round() / 10_000.0
    }

    /// Returns all counts of the spaces that the caller may read, or of all spaces if the caller may see statistics.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn space_statistics() -> TableIterator<
        'static,
        (
            name!(space, String),
            name!(entries, i64),
            name!(bytes, i64),
            name!(hits_hot, i64),
            name!(hits_table, i64),
            name!(misses_absent, i64),
            name!(misses_expired, i64),
            name!(misses_invalidated, i64),
            name!(misses_own, i64),
            name!(misses_off, i64),
            name!(read_retries, i64),
            name!(stored, i64),
            name!(promoted, i64),
            name!(replaced, i64),
            name!(removed, i64),
            name!(dropped, i64),
            name!(refused_room, i64),
            name!(refused_size, i64),
            name!(refused_quota, i64),
            name!(refused_transaction, i64),
            name!(refused_off, i64),
            name!(gone_expired, i64),
            name!(gone_invalidated, i64),
            name!(evicted_room, i64),
            name!(evicted_quota, i64),
            name!(never_hit, i64),
            name!(time_saved, Interval),
        ),
    > {
        let mut rows = Vec::new();
        space::each_visible(|oid, name, _| {
            let figures = Figures::of_space(oid);
            let of = |what| figures.of(what);
            memory::check();
            memory::push(
                &mut rows,
                (
                    name.to_owned(),
                    figures.0.as_ref().map_or(0, |stats| stats.entries as i64),
                    figures.0.as_ref().map_or(0, SpaceStats::bytes) as i64,
                    of(Counter::Hit),
                    of(Counter::HitSaved),
                    of(Counter::MissAbsent),
                    of(Counter::MissExpired),
                    of(Counter::MissFenced),
                    of(Counter::MissOwn),
                    of(Counter::MissOff),
                    of(Counter::Retry),
                    of(Counter::Stored),
                    of(Counter::Promoted),
                    of(Counter::Replaced),
                    of(Counter::Removed),
                    of(Counter::Dropped),
                    of(Counter::RefusedFull),
                    of(Counter::RefusedSize),
                    of(Counter::RefusedQuota),
                    of(Counter::RefusedTransaction),
                    of(Counter::RefusedOff),
                    of(Counter::Expired),
                    of(Counter::Fenced),
                    of(Counter::Evicted),
                    of(Counter::EvictedQuota),
                    of(Counter::EvictedUnread),
                    Interval::from_micros(of(Counter::Saved)),
                ),
            );
        });
        TableIterator::new(rows)
    }

    /// Returns how much of each limited resource of the cache is used. A row for the whole server has no database. A row for the
    /// share of one database has the OID of the database. The SQL is written out so that each type names its schema: pgrx would
    /// write `oid`.
    #[pg_extern(
        volatile,
        parallel_restricted,
        sql = "
        CREATE FUNCTION pgcache.\"usage\"()
        RETURNS TABLE (resource pg_catalog.text, database pg_catalog.oid, unit pg_catalog.text, used pg_catalog.int8,
            capacity pg_catalog.int8, used_ratio pg_catalog.float8)
        VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'usage_wrapper';
    "
    )]
    #[allow(clippy::type_complexity)]
    fn usage() -> TableIterator<
        'static,
        (
            name!(resource, &'static str),
            name!(database, Option<pg_sys::Oid>),
            name!(unit, &'static str),
            name!(used, i64),
            name!(capacity, i64),
            name!(used_ratio, Option<f64>),
        ),
    > {
        space::require_monitor("look at the memory in use").or_raise();
        let parts = shared::tier().map_or(Vec::new(), usage::parts);
        TableIterator::new(parts.into_iter().map(|Part { resource, database, unit, fill }| {
            let ratio = (fill.capacity > 0).then(|| rounded(fill.used as f64 / fill.capacity as f64));
            (resource, database.map(pg_sys::Oid::from), unit, fill.used as i64, fill.capacity as i64, ratio)
        }))
    }

    /// Returns the background workers that are alive, each with the OID of its database. The SQL is written out so that each type
    /// names its schema: pgrx would write `oid`.
    #[pg_extern(
        volatile,
        parallel_restricted,
        sql = "
        CREATE FUNCTION pgcache.\"workers\"()
        RETURNS TABLE (pid pg_catalog.int4, kind pg_catalog.text, database pg_catalog.oid, started pg_catalog.timestamptz,
            last_step pg_catalog.timestamptz, saved pg_catalog.int8, too_late pg_catalog.int8, freed pg_catalog.int8,
            swept pg_catalog.int8, notifications pg_catalog.int8, journal pg_catalog.interval, connected pg_catalog.bool,
            lag pg_catalog.int8, lag_time pg_catalog.interval, resyncs pg_catalog.int8, errors pg_catalog.int8, error pg_catalog.text)
        VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'workers_wrapper';
    "
    )]
    #[allow(clippy::type_complexity)]
    fn workers() -> TableIterator<
        'static,
        (
            name!(pid, i32),
            name!(kind, &'static str),
            name!(database, Option<pg_sys::Oid>),
            name!(started, Option<TimestampWithTimeZone>),
            name!(last_step, Option<TimestampWithTimeZone>),
            name!(saved, i64),
            name!(too_late, i64),
            name!(freed, i64),
            name!(swept, i64),
            name!(notifications, i64),
            name!(journal, Option<Interval>),
            name!(connected, Option<bool>),
            name!(lag, Option<i64>),
            name!(lag_time, Option<Interval>),
            name!(resyncs, Option<i64>),
            name!(errors, i64),
            name!(error, Option<String>),
        ),
    > {
        space::require_monitor("look at the background workers").or_raise();
        let time = |tick| TimestampWithTimeZone::try_from(shared::time_of(tick)).ok();
        // For how long the journal, the ring of changes in shared memory, reaches back. The same for all workers.
        let reach = changes::reach_ms().map(|ms| Interval::from_micros(ms as i64 * 1000));
        // `worker_slots` returns the slots in this order.
        let workers = std::iter::repeat_n("worker", DATABASE_SLOTS);
        let kinds = ["launcher", "redis"].into_iter().chain(workers).chain(std::iter::repeat("warmer"));
        let slots = shared::worker_slots().zip(kinds);
        let alive = slots.filter(|(slot, _)| session::is_alive(slot.pid.load(Relaxed)));
        TableIterator::new(alive.map(move |(slot, kind)| {
            let database = Some(slot.database.load(Relaxed)).filter(|database| *database != 0);
            let redis = shared::redis_state().filter(|_| kind == "redis");
            // `acked` is the number in the journal up to which Redis has confirmed all changes, or 0 if it has confirmed none yet.
            let (acked, is_comparing) = redis.map(RedisState::progress).unwrap_or_default();
            let lag = redis.filter(|_| acked > 0).and_then(|_| changes::lag(acked));
            (
                slot.pid.load(Relaxed) as i32,
                kind,
                database.map(pg_sys::Oid::from),
                time(slot.started.load(Relaxed)),
                time(slot.worked.load(Relaxed)),
                slot.saved.load(Relaxed) as i64,
                // The column `too_late`: copies that were not used, because the entry had changed meanwhile.
                slot.outdated.load(Relaxed) as i64,
                slot.freed.load(Relaxed) as i64,
                slot.swept.load(Relaxed) as i64,
                slot.notified.load(Relaxed) as i64,
                reach,
                redis.map(|state| state.is_connected.load(Relaxed) != 0),
                // While the worker compares or refills keys, Redis may lack changes that the journal does not have any more, so the
                // lag is at least 1.
                lag.map(|lag| lag.lines.max(is_comparing.into()) as i64),
                lag.and_then(|lag| lag.ms).map(|ms| Interval::from_micros(ms as i64 * 1000)),
                redis.map(|state| state.resyncs.load(Relaxed) as i64),
                slot.errors.load(Relaxed) as i64,
                redis
                    .and_then(RedisState::error)
                    .or_else(|| slot.error().map(|(error, _)| error.to_string())),
            )
        }))
    }
}
