-- A transaction sees its own changes at once, and a rollback undoes them.
SELECT cache_set('a', '"old"'), cache_set('gone', '1');
BEGIN;
SELECT cache_set('a', '"new"'), cache_get('a'), cache_delete('gone'), cache_exists('gone'), cache_touch('a', '1 day');
SELECT cache_get('a'), cache_ttl('a') > '23:00:00' AS touched;
ROLLBACK;
SELECT cache_get('a'), cache_get('gone'), cache_ttl('a') < '1 hour' AS untouched;

-- ROLLBACK TO drops only the changes since its savepoint. RELEASE moves the changes to the enclosing savepoint.
BEGIN;
SELECT cache_set('a', '1');
SAVEPOINT one;
SELECT cache_set('a', '2'), cache_set('b', '2');
SAVEPOINT two;
SELECT cache_set('a', '3'), cache_delete('b'), cache_get('a'), cache_get('b');
ROLLBACK TO two;
SELECT cache_get('a'), cache_get('b');
SAVEPOINT three;
SELECT cache_set('a', '4');
RELEASE three;
SELECT cache_get('a');
RELEASE one;
SELECT cache_get('a'), cache_get('b');
SAVEPOINT four;
SELECT cache_set('c', '5'), cache_delete('a'), cache_get('a');
ROLLBACK TO four;
COMMIT;
SELECT cache_get('a'), cache_get('b'), cache_get('c') IS NULL AS rolled_back;

-- An exception block of PL/pgSQL is a savepoint.
DO $$
BEGIN
    PERFORM cache_set('kept', '1');
    BEGIN
        PERFORM cache_set('kept', '2');
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
END $$;
SELECT cache_get('kept');

-- A transaction that also writes to a table announces its changed keys before the commit. The result is the same.
CREATE TABLE t (i int);
BEGIN;
INSERT INTO t VALUES (1);
SELECT cache_set('a', '"with a row"'), cache_delete('b'), cache_touch('kept', '1 day');
COMMIT;
SELECT cache_get('a'), cache_get('b') IS NULL AS deleted, cache_ttl('kept') > '23:00:00' AS touched;
BEGIN;
INSERT INTO t VALUES (2);
SELECT cache_set('a', '"never"');
ROLLBACK;
SELECT cache_get('a');

-- A procedure that commits, sets again and rolls back.
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_set('step', '1');
    COMMIT;
    PERFORM cache_set('step', '2');
    ROLLBACK;
END $$;
CALL steps();
SELECT cache_get('step');

-- PREPARE TRANSACTION drops the value that the transaction has set, so the session reads the earlier value again. COMMIT PREPARED
-- removes the earlier value, too.
SELECT cache_set('other', '"stays"');
BEGIN;
SELECT cache_set('a', '"prepared"'), cache_get('a');
PREPARE TRANSACTION 'pg_cache regress';
SELECT cache_get('a'), cache_get('other');
ROLLBACK PREPARED 'pg_cache regress';
SELECT cache_get('a'), cache_get('other');
BEGIN;
SELECT cache_set('a', '"prepared"'), cache_get('a');
PREPARE TRANSACTION 'pg_cache regress';
COMMIT PREPARED 'pg_cache regress';
SELECT cache_get('a') IS NULL AS gone, cache_get('other');
COMMIT PREPARED 'pg_cache regress';

-- A value expires within the transaction that has shortened its time to live with cache_touch.
SELECT cache_set('touched', '1', '1 hour'), cache_set('touched and set', '1', '1 hour');
BEGIN;
SELECT cache_touch('touched', '100 ms'), cache_touch('touched and set', '100 ms');
SELECT pg_sleep(0.2);
SELECT cache_get('touched'), cache_exists('touched'), cache_ttl('touched'), cache_touch('touched', '1 hour');
SELECT count(*) FROM cache_keys('touched');
SELECT status FROM cache_acquire('touched', hold => NULL);
SELECT status FROM cache_acquire('touched');
SELECT cache_set('touched and set', '2', mode => 'present'), cache_set('touched and set', '3', mode => 'absent');
COMMIT;
SELECT cache_get('touched'), cache_get('touched and set');
SELECT * FROM cache_check();
