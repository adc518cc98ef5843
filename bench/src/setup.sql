-- Creates the tables and functions that pg_cache is compared with: the cache that a careful user would write by hand. The program
-- sets bench.first_key, bench.keys and bench.value before (test_servers.rs, tables/side.rs).

-- The read measurements read this table.
CREATE UNLOGGED TABLE entry (key text PRIMARY KEY, value text NOT NULL);
INSERT INTO entry
SELECT (current_setting('bench.first_key')::bigint + i)::text, current_setting('bench.value')
FROM generate_series(0, current_setting('bench.keys')::int - 1) AS i;

-- The write measurements write to a table of their own, so that dead rows never slow down the reads.
CREATE UNLOGGED TABLE written (LIKE entry INCLUDING ALL);
INSERT INTO written SELECT * FROM entry;

-- The keys that a SELECT looks up one after the other. Their order is random and the same in every run.
SELECT setseed(0.5);
CREATE UNLOGGED TABLE probe AS SELECT key FROM entry ORDER BY random();

CREATE FUNCTION lookup_sql(wanted text) RETURNS text LANGUAGE sql STABLE STRICT
AS 'SELECT value FROM entry WHERE key = wanted';

-- PL/pgSQL keeps the prepared plan of the query for the session.
CREATE FUNCTION lookup_plpgsql(wanted text) RETURNS text LANGUAGE plpgsql STABLE STRICT
AS 'BEGIN RETURN (SELECT value FROM entry WHERE key = wanted); END';
