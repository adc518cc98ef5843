-- The options of a space decide which results cache_fetch stores in it, and for how long.
SELECT cache_create_space('dear', min_cost => '1 hour'), cache_create_space('cheap', min_cost => '50 ms'),
       cache_create_space('small', max_result_size => 20), cache_create_space('tiny', max_value => 20), cache_create_space('tight', quota => 2000);
CREATE FUNCTION slow(seconds float8, value text DEFAULT 'x') RETURNS text STABLE LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(seconds); RETURN value; END';
-- Calls cache_fetch, and returns the length of the result, the status, and whether the key exists afterwards.
CREATE FUNCTION fetched(key text, query text, space text, OUT length int, OUT status text, OUT "there" boolean) AS $$
BEGIN
    length := length(cache_fetch(key, query, space => fetched.space)::text);
    status := cache_status();
    "there" := cache_exists(key, fetched.space);
END $$ LANGUAGE plpgsql;

SELECT * FROM fetched('slow', 'SELECT slow(0.1)', 'dear');
SELECT * FROM fetched('slow', 'SELECT slow(0.1)', 'cheap');
SELECT * FROM fetched('short', $$SELECT repeat('x', 10)$$, 'small');
SELECT * FROM fetched('long', $$SELECT repeat('x', 100)$$, 'small');
SELECT * FROM fetched('short', $$SELECT repeat('x', 10)$$, 'tiny');
SELECT * FROM fetched('long', $$SELECT repeat('x', 100)$$, 'tiny');
SET client_min_messages = error;
-- A result larger than a value may be, or larger than the quota, is returned but not stored. Smaller results evict older ones.
SELECT * FROM fetched('huge', $$SELECT repeat('x', 9 * 1024 * 1024)$$, 'default');
SELECT * FROM fetched('long', $$SELECT repeat('x', 3000)$$, 'tight');
SELECT count(*), bool_and(length = 503) FROM generate_series(1, 20) AS i, fetched('k' || i, $$SELECT repeat('x', 501)$$, 'tight');
SELECT bytes <= 2000 AS within, evicted_quota > 0 AS made_way FROM cache_stats_detail WHERE space = 'tight';

-- With ttl_policy => 'cost', the cost of the query sets the time to live, unless the caller passes ttl. max_ttl is still a limit.
SELECT cache_create_space('by_cost', ttl_policy => 'cost', default_ttl => '1 hour'),
       cache_create_space('capped', ttl_policy => 'cost', max_ttl => '30 s'), cache_create_space('plain', ttl_policy => 'fixed');
CREATE FUNCTION seconds(key text, space text) RETURNS numeric LANGUAGE sql
    RETURN round(extract(epoch FROM cache_ttl(key, space)) / 10) * 10;
SELECT length, status, seconds('cheap', 'by_cost') FROM fetched('cheap', 'SELECT slow(0)', 'by_cost');
SELECT length, status, seconds('dear', 'by_cost') FROM fetched('dear', 'SELECT slow(1.05)', 'by_cost');
SELECT length, status, seconds('dear', 'capped') FROM fetched('dear', 'SELECT slow(1.05)', 'capped');
SELECT length, status, seconds('dear', 'plain') FROM fetched('dear', 'SELECT slow(0)', 'plain');
SELECT cache_fetch('told', 'SELECT slow(0)', ttl => '2 minutes', space => 'by_cost'), seconds('told', 'by_cost');
SELECT cache_set('set', '1', space => 'by_cost'), seconds('set', 'by_cost');

-- Each hit adds the cost of its query to time_saved.
SELECT cache_fetch('saved', 'SELECT slow(0.1)', space => 'cheap');
SELECT cache_fetch('saved', 'SELECT slow(0.1)', space => 'cheap') FROM generate_series(1, 4);
SELECT space, hits_hot, time_saved BETWEEN '400 ms' AND '60 s' AS saved FROM cache_stats_detail WHERE space = 'cheap';
SELECT cache_stats_reset();
SELECT space, time_saved FROM cache_stats_detail WHERE space = 'cheap';
SELECT * FROM cache_check();
