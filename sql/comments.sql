-- The comments that \df+ shows, and the grants of the functions. Every function has its comment here, except the two functions of
-- the type pgcache.size and require_library: schema.sql has those. A new function, or one with another signature, must be added
-- here; tests/pg_regress/sql/comments.sql lists functions without a comment. This is the last part of the script of CREATE
-- EXTENSION; README.md in this directory names all parts and the rules for them.
--
-- Every role may execute the functions outside of schema pgcache. A function that needs a privilege checks it itself, so that its
-- error can name the missing grant (docs/privileges.md has the table). The functions behind views stay executable for every role,
-- too, because a view calls a function with the privileges of the role that reads the view. The function noop, which is only for
-- measurements, and the trigger functions are revoked from public.

COMMENT ON FUNCTION pgcache.noop(text) IS
    'Takes a key and returns 0. Measures the cost of calling a function of pg_cache.';
REVOKE ALL ON FUNCTION pgcache.noop(text) FROM PUBLIC;

COMMENT ON FUNCTION cache_check() IS
    'Checks every structure of the cache and returns one row for each fault. Returns no rows if the cache is in order.';

COMMENT ON FUNCTION cache_get(text, text) IS
    'Returns the jsonb stored under a key, or null if there is none. Returns a counter as a number.';

COMMENT ON FUNCTION cache_get_text(text, text) IS
    'Returns the text stored under a key, or null if there is none. Returns a counter as text.';

COMMENT ON FUNCTION cache_get_bytes(text, text) IS
    'Returns the bytea stored under a key, or null if there is none.';

COMMENT ON FUNCTION cache_set(text, jsonb, interval, text[], text, text, interval, bigint) IS
    'Stores a jsonb under a key. This session sees it at once, other sessions when the transaction commits. Returns whether it was stored. A value over a limit, or with a ttl that is not positive, is not stored, and the commit removes the previous value; with mode absent or a lease, it removes nothing.';

COMMENT ON FUNCTION cache_set_text(text, text, interval, text[], text, text, interval, bigint) IS
    'Stores a text under a key. This session sees it at once, other sessions when the transaction commits. Returns whether it was stored. A value over a limit, or with a ttl that is not positive, is not stored, and the commit removes the previous value; with mode absent or a lease, it removes nothing.';

COMMENT ON FUNCTION cache_set_bytes(text, bytea, interval, text[], text, text, interval, bigint) IS
    'Stores a bytea under a key. This session sees it at once, other sessions when the transaction commits. Returns whether it was stored. A value over a limit, or with a ttl that is not positive, is not stored, and the commit removes the previous value; with mode absent or a lease, it removes nothing.';

COMMENT ON FUNCTION cache_acquire(text, text, interval, interval) IS
    'Returns the jsonb under a key (status hit or stale). If there is none, one caller gets the status compute and a lease for cache_set, and the others get the status wait. Compute the value in statements that begin after the call has returned. Lease 0 means that no lease was free: cache_set stores nothing with it.';

COMMENT ON FUNCTION cache_acquire_text(text, text, interval, interval) IS
    'Does for a text what cache_acquire does for a jsonb: returns it, or tells one caller to compute it and the others to wait.';

COMMENT ON FUNCTION cache_acquire_bytes(text, text, interval, interval) IS
    'Does for a bytea what cache_acquire does for a jsonb: returns it, or tells one caller to compute it and the others to wait.';

COMMENT ON FUNCTION cache_release(text, bigint, text) IS
    'Releases a lease without a value, so that the next caller of cache_acquire is told to compute it. Returns whether there was such a lease.';

COMMENT ON FUNCTION cache_delete(text, text) IS
    'Removes the value of a key. Other sessions see that when the transaction commits. Returns whether there was a value.';

COMMENT ON FUNCTION cache_exists(text, text) IS
    'Returns whether a value is stored under a key.';

COMMENT ON FUNCTION cache_ttl(text, text) IS
    'Returns the remaining time to live of a key''s value, or null if there is no value.';

COMMENT ON FUNCTION cache_touch(text, interval, text) IS
    'Sets the time to live of a key''s value, or removes the value if the time is not positive. Other sessions see that when the transaction commits. Returns whether there is a value with this time.';

COMMENT ON FUNCTION cache_touch_many(text[], interval, text) IS
    'Sets the time to live of the values of the keys, like cache_touch. Returns how many keys have a value with this time.';

COMMENT ON FUNCTION cache_invalidate_tag(text) IS
    'Invalidates all values that were stored with a tag. Takes effect for other sessions when the transaction commits.';

COMMENT ON FUNCTION cache_invalidate_tags(text[]) IS
    'Invalidates all values that were stored with at least one of the tags. Takes effect for other sessions when the transaction commits.';

