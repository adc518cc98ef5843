#!/usr/bin/env bash
# make fuzz: runs each fuzz target of the core for FUZZ_SECONDS (default 60). Each run continues with the corpus of the
# last one, which is kept in target/fuzz. Copy each finding to src/core/fuzz/regressions/TARGET: the test `replay` of
# the core then runs it each time.
#
# As a stage of make test-long, which sets FUZZ_SECONDS to 10 by default, this is skipped if the nightly compiler is
# missing. A manual call does not take the lock of the checkout, so it must not run beside another make.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
need_rust
# libFuzzer needs instrumentation that only the nightly compiler generates.
nightly() { cargo +nightly --version >/dev/null 2>&1; }
if ! nightly; then
    needed="the fuzzer needs a nightly compiler: run rustup toolchain install nightly, then run make again"
    [ -n "${PG_CACHE_TEST_STAGE:-}" ] || die "$needed"
    printf 'skipped, not passed: %s\n' "$needed"
    exit 0
fi
seconds=${FUZZ_SECONDS:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "FUZZ_SECONDS=$seconds is not a number of seconds"
place_work_dir
need_packages cc
need_disk 1500 "building the fuzz targets"

# cargo-fuzz is installed in a directory that all checkouts share, unless the machine has one already.
version=0.13.2
home=${XDG_CACHE_HOME:-$HOME/.cache}/pg_cache/cargo-fuzz-$version
if ! cargo fuzz --version >/dev/null 2>&1; then
    PATH=$home/bin:$PATH
    if [ ! -x "$home/bin/cargo-fuzz" ]; then
        step "building cargo-fuzz $version (a minute, once for this machine)" cargo-fuzz \
            cargo install --locked --debug --root "$home" --target-dir "$home/build" "cargo-fuzz@$version" || die_after cargo-fuzz "cargo-fuzz cannot be built"
        rm -rf "$home/build"
    fi
fi

cd "$ROOT/src/core"
known=$ROOT/target/fuzz
step "compiling the fuzz targets" fuzz-build cargo +nightly fuzz build --target-dir "$known" || die_after fuzz-build "the fuzz targets do not compile"
targets=$(cargo +nightly fuzz list)
passed=0 failed=0
for target in $targets; do
    mkdir -p "$known/corpus/$target" "$known/artifacts/$target"
    # A target reads at most 200 actions, of a few bytes each, so inputs of more than 800 bytes would gain nothing. An
    # input that exceeds the -timeout of 20 seconds counts as an endless loop.
    if step "fuzzing $target for $seconds s" "fuzz-$target" cargo +nightly fuzz run --target-dir "$known" "$target" \
        "$known/corpus/$target" "$ROOT/src/core/fuzz/regressions/$target" -- \
        -artifact_prefix="$known/artifacts/$target/" -max_total_time="$seconds" -max_len=800 -timeout=20; then
        passed=$((passed + 1))
        sed -n 's/^Done /    /p' "$PG_CACHE_DIR/log/fuzz-$target.log"
    else
        failed=$((failed + 1))
        grep -E '^(thread .* panicked|ERROR|SUMMARY|.*Test unit written to)' -A 1 "$PG_CACHE_DIR/log/fuzz-$target.log" || tail -n 5 "$PG_CACHE_DIR/log/fuzz-$target.log"
    fi
done
printf 'test result: %s. %d passed; %d failed\n' "$([ "$failed" = 0 ] && echo ok || echo FAILED)" "$passed" "$failed"
[ "$failed" = 0 ]
