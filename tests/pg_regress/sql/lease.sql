-- The answers of cache_acquire to one session. The numbers of leases vary, so they are not printed.
CREATE FUNCTION ask(key text, wait interval DEFAULT '0', hold interval DEFAULT '30 s') RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, value, CASE WHEN lease > 0 THEN 'with a lease' END,
                     CASE WHEN age >= '0' AND age < '1 min' THEN 'just set' END, CASE WHEN ttl > '0' THEN 'with time left' END)
      FROM cache_acquire($1, wait => $2, hold => $3)
$$;
CREATE TABLE kept (name text PRIMARY KEY, lease bigint);
\pset null '(null)'

-- A miss gives a lease. The value that is set under the lease is a hit.
SELECT status, value, lease IS NOT NULL AS lease, age, ttl FROM cache_acquire('k', hold => NULL);
INSERT INTO kept SELECT 'k', lease FROM cache_acquire('k');
SELECT ask('k'), cache_status();
SELECT ask('k', wait => '50 ms');
SELECT ask('k', hold => NULL);
SELECT cache_set('k', '{"v": 1}', '1 h', lease => lease) FROM kept WHERE name = 'k';
SELECT ask('k'), cache_get('k');
SELECT age < '1 min' AS age, ttl BETWEEN '59 min' AND '1 h' AS ttl FROM cache_acquire('k');
SELECT cache_status();
-- A lease ends with the first value that is set under it.
SELECT cache_set('k', '2', lease => lease) FROM kept WHERE name = 'k';
SELECT cache_status();
SELECT cache_get('k');

-- After a release, the next caller gets a lease.
SELECT lease AS lease FROM cache_acquire('r') \gset
SELECT cache_release('r', :lease), cache_release('r', :lease), cache_set('r', '1', lease => :lease);
SELECT ask('r'), ask('r');
-- Invalid numbers, the lease of another key, and a lease with another epoch of shared memory are refused.
SELECT cache_release('r', n), cache_set('r', '1', lease => n) FROM unnest(ARRAY[0, 1, -1, 9223372036854775807, -9223372036854775808]) AS n;
SELECT lease AS lease FROM cache_acquire('s') \gset
SELECT cache_release('r', :lease), cache_set('r', '1', lease => :lease), cache_release('s', :lease # (1::bigint << 40));
SELECT cache_release('s', :lease);

-- A change of the key, of a tag or of the space makes the lease void.
SELECT lease AS lease FROM cache_acquire('v') \gset
SELECT cache_set('v', '"set meanwhile"');
SELECT cache_set('v', '"computed before"', lease => :lease);
SELECT cache_get('v');
SELECT cache_delete('v');
SELECT ask('v'), cache_flush('default');
SELECT lease AS lease FROM cache_acquire('w') \gset
SELECT cache_delete('w');
SELECT ask('w');
SELECT cache_set('w', '"computed before"', lease => :lease);
SELECT cache_status();
SELECT ask('w'); -- the refused set has ended the lease
SELECT lease AS lease FROM cache_acquire('t') \gset
SELECT cache_invalidate_tag('orders');
SELECT cache_set('t', '"computed before"', tags => '{orders}', lease => :lease);
SELECT cache_status();
SELECT lease AS lease FROM cache_acquire('t') \gset
SELECT cache_set('t', '"computed after"', tags => '{orders}', lease => :lease);
SELECT cache_get('t');
SELECT lease AS lease FROM cache_acquire('u') \gset
SELECT cache_flush('default');
SELECT cache_set('u', '"computed before"', lease => :lease);

-- Leases for text and bytea.
SELECT lease AS lease FROM cache_acquire('text') \gset
SELECT cache_set_text('text', 'a text', lease => :lease), cache_get_text('text');
SELECT lease AS lease FROM cache_acquire('bytes') \gset
SELECT cache_set_bytes('bytes', '\x00ff', lease => :lease), cache_get_bytes('bytes');
SELECT cache_acquire('text');

-- A rollback of the transaction or the savepoint that has acquired a lease releases it. Otherwise the lease outlives the
-- transaction.
BEGIN;
SELECT ask('a');
ROLLBACK;
BEGIN;
SELECT ask('a');
SAVEPOINT s;
SELECT ask('b');
ROLLBACK TO s;
SELECT ask('b'), ask('a', wait => '1 hour'); -- a session does not wait for its own lease
SAVEPOINT s;
SELECT ask('c');
RELEASE s;
COMMIT;
SELECT ask('a'), ask('b'), ask('c');
-- The transaction sees the value that it has set under a lease at once. After a rollback the lease is still held.
SELECT lease AS lease FROM cache_acquire('d') \gset
BEGIN;
SELECT cache_set('d', '1', lease => :lease), ask('d'), cache_get('d');
ROLLBACK;
SELECT ask('d');
BEGIN;
SAVEPOINT s;
SELECT cache_set('d', '1', lease => :lease);
ROLLBACK TO s;
SELECT ask('d');
SELECT cache_set('d', '2', lease => :lease);
COMMIT;
SELECT ask('d');
-- The transaction's own later changes, and an earlier invalidation or delete, apply to a value that it sets under a lease.
SELECT lease AS lease FROM cache_acquire('e') \gset
BEGIN;
SELECT cache_invalidate_tag('mine');
SELECT cache_set('e', '1', tags => '{mine}', lease => :lease);
SELECT cache_status();
COMMIT;
SELECT ask('e');
SELECT lease AS lease FROM cache_acquire('f') \gset
BEGIN;
SELECT cache_set('f', '1', tags => '{mine}', lease => :lease);
SELECT cache_invalidate_tag('mine');
SELECT cache_get('f');
COMMIT;
SELECT ask('f');
SELECT lease AS lease FROM cache_acquire('g') \gset
BEGIN;
SELECT cache_set('g', '"under the lease"', lease => :lease);
SELECT cache_set('g', '"and then not"');
COMMIT;
SELECT ask('g');
SELECT lease AS lease FROM cache_acquire('h') \gset
BEGIN;
SELECT cache_delete('h');
SELECT cache_set('h', '1', lease => :lease), ask('h');
COMMIT;
SELECT ask('h');
-- A transaction that also writes to a table, and touches the value that it has set under the lease.
CREATE TABLE t (i int);
SELECT lease AS lease FROM cache_acquire('i') \gset
BEGIN;
INSERT INTO t VALUES (1);
SELECT cache_set('i', '1', '1 s', lease => :lease), cache_touch('i', '1 h');
COMMIT;
SELECT ask('i'), cache_ttl('i') > '1 min' AS touched;
-- PREPARE TRANSACTION drops the values that the transaction has set. Its leases stay, its claims end.
SELECT lease AS lease FROM cache_acquire('p') \gset
BEGIN;
SELECT ask('q'), cache_set('p', '1', lease => :lease), cache_set('r', '1', mode => 'absent');
PREPARE TRANSACTION 'lease';
SELECT ask('p'), ask('q'), cache_set('r', '2', mode => 'absent');
COMMIT PREPARED 'lease';
SELECT cache_get('p'), cache_get('r'), cache_set('p', '2', lease => :lease);
-- With pg_cache.enabled = off or pg_cache.bypass = on, cache_acquire tells every caller to compute without a lease.
SET pg_cache.enabled = off;
SELECT ask('i'), cache_set('i', '2', lease => :lease);
RESET pg_cache.enabled;
SET pg_cache.bypass = on;
SELECT ask('i');
RESET pg_cache.bypass;
SELECT * FROM cache_check();
