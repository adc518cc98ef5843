//! Changes of definitions, one after the other. A change of an object that a query uses must show in the next result. A change of
//! any other object must leave the result a hit.

use super::cached::{Answer, answer, is_hit};
use super::changes::{MORE, PAIRS};
use super::grammar::Text;
use super::set_up;
use crate::memory::cluster;
use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;

/// The schema of `schema.rs` in a cluster of its own, because its roles stay.
fn schema() -> (Cluster, Client) {
    let cluster = cluster(&Conf::preloaded());
    let mut owner = cluster.connect("postgres");
    set_up(&mut owner);
    (cluster, owner)
}

/// Opens a session of `alice`.
fn alice(cluster: &Cluster) -> Client {
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("SET ROLE alice; SET search_path = a, public; SET lock_timeout = '10s'")
        .expect("it is set");
    session
}

/// Asks for the result through the cache, and compares it with the result without. Returns the status, or a description of the
/// difference.
fn ask(session: &mut Client, query: &str) -> Result<String, String> {
    let text = Text::plain(query);
    let columns = text.columns(session);
    let (cached, status) = text.cached(session, columns.as_deref().unwrap_or("(c1 int)"));
    let direct = text.direct(session);
    if cached.is_same(&direct, false) {
        return Ok(status);
    }
    Err(format!("{query}: {cached:?} ({status}), and without the cache {direct:?}"))
}

/// Makes each change: a query, the statements that change its result, and those that undo it. Each change is rolled back once,
/// which must leave the result a hit, then made, and then undone. Panics also if the query returns the same after the change.
fn assert_fresh<'c>(
    owner: &mut Client,
    [one, other]: [&mut Client; 2],
    changes: impl Iterator<Item = &'c (&'c str, &'c str, &'c str)>,
) {
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for (query, make, undo) in changes {
        let at = |wrong: &mut Vec<String>, step: &str, found: Result<String, String>| match found {
            Ok(status) => Some(status),
            Err(difference) => {
                wrong.push(format!("{step} {make}: {difference}"));
                None
            }
        };
        let before = Text::plain(query).direct(one);
        // A server may be built without XML.
        if matches!(&before, Answer::Failed(code, _) if code == "0A000") {
            continue;
        }
        at(&mut wrong, "before", ask(one, query));
        // A result may be refused. Then it must be fresh all the same.
        let is_refused = ask(one, query).is_ok_and(|status| status.starts_with("refused: "));
        if is_refused {
            refused.push(format!("{query}: {}", ask(one, query).unwrap_or_default()));
        }
        let may_miss = before.has_failed() || is_refused;
        let hit = at(&mut wrong, "before, in another session,", ask(other, query));
        if !may_miss && hit.is_some_and(|status| !is_hit(&status)) {
            wrong
                .push(format!("before {make}: {query} is no hit: {}", ask(other, query).unwrap_or_default()));
        }
        owner
            .batch_execute(&format!("BEGIN; {make}; ROLLBACK"))
            .unwrap_or_else(|error| panic!("{make}: {error:?}"));
        let hit = at(&mut wrong, "after the rollback of", ask(other, query));
        if !may_miss && hit.is_some_and(|status| !is_hit(&status)) {
            wrong.push(format!("after the rollback of {make}: {query} is no hit"));
        }
        for (step, change) in [("after", make), ("after the undo of", undo)] {
            owner.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
            for session in [&mut *one, &mut *other] {
                at(&mut wrong, step, ask(session, query));
            }
            let now = Text::plain(query).direct(one);
            if step == "after" && before.is_same(&now, false) && format!("{before:?}") == format!("{now:?}") {
                wrong.push(format!("{query} does not see {make}"));
            }
        }
    }
    println!("refused results: {refused:#?}");
    assert!(wrong.is_empty(), "{} are wrong: {wrong:#?}", wrong.len());
}

/// Fails if a call after one of these changes returns the result from before it.
#[test]
fn every_change_of_a_definition_that_a_query_depends_on_makes_its_result_fresh() {
    let (cluster, mut owner) = schema();
    let [mut one, mut other] = [(); 2].map(|()| alice(&cluster));
    let changes = PAIRS.iter().chain(MORE).filter(|change| !change.0.is_empty());
    assert_fresh(&mut owner, [&mut one, &mut other], changes);
}

