"""Functions that V1, V2 and MLflow share. They find the model, read and score the rows and return predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.errors import BodyError, ModelNotFound
from rowcast.http.authentication import model_for
from rowcast.http.problems import Problem
from rowcast.http.routes import Request
from rowcast.schema.encoding import RowEncoder, RowWarning, decode_json
from rowcast.schema.prediction import Label
from rowcast.schema.unique_keys import check_unique_keys
from rowcast.serving.rows import Row, check_count, read_valid

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface
    from rowcast.serving.service import PredictionService

MAX_LISTED_PROBLEMS = 20
"""The maximum number of problems that a dialect's error message lists."""


class ScoredRow(msgspec.Struct, frozen=True, gc=False):
    """One prediction, decoded from the recorded reply."""

    id: str
    prediction: Label
    probability: float | None = None
    score: float | None = None
    probabilities: dict[str, float] | None = None
    warnings: tuple[RowWarning, ...] = ()


_decode_rows = msgspec.json.Decoder(list[ScoredRow]).decode


class DialectScoring:
    """Reads rows in a dialect's formats and scores them."""

    def __init__(self, service: PredictionService) -> None:
        self.service = service
        self.deployment = service.deployment
        self.max_rows = service.max_rows

    def model(self, request: Request, name: str | None = None, version: str | None = None) -> ModelInterface:
        """Return the requested model; raise Forbidden if the caller has no access to it."""
        model = model_for(request.context.caller, self.deployment, name)
        if version is None or version == str(model.version):
            return model
        try:
            return self.deployment.get(f"{model.name}@{version}")
        except ModelNotFound:
            raise ModelNotFound(
                f"version {version[:40]!r} of model {model.name!r} is not served; the served version is {model.version}"
            ) from None

    async def score(self, request: Request, model: ModelInterface, rows: Sequence[Row]) -> list[ScoredRow]:
        """Score the rows, record the predictions in the history and return one prediction per row."""
        predictions = await self.service.predict(model, rows, request.context)
        request.used(model, len(rows), predictions.cache_hit)
        return _decode_rows(b"[%b]" % b",".join(predictions.replies))

    def read_records(self, model: ModelInterface, names: Sequence[str], records: Sequence[Sequence[Any]]) -> list[Row]:
        """Read rows that are lists of cells in the order of `names`."""
        check_names(names)
        width = len(names)

        def read(record: Sequence[Any]) -> Row:
            if not isinstance(record, list | tuple) or len(record) != width:
                raise BodyError(f"expected a list of {width} values: {', '.join(names)[:200]}")
            return row_of(model.encoder, dict(zip(names, record, strict=True)))

        return read_valid(records, read, max_rows=self.max_rows)

    def read_columns(self, model: ModelInterface, columns: Mapping[str, Sequence[Any]]) -> list[Row]:
        """Read rows that are sent column by column."""
        lengths = {len(cells) for cells in columns.values()}
        if len(lengths) > 1:
            shown = ", ".join(f"{name[:40]}: {len(cells)}" for name, cells in list(columns.items())[:12])
            raise BodyError(f"the columns must all have the same length: {shown}")
        check_count(lengths.pop() if lengths else 0, self.max_rows)
        return self.read_records(model, list(columns), list(zip(*columns.values(), strict=True)))

    def read_instances(self, model: ModelInterface, instances: Any) -> list[Row]:
        """Read a list whose items are objects, lists in the order of the model's columns, or single values."""
        if not isinstance(instances, list):
            raise BodyError(
                "the rows must be a list of objects, or a list of lists in the order of the model's columns"
            )
        check_count(len(instances), self.max_rows)
        names = model.schema.names()
        if len(names) == 1 and not isinstance(instances[0], list | dict):
            return self.read_records(model, names, [[cell] for cell in instances])
        if isinstance(instances[0], dict):
            return read_valid(instances, lambda row: _row_of_object(model.encoder, row), max_rows=self.max_rows)
        return self.read_records(model, names, instances)

    def read_rows(self, model: ModelInterface, rows: Any) -> list[Row]:
        """Read rows in the formats of TensorFlow Serving: a list of rows, or an object that maps names to columns."""
        if not isinstance(rows, dict):
            return self.read_instances(model, rows)
        columns = {name: cells if isinstance(cells, list) else [cells] for name, cells in rows.items()}
        return self.read_columns(model, {name: _flatten(name, cells) for name, cells in columns.items()})

    def read_texts(self, model: ModelInterface, names: Sequence[str], records: Sequence[Sequence[str]]) -> list[Row]:
        """Read rows from CSV, in which all cells are strings."""
        check_names(names)
        kinds = {column.name: column.kind for column in model.schema.columns}

        def read(record: Sequence[str]) -> Row:
            if len(record) != len(names):
                raise BodyError(f"the row has {len(record)} cells, but the header has {len(names)}")
            cells = dict(zip(names, record, strict=True))
            encoded = model.encoder.parse(cells, text=True)
            # Store the JSON that a native client would have sent, for example the number 7 for the cell "7".
            parsed = dict(zip(model.schema.names(), model.schema.parse(cells, text=True), strict=True))
            stored = {
                name: parsed[name] if parsed[name] is None or kinds[name] not in ("category", "datetime") else cell
                for name, cell in cells.items()
            }
            return Row(encoded, msgspec.json.encode(stored))

        return read_valid(records, read, max_rows=self.max_rows)


