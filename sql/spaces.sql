-- When one of the tables changes, every session must forget what it remembers of it. The triggers run for every kind of change: by the
-- functions of the extension, by COPY in a restore, by a superuser's statements, and by a subscription. A subscription runs triggers FOR
-- EACH STATEMENT only for TRUNCATE, so the other changes have triggers FOR EACH ROW.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.spaces
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.grants
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.watches
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.spaces FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.grants FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.watches FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
ALTER TABLE pgcache.spaces ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;
ALTER TABLE pgcache.grants ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;
ALTER TABLE pgcache.watches ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;

CREATE TRIGGER restored BEFORE INSERT ON pgcache.dumped_grants
    FOR EACH ROW EXECUTE FUNCTION pgcache.grant_restored();
ALTER TABLE pgcache.dumped_grants ENABLE ALWAYS TRIGGER restored;

CREATE VIEW cache_spaces AS SELECT * FROM pgcache.visible_spaces();
COMMENT ON VIEW cache_spaces IS
    'The spaces that the caller may read, with their options. Members of pg_monitor see all spaces.';
GRANT SELECT ON cache_spaces TO PUBLIC;

CREATE VIEW cache_grants AS
    SELECT space, grantee, privilege FROM pgcache.visible_grants()
    ORDER BY space COLLATE pg_catalog."C", grantee COLLATE pg_catalog."C", privilege COLLATE pg_catalog."C";
COMMENT ON VIEW cache_grants IS
    'The privileges of roles in spaces: those that count for the caller, and all of spaces in which the caller has the privilege admin. Members of pg_monitor see all grants.';
COMMENT ON COLUMN cache_grants.space IS 'The name of the space.';
COMMENT ON COLUMN cache_grants.grantee IS 'The role, quoted where an SQL identifier needs quotes; public stands for every role.';
COMMENT ON COLUMN cache_grants.privilege IS 'The privilege: read, write (includes read) or admin (includes both).';
GRANT SELECT ON cache_grants TO PUBLIC;

CREATE VIEW cache_watches AS
    SELECT relation, pg_catalog.array_agg(tag ORDER BY tag COLLATE pg_catalog."C") AS tags
    FROM pgcache.visible_watches() GROUP BY relation;
COMMENT ON VIEW cache_watches IS
    'The relations that are watched, with the tags that stand for them. A write to the relation invalidates all values with one of the tags.';
GRANT SELECT ON cache_watches TO PUBLIC;

CREATE VIEW cache_stats AS SELECT * FROM pgcache.space_statistics();
COMMENT ON VIEW cache_stats IS
    'Statistics of the spaces that the caller may read, since the server started or cache_stats_reset was called. Members of pg_monitor see all spaces.';
GRANT SELECT ON cache_stats TO PUBLIC;

-- A dropped relation (a table, an index, a TOAST table) is shown only if its changes have invalidated entries.
CREATE VIEW cache_relations AS
    SELECT * FROM pgcache.relation_statistics() AS s
     WHERE relation IS NULL OR entries_killed OPERATOR(pg_catalog.>) 0
         OR EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) s.relation);
COMMENT ON VIEW cache_relations IS
    'For each table: how often it has changed, when it last changed, and how many entries its changes have invalidated, since the server started or cache_stats_reset was called. For the owner of the extension and members of pg_monitor.';
GRANT SELECT ON cache_relations TO PUBLIC;

-- A new extension must not find entries of an earlier one in this database. A restore may bring back the numbers of its spaces.
SELECT @extschema@.cache_flush('*'::pg_catalog.text);
