-- The first part of the script: the internal schema, its tables, and the type of sizes. README.md has the rules for all files of
-- this directory: every name must have its schema, and a change of a released version also needs an upgrade script.
--
-- This schema holds internal objects. The objects that callers use are in the schema chosen at CREATE EXTENSION.
-- The statement must not say IF NOT EXISTS: an existing schema may belong to another role and must not be adopted.
CREATE SCHEMA pgcache;
COMMENT ON SCHEMA pgcache IS 'Internals of pg_cache. Not an interface: names may change between versions.';

-- Every script of the extension calls this function first (README.md). If the files of this version were installed after the server
-- has loaded the library of an older one, the script stops here, and the error says so.
CREATE FUNCTION pgcache.require_library() RETURNS pg_catalog.void
    VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', 'require_library_wrapper';
COMMENT ON FUNCTION pgcache.require_library() IS 'Begins a script of the extension. Raises an error if the loaded library is too old for it.';
REVOKE ALL ON FUNCTION pgcache.require_library() FROM PUBLIC;
SELECT pgcache.require_library();

-- A number of bytes, as an argument of the functions for spaces: a number, or a text like '10MB'. The functions of the type are in
-- src/api/size.rs. Each cast goes through the text (INOUT), so the type needs no more functions.
CREATE TYPE pgcache.size;
CREATE FUNCTION pgcache.size_in(value pg_catalog.cstring) RETURNS pgcache.size
    IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'size_in_wrapper';
CREATE FUNCTION pgcache.size_out(value pgcache.size) RETURNS pg_catalog.cstring
    IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'size_out_wrapper';
CREATE TYPE pgcache.size (INPUT = pgcache.size_in, OUTPUT = pgcache.size_out, LIKE = pg_catalog.int8);
COMMENT ON TYPE pgcache.size IS 'A size in bytes: a number, or a text with a unit like 10MB.';
COMMENT ON FUNCTION pgcache.size_in(pg_catalog.cstring) IS 'Reads a size.';
COMMENT ON FUNCTION pgcache.size_out(pgcache.size) IS 'Writes a size.';
CREATE CAST (pg_catalog.int2 AS pgcache.size) WITH INOUT AS IMPLICIT;
CREATE CAST (pg_catalog.int4 AS pgcache.size) WITH INOUT AS IMPLICIT;
CREATE CAST (pg_catalog.int8 AS pgcache.size) WITH INOUT AS IMPLICIT;
CREATE CAST (pg_catalog.numeric AS pgcache.size) WITH INOUT AS IMPLICIT;
CREATE CAST (pg_catalog.text AS pgcache.size) WITH INOUT AS IMPLICIT;
CREATE CAST (pg_catalog.varchar AS pgcache.size) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (pg_catalog.int2 AS pgcache.size) IS 'Takes a number of bytes as a size.';
COMMENT ON CAST (pg_catalog.int4 AS pgcache.size) IS 'Takes a number of bytes as a size.';
COMMENT ON CAST (pg_catalog.int8 AS pgcache.size) IS 'Takes a number of bytes as a size.';
COMMENT ON CAST (pg_catalog.numeric AS pgcache.size) IS 'Takes a number of bytes as a size.';
COMMENT ON CAST (pg_catalog.text AS pgcache.size) IS 'Reads a size, as in 10MB.';
COMMENT ON CAST (pg_catalog.varchar AS pgcache.size) IS 'Reads a size, as in 10MB.';

-- The space "default" has number 0. It has a row only after cache_alter_space has changed it. A null option has the built-in
-- default; the comments of the view cache_spaces (spaces.sql) say what each option means. src/pg/catalog.rs has the positions of
-- the columns that are read, so a new column must be the last one.
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
    notify          pg_catalog.text CHECK (notify OPERATOR(pg_catalog.=) ANY (ARRAY['auto', 'numbers', 'names', 'off'])),
    enabled         pg_catalog.bool
);
COMMENT ON TABLE pgcache.spaces IS 'Spaces and their options. Written by cache_create_space, cache_alter_space and cache_drop_space.';

-- Role 0 stands for every role. The rows of a dropped role stay until the next cache_grant or cache_drop_space in a READ COMMITTED
-- transaction. src/store/space/privileges.rs reads the columns by their positions, so a new column must be the last one.
CREATE TABLE pgcache.grants (
    space     pg_catalog.oid,
    role      pg_catalog.regrole,
    privilege pg_catalog.text CHECK (privilege OPERATOR(pg_catalog.=) ANY (ARRAY['read', 'write', 'admin'])),
    PRIMARY KEY (space, role, privilege)
);
COMMENT ON TABLE pgcache.grants IS 'Privileges of roles in spaces. Written by cache_grant and cache_revoke.';

