#!/usr/bin/env bash
# make matrix: builds and tests on every supported major and on a server with assertions, then prints a row for each. A
# failing leg does not stop the next one.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
unset PG PG_CONFIG
place_work_dir

failed=0 rows=()
# Runs make/test.sh with some settings, and adds a row with its verdict. Skipped stages are named, and do not fail a
# leg.
leg() { # name, settings of make/test.sh...
    local began=$SECONDS log=$PG_CACHE_DIR/log/matrix-${1// /-}.log verdict version outcome
    printf '\n======== PostgreSQL %s ========\n' "$1"
    # make test covers the stages that need no server.
    if env "${@:2}" ONLY="sql sessions suites" "$ROOT/make/test.sh" 2>&1 | tee "$log"; then verdict=ok; else verdict=FAILED failed=1; fi
    version=$(sed -nE 's/^PostgreSQL ([0-9.]+).*, rustc.*/\1/p' "$log" | tail -n 1)
    outcome=$(tail -n 1 "$log")$(sed -nE 's/^  ([a-z]+) .* \(SKIPPED\)$/, \1 skipped/p' "$log")
    rows+=("$(printf '  %-14s %-8s %-8s %6d s   %s' "$1" "${version:-?}" "$verdict" "$((SECONDS - began))" "$outcome")")
}
for major in 15 16 17 18; do leg "$major" PG="$major"; done
status=0
assert=$(PG=15 "$ROOT/make/assert.sh") || status=$?
case $status in
0) leg "15 assertions" PG_CONFIG="$assert" ;;
2) rows+=("$(printf '  %-14s %-8s %-8s' "15 assertions" "?" "SKIPPED: no source of PostgreSQL 15 is available")") ;;
*) failed=1 rows+=("$(printf '  %-14s %-8s %-8s' "15 assertions" "?" "FAILED: the build failed")") ;;
esac

printf '\n  %-14s %-8s %-8s %8s\n' PG version verdict time
printf '%s\n' "${rows[@]}"
exit "$failed"
