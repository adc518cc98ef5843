//! Tests of the connection between the Redis worker (`mod.rs`) and Redis: sockets, TLS, users, slow and cut connections, and
//! servers that refuse the worker. The worker must connect again by itself, and the view `cache_workers` must say what is wrong. A
//! `Proxy` between the worker and Redis can delay, hold back or cut the connections (`tests/harness/redis/proxy.rs`).

use super::storm::storm;
use super::{
    await_all, await_down, await_success, await_value, fill, held, is_connected, of_worker, reload, run,
    settle, small, start, value, writes_to,
};
use pg_cache_testbed::{Certificate, Proxy, Redis, RedisConf, Stop, wait_until};
use postgres::Client;
use std::time::{Duration, Instant};

/// Waits for an error of the worker that is not connected, and returns it.
fn error(session: &mut Client) -> String {
    let mut found = None;
    wait_until("an error", || {
        found = of_worker(session, "CASE WHEN NOT connected THEN error END");
        found.is_some()
    });
    found.expect("the wait has ended")
}

/// A user who has only the rights that `docs/redis.md` names. Fails if the worker runs a command that these rights do not allow.
#[test]
fn a_user_with_few_rights_is_enough() {
    let page = include_str!("../../../docs/redis.md");
    let rights =
        page.split("ACL SETUSER pg_cache on >password ").nth(1).and_then(|rest| rest.split("```").next());
    let rights: Vec<_> = rights.expect("the page has the command").split_whitespace().collect();
    let redis = Redis::start_with(&RedisConf::tcp().user("worker", "p@ss:w/%rd", &rights.join(" ")));
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    fill(&mut session, "k", 100, "1");
    await_all(&[&redis], &mut session);
    run(&mut session, "SELECT cache_set('t', '1', tags => '{t}', space => 'r')");
    await_value(&redis, "t", Some("1"));
    run(&mut session, "SELECT cache_set('late', '1', tags => '{t}', space => 'r')");
    run(&mut session, "SELECT cache_invalidate_tag('t'), cache_flush('r')");
    settle(&mut session);
    assert_eq!(held(&[&redis]).len(), 0);
    redis.pause();
    await_down(&mut session);
    redis.resume();
    settle(&mut session);
    await_success(&mut session);
    assert!(!redis.command(&["ACL", "LOG"]).contains("reason"), "a command was refused");
}

/// The URL may have a password without a user, and the number of a database. Fails if Redis refuses the worker, or if the values
/// are in another database of Redis.
#[test]
fn a_password_and_a_number_of_a_database_are_in_the_url() {
    let redis = Redis::start_with(&RedisConf::tcp().password("only a password"));
    let (_cluster, mut session) = start(&writes_to(&format!("{}/3", redis.url())));
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    settle(&mut session);
    let mut connection = redis.connect();
    assert_eq!(connection.scan("*").len(), 0);
    connection.send(&["SELECT", "3"]);
    wait_until("the key", || connection.scan("*").len() == 1);
}

/// TLS with a certificate of an authority that only the setting names, and with one that the worker does not know.
#[test]
fn tls_trusts_the_authority_of_the_setting_only() {
    let [known, unknown] = [(); 2].map(|()| Certificate::generate());
    let redis = Redis::start_with(&RedisConf::tcp().password("secret").tls(&known));
    let conf = writes_to(&redis.url());
    let file = |certificate: &Certificate| certificate.authority().display().to_string();
    let (_cluster, mut session) = start(&conf.set("pg_cache.redis_ca_file", &file(&unknown)));
    fill(&mut session, "k", 100, "1");
    error(&mut session);
    assert_eq!(held(&[&redis]).len(), 0);
    reload(&mut session, "pg_cache.redis_ca_file", &file(&known));
    await_all(&[&redis], &mut session);
    reload(&mut session, "pg_cache.redis_ca_file", "");
    wait_until("the authority to be unknown", || {
        of_worker(&mut session, "NOT connected AND error IS NOT NULL").as_deref() == Some("true")
    });
    reload(&mut session, "pg_cache.redis_ca_file", &file(&known));
    run(&mut session, "SELECT cache_set('k1', '2', space => 'r')");
    await_value(&redis, "k1", Some("2"));
    await_all(&[&redis], &mut session);
}

