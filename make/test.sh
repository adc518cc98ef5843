#!/usr/bin/env bash
# make test: every stage that proves the project, one after the other, and a summary that says what passed, what
# did not and where the time went. A failing stage does not hide the ones behind it.
#
#   make/test.sh [long]      PG=15..18 chooses the server, ONLY="stage ..." the stages
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

stages=(core sql sessions bench setup)
declare -A what=(
    [core]="unit, model and property tests of the core"
    [sql]="SQL regression and interleavings (pg_regress, isolationtester)"
    [sessions]="several sessions, real clusters, restarts"
    [bench]="arithmetic of the measurements"
    [setup]="make run on bad days"
    [fuzz]="libFuzzer, for some seconds (make fuzz has more)"
)
# The fuzzer needs a nightly compiler, which nothing else here does.
left_out=""
if [ -n "$PG_CACHE_TEST_LONG" ]; then
    if "$ROOT/make/fuzz.sh" ready; then stages+=(fuzz); else left_out="fuzz is left out: it needs rustup toolchain install nightly"; fi
fi
for stage in ${ONLY:-}; do
    [ -n "${what[$stage]:-}" ] || die "there is no stage '$stage': ONLY takes ${stages[*]}"
done
declare -A cargo_test=(
    [core]="-p pg_cache_core"
    [sql]="-p pg_cache_testbed --test sql"
    [sessions]="-p pg_cache_testbed --lib --test sessions"
    [bench]="-p pg_cache_bench"
)
declare -A script=([setup]=tests/setup/run.sh [fuzz]=make/fuzz.sh)
export FUZZ_SECONDS=${FUZZ_SECONDS:-10}
read -ra chosen <<<"${ONLY:-${stages[*]}}"

need_packages server headers clang cc bwrap git
pg_config=$("$ROOT/make/build.sh" dev)
need_server_account
export PG_CACHE_TEST_PG_CONFIG=$pg_config
# Compiled ahead, so that the stages' times are those of the tests.
compile() {
    local stage
    for stage in "${chosen[@]}"; do
        # shellcheck disable=SC2086 # several arguments
        [ -z "${cargo_test[$stage]:-}" ] || cargo test --no-run ${cargo_test[$stage]} || return
    done
}
step "compiling the tests" compile-tests compile || die_after compile-tests "the tests do not compile"
run() { # stage
    # shellcheck disable=SC2086
    if [ -n "${cargo_test[$1]:-}" ]; then cargo test -q ${cargo_test[$1]}; else "$ROOT/${script[$1]}"; fi
}
run_logged() { run "$1" 2>&1 | tee "$2"; }
prepared=$((SECONDS - total))

passed=0 failed=0 rows=()
for stage in "${chosen[@]}"; do
    began=$SECONDS status=0 log=$PG_CACHE_DIR/log/test-$stage.log
    printf '\n==> %s: %s\n' "$stage" "${what[$stage]}"
    in_background run_logged "$stage" "$log"
    wait "$background" || status=$?
    # Each stage reports like cargo: "test result: ok. 3 passed; 0 failed".
    good=$(sed -nE 's/^test result: .* ([0-9]+) passed; .*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    bad=$(sed -nE 's/^test result: .* ([0-9]+) failed.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    # A stage that broke before it could count, or that ran nothing at all, has failed.
    if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$good" = 0 ]; }; then bad=1; fi
    passed=$((passed + good)) failed=$((failed + bad))
    rows+=("$(printf '  %-10s %8d %8d %8d s   %s' "$stage" "$good" "$bad" "$((SECONDS - began))" "${what[$stage]}")")
done

printf '\nPostgreSQL %s, %s\n\n' "$("$pg_config" --version | awk '{ print $2 }')" "$(rustc --version | cut -d' ' -f1,2)"
printf '  %-10s %8s %8s %10s\n' stage passed failed time
printf '  %-10s %8s %8s %8d s   %s\n' set-up '' '' "$prepared" "packages, tools, the build under test"
printf '%s\n' "${rows[@]}"
printf '  %-10s %8d %8d %8d s\n\n' total "$passed" "$failed" "$((SECONDS - total))"
[ -z "$left_out" ] || printf '%s\n' "$left_out"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
