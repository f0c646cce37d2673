"""The descriptions of models in `/models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rowcast.serving.live_models import LiveModel
from rowcast.serving.model_descriptions import describe, describe_default
from support import models


def common(model: LiveModel) -> dict[str, Any]:
    """Return the part of a description that depends only on the bundle."""
    manifest = model.manifest
    return {
        "name": model.name,
        "version": 1,
        "digest": model.digest,
        "target": "y",
        "created": models.NOW.isoformat(),
        "metric": "none",
        "score": 0.0,
        "holdout": {},
        "parity": msgspec.to_builtins(manifest.parity),
        "columns": [msgspec.to_builtins(column) for column in manifest.schema.columns],
        "derived": [],
        "schema": manifest.schema.json_schema(),
    }


def test_a_binary_classifier_is_described_with_its_positive_class_and_threshold(tmp_path: Path) -> None:
    labels, graph = models.classes("no", "yes"), models.mlp_graph(2, 2)
    model = models.live(tmp_path, "m", graph, models.number_columns(2), labels, "probabilities")

    assert msgspec.to_builtins(describe(model, is_default=False)) == {
        **common(model),
        "default": False,
        "task": "binary",
        "classes": ("no", "yes"),
        "positive": labels.classes[labels.positive],
        "threshold": labels.threshold,
    }


def test_other_models_have_neither_a_positive_class_nor_a_threshold(tmp_path: Path) -> None:
    labels, graph, schema = models.classes("a", "b", "c"), models.mlp_graph(2, 3), models.number_columns(2)
    multiclass = models.live(tmp_path, "m", graph, schema, labels, "probabilities")
    regression = models.live(tmp_path, "r", models.sum_graph(2), schema, models.REGRESSION, "values")

    for model, task, classes in ((multiclass, "multiclass", ("a", "b", "c")), (regression, "regression", ())):
        assert msgspec.to_builtins(describe(model, is_default=True)) == {
            **common(model),
            "default": True,
            "task": task,
            "classes": classes,
            "positive": None,
            "threshold": None,
        }


def test_the_default_model_is_described_with_further_fields(tmp_path: Path) -> None:
    labels, graph, schema = models.classes("a", "b", "c"), models.mlp_graph(2, 3), models.number_columns(2)
    multiclass = models.live(tmp_path, "m", graph, schema, labels, "probabilities")
    regression = models.live(tmp_path, "r", models.sum_graph(2), schema, models.REGRESSION, "values")

    for model, kind, classes in ((multiclass, "classification", ("a", "b", "c")), (regression, "regression", ())):
        assert msgspec.to_builtins(describe_default(model, is_default=True)) == {
            **msgspec.to_builtins(describe(model, is_default=True)),
            "model_name": model.name,
            "model_type": kind,
            "input_shape": (None, 2),
            "output_classes": len(classes),
            "features": ("x0", "x1"),
            "class_names": classes,
        }
