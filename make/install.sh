#!/usr/bin/env bash
# make install PG_CONFIG=... puts the release build into that PostgreSQL; make uninstall PG_CONFIG=... removes it.
#
# The build is of the private installation first and copied from there: so building needs no rights in the
# target's directories, and `sudo make install` only copies when `make install` has built before it failed.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
place_work_dir

target=${PG_CONFIG:-$(command -v pg_config || :)}
[ -n "$target" ] && [ -x "$target" ] || die "name the PostgreSQL: make ${1:-install} PG_CONFIG=/path/to/pg_config"
case $(pg_major "$target") in 15 | 16 | 17 | 18) ;; *) die "$("$target" --version) is not supported: 15, 16, 17 and 18 are" ;; esac
export PG_CONFIG=$target
library=$("$target" --pkglibdir) scripts=$("$target" --sharedir)/extension
sudo_hint="run it as the owner of that directory: sudo make ${1:-install} PG_CONFIG=$target"
for directory in "$library" "$scripts"; do
    [ -d "$directory" ] || die "$directory, where $target says extensions go, does not exist: install PostgreSQL's server package"
done

case ${1:-install} in
install)
    built=$("$ROOT/make/build.sh" release)
    for directory in "$library" "$scripts"; do [ -w "$directory" ] || die "cannot write to $directory: $sudo_hint"; done
    # Not copied over: a running server has the old file mapped.
    rm -f "$library/pg_cache.so" "$scripts/pg_cache.control" "$scripts"/pg_cache--*.sql
    install -m 755 "$("$built" --pkglibdir)/pg_cache.so" "$library/"
    install -m 644 "$("$built" --sharedir)"/extension/pg_cache{.control,--*.sql} "$scripts/"
    say "installed in $library and $scripts"
    say "next: ALTER SYSTEM SET shared_preload_libraries = 'pg_cache'; restart the server; CREATE EXTENSION pg_cache;"
    ;;
uninstall)
    for directory in "$library" "$scripts"; do [ -w "$directory" ] || die "cannot write to $directory: $sudo_hint"; done
    rm -f "$library/pg_cache.so" "$scripts/pg_cache.control" "$scripts"/pg_cache--*.sql
    say "removed from $library and $scripts; take pg_cache out of shared_preload_libraries before the next start"
    ;;
*) die "make/install.sh: unknown command '$1'" ;;
esac
