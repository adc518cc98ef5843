-- cache_status() names the cause of a miss, and the reason why a value was not stored.
CREATE ROLE status_reader;
CREATE ROLE status_writer;
SELECT cache_create_space('s'), cache_grant('s', 'status_reader', 'read'), cache_grant('s', 'status_writer', 'write');
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere."Orders" (id int);
CREATE TABLE orders (id int);
CREATE FUNCTION dice() RETURNS int LANGUAGE sql AS 'SELECT 4';
-- `after` makes a change, reads the key, and returns the status. `store` stores a result that depends on a table, a tag, its
-- space, its database, definitions, roles and watches. Each change below invalidates it through one of these.
CREATE FUNCTION after(change text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE change;
    PERFORM cache_get('k', 's');
    RETURN cache_status();
END $$;
CREATE PROCEDURE store(query text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_fetch('k', query, tags => '{pages}', space => 's', refresh => true);
    COMMIT;
END $$;
CALL store('SELECT count(*) FROM orders');
INSERT INTO orders VALUES (1);
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM elsewhere."Orders"');
INSERT INTO elsewhere."Orders" VALUES (1);
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM orders');
SELECT cache_invalidate_tag('pages');
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM orders');
SELECT cache_flush('s');
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM orders');
SELECT cache_flush('*');
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM orders');
CREATE OPERATOR FAMILY families USING btree;
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM orders');
ALTER ROLE status_reader CONNECTION LIMIT 5;
SELECT cache_get('k', 's'), cache_status();
CALL store('SELECT count(*) FROM orders');
SELECT cache_watch('orders', '{other}');
SELECT cache_get('k', 's'), cache_status();
-- The own transaction, its snapshot, and the rules of SERIALIZABLE.
CALL store('SELECT count(*) FROM orders');
BEGIN;
SELECT after('INSERT INTO orders VALUES (2)');
ROLLBACK;
BEGIN;
SELECT after('SELECT cache_invalidate_tag(''pages'')');
ROLLBACK;
BEGIN;
SELECT after('SELECT cache_delete(''k'', ''s'')');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT cache_get('k', 's'), cache_status();
ROLLBACK;

-- Why a result is not stored.
CREATE TEMPORARY TABLE mine (id int);
CREATE SEQUENCE numbers;
CREATE FUNCTION why_not(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_fetch('k', query, space => 's', refresh => true);
    RETURN cache_status();
END $$;
SELECT why_not('SELECT dice()');
SELECT why_not('SELECT random()');
SELECT why_not('SELECT 1 WHERE EXISTS (SELECT 1 FROM orders WHERE id > dice())');
SELECT why_not('SELECT count(*) FROM mine');
SELECT why_not('SELECT last_value FROM numbers');
SELECT why_not('SELECT count(*) FROM pg_class');
SELECT why_not('SELECT count(*) FROM orders TABLESAMPLE system (10)');
BEGIN;
INSERT INTO orders VALUES (3);
SELECT why_not('SELECT count(*) FROM orders');
ROLLBACK;

-- A role sees only the names that it may know. A member of pg_monitor sees all names.
CREATE FUNCTION status_of(role name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    status text;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    PERFORM cache_get('k', 's');
    status := cache_status();
    RESET ROLE;
    RETURN status;
END $$;
GRANT SELECT ON orders TO status_writer;
CREATE ROLE status_monitor IN ROLE pg_monitor;
SELECT cache_grant('s', 'status_monitor', 'read');
CALL store('SELECT count(*) FROM orders');
INSERT INTO orders VALUES (4);
SELECT status_of('status_reader'), status_of('status_writer'), status_of('status_monitor');
CALL store('SELECT count(*) FROM orders');
SELECT cache_invalidate_tag('pages');
SELECT status_of('status_reader'), status_of('status_writer'), status_of('status_monitor');
-- Two tags may share a fence, so a tag is named only to a role that may write in every space.
SELECT cache_grant('default', 'status_writer', 'write');
SELECT status_of('status_writer');
REVOKE EXECUTE ON FUNCTION dice() FROM PUBLIC;
SELECT why_not('SELECT dice()');
SET ROLE status_writer;
SELECT cache_status();
RESET ROLE;

-- A call that fails leaves no status, and neither does a rollback.
SELECT cache_get('none', 's'), cache_status();
SELECT cache_get(NULL);
SELECT cache_status() IS NULL AS is_reset;
BEGIN;
SELECT cache_get('none', 's'), cache_status();
SAVEPOINT a;
SELECT cache_set('k', NULL);
ROLLBACK TO a;
SELECT cache_status() IS NULL AS is_reset;
SELECT cache_set('k', '1', space => 's'), cache_status();
ROLLBACK;
SELECT cache_status() IS NULL AS is_reset;
BEGIN;
SELECT cache_set('k', '1', space => 's'), cache_status();
COMMIT;
SELECT cache_status();

-- Calls that change spaces, grants and watches set the status as well. The status of a call for many keys tells whether it found
-- any value.
SELECT cache_get('none', 's'), cache_status();
SELECT cache_watch('orders'), cache_status();
SELECT cache_get('none', 's');
SELECT cache_grant('s', 'status_reader', 'read'), cache_status();
SELECT cache_set('one', '1');
SELECT key, cache_status() FROM cache_get_many('{one,none}');
SELECT key FROM cache_get_many('{none}');
SELECT cache_status();

-- A dropped table has no name.
CALL store('SELECT count(*) FROM orders');
INSERT INTO orders VALUES (5);
SELECT cache_get('k', 's');
DROP TABLE orders;
SELECT cache_status();
DROP ROLE status_reader, status_writer, status_monitor;
