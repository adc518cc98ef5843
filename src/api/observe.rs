//! SQL functions for observed statements: the statements that the client runs while `pg_cache.observe` is on.

use crate::pg::error::OrRaise;
use crate::store::{observed, space};
use pgrx::prelude::*;

/// Removes the counts of the statements of the database that were observed while `pg_cache.observe` was on.
#[pg_extern(volatile, parallel_restricted)]
fn cache_observed_reset() {
    space::require_owner("reset observed statements").or_raise();
    observed::reset();
}

/// The function behind the view `cache_observed`.
#[pg_schema]
mod pgcache {
    use crate::pg::varlena::{Text, Varlena};
    use crate::store::observed::{self, Visible};
    use pgrx::prelude::*;

    /// Returns the observed statements of the database that the caller may see. The statement whose hits would have saved the most
    /// time comes first. The SQL is written out so that each type names its schema: pgrx would write `oid`.
    #[pg_extern(
        volatile,
        parallel_restricted,
        sql = "
        CREATE FUNCTION pgcache.\"observed\"()
        RETURNS TABLE (role pg_catalog.oid, query_id pg_catalog.int8, query pg_catalog.text, calls pg_catalog.int8,
            hits pg_catalog.int8, run_ms pg_catalog.float8, saved_ms pg_catalog.float8, refused pg_catalog.text,
            invalidated_by pg_catalog.text, since pg_catalog.timestamptz)
        VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'observed_wrapper';
    "
    )]
    #[allow(clippy::type_complexity)]
    fn observed() -> TableIterator<
        'static,
        (
            name!(role, pg_sys::Oid),
            name!(query_id, i64),
            name!(query, Option<Text>),
            name!(calls, i64),
            name!(hits, i64),
            name!(run_ms, f64),
            name!(saved_ms, f64),
            name!(refused, Option<Text>),
            name!(invalidated_by, Option<String>),
            name!(since, Option<TimestampWithTimeZone>),
        ),
    > {
        let mut found = observed::visible();
        found.sort_by_key(|Visible { statement, .. }| {
            (std::cmp::Reverse(statement.saved_us), statement.id.role, statement.id.query_id)
        });
        let text = |bytes: Vec<u8>| Text(Varlena::of(&bytes));
        TableIterator::new(found.into_iter().map(move |visible| {
            let Visible { statement, is_readable } = &visible;
            (
                pg_sys::Oid::from(statement.id.role),
                statement.id.query_id as i64,
                is_readable.then(|| text(statement.text())),
                statement.calls as i64,
                statement.hits as i64,
                milliseconds(statement.run_us as f64 / statement.calls.max(1) as f64),
                milliseconds(statement.saved_us as f64),
                statement.reason().filter(|_| *is_readable).map(text),
                visible.culprit(),
                TimestampWithTimeZone::try_from(statement.since).ok(),
            )
        }))
    }

    /// Converts microseconds to milliseconds.
    fn milliseconds(us: f64) -> f64 {
        us.round() / 1000.0
    }
}
