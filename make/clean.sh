#!/usr/bin/env bash
# make clean: stops the private server, and removes everything that was built or downloaded in this checkout.
# cargo-pgrx, cargo-fuzz and typos, which all checkouts share, stay. This script does not take the lock of the checkout,
# so no other make must be at work.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
"$ROOT/make/cluster.sh" remove
# .pg may be a link to a directory that the servers' account can reach.
rm -rf "$(readlink -f "$ROOT/.pg")" "$ROOT/.pg" "$ROOT/target" "$ROOT/bench/results"
