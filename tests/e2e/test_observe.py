"""Metrics, spans and logs from a running server, with working and failing receivers."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rowcast.adapters.files.registry import FolderRegistry
from support import access, logs, models, servers
from support.commands import rowcast
from support.servers import Server, free_port
from support.waiting import eventually

ROW = {"x0": 2.0, "x1": 3.5}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
PREDICTIONS = 'rowcast_predictions_total{label="",model="sum",version="1"}'
LOCAL = {"NO_PROXY": "127.0.0.1"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a model that adds two numbers."""
    home = tmp_path / "home"
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return home


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """The URL of a real Pushgateway."""
    port = free_port()
    program = shutil.which("prometheus-pushgateway") or "pushgateway"
    command = [program, f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: is_ready(address), 20)
            yield address
        finally:
            process.terminate()


def is_ready(address: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{address}/-/ready", trust_env=False).status_code == 200
    return False


def lines(server: Server) -> list[dict[str, Any]]:
    """Return the parsed lines of the server's log."""
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def samples(text: str) -> dict[str, float]:
    """Return the value of each sample, keyed by name and labels; omit the labels that a Pushgateway adds."""
    text = re.sub(r'(instance|job)="[^"]*",?', "", text).replace("{}", "").replace(",}", "}")
    parts = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in parts}


def ready_processes(server: Server) -> float:
    text = httpx.get(f"{server.address}/metrics", trust_env=False).text
    return samples(text)['rowcast_server_processes{state="ready"}']


def ask(server: Server, times: int) -> None:
    """Send requests on separate connections, so that every server process receives requests."""
    for _ in range(times):
        assert httpx.post(f"{server.address}/predict", json=ROW, trust_env=False, timeout=10).status_code == 200


@pytest.mark.parametrize("processes", [1, 2])
def test_promtool_accepts_the_metrics_and_their_old_names_have_the_same_values(home: Path, processes: int) -> None:
    settings = {"ROWCAST_METRICS_ALIASES": "1"}
    with servers.running(home, "--workers", str(processes), settings=settings) as server:
        eventually(lambda: ready_processes(server) == processes, 20)
        ask(server, 8)
        httpx.post(f"{server.address}/predict", json={"x0": 1}, trust_env=False)
        httpx.post(f"{server.address}/predict", json={"rows": [ROW, {"x0": 4, "x1": 5}]}, trust_env=False)
        text = httpx.get(f"{server.address}/metrics", trust_env=False).text
    promtool = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    metrics = samples(text)

    assert (promtool.returncode, promtool.stdout + promtool.stderr) == (0, "")
    assert metrics["pred_requests_total"] == metrics["pred_request_latency_seconds_count"] == 10
    assert metrics["latest_prediction"] == 9
    assert metrics["ml_api_predictions_total"] == metrics[PREDICTIONS] == 10
    assert metrics["ml_api_requests_total"] == metrics["ml_api_request_duration_seconds_count"] >= 10
    assert 0 < metrics["ml_api_model_load_seconds"] < 20
    assert metrics['rowcast_problems_total{slug="invalid-row"}'] == 1
    assert metrics['rowcast_server_processes{state="ready"}'] == processes
    assert metrics["rowcast_queue_rows"] == 0


def test_old_metric_names_are_absent_by_default(home: Path) -> None:
    with servers.running(home) as server:
        ask(server, 1)
        text = httpx.get(f"{server.address}/metrics", trust_env=False).text

    assert {name.partition("_")[0] for name in samples(text)} == {"rowcast"}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_real_pushgateway_receives_the_metrics_of_all_server_processes_until_shutdown(
    home: Path, gateway: str, processes: int
) -> None:
    settings = LOCAL | {"PROM_PUSHGATEWAY": gateway, "PROM_PUSHJOB": f"job{processes}", "ROWCAST_PUSH_SECONDS": "0.2"}

    def pushed() -> float:
        groups = httpx.get(f"{gateway}/metrics", trust_env=False).text.splitlines()
        ours = "\n".join(line for line in groups if f'job="job{processes}"' in line)
        return samples(ours).get(PREDICTIONS, 0.0)

    with servers.running(home, "--workers", str(processes), settings=settings) as server:
        ask(server, 6)
        eventually(lambda: pushed() == 6, 10)
        doctor = json.loads(rowcast("doctor", "--json", "--home", home, cwd=home, settings=settings).stdout)
        (push,) = (part for part in doctor["parts"] if part["part"] == "push")
        assert push["ok"]
    only_at_shutdown = settings | {"ROWCAST_PUSH_SECONDS": "600"}
    with servers.running(home, "--workers", str(processes), settings=only_at_shutdown) as server:
        ask(server, 9)
    assert pushed() == 9


