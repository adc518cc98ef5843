#!/usr/bin/env bash
# make/assert.sh: builds PostgreSQL $PG with assertions (--enable-cassert), and with the contrib modules that need no
# other library, into .pg/assert/RELEASE, if it is not there yet. Prints its pg_config. The source comes from
# make/source.sh. Progress is on stderr: file descriptor 3 is the original stdout, for the path alone.
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

# The build is without ICU, so that it does not need the headers of ICU. In make matrix, the servers of Debian have ICU.
build() {
    # The settings of our make must not reach PostgreSQL's make.
    unset MAKEFLAGS MAKELEVEL
    # DESTDIR is a directory of our own, so the makefiles cannot write elsewhere, even if they change the prefix.
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
