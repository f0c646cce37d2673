"""Train a model with exactly 200 trees on the loan example, so that figures from different dates are comparable.

    python bench/model.py TABLE HOME      print the bundle's folder

Rowcast normally tunes LightGBM and stops it early; here the number of trees is fixed. Everything else is unchanged:
preprocessing, calibration, export, certificate and registry.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry import bundle
from rowcast.tables.read import read_table
from rowcast.training import run
from rowcast.training.models import candidates
from rowcast.training.models.boosting import Boosting
from rowcast.training.models.candidate import Estimator, LabelledMatrix, Params, Setting
from rowcast.training.options import TrainingOptions

TREES = 200


class TwoHundredTrees(Boosting):
    """Boosting with a fixed number of trees, without early stopping."""

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Estimator:
        return super().fit(rows, {**params, "rounds": TREES}, setting)


# A template with every feature that costs time per request: renamed columns, a reply tree and labels. Two columns
# with similar ranges swap names, so that the same request bodies are valid with and without the template.
WIRE = {
    "request": {"rename": {"annual_income": "loan_amount", "loan_amount": "annual_income"}},
    "labels": {"Approved": "approved", "Rejected": "rejected"},
    "reply": {"approval_status": "$label", "confidence": "$probability"},
}


def publish_wired(folder: Path, home: Path) -> None:
    """Publish the same model twice: as `loans` with a wire template, and as `plain` without a template."""
    opened = bundle.verify(folder)
    files = {name: (folder / name).read_bytes() for name in opened.files}
    registry = FolderRegistry(home / "models")
    for name, wire in (("loans", WIRE), ("plain", None)):
        manifest = msgspec.structs.replace(opened, name=name, wire=wire)
        registry.publish(name, lambda staging, each=manifest: bundle.pack(staging, each, files) and None, "champion")


def main(table: str, home: str) -> None:
    """Train `loans`, publish it in HOME, and publish copies with and without a wire template in HOME-wire."""
    candidates.CANDIDATES["boosting"] = TwoHundredTrees()
    options = TrainingOptions(
        target="loan_status", name="loans", candidates=("boosting",), preset="fast", trials=1, positive="Approved"
    )
    registry = FolderRegistry(Path(home) / "models")
    result = run.train(
        read_table(table),
        options,
        open_graph=open_graph,
        registry=registry,
        now=datetime.now(UTC),
        progress=lambda event: None,
    )
    publish_wired(Path(result.path), Path(f"{home}-wire"))
    print(result.path)


if __name__ == "__main__":
    main(*sys.argv[1:])
