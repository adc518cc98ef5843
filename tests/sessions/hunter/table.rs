//! The objects that hold a *version*, the number that grows with each commit and shows how old a value is (`mod.rs`): a table, or a
//! name or rule that decides which row a query finds.
//!
//! The version is in the column `v`, mostly in the row with the `id` 1. A committed version is never negative: a negative number is
//! in a row that no query may find now, or in one of a transaction that is rolled back, and -2 is the result of a query that sees
//! only a part of a transaction. A reader that gets a negative number has found a fault.
//!
//! A new [`Kind`] must be added to `Kind::ALL`, to the functions of `Kind`, and to those of [`Table`] that create it and read its
//! version. If names or rules decide, `definition.rs` must have the statements that change them, else `path.rs` writes its rows.

use super::DATABASES;
use super::dice::Dice;
use super::session::READER;
use postgres::Client;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;

/// The number of tables of each kind whose rows are written to, per database.
const TABLES: usize = 8;
/// The number of tables of each kind whose names or rules change, per database. There are few, because few writes go to them.
const DEFINED: usize = 1;

/// How a table is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Truncated now and then. As PostgreSQL's documentation says, transactions with an older snapshot see a `TRUNCATE`
    /// at once. So no REPEATABLE READ transaction reads this table.
    Emptied,
    /// Written to directly, and through the table that it is a partition of.
    Part,
    /// Written to directly, through a view, and by a trigger of another table.
    Indirect,
    /// A trigger of the table writes the version to a second table, and moves an amount between the rows of a third one, whose sum
    /// stays the same. A query that joins them finds no version if it sees only some of these writes.
    Joined,
    /// A function, replaced by one that returns the next version.
    Function,
    /// A view, replaced by one that returns the next version.
    View,
    /// The only value of an enumeration, which is renamed.
    Label,
    /// A table in a schema ahead of the other one, which is created and dropped.
    Shadow,
    /// Two columns of a table that swap their names.
    Column,
    /// Two tables that swap their names.
    Swapped,
    /// A partitioned table with two tables for one partition. One of them is attached, and the other gets the next version.
    Attached,
    /// Two rows, each for the members of a role. The reader becomes a member of the other role.
    Member,
    /// Two rows, of which a policy shows one.
    Policy,
    /// Two schemas with a table of one name. The reader may use one of them.
    Schema,
}

impl Kind {
    const ALL: [Self; 15] = [
        Self::Plain,
        Self::Emptied,
        Self::Part,
        Self::Indirect,
        Self::Joined,
        Self::Function,
        Self::View,
        Self::Label,
        Self::Shadow,
        Self::Column,
        Self::Swapped,
        Self::Attached,
        Self::Member,
        Self::Policy,
        Self::Schema,
    ];

    /// Returns whether names or rules decide which version a query finds.
    pub fn is_defined(self) -> bool {
        use Kind::*;
        !matches!(self, Plain | Emptied | Part | Indirect | Joined)
    }

    /// Returns whether the version is in a row that statements can also update directly.
    pub fn has_plain_rows(self) -> bool {
        use Kind::*;
        !self.is_defined() || matches!(self, Swapped | Attached)
    }

    /// Returns whether a function that is not volatile may find a version that was never visible. Such a function reads
    /// rows with its caller's snapshot, but uses newer names and rules.
    pub fn mixes_moments(self) -> bool {
        self == Self::Emptied || self.is_defined() && self != Self::Function
    }

    /// Returns which of two roles, schemas or rows (0 or 1) holds a version. The next version is in the other one.
    pub fn side(version: i64) -> i64 {
        version.abs() % 2
    }
}

/// A table, or the objects of another kind, that hold a version.
#[derive(Debug)]
pub struct Table {
    /// Its position among all tables. A transaction that changes names or rules of the table holds the advisory lock with this
    /// number.
    pub number: usize,
    /// The position in `DATABASES`.
    pub database: usize,
    /// The name of the table. The names of its other objects begin with it.
    pub name: String,
    /// How the table holds its version.
    pub kind: Kind,
    /// The lowest version that a reader may get (`mod.rs`). It never decreases.
    pub at_least: AtomicI64,
    /// The highest version that a reader may get. It never decreases.
    pub at_most: AtomicI64,
    /// The version that was tried last. A writer holds the lock from before it tries a version until the outcome is known.
    pub writer: Mutex<i64>,
}

/// Returns the search path of readers. It contains the schemas of `Kind::Schema` and `Kind::Shadow`, whose tables queries find only
/// by it.
pub fn search_path() -> String {
    let schemas = |number| format!("schema_{number}_0, schema_{number}_1, shadow_{number}_ahead, ");
    (0..DEFINED).map(schemas).collect::<String>() + "public"
}

impl Table {
    /// Creates all tables of a database and adds them to `into`, which has those of the databases before.
    pub fn create_all(database: usize, session: &mut Client, into: &mut Vec<Self>) {
        for kind in Kind::ALL {
            for number in 0..if kind.is_defined() { DEFINED } else { TABLES } {
                into.push(Self::create(database, kind, number, into.len(), session));
            }
        }
    }

