-- cache_query returns the rows of a query. It stores them, and they are a hit until a table that the query has read changes.
\set status 'SELECT cache_status();'
CREATE TABLE orders (id int PRIMARY KEY, cents int, note text);
CREATE TABLE other (id int);
INSERT INTO orders VALUES (1, 100, 'first'), (2, 200, NULL);
SELECT * FROM cache_query('SELECT id, cents, note FROM orders ORDER BY id') AS r(id int, cents int, note text);
:status
SELECT * FROM cache_query('SELECT id, cents, note FROM orders ORDER BY id') AS r(id int, cents int, note text);
:status
INSERT INTO other VALUES (1);
SELECT sum(cents) FROM cache_query('SELECT id, cents, note FROM orders ORDER BY id') AS r(a int, cents int, b text);
:status
UPDATE orders SET cents = 150 WHERE id = 1;
SELECT * FROM cache_query('SELECT id, cents, note FROM orders ORDER BY id') AS r(id int, cents int, note text);
:status
SELECT * FROM cache_query('SELECT id, cents, note FROM orders ORDER BY id') AS r(id int, cents int, note text);
:status

-- The form with a row type needs no column list. Its rows have the columns of the type.
SELECT * FROM cache_query(NULL::orders, 'SELECT * FROM orders ORDER BY id');
:status
SELECT id + 1 AS next, note IS NULL AS none FROM cache_query(NULL::orders, 'SELECT * FROM orders ORDER BY id');
:status
SELECT * FROM cache_query(NULL::orders, 'SELECT id, cents + $1::int, note FROM orders WHERE id = $2', '[1, 2]');
SELECT (r).cents FROM (SELECT cache_query(NULL::orders, 'SELECT * FROM orders ORDER BY id') AS r) AS s;
SELECT cache_query(NULL::orders, 'SELECT * FROM orders ORDER BY id') LIMIT 1;
SELECT count(*) FROM cache_query(NULL::orders, 'SELECT * FROM orders ORDER BY id');
-- A scalar type is a row type of one column.
SELECT * FROM cache_query(NULL::int, 'SELECT id FROM orders ORDER BY id') AS id;
:status

-- cache_query_json returns an array of objects, and an empty one if there is no row.
SELECT cache_query_json('SELECT id, cents, note FROM orders ORDER BY id');
:status
SELECT cache_query_json('SELECT id, cents, note FROM orders ORDER BY id');
:status
SELECT cache_query_json('SELECT id FROM orders WHERE false'), cache_query_json('SELECT NULL::int AS a, ''{"b": [1]}''::jsonb AS j');
SELECT cache_query_json('SELECT id FROM orders WHERE id = ANY ($1::int[]) ORDER BY id', '[[2, 1, 7]]');
UPDATE orders SET cents = 160 WHERE id = 1;
SELECT cache_query_json('SELECT id, cents, note FROM orders ORDER BY id');
:status
SELECT value, status, age < '1 min' AS is_young, ttl BETWEEN '4 min' AND '5 min' AS is_default
  FROM cache_query_json_status('SELECT id, cents, note FROM orders ORDER BY id');
SELECT value, status, ttl > '59 min' AS an_hour FROM cache_query_json_status('SELECT count(*) AS n FROM other', ttl => '1 h');
SELECT value, status FROM cache_query_json_status('SELECT random() < 0 AS never');

-- Types: composite, array, range, domain, enum, bytea, NULL, and others.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE DOMAIN pairs AS pair[];
CREATE TABLE kinds (id int, p pair, ps pair[], r int4range, rs int4multirange, d small, m mood, ms mood[], b bytea, n numeric, j jsonb,
                    t timestamptz, i interval, u uuid, bits bit(4), c char(5), v varchar(5), nothing text, aa int[], o oid, pt point,
                    dp pairs);
INSERT INTO kinds VALUES (1, (1, 'one'), ARRAY[(2, NULL), NULL]::pair[], '[1,5)', '{[1,2),[5,9)}', 7, 'happy', '{sad,NULL}', '\x00ff10', 12345678901234567890.1234567890,
    '{"a": [1, null]}', '2026-01-02 03:04:05+00', '1 mon 2 days 03:00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1010', 'ab', 'abc', NULL,
    '[0:1][1:2]={{1,2},{3,NULL}}', 4294967295, '(1.5,-2)', ARRAY[(3, 'x')]::pair[]),
  (2, NULL, '{}', 'empty', '{}', NULL, NULL, NULL, '', 'NaN', 'null', 'infinity', NULL, NULL, NULL, '', '', '', '{}', 0, NULL, NULL);
