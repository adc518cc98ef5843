//! The servers that the part `tax` of the report compares, and the tables in them. Three servers have the same settings and the
//! same tables without triggers, the *plain* tables. Only one of them loads the library, and stores values that depend on its plain
//! tables. One of the others also has tables with triggers, in schemas of their own.

use crate::data::{FIRST_KEY, KEYS};
use crate::test_servers;
use pg_cache_testbed::{Cluster, Conf, Redis, Stop};
use postgres::Client;
use std::cell::RefCell;

/// The number of entries that depend on the tables through a tag.
const TAGGED: i64 = 1000;
/// The number of entries that depend on the tables because their query reads them.
const FETCHED: i64 = 100;

/// The schemas of the tables: the plain tables, and those whose triggers tell sessions of a change, or delete from Redis.
pub const PLAIN: &str = "plain";
pub const NOTIFY: &str = "with_notify";
pub const REDIS: &str = "with_redis";

/// A server, and the session that administers it.
pub struct Side {
    pub cluster: Cluster,
    /// A superuser's session. A restart replaces it.
    admin: RefCell<Client>,
}

/// All servers of the comparison.
pub struct Sides {
    /// The server without the library. It also has the tables with triggers.
    pub without: Side,
    /// The server with pg_cache, which watches the plain tables.
    pub with: Side,
    /// A second server without the library, as a control.
    pub control: Side,
    /// The Redis that a trigger reaches.
    redis: Redis,
    /// Whether the server has the language in which a trigger can reach Redis.
    pub reaches_redis: bool,
}

/// Sets a configuration in which no commit waits for a disk and no background work runs. A commit then costs only its own work, and
/// the share of the library is as large as possible.
fn quiet(conf: Conf) -> Conf {
    test_servers::settings(conf)
        .set("synchronous_commit", "off")
        .set("fsync", "off")
        .set("full_page_writes", "off")
        .set("autovacuum", "off")
        .set("bgwriter_lru_maxpages", "0")
        .set("checkpoint_timeout", "1d")
        .set("max_wal_size", "8GB")
        // Up to PostgreSQL 16, a commit wakes the WAL writer when a full page is not flushed. With this setting, the WAL writer
        // flushes whenever it writes, so it is woken less often. Its wake-ups would be work of another process, which needs a
        // core. From PostgreSQL 17 on, the setting does the opposite: every such commit wakes the WAL writer.
        .set("wal_writer_flush_after", "0")
}

impl Side {
    /// Starts a server with the settings of [`quiet`], and fills the plain tables.
    fn start(conf: Conf) -> Self {
        let cluster = Cluster::start(&quiet(conf));
        let admin = RefCell::new(cluster.connect("postgres"));
        let side = Self { cluster, admin };
        side.execute(&format!("SET bench.first_key = '{FIRST_KEY}'; SET bench.keys = '{KEYS}'"));
        side.make_tables(PLAIN, "");
        side
    }

    /// Creates the tables in a schema of their own, and then the objects of the statements `more` in the same schema.
    fn make_tables(&self, schema: &str, more: &str) {
        let tables = include_str!("tables.sql");
        self.execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {tables} {more}"));
        self.execute(&format!("VACUUM (ANALYZE) {schema}.account"));
    }

    /// Runs statements, and panics if one fails.
    fn execute(&self, statements: &str) {
        self.admin
            .borrow_mut()
            .batch_execute(statements)
            .unwrap_or_else(|error| panic!("{error}: {statements}"));
    }

    /// Returns the single bigint of a query, and panics if the query fails.
    fn number(&self, query: &str) -> i64 {
        let row = self.admin.borrow_mut().query_one(query, &[]);
        row.unwrap_or_else(|error| panic!("{error}: {query}")).get(0)
    }

    /// Restarts the server under another program, whose command line is `words`. The program must become the server without a fork.
    pub fn restart_beneath(&self, words: &[&str]) {
        self.cluster.stop(Stop::Fast);
        self.cluster.resume_beneath(words);
        self.arrive();
    }

