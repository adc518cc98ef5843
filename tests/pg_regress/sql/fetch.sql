-- cache_fetch stores the result of a query by key. The result is a hit until a table that the query has read changes.
CREATE TABLE orders (id int PRIMARY KEY, cents int);
CREATE TABLE other (id int);
INSERT INTO orders VALUES (1, 100), (2, 200);
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
INSERT INTO other VALUES (1);
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
UPDATE orders SET cents = 150 WHERE id = 1;
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_get('sum');

-- The result also depends on tables that the query reads through views and functions.
CREATE VIEW totals AS SELECT sum(cents) AS total FROM orders;
CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT total FROM totals); END $$;
SELECT cache_fetch('view', 'SELECT total FROM totals'), cache_fetch('function', 'SELECT total()');
DELETE FROM orders WHERE id = 2;
SELECT cache_fetch('view', 'SELECT total FROM totals'), cache_status();
SELECT cache_fetch('function', 'SELECT total()'), cache_status();
SELECT cache_fetch('function', 'SELECT total()'), cache_status();

-- Partitions.
CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
INSERT INTO p VALUES (1, 1), (11, 1);
SELECT cache_fetch('all', 'SELECT count(*) FROM p'), cache_fetch('one', 'SELECT count(*) FROM p WHERE id = 1'),
       cache_fetch('part', 'SELECT count(*) FROM p2');
INSERT INTO p1 VALUES (2, 1);
SELECT cache_fetch('all', 'SELECT count(*) FROM p'), cache_status();
SELECT cache_fetch('part', 'SELECT count(*) FROM p2'), cache_status();
INSERT INTO p VALUES (12, 1);
SELECT cache_fetch('part', 'SELECT count(*) FROM p2'), cache_status();
SELECT cache_fetch('all', 'SELECT count(*) FROM p'), cache_status();

-- Arguments take the types that the query infers. Results of several types, and a query without rows, whose null is stored.
SELECT cache_fetch('args', 'SELECT $1::date + $2::int', '["2026-01-30", 3]');
SELECT cache_fetch('text', 'SELECT $1 || ''!''', '["it''s \"quoted\""]'), cache_fetch('null', 'SELECT $1::int', '[null]');
SELECT cache_fetch('row', 'SELECT o FROM orders AS o ORDER BY id LIMIT 1'), cache_fetch('numeric', 'SELECT $1::numeric', '[12345678901234567890.123]');
SELECT cache_fetch('none', 'SELECT 1 FROM orders WHERE false') IS NULL AS none, cache_status();
SELECT cache_fetch('none', 'SELECT 1 FROM orders WHERE false') IS NULL AS none, cache_status();
INSERT INTO orders VALUES (3, 0);
SELECT cache_fetch('none', 'SELECT count(*) FROM orders WHERE id = 3'), cache_status();

-- The arguments tags, ttl, depends and refresh.
SELECT cache_fetch('tagged', 'SELECT count(*) FROM orders', tags => '{t}', ttl => '1 h'), cache_ttl('tagged') > '59 min' AS an_hour;
SELECT cache_invalidate_tag('t');
SELECT cache_fetch('tagged', 'SELECT count(*) FROM orders', tags => '{t}'), cache_status();
SELECT cache_fetch('depends', 'SELECT count(*) FROM orders', depends => '{other}'), cache_fetch('nothing', 'SELECT count(*) FROM orders', depends => '{}');
INSERT INTO orders VALUES (4, 0);
SELECT cache_fetch('depends', 'SELECT count(*) FROM orders', depends => '{other}'), cache_status();
SELECT cache_fetch('depends', 'SELECT count(*) FROM orders', depends => '{other}', refresh => true), cache_status();
INSERT INTO other VALUES (2);
SELECT cache_fetch('depends', 'SELECT count(*) FROM orders', depends => '{other}'), cache_status();
SELECT cache_fetch('nothing', 'SELECT count(*) FROM orders', depends => '{}'), cache_status();

-- depends refuses views and indexes, because no transaction writes to them.
SELECT cache_fetch('depends', 'SELECT 1', depends => '{orders,totals}');
SELECT cache_fetch('depends', 'SELECT 1', depends => '{orders_pkey}');

