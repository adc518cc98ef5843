//! SQL functions that benchmarks call to measure the cost of a call and of a commit. They change no value.

use pgrx::prelude::*;

/// The schema of objects that are not part of the interface. `sql/schema.sql` creates it.
#[pg_schema]
mod pgcache {
    use crate::pg::varlena::TextArgument;
    use pgrx::prelude::*;

    /// Takes a key and does nothing. Benchmarks use it to measure the cost of calling any function of this library.
    ///
    /// The function is VOLATILE and PARALLEL RESTRICTED like the functions that are compared with it, so that the planner treats
    /// them alike.
    #[pg_extern(strict, volatile, parallel_restricted)]
    fn noop(key: TextArgument<'_>) -> i64 {
        let _ = key;
        0
    }
}

/// Runs the steps that the commit of this transaction will run for the tables that it has written, `times` times, and undoes them
/// each time. Returns the average time of one run in nanoseconds. `times` must be positive. With `afresh`, each run behaves as if
/// the last transaction of the session had written to other tables. Only builds with the feature `measure` have this function
/// (`CREATE FUNCTION … AS '$libdir/pg_cache', 'rehearse_commit_wrapper'`).
///
/// The function invalidates nothing. While it runs, other sessions may get misses for values that depend on these tables, as during
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
