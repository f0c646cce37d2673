#!/usr/bin/env bash
# Create the loan table, train a model and serve it. `rowcast serve` prints a curl command to try.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
table="${ROWCAST_HOME:-.rowcast}/demo/loans.csv"

# Reuse the model from an earlier demo.
if ! rowcast models list | cut -f 1 | grep -qx loans; then
    mkdir -p "$(dirname "$table")"
    rowcast example loans --out "$table"
    rowcast train "$table" --target loan_status --name loans
fi
exec rowcast serve loans --port "${PORT:-8000}"
