"""The bundle: what is packed is what is opened, and nothing that was touched is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import BundleError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import load
from support import models

SCHEMA = models.number_columns(2)


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "models")


@pytest.fixture
def folder(registry: FolderRegistry) -> Path:
    """A packed bundle."""
    reference = models.publish(registry, "sum", models.sum_graph(2), SCHEMA, models.REGRESSION, "values")
    return registry.folder(reference)


def rewritten(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def test_a_packed_bundle_opens_with_all_it_was_given(folder: Path) -> None:
    opened = bundle.open(folder)

    assert opened.model == models.sum_graph(2)
    assert opened.golden == [bundle.GoldenRow({"x0": 1.0, "x1": 1.0}, Score(2.0))]
    assert opened.manifest == bundle.verify(folder)
    assert opened.manifest.digest.startswith("rb1-")


def test_the_same_content_has_the_same_digest(registry: FolderRegistry, folder: Path) -> None:
    again = models.publish(registry, "sum", models.sum_graph(2), SCHEMA, models.REGRESSION, "values")
    other = models.publish(registry, "sum", models.linear_graph(2, 1), SCHEMA, models.REGRESSION, "values")

    digests = [bundle.read_manifest(registry.folder(Reference("sum", version))).digest for version in (1, 2, 3)]
    assert (again.version, other.version) == (2, 3)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", [bundle.MODEL, bundle.GOLDEN])
def test_a_serving_file_that_was_changed_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    with pytest.raises(BundleError, match=f"{name} was changed"):
        bundle.open(folder)


@pytest.mark.parametrize("name", [bundle.MODEL, bundle.GOLDEN, bundle.MANIFEST])
def test_a_file_that_is_gone_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(BundleError, match=name):
        bundle.open(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["decision"].update(task="multiclass"),
        lambda document: document["schema"]["columns"][0].update(missing=True),
        lambda document: document["output"].update(kind="probabilities"),
        lambda document: document["plan"][0].update(fill=3.5),
        lambda document: document.update(digest="rb1-00"),
    ],
    ids=["decision", "schema", "output", "plan", "digest"],
)
def test_a_manifest_whose_serving_part_was_changed_is_refused(folder: Path, change: Callable[[Any], object]) -> None:
    rewritten(folder / bundle.MANIFEST, change)

    with pytest.raises(BundleError, match="digest does not match"):
        bundle.open(folder)


@pytest.mark.parametrize("found", [0, 2, "1", None])
def test_another_format_is_refused_by_its_number(folder: Path, found: Any) -> None:
    rewritten(folder / bundle.MANIFEST, lambda document: document.update(format=found))

    with pytest.raises(BundleError, match=f"format {found!r}.*reads format 1"):
        bundle.open(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"format":1}', b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / bundle.MANIFEST).write_bytes(content)

    with pytest.raises(BundleError, match=r"bundle\.json"):
        bundle.open(folder)


def test_a_manifest_cannot_name_files_outside(folder: Path) -> None:
    rewritten(folder / bundle.MANIFEST, lambda document: document["files"].update({"../../secret": "00"}))

    with pytest.raises(BundleError, match="secret"):
        bundle.verify(folder)


def test_later_fields_of_the_same_format_are_read_over(folder: Path) -> None:
    rewritten(folder / bundle.MANIFEST, lambda document: document.update(later={"more": 1}))

    assert bundle.open(folder).manifest.name == "sum"


def test_a_model_is_proven_before_it_answers(registry: FolderRegistry, folder: Path) -> None:
    model = load(Reference("sum", 1), registry, open_graph)

    (outcome,) = model.score([model.encoder.parse({"x0": 2.5, "x1": 1})])

    assert outcome == Score(3.5)


def test_a_model_that_answers_its_golden_rows_otherwise_is_not_served(registry: FolderRegistry) -> None:
    def pack(folder: Path) -> None:
        manifest = bundle.read_manifest(registry.folder(Reference("sum", 1)))
        golden = [bundle.GoldenRow({"x0": 1.0, "x1": 1.0}, Score(2.001))]
        bundle.pack(folder, manifest, {bundle.MODEL: models.sum_graph(2), bundle.GOLDEN: models.bundle_json(golden)})

    models.publish(registry, "sum", models.sum_graph(2), SCHEMA, models.REGRESSION, "values")
    registry.publish("sum", pack)

    with pytest.raises(BundleError, match=r"sum@2 answers golden row 0 with 2\.0, certified was 2\.001: not served"):
        load(Reference("sum", 2), registry, open_graph)


def test_a_model_without_golden_rows_is_not_served(registry: FolderRegistry, folder: Path) -> None:
    manifest = bundle.read_manifest(folder)
    files = {bundle.MODEL: models.sum_graph(2), bundle.GOLDEN: b"[]"}
    registry.publish("sum", lambda empty: bundle.pack(empty, manifest, files) and None)

    with pytest.raises(BundleError, match="no golden rows"):
        load(Reference("sum", 2), registry, open_graph)