-- A change of definitions invalidates the results of queries. Temporary tables, indexes and ANALYZE do not.
CREATE OR REPLACE VIEW totals AS SELECT -sum(cents) AS total FROM orders;
SELECT cache_fetch('view', 'SELECT total FROM totals'), cache_status();
CREATE OR REPLACE FUNCTION total() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT 42';
SELECT cache_fetch('function', 'SELECT total()'), cache_status();
SELECT cache_fetch('function', 'SELECT total()'), cache_status();
CREATE TEMP TABLE mine (id int);
CREATE INDEX ON orders (cents);
ANALYZE orders;
SELECT cache_fetch('function', 'SELECT total()'), cache_status();

-- In a transaction that has written a table the query reads, cache_fetch runs the query and stores nothing.
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders');
BEGIN;
UPDATE orders SET cents = 1;
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_fetch('other', 'SELECT count(*) FROM other'), cache_status();
ROLLBACK;
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_fetch('other', 'SELECT count(*) FROM other'), cache_status();

-- A REPEATABLE READ transaction gets results from before its start, and stores none.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_fetch('new', 'SELECT count(*) FROM orders'), cache_status();
COMMIT;
SELECT cache_get('new');

-- A SERIALIZABLE transaction gets no cached results that depend on tables, because the server must know what it reads.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT cache_fetch('sum', 'SELECT sum(cents) FROM orders'), cache_status();
SELECT cache_get('sum');
COMMIT;

-- A result of a query on a table with row security is stored only in a space with scope => 'role'.
CREATE TABLE secured (owner name DEFAULT current_user, v int);
INSERT INTO secured VALUES ('fetch_a', 1), ('fetch_b', 2);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secured USING (owner = current_user);
CREATE ROLE fetch_a;
CREATE ROLE fetch_b;
GRANT SELECT ON secured TO fetch_a, fetch_b;
SELECT cache_create_space('own', scope => 'role'), cache_create_space('all');
SELECT cache_grant('own', '-', 'write'), cache_grant('all', '-', 'write');
SET ROLE fetch_a;
SELECT cache_fetch('k', 'SELECT sum(v) FROM secured', space => 'all'), cache_status();
SELECT cache_fetch('k', 'SELECT sum(v) FROM secured', space => 'own'), cache_status();
RESET ROLE;
SELECT cache_fetch('k', 'SELECT sum(v) FROM secured', space => 'all'), cache_status();
SET ROLE fetch_b;
SELECT cache_fetch('k', 'SELECT sum(v) FROM secured', space => 'all'), cache_status();
SELECT cache_fetch('k', 'SELECT sum(v) FROM secured', space => 'own'), cache_status();
SELECT cache_fetch('k', 'SELECT sum(v) FROM secured', space => 'own'), cache_status();
RESET ROLE;
-- A role without SELECT on the table gets an error.
CREATE TABLE closed AS SELECT 1 AS v;
SET ROLE fetch_a;
SELECT cache_fetch('closed', 'SELECT v FROM closed', space => 'all');
RESET ROLE;
-- A SECURITY DEFINER function fetches as its owner. In a space of scope role, its caller cannot get the owner's result in another
-- way.
CREATE FUNCTION definer() RETURNS jsonb SECURITY DEFINER LANGUAGE sql AS $$ SELECT cache_fetch('closed', 'SELECT v FROM closed', space => 'own') $$;
SET ROLE fetch_a;
SELECT definer(), cache_status();
SELECT definer(), cache_status();
SELECT cache_get('closed', 'own');
SELECT cache_fetch('closed', 'SELECT v FROM closed', space => 'own');
RESET ROLE;
-- A role that has only the privilege read on the space gets the result of the query, which is not stored.
SELECT cache_revoke('all', '-', 'write'), cache_grant('all', '-', 'read');
SET ROLE fetch_a;
SELECT cache_fetch('reader', 'SELECT 1', space => 'all'), cache_status();
RESET ROLE;

-- cache_fetch in a query of cache_fetch: the inner result is stored, the outer result is not.
SELECT cache_fetch('outer', $$ SELECT cache_fetch('inner', 'SELECT count(*) FROM other') $$), cache_status();
SELECT cache_get('outer'), cache_get('inner');

