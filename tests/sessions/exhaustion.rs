//! Tests of abuse: a role without any grant uses the objects that it owns in all ways. The cached entries of other
//! roles must stay hits, except for results of queries if the abuser changes definitions in their database.
//!
//! The *victim* keeps asking for three kinds of entries, as an application does, and stores again the ones that are gone: plain
//! keys, values with a tag that stands for a table (`cache_watch`), and results of cached queries. The *abuser* owns tables and has
//! no other rights. Each test prints the share of hits before an abuse and during it. A *fence* is a word in shared memory that
//! says when something that values depend on last changed (`docs/invalidation.md`).

use crate::memory::cluster;
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The database of the victim, and another one.
const DATABASES: [&str; 2] = ["victims", "elsewhere"];
/// The number of entries of each kind.
const ENTRIES: usize = 12;
/// The kinds of entries, in the order of `Share::hits`.
const KINDS: [&str; 3] = ["plain", "tagged", "fetched"];

/// A server with a victim in one database, and the abuser's schema in both.
struct Ground {
    cluster: Cluster,
    /// The prefix of the victim's table names; numbers follow it.
    tables: &'static str,
    /// The abuses that cost the victim entries.
    wrong: Vec<String>,
}

/// How many entries of each kind the victim asked for, and how many of them were hits, in the order of [`KINDS`].
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    asked: u32,
    hits: [u32; 3],
}

impl Share {
    /// Returns the hits of each kind, in percent, rounded down. 0 if the victim asked for nothing.
    fn percent(self) -> [u32; 3] {
        self.hits.map(|hits| hits * 100 / self.asked.max(1))
    }
}

/// The kinds of the victim's entries that must stay hits during an abuse.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    All,
    /// A command that changes the abuser's own permanent tables invalidates the results of queries in its database.
    AllButFetched,
}

impl Ground {
    /// Starts the server, with the first tables of the victim.
    fn new() -> Self {
        // With so many slots, a fence that the abuser changes is hardly ever one of the victim's by chance. No entry expires during
        // a test.
        let conf = Conf::preloaded()
            .set("pg_cache.hot_size", "16MB")
            .set("pg_cache.fence_slots", "4194304")
            .set("pg_cache.default_ttl", "1h");
        let cluster = cluster(&conf.set("max_locks_per_transaction", "256"));
        let mut owner = cluster.connect("postgres");
        owner.batch_execute("CREATE ROLE abuser LOGIN").expect("a role");
        for database in DATABASES {
            owner.batch_execute(&format!("CREATE DATABASE {database}")).expect("a database");
            cluster
                .connect(database)
                .batch_execute("CREATE EXTENSION pg_cache; CREATE SCHEMA abuser AUTHORIZATION abuser")
                .expect("it installs");
        }
        let mut ground = Self { cluster, tables: "early", wrong: Vec::new() };
        ground.create_tables_of_victim("early");
        ground
    }

    /// Creates and watches tables of this name. From now on, the victim's entries depend on them.
    fn create_tables_of_victim(&mut self, name: &'static str) {
        let mut owner = self.cluster.connect(DATABASES[0]);
        for entry in 0..ENTRIES {
            let create =
                format!("CREATE TABLE {name}{entry} AS SELECT 1 AS v; SELECT cache_watch('{name}{entry}')");
            owner.batch_execute(&create).expect("a table");
        }
        self.tables = name;
    }

    /// Opens a session of the abuser. Its search path is the abuser's own schema.
    fn abuser(&self, database: &str) -> Client {
        let mut session = self.cluster.connect(database);
        session
            .batch_execute("SET SESSION AUTHORIZATION abuser; SET search_path = abuser")
            .expect("it is set");
        session
    }

