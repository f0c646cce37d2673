"""Imported models are inspected and then tested in the sandbox; only a model that passes becomes the champion."""

from __future__ import annotations

import hashlib
import os
import zipfile
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app.documents import read_document
from rowcast.errors import BundleError, RegistryError, RowcastError, SettingsError
from rowcast.registry import bundle
from rowcast.registry.archive import write_archive
from rowcast.registry.importer import ModelImporter, read_model_file
from rowcast.registry.ports import Reference
from support.onnx_graphs import PROBABILITIES, InProcessSandbox


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "models")


@pytest.fixture
def importer(registry: FolderRegistry) -> ModelImporter:
    return ModelImporter(registry, InProcessSandbox(), read_document, max_model_mb=1, max_model_nodes=100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An ONNX file."""
    path = tmp_path / "Iris 2.onnx"
    path.write_bytes(PROBABILITIES)
    return path


class RefusingSandbox(InProcessSandbox):
    """A sandbox that rejects every bundle."""

    def verify_bundle(self, folder: Path, reference: Reference) -> None:
        raise BundleError(f"{reference} has wrong answers")


def test_an_onnx_file_is_imported_under_its_file_name_and_becomes_the_champion(
    importer: ModelImporter, registry: FolderRegistry, path: Path
) -> None:
    model = importer.import_file(path)

    folder = registry.folder(Reference("iris-2", 1))
    assert (model.model, model.version, model.task, model.path) == ("iris-2", 1, "multiclass", str(folder))
    assert registry.aliases("iris-2") == {"champion": 1}
    assert registry.log("iris-2")[0].reason == f"imported from {path.name!r}"
    assert bundle.verify(folder).digest == model.digest
    assert (folder / bundle.MODEL).read_bytes() == PROBABILITIES
    assert (folder / bundle.CARD).read_text().startswith("# iris-2\n")


def test_the_model_name_comes_from_the_metadata_unless_a_name_is_given(
    importer: ModelImporter, tmp_path: Path, path: Path
) -> None:
    metadata = tmp_path / "meta.json"
    metadata.write_text('{"model_name": "Named", "features": ["a", "b", "c", "d"]}')

    assert importer.import_file(path, metadata=metadata).model == "named"
    model = importer.import_file(path, metadata=metadata, name="other", wire={"reply": "$label"})
    assert (model.model, model.columns) == ("other", ["a", "b", "c", "d"])


def test_a_table_supplies_column_names_and_ranges(
    importer: ModelImporter, registry: FolderRegistry, tmp_path: Path, path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b,c,d\n1,2,3,4\n5,6,7,8\n")

    model = importer.import_file(path, data=table)

    columns = bundle.read_manifest(Path(model.path)).schema.columns
    assert [(column.name, column.low, column.high) for column in columns][:2] == [("a", 1.0, 5.0), ("b", 2.0, 6.0)]


def test_an_archive_imported_under_a_new_name_keeps_its_content(
    importer: ModelImporter, tmp_path: Path, path: Path
) -> None:
    original = importer.import_file(path)
    archive = tmp_path / "x.rowcast"
    write_archive(Path(original.path), archive)

    model = importer.import_file(archive, name="copy")

    assert (model.model, model.digest) == ("copy", original.digest)
    for file in Path(original.path).iterdir():
        assert (Path(model.path) / file.name).read_bytes() == file.read_bytes()


def test_the_graph_of_an_archive_is_inspected(importer: ModelImporter, registry: FolderRegistry, path: Path) -> None:
    strict = ModelImporter(registry, InProcessSandbox(), read_document, max_model_mb=1, max_model_nodes=1)
    archive = path.with_suffix(".rowcast")
    write_archive(Path(importer.import_file(path).path), archive)

    with pytest.raises(BundleError) as caught:
        strict.import_file(archive, name="copy")

    assert caught.value.slug == "too-many-nodes"


def test_a_bundle_that_fails_verification_is_not_published(registry: FolderRegistry, path: Path) -> None:
    importer = ModelImporter(registry, RefusingSandbox(), read_document, max_model_mb=1, max_model_nodes=100)

    with pytest.raises(BundleError) as caught:
        importer.import_file(path)

    assert str(caught.value) == "cannot import Iris 2.onnx: iris-2@1 has wrong answers"
    assert registry.models() == {}


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("none.onnx", {}, BundleError),
        ("m.pkl", {}, SettingsError),
        ("m.rowcast", {"wire": "native"}, SettingsError),
        ("m.onnx", {"name": "Not A Name"}, RegistryError),
        ("m.onnx", {"metadata": Path("none.json")}, SettingsError),
        ("m.onnx", {"wire": {"reply": "$labl"}}, RowcastError),
    ],
)
def test_an_unsuitable_file_or_argument_is_rejected(
    importer: ModelImporter,
    registry: FolderRegistry,
    tmp_path: Path,
    name: str,
    arguments: dict[str, Any],
    error: type[RowcastError],
) -> None:
    (tmp_path / "m.onnx").write_bytes(PROBABILITIES)

    with pytest.raises(error):
        importer.import_file(tmp_path / name, **arguments)

    assert registry.models() == {}


def test_only_regular_files_within_the_size_limit_are_read(tmp_path: Path) -> None:
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(2 * 1024 * 1024)
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")

    for path, slug in (
        (large, "too-large"),
        (tmp_path / "folder.onnx", "unreadable"),
        (tmp_path / "pipe.onnx", "not-a-file"),
        (tmp_path / "none.onnx", "unreadable"),
    ):
        with pytest.raises(BundleError) as caught:
            read_model_file(path, 1)
        assert caught.value.slug == slug


def test_a_zip_file_without_a_bundle_is_rejected(importer: ModelImporter, tmp_path: Path) -> None:
    path = tmp_path / "x.rowcast"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no bundle")

    with pytest.raises(BundleError) as caught:
        importer.import_file(path)

    assert "x.rowcast" in caught.value.message


def test_a_file_of_exactly_the_maximum_size_is_read_completely(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(1024 * 1024 - 1) + b"x")

    assert read_model_file(path, 1) == path.read_bytes()
    with path.open("ab") as file:
        file.write(b"y")
    with pytest.raises(BundleError):
        read_model_file(path, 1)


def test_a_file_name_in_capital_letters_is_recognized(importer: ModelImporter, tmp_path: Path) -> None:
    (tmp_path / "M.ONNX").write_bytes(PROBABILITIES)
    model = importer.import_file(tmp_path / "M.ONNX")
    write_archive(Path(model.path), tmp_path / "x.rowcast")
    (tmp_path / "x.rowcast").rename(tmp_path / "X.ROWCAST")

    assert importer.import_file(tmp_path / "X.ROWCAST").version == 2


@pytest.mark.parametrize("option", [{"metadata": Path("m.json")}, {"wire": "native"}, {"data": Path("t.csv")}])
def test_an_archive_cannot_be_combined_with_options_for_onnx_files(
    importer: ModelImporter, path: Path, option: dict[str, Any]
) -> None:
    archive = path.with_suffix(".rowcast")
    write_archive(Path(importer.import_file(path).path), archive)

    with pytest.raises(SettingsError):
        importer.import_file(archive, **option)


def test_an_empty_model_name_in_the_metadata_is_ignored(importer: ModelImporter) -> None:
    assert importer.import_onnx("Iris 2.onnx", PROBABILITIES, {"model_name": ""}).model == "iris-2"


def test_the_result_and_the_manifest_describe_the_imported_file(
    importer: ModelImporter, registry: FolderRegistry, path: Path
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    model = importer.import_file(path, wire="matrix")

    manifest = bundle.read_manifest(registry.folder(Reference("iris-2", 1)))
    assert model.digest == manifest.digest
    assert model.columns == ["feature_0", "feature_1", "feature_2", "feature_3"]
    assert len(model.notes) == 1
    assert (manifest.training.table, manifest.training.sha256) == (
        "Iris 2.onnx",
        hashlib.sha256(PROBABILITIES).hexdigest(),
    )
    assert before <= datetime.fromisoformat(manifest.created) <= datetime.now(UTC)
    assert len(manifest.created) == len("2026-01-31T09:30:00+00:00")
    assert manifest.wire is not None
    assert manifest.wire["request"]["form"] == "matrix"


def test_the_native_format_replaces_the_format_that_the_metadata_indicates(
    importer: ModelImporter, tmp_path: Path, path: Path
) -> None:
    metadata = tmp_path / "meta.json"
    metadata.write_text('{"input_shape": [null, 4]}')

    models_ = [importer.import_file(path, metadata=metadata, wire=wire) for wire in (None, "native")]

    assert [bundle.read_manifest(Path(model.path)).wire is None for model in models_] == [False, True]


def test_a_wire_template_is_read_from_a_file(importer: ModelImporter, tmp_path: Path, path: Path) -> None:
    template = tmp_path / "wire.json"
    template.write_text('{"reply": "$label"}')

    model = importer.import_file(path, wire=template)

    assert bundle.read_manifest(Path(model.path)).wire == {"reply": "$label"}


class FailingRegistry(FolderRegistry):
    """A registry without space for temporary folders."""

    def scratch(self) -> AbstractContextManager[Path]:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_reported(tmp_path: Path, path: Path) -> None:
    importer = ModelImporter(
        FailingRegistry(tmp_path), InProcessSandbox(), read_document, max_model_mb=1, max_model_nodes=100
    )

    with pytest.raises(BundleError) as refused:
        importer.import_file(path)

    assert refused.value.message == "cannot write a temporary copy of the model: No space left on device"


def test_an_imported_archive_is_described(importer: ModelImporter, registry: FolderRegistry, path: Path) -> None:
    original = importer.import_file(path)
    archive = path.with_suffix(".rowcast")
    write_archive(Path(original.path), archive)

    model = importer.import_file(archive)

    assert model == msgspec.structs.replace(original, version=2, path=str(registry.root / "iris-2" / "2"), notes=[])
    assert registry.log("iris-2")[-1].reason == f"imported from {archive.name!r}"
    assert registry.aliases("iris-2") == {"champion": 2}
    assert sorted(file.name for file in registry.root.iterdir()) == [".lock", "generation", "iris-2"]


def test_an_archive_that_fails_verification_is_not_published(registry: FolderRegistry, path: Path) -> None:
    options: Any = {"max_model_mb": 1, "max_model_nodes": 100}
    importer = ModelImporter(registry, InProcessSandbox(), read_document, **options)
    archive = path.with_suffix(".rowcast")
    write_archive(Path(importer.import_file(path).path), archive)

    with pytest.raises(BundleError) as refused:
        ModelImporter(registry, RefusingSandbox(), read_document, **options).import_file(archive, name="copy")

    assert refused.value.message == "cannot import Iris 2.rowcast: copy@1 has wrong answers"
    assert list(registry.models()) == ["iris-2"]


def test_the_graph_of_an_onnx_file_is_inspected_before_it_is_run(registry: FolderRegistry, path: Path) -> None:
    importer = ModelImporter(registry, InProcessSandbox(), read_document, max_model_mb=1, max_model_nodes=1)

    with pytest.raises(BundleError) as refused:
        importer.import_file(path)

    assert "cannot import Iris 2.onnx: the ONNX graph has more than 1 nodes" in refused.value.message
    assert registry.models() == {}