-- The identity of a result is key, text and arguments. Anything else under the key is a miss, and is replaced.
SELECT cache_fetch('id', 'SELECT $1::int', '[1]'), cache_status();
SELECT cache_fetch('id', 'SELECT $1::int', '[1]'), cache_status();
SELECT cache_fetch('id', 'SELECT $1::int', '[2]'), cache_status();
SELECT cache_fetch('id', 'SELECT $1::int', '[1]'), cache_status();
SELECT cache_fetch('id', 'SELECT 5 + $1::int', '[1]'), cache_status();
SELECT cache_fetch('id', 'SELECT 5 + $1::int', '[null]') IS NULL AS null, cache_status();
SELECT cache_fetch('id', 'SELECT 5 + $1::int', '[1]'), cache_status();
SELECT cache_get('id'), cache_status();
SELECT * FROM cache_get_many('{id}');
SELECT value, status FROM cache_acquire('id');
SELECT cache_get_text('id');
SELECT cache_set('id', '"by hand"');
SELECT cache_fetch('id', 'SELECT 5 + $1::int', '[1]'), cache_status();
SELECT cache_delete('id'), cache_exists('id');
-- A transaction that has changed the time to live of the result.
SELECT cache_fetch('id', 'SELECT 1');
BEGIN;
SELECT cache_touch('id', '1 h'), cache_fetch('id', 'SELECT 1'), cache_status();
SELECT cache_fetch('id', 'SELECT 2'), cache_status();
COMMIT;
-- No arguments are no arguments, however they are written.
SELECT cache_fetch('id', 'SELECT 1'), cache_fetch('id', 'SELECT 1', '[]'), cache_status();
SELECT cache_fetch('id', 'SELECT 1', 'null'), cache_status();
-- A null of another query is no null of this one.
SELECT cache_fetch('id', 'SELECT null::int') IS NULL AS null, cache_fetch('id', 'SELECT 1'), cache_status();
-- A mismatch counts as a miss.
SELECT cache_create_space('counted');
SELECT cache_fetch('id', 'SELECT $1::int', jsonb_build_array(i), space => 'counted') FROM generate_series(1, 3) AS i;
SELECT cache_fetch('id', 'SELECT $1::int', '[3]', space => 'counted');
SELECT round(hit_ratio::numeric, 2) AS hit_ratio FROM cache_stats WHERE space = 'counted';
-- A transaction that has set the key itself.
BEGIN;
SELECT cache_set('id', '"own"');
SELECT cache_fetch('id', 'SELECT 1'), cache_status(), cache_get('id');
COMMIT;
SELECT cache_get('id'), cache_fetch('id', 'SELECT 1'), cache_status();

-- A JSON array binds to an array parameter.
SELECT cache_fetch('array', 'SELECT array_agg(id ORDER BY id) FROM orders WHERE id = ANY ($1::int[])', '[[3, 1, 99]]');
SELECT cache_fetch('array', 'SELECT to_jsonb($1::int[])', '[[1, null, "3"]]'), cache_fetch('array', 'SELECT to_jsonb($1::int[])', '[[]]'),
       cache_fetch('array', 'SELECT to_jsonb($1::int[][])', '[[[1, 2], [3, null]]]'), cache_fetch('array', 'SELECT $1::int[] IS NULL', '[null]'),
       cache_fetch('array', 'SELECT to_jsonb($1::int[])', '["{1,2}"]');
SELECT cache_fetch('array', 'SELECT to_jsonb($1::text[])', '[["a\"b\\c", "NULL", "", "{x,y}", null, 1.50, true, {"a": [1]}]]');
SELECT cache_fetch('array', 'SELECT to_jsonb($1::jsonb[])', '[["a", {"a": 1}, [1, [2]], null, true]]'),
       cache_fetch('array', 'SELECT to_jsonb($1::json[])', '[[[1], [2, 3]]]'), cache_fetch('array', 'SELECT $1::jsonb', '[[1, [2]]]');
