-- Tags that stand for tables.
CREATE TABLE orders (id int);
CREATE TABLE "odd Name" (id int);
SELECT cache_watch('orders'), cache_watch('orders', '{revenue,orders}'), cache_watch('"odd Name"');
SELECT * FROM cache_watches ORDER BY relation::text;
SELECT cache_set('a', '1', tags => '{revenue}'), cache_set('b', '1', tags => '{"odd Name"}'), cache_set('c', '1', tags => '{else}');
INSERT INTO orders VALUES (1);
SELECT cache_get('a'), cache_get('b'), cache_get('c');
INSERT INTO "odd Name" VALUES (1);
SELECT cache_get('b'), cache_get('c');

-- A watch that is rolled back has no effect. cache_unwatch ends a watch.
BEGIN;
SELECT cache_watch('orders', '{late}');
SELECT cache_set('own', '1', tags => '{late}');
ROLLBACK;
SELECT cache_set('a', '1', tags => '{late}');
INSERT INTO orders VALUES (2);
SELECT cache_get('a');
SELECT cache_unwatch('orders');
SELECT cache_set('a', '1', tags => '{revenue}');
INSERT INTO orders VALUES (3);
SELECT cache_get('a');
-- Values from before a change of a watch are misses if they have one of its tags. Other values stay.
SELECT cache_set('other', '1', tags => '{else}');
SELECT cache_watch('orders', '{revenue}');
SELECT cache_get('a'), cache_status();
SELECT cache_get('other');
-- A call with tags that stand for the table already changes nothing.
SELECT cache_set('a', '1', tags => '{revenue}');
SELECT cache_watch('orders', '{revenue}');
SELECT cache_get('a');

-- One transaction watches a table, sets a value, writes the table and sets the value again.
BEGIN;
SELECT cache_watch('orders', '{now}');
SELECT cache_set('a', '1', tags => '{now}');
INSERT INTO orders VALUES (4);
SELECT cache_get('a');
SELECT cache_set('a', '2', tags => '{now}');
SELECT cache_get('a');
COMMIT;
SELECT cache_get('a');
INSERT INTO orders VALUES (5);
SELECT cache_get('a');

-- These relations cannot be watched.
CREATE VIEW v AS SELECT * FROM orders;
CREATE TEMP TABLE temporary (id int);
CREATE SEQUENCE s;
SELECT cache_watch('v');
SELECT cache_watch('temporary');
SELECT cache_watch('s');
SELECT cache_watch('pg_class');
SELECT cache_watch('pgcache.spaces');
SELECT cache_watch(NULL);
SELECT cache_watch('4294967295');
SELECT cache_watch('nowhere');
SELECT cache_watch('orders', '{}');
SELECT cache_watch('orders', '{order:{id}}');
SELECT cache_watch('orders', '{NULL}');
SELECT cache_invalidate_relation(NULL);

-- The owner of the extension may watch any table. The owner of a table may watch it if that role may write in any space.
CREATE ROLE watch_owner;
CREATE ROLE watch_other;
CREATE TABLE theirs (id int);
ALTER TABLE theirs OWNER TO watch_owner;
SET ROLE watch_owner;
SELECT cache_watch('theirs', '{orders}');
SELECT cache_unwatch('theirs');
SELECT cache_invalidate_relation('theirs');
RESET ROLE;
SELECT cache_create_space('of watchers'), cache_grant('of watchers', 'watch_owner', 'write');
SET ROLE watch_owner;
SELECT cache_watch('theirs');
SELECT * FROM cache_watches;
SELECT cache_invalidate_relation('theirs');
SET ROLE watch_other;
SELECT cache_watch('theirs');
SELECT cache_unwatch('theirs');
RESET ROLE;
SELECT cache_set('t', '1', tags => '{theirs}');
DROP TABLE theirs;
SELECT cache_get('t');
SELECT cache_watch('orders');
SELECT * FROM cache_watches ORDER BY relation::text;
DROP ROLE watch_owner, watch_other;
SELECT * FROM cache_check();
