//! The staleness hunter: many writers, by every path at random, and many readers who know what they must at least and may at most
//! see, in two databases, while sessions are cancelled and terminated.
//!
//! A table holds one *version*, a number that grows with each commit. Whatever is rolled back writes a negative number.
//! - *At least*: the largest version that anybody has seen, or that a writer was told is committed, before the statement began.
//! - *At most*: the largest that a writer has sent a commit for when the statement has ended.
//!
//! Writers go by the number of reads, not by time, so that the share of hits is about the same on every machine. Should a run fail, its
//! seed repeats what was tried, though not when.

use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, wait_until};
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

const DATABASES: [&str; 2] = ["hunt_one", "hunt_two"];
/// Of each kind, in each database.
const TABLES: usize = 8;
const WRITERS: usize = 2;
const READERS: usize = 3;
/// Reads for each write.
const PACE: u64 = 15;

/// What a table is to those who write to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Written to in ways that those who look at an older moment see at once, as PostgreSQL's documentation says: no REPEATABLE READ.
    Emptied,
    /// Written to directly, and through the table it is a part of.
    Part,
    /// Written to through a view, a trigger and a foreign key that cascades.
    Indirect,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Emptied, Kind::Part, Kind::Indirect];

#[derive(Debug)]
struct Table {
    database: usize,
    name: String,
    kind: Kind,
    at_least: AtomicI64,
    at_most: AtomicI64,
    /// Who writes, and how many versions there were.
    writer: Mutex<i64>,
}

impl Table {
    fn create(database: usize, kind: Kind, number: usize, session: &mut Client) -> Self {
        let name = format!("{kind:?}_{number}").to_lowercase();
        let columns = "(id int PRIMARY KEY, v bigint NOT NULL)";
        let shape = match kind {
            Kind::Plain | Kind::Emptied => format!("CREATE TABLE {name} {columns}"),
            Kind::Part => format!(
                "CREATE TABLE {name} {columns} PARTITION BY RANGE (id);
                 CREATE TABLE {name}_low PARTITION OF {name} FOR VALUES FROM (0) TO (2);
                 CREATE TABLE {name}_high PARTITION OF {name} FOR VALUES FROM (2) TO (9)"
            ),
            Kind::Indirect => format!(
                "CREATE TABLE {name}_of {columns};
                 CREATE TABLE {name} (id int PRIMARY KEY, v bigint NOT NULL);
                 CREATE FUNCTION {name}_note() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN UPDATE {name} SET v = NEW.v WHERE id = NEW.id; RETURN NULL; END';
                 CREATE TRIGGER note AFTER UPDATE ON {name}_of FOR EACH ROW EXECUTE FUNCTION {name}_note();
                 CREATE VIEW {name}_view AS SELECT * FROM {name};
                 INSERT INTO {name}_of VALUES (1, 0)"
            ),
        };
        session
            .batch_execute(&format!(
                "{shape}; INSERT INTO {name} VALUES (1, 0), (2, 0);
                 CREATE FUNCTION {name}_read() RETURNS bigint STABLE LANGUAGE plpgsql AS
                    'BEGIN RETURN (SELECT v FROM {name} WHERE id = 1); END';
                 SELECT cache_watch('{name}')"
            ))
            .expect("there is room for a table");
        let [at_least, at_most] = [(); 2].map(|()| AtomicI64::new(0));
        Self { database, name, kind, at_least, at_most, writer: Mutex::new(0) }
    }

    /// Where a write goes to: the table, or its part.
    fn target(&self, dice: &mut Dice) -> String {
        match (self.kind, dice.roll(2)) {
            (Kind::Part, 0) => format!("{}_low", self.name),
            (Kind::Indirect, 0) => format!("{}_view", self.name),
            _ => self.name.clone(),
        }
    }

    fn read(&self) -> String {
        format!("SELECT v FROM {} WHERE id = 1", self.name)
    }
}

/// Numbers at random that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % sides as u64) as usize
    }
}