SELECT cache_fetch('array', 'SELECT array_length($1::box[], 1)', '[["(1,1),(0,0)", "(2,2),(1,1)"]]');
CREATE DOMAIN ids AS int[] CHECK (array_length(VALUE, 1) < 3);
SELECT cache_fetch('array', 'SELECT to_jsonb($1::ids)', '[[1, 2]]'), cache_fetch('array', 'SELECT length($1::text)', '[[1, 2]]');
SELECT cache_fetch('array', 'SELECT to_jsonb($1::ids)', '[[1, 2, 3]]');
SELECT cache_fetch('array', 'SELECT $1::int + cardinality($2::int[])', '[1, [1, "x"]]');
SELECT cache_fetch('array', 'SELECT to_jsonb($1::int[])', '[[[1, 2], [3]]]');
-- The server's message about this array depends on its version.
\set VERBOSITY sqlstate
SELECT cache_fetch('array', 'SELECT to_jsonb($1::int[])', '[{"a": 1}]');
\set VERBOSITY default
-- A JSON object binds to a JSON parameter.
SELECT cache_fetch('object', 'SELECT $1::jsonb -> ''a''', '[{"a": [1]}]'), cache_fetch('object', 'SELECT ($1::orders).cents', '["(7,8)"]');

-- One column and one row.
CREATE TABLE dashboard AS SELECT i AS id, i * 10 AS cents FROM generate_series(1, 2) AS i;
SELECT cache_fetch('shape', 'SELECT * FROM dashboard;');
SELECT cache_fetch('shape', 'SELECT id FROM dashboard');
\set VERBOSITY sqlstate
SELECT cache_fetch('shape', 'SELECT * FROM dashboard');
SELECT cache_fetch('shape', 'SELECT id FROM dashboard');
\set VERBOSITY default
SELECT cache_fetch('shape', 'SELECT id FROM dashboard -- all');
SELECT cache_fetch('shape', 'SELECT FROM dashboard');
SELECT cache_fetch('shape', 'SELECT jsonb_agg(all_rows) FROM (SELECT * FROM dashboard) AS all_rows');
SELECT cache_fetch('shape', 'SELECT jsonb_agg(value) FROM (SELECT id FROM dashboard) AS all_rows(value)');
SELECT cache_exists('shape');

-- Queries that end in an error leave no value and no lease.
SELECT cache_fetch('bad', 'SELECT 1; SELECT 2');
SELECT cache_fetch('bad', '');
SELECT cache_fetch('bad', '/* nothing */ ; -- at all');
SELECT cache_fetch('bad', 'SELECT 1 / 0');
SELECT cache_fetch('bad', 'SELECT * FROM nowhere');
SELECT cache_fetch('bad', 'SELECT 1 +');
SELECT cache_fetch('bad', 'UPDATE orders SET cents = 0');
SELECT cache_fetch('bad', 'WITH w AS (DELETE FROM orders RETURNING 1) SELECT count(*) FROM w');
SELECT cache_fetch('bad', 'SELECT id FROM orders FOR UPDATE');
SELECT cache_fetch('bad', 'SELECT count(*) FROM (SELECT id FROM orders FOR SHARE) AS o');
SELECT cache_fetch('bad', 'SELECT 1 AS one INTO made');
SELECT cache_fetch('bad', 'CREATE TABLE made (id int)');
SELECT cache_fetch('bad', 'SHOW work_mem');
SELECT cache_fetch('bad', 'SELECT $1::int', '[1, 2]');
SELECT cache_fetch('bad', 'SELECT $1::int + $2::int', '[1]');
SELECT cache_fetch('bad', 'SELECT $1::int');
SELECT cache_fetch('bad', 'SELECT $1::int', '["x"]');
SELECT cache_fetch('bad', 'SELECT $2::int', '[1, 2]');
SELECT cache_fetch('bad', 'SELECT $1::int', '{"a": 1}');
SELECT cache_fetch('bad', 'SELECT $1::int', '1');
-- Errors keep where they come from, also those that a function of the query raises, and those of a fetch inside of a fetch.
CREATE FUNCTION fails() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT id FROM orders WHERE cents = nothing); END $$;
SELECT cache_fetch('bad', 'SELECT fails()');
SELECT cache_fetch('outer', $$ SELECT cache_fetch('inner', 'SELECT 1 / 0') $$);
CREATE DOMAIN small AS int CONSTRAINT is_small CHECK (VALUE < 10);
DO $$
DECLARE type text; rule text; place text;
BEGIN
    PERFORM cache_fetch('bad', 'SELECT $1::small', '[10]');
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS type = PG_DATATYPE_NAME, rule = CONSTRAINT_NAME, place = PG_EXCEPTION_CONTEXT;
    RAISE INFO '% % %', type, rule, place;
