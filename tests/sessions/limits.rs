//! Tests with extreme sizes and numbers of inputs. Each input must be refused, or handled with a bounded amount of memory. The
//! bounds on memory are generous: they tell memory that is bounded from memory that grows with the input.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Conf, Database};
use postgres::Client;
use postgres::error::SqlState;
use std::io::Write;

const MEGABYTE: u64 = 1 << 20;
/// An SQL expression for a text of 1023 MB, nearly the maximum size of a PostgreSQL value. It is made of pieces, because that is
/// fast.
const GIGABYTE: &str = "repeat(repeat('x', 1048576), 1023)";

/// Returns the private memory of a session's process, in bytes. A test must call a function of pg_cache before it measures the
/// memory for the first time, because the first call allocates memory that the session keeps.
fn own_memory(session: &mut Client) -> u64 {
    process_status(session, "RssAnon:")
}

/// Returns the peak memory of a session's process, in bytes, including the shared memory that it has touched.
fn most_memory(session: &mut Client) -> u64 {
    process_status(session, "VmHWM:")
}

/// Returns a figure of the session's process that the kernel gives in kB, in bytes. `line` is the beginning of its line in
/// `/proc/PID/status`.
fn process_status(session: &mut Client, line: &str) -> u64 {
    let process: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it has a status");
    let found = status.lines().find_map(|text| text.strip_prefix(line)).expect("the kernel tells");
    found.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") * 1024
}

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Prints a line for people. It bypasses the output capture of the test program, which hides the output of passing
/// tests.
fn show(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A value above `pg_cache.max_value_size` is refused, and the session keeps none of its memory. The server allows at most 256 MB
/// for a string in a jsonb.
#[test]
fn a_value_of_a_gigabyte_is_not_stored_and_leaves_no_memory_behind() {
    let database = Database::create();
    let mut session = database.connect();
    let large = [
        format!("cache_set_bytes('k', convert_to({GIGABYTE}, 'UTF8'))"),
        "cache_set_text('k', repeat(repeat('x', 1048576), 255))".to_owned(),
        "cache_set('k', to_jsonb(repeat(repeat('x', 1048576), 255)))".to_owned(),
    ];
    session.batch_execute("SELECT cache_set('warm', '1')").expect("it works");
    let before = own_memory(&mut session);
    for call in &large {
        let row = session.query_one(&format!("SELECT {call}, cache_status()"), &[]).expect("it is no error");
        let expected = (false, "refused: larger than pg_cache.max_value_size");
        assert_eq!((row.get(0), row.get(1)), expected, "{call}");
    }
    let left = own_memory(&mut session).saturating_sub(before);
    assert!(left < 16 * MEGABYTE, "{left} bytes more than before");
    let contexts: i64 = session
        .query_one("SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts", &[])
        .expect("there is a view")
        .get(0);
    assert!(contexts < 16 << 20, "{contexts} bytes in the server's own books");
}

/// Few bytes of JSON can be more than a gigabyte of text: each of these numbers has 131 072 digits. An argument of more than a
/// gigabyte must be refused (SQLSTATE 54000). Writing the digits takes half a minute, so only the long run does it.
#[test]
fn an_array_argument_of_a_gigabyte_is_refused() {
    if !is_long() {
        return;
    }
    let database = Database::create();
    let mut session = database.connect();
    let fetch = |elements: i32| {
        format!(
            "SELECT cache_fetch('k', 'SELECT cardinality($1::numeric[])', jsonb_build_array(jsonb_agg(1e131071)))
               FROM generate_series(1, {elements})"
        )
    };
    let error = session.batch_execute(&fetch(8_300)).expect_err("it is too large");
    assert_eq!(error.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED), "{error:?}");
    session.batch_execute(&fetch(10)).expect("this one is not");
    let left = own_memory(&mut session);
    assert!(left < 64 * MEGABYTE, "{left} bytes");
}

