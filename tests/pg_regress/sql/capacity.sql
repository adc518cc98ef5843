-- A value that does not fit is not stored, and the call raises no error. The previous value is removed, because it is outdated.
\pset null '(null)'

-- A key of another length than 1 to 1024 bytes has no value, and nothing can be stored under it.
CREATE FUNCTION without_value(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE outcome text;
BEGIN
    EXECUTE 'SELECT f::text FROM ' || call || ' AS f' INTO outcome;
    RETURN COALESCE(outcome, '(null)') || ' / ' || COALESCE(cache_status(), '');
END $$;
SELECT what, length(key), without_value(format(call, quote_literal(key)))
  FROM (VALUES (1, 'cache_get', 'cache_get(%s)'), (2, 'cache_get_text', 'cache_get_text(%s)'), (3, 'cache_get_bytes', 'cache_get_bytes(%s)'),
               (4, 'cache_exists', 'cache_exists(%s)'), (5, 'cache_ttl', 'cache_ttl(%s)'), (6, 'cache_get_many', 'cache_get_many(ARRAY[%s])'),
               (7, 'cache_set', 'cache_set(%s, ''1'')'), (8, 'absent', 'cache_set(%s, ''1'', mode => ''absent'')'),
               (9, 'present', 'cache_set(%s, ''1'', mode => ''present'')'), (10, 'lease', 'cache_set(%s, ''1'', lease => 1)'),
               (11, 'cache_set_many', 'cache_set_many(jsonb_build_object(%s, 1))'), (12, 'cache_set_many_text', 'cache_set_many_text(ARRAY[%s], ''{v}'')'),
               (13, 'cache_touch', 'cache_touch(%s, ''1 h'')'), (14, 'cache_touch', 'cache_touch(%s, ''0'')'), (15, 'cache_touch_many', 'cache_touch_many(ARRAY[%s], ''1 h'')'),
               (16, 'cache_delete', 'cache_delete(%s)'), (17, 'cache_delete_many', 'cache_delete_many(ARRAY[%s])'),
               (18, 'cache_incr', 'cache_incr(%s)'), (19, 'cache_incr present', 'cache_incr(%s, mode => ''present'')'),
               (20, 'cache_acquire', 'cache_acquire(%s)'), (21, 'cache_release', 'cache_release(%s, 1)'),
               (22, 'cache_fetch', 'cache_fetch(%s, ''SELECT 7'')')) AS calls (n, what, call),
       (VALUES (''), (repeat('k', 1025))) AS keys (key)
 ORDER BY length(key), n;
SELECT count(*) FROM cache_keys('*');

-- One key that cannot be stored keeps no other from being stored.
SELECT cache_set_many(jsonb_build_object('fits', 1, '', 2, repeat('k', 1025), 3)), cache_status();
SELECT key, value FROM cache_get_many(ARRAY['', repeat('k', 1025), 'fits']);

-- A value over a limit is not stored, and the previous value is removed.
SELECT cache_create_space('small', max_value => 10), cache_create_space('tight', quota => 2000);
CREATE FUNCTION refused(new_value text, name text, how text DEFAULT 'always') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_set_text('k', 'old', space => name);
    RETURN cache_set_text('k', new_value, space => name, mode => how) || ' / ' || cache_status() || ' / ' || COALESCE(cache_get_text('k', name), '(null)');
END $$;
SELECT refused(repeat('x', 8 * 1024 * 1024 + 1), 'default') AS max_value_size, refused(repeat('x', 11), 'small') AS max_value, refused(repeat('x', 2000), 'tight') AS quota;
SELECT refused(repeat('x', 11), 'small', 'present') AS present, refused(repeat('x', 11), 'small', 'absent') AS absent;
SELECT refused(repeat('x', 8 * 1024 * 1024), 'default') LIKE 'true / done / x%' AS fits, refused(repeat('x', 10), 'small') AS fits;
SELECT cache_create_space('medium', max_value => 30), cache_set_many('{"many": 1, "other": 2}', space => 'medium'),
       cache_set_many('{"many": "too long for this space", "other": 3}', space => 'medium'), cache_status();
SELECT cache_get('many', 'medium'), cache_get('other', 'medium');
-- The previous value is removed when the transaction commits. A rollback leaves it.
BEGIN;
SELECT cache_set_text('k', 'old', space => 'small');
COMMIT;
BEGIN;
SELECT cache_set_text('k', 'much too long', space => 'small'), cache_get_text('k', 'small'), cache_status();
ROLLBACK;
SELECT cache_get_text('k', 'small');
BEGIN;
SAVEPOINT s;
SELECT cache_set_text('k', 'much too long', space => 'small');
ROLLBACK TO s;
SELECT cache_get_text('k', 'small');
SELECT cache_set_text('k', 'short', space => 'small'), cache_set_text('k', 'much too long', space => 'small');
COMMIT;
SELECT cache_get_text('k', 'small'), cache_status();

-- A time to live that is not positive removes the value.
CREATE FUNCTION ended(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE outcome text;
BEGIN
    PERFORM cache_set('k', '"old"');
    EXECUTE 'SELECT ' || call INTO outcome;
    RETURN outcome || ' / ' || cache_status() || ' / ' || COALESCE(cache_get('k')::text, '(null)');
END $$;
SELECT call, ended(call)
  FROM (VALUES ('cache_set(''k'', ''1'', ttl => ''0'')'), ('cache_set(''k'', ''1'', ttl => ''-1 s'')'), ('cache_set(''k'', ''1'', ttl => ''100 us'')'),
               ('cache_set(''k'', ''1'', ttl => ''0'', mode => ''present'')'), ('cache_set(''k'', ''1'', ttl => ''0'', mode => ''absent'')'),
               ('cache_set_many(''{"k": 1}'', ttl => ''0'')'), ('cache_set_many_text(''{k}'', ''{v}'', ttl => ''0'')'),
               ('cache_touch(''k'', ''0'')'), ('cache_touch(''k'', ''-1 day'')'), ('cache_touch_many(''{k,missing}'', ''0'')')) AS calls (call);
SELECT lease FROM cache_acquire('k') \gset
SELECT cache_set('k', '1', ttl => '0', lease => :lease), cache_status(), cache_get('k');
-- A lease ends with the computation, although the value is not stored.
SELECT status FROM cache_acquire('k');
SELECT cache_incr('new', ttl => '0'), cache_status(), cache_exists('new'), cache_incr('counted', 5), cache_incr('counted', 1, ttl => '0'), cache_get('counted');
BEGIN;
SELECT cache_touch('fits', '0'), cache_get('fits');
ROLLBACK;
SELECT cache_get('fits');
SELECT * FROM cache_check();
-- The result of a query is returned, and not stored.
SELECT cache_fetch('fetched', 'SELECT 7', ttl => '0'), cache_status(), cache_exists('fetched');

-- While pg_cache.enabled is off, a set or a touch stores nothing, but it removes the previous value.
SELECT cache_set('off', '1'), cache_set('touched', '1');
SET pg_cache.enabled = off;
SELECT cache_set('off', '2'), cache_touch('touched', '-1 s');
RESET pg_cache.enabled;
SELECT cache_get('off'), cache_get('touched');
