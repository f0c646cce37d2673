"""Train the loan example as a model of exactly 200 trees, so that figures of different days compare.

    python bench/model.py TABLE HOME      prints the bundle's folder

The product stops LightGBM early and tunes it; here the number of trees is given. All else is the product's own way:
preprocessing, calibration, export, certificate, registry.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rowcast import tables
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry import bundle
from rowcast.training import run
from rowcast.training.models import candidates
from rowcast.training.models.boosting import Boosting
from rowcast.training.models.candidate import Fitted, LabelledMatrix, Params, Setting
from rowcast.training.options import TrainingOptions

TREES = 200


class TwoHundredTrees(Boosting):
    """Boosting that neither stops early nor tries other sizes."""

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Fitted:
        return super().fit(rows, {**params, "rounds": TREES}, setting)


# Every part of a template that costs a request something: names of its own, a tree to fill, labels of its own. Two
# columns change their names, so that the bodies of the native server do.
WIRE = {
    "request": {"rename": {"residential_assets": "bank_assets", "bank_assets": "residential_assets"}},
    "labels": {"Approved": "approved", "Rejected": "rejected"},
    "reply": {"approval_status": "$label", "confidence": "$probability"},
}


def publish_wired(folder: Path, home: Path) -> None:
    """The same model, with a wire template."""
    opened = bundle.verify(folder)
    manifest = msgspec.structs.replace(opened, wire=WIRE)
    files = {name: (folder / name).read_bytes() for name in opened.files}
    registry = FolderRegistry(home / "models")
    registry.publish("loans", lambda staging: bundle.pack(staging, manifest, files) and None, "champion")


def main(table: str, home: str) -> None:
    """Train and publish as `loans`; and with a wire template in HOME-wire."""
    candidates.CANDIDATES["boosting"] = TwoHundredTrees()
    options = TrainingOptions(
        target="loan_status", name="loans", candidates=("boosting",), trials=1, positive="Approved"
    )
    registry = FolderRegistry(Path(home) / "models")
    result = run.train(
        tables.read(table),
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