/// The settings can allow a value that is larger than the cache. The transaction must not keep such a value.
#[test]
fn a_value_larger_than_the_cache_is_not_kept_by_its_transaction() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.max_value_size", "1023MB"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("BEGIN; SELECT cache_set_text('k', 'old')").expect("it begins");
    let before = own_memory(&mut session);
    let stored: bool = session
        .query_one("SELECT cache_set_text('k', repeat(repeat('x', 1048576), 500))", &[])
        .expect("it is no error")
        .get(0);
    assert!(!stored);
    let left = own_memory(&mut session).saturating_sub(before);
    assert!(left < 16 * MEGABYTE, "{left} bytes more than before");
    let row = session.query_one("SELECT cache_get_text('k')", &[]).expect("reading works");
    assert_eq!(row.get::<_, Option<&str>>(0), None, "the refused set has removed the previous value");
}

/// An error message also needs memory. If Rust code cannot allocate it, the process aborts, and the postmaster ends all sessions.
/// So a message must quote only the beginning of a name.
#[test]
fn names_of_a_gigabyte_are_refused() {
    let database = Database::create();
    let mut session = database.connect();
    let megabytes = "repeat('x', 10000000)";
    for call in [
        format!("cache_get('k', {GIGABYTE})"),
        format!("cache_flush({megabytes})"),
        format!("cache_invalidate_tag({megabytes})"),
        format!("cache_set('k', '1', tags => ARRAY[{megabytes}])"),
        format!("cache_set('k', '1', mode => {megabytes})"),
    ] {
        let error = session.batch_execute(&format!("SELECT {call}")).expect_err("it is too long");
        let error = error.as_db_error().unwrap_or_else(|| panic!("{call}: {error:?}"));
        assert!(error.message().len() < 1200, "{call}: {} bytes of message", error.message().len());
    }
}

/// No value can be stored under a key of more than 1024 bytes, and no call with such a key is an error.
#[test]
fn keys_of_a_gigabyte_are_misses() {
    let database = Database::create();
    let mut session = database.connect();
    for (call, expected) in [
        ("cache_get_text({})", None),
        ("cache_set_text({}, 'v')", Some("false")),
        ("cache_delete({})", Some("false")),
    ] {
        let call = call.replace("{}", GIGABYTE);
        let row = session.query_one(&format!("SELECT {call}::text"), &[]).expect("it is no error");
        assert_eq!(row.get::<_, Option<&str>>(0), expected, "{call}");
    }
}

