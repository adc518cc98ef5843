# shellcheck shell=bash
# `. make/env.sh`, in bash, sets the environment for a manual `cargo test -p pg_cache_testbed`, with PostgreSQL $PG (15
# by default). Run `make test` once before: it installs what the tests need. This file must not be sourced while a make
# is at work: it may build the extension, and does not hold the lock of the checkout (make/build.sh).
PG_CACHE_TEST_PG_CONFIG=$(PG=${PG:-15} "$(dirname "${BASH_SOURCE[0]}")/build.sh" dev)
export PG_CACHE_TEST_PG_CONFIG
