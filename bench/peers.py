"""The virtual environment for the tools that the benchmarks compare with Rowcast. It is created on first use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

PINS = ("pandas==3.0.6", "scikit-learn==1.9.1", "mlflow-skinny==3.17.2", "pyarrow==26.0.1")
WHERE = Path.home() / ".cache" / "rowcast-bench"


def python() -> Path:
    """Return the environment's Python interpreter, after creating the environment if it is missing or incomplete."""
    digest = hashlib.sha256(" ".join((sys.version, *PINS)).encode()).hexdigest()[:12]
    folder = WHERE / f"peers-{digest}"
    done = folder / "done"
    if not done.exists():
        print(f"installing {', '.join(PINS)} into {folder} (first use only)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINS], check=True)
        done.touch()
    return folder / "bin" / "python"
