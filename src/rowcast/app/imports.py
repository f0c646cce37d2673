"""Builds the model importer from the registry, the sandbox and the limits in the settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.app.documents import read_document
from rowcast.app.models import registry
from rowcast.errors import BundleError
from rowcast.registry.ports import ImportResult, Reference

if TYPE_CHECKING:
    from rowcast.adapters.sandbox import SandboxLimits
    from rowcast.registry.importer import ImportedModel, ModelImporter, WireSource
    from rowcast.settings import Settings


class ChildSandbox:
    """A sandbox whose child processes run the modules `describe_onnx`, `describe_archive` and `verify_bundle`."""

    def __init__(self, limits: SandboxLimits, environment: Mapping[str, str]) -> None:
        self._limits = limits
        self._environment = environment

    def describe_onnx(self, folder: Path) -> bytes:
        """Convert the graph in this folder; return the child's output."""
        from rowcast.adapters.sandbox import run_sandboxed

        arguments = [str(folder), str(self._limits.memory_mb), str(self._limits.seconds)]
        command = [sys.executable, "-m", "rowcast.app.describe_onnx", *arguments]
        result = run_sandboxed(command, self._limits, self._environment)
        if result.error:
            raise BundleError(result.error)
        return result.output

    def describe_archive(self, folder: Path, max_nodes: int) -> bytes:
        """Check the unpacked archive in this folder; return the child's output."""
        from rowcast.adapters.sandbox import run_sandboxed

        arguments = [str(folder), str(max_nodes), str(self._limits.memory_mb), str(self._limits.seconds)]
        command = [sys.executable, "-m", "rowcast.app.describe_archive", *arguments]
        result = run_sandboxed(command, self._limits, self._environment)
        if result.error:
            raise BundleError(result.error)
        return result.output

    def verify_bundle(self, folder: Path, reference: Reference) -> None:
        """Load a bundle and check its golden rows."""
        error = self.trial_failure(folder, reference)
        if error:
            raise BundleError(error)

    def trial_failure(self, folder: Path, reference: Reference) -> str:
        """Return the reason why a bundle cannot be loaded, or an empty string if it passes its checks."""
        from rowcast.adapters.sandbox import run_trial

        command = [sys.executable, "-m", "rowcast.app.verify_bundle"]
        return run_trial(command, folder, reference, self._limits, self._environment)


def sandbox(settings: Settings) -> ChildSandbox:
    """Return the sandbox for untrusted models."""
    from rowcast.adapters.sandbox import SandboxLimits

    limits = SandboxLimits(settings.max_model_mb, settings.trial_memory_mb, settings.trial_seconds)
    return ChildSandbox(limits, settings.for_child())


def importer(settings: Settings) -> ModelImporter:
    """Return an importer that publishes models to the configured registry."""
    from rowcast.registry.importer import ModelImporter

    return ModelImporter(
        registry(settings),
        sandbox(settings),
        read_document,
        max_model_mb=settings.max_model_mb,
        max_model_nodes=settings.max_model_nodes,
    )


def import_model(
    settings: Settings,
    path: Path,
    *,
    metadata: Path | None = None,
    name: str | None = None,
    wire: WireSource = None,
    data: Path | None = None,
) -> ImportedModel:
    """Import a model from an ONNX file or a bundle archive, and publish it as the champion."""
    return importer(settings).import_file(path, metadata=metadata, name=name, wire=wire, data=data)


def export_model(settings: Settings, reference: str, path: Path) -> Reference:
    """Write a published version to an archive, and return the version's reference."""
    from rowcast.registry.archive import write_archive
    from rowcast.registry.resolve import resolve

    models = registry(settings)
    resolved = resolve(reference, models)
    write_archive(models.folder(resolved), path)
    return resolved


def import_models_folder(settings: Settings, *, retry_failed: bool = False) -> list[ImportResult]:
    """Import the new files in the models folder, if such a folder is configured."""
    if settings.models_dir is None:
        return []
    from rowcast.registry.models_folder import ModelsFolder

    folder = ModelsFolder(settings.models_dir, importer(settings), state_folder=settings.registry_folder)
    return folder.import_new(retry_failed=retry_failed)


def preferred_model(settings: Settings) -> str:
    """Return the model name from the metadata file in the models folder.

    Return an empty string if there is no name, if no folder is configured or if the settings specify models.
    """
    if settings.models_dir is None or settings.default_model or settings.models:
        return ""
    from rowcast.registry import models_folder

    return models_folder.preferred_model(settings.models_dir, read_document)
