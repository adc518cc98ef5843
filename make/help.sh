#!/usr/bin/env bash
# make help: prints the targets with their descriptions from the Makefile. A target whose line has no "## description" is left out.
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
echo "pg_cache: a key-value and query-result cache inside PostgreSQL"
echo
sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | while IFS=$'\t' read -r target words; do printf '  make %-13s %s\n' "$target" "$words"; done
echo
echo "Start with 'make run'. Servers and builds are private to this checkout, in .pg and target; only cargo-pgrx and cargo-fuzz"
echo "are shared, in ~/.cache/pg_cache."
