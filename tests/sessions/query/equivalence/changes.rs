//! Random changes of the schema of `schema.rs`: of rows, of definitions, of roles, and of a session's settings.

use super::schema::ROLES;
use crate::hunter::dice::Dice;

/// A change, as the superuser makes it with `public` as the search path.
#[derive(Clone, Debug)]
pub struct Change {
    pub statements: String,
    /// Whether it changes more than rows. Until its transaction ends, other sessions cannot read what it has changed.
    pub is_definition: bool,
    /// Whether it is allowed in a transaction block, and so can be rolled back.
    pub in_block: bool,
}

/// Changes of definitions that are made and undone in turn: a query whose result changes for the role `alice` with the schemas `a`
/// and `public` in its search path, and the statements of either direction. The query is empty if no query can see the change.
///
/// A new change must work in any combination with the others, made or not, and after any change of [`of_rows`]. There is room for
/// 64: [`Made`] has a bit for each.
pub const PAIRS: &[(&str, &str, &str)] = &[
    (
        "SELECT count(*), sum(points) FROM public.rich",
        "CREATE OR REPLACE VIEW rich AS SELECT id, name, score::int + 1 AS points FROM customers WHERE score > 20",
        "CREATE OR REPLACE VIEW rich AS SELECT id, name, score::int AS points FROM customers WHERE score > 30",
    ),
    (
        "SELECT count(*) FROM wealthy",
        "CREATE OR REPLACE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 50",
        "CREATE OR REPLACE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 40",
    ),
    (
        "SELECT visits_of(5)",
        "CREATE OR REPLACE FUNCTION visits_of(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT max(visits) FROM customers WHERE id < $1'",
        "CREATE OR REPLACE FUNCTION visits_of(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT sum(visits)::int FROM customers WHERE id = $1'",
    ),
    (
        "SELECT order_count(5)",
        "CREATE OR REPLACE FUNCTION order_count(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM events WHERE n < $1); END'",
        "CREATE OR REPLACE FUNCTION order_count(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM orders WHERE customer = $1); END'",
    ),
    (
        "SELECT plus_one(1)",
        "CREATE OR REPLACE FUNCTION plus_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 2'",
        "CREATE OR REPLACE FUNCTION plus_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'",
    ),
    (
        "SELECT thrice(1)",
        "CREATE OR REPLACE FUNCTION thrice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 4; END'",
        "CREATE OR REPLACE FUNCTION thrice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 3; END'",
    ),
    (
        "SELECT 'x'::text OPERATOR(public.###) 'y'::text",
        "CREATE OR REPLACE FUNCTION joined(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1 || ''/'' || $2'",
        "CREATE OR REPLACE FUNCTION joined(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1 || ''-'' || $2'",
    ),
    (
        "SELECT greeting('x')",
        "CREATE FUNCTION a.greeting(text) RETURNS text STABLE LANGUAGE sql AS 'SELECT ''moin '' || $1'",
        "DROP FUNCTION a.greeting(text)",
    ),
    (
        "SELECT 'x'::text ### 'y'::text",
        "CREATE OPERATOR a.### (FUNCTION = joined_back, LEFTARG = text, RIGHTARG = text)",
        "DROP OPERATOR a.### (text, text)",
    ),
    (
        "SELECT shown('2024-01-01 00:00:00+00')",
        "ALTER FUNCTION shown(timestamptz) SET timezone = 'Asia/Tokyo'",
        "ALTER FUNCTION shown(timestamptz) RESET ALL",
    ),
    ("", "ALTER FUNCTION shown(timestamptz) VOLATILE", "ALTER FUNCTION shown(timestamptz) STABLE"),
    (
        "SELECT secret_sum()",
        "ALTER FUNCTION secret_sum() OWNER TO postgres",
        "ALTER FUNCTION secret_sum() OWNER TO alice",
    ),
    (
        "SELECT thrice(2)",
        "REVOKE EXECUTE ON FUNCTION thrice(int) FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION thrice(int) TO PUBLIC",
    ),
    (
        "SELECT count(*) FROM secrets",
        "ALTER POLICY mine ON secrets USING (owner = current_user OR v < 12)",
        "ALTER POLICY mine ON secrets USING (owner = current_user)",
    ),
    (
        "SELECT sum(v) FROM secrets",
        "CREATE POLICY narrow ON secrets AS RESTRICTIVE USING (v <> 4)",
        "DROP POLICY narrow ON secrets",
    ),
    (
        "SELECT count(v) FROM secrets",
        "ALTER TABLE secrets DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE secrets ENABLE ROW LEVEL SECURITY",
    ),
    (
        "SELECT count(*) FROM secret_view",
        "ALTER VIEW secret_view SET (security_invoker = true)",
        "ALTER VIEW secret_view RESET (security_invoker)",
    ),
    (
        "SELECT sum(v) FROM secret_view",
        "ALTER VIEW secret_view OWNER TO alice",
        "ALTER VIEW secret_view OWNER TO postgres",
    ),
    (
        "SELECT count(*) FROM orders",
        "ALTER TABLE orders DETACH PARTITION orders_high",
        "ALTER TABLE orders ATTACH PARTITION orders_high FOR VALUES FROM (100) TO (150)",
    ),
    (
        "SELECT sum(amount) FROM orders",
        "CREATE TABLE orders_extra PARTITION OF orders FOR VALUES FROM (150) TO (160); INSERT INTO orders_extra (id, customer, tenant, amount) VALUES (150, 3, 1, 7.25)",
        "DROP TABLE orders_extra",
    ),
    (
        "SELECT count(*) FROM events",
        "ALTER TABLE events ATTACH PARTITION events_d FOR VALUES IN ('d')",
        "ALTER TABLE events DETACH PARTITION events_d",
    ),
    (
        "SELECT sum(v) FROM wide",
        "CREATE TABLE wide_new PARTITION OF wide FOR VALUES IN (100); INSERT INTO wide VALUES (100, 500, 'new')",
        "DROP TABLE wide_new",
    ),
    (
        "SELECT sum(v), count(*) FROM wide",
        "ALTER TABLE wide DETACH PARTITION wide_3",
        "DELETE FROM wide WHERE k = 3; ALTER TABLE wide ATTACH PARTITION wide_3 FOR VALUES IN (3)",
    ),
    (
        "SELECT sum(v) FROM wide WHERE k = 4",
        "ALTER TABLE wide DETACH PARTITION wide_4; CREATE TABLE wide_4_new PARTITION OF wide FOR VALUES IN (4)",
        "DROP TABLE wide_4_new; ALTER TABLE wide ATTACH PARTITION wide_4 FOR VALUES IN (4)",
    ),
    (
        "SELECT count(*) FROM events_b",
        "ALTER TABLE events_b ATTACH PARTITION events_b_top FOR VALUES FROM (100) TO (150)",
        "ALTER TABLE events_b DETACH PARTITION events_b_top",
    ),
    (
        "SELECT sum(n) FROM events",
        "ALTER TABLE events DETACH PARTITION events_b",
        "ALTER TABLE events ATTACH PARTITION events_b FOR VALUES IN ('b', 'c')",
    ),
    ("SELECT count(*) FROM dogs", "ALTER TABLE puppies NO INHERIT dogs", "ALTER TABLE puppies INHERIT dogs"),
    (
        "SELECT count(*) FROM animals",
        "CREATE TABLE cats () INHERITS (animals); INSERT INTO cats VALUES (8, 'tom', 4)",
        "DROP TABLE cats",
    ),
    ("SELECT count(*) FROM items", "CREATE TABLE a.items AS SELECT * FROM items_other", "DROP TABLE a.items"),
    (
        "SELECT max(name) FROM rich",
        "CREATE VIEW a.rich AS SELECT 1 AS id, 'of a'::text AS name, 2 AS points",
        "DROP VIEW a.rich",
    ),
    (
        "SELECT count(*) FROM public.items",
        "ALTER TABLE items RENAME TO items_swapped; ALTER TABLE items_other RENAME TO items; ALTER TABLE items_swapped RENAME TO items_other",
        "ALTER TABLE items RENAME TO items_swapped; ALTER TABLE items_other RENAME TO items; ALTER TABLE items_swapped RENAME TO items_other",
    ),
    (
        "SELECT sum(x), sum(y) FROM b.items",
        "ALTER TABLE b.items RENAME x TO z; ALTER TABLE b.items RENAME y TO x; ALTER TABLE b.items RENAME z TO y",
        "ALTER TABLE b.items RENAME x TO z; ALTER TABLE b.items RENAME y TO x; ALTER TABLE b.items RENAME z TO y",
    ),
    ("SELECT count(*) FROM notes", "ALTER TABLE notes SET SCHEMA b", "ALTER TABLE b.notes SET SCHEMA public"),
    (
        "SELECT c::text FROM customers AS c WHERE id = 3",
        "ALTER TABLE customers ADD COLUMN extra int DEFAULT 5",
        "ALTER TABLE customers DROP COLUMN extra",
    ),
    (
        "SELECT * FROM secrets",
        "ALTER TABLE secrets ADD COLUMN extra bool",
        "ALTER TABLE secrets DROP COLUMN extra",
    ),
    (
        "SELECT sum(y) / 7 FROM items",
        "ALTER TABLE items ALTER COLUMN y TYPE bigint",
        "ALTER TABLE items ALTER COLUMN y TYPE int",
    ),
    (
        "SELECT mood::text FROM customers WHERE id = 3",
        "ALTER TYPE mood RENAME VALUE 'meh' TO 'so-so'",
        "ALTER TYPE mood RENAME VALUE 'so-so' TO 'meh'",
    ),
    (
        "SELECT to_jsonb(home)::text FROM customers WHERE id = 1",
        "ALTER TYPE place RENAME ATTRIBUTE street TO road",
        "ALTER TYPE place RENAME ATTRIBUTE road TO street",
    ),
    (
        "SELECT (id + 99999)::small::int FROM customers WHERE id = 5",
        "ALTER DOMAIN small DROP CONSTRAINT in_range",
        "ALTER DOMAIN small ADD CONSTRAINT in_range CHECK (VALUE BETWEEN -100000 AND 100000)",
    ),
    (
        "SELECT to_tsvector('public.words', 'one two')::text",
        "ALTER TEXT SEARCH CONFIGURATION words DROP MAPPING FOR asciiword",
        "ALTER TEXT SEARCH CONFIGURATION words ADD MAPPING FOR asciiword WITH simple",
    ),
    (
        "SELECT max(x) FROM public.items",
        "REVOKE SELECT ON items FROM alice",
        "GRANT SELECT ON items TO alice",
    ),
    (
        "SELECT max(visits) FROM customers",
        "REVOKE SELECT ON customers FROM alice; GRANT SELECT (id, name, tenant) ON customers TO alice",
        "GRANT SELECT ON customers TO alice",
    ),
    (
        "SELECT count(*) FROM a.base",
        "REVOKE USAGE ON SCHEMA a FROM alice",
        "GRANT USAGE ON SCHEMA a TO alice",
    ),
    ("SELECT count(*) FROM c.items", "ALTER SCHEMA c RENAME TO c_off", "ALTER SCHEMA c_off RENAME TO c"),
    ("SELECT count(id) FROM secrets", "GRANT clerks TO alice", "REVOKE clerks FROM alice"),
    ("SELECT count(*), max(v) FROM secrets", "ALTER ROLE alice BYPASSRLS", "ALTER ROLE alice NOBYPASSRLS"),
    (
        "SELECT home::text FROM customers WHERE id = 1",
        "CREATE CAST (place AS text) WITH FUNCTION place_text(place)",
        "DROP CAST (place AS text)",
    ),
    ("SELECT 'ok'::mood::text", "CREATE TYPE a.mood AS ENUM ('sad', 'happy')", "DROP TYPE a.mood"),
    (
        "SELECT count(*) FROM tenant_totals",
        "ALTER MATERIALIZED VIEW tenant_totals SET SCHEMA b",
        "ALTER MATERIALIZED VIEW b.tenant_totals SET SCHEMA public",
    ),
    (
        "SELECT count(*) AS n FROM animals_of(2)",
        "ALTER FUNCTION animals_of(int) RENAME TO animals_with",
        "ALTER FUNCTION animals_with(int) RENAME TO animals_of",
    ),
    (
        "SELECT most(x) FROM items",
        "CREATE AGGREGATE a.most(int) (SFUNC = int4smaller, STYPE = int)",
        "DROP AGGREGATE a.most(int)",
    ),
    ("", "CREATE INDEX orders_low_customer ON orders_low (customer)", "DROP INDEX orders_low_customer"),
    ("", "COMMENT ON TABLE items IS 'a comment'", "COMMENT ON TABLE items IS NULL"),
    (
        "",
        "CREATE TABLE unrelated (id serial PRIMARY KEY); CREATE SEQUENCE more",
        "DROP TABLE unrelated; DROP SEQUENCE more",
    ),
];

