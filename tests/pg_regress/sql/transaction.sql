-- One session's transactions: it sees its own changes, and what is rolled back was never there.
SELECT cache_set('a', '"old"'), cache_set('gone', '1');
BEGIN;
SELECT cache_set('a', '"new"'), cache_get('a'), cache_delete('gone'), cache_exists('gone'), cache_touch('a', '1 day');
SELECT cache_get('a'), cache_ttl('a') > '23:00:00' AS touched;
ROLLBACK;
SELECT cache_get('a'), cache_get('gone'), cache_ttl('a') < '1 hour' AS untouched;

-- Savepoints drop their part, and only that; what is released belongs to the one around.
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

-- A transaction that writes to the database announces first; the result is the same.
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

-- A procedure that commits in the middle.
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_set('step', '1');
    COMMIT;
    PERFORM cache_set('step', '2');
    ROLLBACK;
END $$;
CALL steps();
SELECT cache_get('step');

-- A prepared transaction is not the session's any more. What it has set is forgotten, and what the key had goes when it is
-- committed.
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

-- What the own transaction has touched to end is over in it, too, when its time has come.
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
