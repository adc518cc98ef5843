//! Tests of the time to live of results if the call passes no `ttl`. If the space, a named cache with options of its own, has the
//! option `ttl_policy => 'adaptive'`, the time to live depends on how often the result changes.

use super::calls::{run, text};
use pg_cache_testbed::{Database, wait_until};
use std::time::Instant;

/// With `ttl_policy => 'adaptive'`, a result that equals the expired one must live twice as long, and a result that differs must
/// live half as long. The table is no dependency of the result, so its change does not invalidate the result.
#[test]
fn an_adaptive_time_to_live_follows_changes() {
    let database = Database::create();
    let mut session = database.connect();
    run(
        &mut session,
        "CREATE TABLE outside AS SELECT 1 AS v;
         SELECT cache_create_space('adaptive', ttl_policy => 'adaptive', default_ttl => '1 s')",
    );
    let call = "SELECT extract(epoch FROM ttl)
                  FROM cache_query_json_status('SELECT v FROM outside', depends => '{}', space => 'adaptive')";
    let living = "SELECT count(*) FROM cache_queries WHERE ttl > interval '0'";
    let mut next = |expected: f64, change: &str| {
        run(&mut session, change);
        wait_until("the result to expire", || text(&mut session, living) == "0");
        let asked = Instant::now();
        // The call stores the result, and returns the rest of its time to live. Rounding may shorten it a little.
        let left: f64 = text(&mut session, call).parse().expect("a number");
        let is_stored = text(&mut session, living) == "1";
        let passed = asked.elapsed().as_secs_f64();
        assert!(left <= expected && left > expected - passed - 0.4, "{change}: {left} of {expected} s");
        assert!(is_stored || passed > expected - 0.4, "{change}: the result is not stored");
    };
    next(1.0, "SELECT");
    next(2.0, "SELECT");
    next(1.0, "UPDATE outside SET v = 2");
    next(2.0, "SELECT");
}
