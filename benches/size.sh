#!/bin/bash
# The size of the program without symbols; fails above 12 MiB. benches/size.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-${CARGO_TARGET_DIR:-target}/release/nodens}
most=$((12 * 1024 * 1024))
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
strip -o "$stripped" "$program"
bytes=$(stat -c %s "$stripped")
awk -v b="$bytes" -v m="$most" 'BEGIN { printf "stripped program: %.2f MiB of at most %.0f\n", b / 1048576, m / 1048576 }'
[ "$bytes" -le "$most" ]
