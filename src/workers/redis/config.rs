//! The settings of the Redis worker.

use crate::pg::settings;
use std::path::PathBuf;
use std::time::Duration;

/// The settings. If they change, the worker ends, and the launcher starts another one, which reads them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The URL of Redis.
    pub url: String,
    /// The beginning of all Redis keys.
    pub prefix: String,
    /// The longest time to live in Redis, in milliseconds.
    pub max_ttl_ms: u64,
    /// The limit of each wait for a server.
    pub timeout: Duration,
    /// The file with the certificate authority for TLS.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// Returns the present settings. None if `pg_cache.redis_url` is not set.
    pub fn read() -> Option<Self> {
        Some(Self {
            url: settings::redis_url()?,
            prefix: settings::redis_prefix(),
            max_ttl_ms: settings::redis_max_ttl_ms(),
            timeout: settings::redis_timeout(),
            ca_file: settings::redis_ca_file(),
        })
    }
}
