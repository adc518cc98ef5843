//! A cluster of several Redis servers: three primaries, each with some of the keys, and replicas if a test asks for them.

use super::conf::RedisConf;
use super::server::Redis;
use crate::wait::wait_until;
use std::process::{Command, Stdio};

/// Three primaries, each with the same number of replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes, each with these settings and a port of its own, and waits until the cluster serves all keys and each
    /// replica follows its primary.
    ///
    /// # Panics
    /// When there is no `redis-server` or no `redis-cli`.
    pub fn start(conf: &RedisConf, replicas: usize) -> Self {
        let nodes: Vec<_> =
            (0..3 * (1 + replicas)).map(|_| Redis::start_with(&conf.clone().on_free_port().node())).collect();
        let mut create = Command::new("redis-cli");
        create.envs(conf.default_password().map(|password| ("REDISCLI_AUTH", password)));
        if let Some(authority) = conf.authority() {
            create.arg("--tls").arg("--cacert").arg(authority);
        }
        create.args(["--cluster", "create"]).args(nodes.iter().map(Redis::address));
        create.args(["--cluster-yes", "--cluster-replicas", &replicas.to_string()]);
        let created = create.stdin(Stdio::null()).output().expect("redis-cli starts");
        if !created.status.success() {
            // On a slow machine, the program may give up before the nodes agree. Only the state of the nodes counts.
            eprintln!("{}", String::from_utf8_lossy(&created.stdout));
        }
        let cluster = Self { nodes };
        wait_until("the cluster to serve", || {
            cluster.nodes.iter().all(|node| {
                let link = node.info("master_link_status");
                let is_ok = |line: &str| line.trim_end() == "cluster_state:ok";
                node.command(&["CLUSTER", "INFO"]).lines().any(is_ok) && link.is_none_or(|link| link == "up")
            }) && cluster.primaries().len() == 3
        });
        cluster
    }

    /// Returns the URL, which names all nodes.
    pub fn url(&self) -> String {
        let conf = self.nodes[0].conf();
        let scheme = if conf.authority().is_some() { "rediss+cluster" } else { "redis+cluster" };
        let addresses: Vec<_> = self.nodes.iter().map(Redis::address).collect();
        format!("{scheme}://{}{}", conf.credentials(), addresses.join(","))
    }

    /// Returns all nodes, also those that were killed.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Returns the nodes that say that they are primaries. A node that was killed is left out.
    pub fn primaries(&self) -> Vec<&Redis> {
        self.nodes.iter().filter(|node| node.role().as_deref() == Some("master")).collect()
    }
}