COMMENT ON FUNCTION cache_invalidate_pattern(text, text) IS
    'Invalidates the values of a space whose keys match a pattern (*, ?, and \ to escape). Takes effect for other sessions when the transaction commits.';

COMMENT ON FUNCTION cache_flush(text) IS
    'Invalidates all values of a space, or with ''*'' of all spaces of the database. Takes effect for other sessions when the transaction commits.';

COMMENT ON FUNCTION cache_get_many(text[], text) IS
    'Returns the keys that have a jsonb or a counter, each with its jsonb, in the order of the keys. Leaves out values of another kind.';

COMMENT ON FUNCTION cache_get_many_text(text[], text) IS
    'Returns the keys that have a text or a counter, each with its text, in the order of the keys. Leaves out values of another kind.';

COMMENT ON FUNCTION cache_get_many_bytes(text[], text) IS
    'Returns the keys that have a bytea, each with its bytea, in the order of the keys. Leaves out values of another kind.';

COMMENT ON FUNCTION cache_set_many(jsonb, interval, text[], text) IS
    'Stores each member of a JSON object under the member''s name, like cache_set. Returns how many were stored.';

COMMENT ON FUNCTION cache_set_many_text(text[], text[], interval, text[], text) IS
    'Stores each text under the key at the same position, like cache_set_text. Returns how many were stored.';

COMMENT ON FUNCTION cache_set_many_bytes(text[], bytea[], interval, text[], text) IS
    'Stores each bytea under the key at the same position, like cache_set_bytes. Returns how many were stored.';

COMMENT ON FUNCTION cache_delete_many(text[], text) IS
    'Removes the values of the keys, like cache_delete. Returns how many keys had a value.';

COMMENT ON FUNCTION cache_incr(text, bigint, interval, text, text) IS
    'Adds to a counter and returns its new value. Takes effect at once for all sessions, like nextval, and a rollback does not undo it, unless this transaction has set or removed the key before. A key without a value becomes a counter with the given time to live; with mode present it stays without a value, and the result is null. A jsonb or text that is an integer becomes a counter. If the counter cannot be stored, the result is the number to add.';

COMMENT ON FUNCTION cache_keys(text, text, integer, text) IS
    'Returns the keys of a space that have a value and match a pattern: * matches any characters, ? matches one, \ escapes. Returns at most max_keys keys that follow the key "after", in the order of their bytes. Looks at every entry and every saved value, so it is meant for inspection.';

COMMENT ON FUNCTION cache_seq() IS
    'Returns the number of the last change in the journal of changes. 0 if there is no journal, and during recovery.';

COMMENT ON FUNCTION cache_changes(bigint, integer) IS
    'Returns the changes behind a number that the role may know: of a key, a tag, a space, or the whole database. Kind none: no further change up to this number. Kind reset: the journal does not reach back to the number, so the caller must forget everything and go on from the number of this row.';

COMMENT ON FUNCTION cache_get_near(text, text) IS
    'Returns the value of a key for a cache outside of the database that follows cache_changes: the value, whether that cache may keep it, its remaining time to live, and its tags. Always returns one row.';

COMMENT ON FUNCTION cache_status() IS
    'Returns what the last call of this session did, and the cause by name, such as "invalidated: table orders". Null after a call that failed, and after a rollback.';

COMMENT ON FUNCTION cache_create_space(text, interval, interval, text, real, text, text, pgcache.size, pgcache.size, pgcache.size, interval, pgcache.size, integer, boolean, text, boolean, boolean) IS
    'Creates a space. A null option has its default. With if_not_exists, an existing space stays as it is.';

COMMENT ON FUNCTION cache_alter_space(text, interval, interval, text, real, text, text, pgcache.size, pgcache.size, pgcache.size, interval, pgcache.size, integer, boolean, text, boolean) IS
    'Changes the options of a space that are given. A null option stays as it is.';

COMMENT ON FUNCTION cache_drop_space(text) IS
    'Drops a space with its values and grants. The space default cannot be dropped.';

COMMENT ON FUNCTION cache_grant(text, regrole, text) IS
    'Grants a role a privilege in a space: read, write (includes read) or admin (includes both). Role public stands for every role.';

COMMENT ON FUNCTION cache_grant(text, text, text) IS
    'Grants a role, given by its name, a privilege in a space: read, write (includes read) or admin (includes both). Role public stands for every role.';

COMMENT ON FUNCTION cache_revoke(text, regrole, text) IS
    'Revokes a privilege in a space from a role.';

COMMENT ON FUNCTION cache_revoke(text, text, text) IS
    'Revokes a privilege in a space from a role, given by its name.';

COMMENT ON FUNCTION pgcache.visible_grants() IS
    'Returns the rows of the view cache_grants.';

COMMENT ON FUNCTION pgcache.grant_restored() IS
    'Trigger function: writes a grant that a dump has brought. Warns if its role does not exist.';
