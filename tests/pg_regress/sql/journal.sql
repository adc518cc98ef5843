-- The journal of changes: cache_seq, cache_changes, and cache_get_near for caches outside of the database.

-- Moves the cursor to the end of the journal. Other tests write to the journal at the same time. Their changes have no names here, but
-- those of roles concern all databases.
CREATE TEMPORARY TABLE cursor AS SELECT cache_seq() AS seq;
CREATE FUNCTION news(everything boolean DEFAULT false) RETURNS TABLE (kind text, space text, name text) LANGUAGE plpgsql AS $$
DECLARE
    change record;
BEGIN
    FOR change IN SELECT * FROM cache_changes((SELECT seq FROM cursor)) LOOP
        UPDATE cursor SET seq = change.seq;
        kind = change.kind; space = change.space; name = change.name;
        IF kind <> 'none' AND (kind = 'database') = everything THEN RETURN NEXT; END IF;
    END LOOP;
END $$;
SELECT cache_seq() BETWEEN 1 << 30 AND (1::bigint << 53) AS is_a_number;
-- Defining the function was a change of definitions, which is in no record.
SELECT * FROM news();

-- Keys: each once, as the transaction leaves them.
SELECT cache_set('a', '1', tags => '{x,y}'), cache_set_text('b', 'two'), cache_set_bytes('c', '\x03');
SELECT * FROM news();
BEGIN;
SELECT cache_set('a', '2'), cache_delete('nothing'), cache_touch('b', '1 hour');
SAVEPOINT s;
SELECT cache_set('d', '4');
ROLLBACK TO s;
SELECT cache_set('a', '3');
SELECT * FROM news();
COMMIT;
SELECT * FROM news();
BEGIN;
SELECT cache_set('a', '5');
ROLLBACK;
SELECT * FROM news();
-- Changes that take effect at once.
BEGIN;
SELECT cache_incr('n');
SELECT cache_fetch('f', 'SELECT 6');
ROLLBACK;
SELECT * FROM news();

-- Tags, spaces, the database.
SELECT cache_invalidate_tags(ARRAY['x', E'it''s "quoted"\n']);
SELECT * FROM news();
SELECT cache_create_space('mine'), cache_set('a', '1', space => 'mine');
SELECT * FROM news();
SELECT cache_flush('mine');
SELECT * FROM news();
SELECT cache_flush('*');
SELECT DISTINCT * FROM news(everything => true);
SELECT cache_set('k', '1', space => 'mine');
SELECT cache_drop_space('mine');
-- The key of a space that is gone has no name.
SELECT DISTINCT * FROM news(everything => true);

-- Relations that are watched come as their tags, once a value was given to a cache outside.
CREATE TABLE t (v int);
SELECT cache_watch('t', '{x,z}');
SELECT * FROM news() ORDER BY kind, name;
SELECT cache_set('a', '1', tags => '{x}');
INSERT INTO t VALUES (1);
SELECT * FROM news();
SELECT cache_set('a', '1', tags => '{x}');
SELECT value, keep, ttl BETWEEN '4 min' AND '5 min' AS ttl, tags FROM cache_get_near('a');
INSERT INTO t VALUES (2);
SELECT * FROM news() ORDER BY kind, name;
BEGIN;
INSERT INTO t VALUES (3);
ROLLBACK;
SELECT * FROM news();
SELECT * FROM cache_get_near('a');

-- Values that must not be kept outside: results of queries, values of the own transaction, and those of spaces with notify => off.
SELECT cache_fetch('f', 'SELECT v FROM t LIMIT 1');
SELECT value, keep FROM cache_get_near('f');
BEGIN;
SELECT cache_set('own', '1', tags => '{x}');
SELECT value, keep, tags FROM cache_get_near('own');
COMMIT;
SELECT value, keep, tags FROM cache_get_near('own');
SELECT cache_create_space('quiet', notify => 'off'), cache_set('q', '1', space => 'quiet');
SELECT value, keep FROM cache_get_near('q', space => 'quiet');
SELECT * FROM news();
SELECT cache_incr('count');
SELECT value, keep FROM cache_get_near('count');
SELECT cache_set_text('text', 'x');
SELECT * FROM cache_get_near('text');
SELECT * FROM cache_get_near(NULL);

-- Cursors.
SELECT seq > 0 AS positive, kind, space, name, at FROM cache_changes(-1);
SELECT kind FROM cache_changes(0);
SELECT kind FROM cache_changes(9223372036854775807);
SELECT kind FROM cache_changes(cache_seq() + 1);
SELECT count(*) FROM cache_changes(cache_seq()) WHERE kind NOT IN ('none', 'database');
SELECT * FROM cache_changes(NULL);
SELECT * FROM cache_changes(0, 0);
UPDATE cursor SET seq = cache_seq();
SELECT cache_set('p', '1'), cache_set('q', '2'), cache_set('r', '3');
SELECT name, at <= clock_timestamp() + interval '1 s' AS at FROM cache_changes((SELECT seq FROM cursor), max_rows => 2) WHERE kind = 'key';
-- A number in the middle of a record is none.
UPDATE cursor SET seq = cache_seq();
SELECT cache_set(repeat('k', 500), '1');
SELECT kind, length(name) FROM cache_changes((SELECT seq FROM cursor)) WHERE kind = 'key';
SELECT kind FROM cache_changes((SELECT seq - 2 FROM cache_changes((SELECT seq FROM cursor)) WHERE kind = 'key'));
-- More than 1000 names come as one record.
UPDATE cursor SET seq = cache_seq();
SELECT count(cache_set('k' || i, '1')) FROM generate_series(1, 1001) i;
SELECT * FROM news();

-- Other roles see only what they may read.
SELECT cache_create_space('private'), cache_create_space('public');
SELECT cache_grant('public', 'public', 'read');
CREATE ROLE regress_reader;
GRANT SELECT, UPDATE ON cursor TO regress_reader;
UPDATE cursor SET seq = cache_seq();
SELECT cache_set('secret', '1', space => 'private'), cache_set('known', '1', space => 'public');
SELECT cache_flush('private');
SET ROLE regress_reader;
SELECT kind, space, name FROM cache_changes((SELECT seq FROM cursor)) WHERE kind NOT IN ('none', 'database');
SELECT * FROM cache_get_near('secret', space => 'private');
RESET ROLE;
-- A role that gets a privilege again has not been told of the changes meanwhile, so it is told that everything has changed.
SELECT cache_revoke('public', 'public', 'read');
SELECT DISTINCT kind FROM cache_changes((SELECT seq FROM cursor)) WHERE kind = 'database';
SELECT cache_invalidate_tag('hidden');
SET ROLE regress_reader;
SELECT kind, space, name FROM cache_changes((SELECT seq FROM cursor)) WHERE kind NOT IN ('none', 'database');
RESET ROLE;
-- Keys of a role belong to that role.
SELECT cache_create_space('own', scope => 'role'), cache_grant('own', 'public', 'write');
UPDATE cursor SET seq = cache_seq();
SELECT cache_set('of_owner', '1', space => 'own');
SET ROLE regress_reader;
SELECT cache_set('of_reader', '1', space => 'own');
SELECT kind, space, name FROM cache_changes((SELECT seq FROM cursor)) WHERE kind NOT IN ('none', 'database');
RESET ROLE;
SELECT kind, space, name FROM cache_changes((SELECT seq FROM cursor)) WHERE kind NOT IN ('none', 'database');
SELECT cache_drop_space(name) FROM cache_spaces WHERE name <> 'default' ORDER BY name;
DROP TABLE cursor;
DROP ROLE regress_reader;
