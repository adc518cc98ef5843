//! The servers of the parts whose ids begin with `outward-`, which measure how changes leave the database, and what that costs.

use super::contest::Turn;
use crate::drive::wire::{Pool, Task, Until};
use crate::test_servers;
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How long [`Side::wait_until`] waits.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server with pg_cache, a superuser's session with it, and the sessions of the measurements.
pub struct Side {
    /// The server.
    pub cluster: Cluster,
    /// The session of a superuser.
    session: RefCell<Client>,
    /// The sessions of the measurements.
    pool: RefCell<Pool>,
}

/// Returns the settings of a server whose commits do not wait for a disk, so that the time of the disk does not hide the cost that
/// is measured.
pub fn quiet() -> Conf {
    test_servers::conf()
        .set("synchronous_commit", "off")
        .set("fsync", "off")
        .set("full_page_writes", "off")
        .set("autovacuum", "off")
        .set("checkpoint_timeout", "1d")
        .set("max_wal_size", "8GB")
}

impl Side {
    /// Starts a server with pg_cache installed. Every role may read `default`, the space (named cache) of calls that name none, so
    /// that notifications contain the names of keys and tags. Otherwise they would contain only numbers, which is less work for the
    /// worker.
    pub fn start(conf: &Conf) -> Self {
        let cluster = Cluster::start(conf);
        let session = RefCell::new(cluster.connect("postgres"));
        let side = Self { cluster, session, pool: RefCell::default() };
        side.execute("CREATE EXTENSION pg_cache; SELECT cache_grant('default', 'public', 'read')");
        side
    }

    /// Runs statements, and panics if one fails.
    pub fn execute(&self, statements: &str) {
        let done = self.session.borrow_mut().batch_execute(statements);
        done.unwrap_or_else(|error| panic!("{error:?}: {statements}"));
    }

    /// Returns the single bigint of a query, which must not be null or negative. Panics if the query fails.
    pub fn number(&self, query: &str) -> u64 {
        let row = self.session.borrow_mut().query_one(query, &[]);
        let number: i64 = row.unwrap_or_else(|error| panic!("{error:?}: {query}")).get(0);
        number.cast_unsigned()
    }

    /// Makes the clients of a task send its statement until `until`.
    pub fn run(&self, task: Task<'_>, until: Until) -> Turn {
        let mut pool = self.pool.borrow_mut();
        let processes = pool.processes(&self.cluster, task.load.clients).expect("the server takes sessions");
        let before = processor_time(&processes);
        let run = pool.run(&self.cluster, task, until);
        let run = run.unwrap_or_else(|error| panic!("{error:#}: {}", task.statement));
        let work = processor_time(&processes).zip(before).map(|(after, before)| after.saturating_sub(before));
        let of_work =
            work.filter(|work| !work.is_zero()).map(|work| run.operations as f64 / work.as_secs_f64());
        Turn { per_second: run.per_second, of_work }
    }

    /// Waits until the condition holds, with a pause between two looks. Panics with `what` and the server's log after
    /// [`PATIENCE`].
    pub fn wait_until(&self, what: &str, pause: Duration, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}:\n{}", self.cluster.log());
            std::thread::sleep(pause);
        }
    }
}

/// Returns the processor time of some processes so far: the first number of this file, in nanoseconds. `None` if the kernel does
/// not tell.
fn processor_time(processes: &[u32]) -> Option<Duration> {
    let of_one = |process: &u32| {
        let statistics = std::fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
        Some(Duration::from_nanos(statistics.split_whitespace().next()?.parse().ok()?))
    };
    processes.iter().map(of_one).sum()
}
