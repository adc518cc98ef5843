-- What \df+ shows. Every object has its line here. Functions are open to everybody and ask themselves for the privilege that
-- each needs, so that whoever lacks it is told what to have granted; docs/privileges.md has the table. Views show what the caller may see.

COMMENT ON FUNCTION pgcache.noop(text) IS
    'Takes a key and returns 0: the cost of calling a function of pg_cache, to measure others against.';
REVOKE ALL ON FUNCTION pgcache.noop(text) FROM PUBLIC;

COMMENT ON FUNCTION pgcache.walk(integer, boolean) IS
    'Does so many times what the commit of this transaction will do for the tables that it has written, takes it back, and returns the nanoseconds of one time.';
REVOKE ALL ON FUNCTION pgcache.walk(integer, boolean) FROM PUBLIC;

COMMENT ON FUNCTION cache_check() IS
    'Verifies every structure of the cache and returns what is wrong with it: nothing, in a cache that is in order.';

COMMENT ON FUNCTION cache_get(text, text) IS
    'The jsonb that is stored under a key, or null if there is none.';

COMMENT ON FUNCTION cache_get_text(text, text) IS
    'The text that is stored under a key, or null if there is none.';

COMMENT ON FUNCTION cache_get_bytes(text, text) IS
    'The bytea that is stored under a key, or null if there is none.';

COMMENT ON FUNCTION cache_set(text, jsonb, interval, text[], text, text, interval, bigint) IS
    'Stores a jsonb under a key. The session sees it at once, others when the transaction commits. Returns whether it is stored.';

COMMENT ON FUNCTION cache_set_text(text, text, interval, text[], text, text, interval, bigint) IS
    'Stores a text under a key. The session sees it at once, others when the transaction commits. Returns whether it is stored.';

COMMENT ON FUNCTION cache_set_bytes(text, bytea, interval, text[], text, text, interval, bigint) IS
    'Stores a bytea under a key. The session sees it at once, others when the transaction commits. Returns whether it is stored.';

COMMENT ON FUNCTION cache_acquire(text, text, interval, interval) IS
    'The jsonb under a key (hit, or stale), or who is to compute it: one caller is told to (compute) and gets a lease for cache_set, the others wait. Compute in statements that begin after it has returned.';

COMMENT ON FUNCTION cache_release(text, bigint, text) IS
    'Gives a lease back without a value, so that the next caller of cache_acquire computes. Returns whether there was such a lease.';

COMMENT ON FUNCTION cache_delete(text, text) IS
    'Removes what is stored under a key. Others see that when the transaction commits. Returns whether there was something.';

COMMENT ON FUNCTION cache_exists(text, text) IS
    'Whether something is stored under a key.';

COMMENT ON FUNCTION cache_ttl(text, text) IS
    'How long what is stored under a key has to live, or null if there is nothing.';

COMMENT ON FUNCTION cache_touch(text, interval, text) IS
    'Gives what is stored under a key another time to live. Others see that when the transaction commits. Returns whether there is something.';

COMMENT ON FUNCTION cache_invalidate_tag(text) IS
    'Makes everything a miss that was stored with a tag. Others see that when the transaction commits.';

COMMENT ON FUNCTION cache_invalidate_tags(text[]) IS
    'Makes everything a miss that was stored with one of some tags. Others see that when the transaction commits.';

COMMENT ON FUNCTION cache_flush(text) IS
    'Makes everything in a space a miss, or in all spaces of the database: ''*''. Others see that when the transaction commits.';

COMMENT ON FUNCTION cache_get_many(text[], text) IS
    'The jsonb of each key that has one, in the order of the keys: hits only.';

COMMENT ON FUNCTION cache_set_many(jsonb, interval, text[], text) IS
    'Stores each member of an object under its name, like cache_set. Returns how many are stored.';

COMMENT ON FUNCTION cache_delete_many(text[], text) IS
    'Removes what is stored under some keys, like cache_delete. Returns how many had something.';

COMMENT ON FUNCTION cache_incr(text, bigint, interval, text) IS
    'Adds to a counter and returns what it holds now: at once and for all, like a sequence. A key without a value becomes a counter, with a time to live.';

COMMENT ON FUNCTION cache_keys(text, text, integer) IS
    'The keys in a space that have a value and are like a pattern (* anything, ? a character, \ escapes). Looks at every entry: for people.';

COMMENT ON FUNCTION cache_status() IS
    'What the last operation of this session did, and why: hot, miss, bypass, done or refused.';

COMMENT ON FUNCTION cache_create_space(text, interval, interval, text, real, text, text, bigint, bigint, bigint, interval, bigint, integer, boolean, text, boolean) IS
    'Makes a space: a named cache with options of its own. What is null is as the built-in default says.';

COMMENT ON FUNCTION cache_alter_space(text, interval, interval, text, real, text, text, bigint, bigint, bigint, interval, bigint, integer, boolean, text, boolean) IS
    'Changes the options of a space that are not null.';

COMMENT ON FUNCTION cache_drop_space(text) IS
    'Drops a space and what is in it.';

COMMENT ON FUNCTION cache_grant(text, regrole, text) IS
    'Grants a privilege in a space to a role: read, write (with read), or admin (with both). Role ''-'' is everybody.';

COMMENT ON FUNCTION cache_revoke(text, regrole, text) IS
    'Takes a privilege in a space back from a role.';

COMMENT ON FUNCTION pgcache.changed() IS
    'Tells all sessions that the table it is a trigger of has changed.';
REVOKE ALL ON FUNCTION pgcache.changed() FROM PUBLIC;

COMMENT ON FUNCTION pgcache.visible_spaces() IS
    'What the view cache_spaces shows.';

COMMENT ON FUNCTION cache_watch(regclass, text[]) IS
    'Lets tags stand for a table: a write to it makes everything a miss that is stored with one of them. Its own name, if none is given.';

COMMENT ON FUNCTION cache_unwatch(regclass) IS
    'Lets no tag stand for a table any more.';

COMMENT ON FUNCTION cache_invalidate_relation(regclass) IS
    'Makes everything a miss that depends on a table, as a write to it would. Others see that when the transaction commits.';

COMMENT ON FUNCTION pgcache.visible_watches() IS
    'What the view cache_watches shows.';

COMMENT ON FUNCTION cache_stats_reset() IS
    'Begins to count anew in the views cache_stats and cache_relations, for all spaces and tables of the database.';

COMMENT ON FUNCTION pgcache.space_statistics() IS
    'What the view cache_stats shows.';

COMMENT ON FUNCTION pgcache.relation_statistics() IS
    'What the view cache_relations shows.';

COMMENT ON FUNCTION cache_fetch(text, text, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'The value under a key, or else the first column of the first row of a query, as jsonb, stored until what the query has read changes.';
