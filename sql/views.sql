-- The foreign table that tells a cached view with whose privileges it is read. src/pg/view_owner.rs explains it. Every role may
-- read it: a role that reads it directly gets a token of its own. This part of the script runs after the function of the handler
-- exists. The views of cache_create_view name the table, so it must keep its name and its column.
CREATE FOREIGN DATA WRAPPER pg_cache_view_owner HANDLER pgcache.view_owner_handler;
COMMENT ON FOREIGN DATA WRAPPER pg_cache_view_owner IS 'Internal to pg_cache: reads the role whose privileges count in a view.';
CREATE SERVER pg_cache_view_owner FOREIGN DATA WRAPPER pg_cache_view_owner;
COMMENT ON SERVER pg_cache_view_owner IS 'Internal to pg_cache: this session.';
CREATE FOREIGN TABLE cache_view_owner (token pg_catalog.bytea NOT NULL) SERVER pg_cache_view_owner;
COMMENT ON FOREIGN TABLE cache_view_owner IS 'Internal to cached views: tells with whose privileges the view is read.';
COMMENT ON COLUMN cache_view_owner.token IS 'The role with whose privileges this table is read, and a proof. Valid in this session only.';
GRANT SELECT ON cache_view_owner TO PUBLIC;
