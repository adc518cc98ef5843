# shellcheck shell=bash
# `. make/env.sh`, in bash, sets the environment for a manual `cargo test -p pg_cache_testbed`, with PostgreSQL $PG (15
# by default). Run `make test` once before: it installs what the tests need.
PG_CACHE_TEST_PG_CONFIG=$(PG=${PG:-15} "$(dirname "${BASH_SOURCE[0]}")/build.sh" dev)
export PG_CACHE_TEST_PG_CONFIG