SET TimeZone = 'UTC';
\x on
SELECT * FROM cache_query(NULL::kinds, 'SELECT * FROM kinds ORDER BY id');
:status
SELECT * FROM cache_query(NULL::kinds, 'SELECT * FROM kinds ORDER BY id');
:status
\x off
SELECT count(*) AS identical FROM cache_query(NULL::kinds, 'SELECT * FROM kinds ORDER BY id') AS q JOIN kinds AS k ON k::text = q::text;
SELECT * FROM cache_query('SELECT k FROM kinds AS k WHERE id = 2') AS r(k kinds);
SELECT (k).p, ((k).ps)[1] FROM cache_query('SELECT k FROM kinds AS k WHERE id = 1') AS r(k kinds);
SELECT * FROM cache_query('SELECT d, r, m FROM kinds ORDER BY id') AS r(d small, r int4range, m mood);
SELECT * FROM cache_query('SELECT repeat(''long'', 3000) AS v') AS r(v text) WHERE v <> repeat('long', 3000);
SELECT length(v) FROM cache_query('SELECT repeat(''long'', 3000) AS v') AS r(v text);
:status

-- No rows, no columns, and rows without columns.
SELECT * FROM cache_query('SELECT id FROM orders WHERE false') AS r(id int);
:status
SELECT * FROM cache_query('SELECT id FROM orders WHERE false') AS r(id int);
:status
CREATE TABLE hollow ();
INSERT INTO hollow DEFAULT VALUES;
INSERT INTO hollow DEFAULT VALUES;
SELECT count(*) FROM cache_query(NULL::hollow, 'SELECT FROM orders');
:status
SELECT count(*) FROM cache_query(NULL::hollow, 'SELECT FROM orders');
:status
SELECT count(*) FROM cache_query(NULL::hollow, 'SELECT * FROM hollow WHERE false');
SELECT cache_query_json('SELECT FROM orders');
-- A row of nulls is a row.
SELECT * FROM cache_query('SELECT NULL::int, NULL::text') AS r(a int, b text);
SELECT * FROM cache_query('SELECT NULL::int, NULL::text') AS r(a int, b text);
:status

-- Dropped and added columns of the row type.
CREATE TABLE changing (a int, gone text, b text);
INSERT INTO changing VALUES (1, 'gone', 'one');
ALTER TABLE changing DROP gone;
SELECT * FROM cache_query(NULL::changing, 'SELECT * FROM changing');
SELECT * FROM cache_query(NULL::changing, 'SELECT * FROM changing');
:status
SELECT * FROM cache_query('SELECT w FROM changing AS w') AS r(w changing);
SELECT * FROM cache_query('SELECT w FROM changing AS w') AS r(w changing);
:status
ALTER TABLE changing ADD c int DEFAULT 7;
SELECT * FROM cache_query(NULL::changing, 'SELECT * FROM changing');
SELECT * FROM cache_query('SELECT w FROM changing AS w') AS r(w changing);
ALTER TABLE changing DROP b;
SELECT * FROM cache_query(NULL::changing, 'SELECT * FROM changing');
SELECT * FROM cache_query(NULL::changing, 'SELECT * FROM changing');
:status

