"""Calls to the native API: requests, each with a function that decodes its reply. This module does no network IO."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from rowcast.client.batches import BatchBody, Batches, Row, Rows
from rowcast.client.encoding import encode
from rowcast.client.errors import BadCall, BadReply
from rowcast.client.exchange import HttpReply, HttpRequest, shifted
from rowcast.client.replies import BatchReply, HistoryEntry, HistoryList, PredictionReply, RowErrors
from rowcast.serving.fleet import ReloadResult
from rowcast.serving.health import HealthReport, Readiness
from rowcast.serving.model_descriptions import ModelList, ServedModel

T = TypeVar("T")
Format = Literal["jsonl", "csv"]

JSON = "application/json"
NATIVE_FORM = ("wire", "false")
"""The query parameter that selects the native format even if the model has a wire template."""
FILTERS = ("model", "version", "label", "entity", "since", "until")
is_model_name = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(@[1-9][0-9]{0,9})?").fullmatch
is_header_value = re.compile(r"[\x21-\x7e]{1,255}").fullmatch
is_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


class ApiCall(msgspec.Struct, Generic[T], frozen=True):
    """A request and the function that decodes its reply."""

    request: HttpRequest
    read: Callable[[HttpReply], T]


class PredictOptions(TypedDict, total=False):
    """The keyword arguments of `predict` and `predict_many`."""

    entity: str
    """An identifier of your choice, for example an application number; recorded in the history."""
    cache: bool
    """Whether the server may use its cache."""
    idempotency_key: str
    """Replaces the generated Idempotency-Key. Repeating a call with the same key and rows returns the first reply."""
    request_id: str
    traceparent: str
    timeout: float
    """Timeout in seconds for this call, including retries."""


class CheckedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Validated `PredictOptions`, with defaults for the options that were not given."""

    entity: str | None = None
    cache: bool = True
    idempotency_key: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and not is_header_value(self.idempotency_key):
            raise BadCall("idempotency_key must be 1 to 255 visible ASCII characters")
        if self.request_id is not None and not is_request_id(self.request_id):
            raise BadCall("request_id must be 1 to 128 characters from A-Z, a-z, 0-9, '.', '_' and '-'")
        if self.traceparent is not None and not is_header_value(self.traceparent):
            raise BadCall("traceparent must be a W3C Trace Context value: 1 to 255 visible ASCII characters")

    def for_batch(self, body: BatchBody) -> CheckedOptions:
        """Return the options for one request. If it contains only some of the call's rows, it has its own
        Idempotency-Key."""
        if self.idempotency_key is None or body.is_whole:
            return self
        key = f"{self.idempotency_key}.{body.rows.start}.{len(body.rows)}"
        if not is_header_value(key):
            raise BadCall(
                "idempotency_key is too long for a call that needs several requests; use at most 200 characters"
            )
        return msgspec.structs.replace(self, idempotency_key=key)

    def query(self) -> list[tuple[str, str]]:
        """Return the options that are sent in the query string."""
        return [
            *([("entity", self.entity)] if self.entity is not None else []),
            *([] if self.cache else [("cache", "false")]),
        ]

    def headers(self) -> dict[str, str]:
        """Return the options that are sent as headers, except the Idempotency-Key."""
        values = {"x-request-id": self.request_id, "traceparent": self.traceparent}
        return {name: value for name, value in values.items() if value is not None}


