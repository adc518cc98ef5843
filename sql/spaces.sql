-- The triggers on the internal tables, and most views; monitoring.sql and warmers.sql have the others. This part of the script runs
-- after the functions exist. Every role may select from the views. The functions behind them check the privileges of the current
-- role: they raise an error, or leave out rows. Every function, operator and type must name its schema (README.md).

-- When one of the tables changes, every session must forget what it remembers of it. The triggers run for every kind of change: by
-- the functions of the extension, by COPY in a restore, by a superuser's statements, and by a subscription. When a subscription
-- applies changes, triggers FOR EACH STATEMENT run only for TRUNCATE, so the other changes have triggers FOR EACH ROW. A
-- subscription has session_replication_role = replica, in which only triggers run that are enabled ALWAYS or REPLICA.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.spaces
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.grants
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.watches
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON pgcache.events
    FOR EACH ROW EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.spaces FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.grants FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.watches FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
CREATE TRIGGER emptied AFTER TRUNCATE ON pgcache.events FOR EACH STATEMENT EXECUTE FUNCTION pgcache.changed();
ALTER TABLE pgcache.spaces ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;
ALTER TABLE pgcache.grants ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;
ALTER TABLE pgcache.watches ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;
ALTER TABLE pgcache.events ENABLE ALWAYS TRIGGER changed, ENABLE ALWAYS TRIGGER emptied;

-- schema.sql says how a dump brings grants. The function inserts the grant into pgcache.grants, and no row into this table.
CREATE TRIGGER restored BEFORE INSERT ON pgcache.dumped_grants
    FOR EACH ROW EXECUTE FUNCTION pgcache.grant_restored();
ALTER TABLE pgcache.dumped_grants ENABLE ALWAYS TRIGGER restored;

-- Every view sorts its rows and has a comment on each column. A comment should have at most 50 characters, because \dv+ and \d+
-- show it in the last column. (In this file, only those of two columns of cache_queries, state and keep_warm, are longer.)

CREATE VIEW cache_spaces AS
    SELECT * FROM pgcache.visible_spaces() ORDER BY name COLLATE pg_catalog."C";
COMMENT ON VIEW cache_spaces IS 'Spaces and the options that apply to them';
COMMENT ON COLUMN cache_spaces.name IS 'Name of the space';
COMMENT ON COLUMN cache_spaces.default_ttl IS 'Time to live if the call gives none';
COMMENT ON COLUMN cache_spaces.max_ttl IS 'Longest time to live; longer ones are cut';
COMMENT ON COLUMN cache_spaces.ttl_policy IS 'fixed; cost: by the time of the query; adaptive';
COMMENT ON COLUMN cache_spaces.jitter IS 'Largest fraction taken off a time to live';
COMMENT ON COLUMN cache_spaces.tiers IS 'hot (only memory), table or both';
COMMENT ON COLUMN cache_spaces.scope IS 'shared, or role: each role has its entries';
COMMENT ON COLUMN cache_spaces.quota IS 'Most memory for the space; null: no limit';
COMMENT ON COLUMN cache_spaces.max_value IS 'Largest value that may be stored';
COMMENT ON COLUMN cache_spaces.compress_above IS 'Larger query results are compressed';
COMMENT ON COLUMN cache_spaces.min_cost IS 'Faster query results are not stored';
COMMENT ON COLUMN cache_spaces.max_result_size IS 'Larger query results are not stored';
COMMENT ON COLUMN cache_spaces.keep_warm IS 'Query results that workers keep stored';
COMMENT ON COLUMN cache_spaces.redis IS 'Whether Redis gets copies of the values';
COMMENT ON COLUMN cache_spaces.enabled IS 'Whether the space is used at all';
GRANT SELECT ON cache_spaces TO PUBLIC;

CREATE VIEW cache_grants AS
    SELECT space, grantee, privilege FROM pgcache.visible_grants()
    ORDER BY space COLLATE pg_catalog."C", grantee COLLATE pg_catalog."C", privilege COLLATE pg_catalog."C";
COMMENT ON VIEW cache_grants IS 'Privileges of roles in spaces';
COMMENT ON COLUMN cache_grants.space IS 'Name of the space';
COMMENT ON COLUMN cache_grants.grantee IS 'Role, as an SQL identifier; public: every role';
COMMENT ON COLUMN cache_grants.privilege IS 'read, write (with read) or admin (with both)';
GRANT SELECT ON cache_grants TO PUBLIC;

