#!/usr/bin/env bash
# make test: runs all test stages one after the other, then prints a summary of passed and failed tests and the time of
# each stage. A failing stage does not stop the next ones.
#
#   make/test.sh [long]      PG=15..18 chooses the server, ONLY="stage ..." the stages
#
# A new stage needs a name in `stages`, a line in `what`, and the arguments of cargo test in `cargo_test` or a script in
# `script`. A script runs with PG_CACHE_TEST_STAGE and PG_CACHE_TEST_PG_CONFIG set. It must print a line "test result: ..."
# like cargo. If it cannot run, it prints a line that begins with "skipped, not passed: " and ends with the status 0. The
# function `compile` must name the script: it calls the script with the word compile, or leaves it out.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

export PG_CACHE_TEST_LONG=
[ "${1:-}" != long ] || PG_CACHE_TEST_LONG=1
choose_server
place_work_dir
only_one_at_a_time
need_rust
cd "$ROOT"
total=$SECONDS

stages=(core models counting sql sessions clients bench setup)
[ -z "$PG_CACHE_TEST_LONG" ] || stages+=(backends suites sqlsmith valkey sanitize packages fuzz)
declare -A what=(
    [core]="unit, model and property tests of the core, and of the client of Redis"
    [models]="readers and writers of the core, interleaved under the memory model (loom)"
    [counting]="a hit writes only to the counts and the sample of its own backend"
    [sql]="SQL regression and interleavings (pg_regress, isolationtester)"
    [sessions]="several sessions, real clusters, restarts"
    [clients]="Python, Node.js, backends of frameworks and a pooler in front of the server"
    [bench]="unit tests of the benchmark program"
    [setup]="make run without network, packages, rights, disk space or a free port"
    [backends]="the frameworks' own tests of their backends; only in make test-long, or if ONLY names it"
    [suites]="PostgreSQL's own regression and isolation suites; only in make test-long, or if ONLY names it"
    [sqlsmith]="queries of sqlsmith, with and without the cache; only in make test-long, or if ONLY names it"
    [valkey]="the copies in Redis, with Valkey in its place; only in make test-long, or if ONLY names it"
    [sanitize]="the core's tests with the address sanitizer; only in make test-long, or if ONLY names it"
    [packages]="the packages, in a bare Debian; only in make test-long, or if ONLY names it"
    [fuzz]="libFuzzer for some seconds (make fuzz runs longer); only in make test-long, or if ONLY names it"
)
for stage in ${ONLY:-}; do
    [ -n "${what[$stage]:-}" ] || die "there is no stage '$stage': the stages are ${!what[*]}"
done
declare -A cargo_test=(
    [core]="-p pg_cache_core -p pg_cache_redis"
    [models]="--release -p pg_cache_core --test models"
    [counting]="-p pg_cache_core --test counting"
    [sql]="-p pg_cache_testbed --test sql"
    [sessions]="-p pg_cache_testbed --lib --test sessions --test units"
    [bench]="-p pg_cache_bench"
)
declare -A script=([clients]=make/clients.sh [backends]=make/backends.sh [setup]=tests/setup/run.sh [suites]=make/suites.sh [sqlsmith]=make/sqlsmith.sh [valkey]=make/valkey.sh [sanitize]=make/sanitize.sh [packages]=tests/packages/run.sh [fuzz]=make/fuzz.sh)
# Stages that compile the core with other flags. Each has its own target directory, so that none rebuilds the work of
# another.
declare -A cfg=([models]=loom [counting]=counting)
export FUZZ_SECONDS=${FUZZ_SECONDS:-10}
read -ra chosen <<<"${ONLY:-${stages[*]}}"

need_packages server headers clang cc bwrap git redis openssl pgbouncer
pg_config=$("$ROOT/make/build.sh" dev)
need_server_account
export PG_CACHE_TEST_PG_CONFIG=$pg_config
with_cargo() { # stage, cargo's arguments...
    local stage=$1
    shift
    # shellcheck disable=SC2086 # several arguments
    set -- cargo test "$@" ${cargo_test[$stage]}
    if [ -n "${cfg[$stage]:-}" ]; then
        set -- env RUSTFLAGS="--cfg ${cfg[$stage]}" CARGO_TARGET_DIR="$ROOT/target/${cfg[$stage]}" "$@"
    fi
    # These tests mostly wait for other processes, so one more runs at a time than there are processors.
    if [ "$stage" = sessions ]; then set -- env RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) + 1))}" "$@"; fi
    "$@"
}
# Compiles the chosen stages first, so that the reported times are those of the tests alone. setup compiles in its
# sandboxes, and fuzz compiles with another compiler.
compile() {
    local stage
    for stage in "${chosen[@]}"; do
        case $stage in
        clients | backends | suites | sqlsmith | valkey | sanitize) "$ROOT/${script[$stage]}" compile || return ;;
        setup | packages | fuzz) ;;
        *) with_cargo "$stage" --no-run || return ;;
        esac
    done
}
step "compiling the tests" compile-tests compile || die_after compile-tests "the tests do not compile"
run() { # stage
    if [ -n "${cargo_test[$1]:-}" ]; then with_cargo "$1" -q; else PG_CACHE_TEST_STAGE=$1 "$ROOT/${script[$1]}"; fi
}
run_logged() { run "$1" 2>&1 | tee "$2"; }
prepared=$((SECONDS - total))

passed=0 failed=0 skipped=0 rows=()
for stage in "${chosen[@]}"; do
    began=$SECONDS status=0 log=$PG_CACHE_DIR/log/test-$stage.log
    printf '\n==> %s: %s\n' "$stage" "${what[$stage]}"
    in_background run_logged "$stage" "$log"
    wait "$background" || status=$?
    # Each stage reports like cargo: "test result: ok. 3 passed; 0 failed".
    good=$(sed -nE 's/^test result: .* ([0-9]+) passed; .*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    bad=$(sed -nE 's/^test result: .* ([0-9]+) failed.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    # The harness reports a server that failed an assertion or crashed, even if no test noticed.
    if [ "$bad" = 0 ] && grep -qE '^TRAP: |was terminated by signal 11' "$log"; then bad=1; fi
    note=
    if [ "$status" = 0 ] && grep -q '^skipped, not passed: ' "$log"; then
        # The stage, or a part of it, has reported why it could not run. `skipped` counts the stage in both cases. The
        # skipped part counts neither as passed nor as failed.
        note=" (SKIPPED)" skipped=$((skipped + 1))
    # A stage has failed if it ended before it could count tests, or if it ran no test at all.
    elif [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$good" = 0 ]; }; then bad=1; fi
    passed=$((passed + good)) failed=$((failed + bad))
    rows+=("$(printf '  %-10s %8d %8d %8d s   %s' "$stage" "$good" "$bad" "$((SECONDS - began))" "${what[$stage]}$note")")
done

printf '\nPostgreSQL %s, %s\n\n' "$("$pg_config" --version | awk '{ print $2 }')" "$(rustc --version | cut -d' ' -f1,2)"
printf '  %-10s %8s %8s %10s\n' stage passed failed time
printf '  %-10s %8s %8s %8d s   %s\n' set-up '' '' "$prepared" "packages, tools, the build under test"
printf '%s\n' "${rows[@]}"
printf '  %-10s %8d %8d %8d s\n\n' total "$passed" "$failed" "$((SECONDS - total))"
[ "$skipped" = 0 ] || printf 'stages that were skipped and tested nothing: %d\n' "$skipped"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
