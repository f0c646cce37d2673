#!/usr/bin/env bash
# Write requirements/lock.txt: every package of `make setup`, for Python 3.11 to 3.13 on every platform, with hashes;
# requirements/torch.txt: what the extra `torch` needs beside torch; and requirements/clients-NAME.txt: other systems'
# clients, which the tests run in environments of their own.
# No index or file address is written, so the same file works with pip and uv behind any mirror.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v .venv/bin/uv || command -v uv) || { echo "make lock needs uv: run make setup first" >&2; exit 1; }

# Settings of this machine's uv (a private index, a folder of wheels) must not decide what everybody installs.
compile() {
    env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL \
        "$uv" pip compile --no-config --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "make lock" --quiet "$@"
}

compile pyproject.toml --extra train --extra redis --extra otel --group dev "$@" --output-file requirements/lock.txt
compile requirements/torch.in --constraint requirements/lock.txt "$@" --output-file requirements/torch.txt
for client in triton kserve mlflow; do
    compile "requirements/clients-$client.in" "$@" --output-file "requirements/clients-$client.txt"
done

exec "$(command -v .venv/bin/python || command -v python3)" scripts/check_tree.py requirements/*.txt
