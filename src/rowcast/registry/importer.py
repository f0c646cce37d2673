"""Import ONNX files from other tools, and bundle archives exported by Rowcast.

The importer never loads an untrusted model into a graph runtime. The sandbox does this in a child process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from rowcast.errors import BundleError, SettingsError
from rowcast.registry import bundle
from rowcast.registry.archive import MEBIBYTE, SUFFIX, ArchiveDescription, unpack_archive
from rowcast.registry.names import check_name, name_from
from rowcast.registry.onnx_import import exchange
from rowcast.registry.onnx_import.request import MATRIX, NATIVE, ImportRequest, model_card
from rowcast.registry.ports import Reference, RegistryWriter, Sandbox
from rowcast.registry.resolve import CHAMPION

WireSource = str | Path | Mapping[str, Any] | None
"""A template, the path of a template file, `matrix` or `native`; None to derive the format from the metadata."""
ReadDocument = Callable[[str | Path | Mapping[str, Any], str], dict[str, Any]]
"""Reads a document of a given kind from a given source; raises SettingsError if the document is not valid."""
METADATA_KIND: Final = "metadata document"
TEMPLATE_KIND: Final = "wire template"


class ImportedModel(msgspec.Struct, frozen=True):
    """An imported and published model. `models import --json` prints these fields."""

    model: str
    version: int
    digest: str
    path: str
    task: str
    columns: list[str]
    notes: list[str]


class ModelImporter:
    """Imports models into a registry and publishes each model as champion."""

    def __init__(
        self,
        registry: RegistryWriter,
        sandbox: Sandbox,
        read_document: ReadDocument,
        *,
        max_model_mb: int,
        max_model_nodes: int,
    ) -> None:
        self._registry = registry
        self._sandbox = sandbox
        self._read_document = read_document
        self._max_model_nodes = max_model_nodes
        self.max_model_mb = max_model_mb

    def import_file(
        self,
        path: Path,
        *,
        metadata: Path | None = None,
        name: str | None = None,
        wire: WireSource = None,
        data: Path | None = None,
    ) -> ImportedModel:
        """Import an ONNX file or a bundle archive, depending on the file's suffix."""
        suffix = path.suffix.lower()
        if suffix == SUFFIX:
            if metadata is not None or wire is not None or data is not None:
                raise SettingsError(
                    f"{path}: a bundle archive is self-contained; metadata, a wire template and data can be given "
                    "only for ONNX files"
                )
            return self.import_archive(path, name)
        if suffix != ".onnx":
            raise SettingsError(f"cannot import {path}; the file name must end in .onnx or {SUFFIX}")
        content = read_model_file(path, self.max_model_mb)
        return self.import_onnx(path.name, content, self.read_metadata(metadata), name=name, wire=wire, data=data)

    def import_onnx(
        self,
        source: str,
        content: bytes,
        metadata: Mapping[str, Any],
        *,
        name: str | None = None,
        wire: WireSource = None,
        data: Path | None = None,
    ) -> ImportedModel:
        """Import an ONNX graph: convert and verify it in the sandbox, then publish the resulting bundle."""
        metadata_name = metadata.get("model_name")
        default_name = metadata_name if isinstance(metadata_name, str) and metadata_name else Path(source).stem
        request = ImportRequest(
            name=check_name(name or name_from(default_name)),
            metadata=dict(metadata),
            wire=self._wire(wire),
            source=source,
            sha256=hashlib.sha256(content).hexdigest(),
            max_nodes=self._max_model_nodes,
        )
        if data is not None:
            request = _with_table(request, data)
        with self._scratch() as folder:
            exchange.write_request(folder, content, request)
            with _source_named(source):
                model = exchange.read_result(self._sandbox.describe_onnx(folder))
        manifest = msgspec.structs.replace(model.manifest, created=datetime.now(UTC).isoformat(timespec="seconds"))
        files = {
            bundle.MODEL: content,
            bundle.GOLDEN: msgspec.json.encode(model.golden),
            bundle.CARD: model_card(model).encode(),
        }
        with self._scratch() as folder:
            manifest = bundle.pack(folder, manifest, files)
            reference = self._publish_verified(source, folder, request.name)
        return self._imported(
            reference, manifest.digest, manifest.decision.task, columns=manifest.schema.names(), notes=model.notes
        )

    def import_archive(self, path: Path, name: str | None = None) -> ImportedModel:
        """Verify a bundle archive's digests, verify its golden rows in the sandbox, and publish the bundle."""
        with self._scratch() as folder:
            unpack_archive(path, folder, self.max_model_mb)
            try:
                described = self._sandbox.describe_archive(folder, self._max_model_nodes)
            except BundleError as error:
                raise BundleError(f"{path}: {error.message}", slug=error.slug) from None
            archive = msgspec.json.decode(described, type=ArchiveDescription)
            reference = self._publish_verified(path.name, folder, check_name(name or archive.name))
        return self._imported(reference, archive.digest, archive.task, columns=archive.columns, notes=[])

    def read_metadata(self, path: Path | None) -> dict[str, Any]:
        """Return the metadata document in this file, or an empty document if `path` is None."""
        return {} if path is None else self._read_document(path, METADATA_KIND)

    def _wire(self, wire: WireSource) -> dict[str, Any] | str | None:
        if wire is None or (isinstance(wire, str) and wire in (MATRIX, NATIVE)):
            return wire
        return self._read_document(wire, TEMPLATE_KIND)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Yield a temporary folder on the same disk as the models; delete it afterward."""
        try:
            with self._registry.scratch() as folder:
                yield folder
        except OSError as error:
            raise BundleError(f"cannot write a temporary copy of the model: {error.strerror or error}") from None

    def _publish_verified(self, source: str, folder: Path, name: str) -> Reference:
        """Verify the bundle in the sandbox and publish it as champion."""
        with _source_named(source):
            self._sandbox.verify_bundle(folder, Reference(name, 1))

        def fill(staging: Path) -> None:
            for file in folder.iterdir():
                shutil.copyfile(file, staging / file.name)

        return self._registry.publish(name, fill, CHAMPION, reason=f"imported from {source!r}")

    def _imported(
        self, reference: Reference, digest: str, task: str, *, columns: list[str], notes: list[str]
    ) -> ImportedModel:
        return ImportedModel(
            model=reference.name,
            version=reference.version,
            digest=digest,
            path=str(self._registry.folder(reference)),
            task=task,
            columns=columns,
            notes=notes,
        )


def read_model_file(path: Path, max_mb: int) -> bytes:
    """Return the content of a regular file; raise BundleError if the file exceeds the limit or cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe must not block
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is not a regular file", slug="not-a-file")
            if status.st_size > max_mb * MEBIBYTE:
                raise BundleError(f"{path} is larger than {max_mb} MB (setting max_model_mb)", slug="too-large")
            return file.read(max_mb * MEBIBYTE)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}", slug="unreadable") from None


def _with_table(request: ImportRequest, path: Path) -> ImportRequest:
    from rowcast.registry.onnx_import.table_sample import sample_table

    sample = sample_table(path)
    return msgspec.structs.replace(request, rows=sample.rows, columns=sample.columns, observed=sample.observed)


@contextmanager
def _source_named(source: str) -> Iterator[None]:
    """Add the imported file's name to errors from the sandbox."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"cannot import {source}: {error.message}") from None
