#!/usr/bin/env bash
# Install the client libraries of other systems, which the tests use. Each client gets its own environment,
# .venv-clients-NAME, and every download is checked against its hash. An environment that is newer than its lock file is not reinstalled.
#     scripts/clients.sh [NAME ...]      triton (tritonclient and mlserver infer), kserve, mlflow; default: all
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v .venv/bin/uv || command -v uv)
for name in "${@:-triton kserve mlflow}"; do
    for client in $name; do
        env=.venv-clients-$client lock=requirements/clients-$client.txt
        if [ "$env/.ready" -nt "$lock" ]; then continue; fi
        echo "Installing the $client client ..." >&2
        rm -rf "$env"
        "$uv" venv --quiet --python .venv/bin/python "$env"
        "$uv" pip install --quiet --python "$env/bin/python" --no-deps --require-hashes -r "$lock"
        touch "$env/.ready"
    done
done
