# shellcheck shell=bash
# `. make/env.sh`: what a hand-run `cargo test -p pg_cache_testbed` needs, after one `make test`.
PG_CACHE_TEST_PG_CONFIG=$(PG=${PG:-15} "$(dirname "${BASH_SOURCE[0]}")/build.sh" dev)
export PG_CACHE_TEST_PG_CONFIG
