-- What CREATE EXTENSION leaves in a database, and what DROP EXTENSION takes away again.

-- Every object of the extension, and what it says of itself: nothing is without its explanation. (From PostgreSQL 18 on the types of
-- its tables' rows are listed, too.)
SELECT pg_describe_object(classid, objid, 0) COLLATE "C" AS object,
       obj_description(objid, classid::regclass::name) IS NOT NULL AS documented
  FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_cache')
 ORDER BY 1;

-- The internal schema is closed to everybody but the owner.
CREATE ROLE install_guest;
SET ROLE install_guest;
SELECT pgcache.noop('key');
RESET ROLE;
DROP ROLE install_guest;

DROP EXTENSION pg_cache;
SELECT count(*) AS left_behind FROM pg_namespace WHERE nspname = 'pgcache';

-- Somebody else's schema of that name is not adopted. (Servers differ in the context they tell.)
\set VERBOSITY terse
CREATE SCHEMA pgcache;
CREATE EXTENSION pg_cache;
\set VERBOSITY default
DROP SCHEMA pgcache;

-- Functions for callers live in the schema of one's choice.
CREATE SCHEMA cache;
CREATE EXTENSION pg_cache SCHEMA cache;
SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_cache';
