# shellcheck shell=bash
# Functions that all scripts in make/ share: paths, messages, running a server, installing packages. Scripts source this
# file and never run it. The sourcing script must have set -euo pipefail. It must call place_work_dir before step,
# die_after, need_disk and the functions that call these, such as need_packages: they use PG_CACHE_DIR.

# If the calling process dies for any reason, this script receives SIGTERM and ends. Scripts that it has called do the
# same, and the command of in_background is killed. So no script keeps working for a make that is gone. exec keeps the
# process ID; the variable makes this happen once per process.
if [ "${PG_CACHE_MORTAL:-}" != $$ ] && [ -x "$0" ] && command -v setpriv >/dev/null; then
    PG_CACHE_MORTAL=$$ exec setpriv --pdeathsig TERM -- "$0" "$@"
fi

# Variables that the caller has set for other programs must not reach ours. PGSERVICE or PGHOSTADDR would lead psql to
# another server. CDPATH would make cd print a path. A narrow umask would lock out the servers' account (see as_server).
while read -r name; do
    case $name in PG | PG_CONFIG | PG_CACHE_* | PGRX_*) ;; *) unset "$name" ;; esac
done < <(compgen -e PG || :)
unset CDPATH
umask 022
# Some accounts do not have the directories of runuser and df in their path.
PATH=$PATH:/usr/sbin:/sbin

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PGRX_VERSION=0.18.1
TYPOS_VERSION=1.52.0

