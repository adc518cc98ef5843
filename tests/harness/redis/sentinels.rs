//! A Redis primary with a replica, and three sentinels that watch them: if the primary is gone, the sentinels make the replica the
//! primary.

use super::conf::RedisConf;
use super::server::Redis;
use crate::wait::wait_until;

/// The name by which the sentinels know the servers.
const SERVICE: &str = "cache";

/// Two servers and three sentinels. A primary that is gone for two seconds is replaced. On a busy machine, a server may get no
/// processor for as long as a second.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl RedisSentinels {
    /// Starts a primary and a replica with these settings, each on a port of its own, and three sentinels. Waits until all know
    /// each other.
    pub fn start(conf: &RedisConf) -> Self {
        let primary = Redis::start_with(&conf.clone().on_free_port());
        let replica = Redis::start_with(&conf.clone().on_free_port().replica_of(primary.port()));
        let mut watch = RedisConf::default()
            .set("sentinel", &format!("monitor {SERVICE} 127.0.0.1 {} 2", primary.port()))
            .set("sentinel", &format!("down-after-milliseconds {SERVICE} 2000"))
            .set("sentinel", &format!("failover-timeout {SERVICE} 5000"));
        if let Some(password) = conf.default_password() {
            watch = watch.set("sentinel", &format!("auth-pass {SERVICE} {password}"));
        }
        let sentinels =
            (0..3).map(|_| Redis::start_program(&watch.clone().on_free_port(), "--sentinel")).collect();
        let set = Self { servers: [primary, replica], sentinels };
        wait_until("the replica to follow", || {
            set.servers[1].info("master_link_status").as_deref() == Some("up")
        });
        wait_until("the sentinels to know each other", || {
            set.sentinels.iter().all(|sentinel| {
                let facts = sentinel.command(&["SENTINEL", "MASTER", SERVICE]);
                let facts: Vec<_> = facts.lines().collect();
                let is = |name, value| facts.chunks(2).any(|fact| fact == [name, value]);
                is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
            })
        });
        set
    }

    /// Returns the URL, which names all sentinels.
    pub fn url(&self) -> String {
        let conf = self.servers[0].conf();
        let addresses: Vec<_> = self.sentinels.iter().map(Redis::address).collect();
        format!("redis+sentinel://{}{}/{SERVICE}", conf.credentials(), addresses.join(","))
    }

    /// Returns the server that was the primary at the start, and the one that was its replica.
    pub fn servers(&self) -> [&Redis; 2] {
        self.servers.each_ref()
    }

    /// Waits until the sentinels have made the second server the primary, and all of them say so.
    pub fn await_failover(&self) {
        let [_, replica] = self.servers();
        let port = replica.port().to_string();
        wait_until("the failover", || {
            let says = |sentinel: &Redis| {
                sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).ends_with(&port)
            };
            replica.role().as_deref() == Some("master") && self.sentinels.iter().all(says)
        });
    }
}
