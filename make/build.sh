#!/usr/bin/env bash
# make/build.sh PROFILE: builds pg_cache for PostgreSQL $PG (or that of $PG_CONFIG) if a source has changed, installs it
# into the private installation of that server and profile, and prints the pg_config of that installation. PROFILE is a
# profile of cargo: dev or release. Progress is on stderr: file descriptor 3 is the original stdout, for the path alone.
#
#   PG_CACHE_FEATURES=F   builds with the feature F of the crate, too
#   PG_CACHE_NO_BUILD=M   if a source has changed, exits with the message M instead of building
#
# Two builds of a profile at the same time would disturb each other. The calling script must hold the lock of the
# checkout (only_one_at_a_time). env.sh does not hold it, so it must not be sourced while a make is at work.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
exec 3>&1 >&2
choose_server
place_work_dir

profile=$1
need_packages server headers
original=$("$ROOT/make/base.sh" "$PG")
# Two installations of the same major are different servers, so each has its own directory. So has a build with
# additional features of the crate (PG_CACHE_FEATURES).
home=$PG_CACHE_DIR/server/$PG-$profile${PG_CACHE_FEATURES:+-$PG_CACHE_FEATURES}${PG_CONFIG:+-$(printf %s "$original" | cksum | cut -d' ' -f1)}
pg_config=$("$ROOT/make/server.sh" "$original" "$home")

stamp=$home/built
if [ ! -f "$stamp" ] || [ ! -f "$("$pg_config" --pkglibdir)/pg_cache.so" ] ||
    [ -n "$(cd "$ROOT" && find src sql Cargo.toml Cargo.lock build.rs pg_cache.control make/build.sh -newer "$stamp" -print -quit)" ]; then
    [ -z "${PG_CACHE_NO_BUILD:-}" ] || die "$PG_CACHE_NO_BUILD"
    need_rust
    need_packages clang cc
    need_cargo_pgrx
    need_disk 2500 "building pg_cache"
    # A source that changes during the compilation must count as newer than the build.
    rm -f "$stamp"
    touch "$home/building"
    step "building pg_cache for PostgreSQL $PG ($profile)" "build-$PG-$profile" build_and_install "$profile" "$original" "$pg_config" ||
        die_after "build-$PG-$profile" "the build failed"
    # The account that runs the servers may be another one than ours (as_server).
    chmod -R a+rX "$home"
    mv "$home/building" "$stamp"
fi
printf '%s\n' "$pg_config" >&3