    /// Compares the shares of hits before an abuse and while it goes on. `abuse` runs in a thread of its own, and must repeat its
    /// acts until the given state is over, for instance by [`Abuse::repeat`].
    fn abuse(&mut self, name: &str, leaves: Leaves, abuse: impl FnOnce(&Abuse) + Send) {
        let (mut victim, before) = self.victim();
        let mut during = Share::default();
        let state = Abuse::default();
        std::thread::scope(|scope| {
            let abusing = scope.spawn(|| abuse(&state));
            let began = Instant::now();
            let is_enough = |during: Share| {
                during.asked >= 20 * ENTRIES as u32
                    && state.acts.load(SeqCst) >= ACTS_MIN
                    && began.elapsed() >= time()
            };
            while !abusing.is_finished() && !is_enough(during) {
                ask(&mut victim, self.tables, &mut during);
            }
            state.over.store(true, SeqCst);
        });
        // The end of the abuse may also cost entries.
        ask(&mut victim, self.tables, &mut during);
        self.judge(name, leaves, before, during);
    }

    /// Compares the shares of hits before a single act of abuse and right after it.
    fn abuse_once(&mut self, name: &str, leaves: Leaves, abuse: impl FnOnce()) {
        let (mut victim, before) = self.victim();
        abuse();
        let mut after = Share::default();
        ask(&mut victim, self.tables, &mut after);
        self.judge(name, leaves, before, after);
    }

    /// Opens a session of the victim and stores its entries. Returns the session and the share of hits without an
    /// abuse.
    fn victim(&self) -> (Client, Share) {
        let mut victim = self.cluster.connect(DATABASES[0]);
        ask(&mut victim, self.tables, &mut Share::default());
        let mut before = Share::default();
        (0..5).for_each(|_| ask(&mut victim, self.tables, &mut before));
        (victim, before)
    }

    /// Prints both shares. Records the abuse as wrong if less than 99 % of a kind that it must leave were hits. One percent is
    /// tolerated for work of the server itself. Panics if an entry was missing before the abuse, because the comparison then
    /// proves nothing.
    fn judge(&mut self, name: &str, leaves: Leaves, before: Share, during: Share) {
        let [was, is] = [before, during].map(Share::percent);
        let found =
            format!("{name}: hits of {KINDS:?} before {was:?} %, during {is:?} % of {} each", during.asked);
        println!("exhaustion: {found}");
        assert_eq!(was, [100; 3], "{name}");
        let kinds = if leaves == Leaves::All { 3 } else { 2 };
        if is[..kinds].iter().any(|percent| *percent < 99) {
            self.wrong.push(found);
        }
    }

