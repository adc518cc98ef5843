//! Reads the answer of a server to `INFO`, and sums up the answers of all servers as [`Facts`]. The worker compares the facts to
//! find out that Redis is another process or has other data than before.

use crate::jobs::Facts;

/// The parts of the answer to `INFO` that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Identifies one run of the server's process.
    pub run_id: Option<String>,
    /// Identifies the history of the data.
    pub replid: Option<String>,
    /// Whether the server copies another server.
    pub is_replica: bool,
    /// Whether the server is a replica that refuses writes.
    pub is_read_only: bool,
    /// Whether the server is still reading its data from disk.
    pub is_loading: bool,
    /// The limit of memory in bytes.
    pub maxmemory: Option<u64>,
    /// The policy of evictions at the limit.
    pub policy: Option<String>,
}

impl Info {
    /// Reads the answer to `INFO`.
    pub fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            let text = || Some(value.to_owned());
            match name {
                "run_id" => info.run_id = text(),
                "master_replid" => info.replid = text(),
                "role" => info.is_replica = value != "master",
                "slave_read_only" => info.is_read_only = value == "1",
                "loading" => info.is_loading = value == "1",
                "maxmemory" => info.maxmemory = value.parse().ok(),
                "maxmemory_policy" => info.policy = text(),
                _ => {}
            }
        }
        info
    }
}

/// Sums up what is known about servers. `None` stands for a server on which the user may not run `INFO`.
pub fn facts<'i>(servers: impl Iterator<Item = Option<&'i Info>> + Clone) -> Facts {
    let known = servers.clone().flatten();
    let identity: Option<Vec<String>> = servers
        .map(|info| Some(format!("{} {}", info?.run_id.as_deref()?, info?.replid.as_deref()?)))
        .collect();
    let policies = || known.clone().filter_map(|info| info.policy.as_ref());
    Facts {
        identity: identity.map(|mut identity| {
            identity.sort_unstable();
            identity
        }),
        maxmemory: known.clone().filter_map(|info| info.maxmemory).min(),
        policy: policies().find(|policy| *policy == "noeviction").or_else(|| policies().next()).cloned(),
        is_writable: !known.clone().any(|info| info.is_replica),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the facts are those of one server only, if the smallest limit does not count, or if a server without `INFO` gets an
    /// identity.
    #[test]
    fn facts_are_those_of_all_servers() {
        let text = |id: &str, maxmemory: u64, policy: &str| {
            format!(
                "# Server\r\nrun_id:{id}\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\nrole:master\r\nmaster_replid:r{id}\r\n"
            )
        };
        let servers = [Info::parse(&text("b", 7, "allkeys-lru")), Info::parse(&text("a", 5, "noeviction"))];
        let expected = Facts {
            identity: Some(vec!["a ra".to_owned(), "b rb".to_owned()]),
            maxmemory: Some(5),
            policy: Some("noeviction".to_owned()),
            is_writable: true,
        };
        assert_eq!(facts(servers.iter().map(Some)), expected);
        let partly = facts([Some(&servers[0]), None].into_iter());
        assert_eq!((partly.identity, partly.maxmemory, partly.is_writable), (None, Some(7), true));
    }
}
