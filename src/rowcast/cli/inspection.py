"""Commands that look: models, history, verification, replay, doctor."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import rowcast
from rowcast import bundle, wiring
from rowcast.cli import output
from rowcast.errors import RowcastError
from rowcast.ports import Reference

if TYPE_CHECKING:
    from rowcast.settings import Settings

OK, NO = 0, 1
LEAST_FREE_BYTES = 1024 * 1024 * 1024


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
            f"{m['metric']} {m['score']:.4f}",
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


def list_history(settings: Settings, limit: int, before: str | None, model: str | None, *, as_json: bool) -> None:
    """Predictions, newest first."""
    found = wiring.history(settings).latest(limit, before, model)
    if as_json:
        output.print_json({"predictions": found, "next": found[-1].id if len(found) == limit else None})
        return
    rows = []
    for entry in found:
        reply = msgspec.json.decode(entry.prediction)
        probability = reply.get("probability")
        shown = "" if probability is None else f"{probability:.4f}"
        rows.append(
            [
                output.moment(entry.at),
                f"{entry.model}@{entry.version}",
                reply["prediction"],
                shown,
                entry.id,
                entry.entity,
            ]
        )
    output.print_table(["at", "model", "prediction", "probability", "id", "entity"], rows, whole=["id"])


def verify_history(settings: Settings, *, as_json: bool) -> int:
    """Check every chain."""
    verdict = wiring.history(settings).verify()
    if as_json:
        output.print_json(verdict)
    else:
        for broken in verdict.broken:
            output.print_lines([f"BROKEN {broken['writer']} at entry {broken['seq']}: {broken['reason']}"])
        word = "chains are broken" if verdict.broken else "every chain verifies"
        entries = output.counted(verdict.entries, "entry", "entries")
        output.print_lines([f"{entries} of {output.counted(verdict.writers, 'writer')}: {word}"])
    return NO if verdict.broken else OK


def replay_history(settings: Settings, model: str | None, *, as_json: bool) -> int:
    """Score the past again."""
    from rowcast.serving.history import replay

    found = replay(wiring.history(settings), wiring.model_by_digest(settings), model)
    if as_json:
        output.print_json(found)
    else:
        counts = [["equal", found.equal], ["borderline", found.borderline], ["different", found.different]]
        output.print_table(["replayed", "entries"], [*counts, ["not replayable", found.not_replayable]])
        for example in found.examples:
            output.print_lines([f"{example['id']}: {example['verdict']} {example.get('reason', '')}".rstrip()])
    return NO if found.different else OK


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