CREATE VIEW cache_watches AS
    SELECT relation, pg_catalog.array_agg(tag ORDER BY tag COLLATE pg_catalog."C") AS tags
    FROM pgcache.visible_watches() GROUP BY relation
    ORDER BY relation::pg_catalog.text COLLATE pg_catalog."C";
COMMENT ON VIEW cache_watches IS 'Watched tables and the tags that stand for them';
COMMENT ON COLUMN cache_watches.relation IS 'Table whose changes invalidate values';
COMMENT ON COLUMN cache_watches.tags IS 'Values with one of these tags depend on it';
GRANT SELECT ON cache_watches TO PUBLIC;

CREATE VIEW cache_events AS
    SELECT event, space, pg_catalog.array_agg(target ORDER BY target COLLATE pg_catalog."C") AS targets
    FROM pgcache.visible_events() GROUP BY event, space
    ORDER BY event COLLATE pg_catalog."C", space COLLATE pg_catalog."C";
COMMENT ON VIEW cache_events IS 'Events and what they invalidate';
COMMENT ON COLUMN cache_events.event IS 'Name of the event';
COMMENT ON COLUMN cache_events.space IS 'Space of the keys and patterns';
COMMENT ON COLUMN cache_events.targets IS 'Keys, patterns (match:) and tags (tag:)';
GRANT SELECT ON cache_events TO PUBLIC;

CREATE VIEW cache_stats AS
    SELECT * FROM pgcache.space_summary() ORDER BY space COLLATE pg_catalog."C";
COMMENT ON VIEW cache_stats IS 'Hits, misses and memory of each space';
COMMENT ON COLUMN cache_stats.space IS 'Name of the space';
COMMENT ON COLUMN cache_stats.hits IS 'Reads that returned a value';
COMMENT ON COLUMN cache_stats.misses IS 'Reads that found no value to return';
COMMENT ON COLUMN cache_stats.hit_ratio IS 'hits / (hits + misses); null without reads';
COMMENT ON COLUMN cache_stats.live_entries IS 'Entries that a read can return now';
COMMENT ON COLUMN cache_stats.live_bytes IS 'Memory of the live entries';
COMMENT ON COLUMN cache_stats.dead_entries IS 'Expired or invalidated, not yet reclaimed';
COMMENT ON COLUMN cache_stats.dead_bytes IS 'Memory of the dead entries, free for reuse';
COMMENT ON COLUMN cache_stats.evicted IS 'Live entries removed because memory was short';
COMMENT ON COLUMN cache_stats.refused IS 'Values that a limit kept from being stored';
GRANT SELECT ON cache_stats TO PUBLIC;

CREATE VIEW cache_stats_detail AS
    SELECT * FROM pgcache.space_statistics() ORDER BY space COLLATE pg_catalog."C";
COMMENT ON VIEW cache_stats_detail IS 'Everything that is counted for each space';
COMMENT ON COLUMN cache_stats_detail.space IS 'Name of the space';
COMMENT ON COLUMN cache_stats_detail.entries IS 'Entries in memory, live and dead';
COMMENT ON COLUMN cache_stats_detail.bytes IS 'Memory of the space, with uncommitted values';
COMMENT ON COLUMN cache_stats_detail.hits_hot IS 'Reads that returned a value from memory';
COMMENT ON COLUMN cache_stats_detail.hits_table IS 'Reads that returned a value from a table';
COMMENT ON COLUMN cache_stats_detail.misses_absent IS 'Misses: the key has no entry';
COMMENT ON COLUMN cache_stats_detail.misses_expired IS 'Misses: the time to live has ended';
COMMENT ON COLUMN cache_stats_detail.misses_invalidated IS 'Misses: a dependency has changed';
COMMENT ON COLUMN cache_stats_detail.misses_own IS 'Misses: own uncommitted change of a dependency';
COMMENT ON COLUMN cache_stats_detail.misses_off IS 'Misses: a part of the cache is switched off';
COMMENT ON COLUMN cache_stats_detail.read_retries IS 'Reads repeated after a concurrent change';
COMMENT ON COLUMN cache_stats_detail.stored IS 'Values stored';
COMMENT ON COLUMN cache_stats_detail.promoted IS 'Values brought back from a table to memory';
COMMENT ON COLUMN cache_stats_detail.replaced IS 'Entries replaced by another value of the key';
COMMENT ON COLUMN cache_stats_detail.removed IS 'Entries deleted on request';
COMMENT ON COLUMN cache_stats_detail.dropped IS 'Values not stored: outdated or key taken';
COMMENT ON COLUMN cache_stats_detail.refused_room IS 'Values not stored: no memory could be freed';
COMMENT ON COLUMN cache_stats_detail.refused_size IS 'Values not stored: larger than an entry may be';
COMMENT ON COLUMN cache_stats_detail.refused_quota IS 'Values not stored: quota of the space';
COMMENT ON COLUMN cache_stats_detail.refused_transaction IS 'Values not stored: max_transaction_size';
COMMENT ON COLUMN cache_stats_detail.refused_off IS 'Values not stored: a part is switched off';
COMMENT ON COLUMN cache_stats_detail.gone_expired IS 'Dead entries reclaimed after they expired';
COMMENT ON COLUMN cache_stats_detail.gone_invalidated IS 'Dead entries reclaimed after an invalidation';
COMMENT ON COLUMN cache_stats_detail.evicted_room IS 'Live entries evicted: the cache was full';
COMMENT ON COLUMN cache_stats_detail.evicted_quota IS 'Live entries evicted: quota of the space';
COMMENT ON COLUMN cache_stats_detail.never_hit IS 'Evicted from the queue of unread entries';
COMMENT ON COLUMN cache_stats_detail.time_saved IS 'Query time that hits of stored results saved';
GRANT SELECT ON cache_stats_detail TO PUBLIC;

