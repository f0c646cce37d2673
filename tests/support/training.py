"""Tables, learning problems and training runs for training tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.engines import Engine
from rowcast.registry.ports import OpenGraph
from rowcast.schema.prediction import Task
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Table
from rowcast.training.calibration import sigmoid
from rowcast.training.events import TrainingEvent
from rowcast.training.models.candidate import Setting
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS, PresetName
from rowcast.training.problem import LearningProblem, build_problem
from rowcast.training.result import TrainingResult
from rowcast.training.run import train

NOW = datetime(2026, 11, 1, tzinfo=UTC)
Columns = dict[str, list[Any]]


def learning_problem(columns: Columns, target: str = "y", **options: Any) -> LearningProblem:
    """Build a learning problem from these columns."""
    return build_problem(
        table_from_memory(columns, "loans"),
        TrainingOptions(target=target, name="loans", **{"preset": "fast", **options}),
    )


def train_model(
    folder: Path,
    table: Table | Columns,
    target: str = "y",
    *,
    progress: Callable[[TrainingEvent], None] = lambda event: None,
    opener: OpenGraph = open_graph,
    engine: Engine | None = None,
    **options: Any,
) -> TrainingResult:
    """Train on a table and publish the result as `model` in a registry in `folder`.

    By default, the run has three trials and the preset `fast`.
    """
    return train(
        table if isinstance(table, Table) else table_from_memory(table, "loans"),
        TrainingOptions(target=target, name="model", **{"trials": 3, "preset": "fast", **options}),
        open_graph=opener,
        registry=FolderRegistry(folder),
        now=NOW,
        progress=progress,
        engine=engine,
    )


def fit_setting(
    task: Task, rows: int, *, out_of_time: bool = False, preset: PresetName = "fast", bags: int = 1
) -> Setting:
    """Return the `Setting` of a single-threaded fit; a multiclass task has three classes."""
    return Setting(task, 3 if task == "multiclass" else 1, rows, 0, 1, lambda: out_of_time, PRESETS[preset], bags)


def customers(seed: int = 0, count: int = 120) -> Columns:
    """Return a table with one to eight rows per customer; most of a customer's rows have the same label."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, count)
    owner = np.repeat(np.arange(count), sizes)
    label = (rng.random(count) < 0.3)[owner] ^ (rng.random(len(owner)) < 0.1)
    return {
        "customer": [f"c{each}" for each in owner],
        "x": (rng.normal(size=count)[owner] + rng.normal(size=len(owner)) * 0.1).tolist(),
        "day": rng.permutation(len(owner)).tolist(),
        "y": np.where(label, "bad", "good").tolist(),
    }


def weighted_loans(rows: int = 600) -> Columns:
    """Return a table of loans with two numeric columns, a weight column and an imbalanced target."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, rows))
    label = rng.random(rows) < sigmoid(2 * x[0] - 2)
    weight = rng.integers(1, 5, rows).astype(float)
    return {"a": x[0].tolist(), "b": x[1].tolist(), "w": weight.tolist(), "y": np.where(label, "bad", "good").tolist()}