REVOKE ALL ON FUNCTION pgcache.grant_restored() FROM PUBLIC;

COMMENT ON FUNCTION pgcache.changed() IS
    'Trigger function: tells all sessions that the table of the trigger has changed.';
REVOKE ALL ON FUNCTION pgcache.changed() FROM PUBLIC;

COMMENT ON FUNCTION pgcache.visible_spaces() IS
    'Returns the rows of the view cache_spaces.';

COMMENT ON FUNCTION cache_watch(regclass, text[]) IS
    'Makes tags stand for a table: a write to the table invalidates all values with one of the tags. Without tags, the tag is the name of the table. A tag with columns in braces, such as order:{id}, stands for single rows. A call with a new tag invalidates the values with this tag once.';

COMMENT ON FUNCTION cache_unwatch(regclass) IS
    'Ends the watch of a table: no tag stands for the table any more. The call itself invalidates the values with a tag of the table once.';

COMMENT ON FUNCTION cache_invalidate_relation(regclass) IS
    'Invalidates all values that depend on a table, as a write to the table does. Takes effect for other sessions when the transaction commits.';

COMMENT ON FUNCTION pgcache.rows_changed() IS
    'The function of the trigger by which a watch with placeholders learns of changed rows.';
REVOKE ALL ON FUNCTION pgcache.rows_changed() FROM PUBLIC;

COMMENT ON FUNCTION pgcache.visible_watches() IS
    'Returns one row for each watched table and each of its tags. The view cache_watches groups them by table.';

COMMENT ON FUNCTION cache_on_event(text, text[], text) IS
    'Adds targets to an event: keys, patterns (match:) and tags (tag:) that become invalid each time the event is emitted. A placeholder such as {user_id} gets its value from the event.';

COMMENT ON FUNCTION cache_off_event(text) IS
    'Removes the targets of an event in all spaces.';

COMMENT ON FUNCTION cache_emit(text, jsonb) IS
    'Emits an event: its targets become invalid when the transaction commits. The members of the payload are the values of the placeholders.';

COMMENT ON FUNCTION pgcache.visible_events() IS
    'Returns one row for each target of each event. The view cache_events groups them.';

COMMENT ON FUNCTION cache_observed_reset() IS
    'Empties the view cache_observed of the database, at once.';

COMMENT ON FUNCTION pgcache.observed() IS
    'Returns the rows of the view cache_observed.';

COMMENT ON FUNCTION cache_stats_reset() IS
    'Sets the counts of the views cache_stats, cache_stats_detail and cache_relations to zero, at once, for all spaces and tables of the database.';

COMMENT ON FUNCTION pgcache.space_summary() IS
    'Returns the rows of the view cache_stats.';

COMMENT ON FUNCTION pgcache.space_statistics() IS
    'Returns the rows of the view cache_stats_detail.';

COMMENT ON FUNCTION cache_metrics_text() IS
    'Returns the metrics of cache_metrics in the text format of Prometheus. Reads no entry, so it is as fast in a full cache.';

COMMENT ON FUNCTION cache_advise(integer) IS
    'Tells which statements of the database are worth caching and in which form (cache, view, warm, stale_ok), which to observe first, and which cached results should not be cached. Returns at most n rows, the greatest saving first, and notes on what is missing. saves: the waiting time that the advice saves, in milliseconds per second. statement: the SQL to run. Runs none of the statements.';

COMMENT ON FUNCTION cache_top(integer) IS
    'Returns the n values with the most hits, the n largest, the n whose queries took longest, and the n tables that have invalidated the most values. Looks at every value, so it is meant for inspection.';

COMMENT ON FUNCTION pgcache.metrics() IS
    'Returns the metrics, with the labels as text. The view cache_metrics shows them.';

COMMENT ON FUNCTION pgcache.latency() IS
    'Returns how long operations took. The view cache_latency shows it.';

COMMENT ON FUNCTION pgcache.verification() IS
    'Returns the row of the view cache_verification.';

COMMENT ON FUNCTION pgcache.usage() IS
    'Returns the rows of the view cache_usage, with the OID of each database.';

COMMENT ON FUNCTION pgcache.entries() IS
    'Returns the rows of the view cache_entries.';

COMMENT ON FUNCTION pgcache.queries() IS
    'Returns the rows of the view cache_queries.';

COMMENT ON FUNCTION pgcache.dependencies() IS
    'Returns the rows of the view cache_dependencies.';

COMMENT ON FUNCTION pgcache.workers() IS
    'Returns the rows of the view cache_workers, with the OID of each database.';

COMMENT ON FUNCTION cache_health() IS
    'Returns what keeps the cache from working as it is configured, each with the command that repairs it. Returns no rows if there is nothing.';

