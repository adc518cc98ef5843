-- The tour that `make run` plays: each capability that exists, on the sample shop, with real timings.

\pset pager off
\pset footer off
\pset null '-'

\echo
\echo '-- pg_cache lives in the server: it is loaded when the server starts, and is an extension like any other.'
\echo
\dx pg_cache

\echo '-- The shop on which everything is shown:'
\echo
SELECT (SELECT count(*) FROM customers) AS customers, (SELECT count(*) FROM products) AS products,
       (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM order_items) AS order_items;

\echo '-- Its dashboard is the kind of query a cache is for. This is what it costs today, each time, for everyone:'
\echo
\timing on
SELECT * FROM dashboard WHERE month = '2025-11-01' ORDER BY revenue DESC LIMIT 5;
\timing off

\echo '-- And this is the floor that every cache function builds on: a million calls into the library.'
\echo
\timing on
SELECT count(pgcache.noop('key')) AS calls FROM generate_series(1, 1000000);
\timing off

\echo '-- A value, set once and read a million times. Others see it when the transaction commits:'
\echo
SELECT cache_set('best seller', to_jsonb(p)) FROM products AS p WHERE product_id = 7;
SELECT cache_get('best seller')->>'name' AS name, cache_ttl('best seller') > '4 min' AS for_minutes, cache_status();
\timing on
SELECT count(cache_get('best seller')) AS hits FROM generate_series(1, 1000000);
\timing off

\echo '-- Rollback leaves no trace:'
\echo
BEGIN;
SELECT cache_set_text('draft', 'never seen by others');
SELECT cache_get_text('draft');
ROLLBACK;
SELECT cache_get_text('draft'), cache_status();

\echo '-- Tags: two thousand values, and all of one category made a miss by one statement:'
\echo
SELECT count(cache_set('product:' || product_id, to_jsonb(p), tags => ARRAY['products', 'category:' || category])) AS stored
  FROM products AS p;
SELECT count(cache_get('product:' || product_id)) AS hits FROM products;
\timing on
SELECT cache_invalidate_tag('category:light');
\timing off
SELECT category, count(cache_get('product:' || product_id)) AS hits FROM products GROUP BY category ORDER BY category LIMIT 4;

\echo '-- Counters count at once, whatever becomes of the transaction:'
\echo
SELECT cache_delete('calls');
BEGIN;
SELECT cache_incr('calls', ttl => '1 minute') AS calls;
ROLLBACK;
SELECT cache_incr('calls') AS calls;

\echo '-- A space has keys and options of its own, and lets in whom it was told to:'
\echo
SELECT count(cache_drop_space(name)) AS dropped FROM cache_spaces WHERE name = 'tour';
SELECT cache_create_space('tour', default_ttl => '1 hour', max_value => 1000);
SELECT cache_set_text('k', 'in the space'::text, space => 'tour'), cache_get_text('k', 'tour'), cache_get_text('k');
SELECT name, default_ttl, max_value FROM cache_spaces ORDER BY name;
SELECT cache_drop_space('tour');

\echo '-- The dashboard again, this time by a key: computed once, ...'
\echo
\timing on
SELECT jsonb_array_length(cache_fetch('dashboard', $$
    SELECT jsonb_agg(d) FROM dashboard AS d WHERE month = '2025-11-01' $$)) AS categories;
\echo '-- ... and then read from memory, by everybody:'
SELECT jsonb_array_length(cache_fetch('dashboard', $$
    SELECT jsonb_agg(d) FROM dashboard AS d WHERE month = '2025-11-01' $$)) AS categories, cache_status();
\timing off

\echo '-- An order arrives. Nothing was declared, no table has a trigger: the next read knows.'
\echo
BEGIN;
INSERT INTO orders SELECT max(order_id) + 1, 7, '2025-11-15', 'paid' FROM orders;
COMMIT;
SELECT jsonb_array_length(cache_fetch('dashboard', $$
    SELECT jsonb_agg(d) FROM dashboard AS d WHERE month = '2025-11-01' $$)) AS categories, cache_status();

\echo '-- A tag may stand for a table, or for a materialized view: refreshing it makes everything a miss that has the tag.'
\echo
CREATE MATERIALIZED VIEW IF NOT EXISTS sellers AS SELECT product_id, sum(quantity) AS sold FROM order_items GROUP BY product_id;
SELECT cache_watch('sellers');
SELECT cache_set('best', to_jsonb(s), tags => '{sellers}') AS stored FROM sellers AS s ORDER BY sold DESC LIMIT 1;
SELECT cache_get('best') IS NOT NULL AS there;
REFRESH MATERIALIZED VIEW sellers;
SELECT cache_get('best') IS NOT NULL AS there, cache_status();
SELECT cache_unwatch('sellers');