/// With `pg_catalog` behind another schema in the search path, objects of that schema take over names and operators that the server
/// defines, and those that a query uses without naming them.
const TAKEN_OVER: &[(&str, &str, &str)] = &[
    (
        "SELECT lower('X')",
        "CREATE FUNCTION a.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'mine'$$",
        "DROP FUNCTION a.lower(text)",
    ),
    (
        "SELECT LOWER('Y')",
        "CREATE FUNCTION a.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'mine'$$",
        "DROP FUNCTION a.lower(text)",
    ),
    (
        "SELECT U&\"\\006cower\"('Z')",
        "CREATE FUNCTION a.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'mine'$$",
        "DROP FUNCTION a.lower(text)",
    ),
    (
        "SELECT max(id) FROM customers",
        "CREATE AGGREGATE a.max(int) (SFUNC = int4smaller, STYPE = int)",
        "DROP AGGREGATE a.max(int)",
    ),
    (
        "SELECT count(*) FROM customers WHERE id = 5",
        "CREATE OPERATOR a.= (FUNCTION = int4ne, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR a.= (int, int)",
    ),
    (
        "SELECT count(*) FROM customers WHERE id IN (6, 7)",
        "CREATE OPERATOR a.= (FUNCTION = int4ne, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR a.= (int, int)",
    ),
    (
        "SELECT count(*) FROM customers WHERE id BETWEEN 6 AND 7",
        "CREATE OPERATOR a.>= (FUNCTION = int4lt, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR a.>= (int, int)",
    ),
    (
        "SELECT count(*) FROM customers WHERE name LIKE 'name 1%'",
        "CREATE OPERATOR a.~~ (FUNCTION = textnlike, LEFTARG = text, RIGHTARG = text)",
        "DROP OPERATOR a.~~ (text, text)",
    ),
    (
        "SELECT CASE 5 WHEN 5 THEN 1 ELSE 2 END",
        "CREATE OPERATOR a.= (FUNCTION = int4ne, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR a.= (int, int)",
    ),
    (
        "SELECT nullif(3, 4)",
        "CREATE OPERATOR a.= (FUNCTION = int4ne, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR a.= (int, int)",
    ),
    (
        "SELECT count(*) FROM customers JOIN items USING (id)",
        "CREATE OPERATOR a.= (FUNCTION = int4ne, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR a.= (int, int)",
    ),
    (
        "SELECT '5'::text || 'x'::text",
        "CREATE OPERATOR a.|| (FUNCTION = btrim, LEFTARG = text, RIGHTARG = text)",
        "DROP OPERATOR a.|| (text, text)",
    ),
    (
        "SELECT pg_typeof('x'::text)::oid = 25",
        "CREATE DOMAIN a.text AS pg_catalog.text",
        "DROP DOMAIN a.text",
    ),
    (
        "SELECT count(*) > 0 FROM pg_class",
        "CREATE VIEW a.pg_class AS SELECT 1 AS oid WHERE false; GRANT SELECT ON a.pg_class TO alice",
        "DROP VIEW a.pg_class",
    ),
    (
        "SELECT home::text FROM customers WHERE id = 5",
        "CREATE CAST (place AS text) WITH FUNCTION place_text(place)",
        "DROP CAST (place AS text)",
    ),
    (
        "SELECT concat(home) FROM customers WHERE id = 5",
        "CREATE FUNCTION a.concat(place) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'mine'$$",
        "DROP FUNCTION a.concat(place)",
    ),
    (
        "SELECT (id).lower FROM (SELECT 'Q'::text AS id) AS q",
        "CREATE FUNCTION a.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'mine'$$",
        "DROP FUNCTION a.lower(text)",
    ),
];

/// The same, for names that the server defines.
#[test]
fn an_object_that_takes_over_a_name_of_the_server_makes_results_fresh() {
    let (cluster, mut owner) = schema();
    let [mut one, mut other] = [(); 2].map(|()| alice(&cluster));
    for session in [&mut one, &mut other] {
        session.batch_execute("SET search_path = a, pg_catalog, public").expect("it is set");
    }
    assert_fresh(&mut owner, [&mut one, &mut other], TAKEN_OVER.iter());
}

