"""Scores rows in memory, and returns the results in the form in which the rows were passed.

    rows                            predictions                        probabilities
    pandas or polars data frame     a frame from the same library      a frame with one column per class
    path of a table                 a polars frame                     a polars frame with one column per class
    mapping of columns              a mapping of columns               a mapping of columns, one per class
    list of rows                    a list of scores                   a list of mappings from class to probability
    one row                         a score                            a mapping from class to probability
    array [N, columns]              an array of labels or values [N]   an array [N, classes]

Cells are read as in training: strings are parsed as CSV cells, and NaN, NaT and NA are missing values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import polars as pl
from msgspec import UNSET
from msgspec.structs import replace
from numpy.typing import NDArray

from rowcast.errors import InvalidRows, NoAnswer, RequestError, TableError, ValueProblem
from rowcast.schema.prediction import Decision, Score
from rowcast.schema.schema import Schema, unknown_column
from rowcast.schema.scores import non_finite_rows, score_rows
from rowcast.schema.values import BLANKS
from rowcast.serving.live_models import LiveModel
from rowcast.tables.encode import encode_all
from rowcast.tables.read import frame_from_memory, is_pandas_frame, plain, read_table
from rowcast.tables.table import misspellings
from rowcast.tables.write import prediction_columns

ROWS_PER_RUN: Final = 65_536
"""The number of rows per call to the graph, which limits the memory for intermediate results."""
NAME: Final = "the data"


class Results(Protocol):
    """The results for all rows, available in three forms."""

    def columns(self) -> Mapping[str, Any]:
        """Return one sequence of results per column."""
        ...

    def rows(self) -> Sequence[Any]:
        """Return one object per row."""
        ...

    def array(self) -> NDArray[Any]:
        """Return an array with one result per row."""
        ...


class PredictionResults(NamedTuple):
    """Labels or values, with their probabilities."""

    decision: Decision
    output: NDArray[Any]

    def columns(self) -> Mapping[str, Any]:
        return prediction_columns(self.decision, self.output)

    def rows(self) -> Sequence[Score]:
        return score_rows(self.decision, self.output)

    def array(self) -> NDArray[Any]:
        return pl.Series(self.columns()["prediction"]).to_numpy()


class ProbabilityResults(NamedTuple):
    """The probability of each class."""

    decision: Decision
    output: NDArray[Any]

    def columns(self) -> Mapping[str, Any]:
        return dict(zip(self.decision.names(), self.array().T, strict=True))

    def rows(self) -> Sequence[dict[str, float]]:
        names = self.decision.names()
        return [dict(zip(names, row, strict=True)) for row in self.array().tolist()]

    def array(self) -> NDArray[Any]:
        return self.output.astype(np.float64)


class Input(NamedTuple):
    """Rows as a frame, and the function that converts their results into the form of the input."""

    frame: pl.DataFrame
    convert: Callable[[Results], Any]
    is_single: bool = False
    """Whether the input is a single row instead of a list of rows."""
    unknown: Sequence[ValueProblem] = ()
    """The problems with names that do not belong to any column."""


def predict(model: LiveModel, data: Any) -> Any:
    """Return the predictions in the same form as `data`; raise InvalidRows with every problem in every invalid row."""
    rows = _read(data, model.schema)
    return rows.convert(PredictionResults(model.decision, _score(model, rows)))


def predict_proba(model: LiveModel, data: Any) -> Any:
    """Return the class probabilities in the same form as `data`; raise RequestError if the model returns none."""
    if not model.has_probabilities:
        kind = "returns only labels" if model.is_classifier else "is a regression model"
        raise RequestError(f"{model.name}@{model.version} {kind} and has no class probabilities; use predict")
    rows = _read(data, model.schema)
    return rows.convert(ProbabilityResults(model.decision, _score(model, rows)))


def _read(data: Any, schema: Schema) -> Input:
    if isinstance(data, str | Path):
        return Input(read_table(data).frame, lambda results: pl.DataFrame(results.columns()))
    if isinstance(data, np.ndarray):
        return Input(_from_array(data, schema.names()), lambda results: results.array())
    if isinstance(data, pl.DataFrame):
        return Input(data, lambda results: pl.DataFrame(results.columns()))
    if is_pandas_frame(data):
        return Input(frame_from_memory(data, NAME), partial(_to_pandas, data))
    if isinstance(data, Mapping):
        if data and all(_is_column(cells) for cells in data.values()):
            return Input(frame_from_memory(data, NAME), _to_lists)
        return _from_rows([data], schema)._replace(convert=lambda results: results.rows()[0], is_single=True)
    if isinstance(data, Sequence) and not isinstance(data, bytes):
        return _from_rows(data, schema)
    raise TableError(
        f"cannot read rows from {type(data).__name__}; expected a data frame, a list of rows, one row as a mapping, an "
        "array, a mapping of columns or the path of a table",
        slug="not-a-table",
    )


def _is_column(cells: Any) -> bool:
    """Return whether a value in a mapping is a whole column rather than a single cell."""
    return not isinstance(cells, str | bytes) and hasattr(cells, "__len__") and hasattr(cells, "__iter__")


def _from_array(array: NDArray[Any], names: Sequence[str]) -> pl.DataFrame:
    if array.ndim != 2 or array.shape[1] != len(names):
        raise TableError(
            f"the array has the shape {list(array.shape)}; expected [rows, {len(names)}], with the model's columns in "
            f"this order: {', '.join(names)}",
            slug="wrong-shape",
        )
    return frame_from_memory({name: array[:, index].tolist() for index, name in enumerate(names)}, NAME)


def _from_rows(rows: Sequence[Any], schema: Schema) -> Input:
    """Return a frame with the model's columns. A cell that is absent from a row becomes a missing value.

    Columns that the model does not use, such as the target, are ignored. Names that are probably misspellings of
    absent columns are reported.
    """
    if not all(isinstance(row, Mapping) for row in rows):
        raise TableError("every row must be a mapping from column names to values", slug="malformed-file")
    names = schema.names()
    keys = {str(key).strip(BLANKS): key for row in rows for key in row}
    frame = frame_from_memory({name: [row.get(keys.get(name)) for row in rows] for name in names}, NAME)
    return Input(frame, lambda results: list(results.rows()), unknown=_unknown_columns(rows, keys, schema))


def _unknown_columns(rows: Sequence[Mapping[Any, Any]], keys: Mapping[str, Any], schema: Schema) -> list[ValueProblem]:
    """Return a problem, with its row number, for each name that is probably a misspelling."""
    names = schema.names()
    keys_of_columns = [keys.get(name) for name in names]
    problems = []
    known: dict[tuple[Any, ...], list[str]] = {}
    for number, row in enumerate(rows):
        if all(key in row for key in keys_of_columns):
            continue
        present = tuple(str(key).strip(BLANKS) for key in row)
        if present not in known:
            known[present] = list(misspellings(present, schema).values())
        problems += [replace(unknown_column(name, names), row=number) for name in known[present]]
    return problems


def _score(model: LiveModel, rows: Input) -> NDArray[Any]:
    """Return the graph's output; raise InvalidRows or NoAnswer if any row cannot be scored."""
    encoded = encode_all(plain(rows.frame, NAME), model.schema, model.manifest.plan)
    problems = encoded.problems()
    if problems or rows.unknown:
        listed = sorted([*problems, *rows.unknown], key=_row)
        raise InvalidRows([replace(problem, row=UNSET) for problem in listed] if rows.is_single else listed)
    if not rows.frame.height:
        return np.zeros((0, len(model.decision.classes)) if model.has_probabilities else (0,), np.float32)
    unanswered: list[int] = []
    outputs = []
    for start in range(0, rows.frame.height, ROWS_PER_RUN):
        part = {name: tensor[start : start + ROWS_PER_RUN] for name, tensor in encoded.tensors.items()}
        try:
            outputs.append(model.output(part))
            unanswered += [start + row for row in non_finite_rows(outputs[-1])]
        except NoAnswer as none:
            unanswered += [start + row for row in none.rows]
    if unanswered:
        raise NoAnswer(unanswered, alone=rows.is_single)
    return np.concatenate(outputs)


def _row(problem: ValueProblem) -> int:
    assert isinstance(problem.row, int)
    return problem.row


def _to_pandas(frame: Any, results: Results) -> Any:
    columns = {name: pl.Series(cells).to_list() for name, cells in results.columns().items()}
    return type(frame)(columns, index=frame.index)


def _to_lists(results: Results) -> dict[str, list[Any]]:
    return {name: pl.Series(cells).to_list() for name, cells in results.columns().items()}
