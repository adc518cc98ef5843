-- The table of privileges in docs/privileges.md, row by row. + is allowed, - is refused with 42501.
CREATE ROLE privilege_admin;
CREATE ROLE privilege_write;
CREATE ROLE privilege_read;
CREATE ROLE privilege_none;
CREATE ROLE privilege_monitor IN ROLE pg_monitor;
SELECT cache_create_space('s');
SELECT cache_grant('s', 'privilege_admin', 'admin');
SELECT cache_grant('s', 'privilege_write', 'write');
SELECT cache_grant('s', 'privilege_read', 'read');

CREATE FUNCTION one() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA privilege_views;
GRANT ALL ON SCHEMA privilege_views TO PUBLIC;
SELECT cache_create_view('cached', 'SELECT 1 AS one', space => 's');
GRANT SELECT ON cached TO PUBLIC;

CREATE TABLE calls (function text, call text);
INSERT INTO calls VALUES
    ('cache_get', 'SELECT cache_get(''k'', ''s'')'),
    ('cache_get_text', 'SELECT cache_get_text(''k'', ''s'')'),
    ('cache_get_bytes', 'SELECT cache_get_bytes(''k'', ''s'')'),
    ('cache_get_many', 'SELECT * FROM cache_get_many(''{k}'', ''s'')'),
    ('cache_exists', 'SELECT cache_exists(''k'', ''s'')'),
    ('cache_ttl', 'SELECT cache_ttl(''k'', ''s'')'),
    ('cache_keys', 'SELECT * FROM cache_keys(''*'', ''s'')'),
    ('cache_set', 'SELECT cache_set(''k'', ''1'', space => ''s'')'),
    ('cache_set_text', 'SELECT cache_set_text(''k'', ''1'', space => ''s'')'),
    ('cache_set_bytes', 'SELECT cache_set_bytes(''k'', ''1'', space => ''s'')'),
    ('cache_set_many', 'SELECT cache_set_many(''{"k": 1}'', space => ''s'')'),
    ('cache_get_many_text', 'SELECT * FROM cache_get_many_text(''{k}'', ''s'')'),
    ('cache_get_many_bytes', 'SELECT * FROM cache_get_many_bytes(''{k}'', ''s'')'),
    ('cache_set_many_text', 'SELECT cache_set_many_text(''{k}'', ''{1}'', space => ''s'')'),
    ('cache_set_many_bytes', 'SELECT cache_set_many_bytes(''{k}'', ''{1}'', space => ''s'')'),
    ('cache_acquire_text', 'SELECT * FROM cache_acquire_text(''k'', ''s'')'),
    ('cache_acquire_text', 'SELECT * FROM cache_acquire_text(''k'', ''s'', hold => NULL)'),
    ('cache_acquire_bytes', 'SELECT * FROM cache_acquire_bytes(''k'', ''s'')'),
    ('cache_acquire_bytes', 'SELECT * FROM cache_acquire_bytes(''k'', ''s'', hold => NULL)'),
    ('cache_touch_many', 'SELECT cache_touch_many(''{k}'', ''1 s'', ''s'')'),
    ('cache_acquire', 'SELECT * FROM cache_acquire(''k'', ''s'')'),
    ('cache_acquire', 'SELECT * FROM cache_acquire(''k'', ''s'', hold => NULL)'),
    ('cache_release', 'SELECT cache_release(''k'', 1, ''s'')'),
    ('cache_delete', 'SELECT cache_delete(''k'', ''s'')'),
    ('cache_delete_many', 'SELECT cache_delete_many(''{k}'', ''s'')'),
    ('cache_touch', 'SELECT cache_touch(''k'', ''1 s'', ''s'')'),
    ('cache_incr', 'SELECT cache_incr(''c'', space => ''s'')'),
    ('cache_invalidate_tag', 'SELECT cache_invalidate_tag(''t'')'),
    ('cache_invalidate_tags', 'SELECT cache_invalidate_tags(''{t}'')'),
    ('cache_invalidate_pattern', 'SELECT cache_invalidate_pattern(''k*'', ''s'')'),
    ('cache_flush', 'SELECT cache_flush(''s'')'),
    ('cache_flush', 'SELECT cache_flush(''*'')'),
    ('cache_fetch', 'SELECT cache_fetch(''k'', ''SELECT 1'', space => ''s'')'),
    ('cache_query', 'SELECT * FROM cache_query(''SELECT 1'', space => ''s'') AS (one int)'),
    ('cache_query_json', 'SELECT cache_query_json(''SELECT 1'', space => ''s'')'),
    ('cache_query_json_status', 'SELECT * FROM cache_query_json_status(''SELECT 1'', space => ''s'')'),
    ('cache_key', 'SELECT cache_key(''SELECT 1'', space => ''s'')'),
    ('cache_explain', 'SELECT * FROM cache_explain(''SELECT 1'', space => ''s'')'),
    ('cache_create_view', 'SELECT cache_create_view(''privilege_views.v'', ''SELECT 1 AS one'', space => ''s'')'),
    ('cache_view_rows', 'SELECT * FROM cached'),
    ('cache_view_rows', 'SELECT * FROM cache_view_rows(NULL, NULL::cached_uncached, NULL, NULL, NULL, ''s'')'),
    ('cache_call', 'SELECT cache_call(''one()'', space => ''s'')'),
    ('cache_wrap', 'SELECT cache_wrap(''one()'', space => ''s'')'),
    ('cache_wrapped', 'SELECT * FROM cache_wrapped(NULL, NULL, ''s'', ''one()''::regprocedure) AS (one int)'),
    ('pgcache.view_owner_handler', 'SELECT pgcache.view_owner_handler()'),
    ('cache_invalidate_relation', 'SELECT cache_invalidate_relation(''calls'')'),
    ('cache_watch', 'SELECT cache_watch(''calls'')'),
    ('cache_unwatch', 'SELECT cache_unwatch(''calls'')'),
    ('pgcache.rows_changed', 'SELECT 1 / has_function_privilege(''pgcache.rows_changed()'', ''EXECUTE'')::int'),
    ('pgcache.visible_watches', 'SELECT count(*) FROM cache_watches'),
    ('cache_on_event', 'SELECT cache_on_event(''e'', ''{a}'', ''s'')'),
    ('cache_emit', 'SELECT cache_emit(''e'')'),
    ('cache_off_event', 'SELECT cache_off_event(''e'')'),
    ('pgcache.visible_events', 'SELECT count(*) FROM cache_events'),
    ('cache_warmer_add', 'SELECT cache_warmer_add(''w'', ''SELECT 1'', space => ''s'')'),
    ('cache_warmer_drop', 'SELECT cache_warmer_drop(''w'')'),
    ('cache_warm', 'SELECT * FROM cache_warm()'),
    ('pgcache.visible_warmers', 'SELECT count(*) FROM cache_warmers'),
    ('cache_create_space', 'SELECT cache_create_space(''t'')'),
    ('cache_alter_space', 'SELECT cache_alter_space(''s'', jitter => 0)'),
    ('cache_drop_space', 'SELECT cache_drop_space(''s'')'),
    ('cache_grant', 'SELECT cache_grant(''s'', ''privilege_none'', ''read'')'),
    ('cache_revoke', 'SELECT cache_revoke(''s'', ''privilege_read'', ''read'')'),
    ('pgcache.visible_grants', 'SELECT count(*) FROM cache_grants'),
    ('cache_get_near', 'SELECT * FROM cache_get_near(''k'', ''s'')'),
    ('cache_seq', 'SELECT cache_seq() > 0'),
    ('cache_changes', 'SELECT count(*) FROM cache_changes(cache_seq())'),
    ('cache_status', 'SELECT cache_status()'),
    ('cache_check', 'SELECT * FROM cache_check()'),
    ('cache_health', 'SELECT * FROM cache_health()'),
    ('pgcache.visible_spaces', 'SELECT count(*) FROM cache_spaces'),
    ('pgcache.space_summary', 'SELECT count(*) FROM cache_stats'),
    ('pgcache.space_statistics', 'SELECT count(*) FROM cache_stats_detail'),
    ('pgcache.usage', 'SELECT count(*) FROM cache_usage'),
    ('pgcache.workers', 'SELECT count(*) FROM cache_workers'),
    ('cache_metrics_text', 'SELECT cache_metrics_text() LIKE ''# HELP%'''),
    ('pgcache.metrics', 'SELECT count(*) > 0 FROM cache_metrics'),
    ('pgcache.latency', 'SELECT count(*) FROM cache_latency'),
    ('pgcache.verification', 'SELECT count(*) FROM cache_verification'),
    ('cache_top', 'SELECT count(*) > 0 FROM cache_top(3)'),
    ('cache_advise', 'SELECT count(*) > 0 FROM cache_advise()'),
    ('pgcache.entries', 'SELECT count(*) FROM cache_entries'),
    ('pgcache.queries', 'SELECT count(*) FROM cache_queries'),
    ('pgcache.dependencies', 'SELECT count(*) FROM cache_dependencies'),
    ('pgcache.size_in', 'SELECT cache_alter_space(''s'', quota => ''10MB'')'),
    ('pgcache.size_out', 'SELECT cache_alter_space(''s'', quota => 10)'), -- by a cast only
    ('pgcache.relation_statistics', 'SELECT count(*) FROM cache_relations'),
    ('cache_stats_reset', 'SELECT cache_stats_reset()'),
    ('cache_observed_reset', 'SELECT cache_observed_reset()'),
    ('pgcache.observed', 'SELECT count(*) FROM cache_observed'),
    ('pgcache.noop', 'SELECT pgcache.noop(''k'')'),
    ('pgcache.require_library', 'SELECT pgcache.require_library()'),
    ('pgcache.changed', 'SELECT pgcache.changed()'), -- by a trigger only
    ('pgcache.grant_restored', 'SELECT pgcache.grant_restored()'), -- by a trigger only
    ('pgcache.warmer_changed', 'SELECT pgcache.warmer_changed()'), -- by a trigger only
    ('pgcache.warmer_replicated', 'SELECT pgcache.warmer_replicated()'), -- by a trigger only
    ('pgcache.warmer_restored', 'SELECT pgcache.warmer_restored()'), -- by a trigger only
    ('the tables', 'SELECT count(*) FROM pgcache.spaces'),
    ('the tables', 'SELECT count(*) FROM pgcache.grants'),
    ('the tables', 'SELECT count(*) FROM pgcache.warmers');