/// Such changes after which the statements of others would fail, so they are not made at random. They are made in this order
/// (`definitions.rs`). The undo of the last six leaves other objects than before, so a new change must stand before these.
pub const MORE: &[(&str, &str, &str)] = &[
    (
        "SELECT sum(points) AS s FROM wealthy",
        "ALTER VIEW wealthy RENAME points TO score",
        "ALTER VIEW wealthy RENAME score TO points",
    ),
    (
        "SELECT max(body) FROM notes",
        "ALTER TABLE notes RENAME body TO content",
        "ALTER TABLE notes RENAME content TO body",
    ),
    (
        "SELECT count(*) FROM orders",
        "ALTER TABLE orders RENAME TO orders_gone",
        "ALTER TABLE orders_gone RENAME TO orders",
    ),
    (
        "SELECT count(*) FROM secrets",
        "ALTER TABLE secrets OWNER TO alice",
        "ALTER TABLE secrets OWNER TO postgres",
    ),
    (
        "SELECT count(*) FROM orders_mid",
        "ALTER TABLE orders_mid DETACH PARTITION orders_mid_rest",
        "ALTER TABLE orders_mid ATTACH PARTITION orders_mid_rest DEFAULT",
    ),
    (
        "SELECT * FROM computed",
        "CREATE OR REPLACE FUNCTION plus_two(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 20'",
        "CREATE OR REPLACE FUNCTION plus_two(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 2'",
    ),
    (
        "SELECT count(*) FROM guarded",
        "CREATE OR REPLACE FUNCTION may_see(int) RETURNS bool STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 7; END'",
        "CREATE OR REPLACE FUNCTION may_see(int) RETURNS bool STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 3; END'",
    ),
    ("SELECT count(*) FROM guarded_by_table", "UPDATE allowed SET least = 8", "UPDATE allowed SET least = 2"),
    (
        "SELECT sum(points) AS total FROM wealthy",
        "CREATE OR REPLACE RULE \"_RETURN\" AS ON SELECT TO wealthy DO INSTEAD SELECT id, points + 1 AS points FROM rich WHERE points > 40",
        "CREATE OR REPLACE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 40",
    ),
    (
        "SELECT r::text FROM rich AS r WHERE id = 20",
        "CREATE OR REPLACE VIEW rich AS SELECT id, name, score::int AS points, 9 AS more FROM customers WHERE score > 30",
        "DROP VIEW rich CASCADE; CREATE VIEW rich AS SELECT id, name, score::int AS points FROM customers WHERE score > 30; CREATE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 40; GRANT SELECT ON rich, wealthy TO alice",
    ),
    (
        "SELECT home::text FROM customers WHERE id = 2",
        "ALTER TYPE place ADD ATTRIBUTE zip text",
        "ALTER TYPE place DROP ATTRIBUTE zip",
    ),
    (
        "SELECT pg_typeof(home)::text FROM customers WHERE id = 1",
        "ALTER TYPE place RENAME TO location",
        "ALTER TYPE location RENAME TO place",
    ),
    (
        "SELECT pg_typeof(mood)::text FROM customers WHERE id = 1",
        "ALTER TYPE mood SET SCHEMA b",
        "ALTER TYPE b.mood SET SCHEMA public",
    ),
    (
        "SELECT array_to_string(enum_range(NULL::mood), ',')",
        "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
        "ALTER TYPE mood RENAME VALUE 'fine' TO 'ok'",
    ),
    (
        "SELECT i.nick FROM items AS i",
        "CREATE FUNCTION a.nick(items) RETURNS int STABLE LANGUAGE sql AS 'SELECT 5'",
        "DROP FUNCTION a.nick(items)",
    ),
    (
        "SELECT max(r::text) FROM named",
        "ALTER TABLE public.notes RENAME TO remarks",
        "ALTER TABLE public.remarks RENAME TO notes",
    ),
    (
        "SELECT max(f::text) FROM named",
        "ALTER FUNCTION public.thrice(int) RENAME TO threefold",
        "ALTER FUNCTION public.threefold(int) RENAME TO thrice",
    ),
    (
        "SELECT max(t::text) FROM named",
        "ALTER TYPE public.place RENAME TO spot",
        "ALTER TYPE public.spot RENAME TO place",
    ),
    ("SELECT max(s::text) FROM named", "ALTER SCHEMA c RENAME TO sea", "ALTER SCHEMA sea RENAME TO c"),
    (
        "SELECT max(o::regclass::text) FROM named",
        "ALTER TABLE public.notes RENAME TO remarks",
        "ALTER TABLE public.remarks RENAME TO notes",
    ),
    ("SELECT max(r::text) AS shadowed FROM named", "CREATE TABLE a.notes (i int)", "DROP TABLE a.notes"),
    (
        "SELECT max(tableoid::regclass::text) FROM orders_low",
        "ALTER TABLE orders_low RENAME TO orders_lowest",
        "ALTER TABLE orders_lowest RENAME TO orders_low",
    ),
    (
        "SELECT min(tableoid::regclass::text) FROM orders",
        "ALTER TABLE orders_high RENAME TO orders_highest",
        "ALTER TABLE orders_highest RENAME TO orders_high",
    ),
    (
        "SELECT max(tableoid::text) FROM animals",
        "ALTER TABLE puppies NO INHERIT dogs",
        "ALTER TABLE puppies INHERIT dogs",
    ),
    ("SELECT to_regclass('a.other')::text", "CREATE TABLE a.other (i int)", "DROP TABLE a.other"),
    (
        "SELECT has_table_privilege('items', 'SELECT')",
        "REVOKE SELECT ON items FROM alice",
        "GRANT SELECT ON items TO alice",
    ),
    (
        "SELECT obj_description('items'::regclass, 'pg_class')",
        "COMMENT ON TABLE items IS 'a comment'",
        "COMMENT ON TABLE items IS NULL",
    ),
    (
        "SELECT table_to_xml('items'::regclass, true, false, '')::text",
        "UPDATE items SET x = x + 1",
        "UPDATE items SET x = x - 1",
    ),
    (
        "SELECT length(schema_to_xml('c', true, false, '')::text)",
        "CREATE TABLE c.more AS SELECT 1 AS i; GRANT SELECT ON c.more TO alice",
        "DROP TABLE c.more",
    ),
    (
        "SELECT pg_get_viewdef('wealthy'::regclass)",
        "CREATE OR REPLACE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 60",
        "CREATE OR REPLACE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 40",
    ),
    ("SELECT count(*), min(id) FROM secrets", "ALTER ROLE alice SUPERUSER", "ALTER ROLE alice NOSUPERUSER"),
    ("SELECT max(id) FROM c.hidden", "GRANT pg_read_all_data TO alice", "REVOKE pg_read_all_data FROM alice"),
    ("SELECT current_user::text", "ALTER ROLE alice RENAME TO carol", "ALTER ROLE carol RENAME TO alice"),
    ("SELECT pg_has_role('clerks', 'MEMBER')", "GRANT clerks TO alice", "REVOKE clerks FROM alice"),
    (
        "SELECT sum(x) FROM items",
        "ALTER TABLE items DROP COLUMN x",
        "ALTER TABLE items ADD COLUMN x int DEFAULT 7",
    ),
    (
        "SELECT count(*) FROM items",
        "DROP TABLE items",
        "CREATE TABLE items AS SELECT 1 AS id, 2 AS x, 3 AS y, 4 AS w, 'new' AS label",
    ),
    (
        "SELECT plus_one(5)",
        "DROP FUNCTION plus_one(int)",
        "CREATE FUNCTION plus_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 5'",
    ),
    (
        "SELECT count(*) FROM rich",
        "DROP VIEW rich CASCADE",
        "CREATE VIEW rich AS SELECT id, name, 1 AS points FROM customers WHERE id < 3",
    ),
    (
        "SELECT max(total) FROM tenant_totals",
        "DROP MATERIALIZED VIEW tenant_totals",
        "CREATE MATERIALIZED VIEW tenant_totals AS SELECT 1 AS tenant, 2.5 AS total",
    ),
    (
        "SELECT count(*) FROM b.items",
        "DROP SCHEMA b CASCADE",
        "CREATE SCHEMA b; GRANT USAGE ON SCHEMA b TO alice; CREATE TABLE b.items AS SELECT 1 AS id, 2 AS x",
    ),
];

