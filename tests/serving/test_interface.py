"""The interface of a model: everything except its graph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rowcast.errors import BundleError
from rowcast.registry.ports import Reference
from rowcast.schema.prediction import Score
from rowcast.schema.schema import Column, Schema
from rowcast.serving.interface import ModelInterface
from rowcast.serving.live_models import LiveModel
from support import models


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    labels = models.classes("a", "b", "c")
    return models.live(folder, "m", models.mlp_graph(2, 3), models.number_columns(2), labels, "probabilities")


def test_a_score_is_converted_to_a_class_index_or_a_value(classifier: LiveModel, tmp_path: Path) -> None:
    schema = models.number_columns(2)
    regression = models.live(tmp_path, "r", models.sum_graph(2), schema, models.REGRESSION, "values")

    assert [classifier.number(Score(label)) for label in ("a", "c")] == [0.0, 2.0]
    assert regression.number(Score(2.5)) == 2.5


def test_the_sample_is_a_body_that_the_model_accepts(classifier: LiveModel) -> None:
    assert classifier.encoder.read(msgspec.json.encode(classifier.sample()))


def test_the_sample_of_a_model_with_a_template_follows_the_template(classifier: LiveModel) -> None:
    wire = {"request": {"rename": {"first": "x0"}}, "reply": {"value": "$label"}}
    manifest = msgspec.structs.replace(classifier.manifest, wire=wire)

    model = ModelInterface(Reference("m", 1), manifest)

    assert set(model.sample()) == {"first", "x1"}
    assert set(model.example()) == {"x0", "x1"}


def test_a_template_that_does_not_match_the_model_raises_a_bundle_error(classifier: LiveModel) -> None:
    manifest = msgspec.structs.replace(classifier.manifest, wire={"reply": {"value": "$nonsense"}})

    with pytest.raises(BundleError) as refused:
        ModelInterface(Reference("m", 3), manifest)

    assert refused.value.message.startswith("m@3 ")


def test_the_interface_loads_neither_numpy_nor_onnxruntime() -> None:
    check = "import sys, rowcast.serving.interface; print({'numpy', 'onnxruntime'} & sys.modules.keys())"

    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "set()"


def test_the_golden_example_hides_sensitive_cells(tmp_path: Path) -> None:
    schema = Schema(
        (
            Column(name="x0", kind="number", example=7.5, sensitive=True),
            Column(name="x1", kind="number", example=2.5),
        )
    )
    model = models.live(tmp_path, "m", models.sum_graph(2), schema, models.REGRESSION, "values")

    assert model.golden is not None
    assert model.golden.row == {"x0": 7.5, "x1": 2.5}
    assert model.golden_example() == model.example() == {"x0": schema.columns[0].shown().example, "x1": 2.5}
    assert model.example()["x0"] != 7.5


def test_a_model_describes_its_task_and_outputs(classifier: LiveModel, tmp_path: Path) -> None:
    schema = models.number_columns(2)
    regression = models.live(tmp_path, "r", models.sum_graph(2), schema, models.REGRESSION, "values")

    for model, is_classifier in ((classifier, True), (regression, False)):
        assert (model.is_classifier, model.has_probabilities) == (is_classifier, is_classifier)
        assert (model.is_own_export, model.is_slow, model.wire) == (True, False, None)