END $$;
-- An error that the query has caught is not part of a later one.
CREATE FUNCTION catches() RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        RETURN nothing;
    EXCEPTION WHEN undefined_column THEN
        RETURN 0;
    END;
END $$;
SELECT cache_fetch('bad', 'SELECT catches() UNION ALL SELECT 1');
SELECT cache_fetch('bad', 'SELECT 1 / catches()');
SELECT 1 / 0;
SELECT cache_fetch('bad', NULL);
SELECT cache_fetch(NULL, 'SELECT 1');
SELECT cache_fetch('bad', 'SELECT 1', stale_ok => '-1 min');
SELECT cache_set_text('kind', 'text');
SELECT cache_fetch('kind', 'SELECT 1');
SELECT * FROM cache_acquire('bad', hold => NULL);
SELECT * FROM cache_check();
DROP OWNED BY fetch_a, fetch_b;
DROP ROLE fetch_a, fetch_b;

-- The stored null of a query has a kind of its own. cache_get reads it; cache_get_bytes and cache_acquire refuse it.
SELECT cache_fetch('null of a query', 'SELECT NULL::int') IS NULL AS null;
SELECT cache_get('null of a query');
SELECT cache_get_bytes('null of a query');
SELECT status FROM cache_acquire('null of a query');

-- A counter is never taken for the result of a query. Neither is a result that was stored with other depends: its writer has said
-- itself when it becomes invalid.
SELECT cache_incr('counted', 7), cache_fetch('counted', 'SELECT 99'), cache_status(), cache_fetch('counted', 'SELECT 99'), cache_status();
CREATE TABLE counted (i int);
SELECT cache_fetch('pinned', 'SELECT count(*) FROM counted', depends => '{}');
INSERT INTO counted VALUES (1);
SELECT cache_fetch('pinned', 'SELECT count(*) FROM counted', depends => '{}'), cache_status();
SELECT cache_fetch('pinned', 'SELECT count(*) FROM counted'), cache_status();
SELECT cache_fetch('pinned', 'SELECT count(*) FROM counted', depends => '{counted,NULL}');

-- If the result is refused because of its size or its time to live, the previous value of the key goes.
SELECT cache_create_space('short', max_result_size => 100);
SELECT cache_fetch('k', 'SELECT 1', space => 'short');
SELECT cache_fetch('k', 'SELECT repeat(''x'', 200)', space => 'short') IS NOT NULL AS returned, cache_status(), cache_get('k', 'short');
SELECT cache_fetch('k', 'SELECT 1', space => 'short'), cache_fetch('k', 'SELECT 1', refresh => true, ttl => '0', space => 'short'), cache_get('k', 'short');

-- The error of a query keeps its SQLSTATE, also one that only the query knows.
CREATE FUNCTION raises(code text) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'raised' USING ERRCODE = code, DETAIL = 'its detail', HINT = 'its hint';
END $$;
SELECT cache_fetch('raises', 'SELECT raises(''AB123'')');
\echo :LAST_ERROR_SQLSTATE
DO $$
BEGIN
    PERFORM cache_fetch('raises', 'SELECT raises(''AB123'')');
EXCEPTION WHEN SQLSTATE 'AB123' THEN
    RAISE NOTICE 'caught: %', SQLERRM;
END $$;

-- An error that a handler raises again is the error of the query, even if the handler has reported or caught others before.
CREATE FUNCTION raises_again(report text) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'first' USING ERRCODE = '40001';
EXCEPTION WHEN OTHERS THEN
    IF report = 'caught' THEN
        BEGIN
            PERFORM 'x'::int;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    ELSE
        RAISE NOTICE 'the handler reports %', SQLERRM;
    END IF;
    RAISE;
END $$;
SELECT cache_fetch('again', 'SELECT raises_again(''notice'')');
\echo :LAST_ERROR_SQLSTATE
SELECT cache_fetch('again', 'SELECT raises_again(''caught'')');
\echo :LAST_ERROR_SQLSTATE
