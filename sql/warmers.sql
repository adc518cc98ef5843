-- The triggers on the tables of warmers, and the view. This part of the script runs after the functions exist. spaces.sql explains
-- the kinds of triggers, and the rules for views.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.warmers
    FOR EACH ROW EXECUTE FUNCTION pgcache.warmer_changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.warmers FOR EACH STATEMENT EXECUTE FUNCTION pgcache.warmer_changed();
-- Logical replication applies changes as a superuser, and the OID of an owner may be that of another role here. So the trigger
-- discards these changes.
CREATE TRIGGER replicated BEFORE INSERT OR UPDATE OR DELETE ON pgcache.warmers FOR EACH ROW
    WHEN (pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica')
    EXECUTE FUNCTION pgcache.warmer_replicated();
ALTER TABLE pgcache.warmers ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied, ENABLE ALWAYS TRIGGER replicated;
CREATE TRIGGER restored BEFORE INSERT ON pgcache.dumped_warmers
    FOR EACH ROW EXECUTE FUNCTION pgcache.warmer_restored();
ALTER TABLE pgcache.dumped_warmers ENABLE ALWAYS TRIGGER restored;

CREATE VIEW cache_warmers AS
    SELECT * FROM pgcache.visible_warmers() ORDER BY name COLLATE pg_catalog."C", owner COLLATE pg_catalog."C";
COMMENT ON VIEW cache_warmers IS 'Queries whose results are kept stored';
COMMENT ON COLUMN cache_warmers.name IS 'Name, unique among those of the owner';
COMMENT ON COLUMN cache_warmers.owner IS 'Role that runs it; null: it was dropped';
COMMENT ON COLUMN cache_warmers.query IS 'Text of the query; null: not for you';
COMMENT ON COLUMN cache_warmers.args IS 'Arguments; null: none, or not for you';
COMMENT ON COLUMN cache_warmers.every IS 'Age at which a valid result is renewed';
COMMENT ON COLUMN cache_warmers.ttl IS 'Time to live of the result';
COMMENT ON COLUMN cache_warmers.tags IS 'Tags; null: none, or not for you';
COMMENT ON COLUMN cache_warmers.space IS 'Name of the space';
COMMENT ON COLUMN cache_warmers.state IS 'warm, outdated, running, waiting, paused, not stored, failing, not trusted or owner ...';
COMMENT ON COLUMN cache_warmers.last_run IS 'Start of the last run since the server started';
COMMENT ON COLUMN cache_warmers.duration IS 'Duration of the last run';
COMMENT ON COLUMN cache_warmers.runs IS 'Runs since the server started';
COMMENT ON COLUMN cache_warmers.error IS 'Why the last run stored nothing, or why no worker runs';
GRANT SELECT ON cache_warmers TO PUBLIC;
