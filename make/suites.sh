#!/usr/bin/env bash
# A stage of make test-long and make matrix: runs PostgreSQL's own regression and isolation suites on a server that has
# loaded pg_cache. The suites come from PostgreSQL's source (make/source.sh) and must match the server's release. If the
# source of that release is not available, the suites run on a server that is built from an available source
# (make/assert.sh).
#
#   make/suites.sh [compile]      PG_CACHE_TEST_PG_CONFIG names the server; make/test.sh sets it
#                                 compile: builds the tests and does not run them
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
cd "$ROOT"

# Runs a script that prints a path, and stores the path in $answer. Returns 2 if the script ends with that status: there
# is no source. Exits if the script fails otherwise.
ask() { # script, argument...
    local status=0
    answer=$("$ROOT/make/$1" "${@:2}") || status=$?
    [ "$status" = 0 ] || [ "$status" = 2 ] || exit "$status"
    return "$status"
}

release=$(pg_release "$PG_CACHE_TEST_PG_CONFIG")
if ask source.sh "$release"; then
    source=$answer
elif ask source.sh "$PG"; then
    source=$answer
    say "running the suites of PostgreSQL ${source##*/} on a server built from the same source"
    ask assert.sh
    PG_CACHE_TEST_PG_CONFIG=$(PG_CONFIG=$answer "$ROOT/make/build.sh" dev)
else
    # make/test.sh recognizes a skipped stage by the beginning of this line and by the exit status 0.
    say "skipped, not passed: PostgreSQL's own suites did not run: the source of PostgreSQL $PG is not available"
    exit
fi

tests=(-p pg_cache_testbed --test suites)
[ "${1:-}" != compile ] || exec cargo test --no-run "${tests[@]}"
need_packages cc
PG_CACHE_TEST_SOURCE=$source exec cargo test -q "${tests[@]}"
