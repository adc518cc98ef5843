#!/usr/bin/env bash
# make install PG_CONFIG=... installs the release build into that PostgreSQL; make uninstall PG_CONFIG=... removes it.
#
# The build goes to the private installation first and is copied from there. So building needs no rights in the target's
# directories. If `make install` lacks these rights, it stops after the build, and `sudo make install` only copies.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

target=${PG_CONFIG:-$(type -P pg_config || :)}
[ -n "$target" ] || die "name the PostgreSQL: make ${1:-install} PG_CONFIG=/path/to/pg_config"
PG_CONFIG=$target
choose_server
place_work_dir
only_one_at_a_time
target=$PG_CONFIG
# A build as root would create files in the checkout that its owner cannot change.
[ -z "${SUDO_USER:-}" ] || export PG_CACHE_NO_BUILD="there is no finished build: run make ${1:-install} PG_CONFIG=$target as $SUDO_USER first, then again with sudo"
library=$("$target" --pkglibdir) scripts=$("$target" --sharedir)/extension
sudo_hint="run it as the owner of that directory: sudo make ${1:-install} PG_CONFIG=$target"
for directory in "$library" "$scripts"; do
    [ -d "$directory" ] || die "$directory, the directory for extensions according to $target, does not exist: install PostgreSQL's server package"
done

case ${1:-install} in
install)
    built=$("$ROOT/make/build.sh" release)
    for directory in "$library" "$scripts"; do [ -w "$directory" ] || die "cannot write to $directory: $sudo_hint"; done
    # The old file is removed, not overwritten: a running server has it mapped.
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
