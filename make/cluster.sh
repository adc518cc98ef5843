#!/usr/bin/env bash
# The private cluster in .pg: make/cluster.sh check-port PORT | start PORT PG_CONFIG | stop | psql [ARGUMENT...]
#
# A test bench, not a place for data: whoever is on this machine is trusted.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
place_work_dir

data=$PG_CACHE_DIR/data
log=$data/server.log
# The installation that the cluster was last started with, by its directory of programs.
bin=$(cat "$PG_CACHE_DIR/bin" 2>/dev/null || :)

running() { [ -n "$bin" ] && [ -f "$data/postmaster.pid" ] && as_server "$bin/pg_ctl" status -D "$data" >/dev/null 2>&1; }
running_port() { as_server sed -n 4p "$data/postmaster.pid"; }

check_port() { # port
    [[ $1 =~ ^[0-9]{4,5}$ ]] && [ "$1" -ge 1024 ] && [ "$1" -le 65535 ] ||
        die "PORT=$1 is not a port number: choose one from 1024 to 65535"
    if running && [ "$(running_port)" = "$1" ]; then return; fi
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
        die "port $1 is taken by another program: run make run PORT=$(($1 < 65535 ? $1 + 1 : $1 - 1))"
    fi
}

# The socket's path may not exceed 107 bytes, and its directory is a list to the server: no commas, and no
# blanks for the sake of whoever reads .pg/env without a shell.
socket_dir() {
    local directory=$PG_CACHE_DIR/socket
    if [[ $directory =~ [^A-Za-z0-9/._+-] ]] || [ "${#directory}" -gt 80 ]; then
        directory=/tmp/pg_cache-$(printf %s "$PG_CACHE_DIR" | cksum | cut -d' ' -f1)
    fi
    printf '%s' "$directory"
}

owned_dir() { # directory mode
    if is_root; then install -d -o postgres -m "$2" "$1"; else install -d -m "$2" "$1"; fi
}

start() { # port pg_config
    local port=$1 socket
    if running; then
        # A server keeps the library it was started with.
        [ "$(running_port)" = "$port" ] && [ ! "$("$2" --pkglibdir)/pg_cache.so" -nt "$data/postmaster.pid" ] && return
        stop
    fi
    bin=$("$2" --bindir)
    printf '%s\n' "$bin" >"$PG_CACHE_DIR/bin"
    socket=$(socket_dir)
    owned_dir "$socket" 755
    if [ ! -f "$data/PG_VERSION" ]; then
        # An interrupted initdb leaves a directory it would refuse to use again.
        rm -rf "$data"
        owned_dir "$data" 700
        step "creating the cluster in .pg" initdb as_server "$bin/initdb" --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 -D "$data" ||
            { rm -rf "$data"; die_after initdb "the cluster cannot be created"; }
        as_server tee -a "$data/postgresql.conf" >/dev/null <<<"include 'pg_cache.conf'"
    fi
    as_server tee "$data/pg_cache.conf" >/dev/null <<EOF
port = $port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$socket'
shared_preload_libraries = 'pg_cache'
max_prepared_transactions = 20
wal_level = logical
max_wal_size = 2GB
EOF
    as_server "$bin/pg_ctl" start --wait --silent -D "$data" -l "$log" </dev/null >/dev/null 2>&1 ||
        die "the server does not start: $(as_server grep -E 'FATAL|ERROR|PANIC' "$log" | tail -n 1 | cut -c1-160) (the whole log: .pg/data/server.log)"
    cat >"$PG_CACHE_DIR/env" <<EOF
PGHOST=$socket
PGPORT=$port
PGUSER=postgres
PGDATABASE=shop
EOF
}

stop() {
    running || return 0
    as_server "$bin/pg_ctl" stop --wait --silent -m fast -D "$data" || die "the server does not stop: see .pg/data/server.log"
}

# psql as the superuser, in the shop unless told otherwise.
session() { # argument...
    running || die "no server is running here: start it with make run"
    set -a
    # shellcheck source=/dev/null
    . "$PG_CACHE_DIR/env"
    exec "$bin/psql" "$@"
}

case ${1:-} in
check-port) check_port "$2" ;;
start) start "$2" "$3" ;;
stop) stop ;;
psql) session "${@:2}" ;;
*) die "make/cluster.sh: unknown command '${1:-}'" ;;
esac