/// A transaction that sets ever more keys must refuse the sets beyond `pg_cache.max_transaction_size`, and must not take more
/// memory for them. The long run makes ten million sets.
#[test]
fn the_memory_of_a_transaction_with_many_sets_is_bounded() {
    let sets = if is_long() { 10_000_000 } else { 500_000 };
    // The first values must not have expired when they are read.
    let cluster = cluster(&Conf::preloaded().set("pg_cache.default_ttl", "1h"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("SELECT cache_set_text('warm', 'v'); BEGIN").expect("it begins");
    let before = own_memory(&mut session);
    let mut stored = 0;
    let mut memory = [0; 4];
    for (quarter, memory) in memory.iter_mut().enumerate() {
        let (from, to) = (sets / 4 * quarter as i64, sets / 4 * (quarter as i64 + 1));
        let query = "SELECT count(*) FILTER (WHERE cache_set_text('key ' || i, 'value')) FROM generate_series($1::bigint, $2) AS i";
        stored += session.query_one(query, &[&(from + 1), &to]).expect("they are no error").get::<_, i64>(0);
        *memory = own_memory(&mut session).saturating_sub(before) / MEGABYTE;
    }
    session.batch_execute("COMMIT").expect("it commits");
    let after = own_memory(&mut session).saturating_sub(before) / MEGABYTE;
    show(&format!(
        "{sets} sets in one transaction, of which {stored} were held back: {memory:?} MB of the session's own memory after \
         each quarter, {after} MB after the commit"
    ));
    assert!(stored > 200_000, "{stored}");
    // `max_transaction_size` is 64 MB. The session may use twice as much, because its lists grow by doubling. The commit needs
    // lists of its own.
    assert!(memory.iter().all(|memory| *memory < 128), "{memory:?} MB");
    assert!(after < 160, "{after} MB");
    let mut witness = cluster.connect("postgres");
    let query =
        "SELECT count(*) FROM generate_series(1, 1000) AS i WHERE cache_get_text('key ' || i) = 'value'";
    assert!(witness.query_one(query, &[]).expect("reading works").get::<_, i64>(0) > 0);
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// A PL/pgSQL loop with an exception block creates and releases a savepoint in each round. The memory for the changes of the same
/// key must not grow with the rounds.
#[test]
fn the_memory_of_a_loop_of_savepoints_over_the_same_keys_is_bounded() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.max_transaction_size", "1MB"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("SELECT cache_set_text('warm', 'v'); BEGIN").expect("it begins");
    for change in
        ["cache_invalidate_tag('t')", "cache_delete('k')", "cache_set_text('k', i::text)", "cache_flush('*')"]
    {
        let before = own_memory(&mut session);
        session
            .batch_execute(&format!(
                "DO $$ BEGIN FOR i IN 1..100000 LOOP
                     BEGIN PERFORM {change}; EXCEPTION WHEN division_by_zero THEN NULL; END;
                 END LOOP; END $$"
            ))
            .expect("it loops");
        let more = own_memory(&mut session).saturating_sub(before);
        assert!(more < 4 * MEGABYTE, "{change}: {more} bytes");
    }
    // The transaction holds back almost nothing, so it has room for a large value.
    let row = session
        .query_one("SELECT cache_set_text('k', repeat('x', 900000)), length(cache_get_text('k'))", &[])
        .expect("it works");
    assert_eq!((row.get(0), row.get(1)), (true, 900_000));
    session.batch_execute("COMMIT").expect("it commits");
    let length: i32 = cluster
        .connect("postgres")
        .query_one("SELECT length(cache_get_text('k'))", &[])
        .expect("it works")
        .get(0);
    assert_eq!(length, 900_000);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Compares the peak of the session's memory, because the server frees what a statement has used when the statement ends.
#[test]
fn an_object_of_many_members_takes_less_than_1_kb_for_each() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "1MB"));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("CREATE TABLE o AS SELECT jsonb_object_agg('k' || i, i) AS members FROM generate_series(1, 50000) AS i")
        .expect("an object");
    let mut session = cluster.connect("postgres");
    // The object is read first without storing its members, in a session that has not made it: so the peak grows afterwards only by
    // the memory that `cache_set_many` takes.
    session
        .batch_execute("SELECT cache_set_many('{}'), count(*) FROM o, jsonb_each(members)")
        .expect("it works");
    let before = most_memory(&mut session);
    session.batch_execute("SELECT cache_set_many(members) FROM o").expect("it works");
    let more = most_memory(&mut session) - before;
    // This is about 840 bytes per member.
    assert!(more < 40 * MEGABYTE, "{} MB", more / MEGABYTE);
}

/// Each value has a time to live of at most a year. PostgreSQL has infinite intervals since version 17. Older versions do not
/// accept them as intervals.
#[test]
fn no_value_lives_for_ever() {
    let database = Database::create();
    let mut session = database.connect();
    let has_infinity = database.cluster().server().major() >= 17;
    session.batch_execute("SELECT cache_set('k', '1', ttl => '1 hour')").expect("it is set");
    for call in [
        "cache_set('k', '2', ttl => 'infinity')",
        "cache_set_many('{\"k\": 2}', ttl => 'infinity')",
        "cache_touch('k', 'infinity')",
        "cache_incr('count', ttl => 'infinity')",
    ] {
        let error = session.batch_execute(&format!("SELECT {call}")).expect_err("it is refused");
        let error = error.as_db_error().unwrap_or_else(|| panic!("{call}: {error:?}"));
        if has_infinity {
            assert_eq!(
                (error.code(), error.message()),
                (&SqlState::INVALID_PARAMETER_VALUE, "ttl must not be longer than a year"),
                "{call}"
            );
        } else {
            assert_eq!(error.code(), &SqlState::INVALID_DATETIME_FORMAT, "{call}");
        }
    }
    let kept = session
        .query_one("SELECT cache_get('k')::text, cache_ttl('k') <= '1 hour', cache_exists('count')", &[])
        .expect("reading works");
    assert_eq!((kept.get(0), kept.get(1), kept.get(2)), (Some("1"), true, false));
    if has_infinity {
        let touch = "SELECT cache_touch('k', '-infinity'), cache_exists('k')";
        let ended = session.query_one(touch, &[]).expect("it is no error");
        assert_eq!((ended.get(0), ended.get(1)), (false, false));
    }
}

