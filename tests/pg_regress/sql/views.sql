-- cache_create_view makes a view whose rows come from the cache. Its query is in a hidden view.
CREATE ROLE views_owner;
CREATE ROLE views_reader;
CREATE ROLE views_other;
CREATE SCHEMA app;
GRANT ALL ON SCHEMA app TO views_owner;
GRANT USAGE ON SCHEMA app TO views_reader, views_other;
SELECT cache_grant('default', 'views_owner', 'write');
CREATE DOMAIN app.amount AS numeric(12,2) CHECK (value >= 0);
CREATE TYPE app.mood AS ENUM ('sad', 'happy');
SET ROLE views_owner;
CREATE TABLE app.orders (id int PRIMARY KEY, city varchar(20) COLLATE "C", cents numeric(10,2), tags text[], mood app.mood, at timestamptz(3));
INSERT INTO app.orders SELECT i, 'city ' || i % 3, i, ARRAY['a', 'b'], 'happy', '2026-01-01 00:00+0' FROM generate_series(1, 10) AS i;
SELECT cache_create_view('app.revenue', 'SELECT city, sum(cents)::app.amount AS total, count(*) AS n, max(tags) AS tags, max(mood) AS mood,
    max(at)::timestamptz(3) AS "Last" FROM app.orders GROUP BY city -- a comment', ttl => '1 hour', tags => '{revenue,"b c"}');

-- It is a table to every tool.
\d app.revenue
\d app.revenue_uncached
SELECT table_name, table_type, is_insertable_into FROM information_schema.tables WHERE table_schema = 'app' ORDER BY 1;
SELECT ordinal_position, column_name, data_type, udt_name, character_maximum_length, numeric_precision, numeric_scale, datetime_precision,
       collation_name, domain_name, is_nullable, is_updatable
  FROM information_schema.columns WHERE table_schema = 'app' AND table_name = 'revenue' ORDER BY 1;
-- As SQLAlchemy asks for the columns.
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid) AS "default",
       (SELECT collname FROM pg_collation AS c WHERE c.oid = a.attcollation AND a.attcollation <> 100) AS collation
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind = ANY ('{r,p,f,v,m}') AND c.relname = 'revenue' ORDER BY a.attnum;
-- As the drivers of Java, such as Metabase's, ask for tables and columns.
SELECT n.nspname AS table_schema, c.relname AS table_name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' END AS table_type
  FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid WHERE n.nspname = 'app' AND c.relkind IN ('r', 'v', 'f') ORDER BY 3, 2;
SELECT a.attname, a.atttypid::regtype, t.typtype, t.typbasetype::regtype, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS number
  FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid WHERE a.attrelid = 'app.revenue'::regclass AND a.attnum > 0 ORDER BY a.attnum;

SELECT * FROM app.revenue ORDER BY city;
SELECT cache_status();
SELECT n, "Last" = '2026-01-01 00:00+0' AS is_last FROM app.revenue WHERE city = 'city 1';
SELECT cache_status();
SELECT * FROM app.revenue AS a JOIN app.revenue AS b USING (city) WHERE a.n = 4;
INSERT INTO app.revenue (city) VALUES ('x');

-- A committed write makes it fresh, and so does a tag.
INSERT INTO app.orders VALUES (11, 'city 1', 100);
SELECT n FROM app.revenue WHERE city = 'city 1';
SELECT cache_status();
SELECT n FROM app.revenue WHERE city = 'city 1';
SELECT cache_status();
SELECT cache_invalidate_tag('b c');
SELECT count(*) FROM app.revenue;
SELECT cache_status();
BEGIN;
DELETE FROM app.orders WHERE id = 11;
SELECT n FROM app.revenue WHERE city = 'city 1';
SELECT cache_status();
ROLLBACK;
SELECT n FROM app.revenue WHERE city = 'city 1';
SELECT cache_status();

