#!/usr/bin/env bash
# Create .venv from the lock file and check every download against its hash. PYTHON=... selects the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

# Run the interpreter to test it, because a command on PATH can be a stub.
is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if is_supported "$name"; then echo "$name" && return; fi
    done
    cat >&2 <<TEXT
Rowcast needs Python 3.11, 3.12 or 3.13; found: $("${PYTHON:-python3}" --version 2>&1 || echo none).
Install one of these versions (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13)
or select an installed version: make setup PYTHON=/path/to/python3.12
TEXT
    return 1
}

make_venv() {
    local python
    python=$(find_python)
    rm -rf .venv
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$(command -v "$python")" .venv
    elif ! "$python" -m venv .venv >/dev/null 2>&1; then
        # In Debian, venv is a separate package.
        scripts/system-packages.sh venv
        rm -rf .venv
        "$python" -m venv .venv
    fi
}

install() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python .venv/bin/python "$@"
    elif [ -x .venv/bin/uv ]; then
        .venv/bin/uv pip install --quiet --python .venv/bin/python "$@"
    else
        .venv/bin/python -m pip install -qq --disable-pip-version-check "$@"
    fi
}

is_supported .venv/bin/python || make_venv
echo "Installing into .venv ($(.venv/bin/python --version)) ..."
install --no-deps --require-hashes -r requirements/lock.txt
install --no-deps --no-build-isolation -e .

# LightGBM's wheel does not include the OpenMP library.
if ! .venv/bin/python -c "import lightgbm" >/dev/null 2>&1; then
    scripts/system-packages.sh train
    .venv/bin/python -c "import lightgbm"
fi
