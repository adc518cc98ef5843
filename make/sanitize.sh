#!/usr/bin/env bash
# The core's tests with the address sanitizer: every access outside of a region, or to one that is gone, ends the test.
# The compiler has sanitizers in its nightly version only. Where there is none and none can be had, this says that it was
# skipped, and counts no test as passed.
#
# The thread sanitizer is not here: it does not understand fences, which the core's proof rests on, and it looks for accesses that
# are not atomic, of which shared memory has none. What it would look for, the models do.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
need_rust
cd "$ROOT"

skip() { say "skipped, not passed: the address sanitizer did not run: $*"; exit 0; }

# Whoever has rustup has what it takes to get a nightly; it is left as it is if there is one.
command -v rustup >/dev/null || skip "it needs a nightly toolchain, and there is no rustup to get one with"
cargo +nightly --version >/dev/null 2>&1 ||
    timeout 600 rustup toolchain install nightly --profile minimal >/dev/null 2>&1 ||
    skip "there is no nightly toolchain, and rustup cannot get one: rustup toolchain install nightly"

target=$(rustc -vV | sed -n 's/^host: //p')
# Optimised, with overflow checks and debug assertions: the sanitizer makes everything several times slower.
export RUSTFLAGS=-Zsanitizer=address CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_TARGET_DIR=$ROOT/target/address
if [ "${1:-}" = compile ]; then set -- --no-run; else set -- -q; fi
exec cargo +nightly test "$@" -p pg_cache_core --target "$target" --lib --test faults --test model --test threads
