-- What a commit does for the tables that its transaction has written, done beforehand and as often as one likes, without a trace.
CREATE TABLE orders (id int);
SELECT cache_fetch('orders', 'SELECT count(*) FROM orders'), cache_set('mine', '1');

-- In a transaction that has written nothing, and in one that has: what depends on the table is a hit again.
SELECT pgcache.walk(10) >= 0 AS walked;
BEGIN;
INSERT INTO orders VALUES (1);
SELECT pgcache.walk(10) > 0 AS walked, pgcache.walk(10, afresh => true) > 0 AS afresh;
ROLLBACK;
SELECT cache_get('orders'), cache_status();
SELECT * FROM cache_check();

-- The commit itself is spared nothing, and what the transaction has set is stored.
BEGIN;
INSERT INTO orders VALUES (1);
SELECT cache_set('mine', '2');
SELECT pgcache.walk(10) > 0 AS walked;
SELECT cache_get('mine');
COMMIT;
SELECT cache_get('orders'), cache_status();
SELECT cache_get('mine');
SELECT * FROM cache_check();

-- Many tables, with an index each, and a savepoint that is rolled back.
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
DO $$ BEGIN
    FOR i IN 1 .. 30 LOOP
        EXECUTE format('CREATE TABLE part_%s PARTITION OF parts FOR VALUES FROM (%s) TO (%s)', i, i, i + 1);
    END LOOP;
END $$;
SELECT cache_fetch('parts', 'SELECT count(*) FROM parts');
BEGIN;
SAVEPOINT s;
INSERT INTO parts SELECT generate_series(1, 30);
SELECT pgcache.walk(3) > 0 AS walked;
ROLLBACK TO s;
SELECT pgcache.walk(3) >= 0 AS walked;
COMMIT;
SELECT cache_get('parts'), cache_status();

-- What it is told.
SELECT pgcache.walk(0);
SELECT pgcache.walk(NULL) IS NULL AS null_times;
