#!/usr/bin/env bash
# make/server.sh PG_CONFIG DIRECTORY: creates a private copy of a PostgreSQL installation and prints the copy's
# pg_config. Extensions can be installed into the copy without changing the original.
#
# PostgreSQL finds its libraries and scripts relative to its own program file. So the programs are copied, and the
# directories of libraries and scripts are trees of links, at the same places relative to the programs. An existing copy
# is used again if the original has not changed. The caller must hold the lock of the checkout (only_one_at_a_time).
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

original=$1 copy=$2
bin=$("$original" --bindir) lib=$("$original" --pkglibdir) share=$("$original" --sharedir) include=$("$original" --includedir-server)

# The common parent directory corresponds to the root of the copy.
top=$bin
for directory in "$lib" "$share"; do
    while [ "${directory#"$top"/}" = "$directory" ]; do top=${top%/*}; done
done

place() { printf '%s' "$copy${1#"$top"}"; }
marker=$copy/made-of
# A library that was added later, such as a procedural language, must also be in the copy.
libraries=$(find "$lib/" -maxdepth 1 -name '*.so' ! -name 'pg_cache*' -printf '%f\n' | sort | cksum)
made_of="$original $("$original" --version) $(stat -c %Y "$bin/postgres") $libraries"

if [ "$(cat "$marker" 2>/dev/null)" != "$made_of" ]; then
    rm -rf "$copy"
    mkdir -p "$(place "$bin")" "$(place "$lib")" "$(place "$share")"
    cp -L "$bin"/* "$(place "$bin")"
    cp -rs "$lib/." "$(place "$lib")"
    cp -rs "$share/." "$(place "$share")"
    # A server does not need the headers. The link makes the output of the copy's pg_config correct.
    case $include in
    "$top"/*) mkdir -p "$(dirname "$(place "$include")")" && ln -s "$include" "$(place "$include")" ;;
    esac
    # A pg_cache in the original installation must not be mistaken for the one under test.
    find "$copy" -name 'pg_cache*' ! -path "$copy" -delete
    chmod -R a+rX "$copy"
    printf '%s\n' "$made_of" >"$marker"
fi
printf '%s/pg_config\n' "$(place "$bin")"
