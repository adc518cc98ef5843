-- In parallel queries the functions run in the leader, because only the leader knows the transaction's uncommitted changes.
CREATE TABLE rows AS SELECT i FROM generate_series(1, 10000) AS i;
ANALYZE rows;
SELECT count(*) FILTER (WHERE cache_set('row ' || i, to_jsonb(i))) FROM rows;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT i, cache_get('row ' || i) FROM rows WHERE i % 100 = 0;
SELECT sum(value::int) FROM (SELECT cache_get('row ' || i) AS value FROM rows WHERE i % 100 = 0) AS found;
BEGIN;
SELECT cache_set('row 100', '-100'), cache_delete('row 200');
SELECT i, cache_get('row ' || i) FROM rows WHERE i % 100 = 0 ORDER BY i LIMIT 3;
SELECT sum(value::int) FROM (SELECT cache_get('row ' || i) AS value FROM rows WHERE i % 100 = 0) AS found;
-- cache_set works in a parallel query, too.
SELECT count(*) FILTER (WHERE stored) FROM (SELECT cache_set('row ' || i, '0') AS stored FROM rows WHERE i % 100 = 0) AS sets;
ROLLBACK;
SELECT sum(value::int) FROM (SELECT cache_get('row ' || i) AS value FROM rows WHERE i % 100 = 0) AS found;
-- No call fails if the planner adds a Gather to every plan that permits one. The setting has another name from PostgreSQL 16 on.
SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode');
SELECT cache_get('row 1'), cache_set('row 1', '"new"'), cache_get('row 1'), cache_exists('row 2'), cache_incr('count');
SELECT key, value FROM cache_get_many('{row 1,row 2}');
SELECT cache_delete('row 1'), cache_invalidate_tag('t');
SELECT count(*) FROM rows WHERE cache_exists('row ' || i);
SELECT cache_flush('default');
-- A function that is wrongly declared PARALLEL SAFE calls the cache functions in a worker. There, reads miss, sets store nothing,
-- and deletes and invalidations raise an error.
SELECT count(set_config(name, 'off', false)) FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode');
SET parallel_leader_participation = off;
CREATE FUNCTION wrong_get(key text) RETURNS jsonb PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN cache_get(key); END';
CREATE FUNCTION wrong_fetch(key text) RETURNS jsonb PARALLEL SAFE LANGUAGE plpgsql AS $$
    BEGIN RETURN cache_fetch(key, 'SELECT count(*) FROM rows'); END $$;
CREATE FUNCTION wrong_set(key text) RETURNS boolean PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN cache_set(key, ''1''); END';
CREATE FUNCTION wrong_touch(key text) RETURNS boolean PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN cache_touch(key, ''1 s''); END';
CREATE FUNCTION wrong_delete(key text) RETURNS boolean PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN RETURN cache_delete(key); END';
CREATE FUNCTION wrong_tag(tag text) RETURNS void PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN PERFORM cache_invalidate_tag(tag); END';
BEGIN;
SELECT cache_set('row ' || i, '"old"') FROM generate_series(1, 2) AS i;
COMMIT;
BEGIN;
SELECT cache_set('row 1', '"own"');
SELECT DISTINCT wrong_get('row ' || i) FROM rows WHERE i <= 2;
COMMIT;
-- Inside a parallel query, cache_fetch runs its query and does not store the result, in a worker or in the leader.
SELECT DISTINCT wrong_fetch('fetched') FROM rows WHERE i <= 2;
SET parallel_leader_participation = on;
SELECT DISTINCT wrong_fetch('fetched') FROM rows WHERE i <= 2;
SET parallel_leader_participation = off;
SELECT cache_exists('fetched');
SELECT count(*) FILTER (WHERE wrong_set('new ' || i)) AS stored, count(*) FILTER (WHERE wrong_touch('row ' || i)) AS touched FROM rows WHERE i <= 2;
\set SHOW_CONTEXT never
SELECT count(*) FROM rows WHERE i <= 2 AND wrong_delete('row ' || i);
SELECT count(*) FROM rows WHERE i <= 2 AND wrong_tag('t') IS NULL;
SELECT cache_get('row 1'), cache_get('row 2'), cache_get('new 1') IS NULL AS not_stored;
-- cache_create_space fails in a worker with the server's own error.
CREATE FUNCTION wrong_create(name text) RETURNS void PARALLEL SAFE LANGUAGE plpgsql AS 'BEGIN PERFORM cache_create_space(name); END';
SELECT count(*) FROM rows WHERE i <= 2 AND wrong_create('wrong') IS NULL;
