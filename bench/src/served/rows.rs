//! The part `rows` of the report: measures what exact invalidation costs. First, the trigger on a *watched* table: after
//! `cache_watch` with a tag such as `order:{id}`, the trigger invalidates the tags of the changed rows, or of all rows if too many
//! have changed. Second, *patterns*: after `cache_invalidate_pattern`, a hit compares its key with the patterns that are newer than
//! the entry. A *contender* is one of the alternatives that a measurement compares.

use super::cluster;
use crate::hot_tier::duel::{Contender, Duel, compare, table};
use crate::pace::Pace;
use crate::report::section::Section;
use postgres::{Client, Statement};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The number of rows of the tables whose rows are changed one by one.
const FEW: i32 = 1_000;
/// The number of rows of the tables that one statement changes as a whole.
const MANY: i32 = 100_000;
/// Single updates of one turn.
const UPDATES: i32 = 400;
/// The number of keys of each space. A space is a named cache with keys of its own.
const KEYS: i32 = 10_000;
/// The number of patterns that the space with patterns has at the same time.
const PATTERNS: i32 = 1_000;
/// Patterns of one transaction: a transaction with more of them invalidates its whole space.
const AT_ONCE: usize = 100;
/// The time of a change of watched rows, divided by that of a change with an empty trigger, may be at most this.
const TRIGGER_MAX: f64 = 1.5;
/// The time of a change of watched rows, divided by that of a change without a trigger, may be at most this.
const PLAIN_MAX: f64 = 1.15;
/// The time of a hit in a space with patterns, divided by that in a space without, may be at most this.
const PATTERNS_MAX: f64 = 2.0;

/// The names of the contenders.
const REPORTED: &str = "watched rows";
const EMPTY: &str = "an empty statement trigger";
const PLAIN: &str = "no trigger";

/// Returns about how long the part takes: a round of all contenders takes about 900 ms.
pub fn estimate(pace: &Pace) -> Duration {
    Duration::from_millis(900) * pace.write_rounds as u32
}

/// Creates the tables of a size: one is watched by its rows, one has an empty trigger, and one has none. `tables` is the clause of
/// the empty trigger that declares transition tables.
fn tables(session: &mut Client, name: &str, rows: i32, tables: &str) {
    let setup = ["reported", "empty", "plain"]
        .map(|kind| {
            format!(
                "CREATE TABLE {name}_{kind} (id int PRIMARY KEY, v int) WITH (fillfactor = 50, autovacuum_enabled = off);
                 INSERT INTO {name}_{kind} SELECT i, 0 FROM generate_series(1, {rows}) AS i; VACUUM ANALYZE {name}_{kind};"
            )
        })
        .concat();
    // VACUUM must not run in the block of other statements.
    setup.split_terminator(';').for_each(|statement| session.batch_execute(statement).expect("a table"));
    session
        .batch_execute(&format!(
            "SELECT cache_watch('{name}_reported', ARRAY['{name}:{{id}}']);
             SELECT cache_set_text('{name}', 'v', '1 day', ARRAY['{name}:0']);
             CREATE TRIGGER empty AFTER UPDATE ON {name}_empty {tables} FOR EACH STATEMENT EXECUTE FUNCTION nothing()"
        ))
        .expect("triggers");
}

/// Returns the contender that changes single rows of a table, each in a transaction of its own.
fn singles<'a>(session: &'a RefCell<Client>, name: &str, kind: &str) -> Contender<'a> {
    let update = session
        .borrow_mut()
        .prepare(&format!("UPDATE few_{kind} SET v = v + 1 WHERE id = $1"))
        .expect("it can be prepared");
    let table = format!("few_{kind}");
    let mut next = 0;
    Contender::new(name, move || {
        let mut session = session.borrow_mut();
        let began = Instant::now();
        for _ in 0..UPDATES {
            next = next % FEW + 1;
            session.execute(&update, &[&next]).expect("an update");
        }
        let time = began.elapsed().as_secs_f64() * 1e9 / f64::from(UPDATES);
        session.batch_execute(&format!("VACUUM {table}")).expect("a vacuum");
        time
    })
}

/// Returns the contender that changes all rows of a table with one statement.
fn all_at_once<'a>(session: &'a RefCell<Client>, name: &str, kind: &str) -> Contender<'a> {
    let table = format!("many_{kind}");
    Contender::new(name, move || {
        let mut session = session.borrow_mut();
        let began = Instant::now();
        session.batch_execute(&format!("UPDATE {table} SET v = v + 1")).expect("an update");
        let time = began.elapsed().as_secs_f64() * 1e9;
        session.batch_execute(&format!("VACUUM {table}")).expect("a vacuum");
        time
    })
}

