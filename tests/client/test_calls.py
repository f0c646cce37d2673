"""How the client builds requests, decodes replies and saves downloads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rowcast.client import calls, errors
from rowcast.client.calls import CheckedOptions, Download, ModelCalls, ServerAddress
from rowcast.client.exchange import HttpReply

PREDICTION = b'{"id":"i","model":"loans","version":1,"prediction":true,"probability":0.75,"added_later":1}'


def test_a_prediction_request_includes_its_options() -> None:
    options = CheckedOptions(entity="e", cache=False, request_id="r", traceparent="t")
    request = ModelCalls(lambda: "key", retries=1).predict({"a": 1}, "loans@2", options).request

    assert (request.method, request.path, request.body) == ("POST", "/models/loans@2/predict", b'{"a":1}')
    assert dict(request.query) == {"entity": "e", "cache": "false", "wire": "false"}
    assert request.headers == {
        "content-type": "application/json",
        "x-request-id": "r",
        "traceparent": "t",
        "idempotency-key": "key",
    }
    assert request.is_repeatable


def test_a_prediction_request_without_retries_has_no_idempotency_key_and_is_not_repeatable() -> None:
    request = ModelCalls(lambda: "key", retries=0).predict({"a": 1}, None, CheckedOptions()).request

    assert request.path == "/predict"
    assert "idempotency-key" not in request.headers
    assert not request.is_repeatable


def test_raw_json_is_sent_unchanged() -> None:
    request = ModelCalls(str, retries=0).predict(msgspec.Raw(b'{ "a": 1.0 }'), None, CheckedOptions()).request

    assert request.body == b'{ "a": 1.0 }'


def test_a_reply_with_unknown_fields_is_decoded() -> None:
    call = ModelCalls(str, retries=0).predict({"a": 1}, None, CheckedOptions())

    prediction = call.read(HttpReply(200, {"x-request-id": "r"}, PREDICTION))

    assert (prediction.prediction, prediction.probability, prediction.score) == (True, 0.75, None)
    assert (prediction.warnings, prediction.cached, prediction.request_id) == ((), False, "r")


def test_a_partial_reply_contains_predictions_and_rejected_rows() -> None:
    rejected = b'{"errors":[{"column":"a","code":"missing","message":"is required","row":1}]}'
    body = b'{"model":"loans","version":1,"predictions":[%s,%s]}' % (PREDICTION, rejected)
    call = ModelCalls(str, retries=0).predict_many([{"a": 1}, {}], None, CheckedOptions(), partial=True).next()
    assert call is not None

    first, second = call.read(HttpReply(200, {"x-request-id": "r"}, body))

    assert isinstance(first, calls.PredictionReply)
    assert isinstance(second, calls.RowErrors)
    assert first.request_id == "r"
    assert [(problem.column, problem.code, problem.row) for problem in second.problems] == [("a", "missing", 1)]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"ready":"yes"}'])
def test_an_unexpected_body_raises_a_bad_reply_error(body: bytes) -> None:
    with pytest.raises(errors.BadReply):
        calls.ready().read(HttpReply(200, {}, body))


def test_a_model_description_is_cached_until_it_changes() -> None:
    body = (
        b'{"name":"loans","version":1,"digest":"d","default":true,"task":"binary","target":"t","metric":"m","score":1}'
    )
    model_calls = ModelCalls(str, retries=0)
    first = model_calls.model("loans").read(HttpReply(200, {"etag": '"1"'}, body))

    second = model_calls.model("loans")

    assert second.request.headers == {"if-none-match": '"1"'}
    assert second.read(HttpReply(304, {})) is first


@pytest.mark.parametrize(
    ("url", "base", "shown", "is_local"),
    [
        (" http://127.0.0.1:8000/ ", "http://127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("http://localhost", "http://localhost", "http://localhost", True),
        ("http://[::1]:9/api/", "http://[::1]:9/api", "http://[::1]:9/api", True),
        ("https://me:pass@example.com/api", "https://me:pass@example.com/api", "https://example.com/api", False),
    ],
)
def test_a_server_address_is_shown_without_credentials(url: str, base: str, shown: str, is_local: bool) -> None:
    assert ServerAddress.parse(url) == ServerAddress(base, shown, is_local)


def test_a_download_gets_its_final_name_only_when_it_is_published(tmp_path: Path) -> None:
    file = Download(tmp_path / "h.jsonl")
    file.begin()
    file.write(b"first attempt")
    file.begin()
    file.write(b"second")
    assert not (tmp_path / "h.jsonl").exists()
    file.publish()
    file.discard()

    assert (tmp_path / "h.jsonl").read_bytes() == b"second"
    assert file.size == 6
    assert [path.name for path in tmp_path.iterdir()] == ["h.jsonl"]


def test_a_discarded_download_leaves_no_file(tmp_path: Path) -> None:
    file = Download(tmp_path / "h.jsonl")
    file.begin()
    file.write(b"partial")
    file.discard()

    assert list(tmp_path.iterdir()) == []
