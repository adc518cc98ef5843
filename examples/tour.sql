-- The tour that `make run` plays in the database of examples/shop.sql: shows the main capabilities, with real timings. The first
-- error ends `make run`. A later `make run` plays the tour again on the same database and cache, so each statement must also work
-- after an earlier or interrupted tour.

\pset pager off
\pset footer off
\pset null '-'

\echo
\echo '-- pg_cache runs inside the server. The server loads the library when it starts, and CREATE EXTENSION creates the functions.'
\echo
\dx pg_cache

SELECT cache_exists('left by the tour') AS was_here \gset
\if :was_here
\echo '-- An earlier tour left a value. It survives make stop, because the server saves its cache when it stops:'
\echo
SELECT cache_get_text('left by the tour') AS left_by_the_tour, pg_postmaster_start_time()::timestamptz(0) AS server_started;
\endif

\echo '-- The tour uses this sample shop:'
\echo
SELECT (SELECT count(*) FROM customers) AS customers, (SELECT count(*) FROM products) AS products,
       (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM order_items) AS order_items;

\echo '-- The dashboard of the shop is a slow query. Without a cache, each session pays this time on each call:'
\echo
\timing on
SELECT month, category, revenue, top_country FROM dashboard ORDER BY month DESC, revenue DESC LIMIT 4;
\timing off

\echo '-- Its cached twin: the first call runs the query and stores its rows ...'
\echo
-- An earlier tour may have stored the rows.
SELECT cache_delete(cache_key('SELECT * FROM dashboard')) \g /dev/null
\timing on
SELECT month, category, revenue, top_country FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard')
 ORDER BY month DESC, revenue DESC LIMIT 4;
\echo '-- ... and later calls, by any session of this role, get the stored rows:'
\echo
SELECT month, category, revenue, top_country FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard')
 ORDER BY month DESC, revenue DESC LIMIT 4;
\timing off
SELECT cache_status();

\echo '-- Why the cache may do that, and what the rows depend on:'
\echo
SELECT * FROM cache_explain('SELECT * FROM dashboard') WHERE property <> 'columns';

\echo '-- An order comes in. Its commit invalidates the rows, without triggers or declarations, so the next call runs the query again:'
\echo
\timing on
INSERT INTO orders SELECT max(order_id) + 1, 7, '2025-11-15', 'paid' FROM orders;
SELECT month, category, revenue, top_country FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard')
 ORDER BY month DESC, revenue DESC LIMIT 4;
\timing off
SELECT cache_status();

\echo '-- An order comes in, and ten sessions ask for the dashboard at the same moment. One runs the query, the others wait for its rows:'
\echo
INSERT INTO orders SELECT max(order_id) + 1, 7, '2025-11-15', 'paid' FROM orders;
\! for session in 1 2 3 4 5 6 7 8 9 10; do psql -X -q -At -c "SELECT cache_status() FROM (SELECT count(*) FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard')) AS rows" & done | sort | uniq -c
\echo

\echo '-- With stale_ok, a call accepts the rows of a moment ago. The call after an order then returns the old rows and runs no query:'
\echo
SELECT count(*) AS rows FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard', stale_ok => '1 minute');
INSERT INTO orders SELECT max(order_id) + 1, 7, '2025-11-15', 'paid' FROM orders;
\timing on
SELECT count(*) AS rows FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard', stale_ok => '1 minute');
\timing off
SELECT cache_status();

\echo '-- A warmer keeps a result stored. Here, it has the query of a dashboard that reads a materialized view:'
\echo
-- An earlier tour may have created the view. An interrupted one may have left the warmer.
CREATE MATERIALIZED VIEW IF NOT EXISTS customer_orders AS
    SELECT customer_id, country, count(*) AS orders FROM orders JOIN customers USING (customer_id) GROUP BY customer_id, country;
CREATE UNIQUE INDEX IF NOT EXISTS customer_orders_key ON customer_orders (customer_id);
SELECT cache_warmer_drop('countries') \g /dev/null
\set countries 'SELECT country, sum(orders) AS orders FROM customer_orders GROUP BY country'
-- Waits until the result of a query is stored, and its warmer has ended the run.
CREATE OR REPLACE PROCEDURE pg_temp.await_warm(query text) LANGUAGE plpgsql AS $$ BEGIN
    FOR step IN 1..6000 LOOP
        EXIT WHEN (SELECT e.value = 'hot' AND w.state = 'warm' FROM cache_explain(query) AS e, cache_warmers AS w
                    WHERE e.property = 'state' AND w.name = 'countries');
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT cache_warmer_add('countries', :'countries');
CALL pg_temp.await_warm(:'countries');

