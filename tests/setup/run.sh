#!/usr/bin/env bash
# make run on bad days, and on a good one: each scenario in a sandbox (bubblewrap) over a copy of this checkout.
#
# The sandbox takes away what the day lacks for real: the network, root's rights, a package's files, disk space.
# A bad day has to end with one line that says what to do, a status other than 0, and nothing left behind.
# shellcheck disable=SC2317 # scenarios are called by name
set -euo pipefail
unset CDPATH
umask 022
ROOT=$(cd "$(dirname "$0")/../.." && pwd -P)

home=$(mktemp -d /tmp/pg_cache-setup.XXXXXX)
# Others may look in: the servers' account has to.
chmod 755 "$home"
clean_up() {
    jobs -p | xargs -r kill 2>/dev/null
    # A good day that broke off may have left a server.
    [ ! -e "$home/clone/.pg" ] || env -u MAKEFLAGS make -s -C "$home/clone" clean >/dev/null 2>&1
    rm -rf "$home"
}
trap clean_up EXIT
# The work tree as it is, without what git ignores.
fresh_copy() {
    mkdir -p "$home/clone"
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard | (cd "$ROOT" && tar -c --null -T - --ignore-failed-read) | tar -x -C "$home/clone"
}

# Runs make in the copy as root or as an ordinary user, with further options of bwrap before "--". On bad
# days with no network but a loopback of its own: no scenario gets as far as needing one, and the port is free.
sandbox() { # root|user [bwrap option...] -- command...
    local account=$1 options=()
    shift
    [ -n "${online:-}" ] || options+=(--unshare-net)
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    # Root's own mounts need no user namespace; an ordinary user's do.
    [ "$account" = root ] || options+=(--unshare-user --uid 1000 --gid 1000)
    # Caches of its own: what this machine has built before must not save a bad day. MAKEFLAGS would tie us to
    # the make that runs the tests.
    local caches=(XDG_CACHE_HOME="$home/cache" CARGO_HOME="$home/cargo" CARGO_NET_RETRY=0)
    [ -z "${online:-}" ] || caches=()
    env -u MAKEFLAGS -u MAKELEVEL -u PG -u PORT -u PG_CONFIG -u ONLY -u PG_CACHE_LOCKED -u PGRX_HOME \
        RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" "${caches[@]}" \
        bwrap --dev-bind / / --chdir "$home/clone" --die-with-parent "${options[@]}" -- "$@"
}

# The line that each bad day has to end with.
declare -A says

# No package is known, and none of PostgreSQL's files is there.
bare=(--tmpfs /var/lib --tmpfs /usr/lib/postgresql --tmpfs /usr/include/postgresql --tmpfs /var/cache)

no_network_and_missing_packages() {
    sandbox root "${bare[@]}" -- \
        sh -c 'mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/apt/lists/partial /var/cache/apt/archives/partial && touch /var/lib/dpkg/status && make run'
}
says[no_network_and_missing_packages]='the packages postgresql-15 postgresql-server-dev-15 cannot be installed: the network or the package registry cannot be reached'

no_network_for_cargo() { sandbox user -- make run; }
# Which of the two downloads comes first depends on whether this machine's own cargo-pgrx is of our version.
says[no_network_for_cargo]='the network or the package registry cannot be reached'

no_root_and_a_missing_package() { sandbox user --tmpfs /usr/include/postgresql -- make run; }
says[no_root_and_a_missing_package]='missing packages: as root, run: apt-get install postgresql-server-dev-15'

pg_config_that_is_not_there() { sandbox user -- make run PG_CONFIG=/nowhere/pg_config; }
says[pg_config_that_is_not_there]='PG_CONFIG=/nowhere/pg_config is not a program'