-- Arguments take the types that the query infers.
SELECT * FROM cache_query('SELECT $1::date + $2::int', '["2026-01-30", 3]') AS r(d date);
SELECT * FROM cache_query('SELECT id FROM orders WHERE note = $1 OR cents > $2', '["first", 1000]') AS r(id int);
:status
SELECT * FROM cache_query('SELECT id FROM orders WHERE note = $1 OR cents > $2', '["first", 100]') AS r(id int);
:status
SELECT * FROM cache_query('SELECT id FROM orders WHERE note = $1 OR cents > $2', '["first", 1000]') AS r(id int);
:status
SELECT * FROM cache_query('SELECT id FROM orders WHERE id = ANY ($1) ORDER BY id', '[[1, null, 2]]') AS r(id int);
SELECT * FROM cache_query('SELECT $1::int[], $2::text[], $3::int[]', '[[1, null], ["a,b", null, "\"", ""], []]') AS r(a int[], b text[], c int[]);
SELECT * FROM cache_query('SELECT $1::int, $2::text, $3::jsonb, $4::bool', '[null, null, null, null]') AS r(a int, b text, c jsonb, d bool);
SELECT * FROM cache_query('SELECT $1::jsonb, $2::json, $3::jsonb[]', '[{"a": [1]}, [1, 2], [{"b": 1}, null, "c"]]') AS r(a jsonb, b json, c jsonb[]);
SELECT * FROM cache_query('SELECT $1::numeric, $2::float8, $3::bigint, $4::timestamptz, $5::interval, $6::mood, $7::small, $8::pair, $9::int4range, $10::bytea, $11::uuid',
    '[12345678901234567890.123, 1e300, 9007199254740993, "2026-01-02 03:04:05+00", "1 day", "ok", 99, "(5,five)", "[1,3)", "\\x00ff", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]')
  AS r(a numeric, b float8, c bigint, d timestamptz, e interval, f mood, g small, h pair, i int4range, j bytea, k uuid);
-- A string is converted by the type's own input function, also if the type is jsonb. The number 1 and the number 1.0 are different arguments.
SELECT * FROM cache_query('SELECT to_jsonb($1::jsonb)', '["1"]') AS r(j jsonb);
SELECT * FROM cache_query('SELECT to_jsonb($1::jsonb)', '[1]') AS r(j jsonb);
SELECT * FROM cache_query('SELECT $1::text', '[1.0]') AS r(t text);
SELECT * FROM cache_query('SELECT $1::text', '[1]') AS r(t text);
-- No arguments are no arguments, however they are written.
SELECT * FROM cache_query('SELECT 1', '[]') AS r(i int);
SELECT * FROM cache_query('SELECT 1') AS r(i int);
:status
SELECT * FROM cache_query('SELECT 1', args => NULL) AS r(i int);
:status

-- refresh, ttl, tags and depends.
SELECT * FROM cache_query('SELECT count(*) FROM orders', refresh => true) AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT count(*) FROM orders', refresh => true) AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT count(*) FROM orders') AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT max(id) FROM orders', ttl => '1 h') AS r(n int);
SELECT cache_ttl(cache_key('SELECT max(id) FROM orders')) > '59 min' AS an_hour;
SELECT * FROM cache_query('SELECT min(id) FROM orders', ttl => '0') AS r(n int);
:status
SELECT * FROM cache_query('SELECT min(id) FROM orders', ttl => '0') AS r(n int);
:status
SELECT * FROM cache_query('SELECT count(*) FROM orders', tags => '{o}') AS r(n bigint);
SELECT * FROM cache_query('SELECT count(*) FROM orders', tags => '{o}') AS r(n bigint);
:status
SELECT cache_invalidate_tag('o');
SELECT * FROM cache_query('SELECT count(*) FROM orders', tags => '{o}') AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT count(*) FROM other', depends => '{orders}') AS r(n bigint);
INSERT INTO other VALUES (2);
SELECT * FROM cache_query('SELECT count(*) FROM other', depends => '{orders}') AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT count(*) FROM other') AS r(n bigint);
:status
UPDATE orders SET note = 'changed' WHERE id = 2;
SELECT * FROM cache_query('SELECT count(*) FROM other', depends => '{orders}') AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT count(*) FROM other', depends => '{orders,kinds}', space => 'default') AS r(n bigint);

-- The key of a result.
SELECT cache_key('SELECT 1') ~ '^query:[0-9a-f]{64}$' AS has_form, cache_key('SELECT 1') = cache_key('SELECT  1 -- one') AS is_same,
       cache_key('SELECT 1') = cache_key('SELECT 2') AS is_other_text, cache_key('SELECT 1', '[]') = cache_key('SELECT 1') AS is_no_args,
       cache_key('SELECT $1::int', '[1]') = cache_key('SELECT $1::int', '[2]') AS is_other_args;