COMMENT ON FUNCTION pgcache.relation_statistics() IS
    'Returns the rows from which the view cache_relations selects.';

COMMENT ON FUNCTION cache_fetch(text, text, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'Returns the value of a query as a scalar subquery does, as jsonb. If the key holds the result of the same query text with the same arguments, returns that. Otherwise runs the query, and stores the result until a transaction changes something that the query has read.';

COMMENT ON FUNCTION cache_query(text, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'Returns the rows of a query. If they are stored for this text, these arguments, this role, search path and settings, returns the stored rows. Otherwise runs the query, and stores its rows until a transaction changes something that the query depends on. The caller lists the columns: AS (a int, b text).';

COMMENT ON FUNCTION cache_query(text, text, interval, text[], interval, boolean, regclass[], text) IS
    'Returns the rows of a query like cache_query with args as a jsonb. Here, args is a text of JSON.';

COMMENT ON FUNCTION cache_query(anyelement, text, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'Returns the rows of a query like the other forms of cache_query, but the caller needs no list of columns: the first argument is a null of the type of the rows, such as NULL::orders.';

COMMENT ON FUNCTION cache_query_json(text, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'Returns the rows of a query, stored or new, as jsonb: an array with an object for each row, or an empty array. Everything else is as for cache_query.';

COMMENT ON FUNCTION cache_query_json_status(text, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'Does what cache_query_json does, and also returns how the rows were found, as cache_status() does, the age of the stored result, and its remaining time to live. The last two are null if the result is not stored.';

COMMENT ON FUNCTION cache_key(text, jsonb, regclass[], text) IS
    'Returns the key under which cache_query stores the rows of a query for this session. Other roles, search paths and settings have other keys.';

COMMENT ON FUNCTION cache_explain(text, jsonb, regclass[], text) IS
    'Tells, without running it, whether the result of a query can be stored, and if not, why; its columns, its dependencies, and what it varies on; and whether it is stored now.';

COMMENT ON FUNCTION cache_create_view(text, text, interval, text[], interval, text) IS
    'Creates a cached view and returns it: a hidden ordinary view over the query, named like the view with the suffix _uncached, and a view whose rows are the stored or new rows of the hidden one. Grants on the view are all that its readers need.';

COMMENT ON FUNCTION cache_view_rows(bytea, anyelement, interval, text[], interval, text) IS
    'Internal to cached views: returns the stored or new rows of a hidden view, which it reads with the privileges of the role that the token names.';

COMMENT ON FUNCTION pgcache.view_owner_handler() IS
    'Internal to pg_cache: the handler of the foreign table that tells with whose privileges a view is read.';

COMMENT ON FUNCTION cache_call(regprocedure, jsonb, interval, text[], interval, boolean, regclass[], text) IS
    'Returns the stored or new result of a function as jsonb: its value, or an array if the function returns a set. The elements of args are the arguments of the function.';

COMMENT ON FUNCTION cache_wrap(regprocedure, interval, text[], text) IS
    'Creates a function with the name of another one and the suffix _cached, and returns it. It has the same signature, defaults and grants, and returns the stored or new result of the other function for its arguments.';

COMMENT ON FUNCTION cache_wrapped(interval, text[], text, "any") IS
    'Internal to the wrappers of cache_wrap: returns the stored or new rows of a function. Behind the settings, the arguments are the function and its arguments.';

COMMENT ON FUNCTION cache_warmer_add(text, text, jsonb, interval, interval, text[], text) IS
    'Adds a warmer of the current role: a background worker keeps the result of the query stored, as cache_query stores it for a session of this role. The query does not run now.';
COMMENT ON FUNCTION cache_warmer_drop(text) IS
    'Removes a warmer of the current role. Returns whether there was one. A result that it has stored stays until it is invalidated or expires.';
COMMENT ON FUNCTION cache_warm(text) IS
    'Runs a warmer of the current role now, or all of them, in this session. Returns a row for each; a failure does not stop the others.';
COMMENT ON FUNCTION pgcache.warmer_changed() IS
    'Trigger of pgcache.warmers: tells all sessions and the launcher.';
REVOKE ALL ON FUNCTION pgcache.warmer_changed() FROM PUBLIC;
COMMENT ON FUNCTION pgcache.warmer_replicated() IS
    'Keeps replicated changes out of pgcache.warmers.';
REVOKE ALL ON FUNCTION pgcache.warmer_replicated() FROM PUBLIC;
COMMENT ON FUNCTION pgcache.warmer_restored() IS
    'Trigger of pgcache.dumped_warmers: restores a warmer from a dump.';
REVOKE ALL ON FUNCTION pgcache.warmer_restored() FROM PUBLIC;
COMMENT ON FUNCTION pgcache.visible_warmers() IS
    'Returns the warmers that the caller may see. The view cache_warmers sorts them.';