/// A file without certificates, or one that does not exist, is an error of the worker, which then tries the next setting.
#[test]
fn a_bad_file_of_certificates_is_an_error_of_the_worker() {
    let certificate = Certificate::generate();
    let redis = Redis::start_with(&RedisConf::tcp().tls(&certificate));
    let (_cluster, mut session) =
        start(&writes_to(&redis.url()).set("pg_cache.redis_ca_file", "/nowhere/authority.crt"));
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    error(&mut session);
    reload(&mut session, "pg_cache.redis_ca_file", "/proc/version");
    run(&mut session, "SELECT cache_set('k', '2', space => 'r')");
    error(&mut session);
    reload(&mut session, "pg_cache.redis_ca_file", &certificate.authority().display().to_string());
    await_value(&redis, "k", Some("2"));
}

/// Commands and answers need 10 ms in each direction, while sessions change keys. Fails if a key ends with an older value.
#[test]
fn a_slow_connection_ends_with_the_last_values() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let (cluster, mut session) = start(&writes_to(&redis.url_at(&proxy.address())));
    proxy.delay(Duration::from_millis(10));
    storm(&cluster, &mut session, |storm, _| storm.await_commits(4000), || vec![&redis]);
    proxy.restore();
    await_all(&[&redis], &mut session);
}

/// Connections are cut at random moments, and some hang, while sessions change keys. Fails if a key ends with an older value.
#[test]
fn cut_connections_end_with_the_last_values() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let (cluster, mut session) =
        start(&writes_to(&redis.url_at(&proxy.address())).set("pg_cache.redis_timeout", "1s"));
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            for round in 0..12 {
                storm.await_commits(500);
                match round % 4 {
                    0 | 1 => proxy.cut_once(),
                    2 => {
                        proxy.hold();
                        wait_until("the worker to notice", || !is_connected(session));
                        storm.await_commits(100);
                        proxy.restore();
                    }
                    _ => {
                        proxy.cut();
                        storm.await_commits(500);
                        proxy.restore();
                    }
                }
                wait_until("a connection", || is_connected(session));
            }
        },
        || vec![&redis],
    );
    await_all(&[&redis], &mut session);
}

/// The network holds commands of a connection back, and delivers them after the worker has given the connection up and has written
/// newer values. The old commands must not run.
#[test]
fn commands_of_a_connection_that_was_given_up_never_run() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let (_cluster, mut session) = start(&writes_to(&redis.url_at(&proxy.address())));
    let (mut round, mut held_back) = (0, 0);
    while held_back < 5 {
        assert!(round < 50, "nothing is held back");
        run(&mut session, &format!("SELECT cache_set('k', '\"{round} before\"', space => 'r')"));
        run(&mut session, &format!("SELECT cache_set('deleted', '\"{round} before\"', space => 'r')"));
        await_all(&[&redis], &mut session);
        proxy.hold_present();
        run(
            &mut session,
            &format!(
                "SELECT cache_set('k', '\"{round} late\"', space => 'r'), cache_set('deleted', '\"{round} late\"', space => 'r')"
            ),
        );
        await_value(&redis, "k", Some(&format!("\"{round} late\"")));
        // On a slow machine, the worker may just have connected anew, so that nothing is held back.
        held_back += usize::from(proxy.held_pieces() > 0);
        round += 1;
        run(
            &mut session,
            &format!("SELECT cache_set('k', '\"{round} last\"', space => 'r'), cache_delete('deleted', 'r')"),
        );
        settle(&mut session);
        proxy.restore();
        wait_until("the old commands to arrive", || proxy.held_pieces() == 0);
        // Redis reads the commands that have arrived before it answers the second of these.
        redis.command(&["PING"]);
        redis.command(&["PING"]);
        assert_eq!(value(&redis, "k"), Some(format!("\"{round} last\"")));
        assert_eq!(value(&redis, "deleted"), None);
    }
}

/// The server that the URL names becomes a read-only replica, and a primary again.
#[test]
fn a_read_only_replica_is_not_accepted() {
    let primary = Redis::start_with(&RedisConf::tcp());
    let replica = Redis::start_with(&RedisConf::tcp().replica_of(primary.port()));
    let (_cluster, mut session) = start(&writes_to(&replica.url()));
    fill(&mut session, "k", 100, "1");
    // The first attempts may end because the replica is busy.
    wait_until("the refusal of a replica", || error(&mut session).contains("replica"));
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    await_all(&[&replica], &mut session);
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    await_down(&mut session);
    fill(&mut session, "k", 50, "2");
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    wait_until("a connection", || is_connected(&mut session));
    await_all(&[&replica], &mut session);
    assert_eq!(held(&[&primary]).len(), 0);
}

