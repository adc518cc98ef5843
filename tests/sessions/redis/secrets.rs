//! Tests that the password of Redis is shown nowhere: in no view, setting, log line or process title.

use super::{await_down, await_value, fill, of_worker, reload, run, start};
use crate::tables::one;
use pg_cache_testbed::{Conf, Redis, RedisConf, wait_until};
use postgres::{Client, SimpleQueryMessage};

const PASSWORD: &str = "tr0ub4dor-and-3";
const USER: &str = "worker-of-the-cache";

/// Fails if a text has the password.
fn check(what: &str, text: &str) {
    assert!(!text.contains(PASSWORD), "{what} tells the password: {text}");
}

/// Returns all that a query returns.
fn all(session: &mut Client, query: &str) -> String {
    let messages = session.simple_query(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).filter_map(|at| row.get(at)).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// Looks at everything that shows something of the worker.
fn check_all(session: &mut Client) {
    for query in [
        "SHOW pg_cache.redis_url",
        "SELECT current_setting('pg_cache.redis_url')",
        "SHOW ALL",
        "SELECT * FROM pg_settings",
        "SELECT * FROM cache_workers",
        "SELECT * FROM cache_health()",
        "SELECT * FROM pg_stat_activity",
    ] {
        check(query, &all(session, query));
    }
    let ps = std::process::Command::new("ps").args(["axww", "-o", "args"]).output().expect("ps starts");
    // The keeper of the Redis server has its settings as an argument.
    let titles = String::from_utf8_lossy(&ps.stdout);
    titles.lines().filter(|title| title.starts_with("postgres:")).for_each(|title| check("ps", title));
    assert!(titles.contains("postgres: pg_cache launcher"), "{titles}");
}

/// The URL comes by ALTER SYSTEM and a reload, and its server is there, away, refuses it, or has another password.
#[test]
fn the_password_is_shown_nowhere() {
    let redis = Redis::start_with(&RedisConf::tcp().user(USER, PASSWORD, "~* &* +@all"));
    // Messages down to the level debug1, and (by default) each statement that ends with an error.
    let (cluster, mut session) = start(&Conf::preloaded().set("log_min_messages", "debug1"));
    let url = format!("redis://{USER}:{PASSWORD}@{}", redis.address());
    reload(&mut session, "pg_cache.redis_url", &url);
    fill(&mut session, "k", 10, "1");
    await_value(&redis, "k10", Some("1"));
    check_all(&mut session);
    let shown: String = one(&mut session, "SHOW pg_cache.redis_url");
    assert!(shown.contains(&redis.address()), "{shown}");
    redis.command(&["ACL", "SETUSER", USER, "resetpass", ">another"]);
    redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    await_down(&mut session);
    wait_until("an error", || of_worker(&mut session, "error").is_some());
    check_all(&mut session);
    redis.kill();
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    wait_until("an error", || of_worker(&mut session, "error").is_some());
    check_all(&mut session);
    // Other forms of the URL.
    for url in [
        format!("redis://:{PASSWORD}@no-such-host.invalid:1/0"),
        format!("rediss://{USER}:{PASSWORD}@{}", redis.address()),
        format!("redis+cluster://{USER}:{PASSWORD}@{0},{0}", redis.address()),
        format!("redis+sentinel://{USER}:{PASSWORD}@{}/cache", redis.address()),
        format!("redis://{USER}:{PASSWORD}@"),
    ] {
        // The last one may be refused.
        let set = session.batch_execute(&format!("ALTER SYSTEM SET pg_cache.redis_url = '{url}'"));
        if let Err(error) = set {
            let error = error.as_db_error().expect("it is an error of the server");
            check("the detail of the error", error.detail().unwrap_or_default());
            check("the hint of the error", error.hint().unwrap_or_default());
            continue;
        }
        run(&mut session, "SELECT pg_reload_conf()");
        wait_until("the error of this URL", || {
            of_worker(&mut session, "NOT connected AND error IS NOT NULL").as_deref() == Some("true")
        });
        check_all(&mut session);
    }
    // Lines about a refused URL and lines with a statement are not checked here.
    let log = cluster.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| {
            line.contains(PASSWORD) && !line.contains("STATEMENT:") && !line.contains("invalid value for")
        })
        .collect();
    assert!(told.is_empty(), "the log tells the password: {told:#?}");
}

/// A role that may look at the workers does not see the password, wherever it looks.
#[test]
fn a_role_that_monitors_does_not_see_the_password() {
    let redis = Redis::start_with(&RedisConf::tcp().user(USER, PASSWORD, "~* &* +@all"));
    let (cluster, mut session) = start(&super::writes_to(&redis.url()));
    run(&mut session, "CREATE ROLE stranger LOGIN; GRANT pg_monitor TO stranger");
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    await_value(&redis, "k", Some("1"));
    let mut stranger = cluster.connect("postgres");
    run(&mut stranger, "SET SESSION AUTHORIZATION stranger");
    check("the setting", &all(&mut stranger, "SELECT * FROM pg_settings"));
    check("the workers", &all(&mut stranger, "SELECT * FROM cache_workers"));
    redis.kill();
    await_down(&mut session);
    check("the workers", &all(&mut stranger, "SELECT * FROM cache_workers"));
}
