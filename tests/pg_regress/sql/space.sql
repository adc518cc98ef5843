-- Each space has its own keys and its own options.
SELECT cache_create_space('one');
SELECT cache_create_space('two');
SELECT cache_set_text('k', 'of one', space => 'one'), cache_set_text('k', 'of two', space => 'two');
SELECT cache_get_text('k', 'one') AS one, cache_get_text('k', 'two') AS two, cache_get_text('k') AS "default";

-- The uncommitted changes of a transaction are kept by space, too.
BEGIN;
SELECT cache_set_text('k', 'newer', space => 'one');
SELECT cache_delete('k', 'two');
SELECT cache_get_text('k', 'one') AS one, cache_get_text('k', 'two') AS two, cache_get_text('k') AS "default";
ROLLBACK;
SELECT cache_get_text('k', 'one') AS one, cache_get_text('k', 'two') AS two;

SELECT cache_flush('one');
SELECT cache_get_text('k', 'one') AS one, cache_get_text('k', 'two') AS two;

-- Dropping a space removes its values. A new space of the same name starts empty.
SELECT cache_drop_space('two');
SELECT cache_get_text('k', 'two');
SELECT cache_create_space('two');
SELECT cache_get_text('k', 'two');
SELECT cache_status();
-- If the transaction that drops or creates a space is rolled back, nothing changes.
SELECT cache_set_text('k', 'of two', space => 'two');
BEGIN;
SELECT cache_drop_space('two');
SELECT cache_get_text('k', 'two');
ROLLBACK;
SELECT cache_get_text('k', 'two');
BEGIN;
SELECT cache_create_space('three');
SELECT cache_set_text('k', 'of three', space => 'three');
SELECT cache_get_text('k', 'three');
ROLLBACK;
SELECT cache_get_text('k', 'three');

-- The options default_ttl, max_ttl and jitter.
CREATE FUNCTION left_of(key text, space text) RETURNS text LANGUAGE sql AS
    $$ SELECT date_trunc('minute', cache_ttl(key, space) + interval '30 s')::text $$;
SELECT cache_create_space('times', default_ttl => '10 min', max_ttl => '1 hour');
SELECT cache_set('a', '1', space => 'times'), cache_set('b', '1', ttl => '1 day', space => 'times'),
       cache_set('c', '1', ttl => '5 min', space => 'times');
SELECT left_of('a', 'times'), left_of('b', 'times'), left_of('c', 'times');
SELECT cache_touch('c', '2 days', space => 'times');
SELECT left_of('c', 'times');
SELECT cache_alter_space('times', jitter => 0.5);
SELECT count(cache_set('j' || i, '1', space => 'times')) FROM generate_series(1, 100) AS i;
SELECT bool_and(t > '4 min 45 s' AND t <= '10 min') AS within, count(DISTINCT t) > 50 AS spread,
       max(t) - min(t) > '2 min' AS wide
  FROM (SELECT cache_ttl('j' || i, 'times') AS t FROM generate_series(1, 100) AS i) AS all_of_them;

-- The options max_value and enabled.
SELECT cache_create_space('small', max_value => 10);
SELECT cache_set_text('k', '1234567890', space => 'small');
SELECT cache_set_text('k', '12345678901', space => 'small'), cache_status(), cache_get_text('k', 'small');
SELECT cache_alter_space('one', enabled => false);
SELECT cache_set_text('k', 'v', space => 'one');
SELECT cache_status();
SELECT cache_get_text('k', 'one');
SELECT cache_status();
SELECT cache_alter_space('one', enabled => true);
SELECT cache_set_text('k', 'v', space => 'one');
SELECT cache_get_text('k', 'one');

