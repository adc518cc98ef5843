-- Internal objects live here; what callers use lives in the schema chosen at CREATE EXTENSION.
-- Not IF NOT EXISTS: a schema somebody else made, and may own, must not be adopted.
CREATE SCHEMA pgcache;
COMMENT ON SCHEMA pgcache IS 'Internals of pg_cache. Not an interface: names may change between versions.';

-- The space "default" is number 0 here and has a row only if somebody has altered it. The library reads columns by their place:
-- new ones go to the end, and src/store/space.rs knows them. What is null is as the built-in default says.
CREATE TABLE pgcache.spaces (
    number          oid PRIMARY KEY,
    name            text COLLATE "C" NOT NULL UNIQUE CHECK (octet_length(name) BETWEEN 1 AND 63 AND name <> '*'),
    default_ttl     interval,
    max_ttl         interval,
    ttl_policy      text CHECK (ttl_policy IN ('fixed', 'cost', 'adaptive')),
    jitter          real CHECK (jitter >= 0 AND jitter < 1),
    tiers           text CHECK (tiers IN ('hot', 'table', 'both')),
    scope           text CHECK (scope IN ('shared', 'role')),
    quota           bigint CHECK (quota > 0),
    max_value       bigint CHECK (max_value > 0),
    compress_above  bigint CHECK (compress_above >= 0),
    min_cost        interval,
    max_result_size bigint CHECK (max_result_size > 0),
    keep_warm       integer CHECK (keep_warm >= 0),
    redis           boolean,
    notify          text CHECK (notify IN ('names', 'digests', 'off')),
    enabled         boolean
);
COMMENT ON TABLE pgcache.spaces IS 'The spaces and their options, for cache_create_space and its like to write.';

-- Role 0 is everybody. A role that was dropped leaves its rows behind until somebody grants again; they are not dumped.
CREATE TABLE pgcache.grants (
    space     oid,
    role      regrole,
    privilege text CHECK (privilege IN ('read', 'write', 'admin')),
    PRIMARY KEY (space, role, privilege)
);
COMMENT ON TABLE pgcache.grants IS 'Who may do what in which space, for cache_grant and cache_revoke to write.';

SELECT pg_catalog.pg_extension_config_dump('pgcache.spaces', '');
SELECT pg_catalog.pg_extension_config_dump('pgcache.grants',
    'WHERE role = 0 OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE oid = role)');