class ServerAddress(msgspec.Struct, frozen=True):
    """The base URL of a server. `shown` is the same URL without credentials, for use in messages."""

    base: str
    shown: str
    is_local: bool

    @classmethod
    def parse(cls, url: str) -> ServerAddress:
        """Parse a base URL; raise BadCall if it is invalid."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        else:
            if parts.scheme in ("http", "https") and host and not (parts.query or parts.fragment):
                netloc = f"[{host}]" if ":" in host else host
                path = parts.path.rstrip("/")
                shown = f"{parts.scheme}://{netloc}{f':{port}' if port else ''}{path}"
                is_local = host == "localhost" or host == "::1" or host.startswith("127.")
                return cls(url.strip().rstrip("/"), shown, is_local)
        raise BadCall("invalid server URL; expected a URL such as http://127.0.0.1:8000 or https://example.com/api")


class ModelCalls:
    """Builds the calls that refer to a model. Caches each model's description with its ETag."""

    def __init__(self, new_key: Callable[[], str], *, retries: int) -> None:
        self._new_key = new_key
        self._retries = retries
        self._descriptions: dict[str, tuple[str, ServedModel]] = {}

    def predict(self, row: Row, model: str | None, options: CheckedOptions) -> ApiCall[PredictionReply]:
        """Return the call that fetches the prediction for one row."""
        if isinstance(row, Mapping) and row.keys() == {"rows"}:
            raise BadCall("a row cannot have 'rows' as its only column; use predict_many to send several rows")
        return ApiCall(self._predict(encode(row, "the row"), model, options), _read_prediction)

    def predict_many(
        self, rows: Rows, model: str | None, options: CheckedOptions, *, partial: bool
    ) -> Batches[ApiCall[list[PredictionReply | RowErrors]]]:
        """Return the calls that fetch the predictions for many rows, in order."""
        query = [("partial", "true")] if partial else []

        def build(batch: BatchBody) -> ApiCall[list[PredictionReply | RowErrors]]:
            request = self._predict(batch.body, model, options.for_batch(batch), *query)
            request = msgspec.structs.replace(request, rows=None if batch.is_whole else batch.rows)
            return ApiCall(request, lambda reply: _read_batch(reply, batch.rows.start))

        return Batches(rows, build)

    def model(self, name: str | None) -> ApiCall[ServedModel]:
        """Return the call that fetches a model's description. Status 304 means that the cached copy is current."""
        if name is None:
            return ApiCall(_get("/models/info"), _reader(ServedModel))
        known = self._descriptions.get(name)
        request = _get(f"/models/{_checked_name(name)}", {"if-none-match": known[0]} if known else {})

        def read(reply: HttpReply) -> ServedModel:
            if reply.status == 304 and known:
                return known[1]
            description = _decode(reply.body, ServedModel)
            if etag := reply.headers.get("etag"):
                self._descriptions[name] = etag, description
            return description

        return ApiCall(request, read)

    def _predict(self, body: bytes, model: str | None, options: CheckedOptions, *query: tuple[str, str]) -> HttpRequest:
        key = options.idempotency_key or (self._new_key() if self._retries else None)
        headers = {"content-type": JSON, **options.headers(), **({"idempotency-key": key} if key else {})}
        path = "/predict" if model is None else f"/models/{_checked_name(model)}/predict"
        query = (*query, *options.query(), NATIVE_FORM)
        return HttpRequest("POST", path, query=query, headers=headers, body=body, is_repeatable=key is not None)


def models() -> ApiCall[list[ServedModel]]:
    """Return the call that lists the models."""
    return ApiCall(_get("/models"), lambda reply: _decode(reply.body, ModelList).models)


def sample() -> ApiCall[dict[str, Any]]:
    """Return the call that fetches an example row for the default model."""
    return ApiCall(HttpRequest("GET", "/sample", query=(NATIVE_FORM,)), _reader(dict[str, Any]))


def reload() -> ApiCall[ReloadResult]:
    """Return the call that makes the server reload its models. The call is idempotent, so it can be retried."""
    request = HttpRequest("POST", "/models/reload", success_statuses=frozenset({200, 409, 503}))
    return ApiCall(request, _reader(ReloadResult))


def health() -> ApiCall[HealthReport]:
    """Return the call that fetches the health report. A degraded server may send the report with status 503."""
    return ApiCall(HttpRequest("GET", "/health", success_statuses=frozenset({200, 503})), _reader(HealthReport))