CREATE VIEW cache_entries AS
    SELECT * FROM pgcache.entries() ORDER BY space COLLATE pg_catalog."C", key COLLATE pg_catalog."C";
COMMENT ON VIEW cache_entries IS 'Entries that a read can return now';
COMMENT ON COLUMN cache_entries.space IS 'Name of the space';
COMMENT ON COLUMN cache_entries.key IS 'Key; null if it belongs to another role';
COMMENT ON COLUMN cache_entries.kind IS 'jsonb, text, bytea, integer, or null of a query';
COMMENT ON COLUMN cache_entries.size IS 'Bytes of the value';
COMMENT ON COLUMN cache_entries.age IS 'Time since it was stored';
COMMENT ON COLUMN cache_entries.ttl IS 'Time until it expires';
COMMENT ON COLUMN cache_entries.tags IS 'Its tags; null if it has none';
COMMENT ON COLUMN cache_entries.tier IS 'hot (only in memory), table (only there) or both';
COMMENT ON COLUMN cache_entries.hits IS 'Estimate of its share in the latest reads';
GRANT SELECT ON cache_entries TO PUBLIC;

CREATE VIEW cache_queries AS
    SELECT * FROM pgcache.queries() ORDER BY space COLLATE pg_catalog."C", key COLLATE pg_catalog."C";
COMMENT ON VIEW cache_queries IS 'Stored results of queries';
COMMENT ON COLUMN cache_queries.key IS 'Key; null if it belongs to another role';
COMMENT ON COLUMN cache_queries.space IS 'Name of the space';
COMMENT ON COLUMN cache_queries.role IS 'Role that ran it; null: it was dropped';
COMMENT ON COLUMN cache_queries.query IS 'Beginning of its text; null: not for you';
COMMENT ON COLUMN cache_queries.form IS 'rows, json or value, by the function called';
COMMENT ON COLUMN cache_queries.rows IS 'Number of rows; null if it is left out';
COMMENT ON COLUMN cache_queries.size IS 'Bytes of the stored result';
COMMENT ON COLUMN cache_queries.cost IS 'Time that the query took';
COMMENT ON COLUMN cache_queries.age IS 'Time since it was stored';
COMMENT ON COLUMN cache_queries.ttl IS 'Time until it expires';
COMMENT ON COLUMN cache_queries.tags IS 'Its tags; null if it has none';
COMMENT ON COLUMN cache_queries.state IS 'valid; invalid: and why; left out until; or verification failed at';
COMMENT ON COLUMN cache_queries.keep_warm IS 'kept; waiting: and why no worker can renew it; or why the last run failed; null: not kept';
GRANT SELECT ON cache_queries TO PUBLIC;

CREATE VIEW cache_dependencies AS
    SELECT * FROM pgcache.dependencies()
     ORDER BY space COLLATE pg_catalog."C", key COLLATE pg_catalog."C", kind COLLATE pg_catalog."C", object COLLATE pg_catalog."C";
COMMENT ON VIEW cache_dependencies IS 'Dependencies of stored results of queries';
COMMENT ON COLUMN cache_dependencies.key IS 'Key of the result';
COMMENT ON COLUMN cache_dependencies.space IS 'Name of the space';
COMMENT ON COLUMN cache_dependencies.kind IS 'table rows, definition or tag';
COMMENT ON COLUMN cache_dependencies.object IS 'Table or tag; null: gone or not for you';
GRANT SELECT ON cache_dependencies TO PUBLIC;

