-- Keys out of a table: their entries are looked for before they are asked for, by a guess at where the next keys lie. Right or
-- wrong, what is returned is what each key holds.

-- Rows of one length, over many pages: the guess is right. Half of them are hits.
CREATE TABLE even AS SELECT lpad(i::text, 13, '0') AS key, i FROM generate_series(1, 5000) AS i;
SELECT count(*) FILTER (WHERE cache_set(key, to_jsonb(i))) FROM even WHERE i % 2 = 0;
SELECT count(cache_get(key)), count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)), count(*) FROM even;
-- Backwards, and in no order.
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM (SELECT * FROM even ORDER BY i DESC) AS even;
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM (SELECT * FROM even ORDER BY md5(key)) AS even;

-- Keys of different lengths in rows of one length, and beside other columns that change the distance now and then.
CREATE TABLE odd AS SELECT repeat('x', i % 9) || i AS key, repeat('y', i / 100) AS other, i FROM generate_series(1, 3000) AS i;
SELECT count(*) FILTER (WHERE cache_set(key, to_jsonb(i))) FROM odd;
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM odd;

-- Keys longer than what is guessed, as long as keys can be, and such as the server keeps compressed or somewhere else because of a
-- row's other columns.
CREATE TABLE long (key text, i int, filler text DEFAULT repeat('f', 1900));
ALTER TABLE long ALTER filler SET STORAGE PLAIN;
CREATE TABLE outside (LIKE long INCLUDING ALL);
ALTER TABLE outside ALTER key SET STORAGE EXTERNAL;
INSERT INTO long SELECT lpad(i::text, 1 + i * 1023 / 400, 'long '), i FROM generate_series(10, 400) AS i;
INSERT INTO outside SELECT key || '', i FROM long;
SELECT max(length(key)), bool_or(pg_column_size(key) < length(key)) AS compressed FROM long;
SELECT pg_relation_size(reltoastrelid) > 0 AS outside FROM pg_class WHERE relname = 'outside';
SELECT count(*) FILTER (WHERE cache_set(key, to_jsonb(i))) FROM long;
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM long;
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM outside;

-- A key that the statement removes behind its scan stays removed. A value of another kind is an error, as without a scan.
SELECT count(cache_delete(key)) FROM even WHERE i % 4 = 0;
SELECT count(cache_get(key)) FROM even;
SELECT cache_set_text(key, 'text') FROM even WHERE i = 4000;
SELECT count(cache_get(key)) FROM even;

-- Many at once, with keys that are asked for twice and keys without a value.
SELECT count(*), count(DISTINCT key), min(value::int), max(value::int) FROM cache_get_many((SELECT array_agg(key ORDER BY md5(key)) FROM odd) || ARRAY['x1', 'x1', 'nothing', 'x1']);
