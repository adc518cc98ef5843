-- The views for monitoring. The functions behind them refuse roles that may not see statistics. Only the function `observed`
-- refuses no role. It shows the statements of all roles to a role that may see statistics or read the queries of all, and to each
-- other role its own statements.
--
-- Every function, operator and type in these views must name its schema (tests/sessions/qualified.rs). A comment on a column should
-- have at most 50 characters (spaces.sql).
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
COMMENT ON VIEW cache_verification IS 'Results of the verification of hits, of all databases';
COMMENT ON COLUMN cache_verification.verified IS 'Hits that were compared with a new run of the query';
COMMENT ON COLUMN cache_verification.different IS 'Verified hits whose stored result was wrong';
COMMENT ON COLUMN cache_verification.skipped IS 'Hits that were to be verified and could not be compared';
COMMENT ON COLUMN cache_verification.consistency IS 'Least share of right hits, with 95 % confidence';
COMMENT ON COLUMN cache_verification.nines IS 'The same share as a number of nines: 3 for 99.9 %';
GRANT SELECT ON cache_verification TO PUBLIC;

CREATE VIEW cache_observed AS
    SELECT pg_catalog.pg_get_userbyid(o.role)::pg_catalog.text AS role, o.query_id, o.query, o.calls, o.hits,
           pg_catalog.round(o.hits::pg_catalog.numeric OPERATOR(pg_catalog./) o.calls::pg_catalog.numeric, 4) AS hit_ratio,
           o.run_ms, o.saved_ms, o.refused, o.invalidated_by, o.since
      FROM pgcache.observed() WITH ORDINALITY AS o
     ORDER BY o.ordinality;
COMMENT ON VIEW cache_observed IS 'Statements of the application, and the time that hits would have saved';
COMMENT ON COLUMN cache_observed.role IS 'Current role of the calls';
COMMENT ON COLUMN cache_observed.query_id IS 'Identifier, as in pg_stat_statements';
COMMENT ON COLUMN cache_observed.query IS 'Beginning of the text; null: you may not read it';
COMMENT ON COLUMN cache_observed.calls IS 'Calls that ran to their end';
COMMENT ON COLUMN cache_observed.hits IS 'Calls that would have been hits';
COMMENT ON COLUMN cache_observed.hit_ratio IS 'Share of the calls that would have been hits';
COMMENT ON COLUMN cache_observed.run_ms IS 'Mean run time of a call, in milliseconds';
COMMENT ON COLUMN cache_observed.saved_ms IS 'Run time of the calls that would have been hits, in milliseconds';
COMMENT ON COLUMN cache_observed.refused IS 'Why the result of the last call would not have been stored';
COMMENT ON COLUMN cache_observed.invalidated_by IS 'Table whose changes invalidated the most results';
COMMENT ON COLUMN cache_observed.since IS 'Time of the first counted call';
GRANT SELECT ON cache_observed TO PUBLIC;
