#!/usr/bin/env bash
# make bench: pg_cache side by side with a hand-written table and a real Redis, some ten minutes; tags, sizes and given rates, four
# more; what it costs those who write, beside a server without it, ten; then the hot tier by itself, seven, of which five are one
# promise about five minutes. Results are in bench/results: JSON, Markdown tables, which are shown too, and an SVG chart of what stands
# side by side.
#
#   QUICK=1 is for a look, in eight minutes; ONLY=write measures what has "write" in its id; PG=15..18
#   ONLY=core is the hot tier by itself, ONLY=eviction what it keeps: neither starts a server
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
# Without this one, no instructions are counted where the processor does not.
[ -z "$(missing_package valgrind)" ] || (need_packages valgrind) || say "    going on without valgrind: no instructions will be counted"
# Only a trigger that others use is written in it.
[ -z "$(missing_package plpython)" ] || (need_packages plpython) || say "    going on without PL/Python: triggers that reach Redis are left out"

pg_config=$("$ROOT/make/build.sh" release)
step "compiling the harness" compile-bench cargo build --release -q -p pg_cache_bench || die_after compile-bench "the harness does not compile"

results=bench/results
PG_CACHE_TEST_PG_CONFIG=$pg_config cargo run --release -q -p pg_cache_bench -- --output "$results" \
    ${QUICK:+--quick} ${ONLY:+--only "$ONLY"} 9>&-
say ""
say "written: $(echo "$results"/latest.*)"
