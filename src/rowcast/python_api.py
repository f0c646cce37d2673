"""The Python API: `train`, `load`, `predict`, `evaluate` and `Model`.

It uses the same code as the command line and the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rowcast import settings
from rowcast.app import bundles, evaluation, models
from rowcast.app.progress import training_progress
from rowcast.errors import ModelNotFound
from rowcast.schema.prediction import Label, Score, Task, label_text

if TYPE_CHECKING:
    from rowcast.jobs.table_scoring import Summary
    from rowcast.serving.live_models import LiveModel
    from rowcast.training.cost import Cost
    from rowcast.training.evaluation_result import Evaluation
    from rowcast.training.events import TrainingEvent
    from rowcast.training.presets import PresetName
    from rowcast.training.result import TrainingResult

Names = str | Sequence[str]
"""The names of columns. A string is a single name."""
Row = Mapping[str, Any]


def train(
    data: Any,
    target: str | None = None,
    name: str | None = None,
    *,
    home: str | Path | None = None,
    target_file: str | Path | None = None,
    task: Task | None = None,
    positive: Label | None = None,
    exclude: Names = (),
    keep: Names = (),
    optional: Names = (),
    sensitive: Names = (),
    derive: Names | Mapping[str, str] = (),
    map: Names | Mapping[Label, Label] = (),  # noqa: A002
    time: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    class_weight: str = "none",
    seed: int = 0,
    preset: PresetName = "balanced",
    trials: int | None = None,
    timeout: float | None = None,
    jobs: int = 1,
    engine: str = "local",
    candidates: Names = ("logistic", "boosting", "forest", "extra"),
    metric: str | None = None,
    refit: bool | None = None,
    cost: str | Mapping[str, float] | Cost | None = None,
    storage: str | None = None,
    holdout: float = 0.2,
    folds: int | None = None,
    alias: str | None = "champion",
    promote: bool | None = None,
    wire: str | Path | Mapping[str, Any] | None = None,
    onnx_out: str | Path | None = None,
    progress: bool | Callable[[TrainingEvent], None] = True,
) -> TrainingResult:
    """Train a model, publish it and return the result that `rowcast train --json` prints.

    `data` is a file path, a data frame, a mapping from column names to values or a list of rows. `target_file` is a
    separate file with the labels. The other arguments are the options of `rowcast train`. For options that list
    columns, a string is a single column. `derive` is one definition such as
    `"burden = loan_amount / annual_income"`, a list of definitions, or a mapping from names to expressions.

    A version replaces the champion only if it has the same target and schema and is not worse; otherwise, it becomes
    the challenger. `promote` overrides this rule. `TrainingResult.promotion` contains the result and the reason.

    `progress` shows a progress bar in terminals and notebooks. It can also be a function that receives the events.
    """
    options = {option: value for option, value in locals().items() if option not in ("data", "home", "progress")}
    return _train(settings.load(home=home), data, progress, options)


def _train(
    loaded: settings.Settings,
    data: Any,
    progress: bool | Callable[[TrainingEvent], None],
    options: dict[str, Any],
) -> TrainingResult:
    for option in ("exclude", "keep", "optional", "sensitive", "derive", "candidates", "map"):
        options[option] = _texts(options[option])
    if options["positive"] is not None:
        options["positive"] = label_text(options["positive"])
    if callable(progress):
        return models.train(loaded, data, progress=progress, **options)
    if not progress:
        return models.train(loaded, data, **options)
    with training_progress() as report:
        return models.train(loaded, data, progress=report, **options)


def _texts(value: Names | Mapping[Label, Label]) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        return tuple(f"{label_text(old)}={label_text(new)}" for old, new in value.items())
    return (value,) if isinstance(value, str) else tuple(value)


def load(reference: str, *, home: str | Path | None = None) -> Model:
    """Load a published model by its reference (`NAME`, `NAME@3` or `NAME@alias`) and verify it on its golden rows."""
    return Model(models.live_model(settings.load(home=home), reference))


def predict(
    model: str | Path | Model,
    table: str | Path,
    out: str | Path,
    *,
    home: str | Path | None = None,
    rejects: str | Path | None = None,
    columns: Names | None = None,
    jobs: int | None = None,
    engine: str = "local",
) -> Summary:
    """Score a table file in constant memory, write `out` and return what `rowcast predict --json` prints.

    `model` is a reference (`NAME`, `NAME@3` or `NAME@alias`), a loaded `Model`, or the path of a bundle folder or an
    archive. The other arguments are the options of `rowcast predict`. `engine` is `local`, `ray` or `ray://HOST:PORT`.
    To score rows in memory, use `Model.predict`.
    """
    from rowcast.jobs.table_scoring import ScoringOptions

    summary = bundles.score_table(
        settings.load(home=home),
        _reference(model),
        ScoringOptions(
            source=Path(table),
            out=Path(out),
            rejects=None if rejects is None else Path(rejects),
            columns=None if columns is None else _texts(columns),
        ),
        engine=engine,
        slots=jobs,
    )
    _require_same(model, summary.digest)
    return summary


def _reference(model: str | Path | Model) -> str:
    if isinstance(model, Model):
        return f"{model.name}@{model.version}"
    return f"{model.absolute()}" if isinstance(model, Path) else model


def _require_same(model: str | Path | Model, digest: str) -> None:
    """Raise ModelNotFound if the model was loaded from another home."""
    if isinstance(model, Model) and digest != model.digest:
        reference = _reference(model)
        raise ModelNotFound(f"{reference} in this home is not the loaded model; pass the home from which it was loaded")


def evaluate(
    model: str | Path | Model,
    table: Any,
    *,
    home: str | Path | None = None,
    target: str | None = None,
    target_file: str | Path | None = None,
    weight: str | None = None,
    group: str | None = None,
    map: Names | Mapping[Label, Label] = (),  # noqa: A002
    rejects: str | Path | None = None,
    report: str | Path | None = None,
    jobs: int | None = None,
) -> Evaluation:
    """Measure a model on a table with known labels or values and return what `rowcast evaluate --json` prints.

    `model` is a reference (`NAME`, `NAME@3` or `NAME@alias`), a loaded `Model`, or the path of a bundle folder or an
    archive. `table` is a file path, a data frame, a mapping from column names to values or a list of rows. The other
    arguments are the options of `rowcast evaluate`.
    """
    result = evaluation.evaluate(
        settings.load(home=home),
        _reference(model),
        table,
        evaluation.EvaluationOptions(
            target=target,
            target_file=None if target_file is None else Path(target_file),
            weight=weight,
            group=group,
            map=_texts(map),
            rejects=None if rejects is None else Path(rejects),
            report=None if report is None else Path(report),
            jobs=jobs,
        ),
    )
    _require_same(model, result.digest)
    return result


class Model:
    """A loaded model. It returns the same scores as the server but does not record predictions."""

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self.name, self.version, self.digest = live.name, live.version, live.digest
        self.schema = live.schema
        self.task: Task = live.decision.task
        self.classes = live.decision.classes
        """The labels, in the order of the class probabilities; empty for a regression model."""

    @overload
    def predict(self, data: Row) -> Score: ...
    @overload
    def predict(self, data: list[Any] | tuple[Any, ...]) -> list[Score]: ...
    @overload
    def predict(self, data: Any) -> Any: ...
    def predict(self, data: Any) -> Any:
        """Return the predictions in the same form as `data`; raise InvalidRows with every problem in every invalid row.

        `data` is a pandas or polars frame, a list of rows, one row, an array with the model's columns in order, a
        mapping of columns, or the path of a table. Columns that the model does not use are ignored.
        """
        return models.predict(self._live, data)

    def predict_proba(self, data: Any) -> Any:
        """Return the class probabilities in the same form as `data`; raise RequestError if the model has no
        probabilities."""
        return models.predict_proba(self._live, data)

    def __repr__(self) -> str:
        return f"<Model {self.name}@{self.version}: {self.task}, {len(self.schema.columns)} columns>"

    def _repr_html_(self) -> str:
        from rowcast.templates import render

        facts = [
            ("task", self.task),
            *([("classes", ", ".join(map(label_text, self.classes)))] if self.classes else []),
            ("columns", ", ".join(self.schema.names())),
            ("digest", self.digest),
        ]
        return render("rowcast", "summary.html", title=f"{self.name}@{self.version}", facts=facts)
