"""The model card summarizes the bundle in Markdown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest
from rowcast.tables.read import table_from_memory
from rowcast.training.options import TrainingOptions
from rowcast.training.run import train


def train_card(folder: Path, columns: dict[str, list[Any]], target: str) -> tuple[str, Manifest]:
    result = train(
        table_from_memory(columns, "table"),
        TrainingOptions(target=target, name="model", trials=1, candidates=("logistic",)),
        open_graph=open_graph,
        registry=FolderRegistry(folder),
        now=datetime(2026, 11, 1, tzinfo=UTC),
        progress=[].append,
    )
    return (Path(result.path) / bundle.CARD).read_text(), bundle.verify(Path(result.path))


def test_a_card_shows_metrics_and_findings(tmp_path: Path) -> None:
    columns = {
        "a|b": [f"{index % 3}|x" for index in range(300)],
        "constant": ["same"] * 300,
        "y": [int(index % 3 == 0) for index in range(300)],
    }

    card, manifest = train_card(tmp_path, columns, "y")

    lines = card.splitlines()
    assert lines[0] == "# model"
    for name, measure in manifest.holdout.items():
        assert f"| {name} | {measure.value:.4f} | {measure.low:.4f} | {measure.high:.4f} |" in lines
    assert f"{manifest.decision.threshold:.6g}" in card
    assert "| a\\|b | category | no | 0\\|x, 1\\|x, 2\\|x |" in lines
    assert any(line.startswith("- `constant` ") for line in lines)
    assert card.endswith("\n")
    assert not card.endswith("\n\n")


def test_the_card_of_a_regression_model_has_neither_classes_nor_a_threshold(tmp_path: Path) -> None:
    columns = {"x": [index % 17 for index in range(300)], "y": [index % 17 / 2 + 0.25 for index in range(300)]}

    card, _ = train_card(tmp_path, columns, "y")

    assert "- Classes:" not in card
    assert "- Threshold:" not in card
