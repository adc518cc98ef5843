//! SQL functions for the statistics of spaces and relations.

use crate::pg::error::OrRaise;
use crate::pg::shared;
use crate::store::space;
use pgrx::prelude::*;

/// Sets the statistics of all spaces and all relations of the database to zero.
#[pg_extern(volatile, parallel_restricted)]
fn cache_stats_reset() {
    space::require_owner("reset statistics").or_raise();
    if let Some(tier) = shared::tier() {
        space::each_visible(|number, _, _| {
            tier.reset_stats(shared::database(), number);
        });
        tier.reset_relation_stats(shared::database());
    }
}

/// The functions behind the statistics views.
#[pg_schema]
mod pgcache {
    use crate::pg::error::OrRaise;
    use crate::pg::{memory, relation, shared};
    use crate::store::space;
    use pg_cache_core::{Counter, SpaceStats};
    use pgrx::prelude::*;

    /// Returns the statistics of the relations of the database that have changed, without those of the system catalogs. The row without a relation has the figures of
    /// all relations that share records.
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
                TimestampWithTimeZone::try_from(shared::time_of(stats.last)).ok(),
            )
        }))
    }

    /// Returns the statistics of the spaces that the caller may read, or of all spaces if the caller may see statistics.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn space_statistics() -> TableIterator<
        'static,
        (
            name!(space, String),
            name!(entries, i64),
            name!(bytes, i64),
            name!(hits_hot, i64),
            name!(misses_absent, i64),
            name!(misses_expired, i64),
            name!(misses_invalidated, i64),
            name!(misses_own, i64),
            name!(misses_off, i64),
            name!(hit_ratio, Option<f64>),
            name!(stored, i64),
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
            name!(evicted_valid, i64),
            name!(never_hit, i64),
            name!(time_saved, Interval),
        ),
    > {
        let mut rows = Vec::new();
        space::each_visible(|number, name, _| {
            let stats = shared::tier().and_then(|tier| tier.space_stats(shared::database(), number));
            let of = |what: Counter| stats.as_ref().map_or(0, |stats| stats.counted(what) as i64);
            let hits = of(Counter::Hit);
            let asked = [
                Counter::Hit,
                Counter::MissAbsent,
                Counter::MissExpired,
                Counter::MissFenced,
                Counter::MissOwn,
                Counter::MissOff,
            ]
            .map(of)
            .iter()
            .sum::<i64>();
            memory::check();
            memory::push(
                &mut rows,
                (
                    name.to_owned(),
                    stats.as_ref().map_or(0, |stats| stats.entries as i64),
                    stats.as_ref().map_or(0, SpaceStats::bytes) as i64,
                    hits,
                    of(Counter::MissAbsent),
                    of(Counter::MissExpired),
                    of(Counter::MissFenced),
                    of(Counter::MissOwn),
                    of(Counter::MissOff),
                    (asked > 0).then(|| hits as f64 / asked as f64),
                    of(Counter::Stored),
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
                    // Entries that were valid and were evicted to make room, in the cache or in the quota of their space.
                    of(Counter::Evicted) + of(Counter::EvictedQuota),
                    of(Counter::EvictedUnread),
                    Interval::from_micros(of(Counter::Saved)),
                ),
            );
        });
        TableIterator::new(rows)
    }
}
