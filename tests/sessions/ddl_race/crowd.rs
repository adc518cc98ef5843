//! The DDL race by chance: a session computes a result after a change of a name or a rule has become visible, and before the server
//! has sent its catalog invalidation messages. No later call may be given that result (`mod.rs`). Here, transactions commit without
//! a gate as in `stand.rs`, while sessions fetch all the time. A fetch that begins after a commit has returned must not return the
//! result from before it. Some commits take long, because the transaction has also set many keys or changed many names.

use super::changes::{become_member, prepare};
use crate::memory::cluster;
use pg_cache_testbed::{Cluster, Conf, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The number of sessions that fetch. The first one uses `cache_fetch`, and the others `cache_query`.
const FILLERS: usize = 3;
/// Each scenario has at least this number of rounds, even if it is slow.
const ROUNDS_MIN: u64 = 4;

/// A change that is made again and again, and the result of a query after each round.
struct Scenario {
    /// The name of the scenario.
    name: &'static str,
    /// The statements that create its objects.
    setup: &'static str,
    /// Returns one number. It must not contain a single quote, because it stands in a string literal. A query that always fails is
    /// noticed only when the wait for the fillers times out.
    query: &'static str,
    /// Returns the statements of a round, which run in one transaction. Rounds count from 1.
    change: fn(u64) -> String,
    /// Returns the result of the query after a round; after round 0, the result before any change.
    result: fn(u64) -> i64,
    /// Further changes of the transaction, which make its commit slow.
    besides: Besides,
}

/// Further changes that a transaction makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Besides {
    Nothing,
    /// Sets 5000 keys, which the commit publishes after the transaction has become visible.
    Sets,
    /// Replaces 300 functions, so that the commit sends many catalog invalidation messages.
    Functions,
}

/// Returns the statement that makes the function `f` return the number of the round.
fn replace(round: u64) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION b.f() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN {round}; END'"
    )
}

fn is_even(round: u64) -> bool {
    round.is_multiple_of(2)
}

/// The function before the first round.
const FUNCTION: &str =
    "CREATE FUNCTION b.f() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 0; END'";
/// The scenarios, which run one after the other. Those whose commit takes long leave more time for a stale fill.
const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "REVOKE and GRANT of a role under a policy",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v; ALTER TABLE b.t ENABLE ROW LEVEL SECURITY;
                CREATE POLICY p ON b.t TO race_group USING (true)",
        query: "SELECT count(*) FROM t",
        change: |round| {
            let how = if is_even(round) { "GRANT race_group TO" } else { "REVOKE race_group FROM" };
            format!("{how} race_member")
        },
        result: |round| i64::from(is_even(round)),
        besides: Besides::Nothing,
    },
    Scenario {
        name: "CREATE OR REPLACE FUNCTION",
        setup: FUNCTION,
        query: "SELECT f()",
        change: replace,
        result: |round| round as i64,
        besides: Besides::Nothing,
    },
    Scenario {
        name: "CREATE OR REPLACE FUNCTION and many keys",
        setup: FUNCTION,
        query: "SELECT f()",
        change: replace,
        result: |round| round as i64,
        besides: Besides::Sets,
    },
    Scenario {
        name: "ATTACH and DETACH PARTITION and many keys",
        setup: "CREATE TABLE b.t (v int) PARTITION BY LIST (v); CREATE TABLE b.one PARTITION OF b.t FOR VALUES IN (1);
                CREATE TABLE b.two (v int); INSERT INTO b.t VALUES (1); INSERT INTO b.two VALUES (2)",
        query: "SELECT count(*) FROM t",
        change: |round| {
            let how =
                if is_even(round) { "DETACH PARTITION b.two" } else { "ATTACH PARTITION b.two FOR VALUES IN (2)" };
            format!("ALTER TABLE b.t {how}")
        },
        result: |round| if is_even(round) { 1 } else { 2 },
        besides: Besides::Sets,
    },
    Scenario {
        name: "a table that shadows another and many keys",
        setup: "CREATE TABLE b.t AS SELECT 1 AS v",
        query: "SELECT v FROM t",
        change: |round| if is_even(round) { "DROP TABLE a.t" } else { "CREATE TABLE a.t AS SELECT 2 AS v" }.to_owned(),
        result: |round| if is_even(round) { 1 } else { 2 },
        besides: Besides::Sets,
    },
    Scenario {
        name: "swap of schemas by rename and many functions",
        setup: "CREATE TABLE a.t AS SELECT 1 AS v; CREATE TABLE b.t AS SELECT 2 AS v",
        query: "SELECT v FROM t",
        change: |_| {
            "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b".to_owned()
        },
        result: |round| if is_even(round) { 1 } else { 2 },
        besides: Besides::Functions,
    },
];

impl Besides {
    /// Returns the statements of these changes. `SELECT` without columns does nothing.
    fn statements(self) -> &'static str {
        match self {
            Self::Nothing => "SELECT",
            Self::Sets => "SELECT count(cache_set_text('slow ' || i, 'v')) FROM generate_series(1, 5000) AS i",
            Self::Functions => {
                "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format(
                     'CREATE OR REPLACE FUNCTION public.besides_%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', i);
                 END LOOP; END $$"
            }
        }
    }
}