def ready() -> ApiCall[bool]:
    """Return the call that checks whether the server is ready. The call is never retried."""
    statuses = frozenset({200, 503})
    request = HttpRequest("GET", "/health/ready", success_statuses=statuses, is_repeatable=False)
    return ApiCall(request, lambda reply: _decode(reply.body, Readiness).ready)


def history_page(filters: Mapping[str, Any], limit: int, cursor: str | None) -> ApiCall[HistoryList]:
    """Return the call that fetches up to `limit` history entries, starting after the cursor."""
    query = [*_filter_query(filters), ("limit", str(limit))]
    query += [("cursor", cursor)] if cursor is not None else []
    return ApiCall(HttpRequest("GET", "/predictions", query=tuple(query)), _reader(HistoryList))


def history_entry(prediction_id: str) -> ApiCall[HistoryEntry]:
    """Return the call that fetches one history entry."""
    if not prediction_id:
        raise BadCall("the prediction id must not be empty")
    return ApiCall(_get(f"/predictions/{quote(prediction_id, safe='')}"), _reader(HistoryEntry))


def export(file: Download, form: Format, filters: Mapping[str, Any]) -> ApiCall[int]:
    """Return the call that downloads the history to a file."""
    query = (("format", form), *_filter_query(filters))
    return ApiCall(HttpRequest("GET", "/predictions/export", query=query, sink=file), lambda reply: file.size)


class Download:
    """A file that is written under a temporary name and renamed when it is complete."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._file: IO[bytes] | None = None
        self.size = 0

    def begin(self) -> None:
        """Open an empty temporary file next to the final file."""
        self.discard()
        try:
            self._file = self._part.open("wb")
        except OSError as error:
            raise self._write_error(error) from None
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        assert self._file is not None
        try:
            self._file.write(chunk)
        except OSError as error:
            raise self._write_error(error) from None
        self.size += len(chunk)

    def publish(self) -> None:
        """Flush the file to disk and rename it to its final name."""
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            raise self._write_error(error) from None
        self._file = None

    def discard(self) -> None:
        """Delete the temporary file unless it has been renamed."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _write_error(self, error: OSError) -> BadCall:
        return BadCall(f"cannot write {self._path}: {error.strerror}")


def _get(path: str, headers: Mapping[str, str] | None = None) -> HttpRequest:
    return HttpRequest("GET", path, headers=headers or {})


def _checked_name(model: str) -> str:
    if not is_model_name(model):
        raise BadCall(
            "invalid model name; expected NAME or NAME@VERSION, where NAME has 1 to 64 characters from a-z, 0-9, '.', "
            "'_' and '-', and VERSION is a number"
        )
    return model


def _filter_query(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    unknown = sorted(filters.keys() - set(FILTERS))
    if unknown:
        raise BadCall(f"unknown filter {', '.join(unknown)}; available filters: {', '.join(FILTERS)}")
    return [(name, _filter_text(value)) for name, value in filters.items() if value is not None]


def _filter_text(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise BadCall("a datetime must have a time zone, for example datetime(..., tzinfo=UTC)")
    if isinstance(value, date):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reader(kind: type[T]) -> Callable[[HttpReply], T]:
    return lambda reply: _decode(reply.body, kind)


def _decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadReply("unexpected response body; check that the URL belongs to a compatible Rowcast server") from None


def _read_prediction(reply: HttpReply) -> PredictionReply:
    prediction = _decode(reply.body, PredictionReply)
    return msgspec.structs.replace(prediction, request_id=reply.headers.get("x-request-id", ""))


def _read_batch(reply: HttpReply, first_row: int) -> list[PredictionReply | RowErrors]:
    request_id = reply.headers.get("x-request-id", "")
    items: list[PredictionReply | RowErrors] = []
    for raw in _decode(reply.body, BatchReply).predictions:
        if bytes(raw).startswith(b'{"errors"'):
            problems = _decode(raw, RowErrors).problems
            items.append(RowErrors(tuple(shifted(problem, first_row) for problem in problems)))
        else:
            items.append(msgspec.structs.replace(_decode(raw, PredictionReply), request_id=request_id))
    return items