-- A reader needs SELECT on the view alone: nothing in the space, and nothing on what the view reads.
SET ROLE views_reader;
SELECT count(*) FROM app.revenue;
RESET ROLE;
GRANT SELECT ON app.revenue TO views_reader;
SET ROLE views_reader;
SELECT count(*) FROM app.revenue;
SELECT cache_status();
SELECT count(*) FROM app.revenue;
SELECT cache_status();
SELECT count(*) FROM app.revenue_uncached;
SELECT count(*) FROM app.orders;
-- The function of the view does not give more to a role that calls it by itself.
SELECT count(*) FROM cache_view_rows((SELECT token FROM cache_view_owner), NULL::app.revenue_uncached, NULL, NULL, NULL, 'default');
RESET ROLE;
SELECT cache_grant('default', 'views_other', 'write');
SET ROLE views_other;
\set VERBOSITY terse
SELECT count(*) FROM cache_view_rows((SELECT token FROM cache_view_owner), NULL::app.revenue_uncached, NULL, NULL, NULL, 'default');
SELECT count(*) FROM cache_view_rows(NULL, NULL::app.revenue_uncached, NULL, NULL, NULL, 'default');
SELECT count(*) FROM cache_view_rows('\x00', NULL::app.revenue_uncached, NULL, NULL, NULL, 'default');
SELECT count(*) FROM cache_view_rows(set_byte((SELECT token FROM cache_view_owner), 0, 10), NULL::app.revenue_uncached, NULL, NULL, NULL, 'default');
SELECT count(*) FROM cache_view_rows(NULL, NULL::int, NULL, NULL, NULL, 'default');
SELECT count(*) FROM cache_view_rows(NULL, NULL, NULL, NULL, NULL, 'default');
\set VERBOSITY default
RESET ROLE;
-- A grant on a column is a grant on this column.
GRANT SELECT (city) ON app.revenue TO views_other;
SET ROLE views_other;
SELECT city FROM app.revenue ORDER BY 1;
SELECT n FROM app.revenue;
RESET ROLE;

-- A view over the view, of another owner, in a schema for everybody. Its readers need no privilege on the schema below.
CREATE SCHEMA views_public;
GRANT ALL ON SCHEMA views_public TO views_reader;
CREATE ROLE views_nobody;
GRANT USAGE ON SCHEMA views_public TO views_nobody;
SET ROLE views_reader;
CREATE VIEW views_public.cities AS SELECT city, n FROM app.revenue WHERE city <> 'city 0';
GRANT SELECT ON views_public.cities TO views_nobody;
SET ROLE views_nobody;
SELECT * FROM views_public.cities ORDER BY 1;
SELECT cache_status();
SELECT * FROM views_public.cities ORDER BY 1;
SELECT cache_status();
RESET ROLE;

-- Row security: the policies for the owner of the view count, and see the role that reads. Each role has its own rows.
ALTER TABLE app.orders ADD COLUMN reader text DEFAULT 'views_reader';
UPDATE app.orders SET reader = 'views_nobody' WHERE id = 1;
ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.orders FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON app.orders TO views_owner USING (reader = current_user);
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
SET ROLE views_nobody;
SELECT sum(n) FROM views_public.cities;
SELECT sum(n) FROM views_public.cities;
SELECT cache_status();
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
SELECT cache_status();
SELECT current_user;
RESET ROLE;
ALTER TABLE app.orders NO FORCE ROW LEVEL SECURITY;
ALTER TABLE app.orders DISABLE ROW LEVEL SECURITY;

-- If the owner loses a privilege, the readers of the view lose the rows.
ALTER TABLE app.orders OWNER TO CURRENT_USER;
\set VERBOSITY terse
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
RESET ROLE;
GRANT SELECT ON app.orders TO views_owner;
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
RESET ROLE;
REVOKE SELECT ON app.revenue_uncached FROM views_owner;
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
RESET ROLE;
GRANT SELECT ON app.revenue_uncached TO views_owner;
REVOKE SELECT ON app.revenue FROM views_reader;
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
RESET ROLE;
\set VERBOSITY default
GRANT SELECT ON app.revenue TO views_reader;
-- A view with security_invoker reads as its reader.
ALTER VIEW app.revenue SET (security_invoker = true);
SET ROLE views_reader;
SELECT sum(n) FROM app.revenue;
RESET ROLE;
ALTER VIEW app.revenue RESET (security_invoker);

