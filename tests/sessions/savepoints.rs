//! Tests of savepoints: their effect on the changes that a transaction holds back. The cost of many savepoints must
//! grow linearly with their number.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use crate::memory::{cluster, findings};
use crate::transaction::{get, set};
use pg_cache_testbed::{Conf, Database};
use postgres::Client;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Returns a script that opens nested savepoints and sets ten keys in each.
fn nest(levels: usize) -> String {
    (0..levels)
        .map(|level| {
            format!(
                "SAVEPOINT s{level}; SELECT count(cache_set_text('k' || i || ' of {level}', 'v')) FROM generate_series(1, 10) AS i;"
            )
        })
        .collect()
}

/// Returns how long a script takes.
fn time(session: &mut Client, script: &str) -> Duration {
    let began = Instant::now();
    session.batch_execute(script).expect("it is executed");
    began.elapsed()
}

/// Returns whether the shortest times for 250 and for 1000 savepoints are those of linear cost.
fn is_linear([few, many]: [Duration; 2]) -> bool {
    many < few.saturating_mul(9) + Duration::from_millis(20)
}

/// Returns whether the shortest times of this number of rounds need no further round. On a machine with much else to do, single
/// times say little, so there are more rounds before the cost counts as more than linear.
fn is_measured(rounds: u32, best: [Duration; 2]) -> bool {
    rounds >= 40 || rounds >= 3 && is_linear(best)
}

/// A release cannot be cancelled, so its cost must be linear: four times as many savepoints take four times as long. With quadratic
/// cost, they would take 16 times as long. The limit of 9 times lies in between, and 20 ms are tolerated for noise.
#[test]
fn releasing_nested_savepoints_takes_time_in_proportion_to_their_number() {
    let database = Database::create();
    let mut session = database.connect();
    let mut best = [Duration::MAX; 2];
    for round in 0.. {
        if is_measured(round, best) {
            break;
        }
        for (levels, best) in [250, 1_000].into_iter().zip(&mut best) {
            session.batch_execute("BEGIN").expect("it begins");
            session.batch_execute(&nest(levels)).expect("they are opened");
            *best = time(&mut session, "RELEASE s0").min(*best);
            assert_eq!(get(&mut session, "k1 of 17").as_deref(), Some("v"));
            session.batch_execute("ROLLBACK").expect("it ends");
        }
    }
    let [few, many] = best;
    assert!(is_linear(best), "{few:?} for 250, {many:?} for 1000");
}

/// The cost of a rollback must be linear too, within the same limit. The transaction has 4000 other changes, which the rollback
/// must not visit again for each savepoint.
#[test]
fn rolling_back_nested_savepoints_takes_time_in_proportion_to_their_number() {
    let database = Database::create();
    let mut session = database.connect();
    let mut best = [Duration::MAX; 2];
    for round in 0.. {
        if is_measured(round, best) {
            break;
        }
        for (levels, best) in [250, 1_000].into_iter().zip(&mut best) {
            session.batch_execute("BEGIN; SAVEPOINT outer_one").expect("it begins");
            let tags = "SELECT cache_invalidate_tag('t' || i) FROM generate_series(1, 4000) AS i";
            session.batch_execute(tags).expect("tags");
            session.batch_execute(&nest(levels)).expect("they are opened");
            *best = time(&mut session, "ROLLBACK TO outer_one").min(*best);
            assert_eq!(get(&mut session, "k1 of 17"), None);
            session.batch_execute("ROLLBACK").expect("it ends");
        }
    }
    let [few, many] = best;
    assert!(is_linear(best), "{few:?} for 250, {many:?} for 1000");
}

