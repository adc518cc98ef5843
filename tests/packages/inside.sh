#!/usr/bin/env bash
# Runs in the bare Debian of tests/packages/run.sh. Ends with an error at the first step that goes wrong.
#
#   inside.sh MAJOR VERSION NEXT package           installs the package and a server, plays the first screen of the
#                                                  README, installs the next version over the running server, removes it
#   inside.sh MAJOR VERSION NEXT pg_upgrade BIN    after that, upgrades a cluster to the server with the programs in BIN,
#                                                  and restores a dump
# VERSION is that of the package, NEXT that of /packages/next.deb, which run.sh makes of it: the same files with another version.
set -Eeuo pipefail
pg=$1 version=$2 next=$3
name=postgresql-$pg-pg-cache
library=/usr/lib/postgresql/$pg/lib/pg_cache.so
trap 'echo "FAILED in line $LINENO" >&2' ERR

say() { printf -- '-- %s\n' "$*"; }
as_postgres() { runuser -u postgres -- "$@"; }
sql() { as_postgres psql -X -A -t -v ON_ERROR_STOP=1 "$@"; }
expect() { # pattern, command...
    local output status=0
    output=$("${@:2}" 2>&1) || status=$?
    grep -qF -- "$1" <<<"$output" || { printf 'expected: %s\ngot, with status %d: %s\n' "$1" "$status" "$output" >&2; return 1; }
}
within_a_minute() { # line that the command must print, command...
    for _ in {1..600}; do if [ "$("${@:2}")" = "$1" ]; then return; fi; sleep 0.1; done
    printf 'expected within a minute: %s\ngot: %s\n' "$1" "$("${@:2}")" >&2
    return 1
}
restart() { pg_ctlcluster "$pg" main restart; }

