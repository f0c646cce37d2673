"""What all dialects share: find the model, read rows however they are laid out, have them scored, give answers back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rowcast.errors import BodyError, ModelNotFound, RequestError, ValueProblem
from rowcast.http.authentication import model_for
from rowcast.http.problems import Problem
from rowcast.http.routes import Request
from rowcast.schema.encoding import RowEncoder, RowWarning, decode_json
from rowcast.schema.prediction import Label
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import Deployment, LiveModel
from rowcast.serving.rows import Row, check_count, each_row
from rowcast.serving.waiting import Ask

MOST_TOLD = 20
"""Problems that a dialect with one sentence for all of them tells."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One prediction, as it was kept."""

    id: str
    prediction: Label
    probability: float | None = None
    score: float | None = None
    probabilities: dict[str, float] | None = None
    warnings: tuple[RowWarning, ...] = ()


_read_answers = msgspec.json.Decoder(list[Answer]).decode


class Scoring:
    """The one way from a dialect's rows to answers."""

    def __init__(self, predictor: Predictor, *, max_rows: int) -> None:
        self.predictor = predictor
        self.max_rows = max_rows

    @property
    def deployment(self) -> Deployment:
        """What is served."""
        return self.predictor.deployment

    def model(self, request: Request, name: str | None = None, version: str | None = None) -> LiveModel:
        """The model that is meant, if the caller may use it; ModelNotFound says what there is."""
        model = model_for(request.caller, self.deployment, name)
        if version is None or version == str(model.version):
            return model
        try:
            found = self.deployment.get(f"{model.name}@{version}")
        except ModelNotFound:
            raise ModelNotFound(
                f"version {version[:40]!r} of {model.name} is not served here; version {model.version} is"
            ) from None
        return found

    async def score(self, request: Request, model: LiveModel, rows: Sequence[Row], source: str) -> list[Answer]:
        """One answer a row, each in history before this returns."""
        request.spend(len(rows))
        if self.predictor.caching:
            rows = await self.predictor.recall(model, rows)
            request.note_cache(all(row.known for row in rows))
        replies = await self.predictor.predict_all(model, rows, self.ask(request, source))
        return _read_answers(b"[%b]" % b",".join(replies))

    def ask(self, request: Request, source: str) -> Ask:
        """Who asks, and how."""
        caller = request.caller
        return Ask(source, request.request_id, caller.key_id, caller.tenant, "", request.deadline)

    def objects(self, model: LiveModel, raws: Sequence[msgspec.Raw]) -> list[Row]:
        """Rows that came as JSON objects."""
        return _good(each_row(raws, lambda raw: Row(model.encoder.read(raw), bytes(raw)), max_rows=self.max_rows))

    def records(self, model: LiveModel, names: Sequence[str], records: Sequence[Sequence[Any]]) -> list[Row]:
        """Rows that came as lists of cells, in the order of `names`."""
        check_names(names)
        width = len(names)

        def read(record: Sequence[Any]) -> Row:
            if not isinstance(record, list | tuple) or len(record) != width:
                raise BodyError(f"there must be {width} values in it: {', '.join(names)[:200]}")
            return row_of(model.encoder, dict(zip(names, record, strict=True)))

        return _good(each_row(records, read, max_rows=self.max_rows))

    def columns(self, model: LiveModel, columns: Mapping[str, Sequence[Any]]) -> list[Row]:
        """Rows that came column by column, all of one length."""
        lengths = {len(cells) for cells in columns.values()}
        if len(lengths) > 1:
            told = ", ".join(f"{name[:40]}: {len(cells)}" for name, cells in list(columns.items())[:12])
            raise BodyError(f"the columns are not of one length: {told}")
        check_count(lengths.pop() if lengths else 0, self.max_rows)
        return self.records(model, list(columns), list(zip(*columns.values(), strict=True)))

    def instances(self, model: LiveModel, instances: Any) -> list[Row]:
        """Rows that came as a list of objects, of lists in the order of the model's columns, or of lone values."""
        if not isinstance(instances, list):
            raise BodyError("the rows must be a list: of objects, or of lists in the order of the columns")
        check_count(len(instances), self.max_rows)
        names = model.schema.names()
        if len(names) == 1 and not isinstance(instances[0], list | dict):
            return self.records(model, names, [[cell] for cell in instances])
        if isinstance(instances[0], dict):
            return _good(each_row(instances, lambda row: _mapping(model.encoder, row), max_rows=self.max_rows))
        return self.records(model, names, instances)

    def laid_out(self, model: LiveModel, found: Any) -> list[Row]:
        """Rows as TensorFlow Serving lays them out: a list of rows, or an object of columns."""
        if not isinstance(found, dict):
            return self.instances(model, found)
        columns = {name: cells if isinstance(cells, list) else [cells] for name, cells in found.items()}
        return self.columns(model, {name: _flat(name, cells) for name, cells in columns.items()})

    def texts(self, model: LiveModel, names: Sequence[str], records: Sequence[Sequence[str]]) -> list[Row]:
        """Rows whose cells are texts of a CSV file."""
        check_names(names)
        kinds = {column.name: column.kind for column in model.schema.columns}

        def read(record: Sequence[str]) -> Row:
            if len(record) != len(names):
                raise BodyError(f"it has {len(record)} cells, and the header has {len(names)}")
            cells = dict(zip(names, record, strict=True))
            encoded = model.encoder.parse(cells, text=True)
            # Kept as the native dialect would have got it: a number that was written `7` is 7.
            parsed = dict(zip(model.schema.names(), model.schema.parse(cells, text=True), strict=True))
            kept = {
                name: parsed[name] if parsed[name] is None or kinds[name] not in ("category", "datetime") else cell
                for name, cell in cells.items()
            }
            return Row(encoded, msgspec.json.encode(kept))

        return _good(each_row(records, read, max_rows=self.max_rows))


