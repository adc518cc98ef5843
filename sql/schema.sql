-- Internal objects live here; what callers use lives in the schema chosen at CREATE EXTENSION.
-- Not IF NOT EXISTS: a schema somebody else made, and may own, must not be adopted.
CREATE SCHEMA pgcache;
COMMENT ON SCHEMA pgcache IS 'Internals of pg_cache. Not an interface: names may change between versions.';
