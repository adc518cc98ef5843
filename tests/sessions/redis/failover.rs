//! Tests of the copies in Redis clusters and with sentinels: another Redis server takes over, perhaps without the last changes.
//! Afterwards each key in Redis must have the value of the cache, or be absent. The worker that makes the copies is explained in
//! `mod.rs`. After a failover, it compares all keys of the new server with the cache: a *resync*.

use super::storm::storm;
use super::{
    await_all, await_refill, compare, fill, held, is_connected, of_worker, run, settle, start, value,
    writes_to,
};
use pg_cache_testbed::{Certificate, RedisCluster, RedisConf, RedisSentinels, wait_until};

/// The keys are on all nodes, and every kind of change reaches them.
#[test]
fn a_cluster_holds_all_values() {
    let certificate = Certificate::generate();
    let nodes = RedisCluster::start(&RedisConf::default().password("secret").tls(&certificate), 0);
    let authority = certificate.authority().display().to_string();
    let (_cluster, mut session) = start(&writes_to(&nodes.url()).set("pg_cache.redis_ca_file", &authority));
    run(
        &mut session,
        "SELECT count(cache_set('k' || i, to_jsonb(i), tags => ARRAY['t' || i % 3, 'all'], space => 'r')) FROM generate_series(1, 900) AS i",
    );
    run(&mut session, "SELECT cache_set('{k}' || i, '1', space => 'r') FROM generate_series(1, 50) AS i");
    await_all(&nodes.primaries(), &mut session);
    assert!(nodes.primaries().iter().all(|node| held(&[node]).len() > 100), "a node has too few keys");
    run(
        &mut session,
        "SELECT cache_invalidate_tag('t1'), cache_delete('k3', 'r'), cache_set('k6', '7', space => 'r')",
    );
    compare(&nodes.primaries(), &mut session);
    assert_eq!(held(&nodes.primaries()).len(), 649);
    run(&mut session, "SELECT cache_invalidate_tag('all')");
    compare(&nodes.primaries(), &mut session);
    // The key k6 has no tag any more. It leaves Redis all the same, because the set of the tag has it from before.
    assert!((50..=51).contains(&held(&nodes.primaries()).len()));
    run(&mut session, "SELECT cache_flush('r')");
    settle(&mut session);
    assert_eq!(held(&nodes.primaries()).len(), 0);
}

/// A primary is killed in a storm, and its replica takes over.
#[test]
fn a_cluster_that_loses_a_primary_ends_with_the_last_values() {
    let nodes = RedisCluster::start(&RedisConf::default(), 1);
    let (cluster, mut session) = start(&writes_to(&nodes.url()));
    fill(&mut session, "f", 900, "1");
    await_all(&nodes.primaries(), &mut session);
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            storm.await_commits(1000);
            let killed = nodes.primaries()[0];
            killed.kill();
            wait_until("another primary", || nodes.primaries().len() == 3);
            storm.await_commits(500);
            wait_until("a connection", || is_connected(session));
            killed.restart();
            storm.await_commits(500);
        },
        || nodes.primaries(),
    );
    await_refill(&nodes.primaries(), &mut session);
    compare(&nodes.primaries(), &mut session);
}

/// A primary stands still in a storm, is replaced, and goes on: it must not serve the worker any more.
#[test]
fn a_cluster_whose_primary_stands_still_ends_with_the_last_values() {
    let nodes = RedisCluster::start(&RedisConf::default(), 1);
    let (cluster, mut session) = start(&writes_to(&nodes.url()));
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            storm.await_commits(1000);
            let paused = nodes.primaries()[0];
            paused.pause();
            // The paused node must not be asked for its role.
            let others: Vec<_> = nodes.nodes().iter().filter(|node| !std::ptr::eq(*node, paused)).collect();
            wait_until("another primary", || {
                others.iter().filter(|node| node.role().as_deref() == Some("master")).count() == 3
            });
            storm.await_commits(500);
            paused.resume();
            wait_until("it to be a replica", || paused.role().as_deref() == Some("slave"));
            wait_until("a connection", || is_connected(session));
            storm.await_commits(500);
        },
        || nodes.primaries(),
    );
    await_refill(&nodes.primaries(), &mut session);
    compare(&nodes.primaries(), &mut session);
}

/// The sentinels name the primary, and another one after a failover.
#[test]
fn a_failover_by_sentinels_ends_with_the_last_values() {
    let set = RedisSentinels::start(&RedisConf::default().password("secret"));
    let [primary, replica] = set.servers();
    let (cluster, mut session) = start(&writes_to(&set.url()));
    fill(&mut session, "f", 500, "1");
    await_all(&[primary], &mut session);
    storm(
        &cluster,
        &mut session,
        |storm, session| {
            storm.await_commits(500);
            primary.kill();
            set.await_failover();
            storm.await_commits(500);
            wait_until("a connection", || is_connected(session));
            // The old primary is back, and says for a moment that it is one.
            primary.restart();
            storm.await_commits(500);
        },
        || vec![replica],
    );
    await_refill(&[replica], &mut session);
    compare(&[replica], &mut session);
}

/// The replica has not received removals that the primary has confirmed, and becomes the primary.
#[test]
fn a_failover_that_loses_removals_is_corrected() {
    let set = RedisSentinels::start(&RedisConf::default());
    let [primary, replica] = set.servers();
    let (_cluster, mut session) = start(&writes_to(&set.url()));
    fill(&mut session, "k", 100, "1");
    run(
        &mut session,
        "SELECT count(cache_set('t' || i, '1', tags => '{t}', space => 'r')) FROM generate_series(1, 100) AS i",
    );
    await_all(&[primary], &mut session);
    wait_until("the replica to have them", || held(&[replica]).len() == 200);
    let resyncs = of_worker(&mut session, "resyncs");
    // The paused replica cannot connect again, so it gets nothing from here on.
    replica.pause();
    primary.command(&["CLIENT", "KILL", "TYPE", "replica"]);
    run(&mut session, "SELECT count(cache_delete('k' || i, 'r')) FROM generate_series(1, 50) AS i");
    run(&mut session, "SELECT cache_invalidate_tag('t'), cache_set('k60', '2', space => 'r')");
    settle(&mut session);
    assert_eq!(held(&[primary]).len(), 50);
    primary.kill();
    replica.resume();
    assert_eq!(value(replica, "k1").as_deref(), Some("1"), "the removal is not lost");
    set.await_failover();
    wait_until("the worker to see the new primary", || {
        run(&mut session, "SELECT cache_set('probe', '1', space => 'r')");
        value(replica, "probe").is_some() && of_worker(&mut session, "resyncs") != resyncs
    });
    compare(&[replica], &mut session);
    await_refill(&[replica], &mut session);
    assert_eq!(value(replica, "k60").as_deref(), Some("2"));
    assert_eq!(value(replica, "k1"), None);
}
