-- Arguments of cache_warmer_add. The runs of warmers are in tests/sessions/query/warmers.rs.
CREATE TABLE t (v int);
SELECT cache_warmer_add('w', 'SELECT v FROM t WHERE v > $1', '[1]', every => '1 month', ttl => '1 year', tags => '{b,a,b}');
SELECT name, owner = current_user AS is_own, query, args, every, ttl, tags, space FROM cache_warmers;

-- Names. They are unique among those of a role.
SELECT cache_warmer_add('w', 'SELECT 1');
SELECT cache_warmer_add('', 'SELECT 1');
SELECT cache_warmer_add(repeat('ä', 32), 'SELECT 1');
SELECT cache_warmer_add(repeat('n', 63), 'SELECT 1');
SELECT cache_warmer_add(NULL, 'SELECT 1');
CREATE ROLE warmers_role LOGIN;
SELECT cache_grant('default', 'warmers_role', 'write');
SET ROLE warmers_role;
SELECT cache_warmer_add('w', 'SELECT 1');
SELECT name, owner, query FROM cache_warmers;
SELECT cache_warmer_drop('w');
SELECT cache_warmer_drop('w');
SELECT cache_warmer_drop(NULL);
RESET ROLE;

-- Queries are parsed and checked, with the position of an error, and do not run.
SELECT cache_warmer_add('q', 'SELECT v FROM WHERE v > 1');
SELECT cache_warmer_add('q', 'SELECT v FROM missing');
SELECT cache_warmer_add('q', 'SELECT missing FROM t');
SELECT cache_warmer_add('q', 'SELECT v FROM t WHERE v > $1');
SELECT cache_warmer_add('q', 'SELECT v FROM t WHERE v > $1', '["one"]');
SELECT cache_warmer_add('q', 'SELECT $1', '[1]');
SELECT cache_warmer_drop('q');
SELECT cache_warmer_add('q', 'SELECT 1', '{"a": 1}');
SELECT cache_warmer_add('q', '');
SELECT cache_warmer_add('q', 'SELECT 1; SELECT 2');
SELECT cache_warmer_add('q', 'INSERT INTO t VALUES (1)');
SELECT cache_warmer_add('q', 'WITH w AS (DELETE FROM t RETURNING v) SELECT * FROM w');
SELECT cache_warmer_add('q', 'VACUUM t');
SELECT cache_warmer_add('q', 'SELECT v INTO u FROM t');
SELECT cache_warmer_add('q', 'SELECT ' || repeat(' ', 70000) || '1');
SELECT cache_warmer_add('q', NULL);
SELECT cache_warmer_add('q', 'SELECT 1 / 0 AS n FROM t');
SELECT cache_warmer_drop('q');

-- Times, tags and spaces.
SELECT cache_warmer_add('q', 'SELECT 1', every => '0');
SELECT cache_warmer_add('q', 'SELECT 1', every => '-1 s');
SELECT cache_warmer_add('q', 'SELECT 1', every => '2 years');
SELECT cache_warmer_add('q', 'SELECT 1', ttl => '0');
SELECT cache_warmer_add('q', 'SELECT 1', ttl => '-1 month');
SELECT cache_warmer_add('q', 'SELECT 1', tags => '{""}');
SELECT cache_warmer_add('q', 'SELECT 1', space => 'missing');
SELECT cache_warmer_add('q', 'SELECT 1', space => NULL);

-- A role that may not log in.
CREATE ROLE warmers_group;
SELECT cache_grant('default', 'warmers_group', 'write');
SET ROLE warmers_group;
SELECT cache_warmer_add('w', 'SELECT 1');
SELECT state, last_run, runs, error FROM cache_warmers;
RESET ROLE;

-- Other roles see no text.
-- The role must not inherit when it becomes a member: since PostgreSQL 16, that decides for the membership.
CREATE ROLE warmers_monitor NOINHERIT IN ROLE pg_monitor;
SET ROLE warmers_monitor;
SELECT count(*) FROM cache_warmers;
RESET ROLE;

-- In a transaction that fails, nothing is added.
BEGIN READ ONLY;
SELECT cache_warmer_add('q', 'SELECT 1');
ROLLBACK;
BEGIN;
SELECT cache_warmer_add('q', 'SELECT 1');
ROLLBACK;
SELECT cache_warmer_drop('q');
SELECT * FROM cache_warm('q');

-- The warmers of a dropped role are removed when the next one is added.
DROP ROLE warmers_group;
SELECT count(*) FROM pgcache.warmers WHERE owner NOT IN (SELECT oid FROM pg_roles);
SELECT cache_warmer_add('q', 'SELECT 1');
SELECT count(*) FROM pgcache.warmers WHERE owner NOT IN (SELECT oid FROM pg_roles);
SELECT cache_revoke('default', 'warmers_role', 'write');
DROP ROLE warmers_role, warmers_monitor;