package() {
    say "a bare system"
    for program in cargo rustc cc psql; do if command -v "$program"; then return 1; fi; done
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "/packages/${name}_$version-1"_*.deb >/var/log/install 2>&1 || { tail -n 20 /var/log/install; exit 1; }
    say "installed: $(dpkg-query -W -f '${Package} ${Version}, ' "$name" "postgresql-$pg")"

    say "all libraries are there"
    ldd "$library" | tee /tmp/libraries
    if grep 'not found' /tmp/libraries; then return 1; fi
    [ "$(stat -c '%U %a' "$library")" = "root 644" ]

    pg_lsclusters -h | grep -q "^$pg main" || pg_createcluster "$pg" main
    pg_ctlcluster "$pg" main start || pg_ctlcluster "$pg" main status
    say "without preloading, the hint has the commands"
    expect "shared_preload_libraries = 'pg_cache'" sql -c 'CREATE EXTENSION pg_cache'
    sql -c "ALTER SYSTEM SET shared_preload_libraries = 'pg_cache'"
    restart
    sql -c 'CREATE EXTENSION pg_cache' -c 'CREATE DATABASE shop' -c 'CREATE DATABASE other'

    say "the first screen of the README"
    sql -q -d shop -f /packages/shop.sql
    sql -d shop -c 'CREATE EXTENSION pg_cache'
    sed -n '/^```$/,/^```$/p' /packages/README.md | grep '^shop=# ' | head -n 4 >/packages/screen
    [ "$(wc -l </packages/screen)" = 4 ]
    {
        while IFS= read -r line; do
            # "shop=# STATEMENT;  -- 192 rows   STATUS"
            statement=${line#shop=# } statement=${statement%%;*}
            case $statement in
            SELECT*) printf "SELECT count(*) || ' rows   ' FROM (%s) AS shown;\nSELECT cache_status();\n" "$statement" ;;
            *) printf '%s;\n' "$statement" ;;
            esac
        done </packages/screen
    } >/packages/screen.sql
    sql -q -d shop -f /packages/screen.sql | sed 'N;s/   \n/   /' | tee /packages/got
    grep -o '\-\- [0-9]* rows   .*' /packages/screen | sed 's/-- //' | diff /packages/got -

    say "the next version over the running server"
    sql -c "SELECT cache_create_space('kept')" -c "SELECT cache_set_text('k', 'v')"
    # A session stays open while the package is replaced.
    mkfifo /packages/pipe
    chmod 666 /packages/pipe
    sql -f /packages/pipe >/packages/session 2>&1 &
    session=$!
    exec 7>/packages/pipe
    echo "SELECT cache_get_text('k');" >&7
    until grep -qx v /packages/session; do sleep 0.1; done
    dpkg -i /packages/next.deb >/dev/null
    echo "SELECT cache_get_text('k') || ' after';" >&7
    exec 7>&-
    wait "$session"
    grep -qx 'v after' /packages/session
    expect v sql -c "SELECT cache_get_text('k')"
    expect "version $next of pg_cache needs a newer library than the loaded one" sql -d other -c 'CREATE EXTENSION pg_cache'
    expect "Restart the server, and repeat the command." sql -c 'ALTER EXTENSION pg_cache UPDATE'
    restart
    expect t sql -c "SELECT cache_get_text('k') IS NULL"
    expect t sql -c "SELECT cache_set_text('k', 'v', space => 'kept')"
    expect "$version" sql -c "SELECT extversion FROM pg_extension WHERE extname = 'pg_cache'"
    sql -c 'ALTER EXTENSION pg_cache UPDATE'
    expect "$next" sql -c "SELECT extversion FROM pg_extension WHERE extname = 'pg_cache'"
    expect v sql -c "SELECT cache_get_text('k', 'kept')"

    say "back to the first version, over an extension of the newer one"
    dpkg -i "/packages/${name}_$version-1"_*.deb >/dev/null 2>&1
    restart
    expect "Install version $next of pg_cache or a later one, and restart the server." sql -c "SELECT cache_get_text('k', 'kept')"
    dpkg -i /packages/next.deb >/dev/null
    restart
    expect t sql -c "SELECT cache_set_text('k', 'v', space => 'kept')"

    say "removed, while the server runs"
    apt-get remove -y -qq "$name" >/dev/null 2>&1
    [ ! -e "$library" ]
    [ -z "$(find "/usr/share/postgresql/$pg/extension" -name 'pg_cache*')" ]
    # PostgreSQL looks for the file when a session calls a function for the first time. All other statements work.
    expect 'could not access file "' sql -c "SELECT cache_get_text('k', 'kept')"
    expect 1 sql -c "CREATE TABLE t (i int)" -c "INSERT INTO t VALUES (1)" -c "SELECT i FROM t"
    sql -c 'DROP EXTENSION pg_cache' -c 'ALTER SYSTEM RESET shared_preload_libraries'
    restart
    expect 1 sql -c 'SELECT 1'

    if [ "$pg" -ge 18 ]; then
        say "the layout of an extension image, mounted beside the server"
        sql -c "ALTER SYSTEM SET extension_control_path = '/packages/image/share:\$system'" \
            -c "ALTER SYSTEM SET dynamic_library_path = '/packages/image/lib:\$libdir'" -c "ALTER SYSTEM SET shared_preload_libraries = 'pg_cache'"
        restart
        sql -d other -c 'CREATE EXTENSION pg_cache'
        expect t sql -d other -c "SELECT cache_set_text('k', 'v')"
    fi
    pg_ctlcluster "$pg" main stop
}

