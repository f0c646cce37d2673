"""Virtual environments for the tools that the benchmarks compare with Rowcast, and for packages that provide data sets.
They are created on first use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

PINS = ("pandas==3.0.6", "scikit-learn==1.9.1", "mlflow-skinny==3.17.2", "pyarrow==26.0.1")
SYSTEMS = {
    "autogluon": ("torch==2.13.0", "autogluon.tabular[lightgbm,catboost,xgboost,fastai]==1.6.3"),
    "flaml": ("flaml[automl]==2.7.0",),
}
WHERE = Path.home() / ".cache" / "rowcast-bench"


def python(*pins: str) -> Path:
    """Return the interpreter of the environment with these packages (default: PINS). Create the environment if it is
    missing or incomplete."""
    pins = pins or PINS
    folder = WHERE / f"peers-{digest(*pins)}"
    done = folder / "done"
    if not done.exists():
        print(f"installing {', '.join(pins)} into {folder} (first use only)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *pins], check=True)
        done.touch()
    return folder / "bin" / "python"


def digest(*pins: str) -> str:
    """Return a short digest of these packages and this Python version."""
    return hashlib.sha256(" ".join((sys.version, *pins)).encode()).hexdigest()[:12]
