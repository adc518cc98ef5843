-- Stale values: for the time stale_ok, cache_acquire may return a value that has expired or was invalidated. Other functions miss.
\pset null '(null)'
CREATE FUNCTION ask(key text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, value, CASE WHEN lease > 0 THEN 'with a lease' END, CASE WHEN ttl > '0' THEN 'with time left' END)
      FROM cache_acquire($1)
$$;
SELECT cache_set('k', '{"v": 1}', stale_ok => '1 h', tags => '{t}');
SELECT ask('k'), cache_get('k');
SELECT cache_invalidate_tag('t');
SELECT cache_get('k'), cache_exists('k'), cache_ttl('k'), cache_status();
-- A caller with hold => NULL gets the stale value. Of the other callers, the first one gets the lease, the rest the stale value.
SELECT status, value, lease, ttl BETWEEN '59 min' AND '1 h' AS ttl FROM cache_acquire('k', hold => NULL);
SELECT lease AS lease FROM cache_acquire('k') \gset
SELECT ask('k'), ask('k');
SELECT cache_status();
SELECT cache_set('k', '{"v": 2}', stale_ok => '1 h', tags => '{t}', lease => :lease);
SELECT ask('k');

-- A value that has expired is stale for the time stale_ok.
SELECT cache_set('short', '1', '100 ms', stale_ok => '1 h'), pg_sleep(0.2);
SELECT cache_get('short'), ask('short'), ask('short');
-- When stale_ok has passed too, the value is never returned.
SELECT cache_set('both', '1', '100 ms', stale_ok => '100 ms'), pg_sleep(0.4);
SELECT cache_get('both'), ask('both'), ask('both');
-- With stale_ok => '0', or without stale_ok, an invalidated value is never returned.
SELECT cache_set('none', '1', stale_ok => '0', tags => '{t}'), cache_set('never', '1', tags => '{t}');
SELECT cache_invalidate_tag('t');
SELECT ask('none'), ask('none'), ask('never'), ask('never');

-- A deleted or flushed value is never returned.
SELECT cache_set('removed', '1', stale_ok => '1 h'), cache_delete('removed');
SELECT ask('removed'), ask('removed');
SELECT cache_set('flushed', '1', stale_ok => '1 h'), cache_flush('default');
SELECT ask('flushed'), ask('flushed');
-- A transaction does not get the stale value that it has invalidated itself.
SELECT cache_set('own', '1', stale_ok => '1 h', tags => '{t}');
BEGIN;
SELECT cache_invalidate_tag('t');
SELECT ask('own'), ask('own');
COMMIT;
-- The session still holds the lease that its transaction acquired, so this call gets the stale value.
SELECT ask('own');
-- A stale value counts as absent, although cache_acquire may still return it.
SELECT cache_set('own', '2', mode => 'present'), cache_set('own', '2', mode => 'absent'), cache_get('own');
-- cache_set_text takes stale_ok too, but cache_acquire refuses to return a text.
SELECT cache_set_text('text', 'x', stale_ok => '1 h', tags => '{t}'), cache_get_text('text');
SELECT cache_acquire('text');
SELECT * FROM cache_check();
