#!/usr/bin/env bash
# Tests make run on good and bad days: each scenario runs in a sandbox (bubblewrap) over a copy of this checkout.
#
# The sandbox removes something that the scenario lacks: the network, root's rights, files of a package, or disk space.
# On a bad day, make run must end with one line that says what to do, with a status other than 0, and leave nothing
# behind. Each bad day is a function that runs make run in the sandbox, an entry of its name in "says", and its name in the loop
# that calls bad_day. Good days run only in the long run and in CI.
# shellcheck disable=SC2317 # scenarios are called by name
set -euo pipefail
unset CDPATH
umask 022
ROOT=$(cd "$(dirname "$0")/../.." && pwd -P)

home=$(mktemp -d /tmp/pg_cache-setup.XXXXXX)
# The servers' account must be able to enter the directory.
chmod 755 "$home"
clean_up() {
    jobs -p | xargs -r kill 2>/dev/null
    # An interrupted good day may have left a server running.
    [ ! -e "$home/clone/.pg" ] || env -u MAKEFLAGS make -s -C "$home/clone" clean >/dev/null 2>&1
    rm -rf "$home"
}
trap clean_up EXIT
# Copies the work tree without the files that git ignores.
fresh_copy() {
    mkdir -p "$home/clone"
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard | (cd "$ROOT" && tar -c --null -T - --ignore-failed-read) | tar -x -C "$home/clone"
}

# Runs a command in the copy as root or as an ordinary user. Options of bwrap come before "--". On bad days, the sandbox
# has no network except its own loopback: no scenario needs one, and the port is free.
sandbox() { # root|user [bwrap option...] -- command...
    local account=$1 options=()
    shift
    [ -n "${online:-}" ] || options+=(--unshare-net)
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    # Root can mount without a user namespace; an ordinary user cannot.
    [ "$account" = root ] || options+=(--unshare-user --uid 1000 --gid 1000)
    # The sandbox has caches of its own, so that earlier builds on this machine cannot hide a failure. MAKEFLAGS would
    # connect this make to the one that runs the tests.
    local caches=(XDG_CACHE_HOME="$home/cache" CARGO_HOME="$home/cargo" CARGO_NET_RETRY=0)
    [ -z "${online:-}" ] || caches=()
    env -u MAKEFLAGS -u MAKELEVEL -u PG -u PORT -u PG_CONFIG -u ONLY -u PG_CACHE_LOCKED -u PGRX_HOME \
        RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" "${caches[@]}" \
        bwrap --dev-bind / / --chdir "$home/clone" --die-with-parent "${options[@]}" -- "$@"
}

# The line with which each bad day must end.
declare -A says

# Hides the package databases and all files of PostgreSQL.
bare=(--tmpfs /var/lib --tmpfs /usr/lib/postgresql --tmpfs /usr/include/postgresql --tmpfs /var/cache)

no_network_and_missing_packages() {
    sandbox root "${bare[@]}" -- \
        sh -c 'mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/apt/lists/partial /var/cache/apt/archives/partial && touch /var/lib/dpkg/status && make run'
}
says[no_network_and_missing_packages]='the packages postgresql-15 postgresql-server-dev-15 cannot be installed: the network or the package registry cannot be reached'

no_network_for_cargo() { sandbox user -- make run; }
# Two downloads can fail here. The first one depends on whether this machine's cargo-pgrx has our version.
says[no_network_for_cargo]='the network or the package registry cannot be reached'

no_root_and_a_missing_package() { sandbox user --tmpfs /usr/include/postgresql -- make run; }
says[no_root_and_a_missing_package]='missing packages: as root, run: apt-get install postgresql-server-dev-15'

pg_config_that_is_not_there() { sandbox user -- make run PG_CONFIG=/nowhere/pg_config; }
says[pg_config_that_is_not_there]='PG_CONFIG=/nowhere/pg_config is not a program'

port_taken() {
    # shellcheck disable=SC2016 # perl's variable
    sandbox user -- sh -c '
        perl -MIO::Socket::INET -e '\''$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:54329", Listen => 1) or die; print "listening\n"; close STDOUT; sleep 900'\'' >.listener &
        listener=$!
        until [ -s .listener ]; do sleep 0.05; done
        make run
        status=$?
        kill "$listener"
        exit "$status"'
}
says[port_taken]='port 54329 is taken by another program: run make run PORT=54330'

port_in_octal() { sandbox user -- make run PORT=07777; }
says[port_in_octal]='PORT=07777 is not a port number'

pg_config_that_is_another_program() { sandbox user -- make run PG_CONFIG=/bin/true; }
says[pg_config_that_is_another_program]='PG_CONFIG=/bin/true is not the pg_config of a PostgreSQL 15 to 18'

version_that_is_not_supported() { sandbox user -- make run PG=14; }
says[version_that_is_not_supported]='PG=14 is not supported: choose 15, 16, 17 or 18'

port_that_is_no_number() { sandbox user -- make run PORT=http; }
says[port_that_is_no_number]='PORT=http is not a port number'

cluster_of_another_version() {
    mkdir -p "$home/clone/.pg/data" && echo 14 >"$home/clone/.pg/data/PG_VERSION"
    local status=0
    sandbox user -- make run || status=$?
    [ "$(cat "$home/clone/.pg/data/PG_VERSION")" = 14 ] || echo "the old cluster was touched"
    rm -r "$home/clone/.pg"
    return "$status"
}
says[cluster_of_another_version]='.pg holds a cluster of PostgreSQL 14, this is 15: remove it with make clean'

low_disk() {
    mkdir -p "$home/clone/.pg"
    sandbox user --size 50000000 --tmpfs "$home/clone/.pg" -- make run
}
says[low_disk]='building and running the cache needs 4000 MB free'

