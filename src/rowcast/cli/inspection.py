"""Commands that look: models and reports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowcast.app import models as app_models
from rowcast.cli import output
from rowcast.errors import RowcastError
from rowcast.registry import bundle, import_model
from rowcast.registry.ports import Reference

if TYPE_CHECKING:
    from rowcast.settings import Settings


def show_import(found: import_model.Imported, *, as_json: bool) -> None:
    """What became of a foreign model."""
    if as_json:
        output.print_json(found)
        return
    columns = ", ".join(found.columns[:12]) + (f" and {len(found.columns) - 12} more" if found.columns[12:] else "")
    output.print_lines(
        [
            *found.notes,
            f"it takes {columns}",
            f"published {found.model}@{found.version} ({found.task}): {found.path}",
        ]
    )


def list_models(settings: Settings, *, as_json: bool) -> None:
    """Every published version."""
    registry = app_models.registry(settings)
    found: list[dict[str, Any]] = []
    for name, versions in registry.models().items():
        names = registry.aliases(name)
        for version in versions:
            manifest = bundle.read_manifest(registry.folder(Reference(name, version)))
            found.append(
                {
                    "model": name,
                    "version": version,
                    "aliases": sorted(alias for alias, pointed in names.items() if pointed == version),
                    "task": manifest.decision.task,
                    "metric": manifest.metric,
                    "score": manifest.score,
                    "target": manifest.training.target,
                    "created": manifest.created,
                    "digest": manifest.digest,
                }
            )
    if as_json:
        output.print_json({"models": found})
        return
    rows = [
        [
            m["model"],
            m["version"],
            ", ".join(m["aliases"]),
            m["target"],
            f"{m['metric']} {m['score']:.4f}" if m["metric"] else "imported",
            m["created"],
        ]
        for m in found
    ]
    output.print_table(["model", "version", "aliases", "target", "cross-validated", "created"], rows)


def show_report(settings: Settings, model: str, out: Path | None, *, as_json: bool) -> None:
    """The report in a bundle, or a copy of it."""
    reference, path = app_models.report(settings, model)
    if out is not None:
        try:
            shutil.copyfile(path, out)
        except (OSError, shutil.SameFileError) as error:
            raise RowcastError(f"the report cannot be written to {out}: {error}") from None
        path = out
    if as_json:
        output.print_json({"model": reference.name, "version": reference.version, "path": str(path)})
    else:
        output.print_lines([str(path)])