/// The limit holds for one key asked for many times, and for many different keys. 13 values of 5 MB fit into 64 MB (67,108,864
/// bytes), 14 do not.
#[test]
fn a_call_with_several_results_returns_at_most_64_megabytes() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.hot_size", "256MB"));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("SELECT cache_set('k', to_jsonb(repeat('x', 5000000))), cache_set('a', '1'), count(*) FROM cache_get_many('{a}')")
        .expect("it works");
    let status = |session: &mut Client| -> Option<String> {
        session.query_one("SELECT cache_status()", &[]).expect("it says").get(0)
    };
    let cut = Some("hot: cut off at 64 MB, which is the most that one call returns");
    let before = most_memory(&mut session);
    let many = "SELECT count(*), min(key), max(key) FROM cache_get_many(ARRAY['a', 'missing'] || array_fill('k'::text, '{400}'))";
    let row = session.query_one(many, &[]).expect("it is no error");
    let more = most_memory(&mut session) - before;
    assert!(more < 160 * MEGABYTE, "{} MB", more / MEGABYTE);
    assert_eq!((row.get::<_, i64>(0), row.get(1), row.get(2)), (14, "a", "k"));
    assert_eq!(status(&mut session).as_deref(), cut);
    let some = "SELECT count(*) FROM cache_get_many('{a,k,k,missing,a}')";
    assert_eq!(session.query_one(some, &[]).expect("it works").get::<_, i64>(0), 4);
    assert_eq!(status(&mut session).as_deref(), Some("hot"));
    if !is_long() {
        return;
    }

    // The call returns the first keys in sort order, although they were stored in another order.
    for part in ["900000, 934999", "935000, 969999"] {
        let set = "SELECT count(*) FILTER (WHERE cache_set_text(i || repeat('x', 1000), ''))";
        let set = format!("{set} FROM generate_series({part}) AS i");
        assert_eq!(session.query_one(&set, &[]).expect("they are set").get::<_, i64>(0), 35_000);
    }
    let before = most_memory(&mut session);
    let keys =
        "SELECT count(*), sum(length(key))::bigint, max(left(key, 6))::bigint - 900000 + 1, max(key) < 'a'
                FROM cache_keys('*', max_keys => 1000000) AS key";
    let row = session.query_one(keys, &[]).expect("it is no error");
    let more = most_memory(&mut session) - before;
    let (count, bytes, last): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!((60_000..67_000).contains(&count) && bytes < 64 << 20, "{count} keys of {bytes} bytes");
    assert_eq!((last, row.get(3)), (count, true), "the first keys in sort order");
    assert!(more < 320 * MEGABYTE, "{} MB", more / MEGABYTE);
    assert_eq!(status(&mut session).as_deref(), cut);
    let few = "SELECT count(*) FROM cache_keys('*', max_keys => 10)";
    assert_eq!(session.query_one(few, &[]).expect("it works").get::<_, i64>(0), 10);
    assert_eq!(status(&mut session).as_deref(), Some("hot"));
}

/// A call always returns the first value, even if the settings allow it to exceed the limit.
#[test]
fn a_value_larger_than_the_limit_of_a_call_is_returned_alone() {
    if !is_long() {
        return;
    }
    let conf = Conf::preloaded().set("pg_cache.hot_size", "1700MB").set("pg_cache.max_value_size", "80MB");
    let conf = conf.set("pg_cache.max_transaction_size", "100MB");
    let cluster = cluster(&conf);
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "SELECT cache_set('k', to_jsonb(repeat(repeat('x', 1000000), 70))), cache_set('a', '1')",
        )
        .expect("it works");
    for (keys, expected) in [("{k,a,k}", "k"), ("{a,k,a}", "a"), ("{missing,k}", "k")] {
        let query = format!("SELECT string_agg(key, ' ') FROM cache_get_many('{keys}')");
        let found: String = session.query_one(&query, &[]).expect("it works").get(0);
        assert_eq!(found, expected, "{keys}");
    }
}
