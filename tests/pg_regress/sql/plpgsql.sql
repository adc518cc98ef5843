-- Exception blocks in a loop: each block is a savepoint, and an error drops the changes of its block.
DO $$
BEGIN
    FOR i IN 1..1000 LOOP
        BEGIN
            PERFORM cache_set('k ' || i, to_jsonb(i), tags => ARRAY['t ' || i % 10]);
            IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
            BEGIN
                PERFORM cache_set('k ' || i, to_jsonb(-i));
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN
                IF cache_get('k ' || i) <> to_jsonb(i) THEN RAISE WARNING 'own value is lost'; END IF;
            END;
        EXCEPTION WHEN raise_exception THEN
            IF cache_exists('k ' || i) THEN RAISE WARNING 'dropped value is there'; END IF;
        END;
    END LOOP;
END $$;
SELECT count(*), sum(value::int), min(value::int) FROM cache_get_many(ARRAY(SELECT 'k ' || i FROM generate_series(1, 1000) AS i));

-- PL/pgSQL catches the cache's errors by condition name, like other errors.
DO $$
BEGIN
    PERFORM cache_set('kept', '1');
    BEGIN
        PERFORM cache_set('kept', '2'), cache_set('other', '3', tags => '{""}');
    EXCEPTION WHEN invalid_parameter_value THEN RAISE NOTICE '%', SQLERRM;
    END;
    BEGIN
        PERFORM cache_get_text('kept');
    EXCEPTION WHEN datatype_mismatch THEN RAISE NOTICE '%', SQLERRM;
    END;
END $$;
SELECT cache_get('kept');

-- An invalidation that is rolled back invalidates nothing.
DO $$
BEGIN
    BEGIN
        PERFORM cache_invalidate_tag('t 1'), cache_invalidate_tag('t 2');
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    PERFORM cache_invalidate_tag('t 2');
END $$;
SELECT cache_exists('k 1') AS kept, cache_exists('k 2') AS invalidated;

-- STABLE functions in PL/pgSQL and SQL, and values in variables, arrays and records.
CREATE FUNCTION total_of(order_id int) RETURNS numeric STABLE LANGUAGE plpgsql AS $$
DECLARE found jsonb := cache_get('total ' || order_id);
BEGIN
    IF found IS NULL THEN
        found := to_jsonb(order_id * 1.5);
        PERFORM cache_set('total ' || order_id, found, ttl => '1 hour');
    END IF;
    RETURN found::numeric;
END $$;
SELECT total_of(2), cache_get('total 2'), total_of(2);
CREATE FUNCTION stored(name text) RETURNS jsonb STABLE LANGUAGE sql AS 'SELECT cache_get(name)';
SELECT stored('total 2'), stored('nothing');
DO $$
DECLARE
    many jsonb[]; one record;
BEGIN
    SELECT array_agg(value ORDER BY key) INTO many FROM cache_get_many('{k 4,k 5,nothing}');
    RAISE NOTICE '%', many;
    FOR one IN SELECT * FROM cache_get_many('{k 5,k 4}') LOOP
        RAISE NOTICE '% %', one.key, one.value;
    END LOOP;
    -- cache_get returns a copy: changing it does not change the cached value.
    many := ARRAY[cache_get('kept')];
    many[1] := many[1] || '"changed"';
    RAISE NOTICE '% %', many, cache_get('kept');
END $$;
-- A DO block that commits and rolls back inside a loop, while the loop's cursor is open.
DO $$
DECLARE one record;
BEGIN
    FOR one IN SELECT i FROM generate_series(1, 4) AS i LOOP
        PERFORM cache_set('step', to_jsonb(one.i));
        IF one.i % 2 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
    END LOOP;
END $$;
SELECT cache_get('step');
