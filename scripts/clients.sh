#!/usr/bin/env bash
# The real clients of other systems, each in an environment of its own (.venv-clients-NAME), for the tests; every
# download is checked against its hash. An environment that is newer than its lock file is left alone.
#     scripts/clients.sh [NAME ...]      triton (tritonclient and mlserver infer), kserve, mlflow
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v .venv/bin/uv || command -v uv)
for name in "${@:-triton kserve mlflow}"; do
    for client in $name; do
        env=.venv-clients-$client lock=requirements/clients-$client.txt
        if [ "$env/.ready" -nt "$lock" ]; then continue; fi
        echo "Installing the clients of $client ..." >&2
        rm -rf "$env"
        "$uv" venv --quiet --python .venv/bin/python "$env"
        "$uv" pip install --quiet --python "$env/bin/python" --no-deps --require-hashes -r "$lock"
        touch "$env/.ready"
    done
done
