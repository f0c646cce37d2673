"""Evaluate a model on a table: read the true values, score the rows, measure the model and write the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rowcast.app.bundles import NamedBundle, open_bundle
from rowcast.app.engines import usable_cores
from rowcast.errors import RowcastError, SettingsError, TableError, ValueProblem
from rowcast.output_files import is_same_file, refuse_overwriting
from rowcast.schema.prediction import Label
from rowcast.schema.values import BLANKS

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from rowcast.jobs.chunk_scoring import Progress
    from rowcast.jobs.row_scoring import RowOutputs
    from rowcast.registry.bundle import Manifest
    from rowcast.settings import Settings
    from rowcast.tables.columns import SelectedColumns, Source
    from rowcast.training.evaluation_result import Evaluation
    from rowcast.training.table_evaluation import EvaluatedRows
    from rowcast.training.true_values import RoleColumn

IMPORTED: Final = "imported"
"""The value of `training.candidate` in an imported model's manifest."""
IN_MEMORY: Final = "the data"


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of an evaluation."""

    target: str | None = None
    """The column with the true values; by default, the target of the training run."""
    target_file: Path | None = None
    """A separate file with the true values, one per row."""
    weight: str | None = None
    """The weight column; by default, that of the training run, if the table has it."""
    group: str | None = None
    """The group column; by default, that of the training run, if the table has it."""
    map: tuple[str, ...] = ()
    """Label corrections, each in the form `OLD=NEW`. The corrections from the training run are applied first."""
    rejects: Path | None = None
    """The file for rows that are not evaluated. If this is None, a row that cannot be scored is an error."""
    report: Path | None = None
    jobs: int | None = None
    """The number of threads; by default, one per core."""
    progress: Callable[[Progress], None] = field(default=lambda progress: None)


@dataclass(frozen=True)
class _Table:
    """The rows of the table. Each array has one entry per row; for rows without a true value, it is arbitrary."""

    name: str
    source: Source
    columns: SelectedColumns
    target_name: str
    labeled: NDArray[np.bool_]
    """A mask of the rows that have a true value."""
    target: NDArray[Any]
    weight_name: str | None = None
    weight: NDArray[np.float64] | None = None
    group_name: str | None = None
    group: NDArray[np.intp] | None = None

    @property
    def weightless(self) -> NDArray[np.bool_]:
        """A mask of the labeled rows whose weight is 0."""
        return np.zeros_like(self.labeled) if self.weight is None else self.labeled & (self.weight == 0)

    @property
    def selected(self) -> NDArray[np.bool_]:
        """A mask of the rows to measure."""
        return self.labeled & ~self.weightless

    def reason(self, row: int) -> ValueProblem:
        """Return why a row is not selected."""
        if not self.labeled[row]:
            return ValueProblem(self.target_name, "missing", "the true value is missing")
        return ValueProblem(self.weight_name or "", "weightless", "the weight is 0")


def evaluate(settings: Settings, model: str, data: Any, options: EvaluationOptions) -> Evaluation:
    """Evaluate a model on a file or on data in memory; write the rejected rows and the report, if requested.

    Raise TableError if the target is absent or contains a label that is not a class of the model. Raise InvalidRows if
    a row cannot be scored and there is no file for rejected rows.
    """
    try:
        from rowcast.training import table_evaluation
    except ModuleNotFoundError as missing:
        raise SettingsError(f"evaluating a model requires {missing.name}; install rowcast[train]") from None
    started = time.monotonic()
    with open_bundle(settings, model) as named, _report_writer(options.report) as write_report:
        _check_outputs(options, [data, options.target_file, model, *named.opened.folder.iterdir()])
        manifest = named.opened.manifest
        table = _read_table(manifest, data, options)
        scored = _score(named, table, options)
        rows = _evaluated_rows(manifest, table, scored)
        sample = table_evaluation.with_cells(rows, scored.sample, scored.sample_places)
        known = table_evaluation.count_known_rows(named.opened.folder, manifest, sample)
        result = _result(named, table, scored, rows=rows, known=known, options=options, started=started)
        write_report(result, rows, sample)
    return result


def _check_outputs(options: EvaluationOptions, inputs: list[Any]) -> None:
    from rowcast.tables.write import check_extension

    for path in (options.report, options.rejects):
        if path is not None:
            refuse_overwriting(path, inputs)
    if options.rejects is not None:
        check_extension(options.rejects)
        if options.report is not None and is_same_file(options.rejects, options.report):
            raise SettingsError(
                f"the report and the rejected rows cannot both be written to {options.report}", slug="same-file"
            )


def _read_table(manifest: Manifest, data: Any, options: EvaluationOptions) -> _Table:
    """Read and check the target, weight and group columns before any row is scored."""
    from rowcast.tables.columns import read_columns
    from rowcast.tables.read import table_from_memory
    from rowcast.training import true_values

    is_file = isinstance(data, str | Path)
    name = Path(data).name if is_file else IN_MEMORY
    source: Source = Path(data) if is_file else table_from_memory(data, name).frame
    trained = manifest.training.options
    given = [text.strip(BLANKS) for text in (options.weight, options.group) if text is not None]
    in_table = [] if options.target_file is not None else [_target_name(manifest, options.target)]
    usual = [trained[option] for option in ("weight", "group") if trained.get(option)]
    columns = read_columns(source, name, list(dict.fromkeys([*in_table, *given])), usual)
    if options.target_file is None:
        cells = columns.frame[in_table[0]]
    else:
        cells = _read_target_file(manifest, options.target_file, options.target, rows=columns.rows, table=name)
    column = true_values.role_column("target", cells, columns.lines)
    column = true_values.rename_labels(column, options.map, trained.get("map", ()))
    hidden = {part.strip(BLANKS) for text in trained.get("sensitive", ()) for part in (text, *text.split(","))}
    labeled = column.present
    if not labeled.any():
        raise TableError(f"column {column.name!r} has no value in any row of {name}", slug="empty-target")
    weight = _role("weight", options.weight or trained.get("weight"), columns, labeled)
    group = _role("group", options.group or trained.get("group"), columns, labeled)
    return _Table(
        name=name,
        source=source,
        columns=columns,
        target_name=column.name,
        labeled=labeled,
        target=_scattered(
            true_values.read_target(column.filter(labeled), manifest.decision, is_sensitive=column.name in hidden),
            labeled,
        ),
        weight_name=None if weight is None else weight.name,
        weight=None if weight is None else _scattered(true_values.read_weights(weight), labeled),
        group_name=None if group is None else group.name,
        group=None if group is None else _scattered(true_values.read_groups(group), labeled),
    )


def _target_name(manifest: Manifest, given: str | None) -> str:
    if given is not None:
        return given.strip(BLANKS)
    if manifest.training.candidate == IMPORTED:
        raise SettingsError(
            f"{manifest.name} was imported, so the column that it predicts is unknown; set the option 'target' to the "
            "column with the true values",
            slug="target-required",
        )
    return manifest.training.target


def _read_target_file(manifest: Manifest, path: Path, given: str | None, *, rows: int, table: str) -> pl.Series:
    """Return the true values in a separate file; raise TableError unless the file has one line per row."""
    from rowcast.tables.read import read_table

    labels = read_table(path)
    name = labels.frame.columns[0] if given is None and labels.frame.width == 1 else _target_name(manifest, given)
    series = labels.require(name)
    if len(series) != rows:
        raise TableError(
            f"{labels.name} has {len(series)} labels for the {rows} rows of {table}; both files need a header line and "
            "one line per row, in the same order",
            slug="row-count",
        )
    return series


def _role(role: str, name: str | None, columns: SelectedColumns, labeled: NDArray[np.bool_]) -> RoleColumn | None:
    """Return the labeled rows of the column with this role, or None if the table has no such column."""
    from rowcast.training.true_values import role_column

    name = name and name.strip(BLANKS)
    if not name or name not in columns.frame.columns:
        return None
    return role_column(role, columns.frame[name], columns.lines).filter(labeled)


def _scattered(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return an array as long as the mask, with the values at the positions where the mask is true."""
    whole = np.zeros(len(mask), values.dtype)
    whole[mask] = values
    return whole


