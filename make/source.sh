#!/usr/bin/env bash
# make/source.sh MAJOR or RELEASE (15 or 15.20): prints the path of PostgreSQL's source tree, taken from Debian's source
# package. A major stands for its newest release that is available. The tree is fetched once, into .pg/source/RELEASE.
# Progress is on stderr: file descriptor 3 is the original stdout, for the path alone.
#
# Debian's patches are left out. They change no test, and with them `make install` writes into the system's PostgreSQL,
# with every prefix.
#
# Exit status 2: there is no such source. The reason is on stderr.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=make/apt.sh
. "$ROOT/make/apt.sh"
exec 3>&1 >&2
place_work_dir

wanted=${1:-}
[[ $wanted =~ ^(1[5-8])(\.[0-9]+)?$ ]] || die "make/source.sh: which PostgreSQL? Give a major or a release, like 15 or 15.20"
major=${BASH_REMATCH[1]}
sources=$PG_CACHE_DIR/source
part=$sources/$wanted.part # everything unfinished is in here; the next run removes it
none=$sources/$wanted.none # records that the mirror does not have the source, so that it is asked only once

# Prints the path of the newest unpacked tree that is wanted, or nothing.
unpacked() { find "$sources" -maxdepth 1 -name "$major.*" -type d 2>/dev/null | grep -E "/$wanted(\.[0-9]+)?$" | sort -V | tail -n 1; }

# Fetches and unpacks the source from $mirror. Succeeds also if no suite has it. A mirror may lack files of a version
# that the archive lists (those of security fixes), so this tries all versions, the newest first.
fetch() { # suite...
    local apt=$part/apt suite version release
    for suite in "$@"; do
        rm -rf "$apt"
        private_apt "$apt"
        {
            apt_source deb-src "$mirror" "$suite"
            # An up-to-date machine has the latest release, which may be a security fix that only these sources have.
            debian_updates "$suite" | while read -r uri updates; do apt_source deb-src "$uri" "$updates"; done
        } >"$apt/sources.list"
        apt-get -q -c "$apt/conf" update || return
        while read -r version; do
            release=${version%%-*}
            [ "$wanted" = "$major" ] || [ "$wanted" = "$release" ] || continue
            mkdir "$part/$release"
            if (cd "$part/$release" && apt-get -q -c "$apt/conf" source --download-only "postgresql-$major=$version" 2>&1) | tee "$part/said"; then
                dpkg-source --skip-patches -x "$part/$release"/*.dsc "$part/tree" || return
                chmod -R a+rX "$part/tree"
                mv "$part/tree" "$sources/$release"
                return
            fi
            grep -q '404  *Not Found' "$part/said" || return
        done < <(apt-cache -c "$apt/conf" showsrc --only-source "postgresql-$major" | sed -n 's/^Version: //p' | sort -rVu)
    done
}

if [ -z "$(unpacked)" ] && [ ! -f "$none" ]; then
    only_one_at_a_time
    read -ra suites <<<"$(debian_suites "$major")"
    [ "${#suites[@]}" != 0 ] || { say "no Debian suite has the source of PostgreSQL $major"; exit 2; }
    mirror=$(debian_mirror) || mirror=
    [ -n "$mirror" ] || { say "PostgreSQL's source comes from a Debian mirror, but apt's sources name no mirror"; exit 2; }
    need_packages source
    need_disk 500 "unpacking PostgreSQL's source"
    rm -rf "$part"
    mkdir -p "$part"
    step "fetching the source of PostgreSQL $wanted" "source-$wanted" fetch "${suites[@]}" ||
        die_after "source-$wanted" "the source of PostgreSQL $wanted cannot be fetched"
    rm -rf "$part"
    [ -n "$(unpacked)" ] || touch "$none"
fi
[ ! -f "$none" ] || { say "the Debian mirror has no source of PostgreSQL $wanted (to ask the mirror again, remove $none)"; exit 2; }
unpacked >&3
