-- While a scan reads keys from a table, pg_cache guesses where the next keys are in the page, and prefetches their entries
-- (src/store/prefetch.rs). Whether a guess is right or wrong, each read returns the value of its own key.

-- Rows of one length, over many pages: the guess is right. Half of them are hits.
CREATE TABLE even AS SELECT lpad(i::text, 13, '0') AS key, i FROM generate_series(1, 5000) AS i;
SELECT count(*) FILTER (WHERE cache_set(key, to_jsonb(i))) FROM even WHERE i % 2 = 0;
SELECT count(cache_get(key)), count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)), count(*) FROM even;
-- The same keys backwards, and in no order.
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM (SELECT * FROM even ORDER BY i DESC) AS even;
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM (SELECT * FROM even ORDER BY md5(key)) AS even;

-- Keys of different lengths, and another column whose length changes every 100 rows: some guesses are wrong.
CREATE TABLE odd AS SELECT repeat('x', i % 9) || i AS key, repeat('y', i / 100) AS other, i FROM generate_series(1, 3000) AS i;
SELECT count(*) FILTER (WHERE cache_set(key, to_jsonb(i))) FROM odd;
SELECT count(*) FILTER (WHERE cache_get(key) = to_jsonb(i)) FROM odd;

-- Keys that are longer than a guess covers, up to the maximum of 1024 bytes, and keys that the server stores compressed or out of
-- line, because the other column fills the page.
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

-- Keys that a scan has deleted stay deleted. A value of another kind is an error, as without a scan.
SELECT count(cache_delete(key)) FROM even WHERE i % 4 = 0;
SELECT count(cache_get(key)) FROM even;
SELECT cache_set_text(key, 'text') FROM even WHERE i = 4000;
SELECT count(cache_get(key)) FROM even;

-- cache_get_many prefetches the keys of its array: here some keys occur twice, and one has no value.
SELECT count(*), count(DISTINCT key), min(value::int), max(value::int) FROM cache_get_many((SELECT array_agg(key ORDER BY md5(key)) FROM odd) || ARRAY['x1', 'x1', 'nothing', 'x1']);
