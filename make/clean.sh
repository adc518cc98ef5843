#!/usr/bin/env bash
# make clean: back to the checkout as it was cloned. What other checkouts share (cargo-pgrx) stays.
set -euo pipefail
# shellcheck source=make/lib.sh
. "$(dirname "$0")/lib.sh"
"$ROOT/make/cluster.sh" remove
# .pg may be a link to the directory that the servers' account can reach.
rm -rf "$(readlink -f "$ROOT/.pg")" "$ROOT/.pg" "$ROOT/target" "$ROOT/bench/results"
