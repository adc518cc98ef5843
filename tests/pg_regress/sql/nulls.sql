-- Each argument of each function is NULL once, while the others are valid. NULL is an error unless it is the argument's default.
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE CASE WHEN call LIKE 'cache_query(query%' THEN format('SELECT * FROM %s AS t(one int)', call) ELSE 'SELECT ' || call END;
    -- This error rolls back the effects of the call.
    RAISE SQLSTATE 'PC000';
EXCEPTION WHEN SQLSTATE 'PC000' THEN RETURN 'accepted';
    WHEN null_value_not_allowed THEN RETURN 'refused';
    WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION valid(function name, argument text, type text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE argument WHEN 'key' THEN quote_literal(function) WHEN 'space' THEN '''default''' WHEN 'privilege' THEN '''read'''
        WHEN 'name' THEN CASE function WHEN 'cache_create_space' THEN '''another''' WHEN 'cache_create_view' THEN '''a_view''' ELSE '''a space''' END WHEN 'mode' THEN '''always''' WHEN 'query' THEN '''SELECT 1 AS one''' WHEN 'args' THEN '''[]''' WHEN 'row_type' THEN 'NULL::int' ELSE
        CASE type WHEN 'text' THEN '''k''' WHEN 'text[]' THEN '''{k}''' WHEN 'jsonb' THEN '''{"k": 1}''' WHEN 'bytea' THEN '''b''' WHEN 'bytea[]' THEN '''{b}'''
            WHEN 'regrole' THEN '''pg_monitor''' WHEN 'regclass' THEN '''a_table''' WHEN 'regprocedure' THEN '''a_function()'''
            WHEN 'interval' THEN '''1 min''' ELSE '1' END
    END
$$;
SELECT cache_create_space('a space');
CREATE TABLE a_table (id int);
CREATE FUNCTION a_function() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
-- Lists the exceptions to the rule, without functions that only other objects call. With hold => NULL, cache_acquire looks for a value and acquires no lease.
WITH each AS MATERIALIZED (
    SELECT *, outcome(call)
      FROM (SELECT proname, proargnames, place,
               CASE WHEN pg_get_function_arg_default(oid, place) LIKE 'NULL%' THEN 'accepted' ELSE 'refused' END AS expected,
               (SELECT format('%I(%s)', proname, string_agg(format('%I => %s', proargnames[i],
                           CASE i WHEN place THEN 'NULL' ELSE valid(proname, proargnames[i], type::regtype::text) END), ', '
                           ORDER BY i) FILTER (WHERE i = place OR pg_get_function_arg_default(oid, i::int) IS NULL))
                  FROM unnest(proargtypes) WITH ORDINALITY AS argument(type, i)) AS call
          FROM pg_proc, generate_series(1, pronargs) AS place
         WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'cache\_%'
           AND proname NOT IN ('cache_view_rows', 'cache_wrapped')) AS calls
)
SELECT proname, proargnames[place] AS argument, expected, outcome, call FROM each WHERE outcome <> expected ORDER BY proname COLLATE "C", place;