def _score(named: NamedBundle, table: _Table, options: EvaluationOptions) -> RowOutputs:
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.engines import ThreadEngine
    from rowcast.jobs.chunk_scoring import GraphSource
    from rowcast.jobs.row_scoring import RowScoringOptions, RowSelection, score_selected
    from rowcast.training.table_evaluation import SAMPLE_ROWS

    manifest, selected = named.opened.manifest, table.selected
    places = np.flatnonzero(selected)
    if len(places) > SAMPLE_ROWS:
        places = np.random.default_rng([manifest.training.seed, 9]).choice(places, SAMPLE_ROWS, replace=False)
    sampled = np.zeros_like(selected)
    sampled[places] = True
    with closing(ThreadEngine(options.jobs or usable_cores())) as engine:
        return score_selected(
            manifest,
            RowSelection(selected, sampled, table.columns.starts, table.reason),
            graphs=GraphSource(named.opened.model, manifest.output.name, open_graph),
            engine=engine,
            options=RowScoringOptions(table.source, options.rejects, options.progress),
        )


def _evaluated_rows(manifest: Manifest, table: _Table, scored: RowOutputs) -> EvaluatedRows:
    from rowcast.training.table_evaluation import TableRoles, evaluated_rows

    roles = TableRoles(
        table.target[scored.rows],
        None if table.weight is None else table.weight[scored.rows],
        None if table.group is None else table.group[scored.rows],
        table.group_name or "",
    )
    return evaluated_rows(manifest, scored.output, roles)


