#!/usr/bin/env bash
# A stage of make test-long and make release-check: installs the packages of make package in a bare Debian, which has
# neither Rust nor a compiler, uses, upgrades and removes them. There it also upgrades a cluster to a newer major with
# pg_upgrade. It also checks the content of the other packages.
#
# The bare system is a directory that debootstrap fills, once per checkout (.pg/debian), and each run uses a copy of it. bubblewrap
# starts processes in the copy; they end with the test. This takes root and the network.
#
#   tests/packages/run.sh      PG=15..18 chooses the server; make/test.sh sets it
#                              PG_CACHE_UPGRADE_TO="17 18" chooses the majors to which pg_upgrade leads, by default 18
# shellcheck disable=SC2317 # tests are called by name
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/../../make/lib.sh"
# shellcheck source=make/apt.sh
. "$ROOT/make/apt.sh"
choose_server
place_work_dir

is_root || { echo "skipped, not passed: only root can install packages, so run this as root"; exit; }
read -ra suites <<<"$(debian_suites "$PG")"
need_packages bwrap debootstrap rpm source
only_one_at_a_time
"$ROOT/make/package.sh"
packages=$ROOT/target/package/$PG
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | sed -n 1p)
next=${version%.*}.$((${version##*.} + 1))
name=postgresql-$PG-pg-cache

home=$(mktemp -d /tmp/pg_cache-packages.XXXXXX)
chmod 755 "$home"
trap 'rm -rf "$home"' EXIT

passed=0 failed=0
# Runs a test. It may end with any status at any command, so it runs in a shell of its own, where `set -e` counts.
check() { # test, arguments...
    local status=0
    set +e
    (set -e && "$@") >"$home/output" 2>&1
    status=$?
    set -e
    if [ "$status" = 0 ]; then passed=$((passed + 1)) && echo "test packages/$* ... ok"; else
        failed=$((failed + 1))
        echo "test packages/$* ... FAILED"
        sed 's/^/    /' "$home/output"
    fi
}

# Fills .pg/debian/SUITE with the smallest Debian, unless it is there.
bare_debian() { # suite
    local base=$PG_CACHE_DIR/debian/$1 mirror
    [ -f "$base.complete" ] && return
    mirror=$(debian_mirror)
    rm -rf "$base"
    mkdir -p "$base"
    # A newer suite has no script of its own in debootstrap. All of them are set up like sid.
    debootstrap --variant=minbase "$1" "$base" "$mirror" sid >"$PG_CACHE_DIR/log/debootstrap-$1.log" 2>&1 ||
        die "Debian $1 cannot be fetched: read .pg/log/debootstrap-$1.log"
    touch "$base.complete"
}

# Makes a fresh copy of the bare system, with the files that its tests need.
copy_bare_debian() { # suite
    local root=$home/root
    bare_debian "$1"
    cp -a "$PG_CACHE_DIR/debian/$1" "$root"
    # The machine's own settings for apt, such as a proxy or an old copy of the archive, apply there, too.
    apt-config dump | grep -E '^Acquire::((http|https)::|Check-Valid-Until )' >"$root/etc/apt/apt.conf.d/machine" || :
    # bwrap would create the directories above a mounted one for root only.
    mkdir -p "$root/packages" "$root$PG_CACHE_DIR"
    cp "$packages/${name}"_*.deb "$home/next.deb" "$root/packages/"
    cp -rL "$packages/image" "$root/packages/"
    cp "$ROOT/README.md" "$ROOT/examples/shop.sql" "$ROOT/tests/packages/inside.sh" "$root/packages/"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
}

# Runs a test of tests/packages/inside.sh in the copy. The files of the checkout's other servers (.pg) are at their
# own path, because their programs find their libraries there.
in_bare_debian() { # test, arguments...
    bwrap --bind "$home/root" / --dev /dev --proc /proc --perms 1777 --tmpfs /tmp --ro-bind "$PG_CACHE_DIR" "$PG_CACHE_DIR" \
        --unshare-pid --die-with-parent --chdir / --clearenv --setenv PATH /usr/sbin:/usr/bin:/sbin:/bin \
        --setenv DEBIAN_FRONTEND noninteractive --setenv LC_ALL C.UTF-8 -- bash /packages/inside.sh "$PG" "$version" "$next" "$@"
}

pg_upgrade_to() { # major
    local new
    new=$(PG=$1 PG_CONFIG='' "$ROOT/make/build.sh" release)
    in_bare_debian pg_upgrade "$("$new" --bindir)"
}

# Makes the package of the next version: the same files, with the version in all of them and an upgrade script.
make_next() {
    local root=$home/next share file
    dpkg-deb -R "$packages/${name}"_*.deb "$root"
    share=$root/usr/share/postgresql/$PG/extension
    sed -i "s/^Version: .*/Version: $next-1/" "$root/DEBIAN/control"
    sed -i "s/'$version'/'$next'/" "$share/pg_cache.control"
    mv "$share/pg_cache--$version.sql" "$share/pg_cache--$next.sql"
    echo "SELECT pgcache.require_library();" >"$share/pg_cache--$version--$next.sql"
    file=$root/usr/lib/postgresql/$PG/lib/pg_cache.so
    LC_ALL=C sed -i "s/${version//./\\.}/$next/g" "$file"
    rm "$root/DEBIAN/md5sums"
    dpkg-deb --root-owner-group --build "$root" "$home/next.deb"
}

rpm_has_its_files() {
    local rpm=("$packages"/*.rpm) root=$home/rpm
    rpm -qp --requires "${rpm[@]}" | grep -qx "postgresql$PG-server"
    # The database of a system that is not based on RPM is empty, so the dependencies are left out.
    mkdir "$root"
    rpm --root "$root" --initdb
    rpm --root "$root" -i --nodeps --ignorearch "${rpm[@]}"
    test -x "$root/usr/pgsql-$PG/lib/pg_cache.so"
    cmp "$root/usr/pgsql-$PG/share/extension/pg_cache.control" "$packages/image/share/extension/pg_cache.control"
    test -s "$root/usr/share/licenses/postgresql$PG-pg_cache/LICENSE"
    rpm --root "$root" -e "postgresql$PG-pg_cache" --nodeps
    test ! -e "$root/usr/pgsql-$PG/lib/pg_cache.so"
}

# The zip has every file of the checkout's last commit, and its META.json names files that it contains.
zip_is_the_source() {
    local zip=$packages/pg_cache-$version.zip
    python3 -m zipfile -e "$zip" "$home/zip"
    (cd "$ROOT" && git ls-tree -r --name-only HEAD | sort) >"$home/expected"
    (cd "$home/zip/pg_cache-$version" && find . -type f -printf '%P\n' | sort) >"$home/found"
    diff "$home/expected" "$home/found"
    python3 - "$home/zip/pg_cache-$version" <<'PYTHON'
import json, os, sys
meta = json.load(open(os.path.join(sys.argv[1], "META.json")))
for module in meta["provides"].values():
    assert all(os.path.exists(os.path.join(sys.argv[1], module[key])) for key in ("file", "docfile")), module
PYTHON
}

image_has_its_layout() {
    (cd "$packages/image" && find . -type f -printf '%P\n' | sort | tr '\n' ' ') >"$home/layout"
    grep -qx "Containerfile lib/pg_cache.so licenses/LICENSE licenses/THIRD-PARTY share/extension/pg_cache--$version.sql share/extension/pg_cache.control " "$home/layout"
    [ "$(grep -c '^==== ' "$packages/image/licenses/THIRD-PARTY")" -gt 20 ]
}

check rpm_has_its_files
check zip_is_the_source
check image_has_its_layout
if [ "${#suites[@]}" = 0 ]; then echo "skipped, not passed: no Debian suite has PostgreSQL $PG, so its package was only built"
else
    make_next >/dev/null
    copy_bare_debian "${suites[0]}"
    check in_bare_debian package
    # Each major takes a release build of its own.
    for major in ${PG_CACHE_UPGRADE_TO-18}; do [ "$major" -le "$PG" ] || check pg_upgrade_to "$major"; done
fi
printf '\ntest result: %s. %d passed; %d failed\n' "$([ "$failed" = 0 ] && echo ok || echo FAILED)" "$passed" "$failed"
[ "$failed" = 0 ]
