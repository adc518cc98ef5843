//! Servers that differ in nothing but the library, and what is written in them.

use crate::bed::{self, FIRST_KEY, KEYS};
use pg_cache_testbed::{Cluster, Conf, Redis, Stop};
use postgres::Client;
use std::cell::RefCell;

/// Entries that depend on the tables by a tag, and results that depend on them by what their query reads.
const TAGGED: i64 = 1000;
const FETCHED: i64 = 100;

/// The schemas of the tables: the plain ones, and those with triggers.
pub const PLAIN: &str = "plain";
pub const NOTIFY: &str = "with_notify";
pub const REDIS: &str = "with_redis";

/// A server, and the session that looks after it.
pub struct Side {
    pub cluster: Cluster,
    admin: RefCell<Client>,
}

/// All of them.
pub struct Sides {
    pub without: Side,
    pub with: Side,
    /// The first once more.
    pub control: Side,
    redis: Redis,
    /// Whether there is the language in which a trigger can reach Redis.
    pub reaches_redis: bool,
}

/// Nobody waits for a disk, and nothing goes on in the background: a commit is work alone, and what the library adds to it weighs
/// most.
fn quiet(conf: Conf) -> Conf {
    bed::settings(conf)
        .set("synchronous_commit", "off")
        .set("fsync", "off")
        .set("full_page_writes", "off")
        .set("autovacuum", "off")
        .set("bgwriter_lru_maxpages", "0")
        .set("checkpoint_timeout", "1d")
        .set("max_wal_size", "8GB")
        // A commit nudges the writer of the log while a full page is not flushed. So it flushes whenever it writes, and is nudged
        // less often: that is work of another process, which has to get a core.
        .set("wal_writer_flush_after", "0")
}

impl Side {
    fn start(conf: Conf) -> Self {
        let cluster = Cluster::start(&quiet(conf));
        let admin = RefCell::new(cluster.connect("postgres"));
        let side = Self { cluster, admin };
        side.execute(&format!("SET bench.first_key = '{FIRST_KEY}'; SET bench.keys = '{KEYS}'"));
        side.make_tables(PLAIN, "");
        side
    }

    /// Tables in a schema of their own, and what else is in it.
    fn make_tables(&self, schema: &str, more: &str) {
        let tables = include_str!("tables.sql");
        self.execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {tables} {more}"));
        self.execute(&format!("VACUUM (ANALYZE) {schema}.account"));
    }

    fn execute(&self, statements: &str) {
        self.admin
            .borrow_mut()
            .batch_execute(statements)
            .unwrap_or_else(|error| panic!("{error}: {statements}"));
    }

    fn number(&self, query: &str) -> i64 {
        let row = self.admin.borrow_mut().query_one(query, &[]);
        row.unwrap_or_else(|error| panic!("{error}: {query}")).get(0)
    }

    /// Starts it again beneath another program.
    pub fn restart_beneath(&self, words: &[&str]) {
        self.cluster.stop(Stop::Fast);
        self.cluster.resume_beneath(words);
        self.arrive();
    }

    /// Takes up a server that was started again.
    fn arrive(&self) {
        self.admin.replace(self.cluster.connect("postgres"));
        // What is written is in memory again, with its index.
        self.number("SELECT count(filler) FROM plain.account");
        self.execute("SET enable_seqscan = off");
        self.number("SELECT count(id) FROM plain.account WHERE id > 0");
    }

    /// Takes away what has been added to the tables.
    pub fn clear(&self, schema: &str) {
        self.execute(&format!("TRUNCATE {schema}.entry"));
        // It takes no company in a message.
        self.execute(&format!("VACUUM {schema}.account"));
    }
}

/// Starts servers again, all at once.
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
    /// Starts and fills them.
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

    /// Stores what depends on the tables, and makes sure that it is there.
    pub fn depend(&self) {
        self.with.execute(&format!(
            "SELECT count(cache_set('tagged ' || i, '1', '1 day', '{{written}}')) FROM generate_series(1, {TAGGED}) AS i;
             SELECT count(cache_fetch('fetched ' || i,
                 'SELECT (SELECT balance FROM plain.account WHERE id = $1) + (SELECT count(*) FROM plain.entry)',
                 jsonb_build_array({FIRST_KEY} + i), '1 day')) FROM generate_series(1, {FETCHED}) AS i"
        ));
        self.check_dependents(true);
    }

    /// Makes sure that all of it is still right, or nothing.
    pub fn check_dependents(&self, right: bool) {
        let hits = self.with.number(&format!(
            "SELECT (SELECT count(cache_get('tagged ' || i)) FROM generate_series(1, {TAGGED}) AS i)
                  + (SELECT count(cache_get('fetched ' || i)) FROM generate_series(1, {FETCHED}) AS i)"
        ));
        assert_eq!(hits, if right { TAGGED + FETCHED } else { 0 }, "of what depends on the tables");
    }

    /// Makes sure that no server has been left with more to wade through than the others, and that triggers did what they are for.
    pub fn check_alike(&self) {
        let pages = "SELECT pg_relation_size('plain.account') / 8192";
        let sizes = [&self.without, &self.with, &self.control].map(|side| side.number(pages));
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        assert_eq!(least, most, "the pages of the tables");
        let deleted = self.redis.info("cmdstat_del");
        assert_eq!(deleted.is_some(), self.reaches_redis, "Redis was told: {deleted:?}");
    }
}
