-- The objects that CREATE EXTENSION creates and DROP EXTENSION removes.

-- Every object of the extension has a comment. Types are left out, because only PostgreSQL 18 and later list the row types of the
-- extension's tables.
SELECT pg_describe_object(classid, objid, 0) COLLATE "C" AS object,
       obj_description(objid, classid::regclass::name) IS NOT NULL AS documented
  FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_cache')
 ORDER BY 1;

-- Only the owner of the extension may use the internal schema pgcache.
CREATE ROLE install_guest;
SET ROLE install_guest;
SELECT pgcache.noop('key');
RESET ROLE;
DROP ROLE install_guest;

DROP EXTENSION pg_cache;
SELECT count(*) AS left_behind FROM pg_namespace WHERE nspname = 'pgcache';

-- CREATE EXTENSION does not adopt an existing schema named pgcache. (Major versions print different contexts of the error.)
\set VERBOSITY terse
CREATE SCHEMA pgcache;
CREATE EXTENSION pg_cache;
\set VERBOSITY default
DROP SCHEMA pgcache;

-- CREATE EXTENSION ... SCHEMA chooses the schema of the functions for callers.
CREATE SCHEMA cache;
CREATE EXTENSION pg_cache SCHEMA cache;
SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_cache';
