//! The servers of the measurements in [`plan`](crate::plan): one PostgreSQL with pg_cache and one Redis, filled with the same keys
//! and values. The parts with servers of their own take their settings from [`conf`] and [`settings`], too.

use crate::data::{FIRST_KEY, FIRST_TEXT_KEY, FIRST_WRITTEN_KEY, KEYS, VALUE_BYTES, json, value};
use crate::drive::wire::Pool;
use anyhow::{Context, Result, bail, ensure};
use pg_cache_testbed::{Cluster, Conf, Redis, Server};
use postgres::Client;
use std::cell::{RefCell, RefMut};
use std::process::Command;

/// Returns the SQL conditions that fill pg_cache with three ranges of keys of [`data`](crate::data): the values as jsonb, the
/// values as text, and the values that the write measurements overwrite. A condition stores one entry for a row of the table
/// `entry`, and is true if the entry was stored. Each condition must run in its own transaction: the entries of one range wait in
/// memory for the commit.
fn cached() -> [String; 3] {
    let keys = |first: u64| format!("(key::bigint + {})::text", first - FIRST_KEY);
    [
        format!("cache_set(key, '{}', '1 day')", json()),
        format!("cache_set_text({}, value, '1 day')", keys(FIRST_TEXT_KEY)),
        format!("cache_set({}, '\"as it was before\"', '1 day')", keys(FIRST_WRITTEN_KEY)),
    ]
}

/// Returns the settings of a server that preloads pg_cache, for measurements.
pub fn conf() -> Conf {
    settings(Conf::preloaded())
}

/// Adds the settings for measurements to `conf`: PostgreSQL's own defaults where the test harness (`tests/harness/`) uses other
/// values. The last three settings differ from the defaults.
pub fn settings(conf: Conf) -> Conf {
    conf.set("fsync", "on")
        .set("wal_level", "replica")
        .set("max_prepared_transactions", "0")
        .set("max_wal_size", "1GB")
        .set("autovacuum", "on")
        // All tables of a measurement fit into this memory.
        .set("shared_buffers", "256MB")
        // This makes machines with and without reserved huge pages behave the same.
        .set("huge_pages", "off")
        // Just-in-time compilation would slow down one contender, the subquery.
        .set("jit", "off")
}

/// The environment variable that names the `pg_config` of the installation under test. `make bench` sets it.
const PG_CONFIG: &str = "PG_CACHE_TEST_PG_CONFIG";

/// Checks that the programs exist without which the measurements with servers cannot run. The caller must call this before it
/// starts a server. The error names the first missing program in one line. `perf` and valgrind may be missing.
pub fn check_tools() -> Result<()> {
    let pg_config =
        std::env::var_os(PG_CONFIG).with_context(|| format!("{PG_CONFIG} is not set: run make bench"))?;
    ensure!(std::path::Path::new(&pg_config).is_file(), "{PG_CONFIG} names no program: run make bench");
    let pgbench = Server::from_env().program("pgbench");
    ensure!(pgbench.is_file(), "this PostgreSQL comes without pgbench ({} is missing)", pgbench.display());
    for program in ["redis-server", "redis-benchmark", "redis-cli"] {
        if Command::new(program).arg("--version").output().is_err() {
            bail!("{program} is missing: install Redis (Debian: redis-server redis-tools)");
        }
    }
    Ok(())
}

/// Returns the process ID of the postmaster, the parent of all sessions of a cluster. Panics if the cluster is not running.
pub fn postmaster(cluster: &Cluster) -> u32 {
    let file = std::fs::read_to_string(cluster.data().join("postmaster.pid")).unwrap_or_default();
    file.lines().next().and_then(|line| line.parse().ok()).expect("a running server has a postmaster.pid")
}

/// A PostgreSQL server and a Redis server with the data. Both stop when this value is dropped or this process ends.
pub struct TestServers {
    /// The PostgreSQL server.
    pub cluster: Cluster,
    /// The Redis server.
    pub redis: Redis,
    /// The session that sets up the data, and in which measurements inside SQL run.
    session: RefCell<Client>,
    /// The sessions of the measurements over the wire.
    pool: RefCell<Pool>,
}