    /// Creates the objects of one kind, with the version 0. `place` is the table's position among all tables. Watches the table,
    /// if rows hold the version.
    fn create(database: usize, kind: Kind, number: usize, place: usize, session: &mut Client) -> Self {
        let name = format!("{kind:?}_{number}").to_lowercase();
        let roles = format!("{}_{name}", DATABASES[database]);
        let columns = "(id int PRIMARY KEY, v bigint NOT NULL)";
        let rows = format!("INSERT INTO {name} VALUES (1, 0), (2, 0)");
        let sides =
            format!("CREATE TABLE {name} (side int, v bigint); INSERT INTO {name} VALUES (0, 0), (1, -1)");
        let shape = match kind {
            Kind::Plain | Kind::Emptied => format!("CREATE TABLE {name} {columns}; {rows}"),
            Kind::Part => format!(
                "CREATE TABLE {name} {columns} PARTITION BY RANGE (id);
                 CREATE TABLE {name}_low PARTITION OF {name} FOR VALUES FROM (0) TO (2);
                 CREATE TABLE {name}_high PARTITION OF {name} FOR VALUES FROM (2) TO (9); {rows}"
            ),
            Kind::Indirect => format!(
                "CREATE TABLE {name}_of {columns};
                 CREATE TABLE {name} {columns};
                 CREATE FUNCTION {name}_note() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN UPDATE {name} SET v = NEW.v WHERE id = NEW.id; RETURN NULL; END';
                 CREATE TRIGGER note AFTER UPDATE ON {name}_of FOR EACH ROW EXECUTE FUNCTION {name}_note();
                 CREATE VIEW {name}_view AS SELECT * FROM {name};
                 INSERT INTO {name}_of VALUES (1, 0); {rows}"
            ),
            Kind::Joined => format!(
                "CREATE TABLE {name} {columns}; CREATE TABLE {name}_pair {columns};
                 CREATE TABLE {name}_amounts (id int, amount bigint); INSERT INTO {name}_amounts VALUES (1, 60), (2, 40);
                 CREATE FUNCTION {name}_note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
                     INSERT INTO {name}_pair VALUES (NEW.id, NEW.v) ON CONFLICT (id) DO UPDATE SET v = NEW.v;
                     UPDATE {name}_amounts SET amount = amount + CASE id WHEN 1 THEN NEW.v % 7 ELSE - (NEW.v % 7) END;
                     RETURN NULL; END';
                 CREATE TRIGGER note AFTER INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION {name}_note();
                 CREATE VIEW {name}_joined AS {JOINED}; {rows}",
                JOINED = Self::joined(&name)
            ),
            Kind::View => format!("CREATE VIEW {name} AS SELECT 1 AS id, 0::bigint AS v"),
            Kind::Label => format!(
                "CREATE TYPE {name} AS ENUM ('0'); CREATE TABLE {name}_of (id int, label {name});
                 INSERT INTO {name}_of VALUES (1, '0')"
            ),
            Kind::Shadow => format!(
                "CREATE SCHEMA {name}_ahead; GRANT USAGE ON SCHEMA {name}_ahead TO {READER};
                 CREATE TABLE {name} {columns}; {rows};
                 CREATE FUNCTION {name}_all() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN
                     IF to_regclass(''{name}_ahead.{name}'') IS NULL THEN RETURN (SELECT v FROM public.{name} WHERE id = 1); END IF;
                     RETURN (SELECT v FROM {name}_ahead.{name}); END'"
            ),
            Kind::Column => format!(
                "CREATE TABLE {name} (id int, v bigint, w bigint); INSERT INTO {name} VALUES (1, 0, -1), (2, 0, 0)"
            ),
            Kind::Function => {
                format!("CREATE FUNCTION {name}_version() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 0; END'")
            }
            Kind::Swapped => format!(
                "CREATE TABLE {name} {columns}; {rows};
                 CREATE TABLE {name}_other (LIKE {name}); INSERT INTO {name}_other VALUES (1, -1), (2, 0)"
            ),
            Kind::Attached => format!(
                "CREATE TABLE {name} (id int NOT NULL, v bigint NOT NULL) PARTITION BY RANGE (id);
                 CREATE TABLE {name}_low PARTITION OF {name} FOR VALUES FROM (0) TO (2);
                 CREATE TABLE {name}_high PARTITION OF {name} FOR VALUES FROM (2) TO (9); {rows};
                 CREATE TABLE {name}_spare (LIKE {name}); INSERT INTO {name}_spare VALUES (1, -1)"
            ),
            Kind::Member => format!(
                "{sides}; CREATE ROLE {roles}_0 ROLE {READER}; CREATE ROLE {roles}_1;
                 ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY p_0 ON {name} TO {roles}_0 USING (side = 0);
                 CREATE POLICY p_1 ON {name} TO {roles}_1 USING (side = 1)"
            ),
            Kind::Policy => format!(
                "{sides}; ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY p ON {name} TO {READER} USING (side = 0)"
            ),
            Kind::Schema => (0..2)
                .map(|side| {
                    format!(
                        "CREATE SCHEMA {name}_{side}; CREATE TABLE {name}_{side}.{name} AS SELECT 1 AS id, {} AS v;
                         GRANT SELECT ON {name}_{side}.{name} TO PUBLIC;",
                        -side
                    )
                })
                .chain([format!("GRANT USAGE ON SCHEMA {name}_0 TO {READER}")])
                .collect(),
        };
        let table = Self {
            number: place,
            database,
            kind,
            at_least: AtomicI64::new(0),
            at_most: AtomicI64::new(0),
            writer: Mutex::new(0),
            name,
        };
        let watch = if kind.is_defined() { "" } else { "SELECT cache_watch('%')" }.replace('%', &table.name);
        session
            .batch_execute(&format!(
                "SET check_function_bodies = off; {shape};
                 CREATE FUNCTION {}_read() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN ({}); END'; {watch}",
                table.name,
                table.read()
            ))
            .unwrap_or_else(|error| panic!("{}: {error}", table.name));
        table
    }

