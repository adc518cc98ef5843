-- What \df+ shows, and who may call what. Every object has its line here.

COMMENT ON FUNCTION pgcache.noop(text) IS
    'Takes a key and returns 0: the cost of calling a function of pg_cache, to measure others against.';
REVOKE ALL ON FUNCTION pgcache.noop(text) FROM PUBLIC;

COMMENT ON FUNCTION cache_check() IS
    'Verifies every structure of the cache and returns what is wrong with it: nothing, in a cache that is in order.';
REVOKE ALL ON FUNCTION cache_check() FROM PUBLIC;
