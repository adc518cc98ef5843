-- cache_incr takes effect at once for all sessions, and a rollback does not undo it, as for sequences.
SELECT cache_incr('c'), cache_incr('c'), cache_incr('c', 40), cache_incr('c', -2), cache_incr('c', 0);
SELECT cache_incr('life', ttl => '1 hour'), cache_ttl('life') > '59 min' AS an_hour, cache_incr('life', ttl => '1 day'), cache_ttl('life') < '61 min' AS as_created;
BEGIN;
SELECT cache_incr('c');
ROLLBACK;
SELECT cache_incr('c', 0), cache_exists('c');
-- The limits of bigint.
SELECT cache_incr('edge', 9223372036854775807);
SELECT cache_incr('edge');
SELECT cache_incr('edge', -9223372036854775807), cache_incr('edge', -9223372036854775808);
SELECT cache_incr('edge', -1);
SELECT cache_incr('edge', 0);
-- A counter can be read as jsonb and as text. Setting another value ends it.
SELECT cache_get('c'), cache_get_text('c'), cache_get('edge'), cache_get_text('edge');
SELECT cache_get_bytes('c');
SELECT cache_set('c', '"no counter any more"'), cache_get('c');
SELECT cache_incr('c');
SELECT cache_delete('c');
SELECT cache_incr('c');
SELECT cache_flush('default');
SELECT cache_incr('c');
-- A jsonb or a text that is an integer becomes a counter, with the same time to live and the same tags.
SELECT cache_set('j', '41', '1 hour', '{t}'), cache_set_text('t', '-7', '2 hours', '{t}');
SELECT cache_incr('j'), cache_incr('t', -1, ttl => '1 day'), cache_get('j'), cache_get_text('t');
SELECT cache_ttl('j') BETWEEN '59 min' AND '1 hour' AS an_hour, cache_ttl('t') BETWEEN '119 min' AND '2 hours' AS two_hours;
SELECT cache_invalidate_tag('t');
SELECT cache_get('j'), cache_get('t'), cache_incr('j');
SELECT value, cache_set_text('n', value) AS set, cache_incr('n', 0) AS read FROM unnest('{0,-0,007,+5,9223372036854775807,-9223372036854775808}'::text[]) AS value;
SELECT value, cache_set('n', value) AS set, cache_incr('n', 0) AS read FROM unnest('{0,-1,1e3,9223372036854775807,-9223372036854775808}'::jsonb[]) AS value;
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE outcome text;
BEGIN
    EXECUTE 'SELECT ' || call INTO outcome;
    RETURN COALESCE(outcome, '(null)') || ' / ' || cache_status();
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT value, cache_set_text('n', value), outcome('cache_incr(''n'', 0)'), cache_get_text('n') = value AS stays
  FROM unnest(ARRAY['', ' 1', '1.0', 'one', '9223372036854775808', repeat('1', 65)]) AS value;
SELECT value, cache_set('n', value), outcome('cache_incr(''n'', 0)'), cache_get('n') = value AS stays
  FROM unnest('{1.0,1.5,"\"1\"","null",true,[1],"{\"a\": 1}",9223372036854775808}'::jsonb[]) AS value;
SELECT cache_set_bytes('n', '1'), outcome('cache_incr(''n'')');
SELECT cache_set('n', '9223372036854775807'), outcome('cache_incr(''n'')'), cache_get('n');
-- With mode => 'present', cache_incr adds only if the key has a value.
\pset null '(null)'
SELECT cache_incr('none', mode => 'present'), cache_status(), cache_exists('none');
SELECT cache_set('n', '5'), cache_incr('n', 2, mode => 'present'), cache_status(), cache_incr('n', mode => 'always');
SET pg_cache.enabled = off;
SELECT cache_incr('n', mode => 'present'), cache_incr('n', 3), cache_status();
RESET pg_cache.enabled;
-- After the transaction has set or removed the key, the number is the transaction's own: a rollback discards it.
BEGIN;
SELECT cache_set('own', '10', '1 hour', '{t}'), cache_incr('own'), cache_incr('own'), cache_get('own'), cache_get_text('own'), cache_ttl('own') > '59 min' AS an_hour;
SELECT cache_delete('n'), cache_incr('n', mode => 'present'), cache_incr('n'), cache_incr('n', 5), cache_get('n');
SELECT cache_incr('at once', 3), cache_set_text('text', 'no number'), outcome('cache_incr(''text'')');
ROLLBACK;
SELECT cache_get('own'), cache_get('n'), cache_get('at once'), cache_get('text');
BEGIN;
SELECT cache_set('own', '10', '1 hour', '{t}'), cache_incr('own'), cache_delete('n'), cache_incr('n');
SAVEPOINT s;
SELECT cache_incr('own', 100), cache_incr('n', 100);
ROLLBACK TO s;
SELECT cache_get('own'), cache_get('n');
SAVEPOINT s;
SELECT cache_incr('own', 1000), cache_set('edge', '9223372036854775807'), outcome('cache_incr(''edge'')');
COMMIT;
SELECT cache_get('own'), cache_ttl('own') > '59 min' AS an_hour, cache_get('n'), cache_incr('own'), cache_incr('n');
SELECT cache_invalidate_tag('t');
SELECT cache_get('own'), cache_get('n');
-- The same after the transaction has invalidated what the counter depends on, or has let it expire.
SELECT cache_set('tagged', '1', tags => '{t}'), cache_incr('tagged'), cache_incr('plain', 7);
BEGIN;
SELECT cache_invalidate_tag('t');
SELECT cache_incr('tagged', 20), cache_incr('plain'), cache_get('tagged'), cache_get('plain');
ROLLBACK;
SELECT cache_get('tagged'), cache_get('plain');
BEGIN;
SELECT cache_flush('default');
SELECT cache_incr('tagged', 30), cache_incr('plain'), cache_touch('plain', '0'), cache_incr('plain', 4);
COMMIT;
SELECT cache_get('tagged'), cache_get('plain');
-- A new time to live does not make a counter the transaction's own.
BEGIN;
SELECT cache_touch('plain', '2 hours'), cache_incr('plain');
ROLLBACK;
SELECT cache_get('plain'), cache_ttl('plain') < '1 hour' AS as_before;
-- Invalid arguments are errors.
SELECT cache_incr(NULL);
SELECT cache_incr('c', mode => 'absent');
SELECT cache_incr('c', mode => NULL);
SELECT cache_incr('c', NULL);
SELECT cache_incr('c', ttl => '2 years');
SELECT cache_incr('c', space => 'other');
SELECT * FROM cache_check();

-- After a flush in the own transaction, additions belong to the transaction, also for keys without a value.
BEGIN;
SELECT cache_flush();
SELECT cache_incr('flushed'), cache_incr('flushed'), cache_incr('flushed');
COMMIT;
SELECT cache_incr('flushed');
BEGIN;
SELECT cache_flush();
SELECT cache_incr('rolled back');
ROLLBACK;
SELECT cache_get('rolled back');
