#!/usr/bin/env bash
# The private cluster in .pg: make/cluster.sh check-port PORT | start PORT PG_CONFIG | stop | remove | psql
# [ARGUMENT...]
#
# The cluster is for tests, not for data: it trusts every account on this machine. If redis-server is installed, a
# private Redis on a Unix socket runs beside the cluster, and pg_cache writes to it. A script that calls `start` must hold
# the lock of the checkout (only_one_at_a_time).
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"

# Without .pg there is nothing to stop, remove or connect to. These commands must not create it.
if [ ! -e "$ROOT/.pg" ]; then
    case ${1:-} in
    stop) say "no server is running here"; exit ;;
    remove) exit ;;
    psql) die "no server is running here: start it with make run" ;;
    esac
fi
place_work_dir
data=$PG_CACHE_DIR/data
log=$data/server.log

# Prints the process ID of this cluster's postmaster, or fails if none is running. The command line must name this data
# directory, because another process may have the same ID now. (A zombie, whose parent has not waited for it yet, has no
# command line.)
postmaster() {
    local pid
    pid=$(as_server head -n 1 "$data/postmaster.pid" 2>/dev/null) || return
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- "$data" && printf '%s' "$pid"
}
running() { [ -d "$data" ] && [ -n "$(postmaster)" ]; }
# Prints the port of the running server: line 4 of its file postmaster.pid.
running_port() { as_server sed -n 4p "$data/postmaster.pid"; }

# Exits unless the port is free, or belongs to this cluster.
check_port() { # port
    if ! [[ $1 =~ ^[1-9][0-9]{3,4}$ ]] || [ "$1" -lt 1024 ] || [ "$1" -gt 65535 ]; then
        die "PORT=$1 is not a port number: choose one from 1024 to 65535"
    fi
    if running && [ "$(running_port)" = "$1" ]; then return; fi
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
        die "port $1 is taken by another program: run make run PORT=$(($1 < 65535 ? $1 + 1 : $1 - 1))"
    fi
}

# Prints the directory of the server's socket. The path of a socket is limited to 107 bytes; 80 for the directory leave
# room for the name. The server reads its directory setting as a list, so it must have no commas. It must have no blanks
# either, for programs that read .pg/env without a shell. A directory that does not meet this is replaced by one in
# /tmp.
socket_dir() {
    local directory=$PG_CACHE_DIR/socket
    if [[ $directory =~ [^A-Za-z0-9/._+-] ]] || [ "${#directory}" -gt 80 ]; then
        directory=/tmp/pg_cache-$(printf %s "$PG_CACHE_DIR" | cksum | cut -d' ' -f1)
    fi
    printf '%s' "$directory"
}

# Creates a directory that belongs to the servers' account.
owned_dir() { # directory mode
    if is_root; then install -d -o postgres -m "$2" "$1"; else install -d -m "$2" "$1"; fi
}

# Creates the cluster, and removes an unfinished one.
create() { # directory of programs
    local part=$data.part
    # initdb creates the cluster beside its final place, and a rename completes it. So an interrupted one is created
    # again.
    rm -rf "$part" "$data"
    owned_dir "$part" 700
    step "creating the cluster in .pg" initdb as_server "$1/initdb" --auth=trust --username=postgres --encoding=UTF8 --locale=C.UTF-8 -D "$part" ||
        die_after initdb "the cluster cannot be created"
    as_server tee -a "$part/postgresql.conf" >/dev/null <<<"include 'pg_cache.conf'"
    mv "$part" "$data"
}

# Prints the process ID of the private Redis, or fails if none is running. The title of the process names the socket.
redis_process() {
    local socket pid
    socket=$(socket_dir)
    pid=$(cat "$socket/redis.pid" 2>/dev/null) || return
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$socket/redis.sock" && printf '%s' "$pid"
}