/// What all threads of a hunt share.
struct Hunt<'c> {
    cluster: &'c Cluster,
    tables: Vec<Table>,
    /// The table that was written to last: there it is most likely to find something.
    focus: AtomicUsize,
    /// Processes of the sessions.
    sessions: [AtomicI32; WRITERS + READERS],
    over: AtomicBool,
    reads: AtomicU64,
    hits: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
    stale: AtomicU64,
    future: AtomicU64,
    /// Unexpected, in words; the first ones.
    findings: Mutex<Vec<String>>,
}

/// A session that comes back when it was ended.
struct Session<'h> {
    hunt: &'h Hunt<'h>,
    slot: usize,
    database: usize,
    client: Option<Client>,
}

/// Whether an error is one that the chaos brings about.
fn is_expected(error: &postgres::Error) -> bool {
    error.is_closed()
        || error.code().is_none()
        || [SqlState::QUERY_CANCELED, SqlState::ADMIN_SHUTDOWN].iter().any(|code| error.code() == Some(code))
}

impl<'h> Session<'h> {
    fn new(hunt: &'h Hunt<'h>, slot: usize, database: usize) -> Self {
        Self { hunt, slot, database, client: None }
    }

    fn client(&mut self) -> &mut Client {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.hunt.sessions[self.slot].store(0, SeqCst);
            let mut client = self.hunt.cluster.connect(DATABASES[self.database]);
            let process = client.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
            self.hunt.sessions[self.slot].store(process, SeqCst);
            self.client = Some(client);
        }
        self.client.as_mut().expect("it is there")
    }

    fn go_to(&mut self, database: usize) {
        if self.database != database {
            self.hunt.sessions[self.slot].store(0, SeqCst);
            (self.client, self.database) = (None, database);
        }
    }

    fn run(&mut self, sql: &str) -> Result<(), postgres::Error> {
        self.client().batch_execute(sql)
    }

    /// The columns of the row that a statement returns.
    fn row(&mut self, sql: &str) -> Result<Vec<Option<String>>, postgres::Error> {
        let messages = self.client().simple_query(sql)?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(row.unwrap_or_else(|| vec![None]))
    }

    /// After an error: no transaction goes on.
    fn recover(&mut self, error: &postgres::Error, what: &str) {
        self.hunt.errors.fetch_add(1, SeqCst);
        if !is_expected(error) {
            self.hunt.find(format!("{what}: {error:?}"));
        }
        while self.run("ROLLBACK").is_err() {}
    }
}

