"""Every call of the interface, as a request and as the reading of its reply. No IO."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from rowcast.client import replies
from rowcast.client.errors import BadCall, BadReply
from rowcast.client.exchange import Reply, Request
from rowcast.client.replies import Entry, Health, Model, Page, Prediction, Reload, RowRefused

T = TypeVar("T")
Row = Mapping[str, Any] | msgspec.Raw
"""Column to value; or the JSON of one object, which is sent and kept byte for byte."""
Format = Literal["jsonl", "csv"]

JSON = "application/json"
NATIVE = ("wire", "false")
"""Rows and predictions in the native form, whatever template the model has."""
FILTERS = ("model", "version", "label", "entity", "since", "until")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(@[1-9][0-9]{0,9})?").fullmatch
HEADER = re.compile(r"[\x21-\x7e]{1,255}").fullmatch
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


class Call(msgspec.Struct, Generic[T], frozen=True):
    """A request, and what its reply means."""

    request: Request
    read: Callable[[Reply], T]


class Options(TypedDict, total=False):
    """What a prediction may be asked with."""

    entity: str
    """Your own reference, such as an application number; kept in history."""
    cache: bool
    """False: neither ask nor fill the server's cache."""
    idempotency_key: str
    """In the place of a new one: the same key and rows again get the first answer."""
    request_id: str
    traceparent: str
    timeout: float
    """Seconds for this call with all its retries."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The same with what holds when it is not said."""

    entity: str | None = None
    cache: bool = True
    idempotency_key: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and not HEADER(self.idempotency_key):
            raise BadCall("idempotency_key must be 1 to 255 visible ASCII characters")
        if self.request_id is not None and not REQUEST_ID(self.request_id):
            raise BadCall("request_id must be 1 to 128 of A-Z a-z 0-9 . _ -")
        if self.traceparent is not None and not HEADER(self.traceparent):
            raise BadCall("traceparent must be visible ASCII characters, as W3C Trace Context has them")

    def query(self) -> list[tuple[str, str]]:
        """As a query string has it."""
        return [
            *([("entity", self.entity)] if self.entity is not None else []),
            *([] if self.cache else [("cache", "false")]),
        ]

    def headers(self) -> dict[str, str]:
        """As HTTP has it."""
        given = {"x-request-id": self.request_id, "traceparent": self.traceparent}
        return {name: value for name, value in given.items() if value is not None}


class Address(msgspec.Struct, frozen=True):
    """Where a server is: scheme, host and prefix, without anything that must not be shown."""

    base: str
    shown: str
    local: bool

    @classmethod
    def read(cls, url: str) -> Address:
        """BadCall when the text is no address of a server."""
        try:
            found = urlsplit(url.strip())
            host, port = found.hostname, found.port
        except ValueError:
            host, port = None, None
        else:
            if found.scheme in ("http", "https") and host and not (found.query or found.fragment):
                named = f"[{host}]" if ":" in host else host
                path = found.path.rstrip("/")
                shown = f"{found.scheme}://{named}{f':{port}' if port else ''}{path}"
                local = host == "localhost" or host == "::1" or host.startswith("127.")
                return cls(url.strip().rstrip("/"), shown, local)
        raise BadCall("the address of a server looks like http://127.0.0.1:8000 or https://example.com/api")


class Answering:
    """How rows are asked; the models that were described are remembered with their ETag."""

    def __init__(self, new_key: Callable[[], str], *, retries: int) -> None:
        self._new_key = new_key
        self._retries = retries
        self._known: dict[str, tuple[str, Model]] = {}

    def predict(self, row: Row, model: str | None, asked: Asked) -> Call[Prediction]:
        """One row."""
        if isinstance(row, Mapping) and row.keys() == {"rows"}:
            raise BadCall("a row cannot have `rows` as its only column; many rows are asked with predict_many")
        return Call(self._predict(_encoded(row, "the row"), model, asked), _prediction)

    def predict_many(
        self, rows: Iterable[Row], model: str | None, partial: bool, asked: Asked
    ) -> Call[list[Prediction | RowRefused]]:
        """Many rows, answered in order."""
        body = _encoded({"rows": list(rows)}, "the rows")
        return Call(self._predict(body, model, asked, *([("partial", "true")] if partial else [])), _predictions)

    def model(self, name: str | None) -> Call[Model]:
        """One model; what is known already is not sent again."""
        if name is None:
            return Call(_get("/models/info"), _read(Model))
        known = self._known.get(name)
        request = _get(f"/models/{_name(name)}", {"if-none-match": known[0]} if known else {})

        def read(reply: Reply) -> Model:
            if reply.status == 304 and known:
                return known[1]
            found = _decode(reply, Model)
            if etag := reply.headers.get("etag"):
                self._known[name] = etag, found
            return found

        return Call(request, read)

    def _predict(self, body: bytes, model: str | None, asked: Asked, *more: tuple[str, str]) -> Request:
        key = asked.idempotency_key or (self._new_key() if self._retries else None)
        headers = {"content-type": JSON, **asked.headers(), **({"idempotency-key": key} if key else {})}
        path = "/predict" if model is None else f"/models/{_name(model)}/predict"
        return Request("POST", path, (*more, *asked.query(), NATIVE), headers, body, again=key is not None)


