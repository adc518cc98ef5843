//! Tests of values that exceed a limit (of the space, of the cache, of the transaction), and of additions to numbers: what the
//! session and other sessions then read. A *space* is a named cache with its own options. `findings` (`memory.rs`) returns what
//! `cache_check()` finds wrong in the cache.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database};
use postgres::Client;

/// Returns the value of an SQL expression as text, or `None` if it is null.
fn text(session: &mut Client, call: &str) -> Option<String> {
    session.query_one(&format!("SELECT ({call})::text"), &[]).expect(call).get(0)
}

/// The previous value is outdated, so a refused set removes it: at once for the transaction, and for others when it commits.
#[test]
fn the_previous_value_of_a_refused_one_goes_with_the_commit() {
    let database = Database::create();
    let (mut session, mut other) = (database.connect(), database.connect());
    let set = "SELECT cache_create_space('s', max_value => 10), cache_set_text('k', 'old', space => 's')";
    session.batch_execute(set).expect("it is set");
    for (end, expected) in [("ROLLBACK", Some("old")), ("COMMIT", None)] {
        session.batch_execute("BEGIN").expect("it begins");
        assert_eq!(
            text(&mut session, "cache_set_text('k', 'much too long', space => 's')").as_deref(),
            Some("false")
        );
        assert_eq!(text(&mut session, "cache_get_text('k', 's')"), None);
        assert_eq!(text(&mut other, "cache_get_text('k', 's')").as_deref(), Some("old"));
        session.batch_execute(end).expect("it ends");
        assert_eq!(text(&mut other, "cache_get_text('k', 's')").as_deref(), expected, "{end}");
    }
}

