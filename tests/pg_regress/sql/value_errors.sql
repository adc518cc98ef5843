-- Calls with invalid arguments. Each call prints its SQLSTATE, and changes nothing.
SELECT cache_set('kept', '"kept"');
DO $$
DECLARE
    call text; state text; message text; detail text; hint text;
BEGIN
    FOREACH call IN ARRAY ARRAY[
        'cache_get(NULL)', 'cache_get(''k'', NULL)', 'cache_get(''k'', ''a "space"'')',
        'cache_get_text(NULL)', 'cache_get_bytes(NULL)',
        'cache_set(NULL, ''1'')', 'cache_set(''kept'', NULL)', 'cache_set(''kept'', ''1'', ttl => ''367 days'')',
        'cache_set(''kept'', ''1'', ttl => ''300 years'')', 'cache_set(''kept'', ''1'', ttl => ''178000000 years'')',
        'cache_set(''kept'', ''1'', tags => ''{""}'')', 'cache_set(''kept'', ''1'', tags => ''{NULL}'')',
        'cache_set(''kept'', ''1'', tags => ARRAY[repeat(''t'', 257)])',
        'cache_set(''kept'', ''1'', tags => ARRAY(SELECT ''t'' || i FROM generate_series(1, 33) AS i))',
        'cache_set(''kept'', ''1'', space => ''other'')', 'cache_set(''kept'', ''1'', space => NULL)',
        'cache_set(''kept'', ''1'', mode => ''missing'')', 'cache_set(''kept'', ''1'', mode => NULL)',
        'cache_set(''kept'', ''1'', stale_ok => ''-1 s'')', 'cache_set(''kept'', ''1'', stale_ok => ''2 years'')',
        'cache_set(''kept'', ''1'', mode => ''absent'', lease => 1)',
        'cache_acquire(NULL)', 'cache_acquire(''k'', NULL)', 'cache_acquire(''k'', ''other'')',
        'cache_acquire(''k'', wait => NULL)', 'cache_acquire(''k'', wait => ''-1 s'')', 'cache_acquire(''k'', wait => ''1 day'')',
        'cache_acquire(''k'', hold => ''0'')', 'cache_acquire(''k'', hold => ''-1 s'')', 'cache_acquire(''k'', hold => ''25 hours'')',
        'cache_release(NULL, 1)', 'cache_release(''k'', NULL)', 'cache_release(''k'', 1, ''other'')', 'cache_release(''k'', 1, NULL)',
        'cache_set_text(''kept'', NULL)', 'cache_set_bytes(''kept'', NULL)',
        'cache_delete(NULL)', 'cache_exists(NULL)', 'cache_ttl(NULL)', 'cache_ttl(''k'', ''other'')',
        'cache_touch(NULL, ''1 s'')', 'cache_touch(''kept'', NULL)', 'cache_touch(''kept'', ''2 years'')',
        'cache_invalidate_tag(NULL)', 'cache_invalidate_tag('''')', 'cache_invalidate_tag(repeat(''t'', 257))',
        'cache_invalidate_tags(NULL)', 'cache_invalidate_tags(''{a,NULL}'')', 'cache_flush(NULL)', 'cache_flush(''other'')',
        'cache_invalidate_pattern(NULL)', 'cache_invalidate_pattern('''')', 'cache_invalidate_pattern(repeat(''*'', 10000))',
        'cache_invalidate_pattern(''a\'')', 'cache_invalidate_pattern(''k'', NULL)', 'cache_invalidate_pattern(''k'', ''other'')'
    ] LOOP
        BEGIN
            EXECUTE 'SELECT ' || call;
            RAISE NOTICE '% : no error', call;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            RAISE INFO '% : % % | % | %', call, state, message, detail, hint;
        END;
    END LOOP;
END $$;
SELECT cache_get('kept');

-- The maximum of 32 tags, where repeated tags count once, and a tag of the maximum length.
SELECT cache_set('tags', '1', tags => ARRAY(SELECT 't' || i % 31 FROM generate_series(1, 62) AS i) || repeat('t', 256));
-- Without grants, only the owner of the extension may use the cache.
CREATE ROLE value_guest;
SET ROLE value_guest;
SELECT cache_get('kept');
SELECT cache_set('kept', '1');
SELECT cache_check();
RESET ROLE;
DROP ROLE value_guest;
