-- cache_call and cache_wrap cache the results of functions.
CREATE ROLE functions_caller;
SELECT cache_grant('default', 'functions_caller', 'write');
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO functions_caller;
CREATE TABLE app.t (a int, b text, c numeric);
GRANT SELECT ON app.t TO functions_caller;
INSERT INTO app.t SELECT i, 'x' || i, i / 2 FROM generate_series(1, 5) AS i;
CREATE FUNCTION app.one(i int, j int DEFAULT 1) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM app.t WHERE a >= i * j';
CREATE FUNCTION app.rows(i int) RETURNS SETOF app.t LANGUAGE sql STABLE AS 'SELECT * FROM app.t WHERE a >= i ORDER BY a';
CREATE FUNCTION app.numbers(i int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT a FROM app.t WHERE a >= i ORDER BY a';
CREATE FUNCTION app.columns(i int) RETURNS TABLE(x int, "Y" text) LANGUAGE plpgsql STABLE
    AS 'BEGIN RETURN QUERY SELECT a, b FROM app.t WHERE a >= i ORDER BY a; END';
CREATE FUNCTION app.composite(i int) RETURNS app.t LANGUAGE sql STABLE AS 'SELECT * FROM app.t WHERE a = i';
CREATE FUNCTION app.outs(i int, OUT x int, INOUT y text) LANGUAGE sql STABLE AS 'SELECT a, y || b FROM app.t WHERE a = i';
CREATE FUNCTION app.many(p text, VARIADIC v int[] DEFAULT '{}') RETURNS text LANGUAGE sql STABLE
    AS 'SELECT p || COALESCE(sum(x), 0) || (SELECT count(*) FROM app.t) FROM unnest(v) AS x';
CREATE FUNCTION app.strict(i int) RETURNS int STRICT LANGUAGE sql STABLE AS 'SELECT count(*)::int + i FROM app.t';
CREATE FUNCTION app.nothing(i int) RETURNS int LANGUAGE sql STABLE AS 'SELECT CASE WHEN i IS NULL THEN count(*)::int END FROM app.t';
CREATE FUNCTION app.volatile() RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM app.t';
CREATE FUNCTION app.item(j jsonb) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT j FROM app.t LIMIT 1';
CREATE FUNCTION app.typed(n numeric, t timestamptz, r app.t, a text[], v varchar) RETURNS text LANGUAGE sql STABLE
    AS 'SELECT concat_ws(''|'', n, t AT TIME ZONE ''UTC'', r, a, v, (SELECT count(*) FROM app.t))';
CREATE FUNCTION app.immutable(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
CREATE FUNCTION app.fails(i int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RAISE ''no'' USING ERRCODE = ''P7777''; END';
CREATE FUNCTION app.void() RETURNS void LANGUAGE sql STABLE AS '';
CREATE FUNCTION app.poly(a anyelement) RETURNS anyelement LANGUAGE sql STABLE AS 'SELECT a';
CREATE FUNCTION app.record() RETURNS record LANGUAGE sql STABLE AS 'SELECT 1, 2';
CREATE FUNCTION app."Odd ""name"() RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int FROM app.t';
CREATE PROCEDURE app.procedure() LANGUAGE sql AS 'SELECT 1';

-- cache_call returns the value of a function as jsonb, and an array if the function returns a set.
SELECT cache_call('app.one(int,int)', '[2]'), cache_status();
SELECT cache_call('app.one(int,int)', '[2]'), cache_status();
SELECT cache_call('app.one(int,int)', '[2, 2]'), cache_call('app.one(int,int)', '[2, null]');
SELECT cache_call('app.rows(int)', '[4]'), cache_call('app.numbers(int)', '[4]'), cache_call('app.rows(int)', '[40]');
SELECT cache_call('app.columns(int)', '[4]'), cache_call('app.composite(int)', '[1]'), cache_call('app.outs(int,text)', '[1, "y"]');
SELECT cache_call('app.many(text,int[])', '["p", [1, 2]]'), cache_call('app.many(text,int[])', '["p"]');
SELECT cache_call('app.nothing(int)', '[1]') IS NULL AS is_null, cache_status();
SELECT cache_call('app.nothing(int)', '[1]') IS NULL AS is_null, cache_status();
SELECT cache_call('app.item(jsonb)', '[{"a": 1}]'), cache_call('app.item(jsonb)', '[[1]]'), cache_call('app."Odd ""name"()');
SELECT cache_call('app.void()') IS NULL AS is_null;
SELECT cache_call('upper(text)', '["a"]'), cache_status();
SELECT cache_call('upper(text)', '["a"]'), cache_status();
SELECT cache_call('app.volatile()'), cache_status();
SELECT cache_call('app.volatile()', depends => '{app.t}'), cache_status();
SELECT cache_call('app.one(int,int)', '[2]', refresh => true), cache_status();
SELECT cache_call('app.one(int,int)', '[2]', tags => '{t}'), cache_status();
INSERT INTO app.t VALUES (6);
SELECT cache_call('app.one(int,int)', '[2]', tags => '{t}'), cache_status();

\set VERBOSITY terse
SELECT cache_call('app.one(int,int)', '["x"]');
SELECT cache_call('app.one(int,int)');
SELECT cache_call('app.one(int,int)', '[1, 2, 3]');
SELECT cache_call('app.one(int,int)', '{"i": 1}');
SELECT cache_call('app.fails(int)', '[1]');
SELECT cache_call('app.procedure()');
SELECT cache_call('sum(int)', '[1]');
SELECT cache_call('rank()');
SELECT cache_call('app.poly(anyelement)', '[1]');
SELECT cache_call('app.missing()');
SELECT cache_call(999999);
SELECT cache_call(NULL);
-- A call that leaves out an argument never becomes the call of another function.
CREATE FUNCTION app.one(i int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ''other''';
SELECT cache_call('app.one(int,int)', '[2]');
SELECT cache_call('app.one(int,int)', '[2, 1]');
DROP FUNCTION app.one(int);
\set VERBOSITY default

-- cache_wrap makes a function with the same signature.
SELECT cache_wrap('app.one(int,int)', ttl => '10 min', tags => '{t,"u v"}'), cache_wrap('app.rows(int)'), cache_wrap('app.numbers(int)'),
       cache_wrap('app.columns(int)'), cache_wrap('app.composite(int)'), cache_wrap('app.outs(int,text)'), cache_wrap('app.many(text,int[])');
SELECT cache_wrap('app.strict(int)'), cache_wrap('app.nothing(int)'), cache_wrap('app.volatile()'), cache_wrap('app.item(jsonb)'),
       cache_wrap('app.typed(numeric,timestamptz,app.t,text[],varchar)'), cache_wrap('app.immutable(int)'), cache_wrap('app.fails(int)'),
       cache_wrap('app."Odd ""name"()');
SELECT proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result, provolatile, proparallel, prosecdef, proisstrict
  FROM pg_proc WHERE proname LIKE '%\_cached' ORDER BY proname COLLATE "C";
\sf app.one_cached
SELECT app.one_cached(2), cache_status();
SELECT app.one_cached(2), cache_status();
SELECT app.one_cached(j => 2, i => 1), app.one_cached(1, NULL);
SELECT * FROM app.rows_cached(4);
SELECT cache_status();
SELECT * FROM app.rows_cached(4) WHERE a = 5;
SELECT cache_status();
SELECT app.rows_cached(5), app.numbers_cached(5);
SELECT * FROM app.numbers_cached(40);
SELECT * FROM app.numbers_cached(40);
SELECT cache_status();
SELECT x, "Y" FROM app.columns_cached(4);
SELECT app.composite_cached(1), (app.composite_cached(1)).b, app.composite_cached(100) IS NULL AS is_null, (SELECT c FROM app.composite_cached(1));
SELECT app.outs_cached(1, 'y'), (app.outs_cached(1, 'y')).y;
SELECT * FROM app.outs_cached(2, NULL);
SELECT app.many_cached('p', 1, 2), app.many_cached('p'), app.many_cached('p', VARIADIC '{7}');
SELECT app.strict_cached(NULL) IS NULL AS is_null, app.strict_cached(1), app.strict_cached(1), cache_status();
SELECT app.nothing_cached(NULL), app.nothing_cached(1), app.nothing_cached(NULL), app.nothing_cached(1), cache_status();
SELECT app.volatile_cached(), cache_status();
SELECT app.item_cached('{"a": [1, 2]}'), app.item_cached('{"a": [1, 2]}'), cache_status();
SELECT app.immutable_cached(4), app.immutable_cached(4), app.immutable_cached(5), app."Odd ""name_cached"();
-- Values of any size and type are arguments.
SELECT app.typed_cached(n, '2026-01-01 0:00+0', (1, 'b', 2), ARRAY['x', NULL], 'v'), cache_status() FROM (VALUES (1.0), (1.00), (1.0)) AS v (n);
SELECT app.typed_cached(NULL, NULL, NULL, '{}', '');
SELECT length(app.typed_cached(1, NULL, NULL, array_agg(repeat(i::text, 100)), repeat('v', 100000))) AS length, cache_status()
  FROM generate_series(1, 500) AS i;
SELECT length(app.typed_cached(1, NULL, NULL, array_agg(repeat(i::text, 100)), repeat('v', 100000))) AS length, cache_status()
  FROM generate_series(1, 500) AS i;
SELECT length(app.typed_cached(1, NULL, NULL, array_agg(repeat(i::text, 100)), repeat('v', 99999) || 'w')) AS length, cache_status()
  FROM generate_series(1, 500) AS i;
-- It is called for each row.
SELECT a, app.one_cached(a) FROM app.t ORDER BY a;
SELECT a, n FROM app.t, app.numbers_cached(a) AS n WHERE a > 4 ORDER BY a, n;
SELECT app.fails_cached(1);

-- A write and a change of the function make it fresh.
INSERT INTO app.t VALUES (7);
SELECT app.one_cached(2), cache_status();
CREATE OR REPLACE FUNCTION app.immutable(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 3';
SELECT app.immutable_cached(4), cache_status();

-- The privilege to execute the function is checked at each call. The wrapper has the grants of the function.
REVOKE EXECUTE ON FUNCTION app.rows(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.rows(int) TO functions_caller;
SET ROLE functions_caller;
SELECT count(*) FROM app.rows_cached(3);
SELECT count(*) FROM app.rows_cached(3);
SELECT cache_status(), cache_call('app.numbers(int)', '[7]'), cache_call('app.numbers(int)', '[7]');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION app.rows(int) FROM functions_caller;
REVOKE EXECUTE ON FUNCTION app.numbers(int) FROM PUBLIC;
SET ROLE functions_caller;
SELECT count(*) FROM app.rows_cached(3);
SELECT cache_call('app.numbers(int)', '[7]');
SELECT cache_wrap('app.one(int,int)');
SELECT cache_wrap('app.numbers(int)');
RESET ROLE;
GRANT EXECUTE ON FUNCTION app.rows(int) TO functions_caller WITH GRANT OPTION;
ALTER FUNCTION app.rows(int) OWNER TO functions_caller;
GRANT CREATE ON SCHEMA app TO functions_caller;
DROP FUNCTION app.rows_cached(int);
SELECT cache_wrap('app.rows(int)');
SELECT proname, proowner::regrole, proacl FROM pg_proc WHERE proname IN ('rows', 'rows_cached') ORDER BY proname;
SET ROLE functions_caller;
CREATE FUNCTION app.own(i int) RETURNS int LANGUAGE sql STABLE AS 'SELECT i + count(*)::int FROM app.t';
SELECT cache_wrap('app.own(int)');
SELECT app.own_cached(1), app.own_cached(1), cache_status();
RESET ROLE;

-- The wrapper depends on the function.
DROP FUNCTION app.one(int, int);
DROP FUNCTION app.one(int, int) CASCADE;
ALTER FUNCTION app.numbers(int) RENAME TO renamed;
SELECT * FROM app.numbers_cached(6);

\set VERBOSITY terse
SELECT cache_wrap('app.numbers_cached(int)');
SELECT * FROM app.numbers_cached_cached(7);
SELECT cache_wrap('app.poly(anyelement)');
SELECT cache_wrap('app.record()');
SELECT cache_wrap('app.void()');
SELECT cache_wrap('app.procedure()');
SELECT cache_wrap('app.own(int)');
SELECT cache_wrap('app.immutable(int)', space => 'missing');
SELECT cache_wrap(NULL);
-- The function behind the wrappers checks what it gets.
SELECT * FROM cache_wrapped(NULL, NULL, 'default', 'app.columns(int)'::regprocedure, 6) AS r(a int, b text);
SELECT * FROM cache_wrapped(NULL, NULL, 'default', 'app.columns(int)'::regprocedure, 6) AS r(a text, b text);
SELECT * FROM cache_wrapped(NULL, NULL, 'default', 'app.columns(int)'::regprocedure) AS r(a int, b text);
SELECT * FROM cache_wrapped(NULL, NULL, 'default', 'app.columns(int)'::regprocedure, 'x') AS r(a int, b text);
SELECT * FROM cache_wrapped(NULL, NULL, 'default', 4) AS r(a int, b text);
SELECT * FROM cache_wrapped(NULL, NULL, 'default', NULL::regprocedure) AS r(a int, b text);
SELECT * FROM cache_wrapped(NULL, NULL, 'default', VARIADIC ARRAY['app.columns(int)'::regprocedure]) AS r(a int, b text);
\set VERBOSITY default

DROP SCHEMA app CASCADE;
SELECT cache_revoke('default', 'functions_caller', 'write');
DROP ROLE functions_caller;
