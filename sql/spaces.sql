-- However the two tables change (by our functions, by COPY in a restore, by a superuser's hand), every session forgets what it
-- remembers of them.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgcache.spaces
    FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgcache.grants
    FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
ALTER TABLE pgcache.spaces ENABLE ALWAYS TRIGGER changed;
ALTER TABLE pgcache.grants ENABLE ALWAYS TRIGGER changed;

CREATE VIEW cache_spaces AS SELECT * FROM pgcache.visible_spaces();
COMMENT ON VIEW cache_spaces IS
    'The spaces that the caller may read, with their options; all of them for pg_monitor.';
GRANT SELECT ON cache_spaces TO PUBLIC;

CREATE VIEW cache_stats AS SELECT * FROM pgcache.space_statistics();
COMMENT ON VIEW cache_stats IS
    'What happened in the spaces that the caller may read, since the server started or cache_stats_reset was called; of all of them for pg_monitor.';
GRANT SELECT ON cache_stats TO PUBLIC;
