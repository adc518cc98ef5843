//! The server of a part whose id begins with `queries-` (parts about cached results of queries), and the ways to time a statement
//! on it. A *part* is a section of the report.

use crate::drive::one_core::OneCore;
use crate::drive::wire::{Other, Pool, Task, Until};
use crate::drive::{Load, Run};
use crate::plan::Given;
use crate::test_servers;
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::cell::{RefCell, RefMut};
use std::time::{Duration, Instant};

/// The space in which the results are stored. A space is a named cache with its own options and counts.
pub const SPACE: &str = "default";
/// How often a loop inside SQL evaluates a statement of some microseconds before the client checks whether the time is over.
pub const MANY_PASSES: i32 = 200;

/// Returns the settings of the server. Results are stored also if their query took less than the default of `pg_cache.min_cost`.
/// Commits do not wait for the disk, and no worker of the server vacuums tables, because such work would disturb some turns of a
/// measurement and not others.
pub fn conf() -> Conf {
    test_servers::conf()
        .set("synchronous_commit", "off")
        .set("autovacuum", "off")
        .set("checkpoint_timeout", "1d")
        .set("max_wal_size", "8GB")
        .set("pg_cache.min_cost", "0")
        .set("pg_cache.default_ttl", "1d")
}

/// A server with pg_cache, a superuser's session with it, and the sessions of the measurements over the wire.
pub struct Stage {
    pub cluster: Cluster,
    session: RefCell<Client>,
    pool: RefCell<Pool>,
}

impl Stage {
    /// Starts a server with pg_cache installed and the settings of [`conf`].
    pub fn start() -> Self {
        Self::start_with(&conf())
    }

    /// Starts a server with pg_cache installed.
    pub fn start_with(conf: &Conf) -> Self {
        let cluster = Cluster::start(conf);
        let session = RefCell::new(cluster.connect("postgres"));
        let stage = Self { cluster, session, pool: RefCell::default() };
        stage.execute("CREATE EXTENSION pg_cache");
        stage
    }

    /// Returns the session. The caller must drop the borrow before it calls another method of this value: a second borrow panics.
    pub fn session(&self) -> RefMut<'_, Client> {
        self.session.borrow_mut()
    }

    /// Runs statements, and panics if one fails.
    pub fn execute(&self, statements: &str) {
        let done = self.session().batch_execute(statements);
        done.unwrap_or_else(|error| panic!("{error:?}: {statements}"));
    }

    /// Returns the single bigint of a query, which must not be null or negative. Panics if the query fails.
    pub fn number(&self, query: &str) -> u64 {
        let row = self.session().query_one(query, &[]);
        let number: i64 = row.unwrap_or_else(|error| panic!("{error:?}: {query}")).get(0);
        number.cast_unsigned()
    }

    /// Returns the hits and the misses of a space so far.
    pub fn reads(&self, space: &str) -> [u64; 2] {
        ["hits", "misses"].map(|count| {
            self.number(&format!("SELECT {count}::bigint FROM cache_stats WHERE space = '{space}'"))
        })
    }

    /// Makes the clients of a task send its statement, or the other one, until `until`.
    pub fn run(&self, task: Task<'_>, other: Option<Other<'_>>, until: Until) -> Run {
        let run = self.pool.borrow_mut().run_mixed(&self.cluster, task, other, until);
        run.unwrap_or_else(|error| panic!("{error:#}: {}", task.statement))
    }

    /// Sends a prepared statement over the wire by one client for a while. The client and its server share one core. Returns the
    /// nanoseconds of one request.
    pub fn wire(&self, statement: &str, given: Given, span: Duration) -> f64 {
        let processes =
            self.pool.borrow_mut().processes(&self.cluster, 1).expect("the server takes a session");
        let _alone = OneCore::hold(&processes).expect("a core can be chosen");
        let load = Load { clients: 1, pipeline: 1, keys: 1 };
        let task = Task { statement, given, load, seed: 1 };
        1e9 / self.run(task, None, Until::Over(span)).per_second
    }

    /// Sends a prepared statement without parameters over the wire once. The server may use all cores. Returns the nanoseconds.
    pub fn once(&self, statement: &str) -> f64 {
        let load = Load { clients: 1, pipeline: 1, keys: 1 };
        let task = Task { statement, given: Given::Nothing, load, seed: 1 };
        1e9 / self.run(task, None, Until::Done(1)).per_second
    }

    /// Creates the function `name`, which evaluates `SELECT columns FROM source` in a loop of PL/pgSQL as often as its argument
    /// says, and returns the nanoseconds of one pass by the clock of the server. `loop_for` and `loop_once` run it.
    pub fn create_loop(&self, name: &str, columns: &str, source: &str) {
        self.execute(&format!(
            "CREATE FUNCTION {name}(passes int) RETURNS float8 LANGUAGE plpgsql AS $loop$
             DECLARE started timestamptz := clock_timestamp();
             BEGIN
                 FOR pass IN 1 .. passes LOOP
                     PERFORM {columns} FROM {source};
                 END LOOP;
                 RETURN extract(epoch FROM clock_timestamp() - started) * 1e9 / passes;
             END $loop$"
        ));
    }

    /// Runs a loop in the session for a while. The client and its server share one core. The client calls the function of the loop
    /// with `passes` again and again, until `span` is over. Returns the nanoseconds of one pass, by the clock of the server.
    pub fn loop_for(&self, name: &str, passes: i32, span: Duration) -> f64 {
        let backend = self.number("SELECT pg_backend_pid()::bigint") as u32;
        let _alone = OneCore::hold(&[backend]).expect("a core can be chosen");
        let mut session = self.session();
        let select = session.prepare(&format!("SELECT {name}($1)")).expect("the loop exists");
        let (mut turns, mut nanoseconds) = (0, 0.0);
        let started = Instant::now();
        while turns == 0 || started.elapsed() < span {
            nanoseconds += session.query_one(&select, &[&passes]).expect("the loop ends").get::<_, f64>(0);
            turns += 1;
        }
        nanoseconds / f64::from(turns)
    }

    /// Runs one pass of a loop in the session. The server may use all cores. Returns the nanoseconds.
    pub fn loop_once(&self, name: &str) -> f64 {
        self.session().query_one(&format!("SELECT {name}(1)"), &[]).expect("the loop ends").get(0)
    }

    /// Opens a new session, and sends it a statement in the simple protocol. Returns the nanoseconds of the statement.
    pub fn in_new_session(&self, statement: &str) -> f64 {
        let mut session = self.cluster.connect("postgres");
        let started = Instant::now();
        session.simple_query(statement).unwrap_or_else(|error| panic!("{error:?}: {statement}"));
        started.elapsed().as_secs_f64() * 1e9
    }

    /// Runs `measured`, and panics unless the space has had no miss meanwhile, and at least one hit: a fast error or a fast miss
    /// must not count as a fast hit.
    pub fn only_hits<R>(&self, space: &str, measured: impl FnOnce() -> R) -> R {
        let [hits, misses] = self.reads(space);
        let result = measured();
        let [hits_after, misses_after] = self.reads(space);
        assert!(hits_after > hits && misses_after == misses, "only hits are measured in {space}");
        result
    }
}

/// Returns a call of `cache_query` for a query with these columns (names and types), to stand behind FROM. `options` is empty, or
/// has more arguments of the call, each after a comma: `, stale_ok => '1 min'`. The query must not contain `$query$`.
pub fn cached(query: &str, columns: &str, options: &str) -> String {
    format!("cache_query($query${query}$query${options}) AS result({columns})")
}