/// The changes of `PAIRS` that are made, a bit for each. If the transaction of a change is rolled back, the caller must go on with
/// a copy from before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made(u64);

/// Returns a random change of rows.
pub fn of_rows(dice: &mut Dice) -> String {
    let (id, other, number) = (dice.roll(24) + 1, dice.roll(25) * 4, dice.roll(100));
    match dice.roll(25) {
        0 => format!("UPDATE customers SET visits = visits + 1, mood = 'happy' WHERE id = {id}"),
        1 => format!("UPDATE customers SET score = {number}, marks = marks[1:3] || {number} WHERE id = {id}"),
        2 => format!("UPDATE customers SET data = data || '{{\"n\": {number}}}', home = ROW('street {id}', {number}) WHERE id = {id}"),
        3 => format!(
            "DELETE FROM customers WHERE id = {id};
             INSERT INTO customers (id, name, tenant, score, tags) VALUES ({id}, 'name {number}', {number} % 3 + 1, {number}, '{{t{id}}}')"
        ),
        4 => format!("UPDATE orders SET amount = amount + 1, open = NOT open WHERE id = {other}"),
        5 => format!("UPDATE orders_low SET code = 'code {number}' WHERE id = {}", other % 50),
        // The row moves to another partition.
        6 => format!("UPDATE orders SET id = ({other} + 48) % 100 WHERE id = {other}"),
        7 => "UPDATE orders_mid SET tenant = tenant % 3 + 1 WHERE id % 8 = 0".to_owned(),
        8 => format!("INSERT INTO orders (id, customer, tenant, amount) VALUES ({number}, {id}, {id} % 3 + 1, {number}.5)"),
        9 => "DELETE FROM orders WHERE at IS NULL".to_owned(),
        10 => format!("SELECT add_order({other})"),
        11 => format!("WITH gone AS (DELETE FROM events WHERE n = {number} AND kind <> 'd' RETURNING kind, day, note) INSERT INTO events SELECT kind, day, {number}, 'again' FROM gone"),
        12 => format!("DELETE FROM events WHERE note = 'new'; INSERT INTO events VALUES ('a', '2024-01-01', {number}, 'new')"),
        13 => format!(
            "MERGE INTO items AS i USING (VALUES ({id})) AS s (id) ON i.id = s.id
             WHEN MATCHED THEN UPDATE SET x = {number} WHEN NOT MATCHED THEN INSERT (id, x, y) VALUES (s.id, 1, {number})"
        ),
        14 => format!("UPDATE animals SET legs = {} WHERE id = {}", number % 9, id % 8),
        15 => format!("UPDATE puppies SET name = 'pup {number}'"),
        16 => format!("UPDATE secrets SET v = v + 1 WHERE id = {id}"),
        17 => format!("UPDATE secret_view SET tenant = tenant % 3 + 1 WHERE id = {id}"),
        18 => format!("INSERT INTO b.items VALUES ({number}, {id}, {id}, {id}, 'new of b'); DELETE FROM b.items WHERE id > 50"),
        22 => format!("UPDATE wide_{} SET v = v + 1", number % 20),
        23 => format!("UPDATE wide SET k = ({number} + v) % 23 WHERE k = {}", id % 23),
        24 => format!("UPDATE wide SET v = {number} WHERE k > 20; DELETE FROM wide WHERE v = {id}; INSERT INTO wide VALUES ({id} % 23, {id}, 'new')"),
        19 => "DO $$ BEGIN EXECUTE 'REFRESH MATERIALIZED VIEW ' || (SELECT oid::regclass FROM pg_class WHERE relname = 'tenant_totals'); END $$".to_owned(),
        20 => format!(
            "TRUNCATE orders_mid_1; INSERT INTO orders_mid_1 (id, customer, tenant, amount, code)
                 SELECT i, i % 24, 1, i + {id}.5, 'again' FROM generate_series(52, 96, 4) AS i"
        ),
        _ => format!("UPDATE customers SET id = id + 1000 WHERE id = {id}; UPDATE customers SET id = id - 1000 WHERE id > 900"),
    }
}