pg_upgrade() { # directory of the new programs
    local old=/usr/lib/postgresql/$pg/bin new=$1 home=/var/lib/postgresql/upgrade port=54700 to
    to=$("$new/pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    say "from $("$old/postgres" --version) to $("$new/postgres" --version)"
    dpkg -i "/packages/${name}_$version-1"_*.deb >/dev/null 2>&1
    as_postgres mkdir "$home"
    at() { sql -q -h "$home" -p "$port" "$@"; }
    server() { as_postgres "$1/pg_ctl" -D "$2" -w -s -l "$home/log" -o "-p $port -k $home -c listen_addresses=" "$3" || { cat "$home/log"; return 1; }; }
    as_postgres "$old/initdb" -A trust --locale=C --no-sync -D "$home/from" >/dev/null
    # Since 18, initdb switches checksums on. pg_upgrade wants the same in both clusters.
    local checksums=()
    if [ "$to" -ge 18 ]; then checksums=(--no-data-checksums); fi
    as_postgres "$new/initdb" -A trust --locale=C --no-sync -D "$home/to" "${checksums[@]}" >/dev/null
    local settings="shared_preload_libraries = 'pg_cache'
pg_cache.table_size = '64MB'"
    echo "$settings" >>"$home/from/postgresql.conf"
    server "$old" "$home/from" start
    at -c 'CREATE EXTENSION pg_cache' -c 'CREATE ROLE reader' -c 'CREATE TABLE t (i int)' -c "SELECT cache_create_space('s', default_ttl => '7 min')" \
        -c "SELECT cache_grant('s', 'reader', 'read')" -c "SELECT cache_watch('t')" -c "SELECT cache_set_text('k', 'old', tags => '{t}')" \
        -c "SELECT cache_create_space('saved', tiers => 'table')" -c "SELECT cache_set_text('k', 'old', space => 'saved')" >/dev/null
    # A value that is only in a table. pg_upgrade copies the file of the table.
    saved() { at -d "$1" -c "SELECT cache_get_text('k', 'saved'), cache_status()"; }
    table_bytes() { at -d "$1" -c "SELECT sum(pg_relation_size(format('pgcache.segment_%s', n)::regclass)) FROM generate_series(1, 8) AS n"; }
    within_a_minute 'old|hit: table' saved postgres
    [ "$(table_bytes postgres)" -gt 0 ]
    as_postgres "$new/pg_dump" -h "$home" -p "$port" -d postgres -f "$home/dump.sql"
    server "$old" "$home/from" stop
    upgrade() { as_postgres sh -c "cd '$home' && exec '$new/pg_upgrade' -b '$old' -B '$new' -d '$home/from' -D '$home/to' -s '$home' -p 54701 -P 54702"; }
    say "the new cluster must preload the library"
    expect "Your installation references loadable libraries that are missing" upgrade
    cat "$home"/to/pg_upgrade_output.d/*/loadable_libraries.txt
    echo "$settings" >>"$home/to/postgresql.conf"
    upgrade >/tmp/upgrade 2>&1 || { tail -n 5 /tmp/upgrade "$home"/to/pg_upgrade_output.d/*/log/*.log; return 1; }
    server "$new" "$home/to" start
    works_in() { # database
        expect 's|00:07:00' at -d "$1" -c "SELECT name, default_ttl FROM cache_spaces WHERE name = 's'"
        expect 's|reader|read' at -d "$1" -c "SELECT space, grantee, privilege FROM cache_grants"
        expect t at -d "$1" -c "SELECT cache_get_text('k') IS NULL"
        # No row of the old server is a value, and the worker removes the rows. No value has been saved yet.
        expect t at -d "$1" -c "SELECT cache_get_text('k', 'saved') IS NULL"
        within_a_minute 0 table_bytes "$1"
        expect t at -d "$1" -c "SELECT cache_set_text('k', 'new', tags => '{t}')"
        at -d "$1" -c 'INSERT INTO t VALUES (1)'
        expect 't|' at -d "$1" -c "SELECT cache_get_text('k') IS NULL, cache_status()"
        expect t at -d "$1" -c "SELECT cache_set_text('k', 'new', space => 'saved')"
        within_a_minute 'new|hit: table' saved "$1"
        [ "$(at -d "$1" -c "SELECT count(*) FROM cache_check()")" = 0 ]
    }
    say "the upgraded cluster"
    works_in postgres
    say "a dump of the old server, restored in the new one"
    at -c 'CREATE DATABASE restored TEMPLATE template0'
    at -d restored -f "$home/dump.sql" >/dev/null
    works_in restored
    server "$new" "$home/to" stop
    rm -rf "$home"
}

"$4" "${@:5}"
