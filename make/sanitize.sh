#!/usr/bin/env bash
# A stage of make test-long: runs tests of the core with the address sanitizer. An access outside of a region, or to a
# freed region, ends the test. Only the nightly compiler has sanitizers. If it is missing and cannot be installed, this
# script reports that it was skipped, and counts no test as passed.
#
# The thread sanitizer is not used. It does not understand memory fences, on which the core's proof rests, and it looks
# for non-atomic accesses, which shared memory does not have. The models check for races instead.
#
#   make/sanitize.sh [compile]      compile: builds the tests and does not run them
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
need_rust
cd "$ROOT"

skip() { say "skipped, not passed: the address sanitizer did not run: $*"; exit 0; }

# If rustup is there, it can install a nightly toolchain. An existing nightly is not updated.
command -v rustup >/dev/null || skip "it needs a nightly toolchain, and rustup is missing: install rustup"
cargo +nightly --version >/dev/null 2>&1 ||
    timeout 600 rustup toolchain install nightly --profile minimal >/dev/null 2>&1 ||
    skip "rustup cannot install a nightly toolchain: run rustup toolchain install nightly"

target=$(rustc -vV | sed -n 's/^host: //p')
# The tests are optimised, because the sanitizer makes them several times slower. Overflow checks and debug assertions
# stay on.
export RUSTFLAGS=-Zsanitizer=address CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_TARGET_DIR=$ROOT/target/address
if [ "${1:-}" = compile ]; then set -- --no-run; else set -- -q; fi
exec cargo +nightly test "$@" -p pg_cache_core --target "$target" --lib --test faults --test model --test threads
