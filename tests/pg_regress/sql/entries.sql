-- Lists the entries of the cache with everything that is stored about them. No table tier is set up, so all of them are in memory.
SELECT cache_create_space('s'), cache_create_space('mine', scope => 'role');
SELECT cache_set('j', '{"a": 1}', '1 hour', '{b,a}', 's'), cache_set_text('t', 'text', '1 minute', '{"a b","ü,\"{}"}', 's'),
       cache_set_bytes('b', '\x0102', space => 's'), cache_incr('n', 5, space => 's'), cache_fetch('f', 'SELECT 12', space => 's'),
       cache_fetch('none', 'SELECT null::int', tags => '{f}', space => 's');
SELECT space, key, kind, size, tags, tier, age < '10 s' AS young, ttl > '50 s' AS lives, hits FROM cache_entries WHERE space = 's';

-- The longest tags come back whole, and so does a value behind them.
SELECT cache_set_text('long', 'v', tags => ARRAY(SELECT repeat(chr(96 + i), 200) || 'x' || lpad(i::text, 55, '0') FROM generate_series(1, 26) AS i)
    || ARRAY(SELECT 't' || i FROM generate_series(1, 6) AS i), space => 's');
SELECT cardinality(tags), (SELECT sum(length(tag)) FROM unnest(tags) AS tag) AS bytes, size, tags @> ARRAY[repeat('b', 200) || 'x' || lpad('2', 55, '0')] AS has
  FROM cache_entries WHERE key = 'long';
SELECT cache_get_text('long', 's');
-- A value that was set under a lease has its tags, and a new value has only its own.
SELECT cache_set_text('leased', 'v', tags => '{l}', space => 's', lease => lease) FROM cache_acquire_text('leased', 's');
SELECT cache_set_text('t', 'text', tags => '{other}', space => 's');
SELECT key, tags FROM cache_entries WHERE space = 's' AND key IN ('leased', 't');
-- A text that becomes a counter keeps its tags, and additions keep them, too.
SELECT cache_set_text('c', '41', tags => '{c}', space => 's');
SELECT cache_incr('c', space => 's'), cache_incr('c', space => 's');
SELECT key, kind, tags FROM cache_entries WHERE key = 'c';
SELECT cache_invalidate_tag('c');
SELECT count(*) FROM cache_entries WHERE key = 'c';

-- Entries that no read can return are left out, and so are uncommitted changes.
SELECT cache_set('gone', '1', '100 ms', space => 's');
SELECT cache_invalidate_tag('a'), pg_sleep(0.2);
BEGIN;
SELECT cache_set('new', '1', space => 's'), cache_delete('b', 's');
SELECT key FROM cache_entries WHERE space = 's';
ROLLBACK;

-- A key that is read often has the most hits. Only some of the hits are remembered, so the number is an estimate.
SELECT count(cache_get_bytes('b', 's')) FROM generate_series(1, 3000);
SELECT count(cache_get_text('t', 's')) FROM generate_series(1, 300);
SELECT key, hits BETWEEN 2000 AND 4500 AS often FROM cache_entries WHERE space = 's' AND hits > 600 ORDER BY hits DESC;

-- A role sees the entries of the spaces that it may read, and of a space by role only its own. A member of pg_monitor sees all, without
-- the keys and tags of other roles.
CREATE ROLE regress_reader;
CREATE ROLE regress_monitor IN ROLE pg_monitor;
SELECT cache_grant('mine', 'regress_reader', 'write');
SELECT cache_set('k', '1', tags => '{secret}', space => 'mine');
SET ROLE regress_reader;
SELECT cache_set('own', '1', tags => '{own}', space => 'mine');
SELECT space, key, tags FROM cache_entries;
SET ROLE regress_monitor;
SELECT space, key, kind, tags FROM cache_entries WHERE space = 'mine';
SELECT count(*) > 3 AS others FROM cache_entries WHERE space = 's' AND key IS NOT NULL;
RESET ROLE;
SELECT space, key, tags FROM cache_entries WHERE space = 'mine';
SELECT cache_drop_space('mine');
DROP ROLE regress_reader, regress_monitor;
-- A scan that ends early leaves nothing behind.
SELECT count(*) FROM (SELECT FROM pgcache.entries() LIMIT 1) AS one;
SELECT cache_drop_space('s');