/// The state that the sessions of a scenario share.
#[derive(Default)]
struct Crowd {
    /// Twice the number of rounds whose change is complete, and one more while the next change is under way. So it is odd during a
    /// change, and only then is `result` written.
    moment: AtomicU64,
    /// The result of the query after the last complete change.
    result: AtomicI64,
    /// Set when the fillers are to end.
    over: AtomicBool,
    /// The latest moment of which each filler has seen the result.
    judged: [AtomicU64; FILLERS],
    /// The number of calls that returned.
    fetches: AtomicU64,
    /// How many of these calls were no hits.
    fills: AtomicU64,
    /// How many of the results were wrong.
    stale: AtomicU64,
}

impl Crowd {
    /// Fetches in a loop, until the crowd is over. A result counts only if no change was under way meanwhile. `slot` is this
    /// filler's place in `judged`.
    fn fill(&self, slot: usize, session: &mut Client, query: &str) {
        let call = match slot {
            0 => format!("SELECT cache_fetch('k', '{query}', space => 'own')::bigint, cache_status()"),
            _ => format!(
                "SELECT v, cache_status() FROM cache_query('SELECT ({query})::bigint AS v', space => 'own') AS cached (v bigint)"
            ),
        };
        while !self.over.load(SeqCst) {
            let moment = self.moment.load(SeqCst);
            let result = self.result.load(SeqCst);
            // A name may refer to no object for a moment. An error is not a result.
            let Ok(row) = session.query_one(&call, &[]) else { continue };
            self.fetches.fetch_add(1, SeqCst);
            self.fills.fetch_add(u64::from(row.get::<_, Option<&str>>(1) != Some("hot")), SeqCst);
            if is_even(moment) && self.moment.load(SeqCst) == moment {
                self.stale.fetch_add(u64::from(row.get::<_, i64>(0) != result), SeqCst);
                self.judged[slot].store(moment, SeqCst);
            }
        }
    }

    /// Makes the changes of a scenario for `time`. Each round lasts until each filler has seen its result. Returns the
    /// number of rounds.
    fn change(&self, session: &mut Client, scenario: &Scenario, time: Duration) -> u64 {
        let began = Instant::now();
        let mut round = 0;
        while round < ROUNDS_MIN || began.elapsed() < time {
            round += 1;
            self.moment.fetch_add(1, SeqCst);
            let transaction =
                format!("BEGIN; {}; {}; COMMIT", (scenario.change)(round), scenario.besides.statements());
            session.batch_execute(&transaction).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
            self.result.store((scenario.result)(round), SeqCst);
            let moment = self.moment.fetch_add(1, SeqCst) + 1;
            let is_judged = || self.judged.iter().all(|judged| judged.load(SeqCst) >= moment);
            wait_until("the fillers", is_judged);
        }
        round
    }
}

/// Runs a scenario and returns a description of it if a fetch has returned an old result. Panics if fewer results were computed
/// than rounds were made: nearly all fetches were hits then, and prove nothing.
fn run(cluster: &Cluster, scenario: &Scenario, time: Duration) -> Option<String> {
    let mut writer = cluster.connect("postgres");
    super::changes::set_up(&mut writer, scenario.name, scenario.setup);
    let crowd = Crowd { result: AtomicI64::new((scenario.result)(0)), ..Crowd::default() };
    let rounds = std::thread::scope(|scope| {
        for slot in 0..FILLERS {
            let (crowd, mut session) = (&crowd, cluster.connect("postgres"));
            become_member(&mut session);
            scope.spawn(move || crowd.fill(slot, &mut session, scenario.query));
        }
        /// Ends the fillers also if the writer panics.
        struct Over<'c>(&'c AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let _over = Over(&crowd.over);
        crowd.change(&mut writer, scenario, time)
    });
    let [fetches, fills, stale] =
        [&crowd.fetches, &crowd.fills, &crowd.stale].map(|count| count.load(SeqCst));
    let found = format!(
        "{}: rounds = {rounds}, fetches = {fetches}, fills = {fills}, stale = {stale}",
        scenario.name
    );
    println!("DDL race: {found}");
    assert!(fills >= rounds, "{found}: too few to prove anything");
    (stale > 0).then_some(found)
}

/// Each scenario runs for 1.5 s, and for 30 s in the long run.
#[test]
fn no_result_outlives_a_ddl_commit_however_long_the_commit_takes() {
    let is_long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let time = Duration::from_millis(if is_long { 30_000 } else { 1_500 });
    let cluster = cluster(&Conf::preloaded());
    prepare(&mut cluster.connect("postgres"));
    let found: Vec<_> = SCENARIOS.iter().filter_map(|scenario| run(&cluster, scenario, time)).collect();
    assert!(found.is_empty(), "{found:#?}");
}