-- PostgreSQL knows what depends on what.
ALTER TABLE app.orders ALTER COLUMN city TYPE text;
ALTER TABLE app.orders DROP COLUMN mood;
DROP TABLE app.orders;
DROP VIEW app.revenue_uncached;
ALTER TABLE app.orders RENAME COLUMN city TO town;
ALTER TABLE app.orders RENAME TO sales;
ALTER VIEW app.revenue_uncached RENAME TO "The query";
ALTER SCHEMA app RENAME TO shop;
SELECT city, n FROM shop.revenue ORDER BY 1;
SELECT city, n FROM shop.revenue ORDER BY 1;
SELECT cache_status();
CREATE OR REPLACE VIEW shop."The query" AS
    SELECT town AS city, sum(cents)::shop.amount AS total, 7::bigint AS n, NULL::text[] AS tags, max(mood) AS mood, max(at)::timestamptz(3) AS "Last", 1 AS new
      FROM shop.sales GROUP BY town;
SELECT city, n FROM shop.revenue ORDER BY 1;
DROP VIEW shop.revenue CASCADE;
DROP VIEW shop."The query";

-- Errors of the query have their position in it.
SELECT cache_create_view('v', 'SELECT 1 AS x FROM missing');
SELECT cache_create_view('v', 'SELECT 1 x x');
SELECT cache_create_view('v', 'SELECT $1::int AS x');
SELECT cache_create_view('v', 'SELECT 1 AS x, 2 AS x');
SELECT cache_create_view('v', 'SELECT ROW(1, 2) AS x');
SELECT cache_create_view('v', 'SELECT 1 AS x; SELECT 2');
SELECT cache_create_view('v', '');
SELECT cache_create_view('v', 'CREATE TABLE x ()');
SELECT cache_create_view('v', 'SELECT 1 AS x INTO y');
SELECT cache_create_view('v', 'INSERT INTO shop.sales VALUES (1) RETURNING id');
SELECT cache_create_view('v', 'WITH w AS (DELETE FROM shop.sales RETURNING id) SELECT * FROM w');
SELECT cache_create_view('shop.sales', 'SELECT 1 AS x');
SELECT cache_create_view('missing.v', 'SELECT 1 AS x');
SELECT cache_create_view('a b', 'SELECT 1 AS x');
SELECT cache_create_view('', 'SELECT 1 AS x');
SELECT cache_create_view('v', 'SELECT 1 AS x', stale_ok => '-1 s');
SELECT cache_create_view('v', 'SELECT 1 AS x', space => 'missing');
SELECT cache_create_view('v', NULL);
BEGIN READ ONLY;
SELECT cache_create_view('v', 'SELECT 1 AS x');
ROLLBACK;
SELECT count(*) FROM pg_class WHERE relname LIKE '%uncached';
SELECT cache_create_view('v', 'SELECT 1 AS x');
SELECT cache_create_view('v', 'SELECT 1 AS x');
SELECT cache_create_view('"A ""v"""', 'VALUES (1, ''a''), (2, NULL);');
SELECT * FROM "A ""v""";
SELECT cache_create_view(repeat('n', 63), 'SELECT 1 AS x');
CREATE TEMP TABLE of_session (x int);
SELECT cache_create_view('w', 'SELECT x FROM of_session');
DROP TABLE of_session;
-- A volatile query is run each time.
SELECT cache_create_view('volatile', 'SELECT random() < 2 AS x');
SELECT * FROM volatile;
SELECT cache_status();

DROP SCHEMA shop, views_public CASCADE;
SELECT cache_revoke('default', 'views_owner', 'write'), cache_revoke('default', 'views_other', 'write');
DROP ROLE views_owner, views_reader, views_other, views_nobody;
