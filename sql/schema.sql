-- Internal objects live here; what callers use lives in the schema chosen at CREATE EXTENSION.
-- Not IF NOT EXISTS: a schema somebody else made, and may own, must not be adopted.
CREATE SCHEMA pgcache;
COMMENT ON SCHEMA pgcache IS 'Internals of pg_cache. Not an interface: names may change between versions.';

-- The space "default" is number 0 here and has a row only if somebody has altered it. The library reads columns by their place:
-- new ones go to the end, and src/store/space.rs knows them. What is null is as the built-in default says.
CREATE TABLE pgcache.spaces (
    number          pg_catalog.oid PRIMARY KEY,
    name            pg_catalog.text COLLATE pg_catalog."C" NOT NULL UNIQUE CHECK (
        pg_catalog.octet_length(name) OPERATOR(pg_catalog.>=) 1
        AND pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 63
        AND name OPERATOR(pg_catalog.<>) '*'),
    default_ttl     pg_catalog.interval,
    max_ttl         pg_catalog.interval,
    ttl_policy      pg_catalog.text CHECK (ttl_policy OPERATOR(pg_catalog.=) ANY (ARRAY['fixed', 'cost', 'adaptive'])),
    jitter          pg_catalog.float4 CHECK (jitter OPERATOR(pg_catalog.>=) 0 AND jitter OPERATOR(pg_catalog.<) 1),
    tiers           pg_catalog.text CHECK (tiers OPERATOR(pg_catalog.=) ANY (ARRAY['hot', 'table', 'both'])),
    scope           pg_catalog.text CHECK (scope OPERATOR(pg_catalog.=) ANY (ARRAY['shared', 'role'])),
    quota           pg_catalog.int8 CHECK (quota OPERATOR(pg_catalog.>) 0),
    max_value       pg_catalog.int8 CHECK (max_value OPERATOR(pg_catalog.>) 0),
    compress_above  pg_catalog.int8 CHECK (compress_above OPERATOR(pg_catalog.>=) 0),
    min_cost        pg_catalog.interval,
    max_result_size pg_catalog.int8 CHECK (max_result_size OPERATOR(pg_catalog.>) 0),
    keep_warm       pg_catalog.int4 CHECK (keep_warm OPERATOR(pg_catalog.>=) 0),
    redis           pg_catalog.bool,
    notify          pg_catalog.text CHECK (notify OPERATOR(pg_catalog.=) ANY (ARRAY['names', 'digests', 'off'])),
    enabled         pg_catalog.bool
);
COMMENT ON TABLE pgcache.spaces IS 'The spaces and their options, for cache_create_space and its like to write.';

-- Role 0 is everybody. A role that was dropped leaves its rows behind until somebody grants again; they are not dumped.
CREATE TABLE pgcache.grants (
    space     pg_catalog.oid,
    role      pg_catalog.regrole,
    privilege pg_catalog.text CHECK (privilege OPERATOR(pg_catalog.=) ANY (ARRAY['read', 'write', 'admin'])),
    PRIMARY KEY (space, role, privilege)
);
COMMENT ON TABLE pgcache.grants IS 'Who may do what in which space, for cache_grant and cache_revoke to write.';

-- A relation that was dropped leaves its row behind until somebody watches again; it is not dumped.
CREATE TABLE pgcache.watches (
    relation pg_catalog.regclass PRIMARY KEY,
    tags     pg_catalog.text[] NOT NULL
);
COMMENT ON TABLE pgcache.watches IS 'Which tags stand for which relations, for cache_watch and cache_unwatch to write.';

SELECT pg_catalog.pg_extension_config_dump('pgcache.spaces', '');
SELECT pg_catalog.pg_extension_config_dump('pgcache.grants',
    'WHERE role OPERATOR(pg_catalog.=) 0::pg_catalog.oid
        OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) role)');
SELECT pg_catalog.pg_extension_config_dump('pgcache.watches',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) relation)');
