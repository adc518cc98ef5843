//! The time to live of results if the call passes no `ttl`.

use super::calls::{run, text};
use pg_cache_testbed::{Database, wait_until};

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
    let call = "cache_query_json_status('SELECT v FROM outside', depends => '{}', space => 'adaptive')";
    let seconds = format!("SELECT round(extract(epoch FROM ttl)) || ' ' || status FROM {call}");
    let status = format!("SELECT (SELECT status FROM {call})");
    let mut next = |expected: &str, change: &str| {
        run(&mut session, change);
        wait_until("the result to expire", || {
            text(&mut session, "SELECT count(*) FROM cache_queries WHERE ttl > interval '0'") == "0"
        });
        assert_eq!(text(&mut session, &seconds).split(' ').next(), Some(expected), "{change}");
        assert_eq!(text(&mut session, &status), "hot");
    };
    next("1", "SELECT");
    next("2", "SELECT");
    next("1", "UPDATE outside SET v = 2");
    next("2", "SELECT");
}
