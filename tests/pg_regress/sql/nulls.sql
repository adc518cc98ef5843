-- NULL for each argument of each function, the others being as they should: an error, unless it is the argument's default.
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT ' || call;
    RETURN 'accepted';
EXCEPTION WHEN null_value_not_allowed THEN RETURN 'refused';
    WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION valid(function name, argument text, type text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE argument WHEN 'key' THEN quote_literal(function) WHEN 'space' THEN '''default''' WHEN 'mode' THEN '''always''' ELSE
        CASE type WHEN 'text' THEN '''k''' WHEN 'text[]' THEN '''{k}''' WHEN 'jsonb' THEN '''{"k": 1}''' WHEN 'bytea' THEN '''b'''
            WHEN 'interval' THEN '''1 min''' ELSE '1' END
    END
$$;
-- Here stand those that break the rule.
SELECT proname, proargnames[place] AS argument, expected, outcome(call), call
  FROM (SELECT proname, proargnames, place,
               CASE WHEN pg_get_function_arg_default(oid, place) LIKE 'NULL%' THEN 'accepted' ELSE 'refused' END AS expected,
               (SELECT format('%I(%s)', proname, string_agg(format('%I => %s', proargnames[i],
                           CASE i WHEN place THEN 'NULL' ELSE valid(proname, proargnames[i], type::regtype::text) END), ', '
                           ORDER BY i) FILTER (WHERE i = place OR pg_get_function_arg_default(oid, i::int) IS NULL))
                  FROM unnest(proargtypes) WITH ORDINALITY AS argument(type, i)) AS call
          FROM pg_proc, generate_series(1, pronargs) AS place
         WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'cache\_%') AS each
 WHERE outcome(call) <> expected ORDER BY proname COLLATE "C", place;
