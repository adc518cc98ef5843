-- Calls that get, set and delete many keys.
SELECT cache_set_many('{"a": 1, "b": {"c": [1, 2, {"d": null}]}, "n": null, "s": "text", "f": false, "e": {}}', ttl => '1 hour', tags => '{many}');
SELECT * FROM cache_get_many('{a,nothing,b,n,s,f,e,a}');
SELECT cache_get('b') = '{"c": [1, 2, {"d": null}]}' AS same, cache_ttl('b') > '59 min' AS an_hour;
SELECT cache_set_many('{}'), (SELECT count(*) FROM cache_get_many('{}')) AS none, cache_delete_many('{}');
BEGIN;
SELECT cache_delete_many('{a,b,a,nothing}'), cache_set_many('{"b": "own"}');
SELECT * FROM cache_get_many('{a,b,s}');
ROLLBACK;
SELECT * FROM cache_get_many('{a,b,s}');
SELECT cache_delete_many('{a,b,a,nothing}');
SELECT cache_invalidate_tag('many');
SELECT * FROM cache_get_many('{a,b,n,s,f,e}');
-- Thousands of keys in one call.
SELECT cache_set_many(jsonb_object_agg('many ' || i, i)) FROM generate_series(1, 5000) AS i;
SELECT count(*), sum(value::int) FROM cache_get_many(ARRAY(SELECT 'many ' || i FROM generate_series(1, 6000) AS i));

-- A call with invalid input changes nothing.
SELECT cache_set('t', '1'), cache_set_text('text', 'x');
SELECT * FROM cache_get_many('{t,NULL}');
SELECT * FROM cache_get_many(NULL);
SELECT * FROM cache_get_many('{t}', 'other');
SELECT cache_set_many(NULL);
SELECT cache_set_many('[1]');
SELECT cache_set_many('"a"');
SELECT cache_set_many('{"t": 2}', space => 'other');
SELECT cache_delete_many(NULL);
SELECT cache_delete_many('{t,NULL}');
SELECT cache_get('t');
