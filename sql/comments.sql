-- What \df+ shows, and who may call what. Every object has its line here.

COMMENT ON FUNCTION pgcache.noop(text) IS
    'Takes a key and returns 0: the cost of calling a function of pg_cache, to measure others against.';
REVOKE ALL ON FUNCTION pgcache.noop(text) FROM PUBLIC;
