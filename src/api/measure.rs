//! Functions that exist to be measured against.

use pgrx::prelude::*;

/// The schema of what is not an interface; `sql/schema.sql` makes it.
#[pg_schema]
mod pgcache {
    use crate::api::arguments::invalid;
    use crate::pg::error::Refused;
    use crate::pg::shared;
    use crate::pg::varlena::TextArgument;
    use crate::store::pending;
    use pgrx::prelude::*;
    use std::time::Instant;

    /// Takes a key and does nothing: what calling any function of this library costs.
    ///
    /// VOLATILE and PARALLEL RESTRICTED like the cache functions it is the floor of, so that the planner
    /// treats both alike.
    #[pg_extern(strict, volatile, parallel_restricted)]
    fn noop(key: TextArgument<'_>) -> i64 {
        let _ = key;
        0
    }

    /// Does what the commit of this transaction will do for the tables that it has written, so many times, and takes it back: the
    /// nanoseconds of one time. `afresh` does each as if this session's last transaction had written to other tables.
    ///
    /// Nothing is invalidated by it. While it works, others may miss what depends on these tables, as they do during a commit.
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
