-- Fills the memory. What happened, by space.
SELECT cache_create_space('s', quota => 20000), cache_create_space('other');
SELECT cache_set('a', '1', space => 's'), cache_set('b', '1', tags => '{t}', space => 's'), cache_set('c', '1', '100 ms', space => 's');
SELECT cache_get('a', 's'), cache_get('a', 's'), cache_get('nothing', 's');
SELECT cache_invalidate_tag('t');
SELECT cache_get('b', 's');
SELECT pg_sleep(0.2);
SELECT cache_get('c', 's');
SELECT cache_delete('a', 's');
SELECT space, entries, hits_hot, misses_absent, misses_expired, misses_invalidated, hit_ratio, stored, removed
  FROM cache_stats ORDER BY space;

-- A rolled back transaction has stored nothing. What it misses of its own is counted.
BEGIN;
SELECT cache_set('d', '1', tags => '{u}', space => 's');
SELECT cache_invalidate_tag('u');
ROLLBACK;
SELECT stored FROM cache_stats WHERE space = 's';

-- A quota: what is older makes way within the space, and no other loses anything.
SELECT count(cache_set('o' || i, '1', space => 'other')) FROM generate_series(1, 100) AS i;
DO $$
BEGIN
    FOR i IN 1..200 LOOP
        PERFORM cache_set_text('q' || i, repeat('x', 500), space => 's');
        COMMIT;
    END LOOP;
END $$;
SELECT bytes <= 20000 AS within, bytes > 10000 AS used, evicted_quota > 100 AS evicted, evicted_valid = evicted_quota AS valid
  FROM cache_stats WHERE space = 's';
SELECT cache_get_text('q200', 's') IS NOT NULL AS newest;
SELECT count(cache_get('o' || i, 'other')) FROM generate_series(1, 100) AS i;
-- What alone is larger is refused, and what the key had stays. Of what a transaction sets together some find no room.
SELECT cache_set_text('q200', repeat('x', 30000), space => 's'), cache_status();
SELECT cache_get_text('q200', 's') IS NOT NULL AS stays;
SELECT count(cache_set_text('r' || i, repeat('x', 500), space => 's')) FROM generate_series(1, 200) AS i;
SELECT refused_quota > 0 AS counted, bytes <= 20000 AS within FROM cache_stats WHERE space = 's';
SELECT cache_incr('n', space => 's'), cache_incr('n', space => 's');

SELECT cache_stats_reset();
SELECT space, entries > 0 AS some, hits_hot, stored, hit_ratio FROM cache_stats ORDER BY space;

-- Who sees what.
CREATE ROLE stats_reader;
CREATE ROLE stats_monitor IN ROLE pg_monitor;
SELECT cache_grant('s', 'stats_reader', 'read');
SET ROLE stats_reader;
SELECT space FROM cache_stats ORDER BY space;
SELECT cache_stats_reset();
SET ROLE stats_monitor;
SELECT space FROM cache_stats ORDER BY space;
RESET ROLE;
DROP ROLE stats_reader, stats_monitor;
SELECT * FROM cache_check();

-- What is refused before anything is reserved is counted as well.
SELECT cache_create_space('refused', quota => 20000);
SELECT cache_set_text('k', repeat('x', 30000), space => 'refused'), cache_status();
SELECT cache_set_text('k', repeat('x', 8388608), space => 's'), cache_status();
SELECT count(*) FILTER (WHERE NOT stored) > 0 AS refused
  FROM (SELECT cache_set_text('k' || i, repeat('x', 1048576), space => 'other') AS stored FROM generate_series(1, 80) AS i) AS sets;
SELECT space, refused_size > 0 AS size, refused_quota > 0 AS quota, refused_transaction > 0 AS transaction FROM cache_stats ORDER BY space;
