//! Caches values in pg_cache: a helper for the crate `postgres`. See README.md.

use postgres::{Error, GenericClient};
use std::time::Duration;

/// How a value is cached.
pub struct Cached<'a> {
    /// The name of the space, a named cache.
    pub space: &'a str,
    /// 1 to 1024 bytes. Under other keys, nothing is stored.
    pub key: &'a str,
    /// The time to live, at most a year. A longer time is an error, which comes after the computation.
    pub ttl: Duration,
    /// The value is invalid as soon as one of these tags is invalidated.
    pub tags: &'a [&'a str],
    /// How long a call waits for another session that computes the value, at most 6 hours; a longer time is an error. Then the call
    /// computes the value itself, without storing it.
    pub wait: Duration,
    /// The lifetime of the lease, at most an hour. If the computation takes longer, another session may begin to compute the value.
    pub hold: Duration,
}

impl<'a> Cached<'a> {
    /// A key of the space `default`. The value lives 5 minutes, a call waits up to 5 seconds, and a lease lasts 30 seconds.
    pub fn new(key: &'a str, tags: &'a [&'a str]) -> Self {
        let [ttl, wait, hold] = [300, 5, 30].map(Duration::from_secs);
        Self { space: "default", key, ttl, tags, wait, hold }
    }

    /// Returns the value of the key. If there is none, one session computes it, and the others wait for it.
    ///
    /// The client may be a transaction. The value is then visible to other sessions when the transaction commits.
    pub fn get_or_compute<C: GenericClient, E: From<Error>>(
        &self,
        client: &mut C,
        compute: impl FnOnce(&mut C) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let acquire = "SELECT value, status, lease FROM cache_acquire_bytes(
            $1, $2, make_interval(secs => $3), make_interval(secs => $4))";
        let (wait, hold) = (self.wait.as_secs_f64(), self.hold.as_secs_f64());
        let row = client.query_one(acquire, &[&self.key, &self.space, &wait, &hold])?;
        let lease: Option<i64> = row.get("lease");
        match row.get("status") {
            // "stale": another session computes the value, and the last one was stored with `stale_ok`, by other code than this.
            "hit" | "stale" => return Ok(row.get("value")),
            "compute" => {}
            // "wait": the other session needs longer than `wait`.
            _ => return compute(client),
        }
        let release = "SELECT cache_release($1, $2, $3)";
        let value = compute(client).inspect_err(|_| {
            // In a failed transaction, this statement fails, too. The rollback releases the lease.
            let _ = client.query_one(release, &[&self.key, &lease, &self.space]);
        })?;
        // If the key or a tag has changed since this session got the lease, the set stores nothing. The lease is then released, so
        // that the next caller computes the value at once.
        let store =
            "SELECT CASE WHEN NOT cache_set_bytes($1, $2, make_interval(secs => $3), $4, $5, lease => $6)
            THEN cache_release($1, $6, $5) END";
        client.query_one(
            store,
            &[&self.key, &value, &self.ttl.as_secs_f64(), &self.tags, &self.space, &lease],
        )?;
        Ok(value)
    }
}
