"""A file in the models folder is imported again only if its content changes, even after a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app.documents import read_document
from rowcast.registry.importer import ModelImporter
from rowcast.registry.models_folder import RECORD, SHARED_METADATA, ModelsFolder, preferred_model
from rowcast.registry.ports import ImportResult
from support.onnx_graphs import PROBABILITIES, RAW_SCORES, InProcessSandbox


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A models folder with one graph."""
    folder = tmp_path / "drop"
    folder.mkdir()
    (folder / "first.onnx").write_bytes(PROBABILITIES)
    return folder


@pytest.fixture
def folder(tmp_path: Path, drop: Path) -> ModelsFolder:
    state = tmp_path / "models"
    registry = FolderRegistry(state)
    importer = ModelImporter(registry, InProcessSandbox(), read_document, max_model_mb=1, max_model_nodes=100)
    return ModelsFolder(drop, importer, state_folder=state)


def test_a_file_is_imported_again_only_if_its_content_changes(folder: ModelsFolder, drop: Path) -> None:
    (drop / ".hidden.onnx").write_bytes(b"")

    assert folder.import_new() == folder.import_new() == [ImportResult("first.onnx", "first", 1)]
    (drop / "first.onnx").write_bytes(RAW_SCORES)
    assert folder.import_new() == [ImportResult("first.onnx", "first", 2)]


def test_a_failed_import_is_retried_only_on_request(folder: ModelsFolder, drop: Path) -> None:
    (drop / "first.onnx").write_bytes(b"not a graph")

    (failure,) = folder.import_new()
    record = json.loads((drop.parent / "models" / RECORD).read_text())

    assert failure.error
    assert [entry["error"] for entry in record.values()] == [failure.error]
    (key,) = record
    (drop.parent / "models" / RECORD).write_text(json.dumps({key: {"file": "first.onnx", "error": "recorded"}}))
    assert folder.import_new() == [ImportResult("first.onnx", error="recorded")]
    assert folder.import_new(retry_failed=True) == [failure]


def test_shared_metadata_applies_to_the_graph_that_the_metadata_names(folder: ModelsFolder, drop: Path) -> None:
    (drop / "second.onnx").write_bytes(RAW_SCORES)
    (drop / SHARED_METADATA).write_text('{"model_name": "second", "features": ["a", "b", "c", "d"]}')

    assert [(result.model, result.version) for result in folder.import_new()] == [("first", 1), ("second", 1)]
    (drop / SHARED_METADATA).write_text('{"model_name": "first"}')
    assert [(result.model, result.version) for result in folder.import_new()] == [("first", 2), ("second", 1)]


def test_shared_metadata_for_an_unknown_model_is_rejected_if_there_are_several_graphs(
    folder: ModelsFolder, drop: Path
) -> None:
    (drop / SHARED_METADATA).write_text('{"model_name": "other"}')
    assert [result.model for result in folder.import_new()] == ["other"]

    (drop / "second.onnx").write_bytes(RAW_SCORES)
    (drop / "second_metadata.json").write_text("{}")
    first, second = folder.import_new()

    assert (first.model, bool(first.error)) == ("", True)
    assert (second.model, second.error) == ("second", "")


def test_a_damaged_record_is_reported(folder: ModelsFolder, drop: Path) -> None:
    folder.import_new()
    (drop.parent / "models" / RECORD).write_text("{bad")

    (result,) = folder.import_new()

    assert result.file == str(drop)
    assert RECORD in result.error


def test_a_missing_folder_is_reported(folder: ModelsFolder, drop: Path) -> None:
    (drop / "first.onnx").unlink()
    drop.rmdir()

    (result,) = folder.import_new()

    assert (result.file, result.model) == (str(drop), "")
    assert result.error


def test_the_shared_metadata_determines_the_preferred_model(drop: Path) -> None:
    assert preferred_model(drop, read_document) == ""
    (drop / SHARED_METADATA).write_text('{"model_name": "My Model"}')
    assert preferred_model(drop, read_document) == "my-model"
    (drop / SHARED_METADATA).write_text("{")
    assert preferred_model(drop, read_document) == ""