@pytest.mark.parametrize("hangs", [False, True], ids=["down", "hangs"])
def test_a_failing_gateway_does_not_delay_requests_and_is_reported_once_in_the_log(home: Path, hangs: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if hangs:
            listener.listen(50)  # accepts connections but never responds
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics/job/x"
        settings = LOCAL | {"ROWCAST_PUSH_GATEWAY": url, "ROWCAST_PUSH_SECONDS": "0.1"}
        with servers.running(home, settings=settings) as server:
            began = time.monotonic()
            ask(server, 20)
            assert time.monotonic() - began < 3
            eventually(lambda: '"gateway"' in server.log.read_text(), 15)
            ask(server, 20)
            began = time.monotonic()
            assert server.stop(40) == 0
            assert time.monotonic() - began < 15
        assert [line["level"] for line in lines(server) if "gateway" in line] == ["warning"]


def test_a_recovered_gateway_receives_metrics_again(home: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = LOCAL | {"ROWCAST_PUSH_GATEWAY": f"http://127.0.0.1:{port}", "ROWCAST_PUSH_SECONDS": "0.1"}
    settings |= {"ROWCAST_PUSH_USERNAME": "me", "ROWCAST_PUSH_PASSWORD": "sesame-open-up"}
    with servers.running(home, settings=settings) as server:
        eventually(lambda: server.log.read_text().count('"gateway"') == 1, 15)
        with receiver(port) as requests:
            eventually(lambda: server.log.read_text().count('"gateway"') == 2, 15)
    path, headers, body = requests[0]

    assert [line["level"] for line in lines(server) if "gateway" in line][:2] == ["warning", "info"]

    assert path == "/metrics/job/rowcast"
    assert headers["authorization"] == "Basic bWU6c2VzYW1lLW9wZW4tdXA="
    assert b"rowcast_server_processes" in body
    assert "sesame" not in server.log.read_text()


Requests = list[tuple[str, dict[str, str], bytes]]


@contextlib.contextmanager
def receiver(port: int = 0) -> Iterator[Requests]:
    """Run an HTTP server that accepts every POST request; yield the received requests."""
    requests: Requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Do nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as peer:
        thread = threading.Thread(target=peer.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield requests
        finally:
            peer.shutdown()
            thread.join()


def spans(requests: Requests) -> list[Any]:
    """Return all spans that the collector received."""
    received = []
    for path, _, body in requests:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert resource.resource.attributes[0].value.string_value == "rowcast"
            received += [span for scope in resource.scope_spans for span in scope.spans]
    return received


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_collector_receives_one_span_for_each_sampled_request(home: Path, processes: int) -> None:
    port = free_port()
    settings = LOCAL | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    with receiver(port) as requests:
        with servers.running(home, "--workers", str(processes), settings=settings) as server, server.client() as client:
            client.post("/predict?entity=canary-person", json=ROW)
            traced = client.post(
                "/predict", json={"rows": [ROW, ROW]}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}
            )
            client.get("/predictions/no-such-id")
            client.post("/predict", json=ROW, headers={"traceparent": f"00-{'1' * 32}-{PARENT}-00"})  # not sampled
        received = [span for span in spans(requests) if not attributes(span)["http.route"].startswith("/health")]
    plain, child, cold = sorted(received, key=lambda span: span.start_time_unix_nano)

    assert plain.name == "POST /predict"
    assert attributes(plain) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "rowcast.model": "sum",
        "rowcast.version": 1,
        "rowcast.rows": 1,
    }
    assert (child.trace_id.hex(), child.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(child)["rowcast.rows"] == 2
    assert traced.headers["traceparent"] == f"00-{TRACE}-{child.span_id.hex()}-01"
    assert attributes(cold)["http.route"] == "/predictions/{prediction_id}"
    assert attributes(cold)["http.response.status_code"] == 404
    assert "canary" not in str(received)


def test_no_spans_are_sent_if_the_sampling_ratio_is_zero(home: Path) -> None:
    port = free_port()
    settings = LOCAL | {"ROWCAST_OTEL_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces", "ROWCAST_OTEL_RATIO": "0"}
    with receiver(port) as requests, servers.running(home, settings=settings) as server:
        ask(server, 5)
    assert requests == []


def test_an_unreachable_collector_does_not_delay_requests_and_is_reported_once_in_the_log(home: Path) -> None:
    settings = LOCAL | {"ROWCAST_OTEL_ENDPOINT": f"http://127.0.0.1:{free_port()}", "ROWCAST_MAX_CONNECTIONS": "100"}
    with servers.running(home, settings=settings) as server:
        ask(server, 5)
        eventually(lambda: '"warning"' in server.log.read_text(), 20)
        ask(server, 5)
        began = time.monotonic()
        assert server.stop(30) == 0
        assert time.monotonic() - began < 12
    (warning,) = (line for line in lines(server) if line["level"] == "warning")
    assert "spans" in warning["event"]


@pytest.mark.parametrize("processes", [1, 2])
def test_logs_never_contain_request_data(home: Path, processes: int) -> None:
    access.add(home, "teller", "predict", "read")
    row = {"x0": logs.CANARY_NUMBER, "x1": 1.5}
    settings = {"ROWCAST_ACCESS_LOG": "1", "ROWCAST_LOG_LEVEL": "debug", "ROWCAST_CACHE": "1"}
    replies: list[httpx.Response] = []
    with servers.running(home, "--workers", str(processes), settings=settings) as server:
        with server.client(headers=access.headers("teller")) as client:
            bodies = (row, {"rows": [row, row]}, {"x0": logs.CANARY}, {"x0": row}, {logs.CANARY: 1}, {"rows": [{}]})
            queries = ("", f"?entity={logs.CANARY}", f"?{logs.CANARY}=1")
            key = {"idempotency-key": logs.CANARY}
            replies += [client.post(f"/predict{query}", json=body, headers=key) for body in bodies for query in queries]
            replies.append(client.post("/predict", content=f'{{"x0": "{logs.CANARY}'))
            replies.append(client.post(f"/models/{logs.CANARY}/predict", json=row))
            replies.append(client.get(f"/predictions?entity={logs.CANARY}"))
            trace = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            replies.append(client.get(f"/predictions/{logs.CANARY}", headers=trace))
        with server.client(headers={"authorization": f"Bearer {logs.CANARY}"}) as stranger:
            replies.append(stranger.post("/predict", json=row))
        logged = lines(server)
    requests = [line for line in logged if line["event"] == "request"]

    assert {reply.status_code for reply in replies} >= {200, 400, 401, 404, 422}
    assert len(requests) >= len(replies)
    assert [line for line in server.log.read_text().splitlines() if logs.leaks(line)] == []
    assert {line["request_id"] for line in requests} >= {reply.headers["x-request-id"] for reply in replies}
    assert [line["route"] for line in requests if line.get("trace_id") == TRACE] == ["/predictions/{prediction_id}"]


def test_requests_are_not_logged_by_default(home: Path) -> None:
    with servers.running(home) as server:
        ask(server, 3)
    assert [line for line in lines(server) if line["event"] == "request"] == []


def test_warnings_exceptions_and_library_messages_are_logged_as_json_lines(tmp_path: Path) -> None:
    code = """
import asyncio, logging, threading, warnings
from rowcast import settings
from rowcast.app import logs as app_logs
app_logs.configure_logging(settings.load(log_format="json"))
logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=ValueError("of uvicorn"))
logging.getLogger("httpx").info("HTTP Request: POST http://secret")
warnings.warn("be careful")
async def forgets():
    asyncio.get_running_loop().call_exception_handler({"message": "of asyncio", "exception": OSError("late")})
asyncio.run(forgets())
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
raise RuntimeError("at the end")
"""
    finished = subprocess.run(
        [*servers.PYTHON, "-c", code],
        cwd=tmp_path,
        env=servers.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    logged = [json.loads(line) for line in finished.stderr.splitlines()]

    assert finished.returncode == 1
    assert [line["level"] for line in logged] == ["error", "warning", "error", "critical", "critical"]
    assert logged[0]["exception"][0]["exc_type"] == "ValueError"
    assert "be careful" in logged[1]["event"]
    assert logged[2]["event"] == "of asyncio"
    assert [line["exception"][0]["exc_type"] for line in logged[3:]] == ["ZeroDivisionError", "RuntimeError"]
    assert all(line["timestamp"].endswith("Z") for line in logged)
