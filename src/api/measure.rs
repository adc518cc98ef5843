//! SQL functions for benchmarks.

use pgrx::prelude::*;

/// The schema of objects that are not part of the interface. `sql/schema.sql` creates it.
#[pg_schema]
mod pgcache {
    use crate::pg::varlena::TextArgument;
    use pgrx::prelude::*;

    /// Takes a key and does nothing. It measures the cost of calling any function of this library.
    ///
    /// VOLATILE and PARALLEL RESTRICTED like the cache functions for which it is the baseline, so that the planner treats them
    /// alike.
    #[pg_extern(strict, volatile, parallel_restricted)]
    fn noop(key: TextArgument<'_>) -> i64 {
        let _ = key;
        0
    }
}

/// Does what the commit of this transaction will do for the tables that it has written, `times` times, and undoes it each time.
/// Returns the average nanoseconds of one run; `times` must be positive. With `afresh`, each run behaves as if the session's last
/// transaction had written to other tables. Only builds with the feature `measure` have this function (`CREATE FUNCTION … AS
/// '$libdir/pg_cache', 'rehearse_commit_wrapper'`).
///
/// Nothing is invalidated. While the function runs, other sessions may get misses for values that depend on these tables, as during
/// a commit.
#[cfg(feature = "measure")]
#[pg_extern(sql = false)]
fn rehearse_commit(times: i32, afresh: bool) -> f64 {
    let started = std::time::Instant::now();
    for _ in 0..times {
        crate::pg::shared::check_for_interrupts();
        crate::store::transaction::pending::rehearse(afresh);
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}
