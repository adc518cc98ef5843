-- pg_cache.enabled = off in a session: reads miss and sets store nothing. A set still removes the previous value, and deletes and
-- invalidations take effect.
SELECT cache_set('k', '1', tags => '{t}'), cache_set('other', '1');
SET pg_cache.enabled = off;
SELECT cache_get('k') IS NULL AS miss, cache_set('k', '2'), cache_exists('k'), cache_delete('other');
RESET pg_cache.enabled;
SELECT cache_get('k'), cache_exists('other');
SELECT cache_set('k', '1', tags => '{t}');
SET pg_cache.enabled = off;
SELECT cache_invalidate_tag('t');
RESET pg_cache.enabled;
SELECT cache_get('k') IS NULL AS invalidated;
-- pg_cache.bypass = on refreshes values: reads miss, sets store.
SELECT cache_set('k', '3');
SET pg_cache.bypass = on;
SELECT cache_get('k') IS NULL AS miss, cache_set('k', '4'), cache_get('k') IS NULL AS miss;
RESET pg_cache.bypass;
SELECT cache_get('k');
