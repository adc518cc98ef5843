-- Tags: one call invalidates all values that were stored with the tag.
SELECT cache_set('red', '1', tags => '{red}'), cache_set('blue', '2', tags => '{blue}'), cache_set('both', '3', tags => '{red,blue}'), cache_set('none', '4');
CREATE VIEW seen AS SELECT k, cache_get(k) FROM unnest('{red,blue,both,none}'::text[]) AS k;
SELECT * FROM seen;
SELECT cache_invalidate_tag('green');
SELECT * FROM seen;

-- The transaction that invalidates a tag misses at once. A rollback undoes the invalidation.
BEGIN;
SELECT cache_invalidate_tag('red');
SELECT * FROM seen;
ROLLBACK;
SELECT * FROM seen;
BEGIN;
SAVEPOINT s;
SELECT cache_invalidate_tag('red');
ROLLBACK TO s;
SELECT * FROM seen;
COMMIT;
SELECT * FROM seen;
SELECT cache_invalidate_tag('red');
SELECT * FROM seen;
SELECT cache_invalidate_tags('{blue,green,blue}');
SELECT * FROM seen;
SELECT cache_invalidate_tags('{}');

-- Set and invalidate in one transaction: a value set before the invalidation is dropped, a value set after it is a hit.
SELECT cache_set('red', '"old"', tags => '{red}');
BEGIN;
SELECT cache_invalidate_tag('red');
SELECT cache_set('red', '"after"', tags => '{red}'), cache_get('red');
COMMIT;
SELECT cache_get('red');
BEGIN;
SELECT cache_set('red', '"before"', tags => '{red}'), cache_get('red');
SELECT cache_invalidate_tag('red');
SELECT cache_get('red') IS NULL AS dropped;
COMMIT;
SELECT cache_get('red') IS NULL AS dropped;

-- The same with a flush.
SELECT cache_set('a', '1'), cache_set('b', '2');
BEGIN;
SELECT cache_set('a', '"before"');
SELECT cache_flush('default');
SELECT cache_get('a') IS NULL AS flushed, cache_get('b') IS NULL AS flushed, cache_set('b', '"after"'), cache_get('b');
ROLLBACK;
SELECT cache_get('a'), cache_get('b');
BEGIN;
SELECT cache_set('a', '"before"'), cache_flush('default'), cache_set('b', '"after"');
COMMIT;
SELECT cache_get('a') IS NULL AS flushed, cache_get('b');
SELECT cache_flush('*');
SELECT cache_get('b') IS NULL AS flushed, cache_set('b', '3'), cache_get('b');

-- A transaction that invalidates more than 4096 tags invalidates everything in its database.
SELECT cache_set('far', '1', tags => '{far}'), cache_set('none', '1');
SELECT count(cache_invalidate_tag('many ' || i)) FROM generate_series(1, 4000) AS i;
SELECT cache_get('none');
SELECT count(cache_invalidate_tag('many ' || i)) FROM generate_series(1, 5000) AS i;
SELECT cache_get('far') IS NULL AS flushed, cache_get('none') IS NULL AS flushed;
