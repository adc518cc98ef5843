-- The data of every PostgreSQL contender, and what a careful user would write without pg_cache.
-- bench.first_key, bench.keys and bench.value are set by the harness, which fills Redis with the same.

CREATE EXTENSION pg_cache;

-- What is read.
CREATE UNLOGGED TABLE entry (key text PRIMARY KEY, value text NOT NULL);
INSERT INTO entry
SELECT (current_setting('bench.first_key')::bigint + i)::text, current_setting('bench.value')
FROM generate_series(0, current_setting('bench.keys')::int - 1) AS i;

-- What is written, apart from what is read: dead rows must not slow the readers down.
CREATE UNLOGGED TABLE written (LIKE entry INCLUDING ALL);
INSERT INTO written SELECT * FROM entry;

-- The keys in a random order that is the same in every run: what a SELECT looks up one after the other.
SELECT setseed(0.5);
CREATE UNLOGGED TABLE probe AS SELECT key FROM entry ORDER BY random();

CREATE FUNCTION lookup_sql(wanted text) RETURNS text LANGUAGE sql STABLE STRICT
AS 'SELECT value FROM entry WHERE key = wanted';

-- Keeps the prepared plan of its statement for the session.
CREATE FUNCTION lookup_plpgsql(wanted text) RETURNS text LANGUAGE plpgsql STABLE STRICT
AS 'BEGIN RETURN (SELECT value FROM entry WHERE key = wanted); END';