\echo '-- An order comes in, and the view is refreshed. That invalidates the result. Within a second, a background worker runs the query ...'
\echo
INSERT INTO orders SELECT max(order_id) + 1, 7, '2025-11-15', 'paid' FROM orders;
\timing on
REFRESH MATERIALIZED VIEW CONCURRENTLY customer_orders;
\timing off
\echo
CALL pg_temp.await_warm(:'countries');
\echo '-- ... so the next user gets the new rows and waits for nothing:'
\echo
\timing on
SELECT * FROM cache_query(:'countries') AS (country text, orders numeric) ORDER BY orders DESC LIMIT 3;
\timing off
SELECT cache_status();
SELECT name, state, runs, duration, error FROM cache_warmers;
SELECT cache_warmer_drop('countries');

\echo '-- All stored results, and what happened to each of them:'
\echo
SELECT query, rows, size, cost, ttl, state FROM cache_queries;

\echo '-- The values that matter most, and some of the metrics that Prometheus can collect:'
\echo
SELECT ranking, left(coalesce(query, name), 40) AS value, hits, size, cost, invalidated FROM cache_top(1);
SELECT name, labels->>'reason' AS reason, value FROM cache_metrics
 WHERE name IN ('pgcache_misses_total', 'pgcache_saved_seconds_total', 'pgcache_fills_total') AND labels->>'space' = 'default' AND value > 0;

\echo '-- No cache function can be faster than a function that does nothing. A million calls of such a function take:'
\echo
\timing on
SELECT count(pgcache.noop('key')) AS calls FROM generate_series(1, 1000000);
\timing off

\echo '-- A value is set once and read a million times. Other sessions see the value when the transaction commits:'
\echo
SELECT cache_set('best seller', to_jsonb(p)) FROM products AS p WHERE product_id = 7;
SELECT cache_get('best seller')->>'name' AS name, cache_ttl('best seller') > '4 min' AS for_minutes, cache_status();
\timing on
SELECT count(cache_get('best seller')) AS hits FROM generate_series(1, 1000000);
\timing off

\echo '-- A rollback drops the value:'
\echo
BEGIN;
SELECT cache_set_text('draft', 'never seen by others');
SELECT cache_get_text('draft');
ROLLBACK;
SELECT cache_get_text('draft'), cache_status();

\echo '-- Tags: one statement invalidates all values of one category, here 250 of 2000:'
\echo
SELECT count(cache_set('product:' || product_id, to_jsonb(p), tags => ARRAY['products', 'category:' || category])) AS stored
  FROM products AS p;
SELECT count(cache_get('product:' || product_id)) AS hits FROM products;
\timing on
SELECT cache_invalidate_tag('category:light');
\timing off
SELECT category, count(cache_get('product:' || product_id)) AS hits FROM products GROUP BY category ORDER BY category LIMIT 4;

\echo '-- Counters, like sequences, count at once and keep their increments after a rollback:'
\echo
SELECT cache_delete('calls');
BEGIN;
SELECT cache_incr('calls', ttl => '1 minute') AS calls;
ROLLBACK;
SELECT cache_incr('calls') AS calls;

\echo '-- A space has its own keys, options and privileges:'
\echo
SELECT count(cache_drop_space(name)) AS dropped FROM cache_spaces WHERE name = 'tour';
SELECT cache_create_space('tour', default_ttl => '1 hour', max_value => 1000);
SELECT cache_set_text('k', 'in the space'::text, space => 'tour'), cache_get_text('k', 'tour'), cache_get_text('k');
SELECT name, default_ttl, max_value FROM cache_spaces ORDER BY name;
SELECT cache_drop_space('tour');

\echo '-- A tag may stand for a table or a materialized view. Refreshing the view invalidates all values with the tag:'
\echo
CREATE MATERIALIZED VIEW IF NOT EXISTS sellers AS SELECT product_id, sum(quantity) AS sold FROM order_items GROUP BY product_id;
SELECT cache_watch('sellers');
SELECT cache_set('best', to_jsonb(s), tags => '{sellers}') AS stored FROM sellers AS s ORDER BY sold DESC LIMIT 1;
SELECT cache_get('best') IS NOT NULL AS there;
REFRESH MATERIALIZED VIEW sellers;
SELECT cache_get('best') IS NOT NULL AS there, cache_status();
SELECT cache_unwatch('sellers');

