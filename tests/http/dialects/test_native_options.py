"""The native dialect and wire templates on an in-memory server: options, routes and partial replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from rowcast.access.quotas import parse_quota
from rowcast.errors import NoAnswer, RequestError
from rowcast.history.chain import decode_head
from rowcast.http.authentication import AccessRules
from rowcast.http.dialects.native import is_plain, read_options
from rowcast.http.routes import QueryOptions
from rowcast.serving.live_models import LiveModel
from support import models
from support.fronts import Front

WIRE = {"request": {"on_missing": 0, "on_unknown": "ignore"}, "reply": {"value": "$label"}}
HEADERS = {b"x-request-id": b"r1"}


@pytest.fixture
def native(tmp_path: Path) -> LiveModel:
    """A model that has no valid score for negative sums."""
    columns = models.number_columns(2)
    model = models.live(tmp_path, "m", models.sum_graph(2), columns, models.REGRESSION, "values")
    score = model.score

    def checked(rows: Any) -> Any:
        scores = score(rows)
        failed = [number for number, one in enumerate(scores) if one.prediction < 0]  # type: ignore[operator]
        if failed:
            raise NoAnswer(failed)
        return scores

    model.score = checked  # type: ignore[method-assign]
    return model


@pytest.fixture
def wired(tmp_path: Path) -> LiveModel:
    columns = models.number_columns(2)
    return models.live(tmp_path, "w", models.sum_graph(2), columns, models.REGRESSION, "values", WIRE)


@pytest.mark.parametrize(
    ("query", "options", "plain"),
    [
        (b"", QueryOptions(), True),
        (b"partial=true", QueryOptions(partial=True), False),
        (b"partial=false&cache=true&wire=true", QueryOptions(), True),
        (b"cache=false", QueryOptions(use_cache=False), True),
        (b"wire=false", QueryOptions(use_wire=False), False),
        (b"entity=a%20b", QueryOptions(entity="a b"), True),
        (b"entity=" + b"e" * 128, QueryOptions(entity="e" * 128), True),
    ],
)
def test_the_options_in_the_query_are_read(query: bytes, options: QueryOptions, *, plain: bool) -> None:
    assert read_options(query) == options
    assert is_plain(query) is plain


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            b"x" * 50 + b"=1",
            f"unknown option {'x' * 40!r}; known options: partial=true, cache=false, entity=…, wire=false",
        ),
        (b"partial=1", "option 'partial' must be true or false"),
        (b"cache=", "option 'cache' must be true or false"),
        (b"wire=True", "option 'wire' must be true or false"),
        (b"entity=", "option 'entity' must be 1 to 128 printable ASCII characters"),
        (b"entity=" + b"e" * 129, "option 'entity' must be 1 to 128 printable ASCII characters"),
        (b"entity=%0a", "option 'entity' must be 1 to 128 printable ASCII characters"),
        (b"partial", "the query string is malformed"),
        (b"\xff=1", "the query string is malformed"),
    ],
)
def test_an_invalid_option_is_rejected(query: bytes, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_options(query)

    assert (refused.value.slug, refused.value.message) == ("bad-option", message)
    assert not is_plain(query)


def test_every_name_of_a_model_has_two_routes(native: LiveModel, wired: LiveModel) -> None:
    front = Front(native, wired, default="m")
    named = "/models/{name}/predict"

    assert {
        path: (route.pattern, route.dialect, route.quick is not None) for path, route in front.native.routes.items()
    } == {
        "/predict": ("/predict", "native", True),
        "/predict/batch": ("/predict/batch", "native", False),
        **{f"/models/{name}/predict": (named, "native", True) for name in ("m", "m@1")},
        **{f"/models/{name}/predict": (named, "wire", True) for name in ("w", "w@1")},
        **{f"/models/{name}/predict/batch": (f"{named}/batch", "native", False) for name in ("m", "m@1")},
        **{f"/models/{name}/predict/batch": (f"{named}/batch", "wire", False) for name in ("w", "w@1")},
    }
    for route in front.native.routes.values():
        assert (route.method, route.scope, route.is_idempotent, route.is_public) == ("POST", "predict", True, False)
        assert route.read_options is read_options

    front.deployment.swap({"w": wired})
    front.native.refresh()
    assert front.native.routes.keys() == {
        *("/predict", "/predict/batch"),
        *(f"/models/{name}/predict{suffix}" for name in ("w", "w@1") for suffix in ("", "/batch")),
    }


ROWS = b'{"rows":[{"x0":1,"x1":1},{"x0":-3,"x1":1},{"x0":"a","x1":1},{"x0":2,"x1":2},{"x0":-9,"x1":1}]}'


async def test_a_partial_reply_has_an_error_in_place_of_each_row_without_a_prediction(native: LiveModel) -> None:
    rules = AccessRules(quota=parse_quota("6/60s"), hosts=frozenset("*"))
    front = Front(native, rules=rules)

    reply = await front.ask("/predict?partial=true", ROWS, HEADERS)

    body = msgspec.json.decode(reply.body)
    assert (reply.status, body["model"], body["version"]) == (200, "m", 1)
    assert [row.get("prediction") for row in body["predictions"]] == [2.0, None, None, 4.0, None]
    errors = [row["errors"][0] for row in body["predictions"] if "errors" in row]
    assert [(error["row"], error["code"]) for error in errors] == [
        (1, "no-answer"),
        (2, "wrong-type"),
        (4, "no-answer"),
    ]
    assert front.store.count() == 2
    assert dict(reply.headers)[b"ratelimit"].startswith(b'"default";r=1;')


async def test_the_error_for_a_batch_lists_the_rows_without_a_valid_output(native: LiveModel) -> None:
    front = Front(native)
    body = ROWS.replace(b'{"x0":"a","x1":1},', b"")

    reply = await front.ask("/predict", body, HEADERS)

    problem = msgspec.json.decode(reply.body)
    assert (reply.status, problem["type"]) == (422, "urn:rowcast:error:no-answer")
    assert [error["row"] for error in problem["errors"]] == [1, 3]
    assert problem["detail"] == "row 1: the model has no valid output for this row (and 1 more)"
    assert front.store.count() == 0


@pytest.mark.parametrize(
    ("path", "body", "source", "reply"),
    [
        ("/predict", b'{"x0":1,"x1":2}', "wire", {"value": 3.0}),
        ("/predict?wire=false", b'{"x0":1,"x1":2}', "native", None),
        ("/predict?wire=false", b'{"rows":[{"x0":1,"x1":2}]}', "native", None),
        ("/predict/batch?wire=false", b'{"rows":[{"x0":1,"x1":2}]}', "native", None),
    ],
)
async def test_the_history_says_whether_the_wire_template_was_used(
    wired: LiveModel, path: str, body: bytes, source: str, reply: Any
) -> None:
    front = Front(wired)

    answer = await front.ask(path, body, HEADERS)

    assert answer.status == 200, answer.body
    assert [decode_head(entry.head).source for entry in front.store.chain("w")] == [source]
    if reply is not None:
        assert msgspec.json.decode(answer.body) == reply


async def test_the_batch_path_accepts_only_a_list_of_rows(native: LiveModel) -> None:
    front = Front(native)

    single = await front.ask("/predict/batch", b'{"x0":1,"x1":2}', HEADERS)
    batch = await front.ask("/predict/batch", b'{"rows":[{"x0":1,"x1":2}]}', HEADERS)

    assert (single.status, batch.status) == (400, 200)


@pytest.mark.parametrize(
    ("body", "filled", "ignored"),
    [(b'{"x0":1,"x7":2,"x8":3}', 1, 2), (b'{"x0":1}', 1, 0), (b'{"x0":1,"x1":1,"x9":0}', 0, 1)],
)
async def test_a_repaired_request_is_reported_without_client_data(
    wired: LiveModel, body: bytes, filled: int, ignored: int
) -> None:
    with capture_logs() as lines:
        quick = await Front(wired).ask_quickly("/predict", body, HEADERS)
        general = await Front(wired).ask("/predict", body, HEADERS)

    line = {
        "event": "a wire template changed a request",
        "log_level": "warning",
        "model": "w",
        "request_id": "r1",
        "filled": filled,
        "ignored": ignored,
    }
    assert lines == [line, line]
    assert quick is not None
    for reply in (quick, general):
        assert dict(reply.headers)[b"x-wire-warning"] == b"filled=%d, ignored=%d" % (filled, ignored)
