#!/usr/bin/env bash
# make release-check: checks everything that a release needs, in the order of the time that it takes, and ends at the first failure:
#
# 1. the work tree has no changes, and every released version (tag vX) has its script in sql/released;
# 2. the files that name the version agree;
# 3. make lint;
# 4. the tests of upgrades;
# 5. the packages: built, installed, used, upgraded and removed.
#
# The tests of the code are those of make test and make matrix.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
choose_server
place_work_dir
only_one_at_a_time
need_rust
need_packages git
cd "$ROOT"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed -n 1p)
say "==> work tree"
[ -z "$(git status --porcelain)" ] || die "the work tree has changes: commit or remove them: $(git status --porcelain | head -n 3 | tr '\n' ' ')"
for tag in $(git tag --list 'v*'); do
    [ -f "sql/released/pg_cache--${tag#v}.sql" ] ||
        die "version ${tag#v} has no script in sql/released: copy it from the package of that version"
done
! git rev-parse -q --verify "refs/tags/v$version" >/dev/null || [ "$(git rev-parse "v$version^{commit}")" = "$(git rev-parse HEAD)" ] ||
    die "version $version is released: set a newer one in Cargo.toml, META.json and CHANGELOG.md"
say "==> versions"
cargo test -q -p pg_cache_testbed --test units release
say "==> lint"
make/lint.sh
say "==> upgrades"
PG_CACHE_TEST_PG_CONFIG=$(make/build.sh dev)
export PG_CACHE_TEST_PG_CONFIG
need_server_account
cargo test -q -p pg_cache_testbed --test sessions upgrade::
say "==> packages"
tests/packages/run.sh
say "version $version is ready for PostgreSQL $PG: tag it v$version, and keep target/package/$PG/image/share/extension/pg_cache--$version.sql as sql/released/pg_cache--$version.sql"
