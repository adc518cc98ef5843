-- Queries that return a pseudo-type, which no column of a table can have. cache_fetch returns the value as JSON, and null for void.
CREATE TABLE t (i int);
INSERT INTO t SELECT generate_series(1, 3);
ANALYZE t;
CREATE FUNCTION nothing() RETURNS void STABLE LANGUAGE sql AS '';
SELECT cache_fetch('void', 'SELECT nothing()') IS NULL AS is_null, cache_status();
SELECT cache_fetch('void', 'SELECT nothing()') IS NULL AS is_null, cache_status();
SELECT cache_fetch('void', 'SELECT pg_sleep(0)', refresh => true) IS NULL AS is_null, cache_status();
SELECT cache_fetch('parameter', 'SELECT $1::void', '["x"]') IS NULL AS is_null;
SELECT cache_fetch('cstring', 'SELECT ''a''::cstring'), cache_fetch('cstrings', 'SELECT $1::cstring', '["a"]');
SELECT cache_fetch('record', 'SELECT ROW(1, 2)'), cache_fetch('records', 'SELECT ARRAY[ROW(1, 2)]');
SELECT cache_fetch('anyarray', 'SELECT histogram_bounds FROM pg_stats WHERE tablename = ''t''');
SELECT cache_fetch('unknown', 'SELECT ''a''');
SELECT cache_fetch('columns', 'SELECT');