/// `DETACH PARTITION CONCURRENTLY` has two transactions, and both change what a query of the table reads.
#[test]
fn a_partition_that_is_detached_concurrently_makes_results_fresh() {
    let (cluster, mut owner) = schema();
    let [mut one, mut other] = [(); 2].map(|()| alice(&cluster));
    let queries = [
        "SELECT sum(amount) FROM orders",
        "SELECT max(total) FROM order_totals",
        "SELECT order_count(4)",
        "SELECT count(*), sum(n) FROM events",
    ];
    for _ in 0..3 {
        for change in [
            "ALTER TABLE orders DETACH PARTITION orders_high CONCURRENTLY",
            "UPDATE orders_high SET amount = amount + 1",
            "ALTER TABLE orders ATTACH PARTITION orders_high FOR VALUES FROM (100) TO (150)",
            "UPDATE orders_high SET amount = amount + 1",
            "ALTER TABLE events_b DETACH PARTITION events_b_high CONCURRENTLY",
            "UPDATE events_b_high SET n = 50",
            "ALTER TABLE events_b ATTACH PARTITION events_b_high FOR VALUES FROM (50) TO (100)",
            "UPDATE events SET n = 60 WHERE n = 50",
        ] {
            owner.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
            for query in queries {
                for session in [&mut one, &mut other] {
                    ask(session, query).unwrap_or_else(|difference| panic!("after {change}: {difference}"));
                }
            }
        }
    }
}