CREATE VIEW cache_usage AS
    SELECT u.resource, COALESCE(d.datname::pg_catalog.text, u.database::pg_catalog.text) AS database,
           u.unit, u.used, u.capacity, u.used_ratio
      FROM pgcache.usage() WITH ORDINALITY AS u
      LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) u.database
     ORDER BY u.ordinality;
COMMENT ON VIEW cache_usage IS 'How full the cache is, in total and by database';
COMMENT ON COLUMN cache_usage.resource IS 'Resource of limited size';
COMMENT ON COLUMN cache_usage.database IS 'Share of one database; null: whole server';
COMMENT ON COLUMN cache_usage.unit IS 'Unit of used and capacity';
COMMENT ON COLUMN cache_usage.used IS 'Amount in use, including dead entries';
COMMENT ON COLUMN cache_usage.capacity IS 'Most that the server can use';
COMMENT ON COLUMN cache_usage.used_ratio IS 'used / capacity';
GRANT SELECT ON cache_usage TO PUBLIC;

CREATE VIEW cache_workers AS
    SELECT w.pid, w.kind, COALESCE(d.datname::pg_catalog.text, w.database::pg_catalog.text) AS database,
           w.started, w.last_step, w.saved, w.too_late, w.freed, w.swept, w.notifications, w.journal, w.connected, w.lag, w.lag_time, w.resyncs,
           w.errors, w.error
      FROM pgcache.workers() AS w
      LEFT JOIN pg_catalog.pg_database AS d ON d.oid OPERATOR(pg_catalog.=) w.database
     ORDER BY w.kind COLLATE pg_catalog."C", w.started, w.pid;
COMMENT ON VIEW cache_workers IS 'Background workers and what they have done';
COMMENT ON COLUMN cache_workers.pid IS 'Process id';
COMMENT ON COLUMN cache_workers.kind IS 'launcher, redis, worker (database) or warmer';
COMMENT ON COLUMN cache_workers.database IS 'Database; null for launcher and redis';
COMMENT ON COLUMN cache_workers.started IS 'Time of the start';
COMMENT ON COLUMN cache_workers.last_step IS 'Time of the last step';
COMMENT ON COLUMN cache_workers.saved IS 'Values saved in tables';
COMMENT ON COLUMN cache_workers.too_late IS 'Copies not used: the entry had changed';
COMMENT ON COLUMN cache_workers.freed IS 'Tables emptied';
COMMENT ON COLUMN cache_workers.swept IS 'Dead entries removed from memory';
COMMENT ON COLUMN cache_workers.notifications IS 'Notifications sent';
COMMENT ON COLUMN cache_workers.journal IS 'How far the journal of changes reaches back';
COMMENT ON COLUMN cache_workers.connected IS 'Whether Redis answers; null for other workers';
COMMENT ON COLUMN cache_workers.lag IS 'About how many changes Redis does not have yet';
COMMENT ON COLUMN cache_workers.lag_time IS 'Age of the oldest of them; null: not known';
COMMENT ON COLUMN cache_workers.resyncs IS 'How often all keys in Redis were compared';
COMMENT ON COLUMN cache_workers.errors IS 'Steps that ended with an error';
COMMENT ON COLUMN cache_workers.error IS 'SQLSTATE or text of the last error; null: none';
GRANT SELECT ON cache_workers TO PUBLIC;

-- A dropped relation (a table, an index, a TOAST table) is shown only if its changes have invalidated entries.
CREATE VIEW cache_relations AS
    SELECT * FROM pgcache.relation_statistics() AS s
     WHERE relation IS NULL OR entries_killed OPERATOR(pg_catalog.>) 0
         OR EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) s.relation)
     ORDER BY entries_killed DESC, relation::pg_catalog.text COLLATE pg_catalog."C";
COMMENT ON VIEW cache_relations IS 'Changes of each table and their invalidations';
COMMENT ON COLUMN cache_relations.relation IS 'Table; null: tables that share a record';
COMMENT ON COLUMN cache_relations.fences IS 'Transactions that have changed the table';
COMMENT ON COLUMN cache_relations.entries_killed IS 'Reclaimed entries that it has invalidated';
COMMENT ON COLUMN cache_relations.last IS 'Time of the last change';
GRANT SELECT ON cache_relations TO PUBLIC;

-- A new extension must not find entries of an earlier one in this database. A restore may bring back the numbers of its spaces.
SELECT @extschema@.cache_flush('*'::pg_catalog.text);