port_taken() {
    # shellcheck disable=SC2016 # perl's variable
    sandbox user -- sh -c '
        perl -MIO::Socket::INET -e '\''$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:54329", Listen => 1) or die; print "listening\n"; close STDOUT; sleep 60'\'' >.listener &
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
    # The first one, at the point where it works.
    flock -o "$home/clone/.pg/lock" sh -c 'echo >"$0/locked"; exec sleep 60' "$home" &
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

passed=0 failed=0
verdict() { # name, what is wrong or nothing
    if [ -z "$2" ]; then passed=$((passed + 1)) && echo "test setup/$1 ... ok"; else
        failed=$((failed + 1))
        printf 'test setup/%s ... FAILED: %s\n' "$1" "$2"
        sed 's/^/    /' "$home/output"
    fi
}

bad_day() { # name
    local name=$1 status=0 complaints
    rm -rf "$home/clone" "$home/cache" "$home/cargo"
    fresh_copy
    "$name" >"$home/output" 2>&1 || status=$?
    complaints=$(grep -c '^pg_cache: ' "$home/output" || :)
    if [ "$status" = 0 ]; then verdict "$name" "it ended as if all were well"
    elif [ "$complaints" != 1 ]; then verdict "$name" "$complaints lines of complaint instead of one"
    elif ! grep -qF "${says[$name]}" "$home/output"; then verdict "$name" "it does not say: ${says[$name]}"
    elif [ -e "$home/clone/.pg/data" ]; then verdict "$name" "it left a cluster behind"
    elif ! flock -n "$home/clone/.pg/lock" true 2>/dev/null && [ -d "$home/clone/.pg" ]; then verdict "$name" "it left the lock held"
    elif pgrep -f "$home/clone" >/dev/null; then verdict "$name" "it left processes behind: $(pgrep -af "$home/clone" | head -n 3)"
    else verdict "$name" ""; fi
}

# Only root can install packages, and only root can show what happens when it cannot.
as_root=no_network_and_missing_packages
[ "$(id -u)" = 0 ] || { as_root= && echo "not run, for it takes root: no_network_and_missing_packages"; }

for name in $as_root no_network_for_cargo no_root_and_a_missing_package pg_config_that_is_not_there \
    pg_config_that_is_another_program version_that_is_not_supported port_taken port_in_octal port_that_is_no_number cluster_of_another_version low_disk twice_at_once no_toolchain; do
    bad_day "$name"
done

# From a copy that has built nothing to a running cache and back to nothing, with this machine's network.
good_day() { # root|user
    local session='unset PGSERVICE PGHOSTADDR PGOPTIONS; set -a; . .pg/env; "$(cat .pg/bin)/psql" -X -A -t -c'
    local port=54400
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    # What leads other clients elsewhere must not lead ours: there is no such server, and no time to ask it.
    export PGSERVICE=elsewhere PGHOSTADDR=192.0.2.1 PGOPTIONS='-c statement_timeout=1' CDPATH=.:/tmp
    sandbox "$1" -- make run PORT=$port || return
    sandbox "$1" -- sh -c "$session 'SELECT pgcache.noop(\$\$key\$\$), count(*) FROM products'" | grep -qx '0|2000' || { echo "the server does not answer"; return 1; }
    sandbox "$1" -- make run PORT=$port >"$home/again" || return
    ! grep '^==>' "$home/again" || { echo "the second run did that again"; return 1; }
    sandbox "$1" -- make stop || return
    ! pgrep -af "$home/clone|$(readlink -f "$home/clone/.pg")" || { echo "these are still there"; return 1; }
    sandbox "$1" -- make clean || return
    [ ! -e "$home/clone/.pg" ] || { echo ".pg is still there"; return 1; }
}

# A release build each: for the long run, and for CI.
if [ -n "${PG_CACHE_TEST_LONG:-}${CI:-}" ]; then
    online=1
    accounts=(root user)
    [ "$(id -u)" = 0 ] || accounts=(user)
    for account in "${accounts[@]}"; do
        rm -rf "$home/clone"
        fresh_copy
        # Root's checkouts are often where nobody else may look.
        [ "$account" = user ] || chmod 700 "$home"
        if good_day "$account" >"$home/output" 2>&1; then verdict "good_day_as_$account" ""; else verdict "good_day_as_$account" "it went wrong"; fi
        chmod 755 "$home"
    done
fi

printf '\ntest result: %s. %d passed; %d failed\n' "$([ "$failed" = 0 ] && echo ok || echo FAILED)" "$passed" "$failed"
[ "$failed" = 0 ]
