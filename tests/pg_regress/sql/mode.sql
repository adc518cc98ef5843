-- mode => 'absent' sets a key only if it has no value, mode => 'present' only if it has one.
\pset null '(null)'
SELECT cache_set('k', '1', mode => 'present'), cache_status(), cache_get('k');
SELECT cache_set('k', '1', mode => 'absent'), cache_get('k');
SELECT cache_set('k', '2', mode => 'absent'), cache_status(), cache_get('k');
SELECT cache_set('k', '3', mode => 'present'), cache_get('k');
SELECT cache_set_text('t', 'one', mode => 'absent'), cache_set_text('t', 'two', mode => 'absent'), cache_get_text('t');
SELECT cache_set_bytes('b', '\x01', mode => 'absent'), cache_set_bytes('b', '\x02', mode => 'absent'), cache_get_bytes('b');

-- A deleted, invalidated or flushed key counts as absent.
SELECT cache_delete('k'), cache_set('k', '4', mode => 'absent', tags => '{t}');
SELECT cache_invalidate_tag('t');
SELECT cache_set('k', '5', mode => 'present'), cache_set('k', '5', mode => 'absent');
SELECT cache_flush('default');
SELECT cache_set('k', '6', mode => 'absent'), cache_get('k');

-- The mode is checked against the key as the current transaction sees it, with its own uncommitted changes.
BEGIN;
SELECT cache_delete('k'), cache_set('k', '7', mode => 'present'), cache_set('k', '7', mode => 'absent'), cache_get('k');
SELECT cache_set('k', '8', mode => 'absent'), cache_set('k', '8', mode => 'present'), cache_get('k');
ROLLBACK;
SELECT cache_get('k');
BEGIN;
SELECT cache_set('new', '1', mode => 'absent', tags => '{t}');
SAVEPOINT s;
SELECT cache_set('newer', '1', mode => 'absent');
ROLLBACK TO s;
SELECT cache_get('new'), cache_get('newer');
SELECT cache_invalidate_tag('t');
SELECT cache_get('new'), cache_set('new', '2', mode => 'absent'), cache_get('new');
COMMIT;
SELECT cache_get('new'), cache_get('newer'), cache_set('newer', '2', mode => 'absent');
BEGIN;
SELECT cache_set('own', '1', mode => 'absent'), cache_delete('own'), cache_set('own', '2', mode => 'absent'), cache_touch('own', '1 h');
COMMIT;
SELECT cache_get('own');
-- The same in transactions that also write to a table, and after a delete in the same transaction.
CREATE TABLE changes (i int);
BEGIN;
INSERT INTO changes VALUES (1);
SELECT cache_set('both', '1', mode => 'absent'), cache_delete('k'), cache_set('k', '9', mode => 'absent');
COMMIT;
SELECT cache_get('both'), cache_get('k');
BEGIN;
INSERT INTO changes VALUES (1);
SELECT cache_set('both', '2', mode => 'absent', tags => '{t}'), cache_delete('k'), cache_set('k', '10', mode => 'absent', tags => '{t}');
SELECT cache_invalidate_tag('t');
COMMIT;
SELECT cache_get('both'), cache_get('k');
-- An expired value counts as absent.
SELECT cache_set('short', '1', '100 ms'), pg_sleep(0.2) IS NOT NULL, cache_set('short', '2', mode => 'present'), cache_set('short', '2', mode => 'absent');
-- A counter counts as a value.
SELECT cache_incr('c'), cache_set('c', '1', mode => 'absent'), cache_incr('c');

-- A set with mode => 'absent' takes precedence over a lease: the set under the lease is refused.
SELECT lease AS lease FROM cache_acquire('first') \gset
BEGIN;
SELECT cache_set('first', '"claimed"', mode => 'absent');
SELECT cache_set('first', '"computed"', lease => :lease), cache_release('first', :lease);
COMMIT;
SELECT cache_get('first');
-- With pg_cache.enabled = off, neither mode sets a value.
SET pg_cache.enabled = off;
SELECT cache_set('off', '1', mode => 'absent'), cache_set('off', '1', mode => 'present');
RESET pg_cache.enabled;
SELECT * FROM cache_check();
