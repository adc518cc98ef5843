#!/usr/bin/env bash
# A stage of make test-long: runs the tests that frameworks have for their cache backends with the backends of
# examples/backends, and tests the backends in languages that make test leaves out. Fetches the frameworks with pip and
# npm (make/drivers.sh), and the other languages as Debian packages. Without root rights, missing languages are skipped.
#
#   make/backends.sh [compile]      PG_CACHE_TEST_PG_CONFIG names the PostgreSQL; make/test.sh sets it
#                                   compile: builds the tests and does not run them
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
need_rust
cd "$ROOT"
# shellcheck source=make/drivers.sh
. "$ROOT/make/drivers.sh"

tests=(-p pg_cache_testbed --test clients)
[ "${1:-}" != compile ] || exec cargo test --no-run "${tests[@]}"

need_packages python
skipped=() why=()
skip() { # what the names of the tests contain, reason
    skipped+=(--skip "long_$1") why+=("$2")
}

# Django's tests come with its source distribution only.
fetch_python suites "psycopg[binary]==$psycopg" "psycopg_pool==$psycopg_pool" "django==$django" "dogpile.cache==$dogpile" pytest==9.2.0
export PG_CACHE_TEST_PYTHON=$python
source=$home/django-$django
with_source() {
    "$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: -d "$source" "django==$django" &&
        tar -xzf "$source"/*.tar.gz -C "$source" --strip-components=1
}
fetch "the source of Django $django" "$source" with_source
export PG_CACHE_TEST_DJANGO=$source

if has_node; then
    fetch_node keyv "pg@$pg" "keyv@$keyv" @keyv/test-suite@2.1.2 vitest@4.1.12
    export PG_CACHE_TEST_KEYV_MODULES=$modules
else
    skip node "keyv: install nodejs and npm"
fi

# language, need of make/lib.sh
for language in go:golang java:java php:php ruby:ruby; do
    lacking=$(missing_package "${language#*:}")
    if [ -n "$lacking" ] && ! is_root; then
        skip "${language%:*}" "the backend in ${language%:*}: as root, run apt-get install $lacking"
    else
        need_packages "${language#*:}"
    fi
done
export PG_CACHE_TEST_GOPATH=$home/go

# The tests of Active Support come with the source package only. The version is that of the installed library.
if [ -z "$(missing_package ruby)" ]; then
    # shellcheck source=make/apt.sh
    . "$ROOT/make/apt.sh"
    rails=$(dpkg-query -W -f '${source:Version}' ruby-activesupport)
    source=$home/rails-$(printf %s "$rails" | tr -c 'A-Za-z0-9.\n' -)
    with_apt() {
        local apt=$source/apt suite
        suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
        private_apt "$apt"
        {
            apt_source deb-src "$(debian_mirror)" "$suite"
            debian_updates "$suite" | while read -r uri updates; do apt_source deb-src "$uri" "$updates"; done
        } >"$apt/sources.list"
        apt-get -q -c "$apt/conf" update || return
        # Debian's patches change none of these tests, and a mirror may lack the patches of security fixes.
        (cd "$source" && apt-get -q -c "$apt/conf" source --tar-only "rails=$rails") || return
        rm -rf "$apt"
        tar -xf "$source"/rails_*.orig.tar.* -C "$source" --strip-components=1 --wildcards '*/activesupport/test/cache/*'
    }
    fetch "the source of Rails $rails" "$source" with_apt
    export PG_CACHE_TEST_RAILS=$source/activesupport/test/cache/behaviors
fi

# The lines that the tests print have the counts of the suites.
cargo test -q "${tests[@]}" -- --ignored --nocapture --test-threads 2 "${skipped[@]}" long_
for reason in "${why[@]}"; do say "skipped, not passed: $reason"; done
