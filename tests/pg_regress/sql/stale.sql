-- What may be served for a while when it is not right any more: to those who ask for it, and to nobody else.
\pset null '(null)'
CREATE FUNCTION ask(key text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, value, CASE WHEN lease > 0 THEN 'with a lease' END, CASE WHEN ttl > '0' THEN 'with time left' END)
      FROM cache_acquire($1)
$$;
SELECT cache_set('k', '{"v": 1}', stale_ok => '1 h', tags => '{t}');
SELECT ask('k'), cache_get('k');
SELECT cache_invalidate_tag('t');
SELECT cache_get('k'), cache_exists('k'), cache_ttl('k'), cache_status();
-- Who only looks gets it; the first who means it computes; the others get it.
SELECT status, value, lease, ttl BETWEEN '59 min' AND '1 h' AS ttl FROM cache_acquire('k', hold => NULL);
SELECT lease AS lease FROM cache_acquire('k') \gset
SELECT ask('k'), ask('k');
SELECT cache_status();
SELECT cache_set('k', '{"v": 2}', stale_ok => '1 h', tags => '{t}', lease => :lease);
SELECT ask('k');

-- Its time is over.
SELECT cache_set('short', '1', '100 ms', stale_ok => '1 h'), pg_sleep(0.2);
SELECT cache_get('short'), ask('short'), ask('short');
-- So is the time after that.
SELECT cache_set('both', '1', '100 ms', stale_ok => '100 ms'), pg_sleep(0.4);
SELECT cache_get('both'), ask('both'), ask('both');
-- Without any.
SELECT cache_set('none', '1', stale_ok => '0', tags => '{t}'), cache_set('never', '1', tags => '{t}');
SELECT cache_invalidate_tag('t');
SELECT ask('none'), ask('none'), ask('never'), ask('never');

-- Removed is removed, flushed is flushed.
SELECT cache_set('removed', '1', stale_ok => '1 h'), cache_delete('removed');
SELECT ask('removed'), ask('removed');
SELECT cache_set('flushed', '1', stale_ok => '1 h'), cache_flush('default');
SELECT ask('flushed'), ask('flushed');
-- The own transaction does not get what it has made wrong.
SELECT cache_set('own', '1', stale_ok => '1 h', tags => '{t}');
BEGIN;
SELECT cache_invalidate_tag('t');
SELECT ask('own'), ask('own');
COMMIT;
-- It was its own lease, and goes on.
SELECT ask('own');
-- Absent, though it may still be served.
SELECT cache_set('own', '2', mode => 'present'), cache_set('own', '2', mode => 'absent'), cache_get('own');
-- Texts and bytes may be stale as well, and are not for cache_acquire.
SELECT cache_set_text('text', 'x', stale_ok => '1 h', tags => '{t}'), cache_get_text('text');
SELECT cache_acquire('text');
SELECT * FROM cache_check();
