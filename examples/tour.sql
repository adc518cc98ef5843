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
