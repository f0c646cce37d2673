#!/usr/bin/env bash
# Write the lock files, with hashes, for Python 3.11 to 3.13 on every platform:
#     requirements/lock.txt             the packages that `make setup` installs
#     requirements/torch.txt            the dependencies of torch, without torch itself
#     requirements/clients-NAME.txt     the client libraries of other systems, which scripts/clients.sh installs for the tests
# The files contain no index or file URLs, so pip and uv can use them with any mirror.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v .venv/bin/uv || command -v uv) || { echo "make lock needs uv: run make setup first" >&2; exit 1; }

# Ignore this machine's uv settings, such as a private index, because they must not affect the shared lock files.
compile() {
    env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL \
        "$uv" pip compile --no-config --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "make lock" --quiet "$@"
}

compile pyproject.toml --extra train --extra redis --extra postgres --extra ray --extra otel --extra s3 --group dev "$@" --output-file requirements/lock.txt
compile requirements/torch.in --constraint requirements/lock.txt "$@" --output-file requirements/torch.txt
for client in triton kserve mlflow; do
    compile "requirements/clients-$client.in" "$@" --output-file "requirements/clients-$client.txt"
done

exec "$(command -v .venv/bin/python || command -v python3)" scripts/check_tree.py requirements/*.txt