impl Hunt<'_> {
    fn find(&self, finding: String) {
        let mut findings = self.findings.lock().expect("nobody panics with it");
        if findings.len() < 10 {
            findings.push(finding);
        }
    }

    /// Compares what a statement has returned with what was known before it began.
    fn judge(&self, table: &Table, at_least: i64, value: Option<&str>, how: &str) {
        let at_most = table.at_most.load(SeqCst);
        let value = value.and_then(|value| value.parse::<i64>().ok());
        let found = value.unwrap_or(-1);
        if found < 0 || found > at_most {
            self.future.fetch_add(1, SeqCst);
        } else if found < at_least {
            self.stale.fetch_add(1, SeqCst);
        } else {
            table.at_least.fetch_max(found, SeqCst);
            return;
        }
        self.find(format!(
            "{how} of {} in {}: {value:?}, and it must be from {at_least} to {at_most}",
            table.name, DATABASES[table.database]
        ));
    }

    fn count(&self, hit: bool) {
        self.reads.fetch_add(1, SeqCst);
        self.hits.fetch_add(u64::from(hit), SeqCst);
    }

    fn write(&self, slot: usize, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = Session::new(self, slot, slot % DATABASES.len());
        while !self.over.load(SeqCst) {
            if self.reads.load(SeqCst) < self.writes.load(SeqCst) * PACE {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            self.writes.fetch_add(1, SeqCst);
            let number = dice.roll(self.tables.len());
            let table = &self.tables[number];
            let Ok(mut last) = table.writer.try_lock() else { continue };
            session.go_to(table.database);
            self.focus.store(number, SeqCst);
            let gid = format!("hunt_{}_{}", DATABASES[table.database], table.name);
            let path = Path::choose(table, &mut dice);
            *last += 1;
            let told = path.go(&mut session, table, &last, &gid, &mut dice);
            if let Err(error) = told {
                session.recover(&error, &format!("{path:?}"));
            }
            // What has become of it, nobody knows but the table.
            settle(&mut session, table, &gid);
        }
    }

    fn read(&self, slot: usize, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = Session::new(self, slot, slot % DATABASES.len());
        while !self.over.load(SeqCst) {
            if dice.roll(500) == 0 {
                session.go_to(dice.roll(DATABASES.len()));
            }
            let done = match dice.roll(10) {
                0 => self.read_moment(&mut session, &mut dice),
                1..=3 => self.read_leased(&mut session, &mut dice),
                4 => self.read_block(&mut session, &mut dice),
                _ => self.read_fetched(&mut session, &mut dice),
            };
            if let Err(error) = done {
                session.recover(&error, "a read");
            }
        }
    }

    fn choose(&self, database: usize, dice: &mut Dice) -> &Table {
        let focus = &self.tables[self.focus.load(SeqCst)];
        if focus.database == database && dice.roll(4) == 0 {
            return focus;
        }
        loop {
            let table = &self.tables[dice.roll(self.tables.len())];
            if table.database == database {
                return table;
            }
        }
    }

    fn fetch(
        &self,
        session: &mut Session<'_>,
        table: &Table,
        dice: &mut Dice,
    ) -> Result<Option<String>, postgres::Error> {
        let name = &table.name;
        // A function that is not volatile looks at its caller's moment, which is before it waits for a TRUNCATE: so does the server.
        let by_function = table.kind != Kind::Emptied && dice.roll(4) == 0;
        // Under one key, whatever the plan is, and however it is said what the result depends on: they are all the same.
        let (query, arguments) = match dice.roll(5) {
            _ if by_function => (format!("SELECT {name}_read()"), ""),
            0 => (format!("SELECT v FROM {name} WHERE id = $1"), ", args => '[1]'"),
            1 => (format!("SELECT max(v) FROM {name} WHERE id < 2"), ""),
            2 => (format!("SELECT a.v FROM {name} AS a JOIN {name} AS b USING (id) WHERE b.id = 1"), ""),
            _ => (table.read(), ""),
        };
        let (key, depends) = match dice.roll(4) {
            0 if !by_function => (format!("tagged {name}"), format!(", tags => '{{{name}}}'")),
            1 => (name.clone(), format!(", depends => '{{{name}}}'")),
            2 => (name.clone(), format!(", depends => '{{}}', tags => '{{{name}}}'")),
            _ => (name.clone(), String::new()),
        };
        let row = match dice.roll(3) {
            0 => {
                let call = format!("SELECT cache_fetch($1, $2{arguments}{depends})::text, cache_status()");
                let row = session.client().query_one(&call, &[&key, &query])?;
                vec![row.get(0), row.get(1)]
            }
            _ => session.row(&format!(
                "SELECT cache_fetch('{key}', '{query}'{arguments}{depends}), cache_status()"
            ))?,
        };
        self.count(row.get(1).is_some_and(|status| status.as_deref() == Some("hot")));
        Ok(row[0].clone())
    }

    fn read_fetched(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        let table = self.choose(session.database, dice);
        let at_least = table.at_least.load(SeqCst);
        let value = self.fetch(session, table, dice)?;
        self.judge(table, at_least, value.as_deref(), "cache_fetch");
        Ok(())
    }

    /// Several statements of one READ COMMITTED transaction.
    fn read_block(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        session.run("BEGIN")?;
        for _ in 0..3 {
            self.read_fetched(session, dice)?;
        }
        session.run("COMMIT")
    }

    /// What one moment looks like, through the cache and without it.
    fn read_moment(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        session.run(match dice.roll(2) {
            0 => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            _ => "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        })?;
        for _ in 0..4 {
            let table = self.choose(session.database, dice);
            if table.kind == Kind::Emptied {
                continue;
            }
            let cached_first = dice.roll(2) == 0;
            let mut cached = if cached_first { Some(self.fetch(session, table, dice)?) } else { None };
            let direct = session.row(&table.read())?.swap_remove(0);
            if !cached_first {
                cached = Some(self.fetch(session, table, dice)?);
            }
            let cached = cached.flatten();
            if cached != direct {
                self.stale.fetch_add(1, SeqCst);
                self.find(format!(
                    "REPEATABLE READ of {}: {cached:?} in the cache, {direct:?} in the table",
                    table.name
                ));
            }
        }
        session.run("COMMIT")
    }

    /// A value that its reader computes, under a lease, and what a writer has stored along with its change.
    fn read_leased(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        let table = self.choose(session.database, dice);
        let name = &table.name;
        let at_least = table.at_least.load(SeqCst);
        if dice.roll(4) == 0 {
            if let Some(value) = session.row(&format!("SELECT cache_get('set {name}')"))?.swap_remove(0) {
                self.judge(table, at_least, Some(&value), "cache_get of what was set with the change");
            }
            return Ok(());
        }
        let in_block = dice.roll(3) == 0;
        if in_block {
            session.run("BEGIN")?;
        }
        let asked = format!("SELECT value, status, lease FROM cache_acquire('leased {name}', hold => '2 s')");
        let row = session.row(&asked)?;
        self.count(row[1].as_deref() == Some("hit"));
        if row[1].as_deref() == Some("hit") {
            self.judge(table, at_least, row[0].as_deref(), "cache_acquire");
        } else {
            let at_least = table.at_least.load(SeqCst);
            let value = session.row(&table.read())?.swap_remove(0);
            self.judge(table, at_least, value.as_deref(), "the table itself");
            if let (Some(value), Some(lease)) = (value, &row[2]) {
                session.run(&format!(
                    "SELECT cache_set('leased {name}', '{value}', tags => '{{{name}}}', lease => {lease})"
                ))?;
            }
        }
        if in_block { session.run("COMMIT") } else { Ok(()) }
    }

    /// Cancels and terminates whoever is there.
    fn disturb(&self, seed: u64) {
        let mut dice = Dice(seed);
        let mut client = self.cluster.connect("postgres");
        while !self.over.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5 + dice.roll(40) as u64));
            let process = self.sessions[dice.roll(self.sessions.len())].load(SeqCst);
            let how = if dice.roll(4) == 0 { "terminate" } else { "cancel" };
            if process != 0 {
                let call = format!("SELECT pg_{how}_backend({process})");
                client.batch_execute(&call).expect("the server lives");
            }
        }
    }
}

