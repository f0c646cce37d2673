#!/usr/bin/env bash
# The whole way in one go: make the loan table, train, serve. `rowcast serve` prints the curl line to try.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
table="${ROWCAST_HOME:-.rowcast}/demo/loans.csv"

# What an earlier demo trained is served again.
if ! rowcast models list | cut -f 1 | grep -qx loans; then
    mkdir -p "$(dirname "$table")"
    rowcast example loans --out "$table"
    rowcast train "$table" --target loan_status --name loans
fi
exec rowcast serve loans --port "${PORT:-8000}"
