//! The schema of the random queries: tables of every shape, views on them, functions, policies, and two schemas whose tables have
//! the same names. The grammar (`grammar.rs`) finds its relations in [`RELATIONS`] and [`FUNCTIONS`].
//!
//! A new [`Type`] must be added to `Type::ALL`, and to the functions of the grammar that write constants, expressions and
//! aggregates. A change of `changes.rs` may take a relation or a column away for a while: queries of it then fail with and without
//! the cache.

/// The types that the grammar knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    Big,
    Numeric,
    Text,
    Bool,
    Date,
    Moment,
    Ints,
    Texts,
    /// The enumeration `mood`.
    Mood,
    /// The domain `small`.
    Small,
    /// The composite type `place`.
    Place,
    Span,
    Json,
    Bytes,
}

impl Type {
    /// All types. Those at the beginning are the most useful ones in joins and conditions.
    pub const ALL: [Self; 15] = [
        Self::Int,
        Self::Text,
        Self::Bool,
        Self::Numeric,
        Self::Date,
        Self::Big,
        Self::Moment,
        Self::Ints,
        Self::Texts,
        Self::Mood,
        Self::Small,
        Self::Place,
        Self::Span,
        Self::Json,
        Self::Bytes,
    ];

    /// Returns the name of the type in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Big => "bigint",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Bool => "bool",
            Self::Date => "date",
            Self::Moment => "timestamptz",
            Self::Ints => "int[]",
            Self::Texts => "text[]",
            Self::Mood => "mood",
            Self::Small => "small",
            Self::Place => "place",
            Self::Span => "int4range",
            Self::Json => "jsonb",
            Self::Bytes => "bytea",
        }
    }
}

/// A relation, or a call of a function that returns rows, and its columns.
pub struct Relation {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Type)],
}

use Type::*;

const ORDERS: &[(&str, Type)] = &[
    ("id", Int),
    ("customer", Int),
    ("tenant", Int),
    ("at", Moment),
    ("amount", Numeric),
    ("code", Text),
    ("open", Bool),
    ("span", Span),
];
const EVENTS: &[(&str, Type)] = &[("kind", Text), ("day", Date), ("n", Int), ("note", Text)];
const ANIMALS: &[(&str, Type)] = &[("id", Int), ("name", Text), ("legs", Int)];
const ITEMS: &[(&str, Type)] = &[("id", Int), ("x", Int), ("y", Int), ("label", Text)];
const SECRETS: &[(&str, Type)] = &[("id", Int), ("tenant", Int), ("v", Int)];

/// The relations that a query can read from. One that is listed twice is chosen more often. The column `w` of `items` is left out:
/// it occurs only in whole rows.
pub const RELATIONS: &[Relation] = &[
    Relation {
        name: "customers",
        columns: &[
            ("id", Int),
            ("name", Text),
            ("mood", Mood),
            ("tenant", Int),
            ("parent", Int),
            ("home", Place),
            ("tags", Texts),
            ("marks", Ints),
            ("born", Date),
            ("score", Small),
            ("data", Json),
            ("raw", Bytes),
            ("visits", Int),
        ],
    },
    Relation { name: "orders", columns: ORDERS },
    Relation { name: "orders", columns: ORDERS },
    Relation { name: "orders_low", columns: ORDERS },
    Relation { name: "orders_mid", columns: ORDERS },
    Relation { name: "events", columns: EVENTS },
    Relation { name: "events_b", columns: EVENTS },
    Relation { name: "wide", columns: &[("k", Int), ("v", Int), ("label", Text)] },
    Relation { name: "animals", columns: ANIMALS },
    Relation { name: "ONLY animals", columns: ANIMALS },
    Relation { name: "dogs", columns: &[("id", Int), ("name", Text), ("legs", Int), ("bark", Text)] },
    Relation { name: "secrets", columns: &[("id", Int), ("tenant", Int), ("owner", Text), ("v", Int)] },
    Relation { name: "items", columns: ITEMS },
    Relation { name: "b.items", columns: ITEMS },
    Relation { name: "notes", columns: &[("id", Int), ("customer", Int), ("body", Text)] },
    Relation { name: "rich", columns: &[("id", Int), ("name", Text), ("points", Int)] },
    Relation { name: "wealthy", columns: &[("id", Int), ("points", Int)] },
    Relation { name: "secret_view", columns: SECRETS },
    Relation { name: "secret_invoker", columns: SECRETS },
    Relation { name: "order_totals", columns: &[("customer", Int), ("total", Numeric), ("n", Big)] },
    Relation { name: "tenant_totals", columns: &[("tenant", Int), ("total", Numeric)] },
];

