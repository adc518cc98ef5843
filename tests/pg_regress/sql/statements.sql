-- Prepared statements, with custom plans and with a generic plan.
SELECT cache_set('a', '1'), cache_set('b', '2');
PREPARE get(text) AS SELECT cache_get($1);
PREPARE put(text, jsonb) AS SELECT cache_set($1, $2, ttl => '1 hour', tags => ARRAY[$1]);
SET plan_cache_mode = force_custom_plan;
EXECUTE get('a');
EXECUTE put('a', '10');
EXECUTE get('a');
SET plan_cache_mode = force_generic_plan;
EXECUTE get('a');
EXECUTE put('a', '100');
EXECUTE get('a');
EXECUTE get('nothing');
EXECUTE get(NULL);
RESET plan_cache_mode;
DEALLOCATE ALL;

-- A cursor reads the cache when rows are fetched. A cursor WITH HOLD reads the rest when its transaction ends.
BEGIN;
DECLARE moving CURSOR FOR SELECT cache_get(key) FROM unnest('{a,b,c}'::text[]) AS key;
DECLARE held CURSOR WITH HOLD FOR SELECT cache_get(key) FROM unnest('{a,b,c}'::text[]) AS key;
DECLARE rewinding SCROLL CURSOR FOR SELECT cache_get(key) FROM unnest('{a,b,c}'::text[]) AS key;
FETCH 1 FROM moving;
FETCH 1 FROM held;
FETCH ALL FROM rewinding;
SELECT cache_set('b', '20'), cache_set('c', '30');
FETCH ALL FROM moving;
FETCH BACKWARD ALL FROM rewinding;
COMMIT;
SELECT cache_set('b', '200'), cache_delete('c');
FETCH ALL FROM held;
CLOSE held;
-- A set that a cursor WITH HOLD executes during the commit belongs to the committing transaction.
BEGIN;
DECLARE setting CURSOR WITH HOLD FOR SELECT cache_set('held ' || i, to_jsonb(i)) FROM generate_series(1, 3) AS i;
COMMIT;
SELECT key FROM cache_get_many('{held 1,held 2,held 3,held 4}');
FETCH ALL FROM setting;
CLOSE setting;

-- COPY TO and COPY FROM.
COPY (SELECT name, cache_get(name), many FROM unnest('{a,b}'::text[]) AS name, cache_get_many(ARRAY[name]) AS many) TO STDOUT;
COPY (SELECT cache_set_text('copied ' || i, 'text' || i) FROM generate_series(1, 2) AS i) TO STDOUT (FORMAT csv);
CREATE TABLE items (id int, stored boolean, number bigint DEFAULT cache_incr('items'));
CREATE FUNCTION through() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM cache_delete('item ' || OLD.id);
        RETURN OLD;
    END IF;
    NEW.stored := cache_set('item ' || NEW.id, to_jsonb(NEW.number), tags => '{items}');
    RETURN NEW;
END $$;
CREATE TRIGGER through BEFORE INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION through();
COPY items (id) FROM STDIN;
1
2
\.
SELECT * FROM items ORDER BY id;
SELECT * FROM cache_get_many('{item 1,item 2}');

-- Calls in DEFAULT, in triggers and in RETURNING.
INSERT INTO items (id) VALUES (3), (4) RETURNING id, number, cache_get('item ' || id), cache_set('last', to_jsonb(id));
UPDATE items SET number = -number WHERE id > 2 RETURNING id, number, stored, cache_get('item ' || id);
DELETE FROM items WHERE id = 4 RETURNING id, cache_get('item ' || id);
WITH gone AS (DELETE FROM items WHERE id = 3 RETURNING id) SELECT id, cache_exists('item ' || id) FROM gone;
SELECT cache_get('last'), cache_exists('item 3');
-- A rollback drops the values together with their rows. Counters keep their increments, like sequences.
BEGIN;
INSERT INTO items (id) VALUES (5) RETURNING cache_get('item 5');
ROLLBACK;
SELECT cache_exists('item 5'), cache_incr('items', 0);
INSERT INTO items (id) VALUES (6), (1 / 0);
SELECT cache_exists('item 6');
-- The changes that a deferred trigger makes during the commit belong to the transaction.
CREATE FUNCTION afterwards() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_set('deferred', to_jsonb(NEW.id)), cache_invalidate_tag('items');
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER afterwards AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION afterwards();
BEGIN;
INSERT INTO items (id) VALUES (7);
SELECT cache_exists('deferred'), cache_exists('item 7'), cache_exists('item 1');
COMMIT;
SELECT cache_get('deferred'), cache_exists('item 7'), cache_exists('item 1');

-- The cache functions change nothing in the database, so they work in READ ONLY transactions and in STABLE functions.
BEGIN READ ONLY;
SELECT cache_set('read only', '1', tags => '{r}'), cache_get('read only'), cache_incr('read only count');
SELECT cache_delete('a'), cache_touch('b', '1 hour'), cache_invalidate_tag('items'), cache_set_many('{"many": 1}');
COMMIT;
SELECT cache_get('read only'), cache_exists('a'), cache_get('many');
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT cache_get('read only'), cache_set('serializable', '1');
COMMIT;
SELECT cache_get('serializable');
CREATE FUNCTION stable_set(name text, content text) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT cache_set_text(name, content)';
SELECT stable_set('from stable', 'v'), cache_get_text('from stable');

-- Index expressions and generated columns require IMMUTABLE functions, so PostgreSQL refuses the cache functions there.
CREATE INDEX ON items (cache_get('item ' || id));
ALTER TABLE items ADD COLUMN cached jsonb GENERATED ALWAYS AS (cache_get('item ' || id)) STORED;

-- Calls in views, subqueries, joins and set operations.
CREATE VIEW cached AS SELECT key, cache_get(key) AS value FROM unnest('{b,read only,nothing}'::text[]) AS key;
SELECT * FROM cached WHERE value IS NOT NULL ORDER BY key;
SELECT k.key, m.value FROM unnest('{b,nothing,many}'::text[]) AS k(key) LEFT JOIN cache_get_many('{b,many}') AS m USING (key) ORDER BY key;
SELECT cache_get('b') UNION ALL SELECT cache_get('many') UNION ALL SELECT value FROM cache_get_many('{b}') LIMIT 2;
SELECT count(*) FROM cache_get_many('{b,many}') WITH ORDINALITY;
SELECT cache_get_many('{b,many}') LIMIT 1;

-- DISCARD ALL resets the settings of the session and keeps the cached values.
SET pg_cache.bypass = on;
SELECT cache_get('b');
DISCARD ALL;
SELECT cache_get('b'), current_setting('pg_cache.bypass');
