"""An opened bundle has exactly the content that was packed; a changed or damaged bundle is rejected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import BundleError, SettingsError
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


def edit_manifest(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / bundle.MANIFEST
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def refusal(read: Callable[[], object]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read()
    return caught.value


def test_a_packed_bundle_is_opened_with_all_of_its_content(folder: Path) -> None:
    opened = bundle.open(folder)

    assert opened.model == models.sum_graph(2)
    assert opened.golden == [bundle.GoldenRow({"x0": 1.0, "x1": 1.0}, Score(2.0))]
    assert opened.manifest == bundle.verify(folder)
    assert opened.manifest.digest.startswith("rb1-")


def test_the_score_of_a_golden_row_is_stored_under_the_key_outcome(folder: Path) -> None:
    stored = json.loads((folder / bundle.GOLDEN).read_bytes())

    assert stored == [{"row": {"x0": 1.0, "x1": 1.0}, "outcome": {"prediction": 2.0}}]


def test_bundles_with_the_same_content_have_the_same_digest(registry: FolderRegistry, folder: Path) -> None:
    same = models.publish(registry, "sum", models.sum_graph(2), SCHEMA, models.REGRESSION, "values")
    other = models.publish(registry, "sum", models.linear_graph(2, 1), SCHEMA, models.REGRESSION, "values")

    digests = [bundle.read_manifest(registry.folder(Reference("sum", version))).digest for version in (1, 2, 3)]
    assert (same.version, other.version) == (2, 3)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", [bundle.MODEL, bundle.GOLDEN])
def test_a_changed_serving_file_is_rejected(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    error = refusal(lambda: bundle.open(folder))

    assert error.slug == "digest-mismatch"
    assert str(folder / name) in error.message


@pytest.mark.parametrize(
    ("name", "slug"),
    [(bundle.MODEL, "unreadable"), (bundle.GOLDEN, "unreadable"), (bundle.MANIFEST, "not-a-bundle")],
)
def test_the_error_for_a_missing_file_names_the_file(folder: Path, name: str, slug: str) -> None:
    (folder / name).unlink()

    error = refusal(lambda: bundle.open(folder))

    assert error.slug == slug
    assert name in error.message


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["decision"].update(task="multiclass"),
        lambda document: document["schema"]["columns"][0].update(missing=True),
        lambda document: document["output"].update(kind="probabilities"),
        lambda document: document["plan"][0].update(fill=3.5),
        lambda document: document.update(wire={"reply": {"value": "$label"}}),
        lambda document: document.update(digest="rb1-00"),
        lambda document: document.update(digest=""),
    ],
    ids=["decision", "schema", "output", "plan", "wire", "digest", "no digest"],
)
def test_a_manifest_with_a_modified_serving_section_is_rejected(folder: Path, change: Callable[[Any], object]) -> None:
    edit_manifest(folder, change)

    assert refusal(lambda: bundle.open(folder)).slug == "digest-mismatch"


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_the_error_for_an_unsupported_format_includes_the_format_number(folder: Path, version: Any) -> None:
    edit_manifest(folder, lambda document: document.update(format=version))

    error = refusal(lambda: bundle.open(folder))

    assert error.slug == "bundle-format"
    assert f"format {version!r}" in error.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"format":1}', b"[" * 100_000])
def test_a_damaged_manifest_is_rejected(folder: Path, content: bytes) -> None:
    (folder / bundle.MANIFEST).write_bytes(content)

    error = refusal(lambda: bundle.open(folder))

    assert error.slug in ("damaged-bundle", "bundle-format")
    assert bundle.MANIFEST in error.message


def test_a_manifest_cannot_list_files_outside_its_folder(folder: Path) -> None:
    edit_manifest(folder, lambda document: document["files"].update({"../../secret": "00"}))

    assert refusal(lambda: bundle.verify(folder)).slug == "unlisted-file"


def test_unknown_fields_in_a_supported_format_are_ignored(folder: Path) -> None:
    edit_manifest(folder, lambda document: document.update(later={"more": 1}))

    assert bundle.open(folder).manifest.name == "sum"


def test_a_graph_is_copied_completely_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"

    with bundle.graph_writer(path) as write:
        assert not path.exists()
        write(folder)

    assert path.read_bytes() == models.sum_graph(2)
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "models"]


def test_an_unwritable_graph_path_is_rejected_before_training(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "graph.onnx"):
        with pytest.raises(BundleError), bundle.graph_writer(path):
            pytest.fail("the body must not run")


def test_a_graph_path_that_would_overwrite_the_training_data_is_rejected(tmp_path: Path) -> None:
    table = tmp_path / "loans.csv"
    table.write_text("a,b\n")

    with pytest.raises(SettingsError), bundle.graph_writer(tmp_path / "." / "loans.csv", inputs=[str(table), None]):
        pytest.fail("the body must not run")
    assert table.read_text() == "a,b\n"


def test_a_model_that_passes_verification_can_be_loaded(registry: FolderRegistry, folder: Path) -> None:
    model = load(Reference("sum", 1), registry, open_graph)

    (score,) = model.score([model.encoder.parse({"x0": 2.5, "x1": 1})])

    assert score == Score(3.5)


def test_a_model_with_wrong_scores_for_its_golden_rows_is_not_served(registry: FolderRegistry) -> None:
    def pack(folder: Path) -> None:
        manifest = bundle.read_manifest(registry.folder(Reference("sum", 1)))
        golden = [bundle.GoldenRow({"x0": 1.0, "x1": 1.0}, Score(2.001))]
        bundle.pack(folder, manifest, {bundle.MODEL: models.sum_graph(2), bundle.GOLDEN: models.bundle_json(golden)})

    models.publish(registry, "sum", models.sum_graph(2), SCHEMA, models.REGRESSION, "values")
    registry.publish("sum", pack)

    error = refusal(lambda: load(Reference("sum", 2), registry, open_graph))

    assert all(text in error.message for text in ("sum@2", "golden row 0", "2.0", "2.001"))


def test_a_model_without_golden_rows_is_not_served(registry: FolderRegistry, folder: Path) -> None:
    manifest = bundle.read_manifest(folder)
    files = {bundle.MODEL: models.sum_graph(2), bundle.GOLDEN: b"[]"}
    registry.publish("sum", lambda empty: bundle.pack(empty, manifest, files) and None)

    assert "golden rows" in refusal(lambda: load(Reference("sum", 2), registry, open_graph)).message


def test_json_files_have_at_most_eight_mebibytes(folder: Path, tmp_path: Path) -> None:
    limit = 8 * 1024 * 1024
    path = folder / bundle.MANIFEST
    path.write_bytes(path.read_bytes().ljust(limit))
    manifest = bundle.read_manifest(folder)
    path.write_bytes(path.read_bytes() + b" ")

    error = refusal(lambda: bundle.read_manifest(folder))

    assert error.slug == "too-large"
    assert "8388609 bytes; the limit is 8 MB" in error.message
    fitting, oversized = tmp_path / "fitting", tmp_path / "oversized"
    for target in (fitting, oversized):
        target.mkdir()
    bundle.pack(fitting, manifest, {bundle.MODEL: b"", bundle.GOLDEN: b"[]".ljust(limit)})
    assert bundle.open(fitting).golden == []
    files = {bundle.MODEL: b"", bundle.GOLDEN: b"[]".ljust(limit + 1)}
    assert refusal(lambda: bundle.pack(oversized, manifest, files)).slug == "too-large"
    assert list(oversized.iterdir()) == []
    (fitting / bundle.GOLDEN).write_bytes(files[bundle.GOLDEN])
    assert refusal(lambda: bundle.open(fitting)).slug == "too-large"


def test_a_manifest_is_indented_json_with_the_digest_of_each_file(folder: Path) -> None:
    lines = (folder / bundle.MANIFEST).read_text().splitlines()
    document = json.loads("".join(lines))

    assert lines[1] == '  "format": 1,'
    assert document["files"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (bundle.GOLDEN, bundle.MODEL)
    }


def test_verification_covers_files_that_do_not_affect_predictions(folder: Path, tmp_path: Path) -> None:
    files = {bundle.MODEL: models.sum_graph(2), bundle.GOLDEN: b"[]", bundle.CARD: b"card"}
    target = tmp_path / "bundle"
    target.mkdir()
    manifest = bundle.pack(target, bundle.read_manifest(folder), files)
    assert bundle.verify(target) == manifest
    (target / bundle.CARD).write_bytes(b"changed")

    assert bundle.open(target).manifest == manifest
    error = refusal(lambda: bundle.verify(target))
    assert (error.slug, str(target / bundle.CARD) in error.message) == ("digest-mismatch", True)


def test_golden_rows_must_be_valid(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    bundle.pack(target, bundle.read_manifest(folder), {bundle.MODEL: b"", bundle.GOLDEN: b'[{"row":1}]'})

    error = refusal(lambda: bundle.open(target))

    assert (error.slug, bundle.GOLDEN in error.message) == ("damaged-bundle", True)


def test_an_interrupted_training_run_leaves_no_partial_graph(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), bundle.graph_writer(tmp_path / "graph.onnx"):
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


def test_the_error_for_a_graph_path_that_is_a_folder_gives_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as refused, bundle.graph_writer(tmp_path):
        pytest.fail("the body must not run")

    assert refused.value.message == f"cannot write {tmp_path}: Is a directory"


def test_an_unreadable_manifest_is_reported(folder: Path) -> None:
    (folder / bundle.MANIFEST).unlink()
    (folder / bundle.MANIFEST).mkdir()

    assert refusal(lambda: bundle.open(folder)).slug == "unreadable"
