#!/usr/bin/env bash
# A stage of make test-long: runs the queries of sqlsmith, a generator of random queries, with and without the cache.
# sqlsmith is a package of Debian.
#
#   make/sqlsmith.sh [compile]      PG_CACHE_TEST_PG_CONFIG names the PostgreSQL; make/test.sh sets it
#                                   PG_CACHE_TEST_LONG=1 runs thousands of queries, otherwise some hundred
#                                   compile: builds the tests and does not run them
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
cd "$ROOT"

tests=(-p pg_cache_testbed --test sessions)
[ "${1:-}" != compile ] || exec cargo test --no-run "${tests[@]}"

# need_packages ends the script if the package cannot be had, so it runs in a process of its own.
if ! (need_packages sqlsmith) >&2; then
    say "skipped, not passed: the queries of sqlsmith: the machine has no sqlsmith, and the package sqlsmith cannot be had"
    exit
fi
exec cargo test -q "${tests[@]}" -- --ignored --nocapture query::equivalence::smith::
