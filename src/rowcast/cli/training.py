"""`rowcast train`: progress while it runs, then what came of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.app import models as app_models
from rowcast.cli import output

if TYPE_CHECKING:
    from rowcast.settings import Settings
    from rowcast.tables import Finding, Override
    from rowcast.training.events import TrainingEvent
    from rowcast.training.result import TrainingResult


def run(settings: Settings, table: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Train and print the result."""
    with _progress() as show:
        result = app_models.train(settings, table, progress=show, **options)
    if as_json:
        output.print_json(_document(result))
    else:
        _print(result)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were typed, lists made fast."""
    typed = {name: value for name, value in options.items() if value is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()}


def check(table: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what the data check says of each column and of the table as a whole."""
    found = app_models.check_table(table, **options)
    if as_json:
        output.print_json(msgspec.to_builtins(found) | {"findings": list(map(finding_document, found.findings))})
        return
    kinds = {found.target: "target", "": ""} | {column.name: column.kind or "left out" for column in found.columns}
    said = {finding.column for finding in found.findings}
    rows = [
        [", ".join(columns), ", ".join(dict.fromkeys(kinds[name] for name in columns)), one.message, one.action, typed]
        for one, columns, typed in _grouped(found.findings)
    ]
    rows += [[name, kind, "", "", ""] for name, kind in kinds.items() if name not in said and name]
    what = f"{len(found.classes)} classes" if found.classes else found.task
    title = f"{found.table}: {found.rows} rows, {len(found.columns)} columns, {what}"
    output.print_table(["column", "kind", "noticed", "so", "change it with"], rows, title, wide=["noticed"])


def _grouped(findings: Sequence[Finding]) -> list[tuple[Finding, list[str], str]]:
    """Findings that say the same of several columns, once: with all their columns and one flag for all of them."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.code, finding.message, finding.action), []).append(finding)
    return [(same[0], [one.column for one in same], _joined([one.override for one in same])) for same in alike.values()]


def _joined(overrides: Sequence[Override | None]) -> str:
    """`--exclude a` and `--exclude b` become `--exclude a,b`; a name that needs quotes keeps its own flag."""
    known = [override for override in overrides if override is not None]
    if not known:
        return ""
    names = [shlex.quote(override.value) for override in known]
    if not known[0].value or any(name.startswith("'") or "," in name for name in names):
        return " ".join(dict.fromkeys(map(_flag, known)))
    return f"--{known[0].option} {','.join(names)}"


def _flag(override: Override) -> str:
    """The override as the user types it in a shell."""
    value = f" {shlex.quote(override.value)}" if override.value else ""
    return f"--{override.option}{value}"


def finding_document(finding: Finding) -> dict[str, Any]:
    """A finding as JSON, its override spelled as a command-line flag."""
    document: dict[str, Any] = msgspec.to_builtins(finding)
    document.pop("override", None)
    return document if finding.override is None else document | {"flag": _flag(finding.override)}


def _document(result: TrainingResult) -> dict[str, Any]:
    """The result with plain holdout figures; their intervals stand beside them."""
    document: dict[str, Any] = msgspec.to_builtins(result)
    document["holdout"] = {name: measure.value for name, measure in result.holdout.items()}
    document["intervals"] = {name: [measure.low, measure.high] for name, measure in result.holdout.items()}
    document["findings"] = list(map(finding_document, result.findings))
    return document


def _print(result: TrainingResult) -> None:
    if result.findings:
        rows = [[", ".join(names), one.message, one.action, typed] for one, names, typed in _grouped(result.findings)]
        output.print_table(["column", "noticed", "so", "change it with"], rows, "Data check", wide=["noticed"])
    rows = [[kind.name, f"{kind.score:.4f}", str(kind.trials), f"{kind.seconds:.1f}"] for kind in result.candidates]
    output.print_table(["candidate", f"cross-validated {result.metric}", "trials", "seconds"], rows, "Candidates")
    rows = [[name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}"] for name, m in result.holdout.items()]
    output.print_table(["metric", "holdout", "95 % interval"], rows, "On rows kept aside")
    parity = result.parity
    output.print_lines(
        [
            f"parity on {parity.rows} rows: {parity.label_flips} label flips, at most {parity.max_abs_diff:.1e} apart",
            f"published {result.model}@{result.version} in {result.seconds:.1f} s: {result.path}",
            *([f"the graph alone: {result.onnx}"] if result.onnx else []),
        ]
    )


@contextmanager
def _progress() -> Iterator[Callable[[TrainingEvent], None]]:
    """Live progress on a terminal, nothing when standard error is piped."""
    if not sys.stderr.isatty():
        yield lambda event: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [
        TextColumn("{task.fields[stage]:<8}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading the table", stage="read", total=None)

        def show(event: TrainingEvent) -> None:
            if event.stage == "tune" and not event.trials:  # out of the ordinary: it stays on the screen
                bar.console.print(event.message)
            facts = [event.candidate or event.message]
            if event.trials:
                facts.append(f"trial {event.trial} of {event.trials}")
            if event.best is not None:
                facts.append(f"best {event.best:.4f}")
            if event.seconds_left is not None:
                facts.append(f"about {event.seconds_left:.0f} s left")
            total = event.trials or None
            bar.update(task, stage=event.stage, description=", ".join(facts), total=total, completed=event.trial)

        yield show
