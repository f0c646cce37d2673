"""Commands that look: models, reports, doctor."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rowcast
from rowcast import bundle, wiring
from rowcast.cli import output
from rowcast.errors import RowcastError
from rowcast.ports import Reference

if TYPE_CHECKING:
    from rowcast.settings import Settings

OK, NO = 0, 1
LEAST_FREE_BYTES = 1024 * 1024 * 1024


def show_import(found: wiring.Imported, *, as_json: bool) -> None:
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
    registry = wiring.registry(settings)
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
    reference, path = wiring.report(settings, model)
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


def examine(settings: Settings, *, as_json: bool) -> int:
    """Every part of this installation, with what is wrong and the fix."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("rowcast", lambda: f"{rowcast.__version__} on Python {platform.python_version()}"),
        ("settings", lambda: f"home {settings.home.absolute()}"),
        ("registry", lambda: _registry(settings)),
        *[(f"model {name}", lambda name=name: _model(settings, name)) for name in _names(settings)],
        (
            "store",
            lambda: f"{output.counted(wiring.store(settings).count(), 'entry', 'entries')} in {settings.store_url}",
        ),
        ("journal", lambda: _journal(settings)),
        ("disk", lambda: _disk(settings.home)),
    ]
    found: list[dict[str, Any]] = []
    for name, check in checks:
        try:
            found.append({"part": name, "ok": True, "says": check()})
        except RowcastError as error:
            found.append({"part": name, "ok": False, "says": error.message})
    fine = all(part["ok"] for part in found)
    if as_json:
        output.print_json({"ok": fine, "parts": found})
    else:
        rows = [["ok" if part["ok"] else "WRONG", part["part"], part["says"]] for part in found]
        output.print_table(["", "part", "says"], rows)
    return OK if fine else NO


def _names(settings: Settings) -> list[str]:
    return list(wiring.registry(settings).models())


def _registry(settings: Settings) -> str:
    names = _names(settings)
    if not names:
        raise RowcastError(f"no model in {settings.registry_folder}; train one with `rowcast train`")
    return f"{output.counted(len(names), 'model')} in {settings.registry_folder}"


def _model(settings: Settings, name: str) -> str:
    registry = wiring.registry(settings)
    if "champion" not in registry.aliases(name):
        return "has no champion, so it is not served"
    model = wiring.live_model(settings, name)
    bundle.verify(registry.folder(Reference(model.name, model.version)))
    return f"{model.name}@{model.version} loads, its files are unchanged and its golden rows hold"


def _journal(settings: Settings) -> str:
    folder = settings.journal_folder
    if not folder.exists():
        return f"{folder} will be made by the first server"
    waiting = wiring.history(settings).spool.backlog()
    state = "an indexer is at work" if wiring.indexer_is_running(settings) else "no indexer is running"
    return f"{output.counted(waiting, 'journal')} not yet stored to the end in {folder}; {state}"


def _disk(home: Path) -> str:
    folder = next(path for path in [home.absolute(), *home.absolute().parents] if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise RowcastError(
            f"only {free >> 20} MiB are free at {folder}; history needs room: free some or move ROWCAST_HOME"
        )
    return f"{free >> 30} GiB free at {folder}"