/// Calls of functions that return rows. `%` stands for an argument of type int.
pub const FUNCTIONS: &[Relation] = &[
    Relation { name: "orders_of(%)", columns: &[("id", Int), ("amount", Numeric)] },
    Relation { name: "animals_of(%)", columns: ANIMALS },
    Relation { name: "generate_series(1, 3 + % % 5)", columns: &[("g", Int)] },
];

/// The roles of the readers besides the superuser. `set_up` (`mod.rs`) creates them, and the role `clerks`, before [`SETUP`].
pub const ROLES: [&str; 2] = ["alice", "bob"];

/// Creates everything but the roles.
pub const SETUP: &str = "
    CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA c; GRANT USAGE ON SCHEMA a, b, c TO alice, bob;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO alice, bob;
    ALTER DEFAULT PRIVILEGES GRANT SELECT, UPDATE, INSERT, DELETE ON TABLES TO alice;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'meh');
    CREATE DOMAIN small AS int CONSTRAINT in_range CHECK (VALUE BETWEEN -100000 AND 100000);
    CREATE TYPE place AS (street text, number int);

    CREATE TABLE customers (id int PRIMARY KEY, name text, mood mood, tenant int, parent int, home place, tags text[], marks int[],
        born date, score small, data jsonb, raw bytea, visits int DEFAULT 0);
    INSERT INTO customers
        SELECT i, CASE WHEN i % 7 > 0 THEN 'name ' || i % 11 END, (ARRAY['sad', 'ok', 'happy', 'meh', NULL])[i % 5 + 1]::mood, i % 3 + 1, nullif(i / 2, i),
            CASE WHEN i % 4 > 0 THEN ROW('street ' || i % 3, i)::place END, CASE WHEN i % 3 > 0 THEN ARRAY['t' || i % 4, 'u', NULL] END,
            ARRAY[i % 5, i % 3], date '2020-01-01' + i * 40, i * 3, jsonb_build_object('n', i % 6, 't', 'text ' || i % 2),
            decode(md5(i::text), 'hex'), i % 10
          FROM generate_series(1, 24) AS i;

    CREATE TABLE orders (id int, customer int, tenant int, at timestamptz, amount numeric(10, 2), code text, open bool, span int4range)
        PARTITION BY RANGE (id);
    CREATE TABLE orders_low PARTITION OF orders FOR VALUES FROM (0) TO (50);
    CREATE TABLE orders_mid PARTITION OF orders FOR VALUES FROM (50) TO (100) PARTITION BY LIST (tenant);
    CREATE TABLE orders_mid_1 PARTITION OF orders_mid FOR VALUES IN (1);
    CREATE TABLE orders_mid_rest PARTITION OF orders_mid DEFAULT;
    CREATE TABLE orders_high PARTITION OF orders FOR VALUES FROM (100) TO (150);
    CREATE INDEX ON orders_low (id);
    INSERT INTO orders
        SELECT i, CASE WHEN i % 5 > 0 THEN i % 24 + 1 END, i % 3 + 1, timestamptz '2024-03-01 22:30:00+00' + i * interval '7 hours', i * 1.25,
            'code ' || i % 6, CASE WHEN i % 6 > 0 THEN i % 2 = 0 END, int4range(i, i + i % 9)
          FROM generate_series(0, 140, 4) AS i;

    CREATE TABLE events (kind text, day date, n int, note text) PARTITION BY LIST (kind);
    CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a');
    CREATE TABLE events_b PARTITION OF events FOR VALUES IN ('b', 'c') PARTITION BY RANGE (n);
    CREATE TABLE events_b_low PARTITION OF events_b FOR VALUES FROM (0) TO (50);
    CREATE TABLE events_b_high PARTITION OF events_b FOR VALUES FROM (50) TO (100);
    CREATE TABLE events_b_top (LIKE events); INSERT INTO events_b_top VALUES ('b', '2024-01-01', 100, 'top'), ('c', NULL, 101, NULL);
    CREATE TABLE events_d (LIKE events); INSERT INTO events_d VALUES ('d', '2024-02-02', 7, 'd'), ('d', NULL, 8, NULL);
    INSERT INTO events
        SELECT (ARRAY['a', 'b', 'c'])[i / 3 % 3 + 1], date '2024-01-01' + i, i, CASE WHEN i % 4 > 0 THEN 'note ' || i % 5 END
          FROM generate_series(0, 96, 3) AS i;

    CREATE TABLE wide (k int, v int, label text) PARTITION BY LIST (k);
    DO $$ BEGIN FOR i IN 0..19 LOOP EXECUTE format('CREATE TABLE wide_%s PARTITION OF wide FOR VALUES IN (%s)', i, i); END LOOP; END $$;
    CREATE TABLE wide_rest PARTITION OF wide DEFAULT;
    INSERT INTO wide SELECT i % 23, i, 'label ' || i % 5 FROM generate_series(0, 40) AS i;

    CREATE TABLE animals (id int, name text, legs int);
    CREATE TABLE dogs (bark text) INHERITS (animals);
    CREATE TABLE puppies (weeks int) INHERITS (dogs);
    INSERT INTO animals VALUES (1, 'ant', 6), (2, 'bird', 2), (3, NULL, NULL);
    INSERT INTO dogs VALUES (4, 'rex', 4, 'woof'), (5, 'lassie', 4, NULL);
    INSERT INTO puppies VALUES (6, 'pip', 4, 'wif', 3), (7, 'pop', 3, 'waf', 9);

    CREATE TABLE secrets (id int, tenant int, owner text, v int);
    INSERT INTO secrets SELECT i, i % 3 + 1, (ARRAY['alice', 'bob', 'nobody'])[i / 3 % 3 + 1], i * 2 FROM generate_series(1, 18) AS i;
    CREATE POLICY mine ON secrets USING (owner = current_user);
    CREATE POLICY tenants ON secrets USING (tenant = nullif(current_setting('app.tenant', true), '')::int);
    CREATE POLICY of_clerks ON secrets TO clerks USING (v > 25);
    ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;

    CREATE TABLE items (id int, x int, y int, w int, label text);
    INSERT INTO items SELECT i, i % 5, i * 2, i, 'label ' || i FROM generate_series(1, 12) AS i;
    CREATE TABLE items_other (LIKE items); INSERT INTO items_other VALUES (1, 2, 3, 4, 'other'), (2, NULL, NULL, NULL, NULL);
    CREATE TABLE b.items (LIKE items); INSERT INTO b.items VALUES (1, 1, 1, 1, 'of b'), (9, 9, 9, 9, NULL), (10, 0, 3, 4, 'of b');
    CREATE SCHEMA alice; GRANT USAGE ON SCHEMA alice TO alice; CREATE TABLE alice.items AS SELECT * FROM b.items WHERE id < 10;
    CREATE TABLE a.base AS SELECT 1 AS v; CREATE TABLE c.items AS SELECT * FROM b.items WHERE id > 8;
    CREATE TABLE notes (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE, body text);
    INSERT INTO notes SELECT i, i % 12 + 1, 'body ' || i % 4 FROM generate_series(1, 20) AS i;

    CREATE FUNCTION plus_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
    CREATE FUNCTION thrice(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 3; END';
    CREATE FUNCTION visits_of(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT sum(visits)::int FROM customers WHERE id = $1';
    CREATE FUNCTION order_count(int) RETURNS int STABLE LANGUAGE plpgsql AS
        'DECLARE found int; BEGIN SELECT count(*) INTO found FROM orders WHERE customer = $1; RETURN found; END';
    CREATE FUNCTION my_tenant() RETURNS int STABLE LANGUAGE sql AS 'SELECT nullif(current_setting(''app.tenant'', true), '''')::int';
    CREATE FUNCTION greeting(text) RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN ''hello '' || $1; END';
    CREATE FUNCTION shown(timestamptz) RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1::text; END';
    CREATE FUNCTION secret_sum() RETURNS int STABLE SECURITY DEFINER LANGUAGE plpgsql AS
        'BEGIN RETURN (SELECT sum(v) FROM public.secrets); END';
    ALTER FUNCTION secret_sum() OWNER TO alice;
    CREATE FUNCTION orders_of(int) RETURNS TABLE (id int, amount numeric) STABLE LANGUAGE sql AS
        'SELECT id, amount FROM orders WHERE customer = $1';
    CREATE FUNCTION animals_of(int) RETURNS SETOF animals STABLE LANGUAGE plpgsql AS
        'BEGIN RETURN QUERY SELECT * FROM animals WHERE legs >= $1; END';
    CREATE FUNCTION add_order(int) RETURNS void LANGUAGE plpgsql AS
        'BEGIN UPDATE orders SET amount = amount + 1 WHERE id = $1; END';
    CREATE FUNCTION joined(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1 || ''-'' || $2';
    CREATE FUNCTION joined_back(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $2 || ''+'' || $1';
    CREATE FUNCTION place_text(place) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT ($1).street';
    CREATE AGGREGATE most(int) (SFUNC = int4larger, STYPE = int);
    CREATE FUNCTION plus_two(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 2';
    CREATE VIEW computed AS SELECT plus_two(3) AS v;
    CREATE FUNCTION may_see(int) RETURNS bool STABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 3; END';
    CREATE TABLE guarded AS SELECT generate_series(1, 10) AS v; ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY by_function ON guarded USING (may_see(v));
    CREATE TABLE allowed AS SELECT 2 AS least;
    CREATE TABLE guarded_by_table AS TABLE guarded; ALTER TABLE guarded_by_table ENABLE ROW LEVEL SECURITY;
    CREATE POLICY by_table ON guarded_by_table USING (v > (SELECT least FROM allowed));
    CREATE TABLE named (r regclass, f regprocedure, t regtype, s regnamespace, o oid);
    INSERT INTO named VALUES ('notes', 'thrice(int)', 'place', 'c', 'notes'::regclass::oid);
    CREATE TABLE c.hidden AS SELECT 1 AS id; REVOKE ALL ON c.hidden FROM alice;
    CREATE OPERATOR ### (FUNCTION = joined, LEFTARG = text, RIGHTARG = text);
    CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple);

    CREATE VIEW rich AS SELECT id, name, score::int AS points FROM customers WHERE score > 30;
    CREATE VIEW wealthy AS SELECT id, points FROM rich WHERE points > 40;
    CREATE VIEW secret_view AS SELECT id, tenant, v FROM secrets;
    CREATE VIEW secret_invoker WITH (security_invoker = true) AS SELECT id, tenant, v FROM secrets;
    CREATE VIEW order_totals AS SELECT customer, sum(amount) AS total, count(*) AS n FROM orders GROUP BY customer;
    CREATE MATERIALIZED VIEW tenant_totals AS SELECT tenant, sum(amount) AS total FROM orders GROUP BY tenant;
    CREATE UNIQUE INDEX ON tenant_totals (tenant);
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO alice, bob";
