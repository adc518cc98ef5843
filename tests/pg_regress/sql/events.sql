-- Events: names for what happens in an application, and what is invalid afterwards.
CREATE TABLE users (user_id int, name text);
SELECT cache_on_event('user_updated', ARRAY['profile:{user_id}', 'tag:user:{user_id}', 'all {{users}}']);
SELECT cache_set('profile:42', '1'), cache_set('profile:43', '1'), cache_set('all {users}', '1');
SELECT cache_set('page', '1', tags => '{user:42}'), cache_set('other', '1', tags => '{user:43}');
SELECT cache_emit('user_updated', '{"user_id": 42}');
SELECT cache_get('profile:42'), cache_get('all {users}'), cache_get('page'), cache_status();
SELECT cache_get('profile:43'), cache_get('other');

-- The event takes effect with the transaction.
BEGIN;
SELECT cache_emit('user_updated', '{"user_id": 43}');
SELECT cache_get('profile:43'), cache_get('other');
ROLLBACK;
SELECT cache_get('profile:43'), cache_get('other');

-- Targets that exist stay, and an event without targets does nothing. The spaces of an event are independent.
SELECT cache_create_space('shop');
SELECT cache_on_event('user_updated', ARRAY['tag:user:{user_id}', 'profile:{user_id}']);
SELECT cache_on_event('user_updated', ARRAY['cart:{user_id}'], 'shop'), cache_on_event('shop_closed', '{cart}', space => 'shop');
SELECT * FROM cache_events;
SELECT cache_set('cart:7', '1', space => 'shop'), cache_set('cart:7', '1');
SELECT cache_emit('user_updated', '{"user_id": 7}'), cache_emit('nothing');
SELECT cache_get('cart:7', 'shop'), cache_get('cart:7');

-- The values of placeholders are texts, numbers and booleans. They are taken as they are written.
SELECT cache_on_event('typed', ARRAY['k:{v}']);
SELECT cache_set(key, '1')
FROM unnest(ARRAY['k:a"b', 'k:{v}', 'k:1.00', 'k:true', 'k:', E'k:\n', 'k:Ω😀', 'k:*']) AS key;
SELECT cache_emit('typed', payload)
FROM unnest(ARRAY['{"v": "a\"b"}', '{"v": "{v}"}', '{"v": 1.00}', '{"v": true}', '{"v": ""}', '{"v": "\n"}', '{"v": "Ω😀"}', '{"v": "*"}']::jsonb[]) AS payload;
SELECT * FROM cache_keys('k:*');
-- A pattern matches the values literally.
SELECT cache_on_event('matched', ARRAY['match:m:{v}:*']);
SELECT cache_set(key, '1') FROM unnest(ARRAY['m:*:1', 'm:a:1', 'm:a\:1', 'm:?:1', 'm:\:1', 'm:b:1']) AS key;
SELECT cache_emit('matched', payload) FROM unnest(ARRAY['{"v": "*"}', '{"v": "?"}', '{"v": "\\"}']::jsonb[]) AS payload;
SELECT * FROM cache_keys('m:*');
SELECT cache_emit('matched', '{"v": "a"}'), cache_emit('matched', jsonb_build_object('v', repeat('*', 600)));
SELECT * FROM cache_keys('m:*');
SELECT cache_off_event('matched');

-- Longer keys and tags than those that can exist do no harm.
SELECT cache_emit('typed', jsonb_build_object('v', repeat('x', 2000))), cache_emit('user_updated', jsonb_build_object('user_id', repeat('x', 1020)));

-- In a trigger.
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM public.cache_emit('user_updated', to_jsonb(NEW)); RETURN NEW; END $$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION changed();
SELECT cache_set('profile:1', '1'), cache_set('profile:2', '1');
INSERT INTO users VALUES (1, 'a');
SELECT cache_get('profile:1'), cache_get('profile:2');

-- Bad input.
SELECT cache_on_event('e', ARRAY['a:{b']);
SELECT cache_on_event('e', ARRAY['a:{b{c}']);
SELECT cache_on_event('e', ARRAY['a}']);
SELECT cache_on_event('e', ARRAY['a:{}']);
SELECT cache_on_event('e', ARRAY['']);
SELECT cache_on_event('e', ARRAY['tag:']);
SELECT cache_on_event('e', ARRAY['match:a\']);
SELECT cache_on_event('e', ARRAY['match:a\{v}b']);
SELECT cache_on_event('e', ARRAY[NULL]);
SELECT cache_on_event('e', '{}');
SELECT cache_on_event('e', NULL);
SELECT cache_on_event(NULL, '{a}');
SELECT cache_on_event('', '{a}');
SELECT cache_on_event(repeat('e', 64), '{a}');
SELECT cache_on_event('e', ARRAY[repeat('a', 1025)]);
SELECT cache_on_event('e', '{a}', 'nowhere');
SELECT cache_on_event('e', (SELECT array_agg('k' || i) FROM generate_series(1, 65) AS i));
SELECT cache_emit('user_updated');
SELECT cache_emit('user_updated', '{"user_id": null}');
SELECT cache_emit('user_updated', '{"user_id": [1]}');
SELECT cache_emit('user_updated', '{"user_id": {"a": 1}}');
SELECT cache_emit('user_updated', '[1]');
SELECT cache_emit('user_updated', '1');
SELECT cache_emit('user_updated', NULL);
SELECT cache_emit(NULL);

-- Privileges: only the owner of the extension changes events. The role that emits one needs write in some space.
CREATE ROLE event_admin;
CREATE ROLE event_writer;
CREATE ROLE event_reader;
SELECT cache_grant('shop', 'event_admin', 'admin'), cache_grant('shop', 'event_writer', 'write'), cache_grant('default', 'event_reader', 'read');
SET ROLE event_reader;
SELECT cache_emit('user_updated', '{"user_id": 1}');
SELECT event, space FROM cache_events;
SET ROLE event_writer;
SELECT cache_on_event('mine', '{a}', 'shop');
SELECT cache_off_event('shop_closed');
SELECT cache_emit('user_updated', '{"user_id": 2}');
SET ROLE event_admin;
SELECT cache_on_event('mine', '{a}', 'shop');
SELECT cache_off_event('user_updated');
SELECT * FROM cache_events;
RESET ROLE;
SELECT cache_get('profile:2');
SELECT cache_off_event('user_updated'), cache_off_event('nothing');
SELECT event, space FROM cache_events;
SELECT cache_drop_space('shop');
SELECT event, space FROM cache_events;
SELECT cache_off_event('typed');
SELECT count(*) FROM pgcache.events;
DROP ROLE event_admin, event_writer, event_reader;
SELECT * FROM cache_check();
