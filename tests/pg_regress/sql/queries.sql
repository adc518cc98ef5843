-- cache_queries lists the stored results of queries, and cache_dependencies what they depend on.
CREATE TABLE orders (id int, cents int);
CREATE TABLE customers (id int);
CREATE VIEW revenue AS SELECT sum(cents) AS cents FROM orders;
INSERT INTO orders VALUES (1, 100), (2, 200);
SELECT cache_create_space('s'), cache_create_space('mine', scope => 'role');
SELECT cache_fetch('sum', 'SELECT cents FROM revenue', tags => '{b,a}', space => 's'),
       cache_fetch('none', 'SELECT id FROM customers', space => 's'), cache_fetch('number', 'SELECT 12', space => 's'),
       cache_set('set', '1', tags => '{t}', space => 's');
SELECT key, space, role = current_user AS own, query, form, rows, size, cost > '0' AS took, age < '10 s' AS young, ttl > '4 min' AS lives, tags, state
  FROM cache_queries;
SELECT * FROM cache_dependencies;

-- Results of cache_query and cache_query_json have keys of their own. A query that reads settings has its result once, and the mark
-- that tells so is not shown.
SELECT * FROM cache_query('SELECT id, cents FROM orders ORDER BY id', space => 's') AS (id int, cents int);
SELECT cache_query_json('SELECT id FROM orders WHERE id > $1', '[5]', tags => '{j}', space => 's');
SELECT * FROM cache_query('SELECT current_setting(''app.none'', true) FROM orders', space => 's') AS (setting text);
SELECT * FROM cache_query('SELECT current_setting(''app.none'', true) FROM orders', space => 's') AS (setting text);
SELECT left(key, 6) AS key, length(key), query, form, rows, size > 0 AS has_size, tags, state FROM cache_queries WHERE form <> 'value' ORDER BY query;
SELECT query, kind, object FROM cache_dependencies JOIN cache_queries USING (key) WHERE form <> 'value' ORDER BY 1, 2, 3;
SELECT left(key, 6) AS key, kind FROM cache_entries WHERE key LIKE 'query:%' ORDER BY 2;
SELECT cache_flush('s');

-- A large result is compressed, unless that saves less than an eighth. A hit returns the same rows.
SELECT cache_create_space('plain', compress_above => '1MB');
CREATE FUNCTION large(query text, space text, OUT rows bigint, OUT digest text, OUT status text) LANGUAGE plpgsql AS $$
BEGIN
    SELECT count(*), md5(string_agg(t, ',')) INTO rows, digest FROM cache_query(query, space => large.space) AS (t text);
    status := cache_status();
