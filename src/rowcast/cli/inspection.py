"""The commands `rowcast models list`, `show` and `import`, and `rowcast report`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowcast.app import models
from rowcast.cli import output
from rowcast.errors import RowcastError
from rowcast.output_files import refuse_overwriting
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.registry.resolve import resolve

if TYPE_CHECKING:
    from rowcast.registry.importer import ImportedModel
    from rowcast.settings import Settings

MAX_COLUMNS_SHOWN = 12


def show_import(imported: ImportedModel, *, as_json: bool) -> None:
    """Print the result of an import."""
    if as_json:
        output.print_json(imported)
        return
    columns = ", ".join(imported.columns[:MAX_COLUMNS_SHOWN])
    more = len(imported.columns) - MAX_COLUMNS_SHOWN
    output.print_lines(
        [
            *imported.notes,
            f"columns: {columns}" + (f" and {more} more" if more > 0 else ""),
            f"published {imported.model}@{imported.version} ({imported.task}): {imported.path}",
        ]
    )


def list_models(settings: Settings, *, as_json: bool) -> None:
    """Print every published version."""
    registry = models.registry(settings)
    versions = [
        _describe_version(name, version, registry.aliases(name), registry.folder(Reference(name, version)))
        for name, numbers in registry.models().items()
        for version in numbers
    ]
    if as_json:
        output.print_json({"models": versions})
        return
    rows = [
        [
            version["model"],
            version["version"],
            ", ".join(version["aliases"]),
            version["target"],
            f"{version['metric']} {version['score']:.4f}" if version["metric"] else "imported",
            version["created"],
        ]
        for version in versions
    ]
    output.print_table(["model", "version", "aliases", "target", "cross-validated", "created"], rows)
    if not rows:
        output.say("no models published yet; train one with `rowcast train TABLE --target COLUMN`")


def _describe_version(name: str, version: int, aliases: Mapping[str, int], folder: Path) -> dict[str, Any]:
    manifest = bundle.read_manifest(folder)
    return {
        "model": name,
        "version": version,
        "aliases": sorted(alias for alias, number in aliases.items() if number == version),
        "task": manifest.decision.task,
        "metric": manifest.metric,
        "score": manifest.score,
        "target": manifest.training.target,
        "created": manifest.created,
        "digest": manifest.digest,
    }


def show_model(settings: Settings, model: str, *, as_json: bool) -> None:
    """Print a version's description and the log of the model's aliases."""
    registry = models.registry(settings)
    reference = resolve(model, registry)
    folder = registry.folder(reference)
    manifest = bundle.read_manifest(folder)
    moves = registry.log(reference.name)
    facts = _describe_version(reference.name, reference.version, registry.aliases(reference.name), folder)
    columns = [column.shown() for column in manifest.schema.columns]
    if as_json:
        details = {
            "path": str(folder),
            "columns": columns,
            "derived": [{"name": column.name, "expression": column.text} for column in manifest.schema.derived],
            "decision": manifest.decision,
            "holdout": manifest.holdout,
            "parity": manifest.parity,
            "files": manifest.files,
            "log": moves,
        }
        output.print_json(facts | details)
        return
    rows = [[name, ", ".join(value) if isinstance(value, list) else value] for name, value in facts.items()]
    output.print_table(["field", "value"], [*rows, ["path", str(folder)]], str(reference), wide=["value"])
    schema = [[column.name, column.kind, "yes" if column.missing else "no"] for column in columns]
    output.print_table(["column", "kind", "can be missing"], schema, "Schema")
    if manifest.schema.derived:
        derived = [[column.name, column.text] for column in manifest.schema.derived]
        output.print_table(["derived column", "expression"], derived, "Derived columns", wide=["expression"])
    metrics = [
        [name, f"{measure.value:.4f}", f"{measure.low:.4f} to {measure.high:.4f}"]
        for name, measure in manifest.holdout.items()
    ]
    output.print_table(["metric", "holdout", "95% interval"], metrics, "Holdout metrics")
    output.print_table(["file", "SHA-256"], list(manifest.files.items()), "Files")
    log = [[move.time, move.alias, move.source or "", move.target, move.who, move.reason] for move in moves]
    output.print_table(["time", "alias", "from", "to", "who", "reason"], log, "Aliases", wide=["reason"])


def show_report(
    settings: Settings, model: str, out: Path | None, *, as_json: bool, open_page: Callable[[str], bool] | None = None
) -> None:
    """Print the path of a model's report, or copy the report.

    `open_page` opens a URL in a browser and returns whether this succeeded. If `open_page` is None, the report
    is not opened.
    """
    reference, path = models.report(settings, model)
    if out is not None:
        refuse_overwriting(out, path.parent.iterdir())
        try:
            shutil.copyfile(path, out)
        except OSError as error:
            raise RowcastError(f"cannot write the report to {out}: {error}") from None
        path = out
    if as_json:
        output.print_json({"model": reference.name, "version": reference.version, "path": str(path)})
    else:
        output.print_lines([str(path)])
    if open_page is not None and not open_page(path.absolute().as_uri()):
        raise RowcastError(f"cannot open a browser; open {path} yourself")