    /// Panics if an abuse was wrong. Each test must end with this.
    fn assert_spared(self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// Returns the shortest duration of an abuse.
fn time() -> Duration {
    Duration::from_millis(if is_long() { 10_000 } else { 700 })
}

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Asks for each entry once, and stores the missing ones again.
fn ask(victim: &mut Client, tables: &str, share: &mut Share) {
    for entry in 0..ENTRIES {
        share.asked += 1;
        let row = victim
            .query_one(
                &format!(
                    "SELECT cache_exists('plain {entry}'), cache_exists('tagged {entry}'), cache_exists('fetched {entry}')"
                ),
                &[],
            )
            .expect("it asks");
        let stores = [
            format!("SELECT cache_set_text('plain {entry}', 'v')"),
            format!("SELECT cache_set_text('tagged {entry}', 'v', tags => '{{{tables}{entry}}}')"),
            format!("SELECT cache_fetch('fetched {entry}', 'SELECT v FROM {tables}{entry}')"),
        ];
        for (kind, store) in stores.iter().enumerate() {
            if row.get(kind) {
                share.hits[kind] += 1;
            } else {
                victim.batch_execute(store).expect("it is stored");
            }
        }
    }
}

/// The state of an abuse that runs concurrently with the victim.
#[derive(Default)]
struct Abuse {
    /// Set when the abuse is to end.
    over: AtomicBool,
    /// The number of complete acts.
    acts: AtomicU32,
}

/// With fewer acts, an abuse proves nothing.
const ACTS_MIN: u32 = 20;

impl Abuse {
    /// Repeats an act until the abuse is over.
    fn repeat(&self, mut act: impl FnMut()) {
        while !self.over.load(SeqCst) {
            act();
            self.acts.fetch_add(1, SeqCst);
        }
    }

    /// Repeats statements, each in a message of its own.
    fn repeat_all(&self, session: &mut Client, statements: &[&str]) {
        self.repeat(|| {
            for statement in statements {
                session.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            }
        });
    }
}

/// Creates tables of the abuser, 100 in a transaction, because each one takes a lock until its commit.
fn create_tables(session: &mut Client, name: &str, count: usize) {
    let created = format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP
             EXECUTE format('CREATE TABLE {name}_%s (v int)', i);
             IF i % 100 = 0 THEN COMMIT; END IF;
         END LOOP; END $$"
    );
    session.batch_execute(&created).expect("tables");
}

/// The server has 8192 records for relations (`RELATION_FENCES` in `src/pg/shared/layout.rs`): places with fences of their own
/// (`src/core/fence/records.rs`). A relation takes one when a value first depends on it, never because of a write. If writes took
/// records, the abuser's tables would use them all up, and new tables of the victim would share records with them. Tables without a
/// record share 256 fences. An entry depends on such a fence only while a writer may not know of a new record.
#[test]
fn writes_to_thousands_of_own_tables_leave_the_entries_of_others() {
    // If writes took records, at least this number of tables would get none.
    const WITHOUT_RECORD: usize = 3000;
    let mut ground = Ground::new();
    let count = 8192 + WITHOUT_RECORD;
    let mut abuser = ground.abuser(DATABASES[0]);
    create_tables(&mut abuser, "many", count);
    let write = |first: usize, last: usize| {
        format!(
            "DO $$ BEGIN FOR i IN {first}..{last} LOOP
                 EXECUTE format('INSERT INTO many_%s VALUES (1)', i);
                 IF i % 100 = 0 THEN COMMIT; END IF;
             END LOOP; END $$"
        )
    };
    ground.abuse_once("writes to many tables", Leaves::All, || {
        abuser.batch_execute(&write(1, count)).expect("it writes");
    });
    ground.abuse_once("writes to tables without a record", Leaves::All, || {
        abuser.batch_execute(&write(count - WITHOUT_RECORD, count)).expect("it writes");
    });
    ground.create_tables_of_victim("late");
    ground.abuse_once("writes to many tables, when the victim's are new", Leaves::All, || {
        abuser.batch_execute(&write(1, count)).expect("it writes");
    });
    ground.assert_spared();
}

/// A commit drops or empties temporary tables (`ON COMMIT`). These changes must invalidate nothing of other sessions.
#[test]
fn temporary_tables_that_are_emptied_leave_the_entries_of_others() {
    let mut ground = Ground::new();
    for database in DATABASES {
        let mut abuser = ground.abuser(database);
        abuser.batch_execute("CREATE TEMP TABLE first (v int) ON COMMIT DELETE ROWS").expect("a table");
        // The long run creates more tables than a session remembers (`KNOWN_MAX` in `src/pg/relation.rs`).
        let count = if is_long() { 66_000 } else { 300 };
        ground.abuse_once(&format!("temporary tables that come and go in {database}"), Leaves::All, || {
            abuser
                .batch_execute(&format!(
                    "DO $$ BEGIN FOR i IN 1..{count} LOOP
                         CREATE TEMP TABLE gone (v int) ON COMMIT DROP; COMMIT;
                     END LOOP; END $$"
                ))
                .expect("they come and go");
        });
        abuser
            .batch_execute(
                "DO $$ BEGIN FOR i IN 1..300 LOOP
                     EXECUTE format('CREATE TEMP TABLE emptied_%s (v int) ON COMMIT DELETE ROWS', i);
                 END LOOP; END $$",
            )
            .expect("tables");
        let all: String = (1..=300).map(|i| format!("INSERT INTO emptied_{i} VALUES (1);")).collect();
        ground.abuse(&format!("ON COMMIT DELETE ROWS in {database}"), Leaves::All, |abuse| {
            abuse.repeat_all(
                &mut abuser,
                &[&format!("BEGIN; {all} COMMIT"), "SELECT count(*) FROM emptied_1"],
            );
        });
    }
    ground.assert_spared();
}

/// Two sessions prepare and commit under one name, so that each finds the other's transaction in any state. Only the abuser's own
/// tables are written, so the victim's entries must stay hits.
#[test]
fn prepared_transactions_of_one_name_leave_the_entries_of_others() {
    let mut ground = Ground::new();
    for database in DATABASES {
        let mut abusers = [(); 2].map(|()| ground.abuser(database));
        abusers[0].batch_execute("CREATE TABLE prepared (v int)").expect("a table");
        ground.abuse(
            &format!("PREPARE and COMMIT PREPARED of one name in {database}"),
            Leaves::All,
            |abuse| {
                std::thread::scope(|scope| {
                    for abuser in &mut abusers {
                        scope.spawn(move || {
                            abuse.repeat(|| {
                                // The name may be taken or unknown, or the transaction busy, so errors are expected.
                                let prepared =
                                    "BEGIN; INSERT INTO prepared VALUES (1); PREPARE TRANSACTION 'same'";
                                if abuser.batch_execute(prepared).is_err() {
                                    abuser.batch_execute("ROLLBACK").expect("it goes on");
                                }
                                let _ = abuser.batch_execute("COMMIT PREPARED 'same'");
                            });
                        });
                    }
                });
            },
        );
        let _ = abusers[0].batch_execute("ROLLBACK PREPARED 'same'");
    }
    ground.assert_spared();
}

/// The record of a prepared transaction has room for the 140 tables (1024 fences, `src/pg/prepared.rs`), so its commit must
/// invalidate nothing else.
#[test]
fn prepared_transactions_over_many_own_tables_leave_the_entries_of_others() {
    let mut ground = Ground::new();
    for database in DATABASES {
        let mut abuser = ground.abuser(database);
        create_tables(&mut abuser, "many", 140);
        let all: String = (1..=140).map(|i| format!("INSERT INTO many_{i} VALUES (1);")).collect();
        ground.abuse(
            &format!("a prepared transaction over 140 tables in {database}"),
            Leaves::All,
            |abuse| {
                let prepare = format!("BEGIN; {all} PREPARE TRANSACTION 'large'");
                abuse.repeat_all(&mut abuser, &[&prepare, "COMMIT PREPARED 'large'"]);
            },
        );
    }
    ground.assert_spared();
}

/// The inheritance between the abuser's tables changes all the time, while its other session commits to them. That must
/// cost the victim nothing but the results of queries in the database of the change: `ALTER TABLE` changes definitions there.
#[test]
fn new_ancestors_of_own_tables_leave_the_entries_of_others() {
    let mut ground = Ground::new();
    for database in DATABASES {
        let mut abusers = [(); 2].map(|()| ground.abuser(database));
        abusers[0]
            .batch_execute(
                "CREATE TABLE top (v int); CREATE TABLE mid (v int); CREATE TABLE leaf () INHERITS (mid)",
            )
            .expect("a tree");
        let leaves = if database == DATABASES[0] { Leaves::AllButFetched } else { Leaves::All };
        ground.abuse(&format!("INHERIT and NO INHERIT above commits in {database}"), leaves, |abuse| {
            std::thread::scope(|scope| {
                let [grower, writer] = &mut abusers;
                scope.spawn(move || {
                    abuse.repeat_all(
                        grower,
                        &["ALTER TABLE mid INHERIT top", "ALTER TABLE mid NO INHERIT top"],
                    );
                });
                scope.spawn(move || {
                    abuse.repeat_all(
                        writer,
                        &["INSERT INTO leaf VALUES (1)", "UPDATE mid SET v = 2 WHERE v < 0"],
                    )
                });
            });
        });
        let [grower, writer] = &mut abusers;
        ground.abuse(&format!("INHERIT above a prepared transaction in {database}"), leaves, |abuse| {
            abuse.repeat(|| {
                writer
                    .batch_execute("BEGIN; INSERT INTO leaf VALUES (1); PREPARE TRANSACTION 'below'")
                    .expect("it is prepared");
                grower.batch_execute("ALTER TABLE mid INHERIT top").expect("it grows");
                writer.batch_execute("COMMIT PREPARED 'below'").expect("it commits");
                grower.batch_execute("ALTER TABLE mid NO INHERIT top").expect("it is no part any more");
            });
        });
    }
    ground.assert_spared();
}

/// Settings and the password of a role do not affect results of queries, so changes of them must cost the victim nothing.
#[test]
fn settings_and_passwords_of_an_own_role_leave_the_entries_of_others() {
    let mut ground = Ground::new();
    for database in DATABASES {
        let mut abuser = ground.abuser(database);
        for (name, statements) in [
            (
                "ALTER ROLE ... SET",
                &["ALTER ROLE abuser SET work_mem = '5MB'", "ALTER ROLE abuser RESET ALL"][..],
            ),
            (
                "ALTER ROLE ... IN DATABASE ... SET",
                &["ALTER ROLE abuser IN DATABASE victims SET work_mem = '5MB'"],
            ),
            (
                "ALTER ROLE ... PASSWORD",
                &["ALTER ROLE abuser PASSWORD 'one'", "ALTER ROLE abuser PASSWORD NULL"],
            ),
        ] {
            ground.abuse(&format!("{name} in {database}"), Leaves::All, |abuse| {
                abuse.repeat_all(&mut abuser, statements);
            });
        }
    }
    ground.assert_spared();
}

/// Temporary tables affect only their own session, so no command on them may cost the victim an entry.
#[test]
fn commands_on_temporary_tables_leave_the_entries_of_others() {
    let mut ground = Ground::new();
    for database in DATABASES {
        let mut abuser = ground.abuser(database);
        abuser.batch_execute("CREATE TEMP TABLE own (v int)").expect("a table");
        for (name, statements) in [
            (
                "INHERITS",
                &[
                    "CREATE TEMP TABLE child () INHERITS (own)",
                    "ALTER TABLE child NO INHERIT own",
                    "ALTER TABLE child INHERIT own",
                    "DROP TABLE child",
                ][..],
            ),
            (
                "partitions",
                &[
                    "CREATE TEMP TABLE whole (v int) PARTITION BY LIST (v)",
                    "CREATE TEMP TABLE part PARTITION OF whole FOR VALUES IN (1)",
                    "ALTER TABLE whole DETACH PARTITION part",
                    "ALTER TABLE whole ATTACH PARTITION part DEFAULT",
                    "DROP TABLE whole",
                ],
            ),
            (
                "policies",
                &[
                    "CREATE POLICY p ON pg_temp.own USING (true)",
                    "ALTER TABLE own ENABLE ROW LEVEL SECURITY",
                    "ALTER POLICY p ON pg_temp.own USING (false)",
                    "ALTER TABLE own DISABLE ROW LEVEL SECURITY",
                    "DROP POLICY p ON pg_temp.own",
                ],
            ),
            ("GRANT", &["GRANT SELECT ON pg_temp.own TO PUBLIC", "REVOKE SELECT ON pg_temp.own FROM PUBLIC"]),
            (
                "ALTER TABLE",
                &[
                    "ALTER TABLE own ADD w int DEFAULT 1",
                    "ALTER TABLE own RENAME w TO u",
                    "ALTER TABLE own DROP u",
                ],
            ),
        ] {
            ground.abuse(&format!("{name} of temporary tables in {database}"), Leaves::All, |abuse| {
                abuse.repeat_all(&mut abuser, statements);
            });
        }
    }
    ground.assert_spared();
}
