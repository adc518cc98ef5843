-- pgcache.noop shows the cost of a call. It is strict, and volatile so that the planner never optimises it away.
SELECT pgcache.noop('key');
SELECT pgcache.noop('') IS NOT NULL AS empty_key, pgcache.noop(NULL) IS NULL AS null_key;
SELECT count(pgcache.noop('key ' || i)) FROM generate_series(1, 1000) AS i;
SELECT provolatile, proparallel, proisstrict FROM pg_proc WHERE oid = 'pgcache.noop(text)'::regprocedure;