/// Returns a random change, and notes in `made` that it was made. One in four changes definitions.
pub fn choose(dice: &mut Dice, made: &mut Made) -> Change {
    let rows = |statements: String| Change { statements, is_definition: false, in_block: true };
    match dice.roll(80) {
        0..60 => {
            let statements = of_rows(dice);
            // These take locks that keep readers away until the transaction ends.
            let is_definition = ["TRUNCATE", "REFRESH"].iter().any(|word| statements.contains(word));
            Change { is_definition, ..rows(statements) }
        }
        60 => Change { statements: "VACUUM FULL items".to_owned(), is_definition: true, in_block: false },
        61 => Change { statements: "ANALYZE orders".to_owned(), is_definition: true, in_block: false },
        _ => {
            let pair = dice.roll(PAIRS.len());
            let (_, make, undo) = PAIRS[pair];
            let statements = if made.0 >> pair & 1 == 0 { make } else { undo };
            made.0 ^= 1 << pair;
            Change { statements: statements.to_owned(), is_definition: true, in_block: true }
        }
    }
}

/// The settings of the readers, with their values: those that decide which rows and objects a query finds, those that change how
/// values are read and shown, and some that change nothing. A setting that is listed twice is chosen more often.
const SETTINGS: &[(&str, &[&str])] = &[
    ("app.tenant", &["1", "2", "3"]),
    ("app.tenant", &["1", "2", "''"]),
    ("search_path", &["public", "a, public", "b, public", "a, b, public", "public, a"]),
    ("search_path", &["public", "a, public", "c, public", "\"$user\", public"]),
    ("TimeZone", &["UTC", "'America/New_York'", "'Asia/Tokyo'"]),
    ("DateStyle", &["'ISO, MDY'", "'German, DMY'", "'SQL, DMY'"]),
    ("transform_null_equals", &["on", "off"]),
    ("bytea_output", &["hex", "escape"]),
    ("row_security", &["on", "off"]),
    ("default_text_search_config", &["'pg_catalog.simple'", "'pg_catalog.english'"]),
    ("extra_float_digits", &["-5", "0", "1"]),
    ("IntervalStyle", &["postgres", "iso_8601"]),
    ("array_nulls", &["on", "off"]),
    ("quote_all_identifiers", &["on", "off"]),
    ("enable_hashjoin", &["on", "off"]),
    ("enable_mergejoin", &["on", "off"]),
    ("work_mem", &["'1MB'", "'4MB'"]),
    ("plan_cache_mode", &["auto", "force_generic_plan"]),
    ("app.other", &["1", "2"]),
];

/// Returns a change of a reader's settings: the name of the setting or `role`, and its new value.
pub fn setting(dice: &mut Dice) -> (&'static str, &'static str) {
    if dice.roll(3) == 0 {
        return ("role", ["postgres", ROLES[0], ROLES[1]][dice.roll(3)]);
    }
    let (name, values) = SETTINGS[dice.roll(SETTINGS.len())];
    (name, values[dice.roll(values.len())])
}