-- The list contains every function of the extension.
SELECT DISTINCT p.oid::regproc
  FROM pg_proc p
  JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
 WHERE e.extname = 'pg_cache' AND replace(p.oid::regproc::text, 'public.', '') NOT IN (SELECT function FROM calls);

-- Returns whether a role may make a call, and rolls the call back.
CREATE FUNCTION may(role name, call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', role);
        EXECUTE call;
        RAISE SQLSTATE 'ZZZZZ';
    EXCEPTION
        WHEN insufficient_privilege THEN RETURN '-';
        WHEN SQLSTATE 'ZZZZZ' THEN RETURN '+';
        WHEN OTHERS THEN RETURN SQLSTATE;
    END;
END $$;

SELECT call,
       may(session_user, call) AS owner, may('privilege_admin', call) AS admin,
       may('privilege_write', call) AS write, may('privilege_read', call) AS read,
       may('privilege_none', call) AS none, may('privilege_monitor', call) AS pg_monitor
  FROM calls ORDER BY calls.ctid;

-- The messages of refused calls.
SET ROLE privilege_none;
SELECT cache_get('k', 's');
SELECT cache_set('k', '1', space => 's');
SELECT cache_invalidate_tag('t');
SELECT cache_create_space('mine');
SELECT cache_flush('*');
SELECT cache_check();
RESET ROLE;
CREATE ROLE "privilege's ""none""";
SELECT cache_create_space('it''s "a" \ space');
SET ROLE "privilege's ""none""";
SELECT cache_get('k', 'it''s "a" \ space');
RESET ROLE;
-- The command in the hint works as printed.
SELECT cache_grant( E'it''s "a" \\ space', '"privilege''s ""none"""', 'read');
SET ROLE "privilege's ""none""";
SELECT cache_get('k', 'it''s "a" \ space');
RESET ROLE;

-- Grants to all roles and to roles with members. Revoked privileges and memberships end at once.
SET ROLE privilege_none;
SELECT cache_get('k', 's');
RESET ROLE;
SELECT cache_grant('s', '-', 'read');
SET ROLE privilege_none;
SELECT cache_get('k', 's');
RESET ROLE;
SELECT cache_revoke('s', '-', 'read');
SET ROLE privilege_none;
SELECT cache_get('k', 's');
RESET ROLE;
GRANT privilege_read TO privilege_none;
SET ROLE privilege_none;
SELECT cache_get('k', 's');
RESET ROLE;
REVOKE privilege_read FROM privilege_none;
SET ROLE privilege_none;
SELECT cache_get('k', 's');
RESET ROLE;

-- A grant to PUBLIC by its name, grants to roles as regrole, and the rows of cache_grants that each role sees.
SELECT cache_grant('default', 'public', 'read'), cache_grant('s', 'PUBLIC', 'read');
SELECT cache_grant('s', 'privilege_none'::regrole, 'read'), cache_grant(space => 's', role => '"privilege''s ""none"""', privilege => 'write');
TABLE cache_grants;
SET ROLE privilege_admin;
TABLE cache_grants;
SET ROLE privilege_none;
TABLE cache_grants;
SELECT cache_get('k', 's');
SET ROLE privilege_monitor;
SELECT count(*) FROM cache_grants;
RESET ROLE;
SELECT cache_revoke('default', '"public"', 'read'), cache_revoke('s', 'public', 'read'), cache_revoke('s', 'privilege_none'::regrole, 'read');
SELECT cache_revoke('s', '"privilege''s ""none"""', 'write');
TABLE cache_grants;

-- A SECURITY DEFINER function uses the privileges of its owner.
SELECT cache_set('k', '"of s"', space => 's');
CREATE FUNCTION lend(key text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = public
    AS $$ SELECT cache_get(key, 's') $$;
SET ROLE privilege_none;
SELECT lend('k');
SELECT cache_get('k', 's');
RESET ROLE;

-- cache_spaces shows a role the spaces that it has privileges on, and shows members of pg_monitor all spaces.
SET ROLE privilege_none;
SELECT name FROM cache_spaces ORDER BY name;
SET ROLE privilege_read;
SELECT name FROM cache_spaces ORDER BY name;
SET ROLE privilege_monitor;
SELECT name FROM cache_spaces ORDER BY name;
RESET ROLE;

-- Grants with invalid arguments.
SELECT cache_grant('s', 'privilege_nobody', 'read');
SELECT cache_grant('s', '4294967295', 'read');
SELECT cache_grant('s', NULL, 'read');
SELECT cache_grant('s', 'privilege_read', 'select');
SELECT cache_grant('s', 'privilege_read', NULL);
SELECT cache_grant('unknown', 'privilege_read', 'read');

-- A quoted name is taken as it is written: these roles are not all roles.
CREATE ROLE "PUBLIC";
CREATE ROLE "Public";
SELECT cache_grant('s', '"PUBLIC"', 'write'), cache_grant('s', '"Public"', 'read'), cache_grant('s', 'Public', 'read');
SELECT grantee, privilege FROM cache_grants WHERE space = 's' AND lower(grantee) LIKE '%public%' ORDER BY grantee COLLATE "C";
SELECT cache_revoke('s', '"Public"', 'read'), cache_revoke('s', '"PUBLIC"', 'write');
SELECT grantee, privilege FROM cache_grants WHERE space = 's' AND lower(grantee) LIKE '%public%';
SELECT cache_revoke('s', 'public', 'read');
DROP ROLE "PUBLIC", "Public";

-- The grants of a dropped role are removed, so that a new role with its OID does not get them.
DROP ROLE "privilege's ""none""";
SELECT cache_grant('s', 'privilege_read', 'read');
SELECT count(*) FROM pgcache.grants WHERE space = (SELECT number FROM pgcache.spaces WHERE name LIKE 'it%');

DROP ROLE privilege_admin, privilege_write, privilege_read, privilege_none, privilege_monitor;
