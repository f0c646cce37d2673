"""Many rows are split into requests that a server accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pytest

from rowcast.client import batches
from rowcast.client.batches import BatchBody, Batches, rows_of
from rowcast.client.calls import CheckedOptions
from rowcast.client.errors import BadCall, ErrorReply, ServerUnavailable

TOO_MANY = ErrorReply(422, "too-many-rows", "Too many rows")
TOO_LARGE = ErrorReply(413, "http", "The server returned an error")


def rows(count: int) -> list[dict[str, int]]:
    return [{"a": number} for number in range(count)]


def sent(parts: Batches[BatchBody], *, max_rows: int = 1_000_000, max_bytes: int = 1_000_000) -> list[BatchBody]:
    """Return the requests that a server with these limits accepts."""
    accepted = []
    while (part := parts.next()) is not None:
        if len(part.rows) > max_rows:
            parts.split(TOO_MANY)
        elif len(part.body) > max_bytes:
            parts.split(TOO_LARGE)
        else:
            accepted.append(part)
    return accepted


def received(parts: list[BatchBody]) -> list[Any]:
    return [row for part in parts for row in msgspec.json.decode(part.body)["rows"]]


@pytest.mark.parametrize(("max_rows", "max_bytes"), [(1000, 1000), (7, 1000), (1, 1000), (1000, 100), (5, 30)])
def test_every_row_is_sent_once_and_in_order(max_rows: int, max_bytes: int) -> None:
    parts = sent(Batches(rows(50), lambda part: part), max_rows=max_rows, max_bytes=max_bytes)

    assert received(parts) == rows(50)
    assert [number for part in parts for number in part.rows] == list(range(50))
    assert [part.is_whole for part in parts] == [len(parts) == 1] * len(parts)


def test_requests_are_as_large_as_the_default_limits_of_a_server_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_ROWS", 4)
    assert [len(part.rows) for part in sent(Batches(rows(9), lambda part: part))] == [4, 4, 1]
    assert [part.is_whole for part in sent(Batches(rows(4), lambda part: part))] == [True]

    monkeypatch.setattr(batches, "MAX_BYTES", len(b'{"rows":[{"a":0},{"a":1},{"a":2}]}'))
    assert [len(part.rows) for part in sent(Batches(rows(7), lambda part: part))] == [3, 3, 1]

    monkeypatch.setattr(batches, "MAX_ROWS", 100)
    monkeypatch.setattr(batches, "MAX_BYTES", len(b'{"rows":[' + b'{"a":0},' * 20 + b"]}") - 1)
    assert [len(part.rows) for part in sent(Batches([{"a": 0}] * 50, lambda part: part))] == [20, 20, 10]


def test_rows_are_read_only_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_ROWS", 2)
    read: list[int] = []

    def numbers() -> Iterator[dict[str, int]]:
        for number in range(100):
            read.append(number)
            yield {"a": number}

    parts = Batches(numbers(), lambda part: part)
    parts.next()

    assert read == [0, 1, 2]


def test_a_request_that_is_too_large_is_halved() -> None:
    by_rows = sent(Batches(rows(1000), lambda part: part), max_rows=10)
    by_bytes = sent(Batches(rows(1000), lambda part: part), max_bytes=100)

    assert {len(part.rows) for part in by_rows[:-1]} == {7}
    assert 50 < max(len(part.body) for part in by_bytes) <= 90


def test_json_text_is_sent_unchanged_and_an_invalid_row_is_named() -> None:
    raw = msgspec.Raw(b'{ "a": 1.0 }')

    [part] = sent(Batches([raw, {"a": 2}], lambda part: part))
    with pytest.raises(BadCall, match="row 1 "):
        sent(Batches([raw, {"a": object()}], lambda part: part))
    assert part.body == b'{"rows":[{ "a": 1.0 },{"a":2}]}'


@pytest.mark.parametrize("data", [{"a": 1}, '{"a":1}', b'{"a":1}', msgspec.Raw(b'{"a":1}')])
def test_a_single_row_is_rejected(data: Any) -> None:
    with pytest.raises(BadCall, match="use `predict`"):
        rows_of(data)


@pytest.mark.parametrize("error", [ServerUnavailable(503, "overloaded", "Overloaded"), ErrorReply(422, "no-rows", "")])
def test_other_errors_are_raised(error: ErrorReply) -> None:
    parts = Batches(rows(2), lambda part: part)
    parts.next()

    with pytest.raises(ErrorReply) as raised:
        parts.split(error)
    assert raised.value is error


def test_a_single_row_that_is_too_large_raises_the_error() -> None:
    with pytest.raises(ErrorReply) as raised:
        sent(Batches(rows(2), lambda part: part), max_bytes=10)
    assert raised.value is TOO_LARGE


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_the_rows_of_a_frame_have_its_column_names(frame: Any) -> None:
    data = frame({"a": [1, 2], "b": ["x", None]})

    assert received(sent(Batches(data, lambda part: part))) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


def test_the_column_names_of_a_frame_are_sent_as_text_and_must_be_unique() -> None:
    assert list(rows_of(pd.DataFrame([[1, 2]]))) == [{"0": 1, "1": 2}]
    with pytest.raises(BadCall):
        rows_of(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_each_of_several_requests_has_its_own_idempotency_key() -> None:
    options = CheckedOptions(idempotency_key="mine")
    keys = [
        options.for_batch(BatchBody(b"", rows, is_whole=whole)).idempotency_key
        for rows, whole in [(range(5), True), (range(5), False), (range(5, 9), False)]
    ]

    assert keys == ["mine", "mine.0.5", "mine.5.4"]
    with pytest.raises(BadCall, match="200 characters"):
        CheckedOptions(idempotency_key="k" * 255).for_batch(BatchBody(b"", range(5), is_whole=False))
