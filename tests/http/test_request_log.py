"""The request log and tracing: one line and one span for each request, without client data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rowcast.http.request_log import CLIENT_CLOSED, LoggedRequest, RequestLog
from rowcast.http.routes import ASGIApp
from rowcast.serving.live_models import LiveModel
from support import apps, logs, models
from support.fronts import Front

BODY = b'{"x0":1,"x1":2}'
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    return models.live(folder, "m", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


class MemoryTracer:
    """Collects started and finished spans."""

    traceparent = b"00-" + TRACE.encode() + b"-1111111111111111-01"

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.ended: list[LoggedRequest] = []

    def begin(self, method: str, traceparent: bytes, started: int) -> MemoryTracer:
        self.begun.append((method, traceparent.decode()))
        return self

    def end(self, logged: LoggedRequest) -> None:
        self.ended.append(logged)

    def stop(self) -> None:
        """Do nothing."""


def logged_app(model: LiveModel, tracer: MemoryTracer | None = None) -> ASGIApp:
    return RequestLog(Front(model).edge, access_log=True, tracer=tracer)


async def test_a_prediction_is_logged_with_its_model_and_row_count(model: LiveModel) -> None:
    with capture_logs() as lines:
        async with apps.client(logged_app(model)) as client:
            reply = await client.post("/predict", content=BODY, headers={"traceparent": PARENT})

    (line,) = lines
    assert line.pop("milliseconds") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": reply.headers["x-request-id"],
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "trace_id": TRACE,
        "model": "m",
        "version": 1,
        "rows": 1,
    }


async def test_the_log_contains_no_client_data(model: LiveModel) -> None:
    body, headers = b'{"x0":"%b"}' % logs.CANARY.encode(), {"x-api-key": logs.CANARY}
    with capture_logs() as lines:
        async with apps.client(logged_app(model)) as client:
            await client.post(f"/predict?entity={logs.CANARY}", content=body, headers=headers)
            await client.get(f"/{logs.CANARY}?{logs.CANARY}")

    assert [(line["route"], line["status"]) for line in lines] == [("/predict", 422), ("unmatched", 404)]
    assert logs.CANARY not in str(lines)


@pytest.mark.parametrize("sent", ["r1", "not valid", ""])
async def test_the_log_and_the_response_contain_the_same_request_id(model: LiveModel, sent: str) -> None:
    with capture_logs() as lines:
        async with apps.client(logged_app(model)) as client:
            reply = await client.post("/predict", content=BODY, headers={"x-request-id": sent})

    assert lines[0]["request_id"] == reply.headers["x-request-id"]
    assert (reply.headers["x-request-id"] == sent) is (sent == "r1")


async def test_a_client_disconnect_is_logged_with_status_499(model: LiveModel) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
    with capture_logs() as lines:
        await logged_app(model)({**scope, "client": ("127.0.0.1", 40000)}, receive, None)  # type: ignore[arg-type]

    assert [line["status"] for line in lines] == [CLIENT_CLOSED]


async def test_the_response_contains_the_ids_of_the_exported_span(model: LiveModel) -> None:
    tracer = MemoryTracer()
    async with apps.client(logged_app(model, tracer)) as client:
        traced = await client.post("/predict", content=BODY, headers={"traceparent": PARENT})
        untraced = await client.post("/predict", content=BODY)

    assert traced.headers.get_list("traceparent") == [tracer.traceparent.decode()]
    assert "traceparent" not in untraced.headers
    assert tracer.begun == [("POST", PARENT), ("POST", "")]
    assert [(span.route, span.status, span.model) for span in tracer.ended] == [("/predict", 200, "m")] * 2


async def test_the_duration_is_logged_in_milliseconds_and_predictions_only_with_rows() -> None:
    logged = LoggedRequest("r1", "GET", b"")
    with capture_logs() as lines:
        logged.write()
        logged.finish("/x", 204, 0.0123456)
        logged.use("m", 3, 2)
        logged.write()

    common = {"event": "request", "log_level": "info", "request_id": "r1", "method": "GET"}
    assert lines == [
        {**common, "route": "unmatched", "status": 499, "milliseconds": 0.0},
        {**common, "route": "/x", "status": 204, "milliseconds": 12.346, "model": "m", "version": 3, "rows": 2},
    ]


async def test_generated_request_ids_are_unique_and_numbered(model: LiveModel) -> None:
    with capture_logs() as lines:
        async with apps.client(logged_app(model)) as client:
            for _ in range(2):
                await client.get("/x")

    prefixes, numbers = zip(*[line["request_id"].split("-") for line in lines], strict=True)
    assert numbers == ("0", "1")
    assert len(set(prefixes)) == 1
    assert len(prefixes[0]) == 12


async def test_the_access_log_and_tracing_can_be_enabled_separately(model: LiveModel) -> None:
    tracer = MemoryTracer()
    with capture_logs() as lines:
        async with apps.client(RequestLog(Front(model).edge, access_log=False, tracer=tracer)) as client:
            await client.post("/predict", content=BODY)
        async with apps.client(RequestLog(Front(model).edge, access_log=True, tracer=None)) as client:
            traced = await client.post("/predict", content=BODY, headers={"traceparent": PARENT})

    assert [span.status for span in tracer.ended] == [200]
    assert [line["trace_id"] for line in lines] == [TRACE]
    assert traced.headers["traceparent"].split("-")[1] == TRACE
    assert traced.headers["traceparent"] != PARENT


async def test_a_span_starts_with_the_request_and_ends_even_if_the_app_fails(model: LiveModel) -> None:
    started: list[int] = []

    class TimingTracer(MemoryTracer):
        def begin(self, method: str, traceparent: bytes, started_at: int) -> MemoryTracer:
            started.append(started_at)
            return super().begin(method, traceparent, started_at)

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    tracer, before = TimingTracer(), time.time_ns()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with capture_logs() as lines, pytest.raises(ZeroDivisionError):
        await RequestLog(fail, access_log=True, tracer=tracer)(scope, None, None)  # type: ignore[arg-type]

    assert before <= started[0] <= time.time_ns()
    assert [span.status for span in tracer.ended] == [line["status"] for line in lines] == [499]


async def test_the_app_sees_the_log_entry_and_the_generated_request_id() -> None:
    seen: list[Any] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    log = RequestLog(note, access_log=False, tracer=None)
    lifespan = {"type": "lifespan"}
    sent = {"type": "http", "method": "GET", "headers": [(b"a", b"b"), (b"x-request-id", b"r1")], "state": {"own": 1}}
    for scope in (lifespan, sent, {**sent, "headers": [(b"a", b"b")]}):
        await log(scope, None, None)  # type: ignore[arg-type]

    assert seen[0] is lifespan
    assert [scope["state"]["own"] for scope in seen[1:]] == [1, 1]
    assert seen[1]["headers"] == sent["headers"]
    logged = seen[2]["state"]["logged_request"]
    assert seen[2]["headers"] == [(b"a", b"b"), (b"x-request-id", logged.request_id.encode())]
    assert sent["state"] == {"own": 1}
