"""Published models and labeled tables for evaluation tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.schema.prediction import Decision
from support import models

FLOWERS = models.classes("a", "b", "c")
ROWS = 300


def publish_classifier(home: Path, name: str = "flowers", decision: Decision = FLOWERS) -> None:
    """Publish a network as the champion; it has random weights and two input columns."""
    graph = models.mlp_graph(2, len(decision.classes))
    registry = FolderRegistry(home / "models")
    models.publish(registry, name, graph, models.number_columns(2), decision, "probabilities")


def publish_sum(home: Path) -> None:
    """Publish a regression model as the champion; it adds its two input columns."""
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


def labeled_rows(targets: Any, seed: int = 0) -> pl.DataFrame:
    """Return rows with two numbers, a target `y` drawn from `targets`, a weight `w` and a group `g`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, 2))
    drawn = x.sum(axis=1) + rng.normal(size=ROWS) if targets is None else rng.choice(targets, ROWS)
    weight = rng.integers(1, 5, ROWS)
    return pl.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "y": drawn, "w": weight, "g": np.arange(ROWS) // 10})
