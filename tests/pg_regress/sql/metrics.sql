-- The names of metrics, and how their text is written. tests/sessions/metrics.rs moves each metric.
SELECT cache_create_space('m');
SELECT cache_set('a', '1', space => 'm');
SELECT cache_get('a', 'm'), cache_get('a', 'm'), cache_get('b', 'm');
-- The metrics of the space, without times.
SELECT name, labels - 'database' AS labels, type, value FROM cache_metrics WHERE labels ->> 'space' = 'm';
-- The metrics of the server, which others move at the same time.
SELECT DISTINCT ON (name) name, labels, type, help FROM cache_metrics
 WHERE NOT labels ? 'space' AND name !~ '^pgcache_(table_bytes|notification_lag|notifications_paused|worker_lag)'
   AND name <> 'pgcache_operation_seconds_bucket'
 ORDER BY name, labels;
-- Each family has its help and its type once, before its metrics, and no line is written otherwise.
SELECT line FROM regexp_split_to_table(cache_metrics_text(), '\n') AS line
 WHERE line !~ '^# HELP pgcache_[a-z_]+ [A-Z].*\.$' AND line !~ '^# TYPE pgcache_[a-z_]+ (counter|gauge|histogram)$'
   AND line !~ '^pgcache_[a-z_]+(\{([a-z]+="[^"\\]*",?)+\})? [0-9]+(\.[0-9]+)?$';
SELECT line FROM regexp_split_to_table(cache_metrics_text(), '\n') AS line
 WHERE line LIKE '%hits_total%' AND (line LIKE '#%' OR line LIKE '%"m"%');
-- A histogram is cumulative, and its last bucket has all.
SELECT DISTINCT labels -> 'le' AS last
  FROM (SELECT *, row_number() OVER (PARTITION BY labels - 'le' ORDER BY (labels ->> 'le')::float8 DESC) AS place,
               value < lag(value) OVER (PARTITION BY labels - 'le' ORDER BY (labels ->> 'le')::float8) AS falls
          FROM cache_metrics WHERE name = 'pgcache_operation_seconds_bucket') AS bucket
 WHERE place = 1 OR falls;
-- A reset of the statistics resets no metric.
SELECT cache_stats_reset();
SELECT (SELECT hits FROM cache_stats WHERE space = 'm') AS stats,
       (SELECT value FROM cache_metrics WHERE name = 'pgcache_hits_total' AND labels @> '{"space": "m", "tier": "memory"}') AS metric;
-- Label values of any kind: quotes, backslashes, line feeds and letters of all planes of Unicode.
SELECT cache_create_space(name), cache_set('a', '1', space => name) FROM unnest(ARRAY[
    E'"quotes" \\ \\n \n line, {a="b"} 1', E'\u0001\u0009\u001f\u007f\u00a0\u2028',
    E'\uffff\U00010000\U0001f600\U00020000\U00030000\U0004fffe\U000e0001\U000f0000\U0010ffff']) AS name;
SELECT encode(convert_to(labels ->> 'space', 'UTF8'), 'escape') AS space, value FROM cache_metrics
 WHERE name = 'pgcache_entries' AND labels ->> 'space' <> 'm' ORDER BY labels ->> 'space' COLLATE "C";
SELECT encode(convert_to(line, 'UTF8'), 'escape') AS line FROM regexp_split_to_table(cache_metrics_text(), '\n') AS line
 WHERE line LIKE 'pgcache_entries%' AND line !~ '"m"' ORDER BY line COLLATE "C";
SELECT count(*) = 4 AS each_has_a_line FROM cache_metrics WHERE name = 'pgcache_stored_total' AND labels ->> 'space' IN (SELECT name FROM cache_spaces WHERE name <> 'default');
-- The values and tables that matter most.
CREATE TABLE orders (id int);
SELECT cache_set_text('large', repeat('x', 1000), space => 'm');
SELECT * FROM cache_query('SELECT count(*) FROM orders', space => 'm') AS t(orders bigint);
SELECT ranking, rank, regexp_replace(name::text, '^query:.*', 'query:...') AS name, space, size, cost > '0' AS costs, invalidated, query
  FROM cache_top(2) WHERE ranking <> 'hottest' ORDER BY ranking, rank;
SELECT count(cache_get('a', 'm')) FROM generate_series(1, 2000);
SELECT ranking, rank, name, space, hits > 1000 AS hot FROM cache_top(1) WHERE ranking = 'hottest';
INSERT INTO orders VALUES (1);
-- A new result reclaims the memory of the invalid one.
SELECT * FROM cache_query('SELECT count(*) FROM orders', space => 'm') AS t(orders bigint);
SELECT ranking, rank, name, space, invalidated FROM cache_top(1) WHERE ranking LIKE 'most%';
SELECT cache_top(0);
SELECT cache_top(1001);
-- Roles without privileges see nothing.
CREATE ROLE metrics_none;
SET ROLE metrics_none;
SELECT count(*) FROM cache_top();
SELECT * FROM cache_metrics;
SELECT cache_metrics_text();
SELECT * FROM cache_latency;
RESET ROLE;
DROP ROLE metrics_none;