/// Statements as a migration tool runs them. They change no definition that the queries of [`STEADY`] depend on. One of them adds a
/// foreign key to `customers`, and two concern an index and a comment of the tables of the queries.
const MIGRATION: [&str; 104] = [
    "CREATE TABLE schema_migrations (version text PRIMARY KEY, applied timestamptz DEFAULT now())",
    "INSERT INTO schema_migrations VALUES ('001')",
    "CREATE SCHEMA billing",
    "GRANT USAGE ON SCHEMA billing TO bob",
    "CREATE TABLE billing.invoices (id bigserial PRIMARY KEY, number text NOT NULL, cents bigint, paid_at timestamptz)",
    "ALTER TABLE billing.invoices ADD COLUMN due date",
    "ALTER TABLE billing.invoices ADD CONSTRAINT positive CHECK (cents > 0)",
    "CREATE UNIQUE INDEX invoices_number ON billing.invoices (number)",
    "CREATE INDEX CONCURRENTLY invoices_due ON billing.invoices (due)",
    "COMMENT ON TABLE billing.invoices IS 'bills'",
    "COMMENT ON COLUMN billing.invoices.due IS 'when it must be paid'",
    "GRANT SELECT, INSERT ON billing.invoices TO bob",
    "REVOKE INSERT ON billing.invoices FROM bob",
    "ALTER TABLE billing.invoices ALTER COLUMN cents SET NOT NULL",
    "ALTER TABLE billing.invoices ALTER COLUMN cents SET DEFAULT 100",
    "ALTER TABLE billing.invoices ALTER COLUMN number TYPE varchar(40)",
    "ALTER TABLE billing.invoices RENAME COLUMN paid_at TO settled_at",
    "ALTER TABLE billing.invoices RENAME TO bills",
    "CREATE SEQUENCE billing.numbers START 1000",
    "ALTER SEQUENCE billing.numbers INCREMENT BY 10",
    "SELECT nextval('billing.numbers')",
    "CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text UNIQUE, created timestamptz DEFAULT now())",
    "CREATE TABLE sessions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id bigint REFERENCES users ON DELETE CASCADE)",
    "CREATE INDEX ON sessions (user_id)",
    "INSERT INTO users (email) VALUES ('a@example.org'), ('b@example.org')",
    "ALTER TABLE users ADD COLUMN locale text NOT NULL DEFAULT 'en'",
    "ALTER TABLE users ADD COLUMN settings jsonb",
    "CREATE INDEX users_settings ON users USING gin (settings)",
    "ALTER TABLE users DROP COLUMN locale",
    "CREATE TYPE invoice_state AS ENUM ('open', 'paid')",
    "ALTER TABLE billing.bills ADD COLUMN state invoice_state DEFAULT 'open'",
    "CREATE DOMAIN email_address AS text",
    "CREATE TYPE address AS (street text, zip text)",
    "ALTER TABLE users ADD COLUMN home_address address",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.created := now(); RETURN NEW; END'",
    "CREATE TRIGGER touch_users BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch()",
    "UPDATE users SET email = upper(email)",
    "CREATE FUNCTION full_price(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 119 / 100'",
    "GRANT EXECUTE ON FUNCTION full_price(bigint) TO bob",
    "CREATE OR REPLACE FUNCTION full_price(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 107 / 100'",
    "CREATE VIEW open_bills AS SELECT * FROM billing.bills WHERE settled_at IS NULL",
    "GRANT SELECT ON open_bills TO bob",
    "CREATE MATERIALIZED VIEW bill_totals AS SELECT count(*) AS n FROM billing.bills",
    "REFRESH MATERIALIZED VIEW bill_totals",
    "CREATE ROLE reporting",
    "ALTER ROLE reporting PASSWORD 'secret'",
    "GRANT SELECT ON open_bills TO reporting",
    "CREATE TABLE audit (at timestamptz, who text, what jsonb)",
    "ALTER TABLE audit ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own_audit ON audit USING (who = current_user)",
    "CREATE TABLE tags (id int PRIMARY KEY, name text)",
    "CREATE TABLE taggings (tag int REFERENCES tags, target text)",
    "ALTER TABLE taggings ADD PRIMARY KEY (tag, target)",
    "CREATE STATISTICS taggings_both ON tag, target FROM taggings",
    "ANALYZE taggings",
    "VACUUM taggings",
    "ALTER TABLE tags SET (fillfactor = 80)",
    "ALTER TABLE tags REPLICA IDENTITY FULL",
    "CREATE TABLE imports AS SELECT * FROM generate_series(1, 100) AS i",
    "CREATE UNLOGGED TABLE staging (LIKE imports)",
    "INSERT INTO staging SELECT * FROM imports",
    "TRUNCATE staging",
    "ALTER TABLE staging SET LOGGED",
    "DROP TABLE staging",
    "CREATE TEMP TABLE scratch (i int)",
    "INSERT INTO scratch VALUES (1)",
    "ALTER TABLE scratch ADD COLUMN j int",
    "DROP TABLE scratch",
    "CREATE PUBLICATION changes FOR TABLE users",
    "ALTER PUBLICATION changes ADD TABLE tags",
    "DROP PUBLICATION changes",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA billing GRANT SELECT ON TABLES TO reporting",
    "CREATE TABLE billing.lines (bill bigint REFERENCES billing.bills, item text, cents bigint)",
    "ALTER TABLE billing.lines ADD COLUMN vat numeric GENERATED ALWAYS AS (cents * 0.19) STORED",
    "ALTER TABLE billing.lines DROP CONSTRAINT lines_bill_fkey",
    "ALTER TABLE billing.lines ADD CONSTRAINT lines_bill FOREIGN KEY (bill) REFERENCES billing.bills NOT VALID",
    "ALTER TABLE billing.lines VALIDATE CONSTRAINT lines_bill",
    "CREATE PROCEDURE settle(bigint) LANGUAGE sql AS 'UPDATE billing.bills SET settled_at = now() WHERE id = $1'",
    "CALL settle(1)",
    "DROP PROCEDURE settle(bigint)",
    "CREATE RULE no_delete AS ON DELETE TO tags DO INSTEAD NOTHING",
    "DROP RULE no_delete ON tags",
    "CREATE TABLE archive (LIKE billing.bills INCLUDING ALL)",
    "ALTER TABLE archive SET SCHEMA billing",
    "ALTER TABLE billing.archive OWNER TO bob",
    "DROP TABLE billing.archive",
    "CREATE INDEX orders_low_code ON orders_low (code)",
    "REINDEX TABLE imports",
    "ALTER INDEX billing.invoices_due RENAME TO bills_due",
    "DROP INDEX CONCURRENTLY billing.bills_due",
    "COMMENT ON COLUMN customers.name IS 'as on the bill'",
    "COMMENT ON DATABASE postgres IS 'the shop'",
    "ALTER ROLE reporting SET statement_timeout = '1min'",
    "ALTER DATABASE postgres SET work_mem = '8MB'",
    "CREATE TABLE contacts (id int PRIMARY KEY, customer int REFERENCES customers)",
    "DO $$ BEGIN CREATE TABLE IF NOT EXISTS settings (name text PRIMARY KEY, value text); END $$",
    "BEGIN; CREATE TABLE flags (name text); INSERT INTO flags VALUES ('new'); CREATE INDEX ON flags (name); COMMIT",
    "BEGIN; ALTER TABLE settings ADD COLUMN note text; ROLLBACK",
    "BEGIN; CREATE SCHEMA staging; CREATE TABLE staging.rows (i int); DROP SCHEMA staging CASCADE; COMMIT",
    "DROP VIEW open_bills",
    "DROP TABLE sessions, users CASCADE",
    "DROP FUNCTION touch()",
    "DROP SCHEMA billing CASCADE",
    "UPDATE schema_migrations SET version = '002'",
];

