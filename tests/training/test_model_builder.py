"""Building a model: certification, refit and class weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import ParityError
from rowcast.registry import bundle
from rowcast.registry.ports import Graph
from rowcast.tables import examples
from rowcast.tables.read import table_from_memory
from rowcast.training import certificate, row_hashes
from rowcast.training.calibration import SAFE_GAP, Calibration
from rowcast.training.ensemble import Choice, EnsembleMember
from rowcast.training.model_builder import CertifiedModel, ModelBuilder
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.options import TrainingOptions
from rowcast.training.search import search
from support.training import learning_problem, train_model, weighted_loans

pytestmark = pytest.mark.usefixtures("small_models")

LOANS = table_from_memory(examples.loans(1500), "loans")


def damage(model: bytes) -> bytes:
    """Change one leaf value, or one number in the first float64 constant, by 0.01."""
    proto = onnx.load_model_from_string(model)
    ensembles = [node for node in proto.graph.node if node.op_type == "TreeEnsembleRegressor"]
    if ensembles:
        weights = next(attribute for attribute in ensembles[0].attribute if attribute.name == "target_weights")
        weights.floats[0] += 0.01
    else:
        doubles = [each for each in proto.graph.initializer if each.data_type == onnx.TensorProto.DOUBLE]
        array = numpy_helper.to_array(doubles[0]).copy()
        array.flat[0] += 0.01
        doubles[0].CopyFrom(numpy_helper.from_array(array, doubles[0].name))
    return proto.SerializeToString()


@pytest.mark.parametrize("candidate", ["logistic", "ridge", "tree", "boosting", "forest"])
def test_a_graph_that_differs_slightly_from_the_model_is_not_published(tmp_path: Path, candidate: str) -> None:
    def opener(model: bytes, output: str) -> Graph:
        return open_graph(damage(model), output)

    with pytest.raises(ParityError) as caught:
        train_model(tmp_path, LOANS, "loan_status", opener=opener, trials=1, candidates=(candidate,))

    assert caught.value.slug == "parity"
    assert not FolderRegistry(tmp_path).models()


def test_a_refitted_model_keeps_the_measured_holdout_metrics(tmp_path: Path) -> None:
    measured, refitted = (
        train_model(tmp_path, LOANS, "loan_status", trials=1, candidates=("logistic",), refit=refit)
        for refit in (False, True)
    )

    assert refitted.holdout == measured.holdout
    assert refitted.digest != measured.digest
    assert refitted.parity.label_flips == 0
    assert bundle.open(Path(refitted.path)).manifest.training.options["refit"] is True


@pytest.mark.parametrize(
    ("options", "is_refitted"),
    [
        ({"preset": "best"}, True),
        ({"preset": "best", "refit": False}, False),
        ({"preset": "balanced"}, False),
        ({"preset": "balanced", "refit": True}, True),
    ],
    ids=["best", "best without refit", "balanced", "balanced with refit"],
)
def test_the_best_preset_fits_the_model_to_all_rows_by_default(
    tmp_path: Path, options: dict[str, Any], *, is_refitted: bool
) -> None:
    result = train_model(tmp_path, LOANS, "loan_status", trials=1, candidates=("boosting",), **options)

    manifest = bundle.open(Path(result.path)).manifest
    assert manifest.training.options["refit"] is is_refitted
    assert manifest.parity.rows > certificate.RANDOM_ROWS
    hashes = (Path(result.path) / bundle.TRAINING_ROWS).stat().st_size // row_hashes.HASH.itemsize
    assert (hashes >= LOANS.frame.height) is is_refitted


def test_the_threshold_keeps_clear_of_the_holdout_scores() -> None:
    options = TrainingOptions(target="y", name="loans", candidates=("logistic",), trials=1)
    problem = learning_problem(weighted_loans(), exclude=("w",))
    result, setting = search(problem, options, lambda event: None)

    def build(raw: Any) -> CertifiedModel:
        trial = dataclasses.replace(result.best, raw=raw)
        choice = Choice((EnsembleMember(trial, Calibration("binary"), 1.0),), 0.9)
        builder = ModelBuilder(options, "roc_auc", choice, setting, result.validation, open_graph, lambda event: None)
        return builder.build(problem)

    scores = build(result.best.raw).holdout_output[:, problem.positive].astype(float)
    score = scores[np.abs(scores - 0.5).argmin()]
    sides = np.where(result.validation.target == 1, score + 0.1, score - 0.1)  # the best midpoint is this score
    model = build(np.log(sides / (1 - sides))[:, None])

    assert model.holdout_output[:, problem.positive].astype(float).tolist() == scores.tolist()
    assert np.abs(scores - model.decision.threshold).min() > SAFE_GAP - 1e-6


@pytest.mark.parametrize("candidate", [name for name, each in CANDIDATES.items() if "multiclass" in each.tasks])
@pytest.mark.parametrize("classes", [2, 3])
def test_models_trained_with_balanced_classes_are_certified_and_calibrated(
    tmp_path: Path, candidate: str, classes: int
) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 2500))
    label = np.digitize(x[0] + rng.logistic(size=2500) * 0.4, [1.8] if classes == 2 else [-1.5, 1.8])
    columns = {"a": x[0].tolist(), "b": x[1].tolist(), "y": [f"k{each}" for each in label]}

    unweighted, balanced = (
        train_model(tmp_path, columns, candidates=(candidate,), trials=1, class_weight=class_weight)
        for class_weight in ("none", "balanced")
    )

    assert balanced.digest != unweighted.digest
    assert balanced.parity.label_flips == 0
    assert balanced.parity.max_abs_diff <= 1e-5
    assert balanced.holdout["log_loss"].value < unweighted.holdout["log_loss"].value + 0.08
    assert balanced.holdout["calibration_error"].value < 0.1