def models() -> Call[list[Model]]:
    """Every model."""
    return Call(_get("/models"), lambda reply: _decode(reply, replies.Models).models)


def sample() -> Call[dict[str, Any]]:
    """A row that the default model takes."""
    return Call(Request("GET", "/sample", (NATIVE,)), _read(dict[str, Any]))


def reload() -> Call[Reload]:
    """Follow the registry now; asking twice does what asking once does."""
    return Call(Request("POST", "/models/reload", answers=frozenset({200, 409, 503})), _read(Reload))


def health() -> Call[Health]:
    """Every part; one that is ill is an answer too."""
    return Call(Request("GET", "/health", answers=frozenset({200, 503})), _read(Health))


def ready() -> Call[bool]:
    """Whether predictions would be answered."""
    request = Request("GET", "/health/ready", answers=frozenset({200, 503}), again=False)
    return Call(request, lambda reply: _decode(reply, replies.Ready).ready)


def page(filters: Mapping[str, Any], limit: int, cursor: str | None) -> Call[Page]:
    """So many entries of history, behind a cursor."""
    query = [*_filters(filters), ("limit", str(limit))]
    query += [("cursor", cursor)] if cursor is not None else []
    return Call(Request("GET", "/predictions", tuple(query)), _read(Page))


def entry(prediction_id: str) -> Call[Entry]:
    """One entry of history."""
    if not prediction_id:
        raise BadCall("the id of a prediction is empty")
    return Call(_get(f"/predictions/{quote(prediction_id, safe='')}"), _read(Entry))


def export(file: Download, form: Format, filters: Mapping[str, Any]) -> Call[int]:
    """History as a file."""
    query = (("format", form), *_filters(filters))
    return Call(Request("GET", "/predictions/export", query, sink=file), lambda reply: file.size)


class Download:
    """A file that is there when it is whole, and not before."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._file: IO[bytes] | None = None
        self.size = 0

    def begin(self) -> None:
        """An empty file beside the one that is to be."""
        self.drop()
        try:
            self._file = self._part.open("wb")
        except OSError as error:
            raise self._cannot(error) from None
        self.size = 0

    def write(self, piece: bytes) -> None:
        """The next piece."""
        assert self._file is not None
        try:
            self._file.write(piece)
        except OSError as error:
            raise self._cannot(error) from None
        self.size += len(piece)

    def keep(self) -> None:
        """Put it in its place."""
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            raise self._cannot(error) from None
        self._file = None

    def drop(self) -> None:
        """Leave nothing of what was not kept."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _cannot(self, error: OSError) -> BadCall:
        return BadCall(f"{self._path} cannot be written: {error.strerror}")


def _get(path: str, headers: Mapping[str, str] | None = None) -> Request:
    return Request("GET", path, headers=headers or {})


def _name(model: str) -> str:
    if not NAME(model):
        raise BadCall("a model is NAME or NAME@3: its name has 1 to 64 of a-z 0-9 . _ -, its version is a number")
    return model


def _filters(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    unknown = sorted(given.keys() - set(FILTERS))
    if unknown:
        raise BadCall(f"there is no filter {', '.join(unknown)}; known are {', '.join(FILTERS)}")
    return [(name, _text(value)) for name, value in given.items() if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise BadCall("a time must have a zone: datetime(..., tzinfo=UTC)")
    if isinstance(value, date):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _encoded(value: Any, what: str) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BadCall(f"{what} cannot be written as JSON: {type(error).__name__}; send plain values") from None


def _plain(value: Any) -> Any:
    """What numpy and pandas have instead of numbers."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError


def _read(kind: type[T]) -> Callable[[Reply], T]:
    return lambda reply: _decode(reply, kind)


def _decode(reply: Reply, kind: type[T]) -> T:
    return _decoded(reply.body, kind)


def _decoded(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadReply("the reply is not that of a Rowcast server of this version; is the address right?") from None


def _prediction(reply: Reply) -> Prediction:
    found = _decode(reply, Prediction)
    return msgspec.structs.replace(found, request_id=reply.headers.get("x-request-id", ""))


def _predictions(reply: Reply) -> list[Prediction | RowRefused]:
    request_id = reply.headers.get("x-request-id", "")
    found: list[Prediction | RowRefused] = []
    for raw in _decode(reply, replies.Batch).predictions:
        if bytes(raw).startswith(b'{"errors"'):
            found.append(_decoded(raw, RowRefused))
        else:
            found.append(msgspec.structs.replace(_decoded(raw, Prediction), request_id=request_id))
    return found