def row_of(encoder: RowEncoder, cells: Mapping[str, Any]) -> Row:
    """One row from Python values, beside the JSON that says the same."""
    encoded = encoder.parse(cells)
    return Row(encoded, msgspec.json.encode(cells))


def _mapping(encoder: RowEncoder, row: Any) -> Row:
    if not isinstance(row, dict):
        raise BodyError("must be an object, column name to value", slug="not-an-object")
    return row_of(encoder, row)


def _flat(name: str, cells: list[Any]) -> list[Any]:
    """A column that may come as a list of lists of one."""
    if not any(isinstance(cell, list) for cell in cells):
        return cells
    if not all(isinstance(cell, list) and len(cell) == 1 for cell in cells):
        raise BodyError(f"the column {name[:80]!r} must be a list of values, or of lists of one value")
    return [cell[0] for cell in cells]


def predictions(answers: Sequence[Answer]) -> list[Label]:
    """Labels, or the values of a regression."""
    return [answer.prediction for answer in answers]


def spread(model: LiveModel, answers: Sequence[Answer]) -> list[list[float]]:
    """The probabilities, in the order of the classes."""
    names = model.manifest.decision.names()
    return [[(answer.probabilities or {})[name] for name in names] for answer in answers]


def check_names(names: Sequence[str]) -> None:
    """BodyError when a column is named twice: one of them would be lost."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BodyError(f"the column {name[:80]!r} is there twice")
        seen.add(name)


def document(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. NaN, which clients in Python write, is null."""
    try:
        found = decode_json(body)
    except BodyError:
        if b"NaN" not in body:
            raise
        found = _with_nan(body)
    if not isinstance(found, dict):
        raise BodyError("the body must be a JSON object", slug="not-an-object")
    return found


def _with_nan(body: bytes) -> Any:
    try:
        found = json.loads(body, parse_constant=_null)
        msgspec.json.encode(found)  # a half of a surrogate pair is no text
    except RecursionError:
        raise BodyError("the JSON is nested too deeply", slug="too-deep") from None
    except (ValueError, msgspec.MsgspecError, OverflowError) as error:
        raise BodyError(f"the body is not JSON: {error}") from None
    return found


def _null(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is not a JSON number")


def exactly_one(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """Which of these keys the object has; BodyError unless it is exactly one."""
    given = [name for name in names if name in found]
    if len(given) != 1:
        raise BodyError(f"send exactly one of {', '.join(names)}; got {', '.join(given) or 'none of them'}")
    return given[0]


def only(found: Mapping[str, Any], names: Sequence[str]) -> None:
    """BodyError when the object has any other key."""
    for name in found:
        if name not in names:
            raise BodyError(f"there is no {name[:80]!r} in this request; known are {', '.join(names)}")


def no_query(request: Request) -> None:
    """RequestError when there are options: none of these routes has any."""
    if request.query:
        raise RequestError("this address takes no options", slug="bad-option")


def sentence(problem: Problem) -> str:
    """All that is wrong, in one text."""
    errors: list[ValueProblem] = [error for error in problem.errors if isinstance(error, ValueProblem)]
    if len(errors) < 2:
        return problem.detail
    told = list(map(str, errors[:MOST_TOLD]))
    more = [f"and {len(errors) - MOST_TOLD} more"] if len(errors) > MOST_TOLD else []
    return "; ".join([*told, *more])


def _good(rows: Sequence[Any]) -> list[Row]:
    return [row for row in rows if isinstance(row, Row)]