-- A result can be deleted by its key.
SELECT * FROM cache_query('SELECT id FROM other ORDER BY id') AS r(id int);
SELECT cache_exists(cache_key('SELECT id FROM other ORDER BY id')), cache_delete(cache_key('SELECT id FROM other ORDER BY id'));
SELECT * FROM cache_query('SELECT id FROM other ORDER BY id') AS r(id int);
:status

-- Transactions.
BEGIN READ ONLY;
SELECT * FROM cache_query('SELECT sum(cents) FROM orders') AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT sum(cents) FROM orders') AS r(n bigint);
:status
COMMIT;
BEGIN;
UPDATE orders SET cents = cents + 1000;
SELECT * FROM cache_query('SELECT sum(cents) FROM orders') AS r(n bigint);
:status
SELECT * FROM cache_query('SELECT sum(cents) FROM orders') AS r(n bigint);
:status
SELECT count(*) FROM cache_query('SELECT id FROM other') AS r(id int);
:status
ROLLBACK;
SELECT * FROM cache_query('SELECT sum(cents) FROM orders') AS r(n bigint);
:status

-- Cursors that fetch a part, and LIMIT. The stored result is whole.
BEGIN;
DECLARE part CURSOR FOR SELECT * FROM cache_query('SELECT id FROM orders ORDER BY id DESC') AS r(id int);
FETCH 1 FROM part;
UPDATE orders SET note = 'in between' WHERE id = 1;
FETCH ALL FROM part;
ROLLBACK;
SELECT * FROM cache_query('SELECT id FROM orders ORDER BY id DESC') AS r(id int) LIMIT 1;
SELECT * FROM cache_query('SELECT id FROM orders ORDER BY id DESC') AS r(id int);
:status
BEGIN;
DECLARE back SCROLL CURSOR WITH HOLD FOR SELECT * FROM cache_query('SELECT id FROM orders ORDER BY id DESC') AS r(id int);
FETCH LAST FROM back;
COMMIT;
DELETE FROM other;
FETCH FIRST FROM back;
CLOSE back;

-- Prepared statements, and a plan that is kept while the result changes.
PREPARE cached(int) AS SELECT * FROM cache_query('SELECT id, cents FROM orders WHERE id >= $1 ORDER BY id', jsonb_build_array($1)) AS r(id int, cents int);
EXECUTE cached(1);
EXECUTE cached(2);
EXECUTE cached(1);
:status
INSERT INTO orders VALUES (3, 300);
EXECUTE cached(2);
:status
DEALLOCATE cached;

-- PL/pgSQL.
DO $$
DECLARE
    r record;
    total bigint := 0;
BEGIN
    FOR i IN 1..2 LOOP
        FOR r IN SELECT * FROM cache_query('SELECT id, cents FROM orders ORDER BY id') AS q(id int, cents int) LOOP
            total := total + r.cents;
            EXIT WHEN r.id = 2;
        END LOOP;
        RAISE INFO '% %', total, cache_status();
    END LOOP;
    FOR r IN EXECUTE 'SELECT * FROM cache_query(NULL::orders, $1)' USING 'SELECT * FROM orders WHERE id = 3' LOOP
        RAISE INFO '%', r;
        -- A loop within a loop.
        SELECT count(*) INTO total FROM cache_query('SELECT id, cents FROM orders ORDER BY id') AS q(id int, cents int);
        RAISE INFO '% %', total, cache_status();
    END LOOP;
END $$;
CREATE FUNCTION dashboard(at_least int) RETURNS TABLE (number int, price int) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM cache_query('SELECT id, cents FROM orders WHERE cents >= $1 ORDER BY id', jsonb_build_array(at_least)) AS q(id int, cents int);
END $$;
SELECT * FROM dashboard(200);
SELECT * FROM dashboard(200);
:status