def _result(
    named: NamedBundle,
    table: _Table,
    scored: RowOutputs,
    *,
    rows: EvaluatedRows,
    known: Any,
    options: EvaluationOptions,
    started: float,
) -> Evaluation:
    from rowcast.training.evaluation_result import Evaluation
    from rowcast.training.table_evaluation import measure

    manifest = named.opened.manifest
    decision = manifest.decision
    is_binary = decision.task == "binary"
    measured = measure(rows, manifest.holdout)
    positive: Label | None = decision.classes[decision.positive] if is_binary else None
    return Evaluation(
        model=named.name,
        version=named.version,
        digest=manifest.digest,
        table=table.name,
        target=table.target_name,
        task=decision.task,
        positive=positive,
        threshold=decision.threshold if is_binary else None,
        rows=len(scored.rows),
        unlabeled=int((~table.labeled).sum()),
        weightless=int(table.weightless.sum()),
        rejected=scored.rejected,
        excluded=table.columns.excluded,
        weight=table.weight_name,
        group=table.group_name,
        metrics=measured.metrics,
        holdout=measured.holdout,
        confusion=measured.confusion,
        calibration=measured.calibration,
        known_rows=known,
        seconds=round(time.monotonic() - started, 3),
        rejects=None if options.rejects is None else str(options.rejects),
        report=None if options.report is None else str(options.report),
    )


WriteReport = Callable[["Evaluation", "EvaluatedRows", "EvaluatedRows"], None]


@contextmanager
def _report_writer(path: Path | None) -> Iterator[WriteReport]:
    """Yield a function that writes the report. The file appears only if the evaluation succeeds.

    Raise RowcastError immediately if the file cannot be written.
    """
    if path is None:
        yield lambda result, rows, sample: None
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"{path}: the name of a report must end in .html", slug="unknown-extension")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write(result: Evaluation, rows: EvaluatedRows, sample: EvaluatedRows) -> None:
        from rowcast.training.report.evaluation_page import render_evaluation

        created = datetime.now(UTC).isoformat(timespec="seconds")
        page = render_evaluation(result, rows, sample, created=created, has_probabilities=rows.has_probabilities)
        with _write_errors(path):
            part.write_text(page, encoding="utf-8")
            part.replace(path)

    try:
        with _write_errors(path):
            part.write_bytes(b"")
        yield write
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Convert OSError into RowcastError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RowcastError(f"cannot write the report to {path}: {reason}", slug="not-writable") from None
