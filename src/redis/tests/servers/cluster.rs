//! Tests of the client with a cluster of three primaries: each command reaches the server that has its key, also while the cluster
//! moves keys. In one test, a primary has a replica. `link.rs` and `slots.rs` of the client have what is tested here.

use crate::harness::{
    Server, addition, client, client_with, connect, execute, facts, failure, free_port, needs_redis, scan,
    values, wait_until, write,
};
use pg_cache_redis::{Answer, Batch, Job, pattern};
use std::process::Command;
use std::time::Duration;

struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts three primaries.
    fn start() -> Self {
        let cluster = Self { servers: (0..3).map(|_| node()).collect() };
        let addresses: Vec<String> = cluster.servers.iter().map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        redis_cli(&[&["--cluster", "create"], &addresses[..], &["--cluster-yes"]].concat());
        cluster.wait_until_healthy(3);
        cluster
    }

    fn wait_until_healthy(&self, nodes: usize) {
        wait_until("the cluster to be complete", || {
            self.servers.iter().all(|server| {
                let info = server.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{nodes}"))
            })
        });
    }

    fn url(&self) -> String {
        format!(
            "redis+cluster://127.0.0.1:1,{}",
            self.servers.iter().map(address).collect::<Vec<_>>().join(",")
        )
    }

    /// Returns the index of the server that holds keys in the slot of this key. There must be such keys.
    fn owner(&self, key: &str) -> usize {
        self.servers
            .iter()
            .position(|server| server.cli(&["CLUSTER", "COUNTKEYSINSLOT", &self.slot(key)]) != "0")
            .expect("an owner")
    }

    fn slot(&self, key: &str) -> String {
        self.servers[0].cli(&["CLUSTER", "KEYSLOT", key])
    }

    fn id(&self, server: usize) -> String {
        self.servers[server].cli(&["CLUSTER", "MYID"])
    }
}

fn redis_cli(words: &[&str]) {
    let output = Command::new("redis-cli").args(words).output().expect("redis-cli starts");
    assert!(output.status.success(), "{output:?}");
}

fn node() -> Server {
    let bus = free_port().to_string();
    Server::on_port(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"])
}

fn address(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port())
}

fn names(count: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..count).map(|number| format!("p:db:s:{number}")).collect();
    names.sort();
    names
}

/// A *slot* is the set of keys with the same hash, which the cluster moves together. Fails if keys do not get to their servers,
/// also while a slot moves, or if a scan during which a slot has moved counts as complete.
#[test]
fn a_cluster_is_written_scanned_and_resharded() {
    needs_redis!();
    let cluster = Cluster::start();
    let client = client_with(&cluster.url(), Duration::from_secs(5), None);
    let known = connect(&client);
    assert_eq!(known.identity.as_ref().map(Vec::len), Some(3));
    assert_eq!((known.maxmemory, known.is_writable), (Some(0), true));
    assert_eq!(known, facts(execute(&client, Job::Check)));

    let keys = names(3000);
    let mut batch = values(keys.iter().map(|key| (key.as_str(), "1")));
    batch.set_additions = vec![addition("p:db#tags:0:1", keys[..2000].iter().map(String::as_str), false)];
    batch.channels = vec!["p:db".to_owned()];
    assert!(!write(&client, batch));
    assert!(cluster.servers.iter().all(|server| server.keys() > 500));
    assert_eq!(scan(&client, pattern("p:db:")), keys);
    let job = Job::RemoveMembers { sets: vec!["p:db#tags:0:1".to_owned()], channel: "p:db".to_owned() };
    assert_eq!(execute(&client, job), Answer::MembersRemoved { all_found: true });
    assert_eq!(scan(&client, pattern("p:")), keys[2000..]);

    // The slot of `key` moves from one server to another. While it moves, the old server redirects commands about keys that it does
    // not have (ASK). Afterwards, it redirects all (MOVED). `tagged` is in the same slot, because only its part in braces is
    // hashed.
    let key = keys[2500].as_str();
    let tagged = format!("{{{key}}}");
    let (from, slot) = (cluster.owner(key), cluster.slot(key));
    let to = (from + 1) % 3;
    let step = |server: usize, words: &[&str]| {
        cluster.servers[server].cli(&[&["CLUSTER", "SETSLOT", &slot], words].concat())
    };
    step(to, &["IMPORTING", &cluster.id(from)]);
    step(from, &["MIGRATING", &cluster.id(to)]);
    assert!(!write(&client, values([(tagged.as_str(), "2"), (key, "2"), ("other", "2")])));
    let port = cluster.servers[to].port().to_string();
    cluster.servers[from].cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    assert!(!write(&client, values([(key, "3")])));
    for server in [to, from, (from + 2) % 3] {
        step(server, &["NODE", &cluster.id(to)]);
    }
    assert_eq!(cluster.servers[to].cli(&["GET", key]), "3");
    assert_eq!(cluster.servers[to].cli(&["GET", &tagged]), "2");

    // The client learns between two steps of a scan that the slot has moved. The step behind the last server ends the scan: it must
    // fail, because the scan could have missed keys.
    assert!(matches!(
        execute(&client, Job::Scan { node: 0, cursor: 0, pattern: pattern("p:") }),
        Answer::Scanned { .. }
    ));
    assert!(!write(&client, Batch { removals: vec![key.into()], ..values([(tagged.as_str(), "4")]) }));
    assert_eq!(cluster.servers[to].cli(&["GET", &tagged]), "4");
    assert_eq!(cluster.servers[to].cli(&["EXISTS", key]), "0");
    let text = failure(execute(&client, Job::Scan { node: 3, cursor: 0, pattern: pattern("p:") }));
    assert!(text.contains("has moved"), "{text}");
    connect(&client);
    // One of the 1000 keys was removed, and `tagged` does not begin with `p:`.
    assert_eq!(scan(&client, pattern("p:")).len(), 999);

    let text = failure(execute(
        &connected_to_one(&cluster),
        Job::Write(values(keys.iter().map(|key| (key.as_str(), "1")))),
    ));
    assert!(text.contains("redis+cluster://"), "{text}");
}

