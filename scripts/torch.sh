#!/usr/bin/env bash
# Install PyTorch for the `mlp` candidate. It is not in the main lock file, because the default wheel installs CUDA on
# most machines.
#     scripts/torch.sh            install the wheel from pip's find-links folders, or else from the package index
#     scripts/torch.sh offered    install the wheel only if a find-links folder contains it; otherwise, print a message and succeed
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=2.13.0
python=.venv/bin/python
installed() { "$python" -c "from importlib.metadata import version as v; print(v('torch'))" 2>/dev/null || true; }

case "$(installed)" in "$VERSION" | "$VERSION+"*) exit 0 ;; esac

# uv does not read pip's configuration, so pass the folders to uv.
links=()
for folder in ${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}; do
    links+=(--find-links "$folder")
done
torch() { .venv/bin/uv pip install --quiet --python "$python" "${links[@]+"${links[@]}"}" "$@" "torch==$VERSION"; }

if torch --no-index --no-deps --dry-run 2>/dev/null; then
    echo "Installing torch $VERSION from a find-links folder ..." >&2
    .venv/bin/uv pip install --quiet --python "$python" --no-deps --require-hashes -r requirements/torch.txt
    torch --no-index --no-deps
    # Rowcast does not need these packages, which take up gigabytes.
    if .venv/bin/uv pip list --quiet --python "$python" | grep -iE '^(nvidia|cuda|triton)' >&2; then
        echo "torch installed CUDA packages; uninstall them" >&2
        exit 1
    fi
elif [ "${1:-}" = offered ]; then
    echo "PyTorch is not installed, so the tests of the mlp candidate are skipped. Run make torch to install it." >&2
else
    torch
fi
"$python" -c "import torch" >/dev/null 2>&1 || [ "${1:-}" = offered ]
