#!/usr/bin/env bash
# Write requirements/lock.txt: every package of `make setup`, for Python 3.11 to 3.13 on every platform, with hashes.
# No index or file address is written, so the same file works with pip and uv behind any mirror.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v .venv/bin/uv || command -v uv) || { echo "make lock needs uv: run make setup first" >&2; exit 1; }

# Settings of this machine's uv (a private index, a folder of wheels) must not decide what everybody installs.
env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL \
    "$uv" pip compile pyproject.toml --no-config --universal --python-version 3.11 \
    --extra train --extra redis --group dev --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" --quiet "$@" --output-file requirements/lock.txt

exec "$(command -v .venv/bin/python || command -v python3)" scripts/check_tree.py requirements/lock.txt
