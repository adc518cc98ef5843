#!/usr/bin/env bash
# make package: builds the packages of pg_cache for PostgreSQL $PG in target/package/$PG, from the release build:
#
# - postgresql-N-pg-cache_V_ARCH.deb, for Debian and Ubuntu. dpkg-deb builds it: every Debian system has that program, and
#   the package is a handful of files.
# - postgresqlN-pg_cache-V.ARCH.rpm, with the directories of the packages of PostgreSQL's own RPM repository, if rpmbuild is here
# - image/, the layout of an extension image for CloudNativePG, with its Containerfile
# - Containerfile, for an image of a server with the Debian package
# - pg_cache-V.zip, the source for PGXN, if this is a git checkout
#
#   make/package.sh        PG=15..18 chooses the server, PG_CONFIG an installation
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
only_one_at_a_time
need_rust
need_packages dpkg cc
built=$("$ROOT/make/build.sh" release)
cd "$ROOT"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed -n 1p)
summary=$(sed -n "s/^comment = '\(.*\)'/\1/p" pg_cache.control)
# A package with the date of the last commit is the same whenever it is built.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH
packages=$ROOT/target/package/$PG
work=$packages/work

# The libraries that pg_cache.so may need: those of every server. The compiler's library comes with the server's own libraries.
allowed='^(linux-vdso|libc|libm|libgcc_s|ld-linux-x86-64|ld-linux-aarch64)\.so'

# Prints the oldest version of libc that has all functions that the library uses.
libc_version() { objdump -T "$work/pg_cache.so" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1; }

# Collects the files that all packages contain.
collect() {
    local needed
    install -m 644 "$("$built" --pkglibdir)/pg_cache.so" "$work/"
    strip --strip-unneeded "$work/pg_cache.so"
    mkdir "$work/extension" "$work/licenses"
    install -m 644 "$("$built" --sharedir)"/extension/pg_cache{.control,--*.sql} "$work/extension/"
    needed=$(objdump -p "$work/pg_cache.so" | awk '$1 == "NEEDED" { print $2 }' | grep -vE "$allowed" || :)
    [ -z "$needed" ] || { echo "pg_cache.so needs libraries that a server may not have: $needed"; return 1; }
    install -m 644 LICENSE "$work/licenses/"
    third_party >"$work/licenses/THIRD-PARTY"
}

# Prints the licenses of the crates that the library contains.
third_party() {
    local name version license sources=${CARGO_HOME:-$HOME/.cargo}/registry/src file
    echo "pg_cache.so is built from these Rust crates, under the licenses below."
    # A line of cargo tree is "name vVERSION|LICENSE"; the crates of this repository also have a path.
    cargo tree --locked -p pg_cache -e normal,no-proc-macro --no-default-features --features "pg$PG" --prefix none --format '{p}|{l}' |
        sed 's/ (\*)$//' | grep -v '(/' | sort -u | while IFS='|' read -r name license; do
        version=${name##* v} name=${name%% *}
        printf '\n==== %s %s: %s\n' "$name" "$version" "$license"
        for file in "$sources"/*/"$name-$version"/{LICEN[CS]E*,COPYING*,NOTICE*}; do
            [ ! -f "$file" ] || { echo && cat "$file"; }
        done
    done
}

deb() {
    local name=postgresql-$PG-pg-cache root=$work/deb arch
    arch=$(dpkg --print-architecture)
    local doc=$root/usr/share/doc/$name
    mkdir -p "$root/usr/lib/postgresql/$PG/lib" "$root/usr/share/postgresql/$PG/extension" "$doc" "$root/DEBIAN"
    install -m 644 "$work/pg_cache.so" "$root/usr/lib/postgresql/$PG/lib/"
    install -m 644 "$work/extension/"* "$root/usr/share/postgresql/$PG/extension/"
    cat "$work/licenses/LICENSE" "$work/licenses/THIRD-PARTY" >"$doc/copyright"
    gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: $name
Version: $version-1
Architecture: $arch
Maintainer: the pg_cache authors
Section: database
Priority: optional
Installed-Size: $(du -sk --apparent-size "$root/usr" | cut -f1)
Depends: postgresql-$PG, libc6 (>= $(libc_version)), libgcc-s1
Description: $summary
 pg_cache keeps results of queries in shared memory and invalidates them
 exactly, without triggers and without a second system. The server must
 preload the library: see shared_preload_libraries.
CONTROL
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    chmod -R u=rwX,go=rX "$root"
    dpkg-deb --root-owner-group --build "$root" "$packages/${name}_$version-1_$arch.deb"
}

rpm_package() {
    local home=/usr/pgsql-$PG
    cat >"$work/pg_cache.spec" <<SPEC
Name: postgresql$PG-pg_cache
Version: $version
Release: 1
Summary: $summary
License: PostgreSQL
Requires: postgresql$PG-server
%global debug_package %{nil}
%global __strip /bin/true
%global __brp_strip /bin/true
%global _build_id_links none

%description
pg_cache keeps results of queries in shared memory and invalidates them
exactly, without triggers and without a second system. The server must
preload the library: see shared_preload_libraries.

%install
install -D -m 755 $work/pg_cache.so %{buildroot}$home/lib/pg_cache.so
install -d %{buildroot}$home/share/extension %{buildroot}/usr/share/licenses/%{name}
install -m 644 $work/extension/* %{buildroot}$home/share/extension/
install -m 644 $work/licenses/* %{buildroot}/usr/share/licenses/%{name}/

%files
$home/lib/pg_cache.so
$home/share/extension/pg_cache*
/usr/share/licenses/%{name}
SPEC
    rpmbuild -bb --define "_topdir $work/rpm" --define "_rpmdir $packages" --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
        "$work/pg_cache.spec"
}

image() {
    mkdir -p "$packages/image/lib" "$packages/image/share/extension" "$packages/image/licenses"
    install -m 755 "$work/pg_cache.so" "$packages/image/lib/"
    install -m 644 "$work/extension/"* "$packages/image/share/extension/"
    install -m 644 "$work/licenses/"* "$packages/image/licenses/"
    install -m 644 package/Containerfile.extension "$packages/image/Containerfile"
    install -m 644 package/Containerfile "$packages/"
}

pgxn() { git archive --format=zip --prefix="pg_cache-$version/" -o "$packages/pg_cache-$version.zip" HEAD; }

# `make/package.sh build` is the part of the work that runs in a process of its own, with its output in a log.
if [ "${1:-}" = build ]; then
    collect
    deb
    if command -v rpmbuild >/dev/null; then rpm_package; else echo "skipped: the RPM takes rpmbuild, which is in Debian's package rpm"; fi
    image
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then pgxn; else echo "skipped: the zip for PGXN takes a git checkout"; fi
    exit
fi

rm -rf "$packages"
mkdir -p "$work"
step "packaging pg_cache $version for PostgreSQL $PG" "package-$PG" "$0" build || die_after "package-$PG" "the packages cannot be built"
grep '^skipped: ' "$PG_CACHE_DIR/log/package-$PG.log" || :
rm -rf "$work"
say "packages are in target/package/$PG:"
(cd "$packages" && find . -type f ! -path './image/*' -printf '    %f  %k kB\n' | sort && say "    image/")
