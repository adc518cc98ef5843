-- The views for monitoring. The functions behind them refuse roles that may not see statistics, except for `observed`: it shows each
-- role its own statements.
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

CREATE VIEW cache_observed AS
    SELECT pg_catalog.pg_get_userbyid(o.role)::pg_catalog.text AS role, o.query_id, o.query, o.calls, o.hits,
           pg_catalog.round(o.hits::pg_catalog.numeric OPERATOR(pg_catalog./) o.calls::pg_catalog.numeric, 4) AS hit_ratio,
           o.run_ms, o.saved_ms, o.refused, o.invalidated_by, o.since
      FROM pgcache.observed() WITH ORDINALITY AS o
     ORDER BY o.ordinality;
COMMENT ON VIEW cache_observed IS 'Observed statements of the application, and the time that hits would have saved';
COMMENT ON COLUMN cache_observed.role IS 'Role that ran it';
COMMENT ON COLUMN cache_observed.query_id IS 'As in pg_stat_statements';
COMMENT ON COLUMN cache_observed.query IS 'Beginning of its text; null: not for you';
COMMENT ON COLUMN cache_observed.calls IS 'Calls that ran to their end';
COMMENT ON COLUMN cache_observed.hits IS 'Calls that would have been hits';
COMMENT ON COLUMN cache_observed.hit_ratio IS 'Share of hits in calls';
COMMENT ON COLUMN cache_observed.run_ms IS 'Mean run time of a call, in milliseconds';
COMMENT ON COLUMN cache_observed.saved_ms IS 'Run time of all hits, in milliseconds';
COMMENT ON COLUMN cache_observed.refused IS 'Why the last call would not be stored';
COMMENT ON COLUMN cache_observed.invalidated_by IS 'Table that invalidated it most';
COMMENT ON COLUMN cache_observed.since IS 'Time of the first call counted';
GRANT SELECT ON cache_observed TO PUBLIC;
