#!/usr/bin/env bash
# make/shop.sh: loads the sample shop into the private cluster, once, and installs the current version of the extension
# there. The cluster must be running, and the caller must hold the lock of the checkout (only_one_at_a_time).
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
place_work_dir
psql() { "$ROOT/make/cluster.sh" psql -X -q -A -t -v ON_ERROR_STOP=1 "$@" || die "the sample shop cannot be prepared: see the error above"; }

# A comment on the database records which sample was loaded completely: the checksum of its script.
sample="sample shop $(cksum <"$ROOT/examples/shop.sql" | cut -d' ' -f1)"
if [ "$(psql -d postgres -c "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop'")" != "$sample" ]; then
    need_disk 2000 "the sample shop"
    psql -d postgres -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS shop WITH (FORCE)' -c 'CREATE DATABASE shop'
    step "filling the sample shop" shop psql -f "$ROOT/examples/shop.sql" || die_after shop "the sample shop cannot be filled"
    psql -d postgres -c "COMMENT ON DATABASE shop IS '$sample'"
fi

# During development, the SQL of a version changes without a new version number. So the extension is installed again if
# its SQL has changed. .pg/installed-sql has the checksum of the installed SQL.
there=$(psql -c "SELECT 1 FROM pg_extension WHERE extname = 'pg_cache'")
sql=$(psql -c "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'")/extension
sql=$(cat "$sql"/pg_cache--*.sql | cksum | cut -d' ' -f1)
if [ "$there" != 1 ] || [ "$(cat "$PG_CACHE_DIR/installed-sql" 2>/dev/null)" != "$sql" ]; then
    psql -c 'SET client_min_messages = warning' -c 'DROP EXTENSION IF EXISTS pg_cache CASCADE' -c 'CREATE EXTENSION pg_cache'
    printf '%s\n' "$sql" >"$PG_CACHE_DIR/installed-sql"
fi