\echo '-- A tag may also stand for single rows. Order 8 is shipped, and only its own page leaves the cache:'
\echo
SELECT cache_watch('orders', ARRAY['order:{order_id}']);
SELECT order_id, cache_set('page of ' || order_id, to_jsonb(o), tags => ARRAY['order:' || order_id]) AS stored
  FROM orders AS o WHERE order_id IN (7, 8);
UPDATE orders SET status = 'shipped' WHERE order_id = 8;
SELECT cache_get('page of 7') IS NOT NULL AS page_of_7, cache_get('page of 8') IS NOT NULL AS page_of_8, cache_status();
SELECT cache_unwatch('orders');

\echo '-- An event has the name of what happens in the application, and knows its keys, tags and patterns:'
\echo
SELECT cache_on_event('customer moved', ARRAY['address:{id}', 'match:invoice:{id}:*']);
SELECT cache_set_text('address:7', 'Main Street'), cache_set_text('invoice:7:1', 'To: Main Street'),
       cache_set_text('invoice:8:1', 'To: Side Street');
SELECT cache_emit('customer moved', '{"id": 7}');
SELECT key, cache_get_text(key) AS value FROM unnest(ARRAY['address:7', 'invoice:7:1', 'invoice:8:1']) AS key;
SELECT cache_off_event('customer moved');

\echo '-- A job that looks for work locks the table as a writer does. If it finds none, nothing leaves the cache:'
\echo
CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now());
SELECT count(*) AS rows FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard');
BEGIN;
SELECT order_id FROM orders WHERE status = 'to be checked' FOR UPDATE SKIP LOCKED;
INSERT INTO visits DEFAULT VALUES;
COMMIT;
SELECT count(*) AS rows FROM cache_query(NULL::dashboard, 'SELECT * FROM dashboard');
SELECT cache_status();

\echo '-- Caches outside of the database are told which values to forget. Here, the listener is this session:'
\echo
SELECT cache_create_space('prices', notify => 'names', if_not_exists => true);
LISTEN pg_cache;
SELECT cache_set('price of 7', '8.99', space => 'prices');
-- The worker sends its notifications after the commit. psql shows them after a statement.
SELECT pg_sleep(1) AS passed \gset
UNLISTEN pg_cache;
SELECT cache_drop_space('prices');

SELECT coalesce(current_setting('pg_cache.redis_url', true), '') LIKE 'unix://%' AS is_there \gset
\if :is_there
SELECT substr(current_setting('pg_cache.redis_url'), 8) AS socket \gset
-- Waits until Redis has all changes.
CREATE OR REPLACE PROCEDURE pg_temp.await_redis() LANGUAGE plpgsql AS $$ BEGIN
    FOR step IN 1..6000 LOOP
        EXIT WHEN (SELECT connected AND lag = 0 FROM cache_workers WHERE kind = 'redis');
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;

\echo '-- The values of a space with redis => true are written to Redis as JSON, where any client can read them:'
\echo
SELECT cache_create_space('shared', redis => true, if_not_exists => true);
SELECT cache_set('product 7', to_jsonb(p), '10 minutes', ARRAY['category:' || category], 'shared') AS stored
  FROM products AS p WHERE product_id = 7;
CALL pg_temp.await_redis();
\echo `redis-cli -s :'socket' GET 'pg_cache:shop:shared:product 7'`
\echo

\echo '-- They leave Redis with their tags:'
\echo
SELECT cache_invalidate_tag('category:' || category) FROM products WHERE product_id = 7;
CALL pg_temp.await_redis();
\echo EXISTS: `redis-cli -s :'socket' EXISTS 'pg_cache:shop:shared:product 7'`
\echo
SELECT cache_drop_space('shared');
\endif

SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')
   AND current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%' AS counts_statements \gset
\if :counts_statements
\echo '-- Which queries are worth caching? These two have run a few times, as the pages of the shop would run them:'
\echo
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
SELECT pg_stat_statements_reset() \g /dev/null
\o /dev/null
SELECT 'SELECT country, count(*) AS orders FROM orders JOIN customers USING (customer_id) GROUP BY country'
  FROM generate_series(1, 6) \gexec
SELECT format('SELECT status, count(*) FROM orders WHERE customer_id = %s GROUP BY status', 1 + call % 3)
  FROM generate_series(1, 6) AS call \gexec
\o
\pset format wrapped
\pset columns 130
\x on
SELECT * FROM cache_advise(3);
\x off
\pset format aligned
\endif

\echo '-- The last value stays for a day, also over make stop and the next make run:'
\echo
SELECT cache_set_text('left by the tour', to_char(now(), '"tour of" HH24:MI:SS'), '1 day') AS stored;