twice_at_once() {
    mkdir -p "$home/clone/.pg"
    # This process stands for a make that is at work: it holds the lock.
    flock -o "$home/clone/.pg/lock" sh -c 'echo >"$0/locked"; exec sleep 900' "$home" &
    local first=$!
    until [ -e "$home/locked" ]; do sleep 0.05; done
    local status=0
    sandbox user -- make run || status=$?
    pkill -P "$first" || :
    wait "$first" 2>/dev/null || :
    return "$status"
}
says[twice_at_once]='another make is at work in this checkout'

no_toolchain() { sandbox user --tmpfs "$home/empty" -- env PATH=/usr/bin:/bin HOME="$home/empty" make run; }
says[no_toolchain]='no Rust toolchain: install the stable one with rustup'

# Waits up to a minute until no process has this in its command line: a process that was killed needs some time to end. Prints those
# that are left.
left_behind() { # pattern
    local tries=0
    while pgrep -f "$1" >/dev/null && [ "$tries" -lt 600 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    pgrep -af "$1" | head -n 3
}

passed=0 failed=0
verdict() { # name, what is wrong or nothing
    if [ -z "$2" ]; then passed=$((passed + 1)) && echo "test setup/$1 ... ok"; else
        failed=$((failed + 1))
        printf 'test setup/%s ... FAILED: %s\n' "$1" "$2"
        sed 's/^/    /' "$home/output"
    fi
}

# Runs a scenario in a fresh copy, and checks that it ends as the head of this file says.
bad_day() { # name
    local name=$1 status=0 complaints left
    rm -rf "$home/clone" "$home/cache" "$home/cargo"
    fresh_copy
    "$name" >"$home/output" 2>&1 || status=$?
    complaints=$(grep -c '^pg_cache: ' "$home/output" || :)
    left=$(left_behind "$home/clone" || :)
    if [ "$status" = 0 ]; then verdict "$name" "it ended as if all were well"
    elif [ "$complaints" != 1 ]; then verdict "$name" "$complaints lines of complaint instead of one"
    elif ! grep -qF "${says[$name]}" "$home/output"; then verdict "$name" "it does not say: ${says[$name]}"
    elif [ -e "$home/clone/.pg/data" ]; then verdict "$name" "it left a cluster behind"
    elif ! flock -w 60 "$home/clone/.pg/lock" true 2>/dev/null && [ -d "$home/clone/.pg" ]; then verdict "$name" "it left the lock held"
    elif [ -n "$left" ]; then verdict "$name" "it left processes behind: $left"
    else verdict "$name" ""; fi
}

# Only root can install packages, so only root can test that this fails.
as_root=no_network_and_missing_packages
[ "$(id -u)" = 0 ] || { as_root= && echo "not run, for it takes root: no_network_and_missing_packages"; }

for name in $as_root no_network_for_cargo no_root_and_a_missing_package pg_config_that_is_not_there \
    pg_config_that_is_another_program version_that_is_not_supported port_taken port_in_octal port_that_is_no_number cluster_of_another_version low_disk twice_at_once no_toolchain; do
    bad_day "$name"
done

# Starts from a copy without any build, runs the cache, and removes everything again, with this machine's network.
good_day() { # root|user
    local session='unset PGSERVICE PGHOSTADDR PGOPTIONS; set -a; . .pg/env; "$(cat .pg/bin)/psql" -X -A -t -c'
    local port=54400
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    # These variables must not reach our clients: the server does not exist, and the timeout is too short for any
    # statement.
    export PGSERVICE=elsewhere PGHOSTADDR=192.0.2.1 PGOPTIONS='-c statement_timeout=1' CDPATH=.:/tmp
    sandbox "$1" -- make run PORT=$port || return
    sandbox "$1" -- sh -c "$session 'SELECT pgcache.noop(\$\$key\$\$), count(*) FROM products'" | grep -qx '0|2000' || { echo "the server does not answer"; return 1; }
    sandbox "$1" -- make run PORT=$port >"$home/again" || return
    ! grep '^==>' "$home/again" || { echo "the second run did that again"; return 1; }
    sandbox "$1" -- sh -c "$session 'SELECT cache_set_text(\$\$kept\$\$, \$\$by the restart\$\$)'" || return
    sandbox "$1" -- make stop || return
    sandbox "$1" -- make run PORT=$port || return
    sandbox "$1" -- sh -c "$session 'SELECT cache_get_text(\$\$kept\$\$)'" | grep -qx 'by the restart' || { echo "the cache does not survive a restart"; return 1; }
    sandbox "$1" -- make stop || return
    local left
    left=$(left_behind "$home/clone|$(readlink -f "$home/clone/.pg")" || :)
    [ -z "$left" ] || { echo "these are still there: $left"; return 1; }
    sandbox "$1" -- make clean || return
    [ ! -e "$home/clone/.pg" ] || { echo ".pg is still there"; return 1; }
}

# Each good day makes a release build, so these run only in the long run and in CI.
if [ -n "${PG_CACHE_TEST_LONG:-}${CI:-}" ]; then
    online=1
    accounts=(root user)
    [ "$(id -u)" = 0 ] || accounts=(user)
    for account in "${accounts[@]}"; do
        rm -rf "$home/clone"
        fresh_copy
        # Root's checkouts are often in directories that no other account can enter.
        [ "$account" = user ] || chmod 700 "$home"
        if good_day "$account" >"$home/output" 2>&1; then verdict "good_day_as_$account" ""; else verdict "good_day_as_$account" "it went wrong"; fi
        chmod 755 "$home"
    done
fi

printf '\ntest result: %s. %d passed; %d failed\n' "$([ "$failed" = 0 ] && echo ok || echo FAILED)" "$passed" "$failed"
[ "$failed" = 0 ]
