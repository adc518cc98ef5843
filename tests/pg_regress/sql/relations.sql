-- cache_relations shows which tables invalidate cached values.
SELECT cache_stats_reset();
CREATE TABLE orders (id int);
CREATE TABLE customers (id int);
SELECT cache_watch('orders'), cache_watch('customers');
-- A table is shown after a cached value has depended on it. No value depends on these tables yet.
SELECT relation, fences, entries_killed FROM cache_relations ORDER BY relation::text;
SELECT cache_stats_reset();
SELECT * FROM cache_relations;

SELECT count(cache_set('o' || i, '1', tags => '{orders}')), count(cache_set('c' || i, '1', tags => '{customers}')),
       count(cache_set('b' || i, '1', tags => '{orders,customers}')), count(cache_set('n' || i, '1', tags => '{nothing}'))
  FROM generate_series(1, 4) AS i;
SELECT clock_timestamp() AS before \gset
INSERT INTO orders VALUES (1);
SELECT relation, fences, entries_killed, last BETWEEN :'before'::timestamptz - interval '1 s' AND clock_timestamp() + interval '1 s' AS just_now
  FROM cache_relations;
-- Eight entries are invalid now. An entry is counted when its memory is reclaimed, by another set of its key or by a delete.
SELECT count(cache_get('o' || i)), count(cache_get('b' || i)) FROM generate_series(1, 4) AS i;
SELECT entries_killed FROM cache_relations;
SELECT cache_set('o1', '2', tags => '{orders}'), cache_set('o2', '2'), cache_delete('o3'), cache_set('n1', '2'), cache_delete('n2');
SELECT relation, fences, entries_killed FROM cache_relations;
SELECT cache_set('o1', '3', tags => '{orders}');
SELECT relation, fences, entries_killed FROM cache_relations;
INSERT INTO customers VALUES (1);
SELECT cache_delete('b1'), cache_delete('c1'), cache_delete('c2');
-- An entry that depended on both tables is counted for one of them.
SELECT sum(entries_killed), max(entries_killed) FILTER (WHERE relation = 'orders'::regclass) IN (3, 4) AS one_of_them FROM cache_relations;
SELECT relation, fences FROM cache_relations ORDER BY relation::text;

-- A rollback counts nothing, and a transaction counts as one change of each table that it has written. A value that the transaction
-- sets replaces an entry that its write has invalidated.
SELECT cache_stats_reset();
SELECT cache_set('o1', '1', tags => '{orders}');
BEGIN;
INSERT INTO orders VALUES (2);
ROLLBACK;
BEGIN;
INSERT INTO orders VALUES (2);
SAVEPOINT s;
INSERT INTO customers VALUES (2);
ROLLBACK TO s;
UPDATE orders SET id = 3;
DELETE FROM orders;
SELECT cache_set('o1', '2', tags => '{orders}');
COMMIT;
SELECT cache_get('o1');
SELECT relation, fences, entries_killed FROM cache_relations;

-- TRUNCATE, ALTER TABLE, COPY and cache_invalidate_relation count as changes. Reads, row locks and VACUUM do not.
SELECT cache_stats_reset();
TRUNCATE orders;
ALTER TABLE orders ADD COLUMN name text;
COPY orders FROM PROGRAM 'echo 1,one' (FORMAT csv);
SELECT cache_invalidate_relation('orders');
SELECT count(*) FROM orders;
SELECT * FROM orders FOR UPDATE;
VACUUM orders;
SELECT relation, fences, entries_killed FROM cache_relations;

-- A change of a partition counts for the partitioned table, on which the query depends.
CREATE TABLE events (id int) PARTITION BY LIST (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
SELECT cache_stats_reset();
SELECT cache_fetch('events', 'SELECT count(*) FROM events');
INSERT INTO events VALUES (1);
SELECT cache_fetch('events', 'SELECT count(*) FROM events');
SELECT relation, fences, entries_killed FROM cache_relations ORDER BY relation::text;

-- An entry that had expired before the change is not counted, also if its memory is reclaimed afterwards.
SELECT cache_stats_reset();
SELECT cache_set('e1', '1', '100 ms', '{orders}'), cache_set('e2', '1', tags => '{orders}');
DO $$
BEGIN
    WHILE cache_exists('e1') LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
INSERT INTO orders VALUES (4);
SELECT cache_delete('e1'), cache_delete('e2');
SELECT relation, fences, entries_killed FROM cache_relations;

-- A dropped table is shown by its OID if its changes have invalidated entries.
SELECT cache_stats_reset();
SELECT cache_set('d1', '1', tags => '{orders}');
SELECT 'orders'::regclass::oid AS number \gset
DROP TABLE orders, events;
SELECT cache_delete('d1');
SELECT relation::text = :'number' AS number, fences, entries_killed FROM cache_relations;

-- Each change has one time, whenever it is asked for.
CREATE TABLE moments (id int);
SELECT cache_fetch('moments', 'SELECT count(*) FROM moments');
INSERT INTO moments VALUES (1);
CREATE TABLE seen AS SELECT relation, last FROM cache_relations WHERE relation = 'moments'::regclass;
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        PERFORM pg_sleep(0.003);
        INSERT INTO seen SELECT relation, last FROM cache_relations WHERE relation = 'moments'::regclass;
    END LOOP;
END $$;
SELECT count(*), count(DISTINCT last) FROM seen;

-- A system catalog is not shown, even if a result depends on it.
SELECT cache_stats_reset();
SELECT cache_fetch('catalog', 'SELECT 1', depends => '{pg_description}');
COMMENT ON TABLE moments IS 'changes pg_description';
SELECT cache_get('catalog'), cache_status();
SELECT relation FROM cache_relations WHERE relation < 16384;

-- Temporary tables are not shown.
SELECT cache_stats_reset();
CREATE TEMP TABLE own (id int);
INSERT INTO own VALUES (1);
SELECT count(*) FROM cache_relations;

-- Only members of pg_monitor see the statistics.
CREATE ROLE relations_reader;
CREATE ROLE relations_monitor IN ROLE pg_monitor;
SELECT cache_grant('default', 'relations_reader', 'admin');
SET ROLE relations_reader;
SELECT * FROM cache_relations;
SET ROLE relations_monitor;
SELECT count(*) FROM cache_relations;
RESET ROLE;
DROP ROLE relations_reader, relations_monitor;
SELECT * FROM cache_check();