/// Queries that call no user-defined function. The last one reads views and a subquery.
const STEADY: [&str; 3] = [
    "SELECT c.name, count(*) FROM customers AS c JOIN orders AS o ON o.customer = c.id GROUP BY c.name",
    "SELECT tenant, sum(amount), max(at) FROM orders GROUP BY tenant",
    "SELECT i.label, (SELECT max(total) FROM order_totals AS t WHERE t.customer = i.id) FROM items AS i WHERE x > 1",
];

/// Runs statements, asks for all of `STEADY` after each, and returns how often that was, and the results that were no hits.
fn disturb(owner: &mut Client, reader: &mut Client, statements: &[String]) -> (usize, Vec<String>) {
    let (mut asked, mut missed) = (0, Vec::new());
    for query in STEADY {
        ask(reader, query).unwrap_or_else(|difference| panic!("{difference}"));
    }
    for statement in statements {
        // Some statements are not allowed in a transaction block, and so not in a message with others.
        let parts: Vec<&str> =
            if statement.starts_with("BEGIN") { statement.split("; ").collect() } else { vec![statement] };
        for part in parts {
            owner.batch_execute(part).unwrap_or_else(|error| panic!("{part}: {error:?}"));
        }
        for query in STEADY {
            asked += 1;
            let status =
                ask(reader, query).unwrap_or_else(|difference| panic!("after {statement}: {difference}"));
            if !is_hit(&status) {
                missed.push(format!("{statement}: {status}: {query}"));
            }
        }
    }
    (asked, missed)
}

/// Asserts that at least 99 % of the results were hits.
fn assert_steady((asked, missed): (usize, Vec<String>)) {
    println!("unrelated definitions: {} of {asked} results were no hits: {missed:#?}", missed.len());
    assert!(missed.len() * 100 <= asked, "{} of {asked} were no hits: {missed:#?}", missed.len());
}

/// Fails if the usual statements of a migration tool invalidate results of queries that do not use the changed objects.
#[test]
fn the_statements_of_a_migration_tool_leave_unrelated_results() {
    let (cluster, mut owner) = schema();
    let mut reader = alice(&cluster);
    assert_steady(disturb(&mut owner, &mut reader, &MIGRATION.map(str::to_owned)));
}

/// A partition is created, filled, attached and granted for each hour, and the oldest one is detached and dropped.
#[test]
fn the_maintenance_of_partitions_of_another_table_leaves_results() {
    let (cluster, mut owner) = schema();
    let mut reader = alice(&cluster);
    let mut statements = vec![
        "CREATE TABLE logs (at int, line text) PARTITION BY RANGE (at)".to_owned(),
        "CREATE TABLE logs_rest PARTITION OF logs DEFAULT".to_owned(),
    ];
    for hour in 0..24 {
        let name = format!("logs_p{hour}");
        statements.extend([
            format!("CREATE TABLE {name} (LIKE logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"),
            format!("ALTER TABLE {name} ADD CONSTRAINT {name}_at CHECK (at >= {hour} AND at < {hour} + 1)"),
            format!("ALTER TABLE logs ATTACH PARTITION {name} FOR VALUES FROM ({hour}) TO ({hour} + 1)"),
            format!("ALTER TABLE {name} DROP CONSTRAINT {name}_at"),
            format!("CREATE INDEX ON {name} (at)"),
            format!("GRANT SELECT ON {name} TO bob"),
            format!("INSERT INTO logs SELECT {hour}, 'line ' || i FROM generate_series(1, 10) AS i"),
            format!("ANALYZE {name}"),
        ]);
        if hour >= 4 {
            let old = format!("logs_p{}", hour - 4);
            statements.extend([
                format!(
                    "ALTER TABLE logs DETACH PARTITION {old}{}",
                    if hour % 2 == 0 { " CONCURRENTLY" } else { "" }
                ),
                format!("DROP TABLE {old}"),
            ]);
        }
        if hour % 2 == 1 {
            statements.push(format!("CREATE TABLE logs_extra_{hour} PARTITION OF logs FOR VALUES FROM (1000 + {hour}) TO (1001 + {hour})"));
        }
    }
    // `DETACH … CONCURRENTLY` is refused while there is a default partition.
    statements.insert(2, "DROP TABLE logs_rest".to_owned());
    assert_steady(disturb(&mut owner, &mut reader, &statements));
    assert!(!answer(&mut owner, "SELECT count(*) FROM logs").has_failed());
}
