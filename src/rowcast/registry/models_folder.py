"""Import the ONNX files in a folder. Servers do this at startup and on reload.

Only one process at a time imports files. The results are recorded in the registry folder, so that each version of a
file is imported only once, even if several servers use the models folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rowcast.errors import RegistryError, RowcastError, SettingsError
from rowcast.private_files import locked, make_private_folder
from rowcast.registry.importer import METADATA_KIND, ModelImporter, ReadDocument, read_model_file
from rowcast.registry.names import name_from
from rowcast.registry.ports import ImportResult

RECORD: Final = ".imports.json"
LOCK: Final = ".imports.lock"
IMPORT_SECONDS: Final = 900.0
"""How long to wait for another process to finish importing the folder's files."""
SHARED_METADATA: Final = "model_metadata.json"
MAX_METADATA_MB: Final = 1


class ModelsFolder:
    """A folder of ONNX files and their metadata. `state_folder` contains the record of imports."""

    def __init__(self, folder: Path, importer: ModelImporter, *, state_folder: Path) -> None:
        self._folder = folder
        self._importer = importer
        self._state_folder = state_folder

    def import_new(self, *, retry_failed: bool = False) -> list[ImportResult]:
        """Import every file that has not been imported yet; return a result for every file in the folder.

        Failed imports are retried only if `retry_failed` is true.
        """
        try:
            files = sorted(path for path in self._folder.iterdir() if _is_model(path))
            make_private_folder(self._state_folder)
            with locked(self._state_folder / LOCK, IMPORT_SECONDS):
                record = _read_record(self._state_folder / RECORD)
                results = [self._result(path, files, record, retry_failed=retry_failed) for path in files]
                _write_record(self._state_folder / RECORD, record)
        except OSError as error:
            message = f"cannot access {error.filename or self._folder}: {error.strerror}"
            return [ImportResult(str(self._folder), error=message)]
        except RegistryError as error:
            return [ImportResult(str(self._folder), error=error.message)]
        return results

    def _result(
        self, path: Path, files: Sequence[Path], record: dict[str, ImportResult], *, retry_failed: bool
    ) -> ImportResult:
        """Return the recorded result for this content, or import the content and record the result."""
        try:
            content = read_model_file(path, self._importer.max_model_mb)
            metadata = self._metadata_path(path, files)
            metadata_bytes = b"" if metadata is None else read_model_file(metadata, MAX_METADATA_MB)
            # The file name is part of the key: the same graph under a different name can be a different model.
            graph = hashlib.sha256(hashlib.sha256(content).digest() + path.stem.encode())
            key = hashlib.sha256(graph.digest() + metadata_bytes).hexdigest()
            described_key = f"described {graph.hexdigest()}"
            if metadata is None and described_key in record:  # the shared metadata now describes a different graph
                return msgspec.structs.replace(record[described_key], file=path.name)
            previous = record.get(key)
            if previous is not None and not (retry_failed and previous.error):
                return msgspec.structs.replace(previous, file=path.name)
            record[key] = result = self._import(path, content, metadata)
            if metadata is not None and not result.error:
                record[described_key] = result
        except RowcastError as error:
            return ImportResult(path.name, error=error.message)
        return result

    def _import(self, path: Path, content: bytes, metadata: Path | None) -> ImportResult:
        try:
            model = self._importer.import_onnx(path.name, content, self._importer.read_metadata(metadata))
        except RowcastError as error:
            return ImportResult(path.name, error=error.message)
        return ImportResult(path.name, model.model, model.version)

    def _metadata_path(self, path: Path, files: Sequence[Path]) -> Path | None:
        """Return the graph's own metadata file, or the folder's shared metadata file if it belongs to this graph.

        Raise SettingsError if there are several graphs and the shared file does not name one of them.
        """
        own, shared = path.with_name(f"{path.stem}_metadata.json"), path.with_name(SHARED_METADATA)
        if own.exists():
            return own
        if not shared.exists():
            return None
        name = self._importer.read_metadata(shared).get("model_name")
        if name == path.stem or files == [path]:
            return shared
        if name not in [file.stem for file in files]:
            raise SettingsError(
                f"{shared.name} describes the model {name!r}, but none of the {len(files)} graphs has this name; "
                f"rename the file to {own.name}, or correct its model_name"
            )
        return None


def preferred_model(folder: Path, read_document: ReadDocument) -> str:
    """Return the name of the model that the shared metadata file describes, or an empty string if there is none.

    Errors in the file are ignored here, because `ModelsFolder.import_new` reports them.
    """
    try:
        name = read_document(folder / SHARED_METADATA, METADATA_KIND).get("model_name")
    except RowcastError:
        return ""
    return name_from(name) if isinstance(name, str) and name else ""


def _is_model(path: Path) -> bool:
    return path.suffix.lower() == ".onnx" and not path.name.startswith(".")


def _read_record(path: Path) -> dict[str, ImportResult]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, ImportResult])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise RegistryError(f"{path} is damaged: {error}; delete this file to import all models again") from None


def _write_record(path: Path, record: Mapping[str, ImportResult]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(msgspec.json.encode(record))
    part.replace(path)