/// A large value evicts others. A value of more than an eighth of the memory for entries is refused, although
/// `pg_cache.max_value_size` would allow it. The memory for entries is a little smaller than `pg_cache.hot_size`, so the limit is
/// a little less than 256 kB here.
#[test]
fn an_entry_takes_at_most_an_eighth_of_a_small_cache() {
    let conf = Conf::preloaded().set("pg_cache.max_value_size", "1023MB");
    let cluster = cluster(&conf.set("pg_cache.hot_size", "2MB"));
    let mut session = cluster.connect("postgres");
    // These entries take more than twice the memory, so the large values must evict some of them.
    let fill = "SELECT count(*) FILTER (WHERE cache_set_text('f' || i, repeat('x', 100))) FROM generate_series(1, 30000) AS i";
    assert_eq!(text(&mut session, fill).as_deref(), Some("30000"));
    for size in [100_000, 240_000] {
        let set = format!("cache_set_text('k', repeat('x', {size}))");
        assert_eq!(text(&mut session, &set).as_deref(), Some("true"), "{size}");
        assert_eq!(text(&mut session, "length(cache_get_text('k'))"), Some(size.to_string()));
    }
    for size in ["270000", "200000000"] {
        session.batch_execute("SELECT cache_set_text('k', 'old')").expect("it is set");
        let row = session
            .query_one(&format!("SELECT cache_set_text('k', repeat('x', {size})), cache_status()"), &[])
            .expect("it is no error");
        assert_eq!((row.get(0), row.get(1)), (false, "refused: larger than an eighth of the cache"));
        assert_eq!(text(&mut session, "cache_get_text('k')"), None, "{size}");
    }
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// A transaction that replaces more values than it may hold back (here 64 kB, about 30 values of 2000 bytes) does not store the
/// values that do not fit, and removes their previous values. If even the removals do not fit, as with 800 keys, it invalidates
/// the whole space instead of single keys, and with it the key `innocent`, which the transaction does not touch.
#[test]
fn values_beyond_the_limit_of_a_transaction_remove_their_previous_ones() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.max_transaction_size", "64kB"));
    let mut session = cluster.connect("postgres");
    let count = |session: &mut Client, condition: &str, from: u32, to: u32| -> i64 {
        let query =
            format!("SELECT count(*) FILTER (WHERE {condition}) FROM generate_series({from}, {to}) AS i");
        session.query_one(&query, &[]).expect("it is no error").get(0)
    };
    let set = |length| format!("cache_set_text('k' || i, repeat('x', {length}))");
    let has = |length| format!("length(cache_get_text('k' || i)) = {length}");
    for (keys, innocent) in [(60, true), (800, false)] {
        assert_eq!(text(&mut session, "cache_set_text('innocent', 'v')").as_deref(), Some("true"));
        // The previous values are set by 100 in a transaction, which stays below the limit.
        for from in (1..=keys).step_by(100) {
            let to = keys.min(from + 99);
            assert_eq!(count(&mut session, &set(1), from, to), i64::from(to - from + 1));
        }
        let stored = count(&mut session, &set(2_000), 1, keys);
        assert!((20..40).contains(&stored), "{stored}");
        assert_eq!(count(&mut session, &has(1), 1, keys), 0, "a previous value stays");
        let expected = if innocent { stored } else { 0 };
        assert_eq!(count(&mut session, &has(2_000), 1, keys), expected, "{keys} keys");
        assert_eq!(text(&mut session, "cache_exists('innocent')"), Some(innocent.to_string()));
    }
    // Without previous values, nothing has to be removed.
    assert_eq!(text(&mut session, "cache_set_text('innocent', 'v')").as_deref(), Some("true"));
    let stored = count(&mut session, &set(2_000), 10_001, 10_800);
    assert!((20..40).contains(&stored), "{stored}");
    assert_eq!(count(&mut session, &has(2_000), 10_001, 10_800), stored);
    assert_eq!(text(&mut session, "cache_exists('innocent')").as_deref(), Some("true"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Sessions add to the same numbers at the same time. The first addition finds a text or a jsonb and makes it a counter, which
/// must keep the time to live and the tag. A lost addition would leave a number below 104.
#[test]
fn no_addition_to_a_number_is_lost() {
    const SESSIONS: usize = 4;
    const KEYS: usize = 400;
    let database = Database::create();
    let mut session = database.connect();
    let set = format!(
        "SELECT CASE WHEN i % 2 = 0 THEN cache_set_text('n' || i, '100', '1 hour', '{{t}}') ELSE cache_set('n' || i, '100', '1 hour', '{{t}}') END
           FROM generate_series(1, {KEYS}) AS i"
    );
    session.batch_execute(&set).expect("they are set");
    let start = std::sync::Barrier::new(SESSIONS);
    std::thread::scope(|threads| {
        for _ in 0..SESSIONS {
            threads.spawn(|| {
                let mut session = database.connect();
                session.batch_execute("SELECT cache_get('warm')").expect("it works");
                start.wait();
                let add = format!("SELECT cache_incr('n' || i) FROM generate_series(1, {KEYS}) AS i");
                session.batch_execute(&add).expect("they are numbers");
            });
        }
    });
    let sums = format!(
        "SELECT count(*) FILTER (WHERE cache_get_text('n' || i) = '104' AND cache_ttl('n' || i) > '59 min') FROM generate_series(1, {KEYS}) AS i"
    );
    assert_eq!(session.query_one(&sums, &[]).expect("it works").get::<_, i64>(0), KEYS as i64);
    session.batch_execute("SELECT cache_invalidate_tag('t')").expect("it works");
    let left = sums.replace("= '104'", "IS NOT NULL");
    assert_eq!(session.query_one(&left, &[]).expect("it works").get::<_, i64>(0), 0, "the tags stay");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// After a transaction has removed a number, its own additions begin at 0 again. Other sessions add to the old number until the
/// transaction commits.
#[test]
fn a_counter_that_a_transaction_has_removed_is_its_own() {
    let database = Database::create();
    let (mut session, mut other) = (database.connect(), database.connect());
    for (end, expected) in [("ROLLBACK", "12"), ("COMMIT", "2")] {
        session.batch_execute("SELECT cache_set_text('c', '10')").expect("it is set");
        session.batch_execute("BEGIN; SELECT cache_delete('c')").expect("it begins");
        assert_eq!(text(&mut session, "cache_incr('c')").as_deref(), Some("1"));
        assert_eq!(text(&mut other, "cache_incr('c')").as_deref(), Some("11"));
        assert_eq!(text(&mut session, "cache_incr('c', mode => 'present')").as_deref(), Some("2"));
        assert_eq!(text(&mut other, "cache_incr('c')").as_deref(), Some("12"));
        assert_eq!(text(&mut session, "cache_get('c')").as_deref(), Some("2"));
        session.batch_execute(end).expect("it ends");
        assert_eq!(text(&mut other, "cache_get('c')").as_deref(), Some(expected), "{end}");
    }
}
