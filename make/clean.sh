#!/usr/bin/env bash
# make clean: back to the checkout as it was cloned. What other checkouts share (cargo-pgrx) stays.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
place_work_dir
"$ROOT/make/cluster.sh" stop
socket=$(sed -n 's/^PGHOST=//p' "$PG_CACHE_DIR/env" 2>/dev/null || :)
case $socket in /tmp/pg_cache-*) rm -rf "$socket" ;; esac
# .pg may be a link to the directory that the servers' account can reach.
rm -rf "$PG_CACHE_DIR" "$ROOT/.pg" "$ROOT/target" "$ROOT/bench/results"