fn connected_to_one(cluster: &Cluster) -> pg_cache_redis::Client {
    crate::harness::connected(&cluster.servers[0].url())
}

/// Fails if the client works with a server that is no cluster although the URL names one.
#[test]
fn a_server_that_is_no_cluster_is_a_failure() {
    needs_redis!();
    let server = Server::on_port(&[]);
    let text = failure(execute(&client(&format!("redis+cluster://{}", address(&server))), Job::Connect));
    assert!(text.contains("cluster support disabled"), "{text}");
}

/// Fails if the client does not find the new primary, or if the identity stays the same.
#[test]
fn a_replica_replaces_a_primary_that_is_killed() {
    needs_redis!();
    let mut cluster = Cluster::start();
    let replica = node();
    redis_cli(&[
        "--cluster",
        "add-node",
        &address(&replica),
        &address(&cluster.servers[0]),
        "--cluster-slave",
    ]);
    cluster.servers.push(replica);
    cluster.wait_until_healthy(4);
    wait_until("the replica to follow", || cluster.servers[3].info("master_link_status") == "up");

    let client = client_with(&cluster.url(), Duration::from_secs(1), None);
    let before = connect(&client);
    let keys = names(300);
    let batch = || values(keys.iter().map(|key| (key.as_str(), "1")));
    assert!(!write(&client, batch()));
    let primary =
        cluster.servers.iter().position(|server| server.info("connected_slaves") == "1").expect("a primary");
    cluster.servers[primary].kill();
    failure(execute(&client, Job::Write(batch())));
    assert_eq!(execute(&client, Job::Write(batch())), Answer::Skipped);

    let mut after = None;
    wait_until("the failover", || {
        after = match execute(&client, Job::Connect) {
            Answer::Facts(facts) => Some(facts),
            answer => {
                failure(answer);
                None
            }
        };
        after.is_some()
    });
    let after = after.expect("the loop has ended");
    assert_eq!(after.identity.as_ref().map(Vec::len), Some(3));
    assert_ne!(after.identity, before.identity);
    wait_until("the cluster to accept writes", || match execute(&client, Job::Write(batch())) {
        Answer::Written { refused: None, .. } => true,
        answer => {
            // The servers may still say that the cluster is down.
            failure(answer);
            execute(&client, Job::Connect);
            false
        }
    });
    assert_eq!(scan(&client, pattern("p:")), keys);
}

/// Fails if the old connection to one of several servers is not ended before newer commands are sent.
#[test]
fn a_paused_primary_never_executes_old_commands_after_newer_ones() {
    needs_redis!();
    let cluster = Cluster::start();
    for server in &cluster.servers {
        // A pause of the test must not become a failover.
        server.cli(&["CONFIG", "SET", "cluster-node-timeout", "60000"]);
    }
    let client = client_with(&cluster.url(), Duration::from_millis(200), None);
    connect(&client);
    write(&client, values([("{a}key", "first")]));
    let server = &cluster.servers[cluster.owner("{a}key")];
    server.pause();
    let filler: Vec<String> = (0..12_000).map(|number| format!("{{a}}:{number}")).collect();
    let old = values(filler.iter().map(|key| (key.as_str(), "1")).chain([("{a}key", "old")]));
    failure(execute(&client, Job::Write(old)));
    // The other two servers answer, but the client needs all of them.
    failure(execute(&client, Job::Connect));
    server.resume();
    wait_until("a connection", || matches!(execute(&client, Job::Connect), Answer::Facts(_)));
    write(&client, values([("{a}key", "new")]));
    wait_until("the old connection to end", || server.connections() == 1);
    assert_eq!(server.cli(&["GET", "{a}key"]), "new");
}