    /// Returns the relation that a write names: the table, a partition of it or a view of it.
    pub fn target(&self, dice: &mut Dice) -> String {
        match (self.kind, dice.roll(2)) {
            (Kind::Part, 0) => format!("{}_low", self.name),
            (Kind::Indirect, 0) => format!("{}_view", self.name),
            _ => self.name.clone(),
        }
    }

    /// Returns the query that gives a reader the version.
    pub fn read(&self) -> String {
        let name = &self.name;
        match self.kind {
            Kind::Function => format!("SELECT {name}_version()"),
            Kind::Member | Kind::Policy => format!("SELECT max(v) FROM {name}"),
            Kind::Label => format!("SELECT label::text::bigint FROM {name}_of WHERE id = 1"),
            Kind::Joined => format!("SELECT v FROM ({}) AS joined", Self::joined(name)),
            _ => format!("SELECT v FROM {name} WHERE id = 1"),
        }
    }

    /// Returns the query that gives a superuser the version. No rule hides rows from a superuser.
    pub fn read_all(&self) -> String {
        let name = &self.name;
        match self.kind {
            Kind::Schema => {
                format!("SELECT greatest(a.v, b.v) FROM {name}_0.{name} AS a, {name}_1.{name} AS b")
            }
            Kind::Shadow => format!("SELECT {name}_all()"),
            _ => self.read(),
        }
    }

    /// Returns the query of `Kind::Joined`. It finds the version only if it sees all or nothing of each transaction.
    fn joined(name: &str) -> String {
        format!(
            "SELECT CASE WHEN a.v = b.v AND (SELECT sum(amount) FROM {name}_amounts) = 100 THEN a.v ELSE -2 END AS v
               FROM {name} AS a JOIN {name}_pair AS b USING (id) WHERE a.id = 1"
        )
    }

    /// Returns queries that give a reader the version, as the column `v`.
    pub fn queries(&self) -> Vec<String> {
        let name = &self.name;
        // Calls of the function for a table whose rows hold the version.
        let function = format!("SELECT {name}_read() AS v");
        match self.kind {
            Kind::Joined => vec![
                self.read(),
                format!("SELECT v FROM {name}_joined"),
                format!("WITH joined AS MATERIALIZED (SELECT * FROM {name}_joined) SELECT max(v) AS v FROM joined"),
                format!(
                    "SELECT CASE WHEN min(v) = max(v) THEN max(v) ELSE -2 END AS v
                       FROM (SELECT v FROM {name} WHERE id = 1 UNION ALL SELECT v FROM {name}_pair WHERE id = 1) AS both_tables"
                ),
                function,
            ],
            Kind::Plain | Kind::Emptied | Kind::Part | Kind::Indirect => {
                let mut queries = vec![
                    self.read(),
                    format!("SELECT max(v) AS v FROM {name} WHERE id < 2"),
                    format!("SELECT a.v FROM {name} AS a JOIN {name} AS b USING (id) WHERE b.id = 1"),
                    format!("WITH rows AS (SELECT id, v FROM {name}) SELECT (SELECT v FROM rows WHERE id = 1) AS v"),
                    format!(
                        "SELECT v FROM (SELECT v, row_number() OVER (ORDER BY id) AS place FROM {name}) AS ordered WHERE place = 1"
                    ),
                ];
                if !self.kind.mixes_moments() {
                    queries.push(function);
                }
                queries
            }
            Kind::Function => vec![format!("SELECT {name}_version() AS v"), function],
            Kind::Member | Kind::Policy => vec![format!("SELECT max(v) AS v FROM {name}")],
            Kind::Label => vec![
                format!("SELECT label::text::bigint AS v FROM {name}_of WHERE id = 1"),
                format!("SELECT max(label)::text::bigint AS v FROM {name}_of"),
            ],
            _ => vec![
                self.read(),
                format!("SELECT max(v) AS v FROM {name} WHERE id < 2"),
                format!("SELECT a.v FROM {name} AS a JOIN {name} AS b USING (id) WHERE b.id = 1"),
            ],
        }
    }
}
