//! Tests of the Redis servers, proxies, clusters and sentinels that the harness starts for the other tests of this folder. They do
//! not involve PostgreSQL.

use pg_cache_testbed::{
    Certificate, Proxy, Redis, RedisCluster, RedisConf, RedisSentinels, Reply, wait_until,
};
use std::process::Command;

/// Runs a command through the TCP port, with `redis-cli`.
fn through(url: &str, more: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    let output = command.arg("-u").arg(url).args(more).output().expect("redis-cli starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The credentials of the URL are accepted, and others are not.
#[test]
fn a_server_has_a_password_a_user_and_a_limit() {
    let conf = RedisConf::tcp().password("a b\"c").max_memory("10mb", "noeviction");
    let redis = Redis::start_with(&conf);
    assert!(through(&format!("redis://{}", redis.address()), &["PING"]).starts_with("NOAUTH"));
    assert_eq!(redis.command(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n10485760");
    let redis = Redis::start_with(&RedisConf::tcp().user("u", "p@:/%", "~a* &* +@all"));
    assert_eq!(through(&redis.url(), &["SET", "a", "1"]), "OK");
    assert!(through(&redis.url(), &["SET", "b", "1"]).starts_with("NOPERM"));
}

/// A client that trusts the authority reaches the server.
#[test]
fn a_certificate_is_valid_for_the_server() {
    let certificate = Certificate::generate();
    let redis = Redis::start_with(&RedisConf::tcp().tls(&certificate));
    let authority = certificate.authority();
    let authority = authority.to_str().expect("the path is a text");
    assert_eq!(through(&redis.url(), &["--tls", "--cacert", authority, "PING"]), "PONG");
    assert_ne!(through(&redis.url(), &["--tls", "PING"]), "PONG");
}

/// A server keeps its port when it is killed, and its data only if they were saved.
#[test]
fn a_server_is_paused_killed_and_restarted() {
    let redis = Redis::start_with(&RedisConf::tcp());
    redis.command(&["SET", "saved", "1"]);
    redis.save();
    redis.command(&["SET", "lost", "1"]);
    redis.pause();
    let url = redis.url();
    let client = std::thread::spawn(move || through(&url, &["GET", "lost"]));
    assert!(!client.is_finished());
    redis.resume();
    assert_eq!(client.join().expect("it ends"), "1");
    redis.kill();
    redis.restart();
    assert_eq!(redis.command(&["KEYS", "*"]), "saved");
    let url = redis.url();
    drop(redis);
    assert_eq!(through(&url, &["PING"]), "");
}

/// A proxy forwards, holds back and cuts.
#[test]
fn a_proxy_disturbs_connections() {
    let redis = Redis::start_with(&RedisConf::tcp());
    let proxy = Proxy::start(redis.port());
    let url = redis.url_at(&proxy.address());
    assert_eq!(through(&url, &["PING"]), "PONG");
    proxy.hold();
    let held = std::thread::spawn({
        let url = url.clone();
        move || through(&url, &["SET", "k", "1"])
    });
    assert_eq!(redis.command(&["EXISTS", "k"]), "0");
    proxy.cut();
    assert_ne!(held.join().expect("it ends"), "OK");
    assert_ne!(through(&url, &["PING"]), "PONG");
    proxy.restore();
    assert_eq!(through(&url, &["PING"]), "PONG");
}

/// A cluster has three primaries, and a replica takes over from a killed one.
#[test]
fn a_cluster_replaces_a_killed_primary() {
    let certificate = Certificate::generate();
    let cluster = RedisCluster::start(&RedisConf::default().password("secret").tls(&certificate), 1);
    assert_eq!(cluster.nodes().len(), 6);
    cluster.primaries()[0].kill();
    wait_until("another primary", || cluster.primaries().len() == 3);
}

/// The sentinels make the replica the primary after the primary was killed.
#[test]
fn sentinels_replace_a_killed_primary() {
    let set = RedisSentinels::start(&RedisConf::default().password("secret"));
    let [primary, replica] = set.servers();
    assert!(matches!(replica.connect().send(&["SET", "k", "1"]), Reply::Error(_)));
    primary.kill();
    set.await_failover();
    replica.command(&["SET", "k", "1"]);
}