    /// Prepares a server that was restarted: connects again, and reads its data.
    fn arrive(&self) {
        self.admin.replace(self.cluster.connect("postgres"));
        // These queries bring the tables that the operations write, and their indexes, into memory again.
        self.number("SELECT count(filler) FROM plain.account");
        self.execute("SET enable_seqscan = off");
        self.number("SELECT count(id) FROM plain.account WHERE id > 0");
    }

    /// Removes what operations have left in the tables of a schema: the rows that were added, and the dead versions of updated
    /// rows.
    pub fn clear(&self, schema: &str) {
        self.execute(&format!("TRUNCATE {schema}.entry"));
        // VACUUM must be the only statement of its message.
        self.execute(&format!("VACUUM {schema}.account"));
    }
}

/// Restarts servers, all at the same time. No server may be listed twice.
pub fn restart(sides: &[&Side]) {
    std::thread::scope(|scope| {
        for Side { cluster, .. } in sides {
            scope.spawn(|| {
                cluster.stop(Stop::Fast);
                cluster.resume();
            });
        }
    });
    sides.iter().for_each(|side| side.arrive());
}

impl Sides {
    /// Starts the servers and fills them.
    pub fn make() -> Self {
        let [without, with, control] = [Conf::bare(), Conf::preloaded(), Conf::bare()].map(Side::start);
        with.execute(
            "SET search_path = public; CREATE EXTENSION pg_cache;
             SELECT cache_watch('plain.account', '{written}'); SELECT cache_watch('plain.entry', '{written}')",
        );
        let redis = Redis::start();
        without.make_tables(NOTIFY, include_str!("notify.sql"));
        let language = "SELECT count(*) FROM pg_available_extensions WHERE name = 'plpython3u'";
        let reaches_redis = without.number(language) > 0;
        if reaches_redis {
            let socket = redis.socket().display().to_string();
            without.make_tables(REDIS, &include_str!("redis.sql").replace("{socket}", &socket));
        }
        Self { without, with, control, redis, reaches_redis }
    }

    /// Stores the values that depend on the tables on the server with pg_cache, and checks that they exist.
    pub fn depend(&self) {
        self.with.execute(&format!(
            "SELECT count(cache_set('tagged ' || i, '1', '1 day', '{{written}}')) FROM generate_series(1, {TAGGED}) AS i;
             SELECT count(cache_fetch('fetched ' || i,
                 'SELECT (SELECT balance FROM plain.account WHERE id = $1) + (SELECT count(*) FROM plain.entry)',
                 jsonb_build_array({FIRST_KEY} + i), '1 day')) FROM generate_series(1, {FETCHED}) AS i"
        ));
        self.check_dependents(true);
    }

    /// Checks the values that depend on the tables: with `right`, all must still be valid, and otherwise all must be misses.
    pub fn check_dependents(&self, right: bool) {
        let hits = self.with.number(&format!(
            "SELECT (SELECT count(cache_get('tagged ' || i)) FROM generate_series(1, {TAGGED}) AS i)
                  + (SELECT count(cache_get('fetched ' || i)) FROM generate_series(1, {FETCHED}) AS i)"
        ));
        assert_eq!(hits, if right { TAGGED + FETCHED } else { 0 }, "of what depends on the tables");
    }

    /// Checks that the accounts have the same number of pages on all servers, and that Redis was told to delete if and only if its
    /// trigger exists. Must be called after all contests.
    pub fn check_alike(&self) {
        let pages = "SELECT pg_relation_size('plain.account') / 8192";
        let sizes = [&self.without, &self.with, &self.control].map(|side| side.number(pages));
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        assert_eq!(least, most, "the pages of the tables");
        let deleted = self.redis.info("cmdstat_del");
        assert_eq!(deleted.is_some(), self.reaches_redis, "Redis was told: {deleted:?}");
    }
}
