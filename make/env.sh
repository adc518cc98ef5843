# shellcheck shell=bash
# `. make/env.sh` sets the environment for a manual `cargo test -p pg_cache_testbed`. Run `make test` once before.
PG_CACHE_TEST_PG_CONFIG=$(PG=${PG:-15} "$(dirname "${BASH_SOURCE[0]}")/build.sh" dev)
export PG_CACHE_TEST_PG_CONFIG
