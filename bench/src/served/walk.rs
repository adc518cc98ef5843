//! The part `walk` of the report: measures how long a commit spends on the tables that its transaction has written. It walks over
//! the locks of the transaction, which show these tables, and changes the *fences* of the tables, words in shared memory that make
//! the values which depend on a table invalid (`src/core/fence/mod.rs`). A build with the feature `measure` has the function
//! `rehearse_commit`, which does this work alone (`src/api/measure.rs`); `make bench` builds it.

use super::cluster;
use crate::pace::Pace;
use crate::report::notation::{time, with_interval};
use crate::report::section::{Section, Table};
use crate::rounds::turns;
use crate::statistics::Summary;
use postgres::Client;
use std::time::Duration;

/// The numbers of tables: one, the 16 for which the server (up to version 17) keeps locks in fast-path slots, one more than that,
/// and many.
const TABLES: [i32; 4] = [1, 16, 17, 200];
/// About how long the repetitions of one measurement take.
const SPAN: Duration = Duration::from_millis(20);

/// Returns about how long the part takes. In each round, the two measurements with a number of tables, together with the writes
/// before them and the commit after them, take about 8 times [`SPAN`].
pub fn estimate(pace: &Pace) -> Duration {
    SPAN * 8 * (TABLES.len() * pace.read_rounds) as u32 + Duration::from_secs(2)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (cluster, mut session) = cluster("128MB");
    session
        .batch_execute(
            "CREATE FUNCTION rehearse_commit(integer, boolean) RETURNS double precision LANGUAGE c
             AS '$libdir/pg_cache', 'rehearse_commit_wrapper'",
        )
        .expect("the build has the function");
    let mut observer = cluster.connect("postgres");
    for number in 1..=TABLES[TABLES.len() - 1] {
        // The tables have no index, because an index would hold a lock as well.
        session
            .batch_execute(&format!("CREATE TABLE written_{number} (id int)"))
            .expect("a table can be made");
    }
    let mut times = TABLES.map(|_| Vec::new());
    let mut afresh = TABLES.map(|_| Vec::new());
    let mut locks = TABLES.map(|_| Locks::default());
    for round in 0..pace.read_rounds {
        for place in turns(round, TABLES.len()) {
            write(&mut session, TABLES[place]);
            times[place].push(walk(&mut session, false));
            afresh[place].push(walk(&mut session, true));
            locks[place] = Locks::of(&mut session, &mut observer);
            session.batch_execute("COMMIT").expect("it commits");
        }
    }
    let mut table = Table::new(
        0,
        [
            "relations written",
            "fast-path locks",
            "locks in the lock table",
            "time of a commit",
            "per relation",
            "after other tables were written",
        ],
    );
    let mut figures = Vec::new();
    for (((number, times), afresh), locks) in TABLES.into_iter().zip(&times).zip(&afresh).zip(&locks) {
        assert_eq!(locks.slots + locks.table, i64::from(number), "locks of {number} tables");
        let all = Summary::of(times).expect("there are rounds");
        let other = Summary::of(afresh).expect("there are rounds");
        let shares: Vec<f64> = times.iter().map(|time| time / f64::from(number)).collect();
        let each = Summary::of(&shares).expect("there are rounds");
        table.rows.push(vec![
            number.to_string(),
            locks.slots.to_string(),
            locks.table.to_string(),
            with_interval(all, time),
            with_interval(each, time),
            with_interval(other, time),
        ]);
        figures.push(serde_json::json!({
            "relations": number, "slots": locks.slots, "table": locks.table, "nanoseconds": all, "each": each, "rounds": times, "after_others": other,
        }));
    }
    Section {
        id: "walk".into(),
        title: "Time of a commit for written tables".into(),
        goals: Vec::new(),
        tables: vec![table],
        explained: vec![format!(
            "A transaction has written a row into each of these tables, which have no index. `rehearse_commit` then repeats the work of its commit \
             for the tables: it reads the locks, finds the same relations as the last time, raises the fences, reads the locks again, and \
             withdraws the fences. A commit lowers the fences instead, which takes the same number of steps, and draws one number for all of \
             them, which `rehearse_commit` does not. The last column is the time of a session whose last transaction wrote to other tables, \
             so that it must look up the locked relations. All data is in the processor's caches here. In a commit among other work it is \
             not. An index that a write opens counts as a relation. The figures are medians of {} rounds.",
            pace.read_rounds
        )],
        figures: figures.into(),
    }
}

/// Begins a transaction that writes to this many tables. The caller must end it.
fn write(session: &mut Client, tables: i32) {
    let rows: String =
        (1..=tables).map(|number| format!("INSERT INTO written_{number} VALUES (1);")).collect();
    session.batch_execute(&format!("BEGIN; {rows}")).expect("rows can be written");
}

/// Returns the nanoseconds of one walk, the average of many. A transaction that has written must be open. A session remembers the
/// tables of its last walk. With `afresh`, each walk looks them up as if the last transaction had written to other tables.
fn walk(session: &mut Client, afresh: bool) -> f64 {
    let mut walk = |times: i32| -> f64 {
        session.query_one("SELECT rehearse_commit($1, $2)", &[&times, &afresh]).expect("it walks").get(0)
    };
    let about = walk(100);
    walk((SPAN.as_secs_f64() * 1e9 / about).clamp(100.0, 1e7) as i32)
}

/// Where the write locks of a session are stored: how many in its fast-path slots, and how many in the shared lock table.
#[derive(Clone, Copy, Default)]
struct Locks {
    /// The number of locks in fast-path slots.
    slots: i64,
    /// The number of locks in the shared lock table.
    table: i64,
}

impl Locks {
    /// Counts the locks of `session`, whose transaction must be open. `observer` is another session of the same server.
    fn of(session: &mut Client, observer: &mut Client) -> Self {
        let process: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it tells").get(0);
        let query = "SELECT count(*) FILTER (WHERE fastpath), count(*) FILTER (WHERE NOT fastpath)
                     FROM pg_locks WHERE pid = $1 AND locktype = 'relation' AND mode = 'RowExclusiveLock'";
        let row = observer.query_one(query, &[&process]).expect("the server shows its locks");
        Self { slots: row.get(0), table: row.get(1) }
    }
}
