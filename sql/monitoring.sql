-- The views for monitoring. The functions behind them refuse roles that may not see statistics.
CREATE VIEW cache_metrics AS
    SELECT m.name, m.labels::pg_catalog.jsonb AS labels, m.kind AS type, m.value, m.help
      FROM pgcache.metrics() WITH ORDINALITY AS m
     ORDER BY m.ordinality;
COMMENT ON VIEW cache_metrics IS 'Metrics of the server and of the spaces';
COMMENT ON COLUMN cache_metrics.name IS 'Name, as in cache_metrics_text()';
COMMENT ON COLUMN cache_metrics.labels IS 'Labels: an object of texts';
COMMENT ON COLUMN cache_metrics.type IS 'counter or gauge; a bucket is a counter';
COMMENT ON COLUMN cache_metrics.value IS 'Value, in seconds or bytes if it has a unit';
COMMENT ON COLUMN cache_metrics.help IS 'Meaning of the metric';
GRANT SELECT ON cache_metrics TO PUBLIC;

CREATE VIEW cache_latency AS
    SELECT l.operation, l.tier, l.timed, l.mean_ms, l.p50_ms, l.p95_ms, l.p99_ms, l.max_ms
      FROM pgcache.latency() WITH ORDINALITY AS l
     ORDER BY l.ordinality;
COMMENT ON VIEW cache_latency IS 'How long operations took, of all databases';
COMMENT ON COLUMN cache_latency.operation IS 'get, query_hit, set, fill or wait';
COMMENT ON COLUMN cache_latency.tier IS 'Where a hit found its value: memory or table';
COMMENT ON COLUMN cache_latency.timed IS 'How many were timed (pg_cache.track_latency)';
COMMENT ON COLUMN cache_latency.mean_ms IS 'Mean in milliseconds';
COMMENT ON COLUMN cache_latency.p50_ms IS 'Half of them took at most this long';
COMMENT ON COLUMN cache_latency.p95_ms IS '95 % of them took at most this long';
COMMENT ON COLUMN cache_latency.p99_ms IS '99 % of them took at most this long';
COMMENT ON COLUMN cache_latency.max_ms IS 'All of them took at most this long';
GRANT SELECT ON cache_latency TO PUBLIC;

CREATE VIEW cache_verification AS
    SELECT v.verified, v.different, v.skipped, v.consistency, v.nines FROM pgcache.verification() AS v ORDER BY v.verified;
COMMENT ON VIEW cache_verification IS 'Verified hits of queries, of all databases';
COMMENT ON COLUMN cache_verification.verified IS 'Hits whose query was run again';
COMMENT ON COLUMN cache_verification.different IS 'Of these: the stored result was wrong';
COMMENT ON COLUMN cache_verification.skipped IS 'To be verified, but not comparable';
COMMENT ON COLUMN cache_verification.consistency IS 'Share of right hits, 95 % confidence';
COMMENT ON COLUMN cache_verification.nines IS 'The same in nines: 3 for 99.9 %';
GRANT SELECT ON cache_verification TO PUBLIC;
