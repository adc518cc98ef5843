//! Caches values in pg_cache: a helper for the crate `postgres`. See README.md.

use postgres::{Error, GenericClient};
use std::time::Duration;

/// How a value is cached.
pub struct Cached<'a> {
    pub space: &'a str,
    /// 1 to 1024 bytes. Under other keys, nothing is stored.
    pub key: &'a str,
    /// At most a year.
    pub ttl: Duration,
    pub tags: &'a [&'a str],
    /// How long a call waits for another session that computes the value. Then it computes the value itself, without storing it.
    pub wait: Duration,
    /// How long other sessions wait for this session to compute the value.
    pub hold: Duration,
}

impl<'a> Cached<'a> {
    /// A key of the space `default`, with the usual times.
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
            "hit" | "stale" => return Ok(row.get("value")),
            "compute" => {}
            _ => return compute(client),
        }
        let release = "SELECT cache_release($1, $2, $3)";
        let value = compute(client).inspect_err(|_| {
            // In a failed transaction, this is an error, too. Its rollback releases the lease.
            let _ = client.query_one(release, &[&self.key, &lease, &self.space]);
        })?;
        // If a table or a tag has changed since the lease, the set stores nothing, and the next caller must not wait for the lease.
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
