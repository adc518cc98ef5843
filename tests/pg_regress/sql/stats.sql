-- Fills the memory. Tests the statistics of spaces, and how full the cache is. (The first sentence makes tests/sql.rs run this file
-- in a cluster of its own.)
SELECT cache_create_space('s', quota => 20000), cache_create_space('other');
SELECT cache_set('a', '1', space => 's'), cache_set('b', '1', tags => '{t}', space => 's'), cache_set('c', '1', '100 ms', space => 's');
SELECT cache_get('a', 's'), cache_get('a', 's'), cache_get('nothing', 's');
SELECT cache_invalidate_tag('t');
SELECT cache_get('b', 's');
SELECT pg_sleep(0.2);
SELECT cache_get('c', 's');
SELECT cache_delete('a', 's');
SELECT space, hits, misses, hit_ratio, live_entries, dead_entries, evicted, refused FROM cache_stats;
SELECT space, entries, hits_hot, misses_absent, misses_expired, misses_invalidated, stored, removed FROM cache_stats_detail;

-- Dead entries count apart from live ones until their memory is used again. A value that may be served stale is live.
SELECT cache_set_text('d', repeat('x', 5000), space => 's', tags => '{dead}'), cache_set_text('l', repeat('x', 3000), space => 's'),
       cache_set('e', '1', '100 ms', space => 's', stale_ok => '1 hour');
SELECT pg_sleep(0.2);
SELECT live_entries, live_bytes BETWEEN 8000 AND 10000 AS live, dead_entries FROM cache_stats WHERE space = 's';
BEGIN;
SELECT cache_invalidate_tag('dead');
SELECT live_entries, dead_entries FROM cache_stats WHERE space = 's';
COMMIT;
SELECT live_entries, live_bytes BETWEEN 3000 AND 5000 AS live, dead_entries, dead_bytes BETWEEN 5000 AND 6000 AS dead
  FROM cache_stats WHERE space = 's';
SELECT entries = live_entries + dead_entries AS entries, bytes = live_bytes + dead_bytes AS bytes
  FROM cache_stats JOIN cache_stats_detail USING (space) WHERE space = 's';
SELECT cache_delete('d', 's'), cache_delete('l', 's'), cache_delete('e', 's');

-- A transaction that is rolled back stores nothing.
BEGIN;
SELECT cache_set('d', '1', tags => '{u}', space => 's');
SELECT cache_invalidate_tag('u');
ROLLBACK;
SELECT stored FROM cache_stats_detail WHERE space = 's';

-- A space at its quota evicts its own oldest entries, and no other space loses an entry.
SELECT count(cache_set('o' || i, '1', space => 'other')) FROM generate_series(1, 100) AS i;
DO $$
BEGIN
    FOR i IN 1..200 LOOP
        PERFORM cache_set_text('q' || i, repeat('x', 500), space => 's');
        COMMIT;
    END LOOP;
END $$;
SELECT bytes <= 20000 AS within, bytes > 10000 AS used, evicted_quota > 100 AS by_quota, evicted = evicted_room + evicted_quota AS sum
  FROM cache_stats JOIN cache_stats_detail USING (space) WHERE space = 's';
SELECT cache_get_text('q200', 's') IS NOT NULL AS newest;
SELECT count(cache_get('o' || i, 'other')) FROM generate_series(1, 100) AS i;
-- A value larger than the quota is refused, and the previous value goes. Of the values that one transaction sets, some do not fit.
SELECT cache_set_text('q200', repeat('x', 30000), space => 's'), cache_status();
SELECT cache_get_text('q200', 's') IS NULL AS gone;
SELECT count(cache_set_text('r' || i, repeat('x', 500), space => 's')) FROM generate_series(1, 200) AS i;
SELECT refused_quota > 0 AS counted, bytes <= 20000 AS within FROM cache_stats_detail WHERE space = 's';
SELECT cache_incr('n', space => 's'), cache_incr('n', space => 's');

SELECT cache_stats_reset();
SELECT space, entries > 0 AS some, hits, stored, hit_ratio FROM cache_stats JOIN cache_stats_detail USING (space) ORDER BY space;

-- A role sees the spaces that it may read. A member of pg_monitor sees all spaces.
CREATE ROLE stats_reader;
CREATE ROLE stats_monitor IN ROLE pg_monitor;
SELECT cache_grant('s', 'stats_reader', 'read');
SET ROLE stats_reader;
SELECT space FROM cache_stats;
SELECT cache_stats_reset();
SET ROLE stats_monitor;
SELECT space FROM cache_stats;
RESET ROLE;
DROP ROLE stats_reader, stats_monitor;
SELECT * FROM cache_check();

-- Values that are refused before memory is reserved are counted, too.
SELECT cache_create_space('refused', quota => 20000);
SELECT cache_set_text('k', repeat('x', 30000), space => 'refused'), cache_status();
SELECT cache_set_text('k', repeat('x', 8388609), space => 's'), cache_status();
SELECT count(*) FILTER (WHERE NOT stored) > 0 AS refused
  FROM (SELECT cache_set_text('k' || i, repeat('x', 1048576), space => 'other') AS stored FROM generate_series(1, 80) AS i) AS sets;
SELECT space, refused_size > 0 AS size, refused_quota > 0 AS quota, refused_transaction > 0 AS transaction FROM cache_stats_detail;

-- The view cache_usage.
SELECT resource, database = current_database() AS own, unit, used > 0 AS used, used <= capacity AS within, used_ratio BETWEEN 0 AND 1 AS ratio
  FROM cache_usage;
SELECT used = (SELECT sum(bytes) FROM cache_stats_detail) AS sum FROM cache_usage WHERE database = current_database();
CREATE TABLE changed (id int);
SELECT cache_watch('changed'), cache_set('w', '1', tags => '{changed}');
SELECT used FROM cache_usage WHERE resource = 'table records';
SELECT status FROM cache_acquire('lease');
SELECT used FROM cache_usage WHERE resource = 'lease places';