# Prints one line that says what is wrong and how to fix it, and exits with status 1.
die() { printf 'pg_cache: %s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*"; }

is_root() { [ "$(id -u)" = 0 ]; }

# Runs a program as the account that owns the servers, because PostgreSQL refuses to run as root. For root, this is the
# owner of the cluster, or postgres if there is no cluster yet.
#
# The program starts in /, because that account may not be able to read our directory. It does not inherit the lock on
# file descriptor 9: a server would hold the lock for as long as it runs.
as_server() {
    local account=postgres
    if is_root; then
        [ ! -d "${PG_CACHE_DIR:-}/data" ] || account=$(stat -c %U "$PG_CACHE_DIR/data")
        (cd / && exec runuser -u "$account" -- "$@" 9>&-)
    else
        (cd / && exec "$@" 9>&-)
    fi
}

# Exits if root has called, and there is no account that can run servers for root.
need_server_account() {
    ! is_root || id postgres >/dev/null 2>&1 ||
        die "root cannot run PostgreSQL, and there is no account postgres to run it: create it with useradd --system postgres"
}

# Sets PG_CACHE_DIR, the directory for everything that is built, downloaded or run, and creates it. This is .pg in the
# checkout. If the servers' account cannot enter the checkout (one in /root), .pg is a link to a directory that the
# account can reach.
place_work_dir() {
    case $ROOT in *[\`\$\"\\%]* | *$'\n'*) die "the path of this checkout contains a newline or one of the characters \` \$ \" \\ %: move the checkout to a path without these" ;; esac
    PG_CACHE_DIR=$ROOT/.pg
    if [ ! -e "$PG_CACHE_DIR" ]; then
        # The account `nobody` stands in for the servers' account, which may not exist yet.
        if is_root && ! (cd / && runuser -u nobody -- test -x "$ROOT") 2>/dev/null; then
            local elsewhere
            elsewhere=/var/lib/pg_cache-$(printf %s "$ROOT" | cksum | cut -d' ' -f1)
            mkdir -p "$elsewhere" 2>/dev/null || die "cannot write to /var/lib, which holds the servers' files if only root may enter the checkout: move the checkout"
            ln -sfn "$elsewhere" "$PG_CACHE_DIR"
        else
            mkdir -p "$PG_CACHE_DIR" 2>/dev/null || die "cannot write to $ROOT: run make in a checkout of your own"
        fi
    fi
    # PG_CACHE_DIR is the target of the link: the servers' account cannot follow the link itself.
    PG_CACHE_DIR=$(readlink -f "$PG_CACHE_DIR")
    [ -w "$PG_CACHE_DIR/" ] || die "$PG_CACHE_DIR belongs to another account: run make as that account, or remove the directory"
    mkdir -p "$PG_CACHE_DIR/log"
    export PG_CACHE_DIR
}

# Acquires the lock of the checkout, or exits if another make holds it. place_work_dir must come first. Two scripts at
# once would build and start the same things twice. The lock is held through file descriptor 9. Scripts that this one
# calls inherit it. Servers and background commands do not, because they could outlive this script.
only_one_at_a_time() {
    [ "${PG_CACHE_LOCKED:-}" = "$PG_CACHE_DIR" ] && return
    exec 9>"$PG_CACHE_DIR/lock" || die "cannot write $PG_CACHE_DIR/lock: remove it"
    flock -n 9 || die "another make is at work in this checkout: wait until it has ended"
    export PG_CACHE_LOCKED=$PG_CACHE_DIR
}

# Starts a command in a process group of its own and stores its process ID in $background. The whole group is killed
# when this script exits. That takes the trap on EXIT: the caller must not use the trap, nor start a second command
# before the first has ended.
in_background() { # command...
    set -m
    "$@" 9>&- &
    background=$!
    set +m
    trap 'kill -- -"$background" 2>/dev/null || :' EXIT
}

# Runs a long step with its output in .pg/log/LOG.log, and shows the progress: the last line of the log. A terminal
# shows it in place; other outputs get a line every ten seconds. Returns the exit status of the command. The command may
# be a function of the script. It runs through in_background.
step() { # label log command...
    local label=$1 log=$PG_CACHE_DIR/log/$2.log started=$SECONDS pid status=0 next=10
    shift 2
    printf '==> %s\n' "$label"
    in_background "$@" >"$log" 2>&1 </dev/null
    pid=$background
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if [ -t 1 ]; then
            printf '\r\033[K    %4d s  %.90s' "$((SECONDS - started))" "$(tail -n 1 "$log" | tr -d '\r')"
        elif [ "$((SECONDS - started))" -ge "$next" ]; then
            printf '    %4d s  %.90s\n' "$((SECONDS - started))" "$(tail -n 1 "$log" | tr -d '\r')"
            next=$((next + 10))
        fi
    done
    wait "$pid" || status=$?
    trap - EXIT
    [ -t 1 ] && printf '\r\033[K'
    [ "$status" = 0 ] || return "$status"
    printf '    done in %d s\n' "$((SECONDS - started))"
}

# Succeeds if the log shows that the step failed because the network or the registry could not be reached.
log_blames_network() { # log
    grep -qiE 'could not resolve|temporary failure resolving|failed to (download|fetch|connect)|could not connect|unable to (connect|update registry)|spurious network error|network is unreachable|connection refused|unable to locate package|sub-process https? returned' \
        "$PG_CACHE_DIR/log/$1.log"
}

# Exits after a failed step, whose log is .pg/log/$1.log. The message names the cause if it is a known one, and
# otherwise the log to read.
die_after() { # log, what failed
    log_blames_network "$1" && die "$2: the network or the package registry cannot be reached; connect and run make again (details in .pg/log/$1.log)"
    die "$2: read .pg/log/$1.log, which ends with: $(grep -v '^[[:space:]]*$' "$PG_CACHE_DIR/log/$1.log" | tail -n 1 | cut -c1-200)"
}

# Exits unless the build directory and the servers' directory both have this much free space.
need_disk() { # MB, for what
    local place free
    for place in "$PG_CACHE_DIR" "$ROOT"; do
        free=$(df -Pm "$place/" | awk 'NR == 2 { print $4 }')
        [ "$free" -ge "$1" ] || die "$2 needs $1 MB free in $place, which has $free MB: free some, or move the checkout"
    done
}

# Exits unless there is a Rust toolchain that is new enough for this repository.
need_rust() {
    # rustup adds its directory to the path of new shells only, and this shell may be older.
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || die "no Rust toolchain: install the stable one with rustup (https://rustup.rs), then run make again"
    local have want
    have=$(rustc --version | awk '{ print $2 }')
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
        die "Rust $have is too old, $want is needed: run rustup update stable"
}

# Chooses the PostgreSQL and sets PG to its major version, by default 15 or the major of PG_CONFIG. If the caller sets
# PG_CONFIG, exactly that installation is used.
choose_server() {
    if [ -n "${PG_CONFIG:-}" ]; then
        local named=$PG_CONFIG
        PG_CONFIG=$(type -P "$named" || :)
        [ -f "$PG_CONFIG" ] || die "PG_CONFIG=$named is not a program: name the pg_config of a PostgreSQL 15 to 18, or leave it out"
        PG=$(pg_major "$PG_CONFIG" 2>/dev/null || :)
        [[ $PG =~ ^1[5-8]$ ]] || die "PG_CONFIG=$named is not the pg_config of a PostgreSQL 15 to 18: name one, or leave it out"
        export PG_CONFIG
    fi
    [[ ${PG:=15} =~ ^1[5-8]$ ]] || die "PG=$PG is not supported: choose 15, 16, 17 or 18"
    export PG
}

# Prints the Debian packages that provide a need, one of the words below, or nothing if the machine has it already. An
# unknown word also prints nothing, so a new need must have a line here. For `server`, `headers` and `plpython`,
# choose_server must come first.
missing_package() { # need
    case $1 in
    server)
        # make/base.sh takes care of a PostgreSQL that is not the system's.
        [ -n "${PG_CONFIG:-}" ] || [ "$PG" != 15 ] || [ -x /usr/lib/postgresql/15/bin/postgres ] || echo postgresql-15 ;;
    headers)
        if [ -n "${PG_CONFIG:-}" ]; then
            [ -f "$("$PG_CONFIG" --includedir-server)/postgres.h" ] || echo "postgresql-server-dev-$PG"
        elif [ "$PG" = 15 ]; then
            [ -f /usr/include/postgresql/15/server/postgres.h ] && [ -x /usr/lib/postgresql/15/lib/pgxs/src/test/regress/pg_regress ] || echo postgresql-server-dev-15
        fi ;;
    # bindgen needs libclang to read the server's headers.
    clang) compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || echo libclang-14-dev ;;
    # libclang comes without the compiler's own headers (stddef.h). Those of gcc or clang work.
    cc) command -v cc >/dev/null || echo build-essential ;;
    bwrap) command -v bwrap >/dev/null || echo bubblewrap ;;
    git) command -v git >/dev/null || echo git ;;
    redis) command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || echo "redis-server redis-tools" ;;
    openssl) command -v openssl >/dev/null || echo openssl ;;
    pgbouncer) command -v pgbouncer >/dev/null || echo pgbouncer ;;
    # The tests need the modules that create a virtual environment.
    python) python3 -c 'import ensurepip, venv' 2>/dev/null || echo "python3 python3-venv" ;;
    sqlsmith) command -v sqlsmith >/dev/null || echo sqlsmith ;;
    promtool) command -v promtool >/dev/null && command -v prometheus-sql-exporter >/dev/null || echo "prometheus prometheus-sql-exporter" ;;
    perf) command -v perf >/dev/null || echo linux-perf ;;
    valgrind) command -v valgrind >/dev/null || echo valgrind ;;
    plpython)
        # A PostgreSQL that is not the system's came with PL/Python, or does not have it.
        [ -n "${PG_CONFIG:-}" ] || [ "$PG" != 15 ] || [ -f /usr/lib/postgresql/15/lib/plpython3.so ] || echo postgresql-plpython3-15 ;;
    dpkg) command -v dpkg-deb >/dev/null || echo dpkg ;;
    debootstrap) command -v debootstrap >/dev/null || echo debootstrap ;;
    rpm) command -v rpmbuild >/dev/null || echo rpm ;;
    # dpkg-source unpacks a Debian source package.
    source) command -v dpkg-source >/dev/null || echo dpkg-dev ;;
    # PostgreSQL's build needs the next four.
    flex) command -v flex >/dev/null || echo flex ;;
    bison) command -v bison >/dev/null || echo bison ;;
    readline) [ -f /usr/include/readline/readline.h ] || echo libreadline-dev ;;
    zlib) [ -f /usr/include/zlib.h ] || echo zlib1g-dev ;;
    golang) command -v go >/dev/null && [ -d /usr/share/gocode/src/github.com/lib/pq ] || echo "golang-go golang-github-lib-pq-dev" ;;
    php)
        command -v php >/dev/null && php -r 'exit((int) !extension_loaded("pdo_pgsql"));' && [ -x /usr/bin/phpunit ] &&
            [ -f /usr/share/php/Symfony/Component/Cache/autoload.php ] && [ -f /usr/share/php/Cache/IntegrationTests/autoload.php ] ||
            echo "php-cli php-pgsql php-symfony-cache php-cache-integration-tests phpunit" ;;
    java)
        command -v javac >/dev/null && [ -f /usr/share/java/spring3-context.jar ] && [ -f /usr/share/java/postgresql.jar ] ||
            echo "default-jdk-headless libspring-context-java libpostgresql-jdbc-java" ;;
    ruby)
        ruby -e 'require "active_record"; require "pg"; require "minitest"' 2>/dev/null ||
            echo "ruby ruby-activerecord ruby-activesupport ruby-pg ruby-minitest" ;;
    # The store of Rails for Redis uses hiredis if it is there.
    ruby-redis) ruby -e 'require "redis"; require "hiredis"' 2>/dev/null || echo "ruby-redis ruby-hiredis" ;;
    shellcheck) command -v shellcheck >/dev/null || echo shellcheck ;;
    esac
}

# Installs the packages that the given needs lack, if root has called. Otherwise exits, with the command that installs
# them.
need_packages() { # need...
    local need missing=()
    for need in "$@"; do
        # shellcheck disable=SC2207 # one need may be several packages
        missing+=($(missing_package "$need"))
    done
    [ "${#missing[@]}" = 0 ] && return
    command -v apt-get >/dev/null || die "missing, by their Debian names: ${missing[*]}. Install them, or set PG_CONFIG to a PostgreSQL that has server headers"
    is_root || die "missing packages: as root, run: apt-get install ${missing[*]}"
    need_disk 1000 "installing packages"
    step "installing ${missing[*]}" packages install_packages "${missing[@]}" || die_after packages "the packages ${missing[*]} cannot be installed"
    for need in "$@"; do
        [ -z "$(missing_package "$need")" ] || die "$(missing_package "$need") is installed but lacks files that the build needs: read .pg/log/packages.log"
    done
}

# Runs through step only, in a process of its own, because it sets traps.
install_packages() {
    # Package scripts must not start services (a system cluster, a Redis on its standard port): this checkout runs
    # private servers only. policy-rc.d prevents that during the installation. If an interrupted run has left our file,
    # it is reused; a file without our mark is left alone.
    local policy=/usr/sbin/policy-rc.d mark='# pg_cache: for the time of one installation'
    if [ ! -e "$policy" ] || grep -qF "$mark" "$policy"; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        trap 'exit 1' INT TERM HUP
        printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy" && chmod +x "$policy"
    fi
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# Provides cargo-pgrx in the version of our pgrx, in a directory that all checkouts share. A cargo-pgrx that the
# developer has installed is used if its version fits, and is never replaced.
need_cargo_pgrx() {
    local home=${XDG_CACHE_HOME:-$HOME/.cache}/pg_cache/cargo-pgrx-$PGRX_VERSION
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $PGRX_VERSION" ]; then
        PATH=$home/bin:$PATH
        if [ ! -x "$home/bin/cargo-pgrx" ]; then
            need_disk 1500 "building cargo-pgrx"
            step "building cargo-pgrx $PGRX_VERSION (some minutes, once for this machine)" cargo-pgrx \
                cargo install --locked --debug --root "$home" --target-dir "$home/build" "cargo-pgrx@$PGRX_VERSION" || die_after cargo-pgrx "cargo-pgrx cannot be built"
            rm -rf "$home/build"
        fi
    fi
    export PATH
}

# Provides the spelling checker of make lint, in a directory that all checkouts share. pip fetches it.
need_typos() {
    local home=${XDG_CACHE_HOME:-$HOME/.cache}/pg_cache/typos-$TYPOS_VERSION
    with_pip() { rm -rf "$home" && python3 -m venv "$home" && "$home/bin/pip" install -q --disable-pip-version-check "typos==$TYPOS_VERSION"; }
    if [ ! -x "$home/bin/typos" ]; then
        need_packages python
        step "fetching typos $TYPOS_VERSION" typos with_pip || die_after typos "typos $TYPOS_VERSION cannot be installed"
    fi
    PATH=$home/bin:$PATH
}

pg_major() { # pg_config
    "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'
}

# Prints the release of an installation, such as 15.20.
pg_release() { # pg_config
    "$1" --version | awk '{ print $2 }'
}

# Tells pgrx where the headers are, through a file below PGRX_HOME. A newer modification time of this file rebuilds
# everything, so it is written only when its content changes. Each major version has its own file.
configure_pgrx() { # pg_config
    local config
    config=$(printf '[configs]\npg%s = "%s"' "$(pg_major "$1")" "$1")
    export PGRX_HOME
    PGRX_HOME=$PG_CACHE_DIR/pgrx-$(pg_major "$1")
    # A server with assertions has different headers, so it gets directories of its own.
    case $1 in "$PG_CACHE_DIR"/assert/*) PGRX_HOME+=-assert CARGO_TARGET_DIR=$ROOT/target/assert && export CARGO_TARGET_DIR ;; esac
    # This workaround of cargo-pgrx keeps the section with the SQL entities in the library, with flags that make each
    # cargo command rebuild all dependencies. build.rs keeps the section instead.
    export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
    mkdir -p "$PGRX_HOME"
    [ "$config" = "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" ] || printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
}

# Builds the extension against the headers of one installation and installs it into another of the same major, its
# private copy. Changes the directory and the environment, so it runs through step only.
build_and_install() { # profile, pg_config of the headers, pg_config of the target
    configure_pgrx "$2"
    cd "$ROOT" || return
    # Files of an earlier build must not be mistaken for files of this one.
    rm -f "$("$3" --pkglibdir)/pg_cache.so" "$("$3" --sharedir)"/extension/pg_cache{.control,--*.sql}
    cargo pgrx install --profile "$1" --no-default-features --features "pg$(pg_major "$2")${PG_CACHE_FEATURES:+,$PG_CACHE_FEATURES}" --pg-config "$3"
}