-- LATERAL, joins, and several calls in a statement.
SELECT o.id, r.n FROM orders AS o, LATERAL cache_query('SELECT count(*) FROM orders WHERE id <= $1::int', jsonb_build_array(o.id)) AS r(n bigint) ORDER BY 1;
SELECT a.id, b.note FROM cache_query('SELECT id FROM orders') AS a(id int) JOIN cache_query('SELECT id, note FROM orders') AS b(id int, note text) USING (id) ORDER BY 1;
SELECT (SELECT n FROM cache_query('SELECT count(*) FROM orders') AS r(n bigint)), (SELECT array_agg(id) FROM cache_query(NULL::int, 'SELECT id FROM orders ORDER BY id') AS id);
SELECT * FROM ROWS FROM (cache_query('SELECT id FROM orders ORDER BY id') AS (id int), generate_series(1, 2)) WITH ORDINALITY;
INSERT INTO other SELECT id FROM cache_query('SELECT id FROM orders') AS r(id int);
CREATE TABLE copied AS SELECT * FROM cache_query('SELECT id, note FROM orders') AS r(id int, note text);
SELECT count(*) FROM copied;
CREATE VIEW cached_orders AS SELECT * FROM cache_query('SELECT id, note FROM orders') AS r(id int, note text);
SELECT count(*) FROM cached_orders WHERE id > 1;
WITH c AS (SELECT * FROM cache_query('SELECT id FROM orders') AS r(id int)) SELECT count(*) FROM c AS a, c AS b;
VALUES (1), ((SELECT max(id) FROM cache_query('SELECT id FROM orders') AS r(id int)));
-- Queries that are not a plain SELECT from a table.
SELECT * FROM cache_query('VALUES (1, ''a''), (2, ''b'')') AS r(i int, t text);
SELECT * FROM cache_query('TABLE other') AS r(id int);
SELECT * FROM cache_query('WITH RECURSIVE c AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM c WHERE i < 3) SELECT i, sum(i) OVER (ORDER BY i) FROM c') AS r(i int, s bigint);
SELECT * FROM cache_query('SELECT id FROM orders UNION ALL SELECT id FROM other ORDER BY 1 LIMIT 3') AS r(id int);
SELECT * FROM cache_query('(SELECT 1) EXCEPT (SELECT 2);') AS r(i int);
SELECT * FROM cache_query('SELECT id, id, cents AS id FROM orders WHERE id = 1') AS r(a int, b int, c int);
SELECT cache_query_json('SELECT id AS a, cents AS b, ''x'' AS "A b" FROM orders WHERE id = 1');
SELECT * FROM cache_query('SELECT ''text''') AS r(t text);