/// Until it is certain what a table holds, and that nobody is at changing it.
fn settle(session: &mut Session<'_>, table: &Table, gid: &str) {
    loop {
        let found = session.row(&format!("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{gid}'"));
        let settled = found.and_then(|row| {
            if row[0].as_deref() != Some("0") {
                session.run(&format!("ROLLBACK PREPARED '{gid}'"))?;
            }
            session.row(&table.read())
        });
        match settled {
            Ok(row) => {
                let value = row[0].as_deref().and_then(|value| value.parse().ok()).unwrap_or(-1);
                table.at_least.fetch_max(value, SeqCst);
                return;
            }
            Err(error) => {
                // It may still be at its end, in a session that was terminated.
                let is_busy = error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
                    || error.code() == Some(&SqlState::UNDEFINED_OBJECT);
                if !is_busy && !is_expected(&error) {
                    session.hunt.find(format!("settling {}: {error:?}", table.name));
                }
                while session.run("ROLLBACK").is_err() {}
            }
        }
    }
}

/// A way to write a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Update,
    Disabled,
    Savepoint,
    SavepointRolledBack,
    OnlySavepointRolledBack,
    Exception,
    DeleteAndInsert,
    TruncateAndInsert,
    Copy,
    Merge,
    Cte,
    TwoPhases,
    TwoPhasesRolledBack,
    RolledBack,
    AndSet,
    Trigger,
}