END $$;
CREATE VIEW texts AS SELECT 'SELECT repeat(''abc'', 300) || i FROM generate_series(1, 400) AS i' AS good,
    'SELECT string_agg(md5((i * 100 + j)::text), '''') FROM generate_series(1, 400) AS i, generate_series(1, 30) AS j GROUP BY i ORDER BY i' AS bad;
SELECT l.* FROM texts, large(good, 's') AS l UNION ALL SELECT l.* FROM texts, large(good, 's') AS l UNION ALL SELECT l.* FROM texts, large(good, 'plain') AS l;
SELECT a.digest = b.digest AS same, b.status FROM texts, large(bad, 's') AS a, large(bad, 's') AS b;
SELECT cache_query_json(good, space => 's') = cache_query_json(good, space => 's') AS same, cache_status() FROM texts;
SELECT space, form, rows, CASE WHEN size < 20000 THEN 'compressed' WHEN size > 350000 THEN 'whole' ELSE size::text END AS size
  FROM cache_queries, texts WHERE query IN (good, bad) ORDER BY space, form, query;
SELECT cache_drop_space('plain'), cache_flush('s');
SELECT cache_fetch('sum', 'SELECT cents FROM revenue', tags => '{b,a}', space => 's'), cache_fetch('none', 'SELECT id FROM customers', space => 's'),
       cache_fetch('number', 'SELECT 12', space => 's');

-- With depends, the result depends on these relations.
SELECT cache_fetch('told', 'SELECT count(*) FROM orders', depends => '{customers}', space => 's');
SELECT kind, object FROM cache_dependencies WHERE key = 'told';

-- An invalid result is shown until its memory is used again, with the change.
INSERT INTO customers VALUES (1);
SELECT cache_invalidate_tag('a');
SELECT key, state FROM cache_queries WHERE form = 'value';
SELECT cache_fetch('none', 'SELECT id FROM customers', space => 's');
SELECT key, state FROM cache_queries WHERE form = 'value';
-- A change of definitions is named, too.
ALTER TABLE customers ADD COLUMN name text;
SELECT key, state FROM cache_queries WHERE form = 'value';
-- Without the table, the name is unknown.
DROP TABLE customers;
SELECT kind, object FROM cache_dependencies WHERE key = 'none';
-- A result that has expired is not shown.
SELECT cache_fetch('short', 'SELECT 1', ttl => '50 ms', space => 's'), pg_sleep(0.2);
SELECT count(*) FROM cache_queries WHERE key = 'short';
-- A key that gets a value is no result any more.
SELECT cache_set('number', '1', space => 's');
SELECT count(*) FROM cache_queries WHERE key = 'number';

-- A long text is cut off, and so is a text in characters of several bytes.
SELECT cache_fetch('long', 'SELECT ' || quote_literal(repeat('é', 10000)), space => 's') IS NOT NULL;
SELECT length(query) BETWEEN 8000 AND 8300 AS cut, right(query, 5) FROM cache_queries WHERE key = 'long';
SELECT cache_drop_space('s'), cache_create_space('t');

-- The text of a query is content: only roles that may read the space get it, and only the texts of their own queries, except for
-- roles that may read the texts of all. Names of tables follow the rules of cache_status.
CREATE ROLE queries_reader;
CREATE ROLE queries_writer;
CREATE ROLE queries_none;
CREATE ROLE queries_monitor IN ROLE pg_monitor;
CREATE ROLE queries_stats IN ROLE pg_read_all_stats;
SELECT cache_grant('t', 'queries_reader', 'read'), cache_grant('t', 'queries_writer', 'write'), cache_grant('mine', 'queries_writer', 'write'),
       cache_grant('mine', 'queries_reader', 'write'), cache_grant('t', 'queries_stats', 'read');
GRANT SELECT ON orders TO queries_writer;
CREATE FUNCTION shown() RETURNS TABLE (key text, space text, role text, query text, form text, rows bigint, tags text[], state text) LANGUAGE sql
    AS 'SELECT key, space, CASE role WHEN session_user THEN ''session user'' ELSE role END, query, form, rows, tags, state FROM public.cache_queries ORDER BY space, key, role';
SELECT cache_fetch('of owner', 'SELECT count(*) FROM orders', tags => '{o}', space => 't');
SET ROLE queries_writer;
SELECT cache_fetch('of writer', 'SELECT sum(cents) FROM orders', tags => '{w}', space => 't'),
       cache_fetch('secret', 'SELECT 1 + 1', tags => '{x}', space => 'mine');
SELECT * FROM shown();
SELECT * FROM cache_dependencies;
SET ROLE queries_reader;
SELECT * FROM shown();
SELECT * FROM cache_dependencies;
SET ROLE queries_stats;
SELECT * FROM shown();
SET ROLE queries_none;
SELECT * FROM shown();
SELECT * FROM cache_dependencies;
SET ROLE queries_monitor;
SELECT * FROM shown();
SELECT * FROM cache_dependencies;
RESET ROLE;
SELECT * FROM shown();
SELECT * FROM cache_dependencies;
-- The cause of an invalidation is named by the same rules.
UPDATE orders SET cents = 0;
SELECT key, state FROM shown();
SET ROLE queries_reader;
SELECT key, state FROM shown();
RESET ROLE;
-- A role that was dropped has no name.
DROP OWNED BY queries_writer;
SELECT cache_drop_space('mine'), cache_revoke('t', 'queries_writer', 'write');
DROP ROLE queries_writer;
SELECT key, role, query, state FROM shown();
-- A scan that ends early leaves nothing behind.
SELECT count(*) FROM (SELECT FROM pgcache.queries() LIMIT 1) AS one, (SELECT FROM pgcache.dependencies() LIMIT 1) AS other;
SELECT cache_drop_space('t');
DROP ROLE queries_reader, queries_none, queries_monitor, queries_stats;