-- Bad input. The position of an error is that in the query.
SELECT * FROM cache_query('SELECT 1 +') AS r(i int);
SELECT * FROM cache_query('SELECT id, nothing FROM orders') AS r(id int, n int);
SELECT * FROM cache_query('SELECT * FROM nowhere') AS r(id int);
SELECT * FROM cache_query('SELECT 1; SELECT 2') AS r(i int);
SELECT * FROM cache_query('') AS r(i int);
SELECT * FROM cache_query('-- nothing') AS r(i int);
SELECT * FROM cache_query('CREATE TABLE made (id int)') AS r(i int);
SELECT * FROM cache_query('SHOW work_mem') AS r(t text);
SELECT * FROM cache_query('EXPLAIN SELECT 1') AS r(t text);
SELECT * FROM cache_query('SELECT 1 AS one INTO made') AS r(i int);
SELECT * FROM cache_query('BEGIN') AS r(i int);
SELECT * FROM cache_query('COPY orders TO STDOUT') AS r(i int);
SELECT * FROM cache_query('SELECT $1::int', '[1, 2]') AS r(i int);
SELECT * FROM cache_query('SELECT $1::int + $2::int', '[1]') AS r(i int);
SELECT * FROM cache_query('SELECT $1::int') AS r(i int);
SELECT * FROM cache_query('SELECT $1::int', '["x"]') AS r(i int);
SELECT * FROM cache_query('SELECT $1::small', '[100]') AS r(i small);
SELECT * FROM cache_query('SELECT $2::int', '[1, 2]') AS r(i int);
SELECT * FROM cache_query('SELECT $1::int', '{"a": 1}') AS r(i int);
SELECT * FROM cache_query('SELECT $1::int', '1') AS r(i int);
SELECT * FROM cache_query(NULL) AS r(i int);
SELECT * FROM cache_query('SELECT 1', refresh => NULL) AS r(i int);
SELECT * FROM cache_query('SELECT 1', space => 'no such') AS r(i int);
SELECT * FROM cache_query('SELECT 1', tags => '{NULL}') AS r(i int);
SELECT * FROM cache_query('SELECT 1', depends => '{cached_orders}') AS r(i int);
SELECT cache_query_json('SELECT 1 +'), cache_query_json('SELECT 1; SELECT 2');
SELECT * FROM cache_query(NULL::orders, NULL);
-- A query that fails half way returns no row, and is not stored.
SELECT * FROM cache_query('SELECT 6 / (3 - id) FROM orders ORDER BY id') AS r(i int);
SELECT * FROM cache_query('SELECT 6 / (3 - id) FROM orders WHERE id < 3 ORDER BY id') AS r(i int);
:status
-- Column lists that do not match. The hint shows the right one.
SELECT * FROM cache_query('SELECT id, note FROM orders');
SELECT * FROM cache_query('SELECT id, note FROM orders') AS r(id int);
SELECT * FROM cache_query('SELECT id, note FROM orders') AS r(id int, note text, more int);
SELECT * FROM cache_query('SELECT id, note FROM orders') AS r(id bigint, note text);
SELECT * FROM cache_query('SELECT o.id AS "Id", note AS "a b", p, ps, ''x'' AS "select", NULL FROM orders AS o, kinds') AS r(id int);
SELECT * FROM cache_query('SELECT id, note FROM orders ORDER BY id LIMIT 1') AS r(id int, note text);
SELECT * FROM cache_query('SELECT id, note FROM orders ORDER BY id LIMIT 1') AS r(id int, note varchar);
SELECT * FROM cache_query('SELECT id, note FROM orders ORDER BY id LIMIT 1') AS r(id text, note int);
SELECT * FROM cache_query('SELECT id, note FROM orders ORDER BY id LIMIT 1') AS r(id int);
SELECT * FROM cache_query(NULL::orders, 'SELECT id, note FROM orders');
SELECT * FROM cache_query(NULL::orders, 'SELECT note, cents, id FROM orders');
SELECT * FROM cache_query(NULL::int, 'SELECT id, note FROM orders');
SELECT cache_query('SELECT 1');
SELECT * FROM cache_query(NULL::record, 'SELECT 1');
-- A type with a modifier.
SELECT * FROM cache_query('SELECT 1.2345::numeric AS n, ''abcdef''::varchar AS v') AS r(n numeric(5,2), v varchar(3));
SELECT * FROM cache_query('SELECT 1.23::numeric(5,2) AS n, ''abc''::varchar(3) AS v') AS r(n numeric(5,2), v varchar(3));
SELECT * FROM cache_query('SELECT 1.23::numeric(5,2) AS n, ''abc''::varchar(3) AS v') AS r(n numeric, v varchar);
SELECT * FROM cache_query('SELECT 1.2345::numeric AS n, ''abcdef''::varchar AS v') AS r(n numeric, v varchar);
SELECT * FROM cache_query('SELECT 1.2345::numeric AS n, ''abcdef''::varchar AS v') AS r(n numeric(5,2), v varchar(3));
-- The type of the column is a domain, or the type below it.
SELECT * FROM cache_query('SELECT 5::small AS s') AS r(s int);
SELECT * FROM cache_query('SELECT 500 AS s') AS r(s small);
-- A function that returns records.
CREATE FUNCTION records() RETURNS SETOF record STABLE LANGUAGE sql AS 'SELECT id, note FROM orders ORDER BY id';
SELECT * FROM cache_query('SELECT * FROM records() AS r(id int, note text)') AS r(id int, note text);
SELECT * FROM cache_query('SELECT * FROM records() AS r(id int, note text)') AS r(id int, note text);
:status
SELECT * FROM cache_query('SELECT * FROM records()') AS r(id int, note text);
SELECT * FROM cache_query('SELECT * FROM records() AS r(id text, note text)') AS r(id int, note text);
SELECT * FROM cache_query('SELECT records() AS r') AS r(r record);
:status
-- Errors of functions keep where they come from.
CREATE FUNCTION fails() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT id FROM orders WHERE cents = nothing); END $$;
SELECT * FROM cache_query('SELECT fails()') AS r(i int);
SELECT * FROM cache_query($$ SELECT * FROM cache_query('SELECT 1 / 0') AS i(i int) $$) AS r(i int);
SELECT cache_status() IS NULL AS has_no_status;
SELECT * FROM cache_check();