impl Path {
    fn choose(table: &Table, dice: &mut Dice) -> Self {
        use Path::*;
        const ALL: [Path; 15] = [
            Update,
            Disabled,
            Savepoint,
            SavepointRolledBack,
            OnlySavepointRolledBack,
            Exception,
            DeleteAndInsert,
            Copy,
            Merge,
            Cte,
            TwoPhases,
            TwoPhasesRolledBack,
            RolledBack,
            AndSet,
            Update,
        ];
        match (table.kind, dice.roll(3)) {
            (Kind::Emptied, 0) => TruncateAndInsert,
            (Kind::Indirect, 0) => Trigger,
            _ => ALL[dice.roll(ALL.len())],
        }
    }

    fn go(
        self,
        session: &mut Session<'_>,
        table: &Table,
        version: &MutexGuard<'_, i64>,
        gid: &str,
        dice: &mut Dice,
    ) -> Result<(), postgres::Error> {
        let version = **version;
        let name = &table.name;
        let target = &table.target(dice);
        let set = |v: i64| format!("UPDATE {target} SET v = {v} WHERE id = 1");
        let (new, undone) = (set(version), set(-version));
        let commit = |session: &mut Session<'_>, how: &str| {
            table.at_most.fetch_max(version, SeqCst);
            session.run(how)?;
            table.at_least.fetch_max(version, SeqCst);
            Ok(())
        };
        let block = |session: &mut Session<'_>, body: &str| {
            session.run(&format!("BEGIN; {body}"))?;
            commit(session, "COMMIT")
        };
        let delete = format!("DELETE FROM {target} WHERE id = 1");
        match self {
            Path::Update => commit(session, &new),
            Path::Disabled => block(
                session,
                &format!("SET LOCAL pg_cache.enabled = off; SET LOCAL pg_cache.bypass = on; {new}"),
            ),
            Path::Savepoint => block(session, &format!("SAVEPOINT s; {new}; RELEASE s")),
            Path::SavepointRolledBack => {
                block(session, &format!("{new}; SAVEPOINT s; {undone}; ROLLBACK TO s"))
            }
            Path::OnlySavepointRolledBack => {
                session.run(&format!("BEGIN; SAVEPOINT s; {undone}; ROLLBACK TO s"))?;
                session.run("COMMIT")
            }
            Path::Exception => commit(
                session,
                &format!(
                    "DO $$ BEGIN BEGIN {undone}; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN {new}; END; END $$"
                ),
            ),
            Path::DeleteAndInsert => {
                block(session, &format!("{delete}; INSERT INTO {target} VALUES (1, {version})"))
            }
            Path::TruncateAndInsert => {
                block(session, &format!("TRUNCATE {name}; INSERT INTO {name} VALUES (1, {version}), (2, 0)"))
            }
            Path::Copy => {
                session.run(&format!("BEGIN; DELETE FROM {name} WHERE id = 1"))?;
                let mut copy = session.client().copy_in(&format!("COPY {name} FROM STDIN"))?;
                // What goes wrong here is told at the end.
                let _ = copy.write_all(format!("1\t{version}\n").as_bytes());
                copy.finish()?;
                commit(session, "COMMIT")
            }
            Path::Merge => {
                let merge = format!(
                    "MERGE INTO {name} AS t USING (VALUES (1)) AS s (id) ON s.id = t.id
                     WHEN MATCHED THEN UPDATE SET v = {version}"
                );
                commit(session, &merge)
            }
            Path::Cte => commit(session, &format!("WITH w AS ({new} RETURNING id) SELECT count(*) FROM w")),
            Path::TwoPhases | Path::TwoPhasesRolledBack => {
                let commits = self == Path::TwoPhases;
                let what = if commits { &new } else { &undone };
                session.run(&format!("BEGIN; {what}; PREPARE TRANSACTION '{gid}'"))?;
                match commits {
                    true => commit(session, &format!("COMMIT PREPARED '{gid}'")),
                    false => session.run(&format!("ROLLBACK PREPARED '{gid}'")),
                }
            }
            Path::RolledBack => {
                session.run(&format!("BEGIN; {undone}; SAVEPOINT s; {undone}; RELEASE s; ROLLBACK"))
            }
            Path::AndSet => block(
                session,
                &format!("{new}; SELECT cache_set('set {name}', '{version}', tags => '{{{name}}}')"),
            ),
            Path::Trigger => commit(session, &format!("UPDATE {name}_of SET v = {version} WHERE id = 1")),
        }
    }
}

