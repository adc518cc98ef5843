#!/usr/bin/env bash
# make bench: measures pg_cache and writes the results to bench/results: JSON, Markdown tables (also printed), and SVG
# charts of the comparisons and of the day. The parts, and about how long they take:
#
# - pg_cache next to a hand-written cache table and a real Redis, 10 minutes;
# - tags, sizes, given rates, the work of a commit, rows and patterns, 5 minutes;
# - the cost for writers, next to a server without pg_cache, 10 minutes;
# - hits and misses of cached queries, and reads beside writes, 6 minutes;
# - a day with cached dashboards, beside other ways to serve them, 36 minutes;
# - the table tier, next to a server without it, 10 minutes;
# - the broadcast of changes with NOTIFY, and the copies of values in Redis, 8 minutes;
# - the cache backends of Django, keyv and Rails, beside those of the frameworks, 6 minutes;
# - the hot tier (the core without a server), 7 minutes: in 5 of them, entries are watched beside a writer.
#
#   QUICK=1 takes 15 minutes, for a first look; ONLY=write runs the measurements with "write" in their id; PG=15..18
#   ONLY=queries measures cached queries (queries-hit, -large, -dashboard, -writes and -tpch)
#   ONLY=day measures the day; DAY_SCALE=1 does not shorten its five minutes, and DAY_SESSIONS=N and DAY_SEED=N choose the
#   number of sessions and the seed
#   ONLY=outward measures the broadcast and the copies in Redis
#   ONLY=frameworks measures the backends of frameworks, ONLY=frameworks-django those of one
#   ONLY=core measures the hot tier, ONLY=eviction its hit ratio: neither starts a server, but the extension is built
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

choose_server
place_work_dir
# A build on the same cores would distort the measurements.
only_one_at_a_time
cd "$ROOT"
need_rust
need_server_account
need_packages redis
# perf counts instructions and other events per operation of the server. Without it, all other measurements still run.
# need_packages exits if it cannot install a package, so it runs in a subshell here.
[ -z "$(missing_package perf)" ] || (need_packages perf) || say "    going on without perf: nothing will be counted"
# valgrind counts the instructions of the cost for writers. It needs no counters of the processor.
[ -z "$(missing_package valgrind)" ] || (need_packages valgrind) || say "    going on without valgrind: no instructions will be counted"
# PL/Python is needed only for the trigger that reaches Redis, for comparison.
[ -z "$(missing_package plpython)" ] || (need_packages plpython) || say "    going on without PL/Python: triggers that reach Redis are left out"

# The frameworks are fetched only for their own measurements. Those that cannot be had are left out.
# shellcheck source=make/frameworks.sh
. "$ROOT/make/frameworks.sh"

# The build has a function that repeats the work of a commit (src/api/measure.rs). No other build has it.
pg_config=$(PG_CACHE_FEATURES=measure "$ROOT/make/build.sh" release)
step "compiling the harness" compile-bench cargo build --release -q -p pg_cache_bench || die_after compile-bench "the harness does not compile"

results=bench/results
# 9>&-: the servers that the program starts must not inherit the lock of the checkout (only_one_at_a_time).
PG_CACHE_TEST_PG_CONFIG=$pg_config cargo run --release -q -p pg_cache_bench -- --output "$results" \
    ${QUICK:+--quick} ${ONLY:+--only "$ONLY"} 9>&-
say ""
# There are no charts of measurements that were left out.
shopt -s nullglob
say "written: $(echo "$results"/{latest,day}.*)"
