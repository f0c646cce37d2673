"""A file in the models folder is imported again only if its content changes, even after a restart."""

from __future__ import annotations

import fcntl
import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app.documents import read_document
from rowcast.registry import models_folder
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


def test_the_name_of_a_file_is_part_of_its_identity(folder: ModelsFolder, drop: Path) -> None:
    assert [result.model for result in folder.import_new()] == ["first"]
    (drop / "SECOND.ONNX").write_bytes(PROBABILITIES)

    assert folder.import_new() == [ImportResult("SECOND.ONNX", "second", 1), ImportResult("first.onnx", "first", 1)]


def test_a_graph_keeps_its_version_if_the_shared_metadata_no_longer_describes_it(
    folder: ModelsFolder, drop: Path
) -> None:
    (drop / SHARED_METADATA).write_text('{"model_name": "first", "features": ["a", "b", "c", "d"]}')
    described = folder.import_new()
    (drop / "second.onnx").write_bytes(RAW_SCORES)
    (drop / SHARED_METADATA).write_text('{"model_name": "second"}')

    first, second = folder.import_new()

    assert [first] == described == [ImportResult("first.onnx", "first", 1)]
    assert (second.model, second.version) == ("second", 1)


def test_the_metadata_of_a_graph_takes_precedence_over_the_shared_metadata(folder: ModelsFolder, drop: Path) -> None:
    (drop / SHARED_METADATA).write_text('{"model_name": "shared"}')
    (drop / "first_metadata.json").write_text('{"model_name": "own"}')

    assert [result.model for result in folder.import_new()] == ["own"]


def test_a_graph_is_imported_again_if_its_metadata_file_changes(folder: ModelsFolder, drop: Path) -> None:
    (drop / "first_metadata.json").write_text("{}")
    assert [result.version for result in folder.import_new()] == [1]
    (drop / "first_metadata.json").write_text("{ }")

    assert [result.version for result in folder.import_new()] == [2]


def test_a_metadata_file_has_at_most_one_mebibyte(folder: ModelsFolder, drop: Path) -> None:
    path = drop / "first_metadata.json"
    path.write_text("{}" + " " * (1024 * 1024 - 2))
    assert folder.import_new() == [ImportResult("first.onnx", "first", 1)]
    path.write_text("{}" + " " * (1024 * 1024 - 1))

    (result,) = folder.import_new()

    assert result.model == ""
    assert "first_metadata.json is larger than 1 MB" in result.error


def test_a_successful_import_is_not_repeated_with_failed_imports(folder: ModelsFolder, drop: Path) -> None:
    (drop / "second.onnx").write_bytes(b"not a graph")
    first, failed = folder.import_new()

    assert folder.import_new(retry_failed=True) == [first, failed]
    assert (first.version, bool(failed.error), failed.file) == (1, True, "second.onnx")


def test_a_failed_import_with_metadata_does_not_describe_the_graph(folder: ModelsFolder, drop: Path) -> None:
    (drop / SHARED_METADATA).write_text('{"model_name": "first", "features": ["a"]}')
    assert folder.import_new()[0].error
    (drop / SHARED_METADATA).unlink()

    assert folder.import_new() == [ImportResult("first.onnx", "first", 1)]


def test_the_record_of_imports_survives_a_restart_and_leaves_no_other_files(folder: ModelsFolder, drop: Path) -> None:
    folder.import_new()

    state = drop.parent / "models"
    assert sorted(path.name for path in state.iterdir()) == [
        ".imports.json",
        ".imports.lock",
        ".lock",
        "first",
        "generation",
    ]
    assert len(json.loads((state / RECORD).read_text())) == 1


def test_the_folder_for_the_record_is_private(tmp_path: Path, drop: Path) -> None:
    state = tmp_path / "new" / "state"
    importer = ModelImporter(
        FolderRegistry(tmp_path / "models"), InProcessSandbox(), read_document, max_model_mb=1, max_model_nodes=100
    )

    ModelsFolder(drop, importer, state_folder=state).import_new()

    assert state.stat().st_mode & 0o777 == 0o700


def test_metadata_for_an_unknown_model_is_reported_with_the_file_name_that_it_should_have(
    folder: ModelsFolder, drop: Path
) -> None:
    (drop / "second.onnx").write_bytes(RAW_SCORES)
    (drop / SHARED_METADATA).write_text('{"model_name": "other"}')

    first, second = folder.import_new()

    assert "describes the model 'other', but none of the 2 graphs has this name" in first.error
    assert "first_metadata.json" in first.error
    assert "second_metadata.json" in second.error


def test_a_preferred_model_must_have_a_name(drop: Path) -> None:
    for name in ("", 7, None):
        (drop / SHARED_METADATA).write_text(json.dumps({"model_name": name}))
        assert preferred_model(drop, read_document) == ""


def test_an_import_waits_up_to_fifteen_minutes_for_another_process(
    folder: ModelsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, float]] = []
    lock = models_folder.locked

    def note(path: Path, seconds: float) -> AbstractContextManager[None]:
        calls.append((path.name, seconds))
        return lock(path, seconds)

    monkeypatch.setattr(models_folder, "locked", note)
    folder.import_new()

    assert calls == [(".imports.lock", 900.0)]


def test_a_lock_that_another_process_holds_is_reported(
    folder: ModelsFolder, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_folder, "IMPORT_SECONDS", 0.01)
    folder.import_new()
    with (drop.parent / "models" / ".imports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        (result,) = folder.import_new()

    assert ".imports.lock" in result.error
    assert result.model == ""