# Starts the private Redis unless it is running, and waits until it listens. Fails if there is no redis-server, or if it
# does not start: Redis is optional. It keeps nothing on disk.
start_redis() {
    local socket deadline=$((SECONDS + 10))
    command -v redis-server >/dev/null || return
    redis_process >/dev/null && return
    socket=$(socket_dir)
    as_server rm -f "$socket/redis.sock" "$socket/redis.pid"
    as_server redis-server --daemonize yes --port 0 --unixsocket "$socket/redis.sock" --unixsocketperm 777 --dir "$socket" \
        --pidfile "$socket/redis.pid" --save '' --appendonly no --maxmemory 64mb --maxmemory-policy allkeys-lru </dev/null >/dev/null 2>&1 || return
    until [ -S "$socket/redis.sock" ]; do
        [ "$SECONDS" -lt "$deadline" ] || return
        sleep 0.05
    done
}

# Stops the private Redis, if it is running, and waits for its end.
stop_redis() {
    local pid deadline=$((SECONDS + 10))
    pid=$(redis_process) || return 0
    as_server kill -TERM "$pid"
    while redis_process >/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "the private Redis (process $pid) does not stop: kill it"
        sleep 0.05
    done
    as_server rm -f "$(socket_dir)/redis.sock" "$(socket_dir)/redis.pid"
}

# Starts the cluster, and creates it if there is none. Writes .pg/env and .pg/bin for psql. A running server with the
# same port, started after the library was built, is left as it is; any other is stopped first.
start() { # port pg_config
    local port=$1 bin socket redis_url='' libraries=pg_cache
    bin=$("$2" --bindir)
    if running; then
        # A running server keeps the library that it was started with.
        if [ "$(running_port)" = "$port" ] && [ ! "$("$2" --pkglibdir)/pg_cache.so" -nt "$data/postmaster.pid" ]; then
            start_redis || :
            return
        fi
        stop
    fi
    need_server_account
    [ -d "$data" ] || create "$bin"
    printf '%s\n' "$bin" >"$PG_CACHE_DIR/bin"
    socket=$(socket_dir)
    owned_dir "$socket" 755
    if start_redis; then redis_url=unix://$socket/redis.sock; fi
    # The end of the tour shows cache_advise(), which reads pg_stat_statements. Not every server has the contrib modules.
    [ ! -f "$("$2" --pkglibdir)/pg_stat_statements.so" ] || libraries='pg_cache, pg_stat_statements'
    as_server tee "$data/pg_cache.conf" >/dev/null <<EOF
port = $port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$socket'
shared_preload_libraries = '$libraries'
max_prepared_transactions = 20
wal_level = logical
max_wal_size = 2GB
pg_cache.redis_url = '$redis_url'
EOF
    # If RUST_BACKTRACE is set, the details of errors contain a backtrace.
    unset RUST_BACKTRACE
    as_server "$bin/pg_ctl" start --wait --silent -D "$data" -l "$log" </dev/null >/dev/null 2>&1 || {
        stop_redis
        die "the server does not start: $(as_server grep -E 'FATAL|ERROR|PANIC' "$log" | tail -n 1 | cut -c1-160) (the whole log: .pg/data/server.log)"
    }
    cat >"$PG_CACHE_DIR/env" <<EOF
PGHOST=$socket
PGPORT=$port
PGUSER=postgres
PGDATABASE=shop
EOF
}

# A fast shutdown: the server ends the sessions and writes a checkpoint. Waits for its end, at most 60 seconds. Redis ends
# after the server.
stop() {
    local pid deadline=$((SECONDS + 60))
    pid=$(postmaster) || { stop_redis; return 0; }
    as_server kill -INT "$pid"
    while running; do
        [ "$SECONDS" -lt "$deadline" ] || die "the server (process $pid) does not stop: see .pg/data/server.log"
        sleep 0.05
    done
    stop_redis
}

# Runs psql as the superuser, in the database shop unless the arguments name another.
session() { # argument...
    running || die "no server is running here: start it with make run"
    set -a
    # shellcheck source=/dev/null
    . "$PG_CACHE_DIR/env"
    # Commands that psql runs find the same psql.
    PATH=$(cat "$PG_CACHE_DIR/bin"):$PATH
    exec psql "$@"
}

case ${1:-} in
check-port) check_port "$2" ;;
start) start "$2" "$3" ;;
stop)
    running || say "no server is running here"
    stop
    ;;
remove)
    stop
    rm -rf "$(socket_dir)" "$data"
    ;;
psql) session "${@:2}" ;;
*) die "make/cluster.sh: unknown command '${1:-}'" ;;
esac
