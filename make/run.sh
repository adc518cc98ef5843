#!/usr/bin/env bash
# make run: installs what is missing, builds pg_cache, starts a private server with it (make/cluster.sh), and shows a
# tour. PORT is the port of the server, PG or PG_CONFIG chooses the PostgreSQL.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

export PORT=${PORT:-54329}
choose_server
place_work_dir
only_one_at_a_time
started=$SECONDS

# Checks that can fail come first, before any long step. $version is the major of the existing cluster, if there is one.
version=$(as_server cat "$PG_CACHE_DIR/data/PG_VERSION" 2>/dev/null || :)
[ -z "$version" ] || [ "$version" = "$PG" ] ||
    die ".pg holds a cluster of PostgreSQL $version, this is $PG: remove it with make clean, or run make run PG=$version"
"$ROOT/make/cluster.sh" check-port "$PORT"
if [ -z "$version" ]; then need_disk 4000 "building and running the cache"; else need_disk 500 "running the cache"; fi
need_rust

pg_config=$("$ROOT/make/build.sh" release)
"$ROOT/make/cluster.sh" start "$PORT" "$pg_config"
"$ROOT/make/shop.sh"
"$ROOT/make/cluster.sh" psql -X -q -v ON_ERROR_STOP=1 -f "$ROOT/examples/tour.sql" ||
    die "the tour failed: see the error above"
cat <<EOF

The server keeps running (ready in $((SECONDS - started)) s).
    make psql    opens a session in the shop
    make stop    stops it
    .pg/env      has PGHOST, PGPORT, PGUSER and PGDATABASE for any other client
EOF
