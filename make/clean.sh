#!/usr/bin/env bash
# make clean: removes everything that was built or downloaded in this checkout. cargo-pgrx, which all checkouts share,
# stays.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
"$ROOT/make/cluster.sh" remove
# .pg may be a link to a directory that the servers' account can reach.
rm -rf "$(readlink -f "$ROOT/.pg")" "$ROOT/.pg" "$ROOT/target" "$ROOT/bench/results"