-- A dump has the grants as rows of this table, with the names of the roles as texts. A restore copies them here, and the trigger
-- `restored` (spaces.sql) writes each row to pgcache.grants instead. So this table is empty, unless a restore has disabled the
-- triggers: then the rows stay here and grant nothing. pgcache.grants itself is not dumped: because its column has the type
-- regrole, one missing role would fail the whole COPY.
CREATE TABLE pgcache.dumped_grants (
    space      pg_catalog.oid,
    space_name pg_catalog.text,
    role       pg_catalog.text,
    privilege  pg_catalog.text
);
COMMENT ON TABLE pgcache.dumped_grants IS 'The form of pgcache.grants in a dump.';

-- The row of a dropped relation stays until the next cache_watch in a READ COMMITTED transaction. It is left out of dumps.
-- src/store/watch.rs reads the columns by their positions, so a new column must be the last one.
CREATE TABLE pgcache.watches (
    relation pg_catalog.regclass PRIMARY KEY,
    tags     pg_catalog.text[] NOT NULL
);
COMMENT ON TABLE pgcache.watches IS 'Tags that stand for relations. Written by cache_watch and cache_unwatch.';

-- Events. A target is a key, `match:` with a pattern, or `tag:` with a tag; placeholders are in braces. src/pg/catalog.rs has the
-- positions of the columns, so a new column must be the last one.
CREATE TABLE pgcache.events (
    event   pg_catalog.text COLLATE pg_catalog."C" NOT NULL CHECK (
        pg_catalog.octet_length(event) OPERATOR(pg_catalog.>=) 1
        AND pg_catalog.octet_length(event) OPERATOR(pg_catalog.<=) 63),
    space   pg_catalog.oid,
    targets pg_catalog.text[] NOT NULL,
    PRIMARY KEY (event, space)
);
COMMENT ON TABLE pgcache.events IS 'Events and what they invalidate. Written by cache_on_event and cache_off_event.';

-- Warmers. src/pg/catalog.rs has the positions of the columns, so a new column must be the last one. `owner` is the role that added
-- the warmer. The rows of a dropped role stay until the next cache_warmer_add, or until the server starts; they never run.
CREATE TABLE pgcache.warmers (
    number pg_catalog.oid PRIMARY KEY,
    owner  pg_catalog.oid NOT NULL,
    name   pg_catalog.text COLLATE pg_catalog."C" NOT NULL CHECK (
        pg_catalog.octet_length(name) OPERATOR(pg_catalog.>=) 1
        AND pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 63),
    query  pg_catalog.text NOT NULL,
    args   pg_catalog.jsonb,
    every  pg_catalog.interval,
    ttl    pg_catalog.interval,
    tags   pg_catalog.text[],
    space  pg_catalog.text NOT NULL,
    UNIQUE (owner, name)
);
COMMENT ON TABLE pgcache.warmers IS 'Queries whose results are kept stored. Written by cache_warmer_add and cache_warmer_drop.';

-- A dump has the warmers as rows of this table, with the names of their owners: in another cluster, the OID of a role may be that
-- of another one. The trigger `restored` (warmers.sql) writes each row to pgcache.warmers instead, as for pgcache.dumped_grants.
CREATE TABLE pgcache.dumped_warmers (
    owner pg_catalog.text,
    name  pg_catalog.text,
    query pg_catalog.text,
    args  pg_catalog.text,
    every pg_catalog.interval,
    ttl   pg_catalog.interval,
    tags  pg_catalog.text,
    space pg_catalog.text
);
COMMENT ON TABLE pgcache.dumped_warmers IS 'The form of pgcache.warmers in a dump.';

SELECT pg_catalog.pg_extension_config_dump('pgcache.spaces', '');
-- pg_dump appends this text to a SELECT of all columns of pgcache.dumped_grants. So the dump has the rows of pgcache.grants
-- instead, without the grants of dropped roles.
SELECT pg_catalog.pg_extension_config_dump('pgcache.dumped_grants',
    'WHERE false UNION ALL
     SELECT g.space, COALESCE(s.name, ''default''), COALESCE(r.rolname::pg_catalog.text, ''public''), g.privilege
     FROM pgcache.grants AS g
     LEFT JOIN pgcache.spaces AS s ON s.number OPERATOR(pg_catalog.=) g.space
     LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) g.role
     WHERE g.role OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR r.oid IS NOT NULL');
SELECT pg_catalog.pg_extension_config_dump('pgcache.dumped_warmers',
    'WHERE false UNION ALL
     SELECT r.rolname::pg_catalog.text, w.name, w.query, w.args::pg_catalog.text, w.every, w.ttl, w.tags::pg_catalog.text, w.space
     FROM pgcache.warmers AS w
     JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) w.owner');
SELECT pg_catalog.pg_extension_config_dump('pgcache.events', '');
SELECT pg_catalog.pg_extension_config_dump('pgcache.watches',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) relation)');
