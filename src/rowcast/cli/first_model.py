"""`rowcast serve --train-if-missing`: train the first model in a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.app import models
from rowcast.cli import output
from rowcast.errors import ModelNotFound, SettingsError, TrainingError

if TYPE_CHECKING:
    from rowcast.settings import Settings

CONFIG_SUFFIXES = frozenset({".yaml", ".yml", ".toml", ".json"})
"""A file with one of these suffixes is a config file; any other file is a table."""


def ensure(settings: Settings, table: Path, target: str | None) -> None:
    """Train a model if there is no model to serve; raise TrainingError with the reason if training fails."""
    if models.has_models(settings):
        return
    is_config = table.suffix in CONFIG_SUFFIXES
    if target is None and not is_config:
        raise SettingsError("no model to serve; to train a model, use --target to specify the column to predict")
    command = [sys.executable, "-m", "rowcast.cli", "train", *(["--config"] if is_config else []), str(table)]
    command += ["--target", target] if target is not None else []
    if settings.models:
        command += ["--name", models.name_to_train(settings)]
    output.say(f"no model to serve; training a model on {table}")
    finished = subprocess.run(command, env=settings.for_child(), stdout=sys.stderr, stderr=subprocess.PIPE, check=False)
    if finished.returncode:
        lines = finished.stderr.decode(errors="replace").strip().splitlines() or ["no error message"]
        raise TrainingError(f"training on {table} failed: {lines[-1].removeprefix('error: ')}")
    if not models.has_models(settings):
        required = ", ".join(settings.models)
        raise ModelNotFound(f"trained a model on {table}, but not all of these required models exist: {required}")
