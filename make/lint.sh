#!/usr/bin/env bash
# make lint: formatting, compiler warnings, documentation, shell scripts, spelling, and rules of this repository. All
# checks run before the verdict, which is the exit status.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
need_packages server headers clang cc shellcheck git python
need_cargo_pgrx
need_typos
configure_pgrx "$("$ROOT/make/base.sh" "$PG")"
cd "$ROOT"

status=0
# Runs one check. If the command fails, so does make lint, after the other checks.
check() { # name command...
    local name=$1
    shift
    printf '==> %s\n' "$name"
    "$@" || { printf '    FAILED: %s\n' "$name"; status=1; }
}

# Succeeds if the pattern occurs in none of the files that git does not ignore. A search that fails is not a success.
nowhere() { # pattern, git's path patterns...
    local found=0
    git grep --untracked -nE "$1" -- "${@:2}" || found=$?
    [ "$found" = 1 ]
}

# Checks that only the permitted files allow unsafe code. The compiler denies unsafe code elsewhere; this check prevents
# other files from lifting that lint.
unsafe_is_fenced() { nowhere '\bunsafe_code\b' '*.rs' ':!src/pg/*' ':!src/core/region.rs'; }

# Checks that the lowest layer (pg) imports no other layer, and that no layer imports the highest (api). The compiler
# itself ensures that the core, a crate of its own, imports none. docs/architecture.md describes the layers.
layers_hold() {
    nowhere 'crate::(api|query|store|workers)\b' 'src/pg/*' && nowhere 'crate::api\b' 'src/query/*' 'src/store/*' 'src/workers/*'
}

# Checks that no two files of a crate import each other, directly or through other files.
no_circles() { "$ROOT/make/imports.py" src/core/lib.rs src/redis/lib.rs src/lib.rs bench/src/main.rs tests/harness/lib.rs; }

# Checks that no file names a path of a developer's machine.
no_machine_in_the_tree() {
    nowhere '(^|[^A-Za-z0-9_}.-])/(work|home|root|Users)/[a-z]' . ':!make/lint.sh' ':!Cargo.lock'
}

# Checks that a sentence of a comment or a page starts with a subject that has a name. make/words.txt lists the openings
# that have none; it is a list of words, not a grammar, so a line can pass here and still be hard to read.
subjects_have_names() {
    local words
    words=$(paste -sd'|' make/words.txt)
    nowhere "(//[/!]?|--|#) (.*[.:;] )?($words) [a-z]" '*.rs' '*.sql' '*.sh' '*.py' '*.mjs' '*.toml' Makefile .ci/run &&
        nowhere "(^|[.:;|'] *)($words) [a-z][^?]*\$" '*.md' 'sql/*.sql'
}

shell_scripts() {
    git ls-files -z --cached --others --exclude-standard '*.sh' .ci/run | xargs -0 shellcheck -x -S warning
}

check "formatting" cargo fmt --all -- --check
# The fuzz targets are a separate workspace, so cargo fmt does not see them.
check "formatting of the fuzz targets" rustfmt --check --edition 2024 src/core/fuzz/fuzz_targets/*.rs
check "clippy" cargo clippy -q --workspace --all-targets --no-default-features --features "pg$PG,measure" -- -D warnings
check "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --document-private-items --no-default-features --features "pg$PG"
check "unsafe code is fenced" unsafe_is_fenced
check "imports point down" layers_hold
check "no circles between files" no_circles
check "no machine's paths" no_machine_in_the_tree
check "shell scripts" shell_scripts
check "subjects have names" subjects_have_names
check "spelling" typos
exit "$status"
