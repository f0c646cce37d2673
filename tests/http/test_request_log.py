"""The request log and tracing: one line and one span for each request, without client data."""

from __future__ import annotations

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
