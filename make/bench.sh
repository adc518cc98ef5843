#!/usr/bin/env bash
# make bench: pg_cache side by side with a hand-written table and a real Redis, some six minutes. Results are in
# bench/results: JSON, a Markdown table, which is shown too, and an SVG chart.
#
#   QUICK=1 is for a look, in a minute and a half; ONLY=write measures what has "write" in its id; PG=15..18
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

choose_server
place_work_dir
# A build on the same cores would be measured along with everything else.
only_one_at_a_time
cd "$ROOT"
need_rust
need_server_account
need_packages redis
# perf counts what an operation costs the server; without it everything else is measured all the same.
[ -z "$(missing_package perf)" ] || (need_packages perf) || say "    going on without perf: nothing will be counted"

pg_config=$("$ROOT/make/build.sh" release)
step "compiling the harness" compile-bench cargo build --release -q -p pg_cache_bench || die_after compile-bench "the harness does not compile"

results=bench/results
PG_CACHE_TEST_PG_CONFIG=$pg_config cargo run --release -q -p pg_cache_bench -- --output "$results" \
    ${QUICK:+--quick} ${ONLY:+--only "$ONLY"} 9>&-
say ""
say "written: $results/latest.json, $results/latest.md, $results/latest.svg"
