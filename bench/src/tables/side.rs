//! The servers of the parts about the table tier (their ids begin with `tables-`), and the values in them. The *table tier* saves
//! values in tables before they leave the memory.

use super::SAVED_BYTES;
use crate::data::{FIRST_KEY, KEYS, value};
use crate::test_servers;
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::cell::{RefCell, RefMut};
use std::time::{Duration, Instant};

/// The size of the memory for values: the default of `pg_cache.hot_size`.
pub const HOT_SIZE: &str = "128MB";
/// The disk space of all tables in bytes, for `pg_cache.table_size`.
pub const TABLE_BYTES: u64 = 1 << 30;
/// The number of locations, the entries of the directory of saved values: more than there are values in a measurement.
const TABLE_ENTRIES: &str = "4000000";
/// Values of one transaction: few enough to stay below `pg_cache.max_transaction_size`, the memory for changes that wait for the
/// commit.
pub const BATCH: u64 = 50_000;
/// How long a session waits for the saver before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A server, and a superuser's session with it.
pub struct Side {
    pub cluster: Cluster,
    session: RefCell<Client>,
}

/// Returns the settings of a server that saves values in tables of `table_bytes` in total, a multiple of 1024.
pub fn with_tables(hot_size: &str, table_bytes: u64) -> Conf {
    without_tables(hot_size)
        .set("pg_cache.table_size", &format!("{}kB", table_bytes >> 10))
        .set("pg_cache.table_entries", TABLE_ENTRIES)
}

/// Returns the settings of a server that has no room for a saved value, neither on the disk nor in the directory.
pub fn without_tables(hot_size: &str) -> Conf {
    test_servers::conf()
        .set("pg_cache.hot_size", hot_size)
        .set("pg_cache.table_size", "0")
        .set("pg_cache.table_entries", "0")
        // The default, which the test harness (`tests/harness/`) replaces.
        .set("pg_cache.sweep_interval", "5s")
}

/// How many keys of a range have their value in which place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In a table, and not in memory.
    pub table: u64,
    /// In no place.
    pub gone: u64,
    /// All keys that were looked up. Those that are not counted above are in memory.
    pub all: u64,
}

impl Places {
    /// Returns the share of the values that a reader would find.
    pub fn found(&self) -> f64 {
        (self.all - self.gone) as f64 / self.all as f64
    }
}

impl Side {
    /// Starts a server with pg_cache installed.
    pub fn start(conf: &Conf) -> Self {
        let cluster = Cluster::start(conf);
        let session = RefCell::new(cluster.connect("postgres"));
        let side = Self { cluster, session };
        side.execute("CREATE EXTENSION pg_cache");
        side
    }

    /// Returns the session. The caller must drop the borrow before it calls another method of this value: a second borrow panics.
    pub fn session(&self) -> RefMut<'_, Client> {
        self.session.borrow_mut()
    }

    /// Connects again, after the server was restarted.
    pub fn connect(&self) {
        self.session.replace(self.cluster.connect("postgres"));
    }

    /// Returns the ID of the backend process of the session.
    pub fn backend(&self) -> u32 {
        let pid: i32 = self.session().query_one("SELECT pg_backend_pid()", &[]).expect("it tells").get(0);
        pid.cast_unsigned()
    }

    /// Runs statements, and panics if one fails.
    pub fn execute(&self, statements: &str) {
        let done = self.session().batch_execute(statements);
        done.unwrap_or_else(|error| panic!("{error}: {statements}"));
    }

    /// Returns the single bigint of a query, which must not be null or negative. Panics if the query fails.
    pub fn number(&self, query: &str) -> u64 {
        let row = self.session().query_one(query, &[]);
        let number: i64 = row.unwrap_or_else(|error| panic!("{error}: {query}")).get(0);
        number.cast_unsigned()
    }

    /// Creates the tables and functions that pg_cache is compared with (`setup.sql`), filled with the keys and values of
    /// [`crate::data`].
    pub fn set_up_table(&self) {
        self.execute(&format!(
            "SET bench.first_key = '{FIRST_KEY}'; SET bench.keys = '{KEYS}'; SET bench.value = '{}';
             SET max_parallel_workers_per_gather = 0; {}",
            value(),
            include_str!("../setup.sql")
        ));
        // VACUUM must be the only statement of its message.
        self.execute("VACUUM (ANALYZE) entry, written, probe");
        self.execute("CHECKPOINT");
    }

    /// Sets values of `bytes` bytes under `count` keys from `first` on, one batch ([`BATCH`]) after the other. With `patient`,
    /// waits after each batch until it is saved.
    pub fn fill(&self, space: &str, first: u64, count: u64, bytes: usize, patient: bool) {
        for from in (0..count).step_by(BATCH as usize) {
            let to = (from + BATCH).min(count);
            let before = if patient { self.saved() } else { 0 };
            self.set_range(space, first + from, first + to, bytes);
            if patient {
                self.wait_until_saved(before + to - from);
            }
        }
    }

    /// Sets values under the keys from `from` on and below `to`, in one transaction. Panics if one of them is not stored.
    pub fn set_range(&self, space: &str, from: u64, to: u64, bytes: usize) {
        let set = format!(
            "SELECT count(*) FILTER (WHERE cache_set_text(i::text, repeat('x', {bytes}), '1 day', space => '{space}'))
             FROM generate_series({from}::bigint, {to}::bigint - 1) AS i"
        );
        assert_eq!(self.number(&set), to - from, "the values are stored");
    }

    /// Returns how many saved values can be found.
    pub fn saved(&self) -> u64 {
        self.number(
            "SELECT used::bigint FROM cache_usage WHERE resource = 'saved values' AND database IS NULL",
        )
    }

    /// Waits until this many saved values can be found. One in a thousand may be missing: the directory keeps only a part of the
    /// hash of a key, so the location of one key may replace that of another. Panics after [`PATIENCE`].
    pub fn wait_until_saved(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.saved() < count - count / 1000 {
            assert!(Instant::now() < deadline, "{} of {count} values are saved", self.saved());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns where the values of the keys from `from` on and below `to` are, in steps of `step`. The look-up does not count as a
    /// read, and moves no value. `OFFSET 0` keeps the subquery, so that `cache_status` tells of the look-up of the same row.
    pub fn places(&self, space: &str, from: u64, to: u64, step: u64) -> Places {
        let look = format!(
            "SELECT count(*) FILTER (WHERE place = 'hit: table'), count(*) FILTER (WHERE NOT is_there), count(*)
             FROM (SELECT cache_exists(i::text, '{space}') AS is_there, cache_status() AS place
                   FROM generate_series({from}::bigint, {to}::bigint - 1, {step}) AS i OFFSET 0) AS looked"
        );
        let row = self.session().query_one(&look, &[]).unwrap_or_else(|error| panic!("{error}: {look}"));
        let [table, gone, all] = [0, 1, 2].map(|column| row.get::<_, i64>(column).cast_unsigned());
        Places { table, gone, all }
    }

    /// Fills the memory with values that no session reads, until at least [`BATCH`] values were evicted. Returns the first key that
    /// was not set.
    pub fn fill_memory(&self, space: &str, first: u64) -> u64 {
        let evicted = format!("SELECT evicted::bigint FROM cache_stats WHERE space = '{space}'");
        let mut next = first;
        while self.number(&evicted) < BATCH {
            self.set_range(space, next, next + BATCH, SAVED_BYTES);
            next += BATCH;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a value that is only in a table counts as gone.
    #[test]
    fn values_in_any_place_are_found() {
        assert_eq!(Places { table: 30, gone: 25, all: 100 }.found(), 0.75);
    }
}
