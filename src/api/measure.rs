//! SQL functions for benchmarks.

use pgrx::prelude::*;

/// The schema of objects that are not part of the interface. `sql/schema.sql` creates it.
#[pg_schema]
mod pgcache {
    use crate::api::arguments::invalid;
    use crate::pg::error::Refused;
    use crate::pg::shared;
    use crate::pg::varlena::TextArgument;
    use crate::store::transaction::pending;
    use pgrx::prelude::*;
    use std::time::Instant;

    /// Takes a key and does nothing. It measures the cost of calling any function of this library.
    ///
    /// VOLATILE and PARALLEL RESTRICTED like the cache functions for which it is the baseline, so that the planner treats them
    /// alike.
    #[pg_extern(strict, volatile, parallel_restricted)]
    fn noop(key: TextArgument<'_>) -> i64 {
        let _ = key;
        0
    }

    /// Does what the commit of this transaction will do for the tables that it has written, `times` times, and undoes it each
    /// time. Returns the nanoseconds of one run. With `afresh`, each run behaves as if the session's last transaction had written
    /// to other tables.
    ///
    /// Nothing is invalidated. While the function runs, other sessions may get misses for values that depend on these tables, as
    /// during a commit.
    #[pg_extern(strict, volatile, parallel_restricted)]
    fn walk(times: i32, afresh: default!(bool, false)) -> f64 {
        if times < 1 {
            Refused::raise(invalid("times must be positive"));
        }
        let started = Instant::now();
        for _ in 0..times {
            shared::check_for_interrupts();
            pending::rehearse(afresh);
        }
        started.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    }
}
