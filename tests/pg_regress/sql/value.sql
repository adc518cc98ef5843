-- Values by key: a value of each kind is read back as it was stored.

SELECT cache_set('j', '{"b": [1, null, "x"], "a": {"deep": 1.50}}'), cache_get('j'), cache_get('j') = '{"a": {"deep": 1.5}, "b": [1, null, "x"]}';
SELECT cache_set_text('t', 'grüße, 猫'), cache_get_text('t');
SELECT cache_set_bytes('b', '\x00ff00'), cache_get_bytes('b');
SELECT cache_get('nothing') IS NULL AS miss, cache_get_text('nothing') IS NULL AS miss, cache_get_bytes('nothing') IS NULL AS miss;

-- The null of JSON, an empty text and empty bytes are values, not misses.
SELECT cache_set('null', 'null'), cache_get('null'), cache_get('null') IS NULL AS miss;
SELECT cache_set_text('empty', ''), cache_get_text('empty') = '' AS hit, cache_set_bytes('empty bytes', ''), cache_get_bytes('empty bytes');

-- The last set wins, also with another kind of value.
SELECT cache_set('last', '1'), cache_set_text('last', 'two'), cache_get_text('last');

-- Short values, large values, and values that the server stores compressed are read back byte for byte.
CREATE TABLE bodies AS SELECT n, string_agg(md5((n * i)::text), '') AS body FROM generate_series(1, 6) AS n, generate_series(1, (10 ^ (n - 1))::int) AS i GROUP BY n;
INSERT INTO bodies VALUES (7, repeat('same ', 300000));
SELECT n, length(body), cache_set_text('body ' || n, body), cache_set('json ' || n, to_jsonb(body)), cache_set_bytes('bytes ' || n, body::bytea) FROM bodies ORDER BY n;
SELECT n, cache_get_text('body ' || n) = body AS text, cache_get('json ' || n) = to_jsonb(body) AS jsonb, cache_get_bytes('bytes ' || n) = body::bytea AS bytea FROM bodies ORDER BY n;

-- Reading a value as another kind is an error, and the hint names the right function.
SELECT cache_get('t');
SELECT cache_get_text('b');
SELECT cache_get_bytes('j');

-- cache_exists, cache_delete, cache_ttl and cache_touch.
SELECT cache_exists('j'), cache_delete('j'), cache_exists('j'), cache_delete('j'), cache_get('j');
SELECT cache_set('life', '1', ttl => '1 hour'), cache_ttl('life') BETWEEN '59 min 59 s' AND '1 hour' AS an_hour;
SELECT cache_touch('life', '1 day'), cache_ttl('life') BETWEEN '23:59:59' AND '24:00:00' AS a_day, cache_get('life');
SELECT cache_touch('nothing', '1 day'), cache_ttl('nothing') IS NULL AS none;
SELECT cache_set('default life', '1'), cache_ttl('default life') BETWEEN '4 min 59 s' AND '5 min' AS default_ttl;
SET pg_cache.default_ttl = '2min';
SELECT cache_set('default life', '1'), cache_ttl('default life') BETWEEN '1 min 59 s' AND '2 min' AS default_ttl;
RESET pg_cache.default_ttl;
SELECT cache_set('year', '1', ttl => '1 year'), cache_ttl('year') > '359 days' AS a_year;

-- A key of the maximum length, and the argument that names the space.
SELECT cache_set(repeat('k', 1024), '"long"', space => 'default'), cache_get(repeat('k', 1024), 'default'), cache_get(repeat('k', 1023));

-- Names, order and defaults of the arguments of all functions are as documented.
SELECT proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result, provolatile, proparallel
  FROM pg_proc WHERE proname LIKE 'cache\_%' ORDER BY proname COLLATE "C";

-- Calls in loops, cursors, prepared statements and COPY.
DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM cache_set('loop ' || i, to_jsonb(i)); END LOOP; END $$;
SELECT sum(cache_get('loop ' || i)::int) FROM generate_series(1, 1000) AS i;
BEGIN;
DECLARE c CURSOR FOR SELECT cache_get('loop ' || i) FROM generate_series(1, 3) AS i;
FETCH 2 FROM c;
SELECT cache_set('loop 3', '"new"');
FETCH ALL FROM c;
ROLLBACK;
PREPARE p(text) AS SELECT cache_get($1);
EXECUTE p('loop 7');
COPY (SELECT cache_get_text('t')) TO STDOUT;

-- Reading and changing the cache assigns no transaction ID.
BEGIN;
SELECT cache_get('loop 1'), cache_set('other', '1'), cache_delete('other');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;