-- With scope => 'role', each role has its own entries.
CREATE ROLE space_a;
CREATE ROLE space_b;
SELECT cache_create_space('own', scope => 'role');
SELECT cache_grant('own', 'space_a', 'write'), cache_grant('own', 'space_b', 'write');
SET ROLE space_a;
SELECT cache_set_text('k', 'of a', space => 'own'), cache_incr('c', space => 'own');
SET ROLE space_b;
SELECT cache_get_text('k', 'own'), cache_exists('k', 'own');
SELECT * FROM cache_keys(space => 'own');
SELECT cache_set_text('k', 'of b', space => 'own'), cache_incr('c', 41, space => 'own');
SELECT cache_incr('c', space => 'own');
-- The same holds for two roles in one transaction.
BEGIN;
SELECT cache_set_text('p', 'of b', space => 'own');
SET LOCAL ROLE space_a;
SELECT cache_get_text('p', 'own');
SELECT cache_get_text('k', 'own');
SELECT cache_delete('k', 'own');
SET LOCAL ROLE space_b;
SELECT cache_get_text('p', 'own'), cache_get_text('k', 'own');
ROLLBACK;
RESET ROLE;
CREATE FUNCTION of_a(key text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public
    AS $$ SELECT cache_get_text(key, 'own') $$;
ALTER FUNCTION of_a OWNER TO space_a;
SET ROLE space_b;
SELECT of_a('k'), cache_get_text('k', 'own');
RESET ROLE;
SELECT cache_get_text('k', 'own');
-- A change of the scope empties the space, and so does the change back.
SELECT cache_alter_space('own', scope => 'shared');
SET ROLE space_a;
SELECT cache_get_text('k', 'own');
RESET ROLE;
SELECT cache_alter_space('own', scope => 'role');
SET ROLE space_a;
SELECT cache_get_text('k', 'own');
RESET ROLE;

-- The default space has options, too. It can be neither dropped nor created.
SELECT cache_alter_space('default', default_ttl => '2 min');
SELECT cache_set('k', '1');
SELECT left_of('k', 'default');
SELECT cache_drop_space('default');
SELECT cache_create_space('default');

-- The option tiers.
SELECT cache_create_space('saved', tiers => 'table'), cache_set_text('k', 'v', space => 'saved');
SELECT tiers, cache_get_text('k', 'saved') FROM cache_spaces WHERE name IN ('default', 'saved');
SELECT cache_alter_space('saved', tiers => 'hot');
SELECT tiers, cache_get_text('k', 'saved') FROM cache_spaces WHERE name = 'saved';
SELECT cache_alter_space('saved', tiers => 'both');
SELECT tiers, cache_get_text('k', 'saved') FROM cache_spaces WHERE name = 'saved';
SELECT cache_drop_space('saved');

-- The view cache_spaces shows the values of options that apply to this session.
SELECT name, default_ttl, max_ttl, ttl_policy, jitter, scope FROM cache_spaces;
SELECT name, quota, max_value, compress_above, min_cost, max_result_size, enabled FROM cache_spaces;
SET pg_cache.default_ttl = '90 min';
SELECT name, default_ttl, max_ttl FROM cache_spaces WHERE name <> 'default';
RESET pg_cache.default_ttl;

-- The view shows an option that is longer than the days of an interval can count as the most days.
SELECT cache_create_space('patient', min_cost => '6000000 years');
SELECT name, min_cost FROM cache_spaces WHERE name = 'patient';
SELECT cache_drop_space('patient');

-- Sizes are numbers of bytes, or texts with the units of PostgreSQL's settings, and need no cast.
SELECT cache_create_space('sizes', quota => 1000000, max_value => '10kB', max_result_size => ' 1.5 kB ');
CREATE VIEW sizes AS SELECT quota, max_value, max_result_size FROM cache_spaces WHERE name = 'sizes';
SELECT * FROM sizes;
SELECT cache_alter_space('sizes', quota => 3::bigint * 1024 * 1024 * 1024, max_value => 1e3, max_result_size => 7::smallint);
SELECT * FROM sizes;
SELECT cache_alter_space('sizes', quota => '2TB'::text, max_value => '1MB'::varchar, max_result_size => '100000');
SELECT * FROM sizes;
PREPARE resize AS SELECT cache_alter_space('sizes', quota => $1);
EXECUTE resize('512kB');
EXECUTE resize(1025);
SELECT * FROM sizes;
SELECT cache_create_space('bad', quota => '10XB');
SELECT cache_create_space('bad', quota => '10mb');
SELECT cache_create_space('bad', quota => 'much');
SELECT cache_create_space('bad', quota => '');
SELECT cache_create_space('bad', quota => '9999999TB');
SELECT cache_create_space('bad', quota => '-1kB');
SELECT cache_create_space('bad', max_value => 0.4);
DROP VIEW sizes;
SELECT cache_drop_space('sizes');

-- A space that exists is left as it is.
SELECT cache_create_space('small', if_not_exists => true, max_value => 20);
SELECT cache_create_space('default', if_not_exists => true);
SELECT cache_create_space('small', if_not_exists => true, jitter => 2);
SELECT max_value FROM cache_spaces WHERE name = 'small';
SELECT cache_create_space('other', if_not_exists => true), cache_drop_space('other');

-- Without a name, cache_flush invalidates the default space.
SELECT cache_set('k', '1'), cache_set('k', '1', space => 'two');
SELECT cache_flush();
SELECT cache_get('k'), cache_get('k', 'two');

-- Results are kept in memory, so a space whose values are only in tables keeps none.
SELECT cache_create_space('warm', keep_warm => 1000);
SELECT name, keep_warm FROM cache_spaces WHERE keep_warm > 0;
SELECT cache_alter_space('warm', tiers => 'table');
SELECT cache_alter_space('warm', keep_warm => 0, tiers => 'table');
SELECT cache_alter_space('warm', keep_warm => 1);
SELECT cache_drop_space('warm');
SELECT cache_create_space('bad', keep_warm => 1, tiers => 'table');
SELECT cache_create_space('bad', keep_warm => 1001);
-- Redis does not know roles, so it gets no values of single roles. Passing the option flushes the space.
SELECT cache_create_space('bad', redis => true, scope => 'role');
SELECT cache_create_space('copied', redis => true);
SELECT cache_alter_space('copied', scope => 'role');
SELECT name, redis FROM cache_spaces WHERE redis;
SELECT cache_set('key', '1', space => 'copied');
SELECT cache_alter_space('copied', redis => false);
SELECT cache_get('key', space => 'copied'), cache_status();
SELECT name, redis FROM cache_spaces WHERE redis;
SELECT cache_drop_space('copied');
SELECT cache_alter_space('small', tiers => 'hot', keep_warm => 0, redis => false, notify => 'auto', ttl_policy => 'fixed');

-- cache_keys returns keys in order, by pattern.
SELECT count(cache_set('key ' || i, '1', space => 'two')) FROM generate_series(1, 12) AS i;
SELECT cache_set('Schlüssel', '1', space => 'two'), cache_set('50% *', '1', space => 'two');
SELECT * FROM cache_keys('key 1*', 'two');
SELECT * FROM cache_keys('key ?', 'two', 3);
SELECT * FROM cache_keys('Schl?ssel', 'two');
SELECT * FROM cache_keys('*\*', 'two');
-- A backslash makes the next character an ordinary one.
SELECT cache_set('\key', '1', space => 'one'), cache_set('*', '1', space => 'one');
SELECT * FROM cache_keys('\*', 'one');
SELECT * FROM cache_keys(space => 'two', max_keys => 0);
SELECT * FROM cache_keys('k\', 'two');
SELECT * FROM cache_keys('*', 'two', -1);
SELECT * FROM cache_keys(NULL);
-- With `after`, only the keys behind a key are returned. That key need not exist.
SELECT * FROM cache_keys('key *', 'two', 3, after => 'key 12');
SELECT * FROM cache_keys('key *', 'two', after => 'key 5b');
SELECT * FROM cache_keys('*', 'two', after => 'key 9');
WITH RECURSIVE page(keys) AS (
    SELECT ARRAY(SELECT cache_keys('*', 'two', 4))
    UNION ALL
    SELECT ARRAY(SELECT cache_keys('*', 'two', 4, after => keys[4])) FROM page WHERE cardinality(keys) = 4
)
SELECT * FROM page;
BEGIN;
SELECT cache_delete('key 1', 'two'), cache_set('key 0', '1', space => 'two');
SELECT * FROM cache_keys('key ?', 'two', 3);
SELECT * FROM cache_keys('key ?', 'two', 2, after => 'key 0');
ROLLBACK;

-- Invalid options and names are refused, and nothing is changed.
SELECT cache_create_space('one');
SELECT cache_create_space('');
SELECT cache_create_space('*');
SELECT cache_create_space(repeat('x', 64));
SELECT cache_create_space(NULL);
SELECT cache_create_space('bad', default_ttl => '0');
SELECT cache_create_space('bad', max_ttl => '2 years');
SELECT cache_create_space('bad', default_ttl => '2 h', max_ttl => '1 h');
SELECT cache_create_space('bad', ttl_policy => 'sometimes');
SELECT cache_create_space('bad', jitter => 1);
SELECT cache_create_space('bad', jitter => 'NaN');
SELECT cache_create_space('bad', tiers => 'cold');
SELECT cache_create_space('bad', scope => 'user');
SELECT cache_create_space('bad', quota => 0);
SELECT cache_create_space('bad', max_value => -1);
SELECT cache_create_space('bad', compress_above => -1);
SELECT cache_create_space('bad', min_cost => '-1 s');
SELECT cache_create_space('bad', max_result_size => 0);
SELECT cache_create_space('bad', keep_warm => -1);
SELECT cache_create_space('bad', notify => 'loudly');
SELECT cache_alter_space('unknown', jitter => 0);
SELECT cache_alter_space(NULL);
SELECT cache_drop_space('unknown');
-- The hint does not suggest to create a space with an invalid name.
SELECT cache_get('k', '');
SELECT cache_get('k', '*');
SELECT cache_get('k', repeat('x', 64));
SELECT count(*) FROM cache_spaces WHERE name = 'bad';

-- An operator in the search path of the caller never runs with the rights of the owner.
CREATE ROLE space_mallory;
SELECT cache_grant('one', 'space_mallory', 'admin');
CREATE SCHEMA mallory AUTHORIZATION space_mallory;
SET ROLE space_mallory;
CREATE FUNCTION mallory.equal(oid, oid) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'run as %', current_user; END $$;
CREATE OPERATOR mallory.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = mallory.equal);
SET search_path = mallory, pg_catalog, public;
SELECT cache_alter_space('one', jitter => 0.1);
SELECT current_user, current_setting('search_path');
RESET search_path;
RESET ROLE;

-- A new extension starts without the values of the dropped one.
SELECT cache_set_text('k', 'old');
SELECT cache_get_text('k');
DROP EXTENSION pg_cache;
CREATE EXTENSION pg_cache;
SELECT cache_get_text('k');
SELECT cache_get_text('k', 'one');

DROP SCHEMA mallory CASCADE;
DROP OWNED BY space_a, space_b, space_mallory;
DROP ROLE space_a, space_b, space_mallory;