impl TestServers {
    /// Starts and fills both servers. Returns an error if one of them does not hold all keys afterwards.
    pub fn make() -> Result<Self> {
        let redis = Redis::start();
        // The digit 1 and 12 digits are the keys from `FIRST_KEY` on.
        redis.command(&[
            "EVAL",
            "for i = 0, ARGV[1] - 1 do redis.call('SET', string.format('1%012d', i), ARGV[2]) end",
            "0",
            &KEYS.to_string(),
            &value(),
        ]);
        ensure!(redis.command(&["DBSIZE"]) == KEYS.to_string(), "Redis does not hold the {KEYS} keys");

        let cluster = Cluster::start(&conf());
        let mut session = cluster.connect("postgres");
        session
            .batch_execute(&format!(
                "SET bench.first_key = '{FIRST_KEY}'; SET bench.keys = '{KEYS}'; SET bench.value = '{}';
                 SET max_parallel_workers_per_gather = 0",
                value()
            ))
            .context("the session refuses its settings")?;
        // VACUUM must be the only statement of its message.
        for script in [
            "CREATE EXTENSION pg_cache",
            include_str!("setup.sql"),
            "VACUUM (ANALYZE) entry, written, probe",
            "CHECKPOINT",
        ] {
            session.batch_execute(script).context("the data cannot be set up")?;
        }
        for set in cached() {
            let stored: i64 =
                session.query_one(&format!("SELECT count(*) FROM entry WHERE {set}"), &[])?.get(0);
            ensure!(stored.cast_unsigned() == KEYS, "pg_cache stores {stored} of the {KEYS} keys");
        }
        Ok(Self { cluster, redis, session: RefCell::new(session), pool: RefCell::default() })
    }

    /// Returns the session for measurements inside SQL. The caller must drop the borrow before it calls this, `backend` or
    /// `check_hits` again: a second borrow panics.
    pub fn session(&self) -> RefMut<'_, Client> {
        self.session.borrow_mut()
    }

    /// Returns the sessions for measurements over the wire. The caller must drop the borrow before it calls this again, as above.
    pub fn pool(&self) -> RefMut<'_, Pool> {
        self.pool.borrow_mut()
    }

    /// Returns the process ID of the postmaster.
    pub fn postmaster(&self) -> u32 {
        postmaster(&self.cluster)
    }

    /// Returns the ID of the backend process of the session for measurements inside SQL.
    pub fn backend(&self) -> Result<u32> {
        let pid: i32 = self.session().query_one("SELECT pg_backend_pid()", &[])?.get(0);
        Ok(pid.cast_unsigned())
    }

    /// Returns the process ID of the Redis server.
    pub fn redis_process(&self) -> Result<u32> {
        self.redis
            .info("process_id")
            .and_then(|pid| pid.parse().ok())
            .context("Redis does not tell its process")
    }

    /// Returns an error if a key that the reads request does not exist, or if Redis has counted a miss: a fast miss must not count
    /// as a fast hit. Must be called after all measurements.
    pub fn check_hits(&self) -> Result<()> {
        // The client over the wire does not look at its results. It asks for exactly these keys, so it is enough that they exist.
        let query = "SELECT count(*), min(key), max(key) FROM entry WHERE length(value) = $1";
        let row = self.session().query_one(query, &[&i32::try_from(VALUE_BYTES)?])?;
        let (first, last) = (FIRST_KEY.to_string(), (FIRST_KEY + KEYS - 1).to_string());
        let there: (i64, Option<&str>, Option<&str>) = (row.get(0), row.get(1), row.get(2));
        ensure!(
            there == (KEYS.cast_signed(), Some(&first), Some(&last)),
            "the table does not hold the {KEYS} keys from {first} on: {there:?}"
        );
        // The values from the start must still exist at the end, because no measurement stores them again.
        let query = format!(
            "SELECT count(cache_get(key)), count(cache_get_text((key::bigint + {FIRST_KEY})::text)) FROM entry"
        );
        let row = self.session().query_one(&query, &[])?;
        let cached: (i64, i64) = (row.get(0), row.get(1));
        ensure!(
            cached == (KEYS.cast_signed(), KEYS.cast_signed()),
            "pg_cache does not hold the {KEYS} keys of each kind: {cached:?}"
        );
        let misses = self.redis.info("keyspace_misses");
        ensure!(misses.as_deref() == Some("0"), "Redis missed {misses:?} of the keys it was asked for");
        Ok(())
    }
}
