"""`rowcast serve --train-if-missing`: a model before the first request, trained in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.app import models as app_models
from rowcast.cli import output
from rowcast.errors import ModelNotFound, SettingsError, TrainingError

if TYPE_CHECKING:
    from rowcast.settings import Settings

CONFIGS = frozenset({".yaml", ".yml", ".toml", ".json"})
"""What `rowcast train --config` takes and no table is."""


def ensure(settings: Settings, table: Path, target: str | None) -> None:
    """Train unless everything that is to be served is there; TrainingError says what training complained of."""
    if app_models.has_models(settings):
        return
    is_config = table.suffix in CONFIGS
    if target is None and not is_config:
        raise SettingsError("there is no model yet: say with --target which column of the table to predict")
    command = [sys.executable, "-m", "rowcast.cli", "train", *(["--config"] if is_config else []), str(table)]
    command += ["--target", target] if target is not None else []
    if settings.models:
        command += ["--name", app_models.name_to_train(settings)]
    output.say(f"there is no such model yet: training on {table}")
    finished = subprocess.run(command, env=settings.for_child(), stdout=sys.stderr, stderr=subprocess.PIPE, check=False)
    if finished.returncode:
        said = finished.stderr.decode(errors="replace").strip().splitlines() or ["nothing was said"]
        raise TrainingError(f"training on {table} failed: {said[-1].removeprefix('error: ')}")
    if not app_models.has_models(settings):
        wanted = ", ".join(settings.models)
        raise ModelNotFound(f"a model was trained on {table}, but {wanted} is still missing")