/// A *lease* is the right to compute the value of a key, which `cache_acquire` gives to one session. A rollback of the savepoint in
/// which a lease was acquired releases the lease. The release of that savepoint and the rollback of another one do not.
#[test]
fn rolling_back_a_savepoint_releases_only_its_own_leases() {
    let cluster = cluster(&Conf::preloaded());
    let (mut session, mut witness) = (cluster.connect("postgres"), cluster.connect("postgres"));
    let acquire = |session: &mut Client, key: &str| -> Option<i64> {
        let acquire = "SELECT lease FROM cache_acquire($1, hold => '1 hour')";
        session.query_one(acquire, &[&key]).expect("it is asked for").get(0)
    };
    session.batch_execute("BEGIN").expect("it begins");
    for round in 0..200 {
        session.batch_execute("SAVEPOINT a").expect("a savepoint");
        let lease = acquire(&mut session, &format!("over {round}")).expect("nobody else wants it");
        let release = "SELECT cache_release($1, $2)";
        session.execute(release, &[&format!("over {round}"), &lease]).expect("it is given back");
        if round % 3 == 0 {
            acquire(&mut session, &format!("kept {round}")).expect("nobody else wants it");
        }
        session.batch_execute("SAVEPOINT b").expect("another");
        acquire(&mut session, &format!("gone {round}")).expect("nobody else wants it");
        session.batch_execute("ROLLBACK TO b; RELEASE a").expect("they end");
    }
    assert!(acquire(&mut witness, "gone 10").is_some(), "it was given back");
    assert!(acquire(&mut witness, "kept 9").is_none(), "it is the session's");
    session.batch_execute("ROLLBACK").expect("it ends");
    for round in [0, 9, 198] {
        assert!(acquire(&mut witness, &format!("kept {round}")).is_some(), "round {round}");
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// The state of a key in the model of a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    /// The value after a commit, or `None` if there is none.
    value: Option<String>,
    /// The step in which the value was set in this transaction, or 0.
    set_at: u64,
}

/// A naive model of a transaction: the state of all keys, copied at each savepoint.
#[derive(Clone, Debug, Default)]
struct Model {
    keys: HashMap<usize, Known>,
    /// The step in which each tag was invalidated last in this transaction.
    tags: HashMap<usize, u64>,
    /// The step in which the space was flushed last in this transaction, or 0.
    flushed: u64,
}

/// The number of keys in the model. It is small, so that changes often concern the same key.
const KEYS: usize = 5;
/// The number of tags in the model.
const TAGS: usize = 3;

impl Model {
    /// Returns the tag of a key's values.
    fn tag(key: usize) -> usize {
        key % TAGS
    }

    /// Returns the value that the transaction sees: none if its tag or the space was invalidated after the value was set.
    fn seen(&self, key: usize) -> Option<&str> {
        let known = self.keys.get(&key)?;
        let over = self.tags.get(&Self::tag(key)).copied().unwrap_or(0).max(self.flushed);
        known.value.as_deref().filter(|_| known.set_at > over || over == 0)
    }

    /// Returns the state after the transaction has committed.
    fn committed(&self) -> Self {
        let keys = (0..KEYS).map(|key| (key, Known { value: self.seen(key).map(str::to_owned), set_at: 0 }));
        Self { keys: keys.collect(), ..Self::default() }
    }
}

/// A generator of pseudo-random numbers, with Knuth's constants for 64 bits. A seed gives the same numbers in every run.
struct Chance(u64);

impl Chance {
    /// Returns a number below `most`. The lower bits of the state are not random enough, so this uses the upper ones.
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// Compares random changes, savepoints, releases and rollbacks with the model. `PG_CACHE_TEST_SEED` repeats a run. Without it,
/// the long run draws a seed, and the short run always uses the same one.
#[test]
fn a_transaction_sees_what_a_naive_model_of_it_sees() {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let given = std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
    let seed = given.unwrap_or_else(|| if long { fresh() } else { 2026 });
    println!("PG_CACHE_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    let cluster = cluster(&Conf::preloaded());
    let (mut session, mut witness) = (cluster.connect("postgres"), cluster.connect("postgres"));
    let all = (0..KEYS).map(|key| format!("cache_get_text('k{key}')")).collect::<Vec<_>>().join(", ");
    let all = format!("SELECT {all}");
    let (look, others) =
        (session.prepare(&all).expect("it is prepared"), witness.prepare(&all).expect("it is prepared"));
    let mut outside = Model::default();
    let mut clock = 0;
    for transaction in 0..if long { 2_000 } else { 25 } {
        let mut models = vec![outside.clone()];
        session.batch_execute("BEGIN").expect("it begins");
        // One transaction in ten is long, so that changes in its list (`src/store/transaction/ledger.rs`) are merged. That happens
        // after savepoints were released, from 64 changes on.
        let steps = if chance.below(10) == 0 { 600 } else { chance.below(50) };
        for step in 0..steps {
            clock += 1;
            let key = chance.below(KEYS);
            let depth = models.len();
            let model = models.last_mut().expect("there is one");
            let (statement, is_looked_at) = match chance.below(16) {
                0..=3 => {
                    let value = format!("{clock}");
                    let tag = Model::tag(key);
                    model.keys.insert(key, Known { value: Some(value.clone()), set_at: clock });
                    (format!("SELECT cache_set_text('k{key}', '{value}', tags => '{{t{tag}}}')"), true)
                }
                4 => {
                    model.keys.insert(key, Known { value: None, set_at: clock });
                    (format!("SELECT cache_delete('k{key}')"), true)
                }
                // A longer time to live changes no visible value.
                5 => (format!("SELECT cache_touch('k{key}', '1 hour')"), true),
                6 => {
                    let tag = chance.below(TAGS);
                    model.tags.insert(tag, clock);
                    (format!("SELECT cache_invalidate_tag('t{tag}')"), true)
                }
                7 if chance.below(4) == 0 => {
                    model.flushed = clock;
                    ("SELECT cache_flush('default')".to_owned(), true)
                }
                7..=10 if depth < 30 => {
                    let inner = model.clone();
                    models.push(inner);
                    (format!("SAVEPOINT s{depth}"), false)
                }
                // One savepoint, or several at once.
                11..=13 if depth > 1 => {
                    let to = depth - 1 - chance.below((depth - 1).min(3));
                    let last = models.pop().expect("there is one");
                    models.truncate(to);
                    models[to - 1] = last;
                    (format!("RELEASE s{to}"), true)
                }
                14 | 15 if depth > 1 => {
                    let to = depth - 1 - chance.below((depth - 1).min(3));
                    models.truncate(to);
                    (format!("ROLLBACK TO s{to}; RELEASE s{to}"), true)
                }
                _ => continue,
            };
            session.batch_execute(&statement).expect("it is executed");
            if is_looked_at {
                let row = session.query_one(&look, &[]).expect("reading works");
                let model = models.last().expect("there is one");
                for key in 0..KEYS {
                    let found: Option<&str> = row.get(key);
                    assert_eq!(
                        found,
                        model.seen(key),
                        "key {key} in step {step} of transaction {transaction}, after {statement}"
                    );
                }
            }
        }
        if chance.below(4) > 0 {
            session.batch_execute("COMMIT").expect("it commits");
            outside = models.last().expect("there is one").committed();
        } else {
            session.batch_execute("ROLLBACK").expect("it is rolled back");
        }
        let row = witness.query_one(&others, &[]).expect("reading works");
        for key in 0..KEYS {
            let found: Option<&str> = row.get(key);
            assert_eq!(found, outside.seen(key), "key {key} after transaction {transaction}");
        }
    }
    assert_eq!(findings(&mut witness), Vec::<String>::new());
}

/// Setting a key again must free the value that a released savepoint set, so that there is room for the next one.
#[test]
fn a_loop_of_savepoints_over_large_values_stays_within_max_transaction_size() {
    let cluster = cluster(&Conf::preloaded().set("pg_cache.max_transaction_size", "1MB"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("BEGIN; SELECT cache_set_text('k', 'first')").expect("it begins");
    for round in 0..100 {
        session.batch_execute("SAVEPOINT s").expect("a savepoint");
        assert!(set(&mut session, &format!("k{}", round % 2), &"x".repeat(300_000)), "round {round}");
        session.batch_execute("RELEASE s").expect("it is released");
    }
    session.batch_execute("COMMIT").expect("it commits");
    assert_eq!(get(&mut session, "k1").map(|value| value.len()), Some(300_000));
    assert_eq!(get(&mut session, "k").as_deref(), Some("first"));
}
