-- What \df+ shows, and who may call what. Every object has its line here.

COMMENT ON FUNCTION pgcache.noop(text) IS
    'Takes a key and returns 0: the cost of calling a function of pg_cache, to measure others against.';
REVOKE ALL ON FUNCTION pgcache.noop(text) FROM PUBLIC;

COMMENT ON FUNCTION cache_check() IS
    'Verifies every structure of the cache and returns what is wrong with it: nothing, in a cache that is in order.';
REVOKE ALL ON FUNCTION cache_check() FROM PUBLIC;

COMMENT ON FUNCTION cache_get(text, text) IS
    'The jsonb that is stored under a key, or null if there is none.';
REVOKE ALL ON FUNCTION cache_get(text, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_get_text(text, text) IS
    'The text that is stored under a key, or null if there is none.';
REVOKE ALL ON FUNCTION cache_get_text(text, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_get_bytes(text, text) IS
    'The bytea that is stored under a key, or null if there is none.';
REVOKE ALL ON FUNCTION cache_get_bytes(text, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_set(text, jsonb, interval, text[], text, text, interval, bigint) IS
    'Stores a jsonb under a key. The session sees it at once, others when the transaction commits. Returns whether it is stored.';
REVOKE ALL ON FUNCTION cache_set(text, jsonb, interval, text[], text, text, interval, bigint) FROM PUBLIC;

COMMENT ON FUNCTION cache_set_text(text, text, interval, text[], text, text, interval, bigint) IS
    'Stores a text under a key. The session sees it at once, others when the transaction commits. Returns whether it is stored.';
REVOKE ALL ON FUNCTION cache_set_text(text, text, interval, text[], text, text, interval, bigint) FROM PUBLIC;

COMMENT ON FUNCTION cache_set_bytes(text, bytea, interval, text[], text, text, interval, bigint) IS
    'Stores a bytea under a key. The session sees it at once, others when the transaction commits. Returns whether it is stored.';
REVOKE ALL ON FUNCTION cache_set_bytes(text, bytea, interval, text[], text, text, interval, bigint) FROM PUBLIC;

COMMENT ON FUNCTION cache_delete(text, text) IS
    'Removes what is stored under a key. Others see that when the transaction commits. Returns whether there was something.';
REVOKE ALL ON FUNCTION cache_delete(text, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_exists(text, text) IS
    'Whether something is stored under a key.';
REVOKE ALL ON FUNCTION cache_exists(text, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_ttl(text, text) IS
    'How long what is stored under a key has to live, or null if there is nothing.';
REVOKE ALL ON FUNCTION cache_ttl(text, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_touch(text, interval, text) IS
    'Gives what is stored under a key another time to live. Others see that when the transaction commits. Returns whether there is something.';
REVOKE ALL ON FUNCTION cache_touch(text, interval, text) FROM PUBLIC;

COMMENT ON FUNCTION cache_invalidate_tag(text) IS
    'Makes everything a miss that was stored with a tag. Others see that when the transaction commits.';
REVOKE ALL ON FUNCTION cache_invalidate_tag(text) FROM PUBLIC;

COMMENT ON FUNCTION cache_invalidate_tags(text[]) IS
    'Makes everything a miss that was stored with one of some tags. Others see that when the transaction commits.';
REVOKE ALL ON FUNCTION cache_invalidate_tags(text[]) FROM PUBLIC;

COMMENT ON FUNCTION cache_flush(text) IS
    'Makes everything in a space a miss, or in all spaces of the database: ''*''. Others see that when the transaction commits.';
REVOKE ALL ON FUNCTION cache_flush(text) FROM PUBLIC;

COMMENT ON FUNCTION cache_get_many(text[], text) IS
    'The jsonb of each key that has one, in the order of the keys: hits only.';
REVOKE ALL ON FUNCTION cache_get_many(text[], text) FROM PUBLIC;

COMMENT ON FUNCTION cache_set_many(jsonb, interval, text[], text) IS
    'Stores each member of an object under its name, like cache_set. Returns how many are stored.';
REVOKE ALL ON FUNCTION cache_set_many(jsonb, interval, text[], text) FROM PUBLIC;

COMMENT ON FUNCTION cache_delete_many(text[], text) IS
    'Removes what is stored under some keys, like cache_delete. Returns how many had something.';
REVOKE ALL ON FUNCTION cache_delete_many(text[], text) FROM PUBLIC;

COMMENT ON FUNCTION cache_incr(text, bigint, interval, text) IS
    'Adds to a counter and returns what it holds now: at once and for all, like a sequence. A key without a value becomes a counter, with a time to live.';
REVOKE ALL ON FUNCTION cache_incr(text, bigint, interval, text) FROM PUBLIC;
