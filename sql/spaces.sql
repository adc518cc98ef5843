-- However the tables change (by our functions, by COPY in a restore, by a superuser's hand, by a subscription, which
-- runs no triggers FOR EACH STATEMENT but those of TRUNCATE), every session forgets what it remembers of them.
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

CREATE VIEW cache_spaces AS SELECT * FROM pgcache.visible_spaces();
COMMENT ON VIEW cache_spaces IS
    'The spaces that the caller may read, with their options; all of them for pg_monitor.';
GRANT SELECT ON cache_spaces TO PUBLIC;

CREATE VIEW cache_watches AS
    SELECT relation, pg_catalog.array_agg(tag ORDER BY tag COLLATE pg_catalog."C") AS tags
    FROM pgcache.visible_watches() GROUP BY relation;
COMMENT ON VIEW cache_watches IS
    'Which tags stand for which relations: a write to the relation makes everything a miss that has the tag.';
GRANT SELECT ON cache_watches TO PUBLIC;

CREATE VIEW cache_stats AS SELECT * FROM pgcache.space_statistics();
COMMENT ON VIEW cache_stats IS
    'What happened in the spaces that the caller may read, since the server started or cache_stats_reset was called; of all of them for pg_monitor.';
GRANT SELECT ON cache_stats TO PUBLIC;

-- Of what was dropped (its indexes and the table of its large values among it) only what entries have died of.
CREATE VIEW cache_relations AS
    SELECT * FROM pgcache.relation_statistics() AS s
     WHERE relation IS NULL OR entries_killed OPERATOR(pg_catalog.>) 0
         OR EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) s.relation);
COMMENT ON VIEW cache_relations IS
    'Which tables have changed how often and when last, and how many entries died of that, since the server started or cache_stats_reset was called; for the owner of the extension and pg_monitor.';
GRANT SELECT ON cache_relations TO PUBLIC;

-- An extension that is made anew finds nothing of what one before it has left in this database, also if a restore brings back the
-- numbers of its spaces.
SELECT @extschema@.cache_flush('*'::pg_catalog.text);
