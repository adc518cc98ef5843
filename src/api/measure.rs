//! Functions that exist to be measured against.

use pgrx::prelude::*;

/// The schema of what is not an interface; `sql/schema.sql` makes it.
#[pg_schema]
mod pgcache {
    use pgrx::prelude::*;

    /// Takes a key and does nothing: what calling any function of this library costs.
    ///
    /// VOLATILE and PARALLEL RESTRICTED like the cache functions it is the floor of, so that the planner
    /// treats both alike.
    #[pg_extern(strict, volatile, parallel_restricted)]
    fn noop(key: &str) -> i64 {
        let _ = key;
        0
    }
}
