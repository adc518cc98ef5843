#!/usr/bin/env bash
# A stage of make test: uses the cache through drivers of other languages, through backends of frameworks and through a
# pooler, and lets the tool of Prometheus check the text of the metrics. It fetches the drivers and frameworks with pip and
# npm (make/drivers.sh). Without Node.js, that part reports that it was skipped. make/test.sh holds the lock of the checkout
# meanwhile; a manual call must not run beside another make.
#
#   make/clients.sh [compile]      PG_CACHE_TEST_PG_CONFIG names the PostgreSQL; make/test.sh sets it
#                                  compile: builds the tests and does not run them
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
cd "$ROOT"
# shellcheck source=make/drivers.sh
. "$ROOT/make/drivers.sh"

tests=(-p pg_cache_testbed --test clients)
[ "${1:-}" != compile ] || exec cargo test --no-run "${tests[@]}"

need_packages pgbouncer python redis promtool

fetch_python python "psycopg[binary]==$psycopg" "psycopg_pool==$psycopg_pool" "redis==$redis_py" "django==$django" "sqlalchemy==$sqlalchemy" "dogpile.cache==$dogpile"
export PG_CACHE_TEST_PYTHON=$python

skipped=() why=
if has_node; then
    fetch_node node "pg@$pg" redis@6.3.1 "keyv@$keyv"
    export PG_CACHE_TEST_NODE_MODULES=$modules
else
    skipped=(--skip ::node) why="the tests of the Node.js drivers: install nodejs and npm, then run make again"
fi

cargo test -q "${tests[@]}" -- "${skipped[@]}"
[ -z "$why" ] || say "skipped, not passed: $why"
