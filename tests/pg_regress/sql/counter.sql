-- Counters are moved at once and for all, like sequences.
SELECT cache_incr('c'), cache_incr('c'), cache_incr('c', 40), cache_incr('c', -2), cache_incr('c', 0);
SELECT cache_incr('life', ttl => '1 hour'), cache_ttl('life') > '59 min' AS an_hour, cache_incr('life', ttl => '1 day'), cache_ttl('life') < '61 min' AS as_created;
BEGIN;
SELECT cache_incr('c');
ROLLBACK;
SELECT cache_incr('c', 0), cache_exists('c');
-- The edges of bigint.
SELECT cache_incr('edge', 9223372036854775807);
SELECT cache_incr('edge');
SELECT cache_incr('edge', -9223372036854775807), cache_incr('edge', -9223372036854775808);
SELECT cache_incr('edge', -1);
SELECT cache_incr('edge', 0);
-- A counter is no other kind, and no other kind is a counter.
SELECT cache_get('c');
SELECT cache_get_text('c');
SELECT cache_set('j', '1');
SELECT cache_incr('j');
SELECT cache_set('c', '"no counter any more"'), cache_get('c');
SELECT cache_delete('c');
SELECT cache_incr('c');
SELECT cache_flush('default');
SELECT cache_incr('c');
-- Bad input.
SELECT cache_incr(NULL);
SELECT cache_incr('');
SELECT cache_incr('c', NULL);
SELECT cache_incr('c', ttl => '0');
SELECT cache_incr('c', space => 'other');