/// Creates two spaces with the same keys: `patterns`, which gets patterns later ([`renew_patterns`]), and `calm`. Returns the
/// statement that gets keys of a space.
fn spaces(session: &mut Client) -> Statement {
    for space in ["calm", "patterns"] {
        session
            .batch_execute(&format!(
                "SELECT cache_create_space('{space}');
                 SELECT count(cache_set_text('key:' || i, 'v', '1 day', space => '{space}')) FROM generate_series(1, {KEYS}) AS i"
            ))
            .expect("a space with keys");
    }
    let get = "SELECT count(cache_get_text('key:' || i, $1)) FROM generate_series(1, $2) AS i";
    session.prepare(get).expect("it can be prepared")
}

/// Makes patterns that match no key and are newer than all entries of their space.
fn renew_patterns(session: &mut Client) {
    for from in (0..PATTERNS).step_by(AT_ONCE) {
        let to = from + AT_ONCE as i32 - 1;
        session
            .execute(
                "SELECT cache_invalidate_pattern('none:*:' || i, 'patterns') FROM generate_series($1::int, $2) AS i",
                &[&from, &to],
            )
            .expect("patterns");
    }
}

/// Returns the contender that gets all keys of a space. `before` runs before each turn.
fn gets<'a>(
    session: &'a RefCell<Client>,
    get: &'a Statement,
    name: &str,
    space: &'static str,
    before: fn(&mut Client),
) -> Contender<'a> {
    Contender::new(name, move || {
        let mut session = session.borrow_mut();
        before(&mut session);
        let began = Instant::now();
        let found: i64 = session.query_one(get, &[&space, &KEYS]).expect("gets").get(0);
        let time = began.elapsed().as_secs_f64() * 1e9 / f64::from(KEYS);
        assert_eq!(found, i64::from(KEYS), "every get is a hit");
        time
    })
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (_cluster, mut session) = cluster("256MB");
    session
        .batch_execute(
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        )
        .expect("a function");
    tables(&mut session, "few", FEW, "");
    tables(&mut session, "many", MANY, "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows");
    let get = spaces(&mut session);
    let session = RefCell::new(session);
    let rounds = pace.write_rounds;
    let one = "UPDATE of one row";
    let by_trigger =
        compare(one, rounds, singles(&session, REPORTED, "reported"), singles(&session, EMPTY, "empty"));
    let by_nothing =
        compare(one, rounds, singles(&session, REPORTED, "reported"), singles(&session, PLAIN, "plain"));
    let all = format!("UPDATE of {MANY} rows");
    let in_bulk = compare(
        &all,
        rounds,
        all_at_once(&session, REPORTED, "reported"),
        all_at_once(&session, EMPTY, "empty"),
    );
    let few_patterns = |title, before| {
        let own = gets(&session, &get, "1000 patterns", "patterns", before);
        compare(title, rounds, own, gets(&session, &get, "no pattern", "calm", |_| ()))
    };
    renew_patterns(&mut session.borrow_mut());
    let known = few_patterns("hit, patterns compared before", |_| ());
    let new = few_patterns("hit, all patterns new", renew_patterns);
    let duels: [Duel; 5] = [by_trigger, by_nothing, in_bulk, known, new];
    // The position of a duel, the wording of its goal, and the most that its ratio may be. The last duel has no goal.
    let goals = [
        (0, "an UPDATE of one watched row beside an empty trigger", TRIGGER_MAX),
        (1, "an UPDATE of one watched row beside a table without triggers", PLAIN_MAX),
        (2, "an UPDATE of 100 000 watched rows beside an empty trigger", TRIGGER_MAX),
        (3, "a hit in a space with 1000 patterns", PATTERNS_MAX),
    ];
    Section {
        id: "rows".into(),
        title: "Rows and patterns".into(),
        goals: goals.iter().map(|(duel, wanted, at_most)| duels[*duel].goal(wanted, *at_most)).collect(),
        tables: vec![table(&duels)],
        explained: explained(rounds),
        figures: serde_json::json!({ "duels": duels }),
    }
}

fn explained(rounds: usize) -> Vec<String> {
    vec![
        format!(
            "One session over a socket, synchronous_commit off. The watched tables have one tag with one placeholder, and one entry depends on \
             each. A single UPDATE is prepared, finds its row by primary key, and has a transaction of its own; the statement trigger is \
             an empty function in PL/pgSQL. The trigger of the large table declares transition tables for the old and the new rows. \
             After {MANY} rows, a transaction has too many tags, so it invalidates the entries of all rows. Tables are vacuumed after \
             each turn. The figures are medians of {rounds} rounds, in which the contenders take turns."
        ),
        format!(
            "Patterns: `cache_get_text` of {KEYS} keys in one statement. None of the patterns matches a key. After a new pattern, the first hit of \
             each entry compares its key with all new patterns, which is the last row; later hits do not."
        ),
    ]
}
