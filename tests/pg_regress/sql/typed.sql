-- The functions on many keys and on leases exist for each type of value.
\pset null '(null)'
SELECT cache_set_many_text('{a,b,a}', '{one,"",three}', ttl => '1 hour', tags => '{typed}'), cache_status();
SELECT * FROM cache_get_many_text('{b,missing,a,b}');
SELECT cache_get_text('a'), cache_ttl('b') > '59 min' AS an_hour;
SELECT cache_set_many_bytes(ARRAY['x', 'y'], ARRAY['\x00ff'::bytea, ''], tags => '{typed}'), cache_set_many('{"j": {"k": [1]}}', tags => '{typed}'), cache_incr('c', 42);
SELECT * FROM cache_get_many_bytes('{y,x,z}');
-- Each function returns the values of its own type, and cache_status() says how many others it left out. A counter is a number
-- and a text, but no bytea.
SELECT * FROM cache_get_many('{a,b,c,j,x,missing}');
SELECT cache_status();
SELECT * FROM cache_get_many_text('{a,b,c,j,x,missing}');
SELECT cache_status();
SELECT * FROM cache_get_many_bytes('{a,b,c,j,x,missing}');
SELECT cache_status();
SELECT * FROM cache_get_many_text('{a,b}');
SELECT cache_status();
-- The functions on many keys see the transaction's own changes, and a rollback undoes them.
BEGIN;
SELECT cache_set_many_text('{a,new}', '{own,own}'), cache_set_many_bytes('{b}', '{own}');
SELECT * FROM cache_get_many_text('{a,b,new}');
SELECT cache_status();
ROLLBACK;
SELECT * FROM cache_get_many_text('{a,b,new}');
SELECT cache_touch_many('{a,b,missing,a}', '2 hours'), cache_ttl('a') > '119 min' AS two_hours, cache_ttl('b') > '119 min' AS two_hours;
SELECT cache_invalidate_tag('typed');
SELECT count(*) FROM cache_get_many_text('{a,b}'), cache_get_many_bytes('{x,y}');
SELECT cache_set_many_text('{}', '{}'), cache_set_many_bytes('{}', '{}'), cache_touch_many('{}', '1 s');

-- Leases for text and bytea. A value of another type is an error.
SELECT status, lease IS NOT NULL AS leased FROM cache_acquire_text('t');
SELECT status, lease FROM cache_acquire_text('t');
SELECT cache_set_text('t', 'text'), cache_set_bytes('b', '\x01');
SELECT value, status, lease, age < '1 min' AS age, ttl > '4 min' AS ttl FROM cache_acquire_text('t');
SELECT value, status FROM cache_acquire_bytes('b');
SELECT value, status FROM cache_acquire('c');
SELECT value, status FROM cache_acquire_text('c');
SELECT lease FROM cache_acquire_bytes('computed') \gset
SELECT cache_set_bytes('computed', '\x02', lease => :lease);
SELECT value, status FROM cache_acquire_bytes('computed', hold => NULL);
SELECT cache_acquire('t');
SELECT cache_acquire_text('b');
SELECT cache_acquire_bytes('c');

-- Bad input changes nothing.
SELECT cache_set_many_text('{t,NULL}', '{new,new}');
SELECT cache_set_many_text('{t,u}', '{new,NULL}');
SELECT cache_set_many_text('{t,u}', '{new}');
SELECT cache_set_many_bytes('{b}', '{new,new}');
SELECT cache_set_many_text(NULL, '{}');
SELECT cache_set_many_text('{t}', NULL);
SELECT cache_set_many_text('{t}', '{new}', ttl => '2 years');
SELECT cache_set_many_text('{t}', '{new}', space => 'other');
SELECT cache_touch_many('{t,NULL}', '0');
SELECT cache_touch_many('{t}', NULL);
SELECT cache_get_many_text('{t,NULL}');
SELECT cache_get_text('t'), cache_get_bytes('b');
SELECT * FROM cache_check();
