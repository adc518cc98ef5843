-- The privileges of the current role apply, after SET ROLE and in SECURITY DEFINER functions.
CREATE ROLE roles_guest;
SELECT cache_set('k', '"of the owner"');
SET ROLE roles_guest;
SELECT cache_get('k');
SELECT cache_set('k', '"of a guest"');
SELECT * FROM cache_get_many('{k}');
SELECT cache_incr('count');
RESET ROLE;
-- A SECURITY DEFINER function uses the cache with its owner's privileges, for every role that may execute the function.
CREATE FUNCTION let_in(key text) RETURNS jsonb SECURITY DEFINER SET search_path = public, pg_temp LANGUAGE sql AS 'SELECT cache_get(key)';
CREATE FUNCTION let_in_and_set(key text, value jsonb) RETURNS boolean SECURITY DEFINER SET search_path = public, pg_temp LANGUAGE plpgsql AS
    $$ BEGIN RETURN cache_set(key, value); END $$;
GRANT EXECUTE ON FUNCTION let_in(text), let_in_and_set(text, jsonb) TO roles_guest;
SET ROLE roles_guest;
SELECT let_in('k'), let_in_and_set('k', '"let in"'), let_in('k');
BEGIN;
SELECT let_in_and_set('k', '"never"'), let_in('k');
SELECT cache_get('k');
ROLLBACK;
SELECT let_in('k');
RESET ROLE;
SELECT cache_get('k');
-- In a space with scope => 'role', each role has keys of its own, also for uncommitted changes of one transaction. A SECURITY
-- DEFINER function uses the keys of its owner.
CREATE FUNCTION of_definer(key text) RETURNS jsonb SECURITY DEFINER SET search_path = public, pg_temp LANGUAGE sql AS
    'SELECT cache_get(key, ''roles own'')';
SELECT cache_create_space('roles own', scope => 'role'), cache_grant('roles own', 'roles_guest', 'write');
SELECT cache_set('k', '"of the owner"', space => 'roles own');
SET ROLE roles_guest;
SELECT cache_get('k', 'roles own'), of_definer('k');
SELECT cache_set('k', '"of the guest"', space => 'roles own');
RESET ROLE;
BEGIN;
SELECT cache_set('k', '"new, of the owner"', space => 'roles own'), cache_set('only', '1', space => 'roles own');
SET LOCAL ROLE roles_guest;
SELECT cache_get('k', 'roles own'), cache_get('only', 'roles own'), of_definer('k'), of_definer('only');
SELECT cache_delete('k', 'roles own'), cache_delete('only', 'roles own'), of_definer('k');
SELECT cache_set('k', '"new, of the guest"', space => 'roles own');
COMMIT;
SELECT cache_get('k', 'roles own'), cache_get('only', 'roles own');
SET ROLE roles_guest;
SELECT cache_get('k', 'roles own'), cache_get('only', 'roles own'), of_definer('k'), of_definer('only');
RESET ROLE;
SELECT cache_drop_space('roles own');
-- Any role may set pg_cache.bypass in its session.
SET ROLE roles_guest;
SET pg_cache.bypass = on;
SELECT let_in('k') IS NULL AS miss;
RESET pg_cache.bypass;
SET SESSION AUTHORIZATION DEFAULT;
DROP FUNCTION let_in(text), let_in_and_set(text, jsonb), of_definer(text);
DROP ROLE roles_guest;
