#!/usr/bin/env bash
# make matrix: builds and tests on every supported major, and says for each what came out.
# All of them run, whatever one of them does.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
unset PG_CONFIG
place_work_dir

failed=0 rows=()
for PG in 15 16 17 18; do
    began=$SECONDS log=$PG_CACHE_DIR/log/matrix-$PG.log
    printf '\n======== PostgreSQL %s ========\n' "$PG"
    # What needs no server was proven by make test.
    if PG=$PG ONLY="sql sessions" "$ROOT/make/test.sh" 2>&1 | tee "$log"; then verdict=ok; else verdict=FAILED failed=1; fi
    version=$(sed -nE 's/^PostgreSQL ([0-9.]+).*, rustc.*/\1/p' "$log" | tail -n 1)
    rows+=("$(printf '  %-4s %-8s %-8s %6d s   %s' "$PG" "${version:-?}" "$verdict" "$((SECONDS - began))" "$(tail -n 1 "$log")")")
done

printf '\n  %-4s %-8s %-8s %8s\n' PG version verdict time
printf '%s\n' "${rows[@]}"
exit "$failed"