/// What a hunt has come to.
struct Bag {
    reads: u64,
    hits: u64,
    stale: u64,
    future: u64,
    findings: Vec<String>,
}

/// Hunts for so long, or until something is found if that is what is wanted.
fn hunt(cluster: &Cluster, time: Duration, until_found: bool) -> Bag {
    let seed = match std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_secs()),
    };
    let mut tables = Vec::new();
    for (database, name) in DATABASES.iter().enumerate() {
        cluster.connect("postgres").batch_execute(&format!("CREATE DATABASE {name}")).expect("it is created");
        let mut session = cluster.connect(name);
        session.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
        for kind in KINDS {
            tables.extend((0..TABLES).map(|number| Table::create(database, kind, number, &mut session)));
        }
    }
    let hunt = Hunt {
        cluster,
        tables,
        focus: AtomicUsize::new(0),
        sessions: Default::default(),
        over: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        future: AtomicU64::new(0),
        findings: Mutex::new(Vec::new()),
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let hunt = &hunt;
        /// Ends the hunt for all if one of them panics.
        struct Over<'h>(&'h AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        for slot in 0..WRITERS + READERS {
            scope.spawn(move || {
                let _over = Over(&hunt.over);
                let seed = seed ^ (slot as u64 + 1) << 56;
                if slot < WRITERS { hunt.write(slot, seed) } else { hunt.read(slot, seed) }
            });
        }
        scope.spawn(move || {
            let _over = Over(&hunt.over);
            hunt.disturb(seed);
        });
        while !hunt.over.load(SeqCst) && began.elapsed() < time {
            let found = hunt.stale.load(SeqCst) > 0;
            if until_found && found {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        hunt.over.store(true, SeqCst);
    });
    let [reads, hits, writes, errors, stale, future] =
        [&hunt.reads, &hunt.hits, &hunt.writes, &hunt.errors, &hunt.stale, &hunt.future]
            .map(|count| count.load(SeqCst));
    println!(
        "hunt: seed = {seed}, {:.1} s, reads = {reads}, hits = {hits}, writes = {writes}, disturbed = {errors}, \
         stale = {stale}, future = {future}",
        began.elapsed().as_secs_f64()
    );
    let findings = hunt.findings.into_inner().expect("nobody panics with it");
    Bag { reads, hits, stale, future, findings }
}

fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

#[test]
fn nobody_is_given_what_is_stale_whoever_writes_and_whatever_ends() {
    let cluster = cluster(&Conf::preloaded());
    let bag = hunt(&cluster, Duration::from_secs(if is_long() { 180 } else { 10 }), false);
    assert_eq!((bag.stale, bag.future), (0, 0), "{:#?}", bag.findings);
    assert!(bag.findings.is_empty(), "{:#?}", bag.findings);
    assert!(bag.hits * 10 > bag.reads * 7, "{} hits of {} reads prove little", bag.hits, bag.reads);
    let mut witness = cluster.connect("postgres");
    wait_until("the end of all sessions", || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        witness.query_one(query, &[]).expect("there is a view").get::<_, i64>(0) == 1
    });
    // The server's own workers commit too: what stays is a leak.
    let mut last = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        last = findings(&mut witness);
        if last.is_empty() {
            break;
        }
    }
    assert_eq!(last, Vec::<String>::new());
}

/// A hunter that finds nothing where there is something proves nothing.
#[test]
fn the_hunter_finds_what_is_stale_where_fences_are_broken() {
    for how in ["never", "late"] {
        let cluster = cluster(&Conf::preloaded().set("pg_cache.break_fencing", how));
        let bag = hunt(&cluster, Duration::from_secs(60), true);
        assert!(bag.stale > 0, "{how}: it has found nothing in {} reads", bag.reads);
    }
}
