-- The launcher runs, even if nothing is saved in tables. It appears in cache_workers shortly after the server has started.
-- A loop that waits in vain ends with an error.
SET statement_timeout = '60 s';
DO $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM cache_workers WHERE kind = 'launcher') LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
SELECT w.kind, w.database, a.backend_type, w.started <= w.last_step AS stepped, w.last_step <= clock_timestamp() + interval '1 s' AS past, w.saved, w.too_late, w.freed, w.errors, w.error
  FROM cache_workers AS w JOIN pg_stat_activity AS a USING (pid) WHERE w.kind = 'launcher';

-- The launcher keeps working: the time of its last step moves on.
CREATE TABLE before AS SELECT last_step FROM cache_workers WHERE kind = 'launcher';
DO $$
BEGIN
    WHILE (SELECT last_step FROM cache_workers WHERE kind = 'launcher') <= (SELECT last_step FROM before) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;

-- Saving is switched off, so no table has a row and no location is in use.
SELECT cache_set('k', '1');
SELECT resource, database, unit, used, capacity >= 1000000 AS default, capacity > 0 AS on FROM cache_usage WHERE resource LIKE 'saved%';
SELECT hits_hot, hits_table, promoted FROM cache_stats_detail;

-- A healthy server has no findings.
SELECT * FROM cache_health();
