#!/usr/bin/env bash
# Install PyTorch for the candidate `mlp`. It is no part of the main lock: on most machines the plain name brings CUDA.
#     scripts/torch.sh            on request: the wheel from pip's folders of wheels, else whatever the index gives
#     scripts/torch.sh offered    before the tests: only where those folders hold the wheel; elsewhere say so and go on
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=2.13.0
python=.venv/bin/python
installed() { "$python" -c "from importlib.metadata import version as v; print(v('torch'))" 2>/dev/null || true; }

case "$(installed)" in "$VERSION" | "$VERSION+"*) exit 0 ;; esac

# uv does not read what pip is told.
links=()
for folder in ${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}; do
    links+=(--find-links "$folder")
done
torch() { .venv/bin/uv pip install --quiet --python "$python" "${links[@]+"${links[@]}"}" "$@" "torch==$VERSION"; }

if torch --no-index --no-deps --dry-run 2>/dev/null; then
    echo "Installing torch $VERSION from a folder of wheels ..." >&2
    .venv/bin/uv pip install --quiet --python "$python" --no-deps --require-hashes -r requirements/torch.txt
    torch --no-index --no-deps
    # Gigabytes that nothing here needs.
    if .venv/bin/uv pip list --quiet --python "$python" | grep -iE '^(nvidia|cuda|triton)' >&2; then
        echo "CUDA packages came along with torch; remove them" >&2
        exit 1
    fi
elif [ "${1:-}" = offered ]; then
    echo "PyTorch is not installed: the tests of the candidate mlp are skipped. make torch installs it." >&2
else
    torch
fi
"$python" -c "import torch" >/dev/null 2>&1 || [ "${1:-}" = offered ]