/// With a wrong password, the view shows an error until the URL has the right one.
#[test]
fn a_wrong_password_keeps_the_worker_out() {
    let redis = Redis::start_with(&RedisConf::tcp().password("right"));
    let (_cluster, mut session) = start(&writes_to(&format!("redis://:wrong-one@{}", redis.address())));
    fill(&mut session, "k", 100, "1");
    let error = error(&mut session);
    assert!(!error.contains("wrong-one"), "{error}");
    assert_eq!(held(&[&redis]).len(), 0);
    reload(&mut session, "pg_cache.redis_url", &redis.url());
    await_all(&[&redis], &mut session);
    await_success(&mut session);
}

/// A host without an address, a port where nothing listens, and a host that never answers. SQL goes on, and a shutdown is not held
/// up.
#[test]
fn a_server_that_is_not_there_harms_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let silent = silent.local_addr().expect("it has an address");
    for url in [
        "redis://no-such-host.invalid:6379".to_owned(),
        "redis://127.0.0.1:1".to_owned(),
        format!("redis://{silent}"),
        "unix:///nowhere/redis.sock".to_owned(),
        // No host answers there: packets are dropped, or refused by the network.
        "redis://192.0.2.1:6379".to_owned(),
    ] {
        let (cluster, mut session) = start(&small(writes_to(&url)));
        fill(&mut session, "k", 1000, "1");
        error(&mut session);
        run(&mut session, "SELECT cache_invalidate_tag('t'), cache_delete('k1', 'r')");
        run(&mut session, "CREATE DATABASE d");
        run(&mut session, "DROP DATABASE d");
        let began = Instant::now();
        cluster.stop(Stop::Fast);
        // The system gives up a connection without an answer after two minutes.
        assert!(began.elapsed() < Duration::from_secs(45), "{url}: {:?}", began.elapsed());
        cluster.resume();
        run(&mut cluster.connect("postgres"), "SELECT cache_set('k', '1', space => 'r')");
    }
}

/// A Redis that answers with errors, because the user has lost rights or does not exist, is tried again.
#[test]
fn a_server_that_answers_errors_is_tried_again() {
    let redis = Redis::start_with(&RedisConf::tcp().user("worker", "secret", "~* &* +@all"));
    let (_cluster, mut session) = start(&writes_to(&redis.url()));
    run(&mut session, "SELECT cache_set('k', '1', space => 'r')");
    await_value(&redis, "k", Some("1"));
    // The user loses the right to set. The value is removed, because the older one must not stay.
    redis.command(&["ACL", "SETUSER", "worker", "-set"]);
    run(&mut session, "SELECT cache_set('k', '2', space => 'r')");
    await_value(&redis, "k", None);
    wait_until("the error", || {
        of_worker(&mut session, "error").is_some_and(|error| error.contains("NOPERM"))
    });
    redis.command(&["ACL", "SETUSER", "worker", "+@all"]);
    run(&mut session, "SELECT cache_set('k', '2', space => 'r')");
    await_value(&redis, "k", Some("2"));
    redis.command(&["ACL", "DELUSER", "worker"]);
    await_down(&mut session);
    redis.command(&["ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all"]);
    run(&mut session, "SELECT cache_set('k', '3', space => 'r')");
    await_value(&redis, "k", Some("3"));
    await_all(&[&redis], &mut session);
    assert_eq!(value(&redis, "k").as_deref(), Some("3"));
}

/// A large value needs longer than the timeout on a slow connection. Fails if the worker gives the connection up again and again,
/// so that the values after it never arrive.
#[test]
fn a_large_value_on_a_slow_connection_holds_up_nothing() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let (_cluster, mut session) = start(&writes_to(&redis.url_at(&proxy.address())));
    fill(&mut session, "k", 100, "1");
    await_all(&[&redis], &mut session);
    // About 3 MB in a second.
    proxy.delay(Duration::from_millis(20));
    run(&mut session, "SELECT cache_set_text('large', repeat('x', 8000000), space => 'r')");
    fill(&mut session, "k", 100, "2");
    wait_until("the small values", || value(&redis, "k100").as_deref() == Some("2"));
    settle(&mut session);
}
