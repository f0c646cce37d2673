"""The quick path returns the same responses as the general path, or passes the request to the general path."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from structlog.testing import capture_logs

from rowcast.access.quotas import parse_quota
from rowcast.events import RequestAnswered, RequestFailed
from rowcast.history.chain import decode_head
from rowcast.http.authentication import AccessRules
from rowcast.serving.live_models import LiveModel
from support import models
from support.access import SECRET, new_key
from support.fronts import Front, Reply

BODY = b'{"x0":1,"x1":2}'
KEYS = (
    new_key(),
    new_key("2", "rk_2_reader", scopes=("read",)),
    new_key("3", "rk_3_other", models=("other",)),
    new_key("4", "rk_4_limited", quota=parse_quota("1/60s")),
)
LOCAL = ("127.0.0.1", 40000)
OPEN: dict[bytes, bytes] = {b"x-request-id": b"r1"}
WIRE = {"request": {"on_missing": 0, "on_unknown": "ignore"}, "reply": {"value": "$label"}}


class Models(NamedTuple):
    """The same model without and with a wire template."""

    native: LiveModel
    wire: LiveModel


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder, schema, graph = (
        tmp_path_factory.mktemp("models"),
        models.number_columns(2, low=-1e6, high=1e6),
        models.sum_graph(2),
    )
    return Models(
        models.live(folder, "native", graph, schema, models.REGRESSION, "values"),
        models.live(folder, "wire", graph, schema, models.REGRESSION, "values", WIRE),
    )


def keyed(secret: str) -> dict[bytes, bytes]:
    return {**OPEN, b"x-api-key": secret.encode()}


def comparable(reply: Reply | None) -> tuple[Any, ...]:
    """Return a reply without its prediction ID."""
    assert reply is not None
    return reply.status, reply.headers, re.sub(rb'"id":"[0-9a-f-]{36}"', b'"id":""', reply.body)


async def both(build: Callable[[], Front], path: str, body: bytes, headers: dict[bytes, bytes]) -> Reply:
    """Check that both paths produce the same reply, events and entries; return the reply."""
    quick, general = build(), build()

    reply = await quick.ask_quickly(path, body, headers)

    assert comparable(reply) == comparable(await general.ask(path, body, headers))
    # The quick path sends the response before it announces the recorded rows.
    quick_events, general_events = (
        sorted(front.events, key=lambda event: type(event).__name__) for front in (quick, general)
    )
    assert [type(event) for event in quick_events] == [type(event) for event in general_events]
    for mine, other in zip(quick_events, general_events, strict=True):
        if isinstance(mine, RequestAnswered) and isinstance(other, RequestAnswered):
            assert (mine.route, mine.method, mine.status) == (other.route, other.method, other.status)
    entries = [[decode_head(entry.head) for entry in front.store.chain("w")] for front in (quick, general)]
    blank = [[msgspec.structs.replace(entry, at=0, reply=b"") for entry in each] for each in entries]
    assert blank[0] == blank[1]
    assert reply is not None
    return reply


@pytest.mark.parametrize("path", ["/predict", "/models/native/predict", "/models/native@1/predict"])
async def test_both_paths_return_the_same_prediction(live: Models, path: str) -> None:
    reply = await both(lambda: Front(live.native), path, BODY, OPEN)

    assert (reply.status, msgspec.json.decode(reply.body)["prediction"]) == (200, 3)
    assert (b"x-request-id", b"r1") in reply.headers


async def test_the_entity_of_a_request_is_recorded_on_both_paths(live: Models) -> None:
    front = Front(live.native)

    await both(lambda: Front(live.native), "/predict?entity=a%201", BODY, OPEN)
    await front.ask_quickly("/predict?entity=a%201", BODY, OPEN)

    assert [decode_head(entry.head).entity for entry in front.store.chain("w")] == ["a 1"]


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b'{"x0":"a","x1":2,"x9":1}', "invalid-row"),
        (b'{"x0":1}', "invalid-row"),
        (b"{", "malformed-body"),
        (b"", "empty-body"),
        (b"[1]", "not-an-object"),
        (b"\xff", "malformed-body"),
    ],
)
async def test_an_invalid_row_gets_the_same_problem_on_both_paths(live: Models, body: bytes, slug: str) -> None:
    reply = await both(lambda: Front(live.native), "/predict", body, OPEN)

    assert msgspec.json.decode(reply.body)["type"] == f"urn:rowcast:error:{slug}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OPEN, 401),
        (keyed("rk_9_unknown"), 401),
        (keyed("rk_2_reader"), 403),
        (keyed("rk_3_other"), 403),
        (keyed(SECRET), 200),
        ({**OPEN, b"authorization": b"Bearer " + SECRET.encode()}, 200),
    ],
)
async def test_keys_and_scopes_are_enforced_on_both_paths(
    live: Models, headers: dict[bytes, bytes], status: int
) -> None:
    reply = await both(lambda: Front(live.native, keys=KEYS), "/predict", BODY, headers)

    assert reply.status == status


@pytest.mark.parametrize(
    "name", [b"idempotency-key", b"content-encoding", b"x-request-timeout", b"traceparent", b"origin"]
)
async def test_a_request_with_a_header_that_only_the_general_path_supports_takes_that_path(
    live: Models, name: bytes
) -> None:
    assert await Front(live.native).ask_quickly("/predict", BODY, {**OPEN, name: b"1"}) is None


async def test_both_paths_charge_a_request_once_and_report_the_quota(live: Models) -> None:
    quick, general = Front(live.native, keys=KEYS), Front(live.native, keys=KEYS)

    for status in (200, 429):
        reply = await quick.ask_quickly("/predict", BODY, keyed("rk_4_limited"))
        assert reply is not None
        assert reply.status == status
        assert b'"default";r=0;t=6' in dict(reply.headers)[b"ratelimit"]
        assert comparable(reply) == comparable(await general.ask("/predict", BODY, keyed("rk_4_limited")))


async def test_a_request_that_the_quick_path_passes_to_the_general_path_is_charged_once(live: Models) -> None:
    front = Front(live.native, rules=AccessRules(quota=parse_quota("3/60s"), hosts=frozenset("*")))

    assert await front.ask_quickly("/predict", b'{"rows":[]}', OPEN) is None
    reply = await front.ask("/predict", b'{"rows":[{"x0":1,"x1":2},{"x0":1,"x1":2}]}', OPEN)

    assert dict(reply.headers)[b"ratelimit"].startswith(b'"default";r=1;')


async def test_an_overloaded_server_rejects_requests_on_both_paths(live: Models) -> None:
    reply = await both(lambda: Front(live.native, max_waiting=0), "/predict", BODY, OPEN)

    assert (reply.status, dict(reply.headers)[b"retry-after"]) == (503, b"1")
    assert b":overloaded" in reply.body


async def test_a_server_with_a_full_disk_rejects_requests_on_both_paths(live: Models) -> None:
    def build() -> Front:
        front = Front(live.native)
        front.batcher.refuse("the history disk is full")
        return front

    reply = await both(build, "/predict", BODY, OPEN)

    assert (reply.status, b":disk-low" in reply.body) == (503, True)


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        (BODY, None),
        (b'{"x0":1,"x7":2}', b"filled=1, ignored=1"),
        (b'{"x0":1e7,"x1":2}', b"filled=0, ignored=0, unusual=1"),
    ],
    ids=["as expected", "repaired", "outside the range"],
)
async def test_a_wire_template_produces_the_same_response_on_both_paths(
    live: Models, body: bytes, warning: bytes | None
) -> None:
    with capture_logs() as lines:
        reply = await both(lambda: Front(live.wire), "/predict", body, OPEN)

    assert reply.status == 200
    assert dict(reply.headers).get(b"x-wire-warning") == warning
    changes = [line for line in lines if line["log_level"] == "warning"]
    assert len(changes) == len(lines) == (2 if b"x7" in body else 0)  # one for each path


async def test_a_request_that_waited_too_long_gets_an_overloaded_error(live: Models) -> None:
    front = Front(live.native)
    front.quick_path._wait_seconds = -1

    reply = await front.ask_quickly("/predict", BODY, OPEN)

    assert reply is not None
    assert (reply.status, b":overloaded" in reply.body) == (503, True)
    assert [event.slug for event in front.events if isinstance(event, RequestFailed)] == ["overloaded"]


@pytest.mark.parametrize("query", ["?partial=true", "?wire=false", "?unknown=1", "?cache=maybe"])
async def test_requests_with_special_or_invalid_options_take_the_general_path(live: Models, query: str) -> None:
    assert await Front(live.native).ask_quickly(f"/predict{query}", BODY, OPEN) is None
    assert await Front(live.wire).ask_quickly(f"/predict{query}", BODY, OPEN) is None


async def test_every_request_takes_the_general_path_if_the_cache_is_enabled(live: Models) -> None:
    assert await Front(live.native, has_cache=True).ask_quickly("/predict", BODY, OPEN) is None


@pytest.mark.parametrize("path", ["/predict/batch", "/models/other/predict", "/health/live"])
async def test_requests_that_the_quick_path_does_not_support_take_the_general_path(live: Models, path: str) -> None:
    assert await Front(live.native).ask_quickly(path, BODY, OPEN) is None


async def test_a_request_for_a_slow_model_takes_the_quick_path(tmp_path: Path) -> None:
    slow = models.live(tmp_path, "slow", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    slow.is_slow = True

    reply = await Front(slow).ask_quickly("/predict", BODY, OPEN)

    assert reply is not None
    assert reply.status == 200


async def test_a_row_is_still_scored_if_its_model_is_unloaded_before_the_body_arrives(live: Models) -> None:
    front = Front(live.native)
    route = front.quick_path.find("/models/native/predict", b"POST", OPEN)
    assert route is not None
    responses: list[bytes] = []

    front.deployment.swap({"wire": live.wire})
    front.native.refresh()
    answered = front.quick_path.answer(route, dict(OPEN), b"", BODY, LOCAL, lambda head, body: responses.append(body))

    assert answered
    assert (await front.ask("/predict", BODY, OPEN)).body == b'{"value":3.0}'
    assert b'"model":"native"' in responses[0]
    assert await front.ask_quickly("/models/native/predict", BODY, OPEN) is None


async def test_requests_to_an_unloaded_default_model_get_404_and_other_models_remain_available(live: Models) -> None:
    front = Front(live.native, live.wire, default="native")

    front.deployment.swap({"wire": live.wire})
    front.native.refresh()

    assert await front.ask_quickly("/predict", BODY, OPEN) is None
    assert (await front.ask("/predict", BODY, OPEN)).status == 404
    reply = await front.ask_quickly("/models/wire/predict", BODY, OPEN)
    assert reply is not None
    assert reply.status == 200


@pytest.mark.parametrize(
    ("path", "method", "content_type"),
    [
        ("/predict", b"GET", b"application/json"),
        ("/predict", b"POST", b"application/json; charset=utf-8"),
        ("/predict/", b"POST", b"application/json"),
    ],
)
def test_only_plain_post_requests_have_a_quick_route(
    live: Models, path: str, method: bytes, content_type: bytes
) -> None:
    front = Front(live.native)

    assert front.quick_path.find("/predict", b"POST", {b"content-type": b"application/json"}) is not None
    assert front.quick_path.find(path, method, {b"content-type": content_type}) is None


@pytest.mark.parametrize(
    ("path", "is_found"),
    [("/api/predict", True), ("/predict", True), ("/api/api/predict", False), ("/x/predict", False)],
)
def test_a_path_can_start_with_the_root_path_at_most_once(live: Models, path: str, *, is_found: bool) -> None:
    front = Front(live.native)
    front.quick_path._root_path = "/api"

    assert (front.quick_path.find(path, b"POST", OPEN) is not None) is is_found


async def test_a_body_of_the_maximum_size_takes_the_quick_path(live: Models) -> None:
    front = Front(live.native)
    front.quick_path._max_body = len(BODY)

    assert await front.ask_quickly("/predict", BODY, OPEN) is not None
    assert await front.ask_quickly("/predict", BODY + b" ", OPEN) is None


async def test_a_failure_to_write_a_response_sends_an_error_and_never_raises(live: Models) -> None:
    front = Front(live.native)
    route = front.quick_path.find("/predict", b"POST", OPEN)
    assert route is not None
    heads: list[bytes] = []

    def broken(head: bytes, body: bytes) -> None:
        heads.append(head)
        raise ZeroDivisionError

    with capture_logs() as lines:
        assert front.quick_path.answer(route, dict(OPEN), b"", BODY, LOCAL, broken, is_alone=True)

    assert [head.split(b"\r\n")[0] for head in heads] == [b"HTTP/1.1 200 OK", b"HTTP/1.1 500 Internal Server Error"]
    assert [line.get("request_id") for line in lines] == ["r1", "r1"]


async def test_a_lone_request_is_answered_before_the_call_returns(live: Models) -> None:
    front = Front(live.native)
    route = front.quick_path.find("/predict", b"POST", OPEN)
    assert route is not None
    replies: list[tuple[bytes, bytes]] = []

    def answer(*, is_alone: bool) -> int:
        front.quick_path.answer(
            route, dict(OPEN), b"", BODY, LOCAL, lambda head, body: replies.append((head, body)), is_alone=is_alone
        )
        return len(replies)

    assert [answer(is_alone=True), answer(is_alone=False)] == [1, 1]
    head, body = replies[0]
    assert head == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n"
        b"cache-control: no-store\r\ncontent-length: %d\r\nx-request-id: r1\r\n" % len(body)
    )
    (answered,) = [event for event in front.events if isinstance(event, RequestAnswered)]
    assert (answered.route, answered.method, answered.status) == ("/predict", "POST", 200)
    assert 0 < answered.seconds < 60


async def test_requests_with_a_shared_quota_take_the_general_path(live: Models) -> None:
    front = Front(live.native, keys=KEYS)
    front.quick_path._admit(keyed("rk_4_limited"), LOCAL).meter.is_immediate = False  # type: ignore[union-attr]

    assert await front.ask_quickly("/predict", BODY, keyed("rk_4_limited")) is None
    assert front.store.count() == 0