def row_of(encoder: RowEncoder, cells: Mapping[str, Any]) -> Row:
    """Return a row built from Python values, with the equivalent JSON."""
    return Row(encoder.parse(cells), msgspec.json.encode(cells))


def _row_of_object(encoder: RowEncoder, row: Any) -> Row:
    if not isinstance(row, dict):
        raise BodyError("expected a JSON object that maps column names to values", slug="not-an-object")
    return row_of(encoder, row)


def _flatten(name: str, cells: list[Any]) -> list[Any]:
    """Return the cells of a column, unwrapped if each of them is a one-element list."""
    if not any(isinstance(cell, list) for cell in cells):
        return cells
    if not all(isinstance(cell, list) and len(cell) == 1 for cell in cells):
        raise BodyError(f"column {name[:80]!r}: expected a list of values, or a list of one-element lists")
    return [cell[0] for cell in cells]


def labels(rows: Sequence[ScoredRow]) -> list[Label]:
    """Return the predicted labels or, for a regression model, the predicted values."""
    return [row.prediction for row in rows]


def probabilities(model: ModelInterface, rows: Sequence[ScoredRow]) -> list[list[float]]:
    """Return the class probabilities for each row, in the order of the classes."""
    names = model.decision.names()
    return [[(row.probabilities or {})[name] for name in names] for row in rows]


def check_names(names: Sequence[str]) -> None:
    """Raise BodyError if a column name occurs twice; otherwise, one of the two columns would be lost."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BodyError(f"column {name[:80]!r} occurs twice")
        seen.add(name)


def read_object(body: bytes) -> dict[str, Any]:
    """Parse the body as a JSON object. NaN, which some Python clients send, is read as null."""
    try:
        document = decode_json(body)
    except BodyError:
        if b"NaN" not in body:
            raise
        document = _decode_with_nan(body)
    if not isinstance(document, dict):
        raise BodyError("the body must be a JSON object", slug="not-an-object")
    check_unique_keys(body, _count_keys(document))
    return document


def _count_keys(document: Any) -> int:
    """Return the total number of keys in a document's objects. Lists that begin with a scalar are not searched."""
    if isinstance(document, dict):
        return len(document) + sum(map(_count_keys, document.values()))
    return sum(map(_count_keys, document)) if isinstance(document, list) and document and _nests(document[0]) else 0


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list)


def _decode_with_nan(body: bytes) -> Any:
    try:
        document = json.loads(body, parse_constant=_read_constant)
        msgspec.json.encode(document)  # raises an error for lone surrogates, which are not valid Unicode
    except RecursionError:
        raise BodyError("the JSON is nested too deeply", slug="too-deep") from None
    except (ValueError, msgspec.MsgspecError, OverflowError) as error:
        raise BodyError(f"the body is not valid JSON: {error}") from None
    return document


def _read_constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is not a JSON number")


def only_key(document: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the key from `names` that the object contains; raise BodyError unless there is exactly one."""
    present = [name for name in names if name in document]
    if len(present) != 1:
        raise BodyError(f"send exactly one of {', '.join(names)}; got {', '.join(present) or 'none'}")
    return present[0]


def check_keys(document: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise BodyError if the object has a key that is not in `names`."""
    for name in document:
        if name not in names:
            raise BodyError(f"unknown key {name[:80]!r}; known keys: {', '.join(names)}")


def summary(problem: Problem) -> str:
    """Return the problem's detail or, if the problem lists several errors, those errors joined into one string."""
    errors = problem.errors
    if len(errors) < 2:
        return problem.detail
    listed = list(map(str, errors[:MAX_LISTED_PROBLEMS]))
    more = [f"and {len(errors) - MAX_LISTED_PROBLEMS} more"] if len(errors) > MAX_LISTED_PROBLEMS else []
    return "; ".join([*listed, *more])


def write_error(problem: Problem) -> tuple[int, bytes]:
    """Encode a problem as `{"error": "text"}`. Status 422, which V1 and V2 do not use, becomes 400."""
    status = 400 if problem.status == 422 else problem.status
    return status, msgspec.json.encode({"error": summary(problem)})
