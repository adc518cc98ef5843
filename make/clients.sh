#!/usr/bin/env bash
# A stage of make test: uses the cache through drivers of other languages and through a pooler. It fetches the drivers
# with pip and npm, once per checkout, into .pg/clients. Without Node.js, that part reports that it was skipped.
# make/test.sh holds the lock of the checkout meanwhile; a manual call must not run beside another make.
#
#   make/clients.sh [compile]
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
cd "$ROOT"

tests=(-p pg_cache_testbed --test clients)
[ "${1:-}" != compile ] || exec cargo test --no-run "${tests[@]}"

home=$PG_CACHE_DIR/clients
need_packages pgbouncer python redis

# Fetches a driver, unless a complete copy is there. An interrupted fetch leaves no mark, so it is repeated.
fetch() { # driver, version, directory, command that fills it...
    [ ! -f "$3/complete" ] || return 0
    rm -rf "$3"
    mkdir -p "$3"
    step "fetching $1 $2" "client-$1" "${@:4}" || die_after "client-$1" "$1 $2 cannot be installed"
    touch "$3/complete"
}

psycopg=3.2.13 redis_py=8.1.0
python=$home/psycopg-$psycopg-redis-$redis_py
with_pip() { python3 -m venv "$python" && "$python/bin/pip" install -q --disable-pip-version-check "psycopg[binary]==$psycopg" "redis==$redis_py"; }
fetch psycopg "$psycopg, redis $redis_py" "$python" with_pip
export PG_CACHE_TEST_PYTHON=$python/bin/python

pg=8.16.3 redis_js=6.3.1
node=$home/pg-$pg-redis-$redis_js
skipped=() why=
if node --version >/dev/null 2>&1 && npm --version >/dev/null 2>&1; then
    with_npm() { npm install --silent --no-audit --no-fund --prefix "$node" "pg@$pg" "redis@$redis_js"; }
    fetch pg "$pg, redis $redis_js" "$node" with_npm
    export PG_CACHE_TEST_NODE_MODULES=$node/node_modules
else
    skipped=(--skip ::node) why="the tests of the Node.js drivers: install nodejs and npm, then run make again"
fi

cargo test -q "${tests[@]}" -- "${skipped[@]}"
[ -z "$why" ] || say "skipped, not passed: $why"
