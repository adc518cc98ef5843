#!/usr/bin/env bash
# make/assert.sh: prints the pg_config of a PostgreSQL $PG that checks its own assertions (--enable-cassert), built from the source
# that make/source.sh finds, with all contrib modules, into .pg/assert/RELEASE. Progress is on stderr.
#
# Exit status 2: there is no source of that major.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
exec 3>&1 >&2
choose_server
place_work_dir
only_one_at_a_time

source=$("$ROOT/make/source.sh" "$PG")
release=${source##*/}
home=$PG_CACHE_DIR/assert/$release
part=$home.part # everything unfinished is in here; the next run removes it

# Without ICU, so that its headers are not needed: the servers of the other legs have it.
build() {
    # The settings of our make are not meant for PostgreSQL's.
    unset MAKEFLAGS MAKELEVEL
    # Installed below a directory of our own: whatever its makefiles think of the prefix, nothing is written elsewhere.
    cd "$part" &&
        "$source/configure" --prefix="$home" --enable-cassert --enable-debug --without-icu --quiet &&
        make -s -j "$(nproc)" world-bin && make -s DESTDIR="$part/installed" install-world-bin &&
        chmod -R a+rX "$part/installed" && mv "$part/installed$home" "$home"
}

if [ ! -d "$home" ]; then
    need_packages cc flex bison readline zlib
    need_disk 1500 "building PostgreSQL with assertions"
    rm -rf "$part"
    mkdir -p "$part"
    step "building PostgreSQL $release with assertions (some minutes)" "assert-$release" build ||
        die_after "assert-$release" "PostgreSQL $release cannot be built"
    rm -rf "$part"
fi
printf '%s\n' "$home/bin/pg_config" >&3
