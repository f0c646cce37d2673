"""The contract of the public synchronous and asynchronous clients, tested against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app import server as server_app
from rowcast.client import AsyncClient, Client, RowErrors, errors
from support import access, apps, clients, models, servers
from support.waiting import eventually

SUM = models.number_columns(2)
ROW = {"x0": 1.5, "x1": 2.0}
SETTINGS = {"ROWCAST_CACHE": "true", "ROWCAST_MAX_ROWS": "80", "ROWCAST_MAX_BODY_BYTES": "4096"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Iterator[servers.Server]:
    home = models.with_models(tmp_path_factory.mktemp("client") / "home", loan_registry)
    models.publish(FolderRegistry(home / "models"), "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    access.add(home, "boss", "predict", "read", "admin")
    for name in ("few", "Client", "BlockingAsyncClient"):
        access.add(home, name, "predict", quota="3/3600s")
    with servers.running(home, "--default-model", "sum", settings=SETTINGS) as running:
        yield running


@pytest.fixture(params=sorted(clients.KINDS))
def kind(request: pytest.FixtureRequest) -> Any:
    return clients.KINDS[request.param]


@pytest.fixture
def client(kind: Any, server: servers.Server) -> Iterator[Any]:
    with kind(server.address, access.secret("boss")) as connected:
        yield connected


def stored(client: Any, count: int, **filters: Any) -> list[Any]:
    """Wait for at least `count` matching entries and return them."""
    return eventually(lambda: entries if len(entries := list(client.history(page=2, **filters))) >= count else None)


def test_predict_returns_the_prediction_from_the_server(client: Any) -> None:
    row = models.loan_rows(1)[0]
    prediction = client.predict(row, "loans", request_id="mine-1", cache=False)

    assert (prediction.model, prediction.version, prediction.cached, prediction.request_id) == (
        "loans",
        1,
        False,
        "mine-1",
    )
    assert prediction.prediction in ("Approved", "Rejected")
    assert prediction.probability == prediction.probabilities[prediction.prediction]
    assert client.prediction(prediction.id).row == row
    assert client.prediction(prediction.id).request_id == "mine-1"


def test_a_regression_prediction_has_no_probabilities(client: Any) -> None:
    prediction = client.predict(ROW)

    assert (prediction.prediction, prediction.probability, prediction.score, prediction.probabilities) == (
        3.5,
        None,
        None,
        None,
    )


def test_a_prediction_includes_its_warnings(client: Any) -> None:
    prediction = client.predict({**models.loan_rows(1)[0], "education": "college"}, "loans")

    assert [(warning.column, warning.code) for warning in prediction.warnings] == [("education", "unseen-category")]


def test_numpy_numbers_are_sent_as_json_numbers_and_nan_as_null(client: Any) -> None:
    assert client.predict({"x0": np.float32(1.5), "x1": np.int64(2)}).prediction == 3.5
    with pytest.raises(errors.RowsRejected) as rejected:
        client.predict({"x0": float("nan"), "x1": 1.0})
    assert rejected.value.problems[0].code == "missing"


def test_raw_json_is_recorded_byte_for_byte(client: Any, server: servers.Server) -> None:
    raw = b'{ "x0": 1.50, "x1": 2e0 }'
    prediction = client.predict(msgspec.Raw(raw))

    with server.client(headers=access.headers("boss")) as plain:
        assert raw in plain.get(f"/predictions/{prediction.id}").content


def test_predict_many_preserves_the_order_of_the_rows(client: Any) -> None:
    predictions = client.predict_many([{"x0": number, "x1": 0.5} for number in range(50)], "sum", request_id="batch-1")

    assert [prediction.prediction for prediction in predictions] == [number + 0.5 for number in range(50)]
    assert {prediction.request_id for prediction in predictions} == {"batch-1"}


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
def test_a_frame_is_split_into_requests_that_the_server_accepts(client: Any, kind: Any, frame: Any) -> None:
    data = frame({"x0": [number / 7 for number in range(500)], "x1": list(range(500))})
    name = f"{kind.__name__}-{frame.__module__}"
    predictions, again = [client.predict_many(data, "sum", entity=name, idempotency_key=name) for _ in range(2)]

    assert [prediction.prediction for prediction in predictions] == pytest.approx([n / 7 + n for n in range(500)])
    assert [prediction.id for prediction in predictions] == [prediction.id for prediction in again]
    assert client.predict_many(data.head(0)) == []


def test_the_problems_in_a_split_frame_have_the_row_numbers_of_the_whole_frame(client: Any) -> None:
    data = pl.DataFrame({"x0": [None if number in (3, 170) else 1.0 for number in range(200)], "x1": 2.0})
    with pytest.raises(errors.RowsRejected, match="in the request with rows 0 to 49: row 3 x0") as rejected:
        client.predict_many(data)
    with pytest.raises(errors.RowsRejected, match="in the request with rows 150 to 199: row 170 x0"):
        client.predict_many(data.with_columns(x0=pl.when(pl.row_index() == 3).then(1.0).otherwise("x0")))
    predictions = client.predict_many(data, partial=True)

    assert [problem.row for problem in rejected.value.problems] == [3]
    bad = {row: each.problems[0].row for row, each in enumerate(predictions) if isinstance(each, RowErrors)}
    assert bad == {3: 3, 170: 170}


def test_rows_from_an_iterator_are_split(client: Any) -> None:
    predictions = client.predict_many({"x0": number, "x1": 0} for number in range(100))

    assert [prediction.prediction for prediction in predictions] == list(range(100))


def test_a_single_row_that_is_too_large_is_rejected(client: Any) -> None:
    with pytest.raises(errors.ErrorReply) as rejected:
        client.predict_many([ROW, {**ROW, "x2": "x" * 5000}, ROW])

    assert rejected.value.status == 413
    assert "with rows 1 to 1 (413" in str(rejected.value)


def test_a_batch_with_an_invalid_row_fails_unless_partial_is_set(client: Any) -> None:
    rows = [ROW, {"x0": "secret-word"}, ROW]
    with pytest.raises(errors.RowsRejected) as rejected:
        client.predict_many(rows)
    first, bad, last = client.predict_many(rows, partial=True)

    assert {(problem.row, problem.column, problem.code) for problem in rejected.value.problems} == {
        (1, "x0", "wrong-type"),
        (1, "x1", "missing"),
    }
    assert rejected.value.by_column.keys() == {"x0", "x1"}
    assert "row 1 x0 (wrong-type), row 1 x1 (missing)" in str(rejected.value)
    assert (first.prediction, last.prediction) == (3.5, 3.5)
    assert isinstance(bad, RowErrors)
    assert {problem.column for problem in bad.problems} == {"x0", "x1"}


def test_the_error_for_a_row_without_a_finite_score_does_not_name_a_column(client: Any) -> None:
    with pytest.raises(errors.RowsRejected) as rejected:
        client.predict_many([ROW, {"x0": 3e38, "x1": 3e38}])

    assert rejected.value.slug == "no-answer"
    assert ": row 1 (no-answer) (" in str(rejected.value)


def test_requests_with_the_same_idempotency_key_get_the_same_reply_and_are_recorded_once(
    client: Any, kind: Any
) -> None:
    name = f"same-{kind.__name__}"
    first, again = [client.predict(ROW, entity=name, idempotency_key=name) for _ in range(2)]
    other = client.predict(ROW, entity=name)

    assert first.id == again.id != other.id
    assert [entry.id for entry in stored(client, 2, entity=name)] == [other.id, first.id]
    with pytest.raises(errors.IdempotencyConflict) as rejected:
        client.predict({"x0": 0, "x1": 0}, entity=name, idempotency_key=name)
    assert (rejected.value.status, rejected.value.slug) == (422, "repeat-differs")


def test_the_cache_can_be_bypassed(client: Any, kind: Any) -> None:
    row = {"x0": 77.25, "x1": len(kind.__name__)}

    assert [client.predict(row, cache=cache).cached for cache in (True, True, False)] == [False, True, False]


def test_an_unchanged_model_description_is_not_sent_again(client: Any, kind: Any, server: servers.Server) -> None:
    seen: list[int] = []
    transport = _Counting(seen) if kind is clients.Client else _CountingAsync(seen)
    with kind(server.address, access.secret("boss"), transport=transport) as counting:
        first, again = counting.model("loans"), counting.model("loans")

    assert [model.name for model in client.models()] == ["loans", "sum"]
    assert first == again
    assert seen == [200, 304]
    assert (first.task, first.target, first.positive) == ("binary", "loan_status", "Approved")
    assert first.schema["properties"].keys() == models.loan_rows(1)[0].keys()
    assert client.model().name == "sum"
    assert client.predict(ROW, "sum@1").version == 1
    assert client.predict(client.sample()).model == "sum"


class _Counting(httpx.HTTPTransport):
    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self._seen = seen

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = super().handle_request(request)
        self._seen.append(reply.status_code)
        return reply


class _CountingAsync(httpx.AsyncHTTPTransport):
    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self._seen = seen

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await super().handle_async_request(request)
        self._seen.append(reply.status_code)
        return reply


def test_health_and_reload_report_the_state_of_every_server_process(client: Any) -> None:
    health, reloaded = client.health(), client.reload()

    assert (health.status, health.ready, health.checks["history"]) == ("ok", True, "ok")
    assert health.models == ("loans@1", "sum@1")
    assert client.ready() is True
    assert reloaded.status == "ok"
    assert [process.state for process in reloaded.processes] == ["ready"]


def test_history_iterates_over_the_entries_on_all_pages(client: Any, kind: Any) -> None:
    name = f"walk-{kind.__name__}"
    ids = [client.predict({"x0": number, "x1": 0}, entity=name).id for number in range(7)]
    entries = stored(client, 7, entity=name)
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    assert [entry.id for entry in entries] == ids[::-1]
    assert [entry.row["x0"] for entry in entries] == [6, 5, 4, 3, 2, 1, 0]
    assert abs((entries[0].when - datetime.now(UTC)).total_seconds()) < 60
    assert len(list(client.history(entity=name, model="sum", version=1, until=tomorrow))) == 7
    assert list(client.history(entity=name, since=tomorrow)) == []


def test_export_writes_a_complete_file_or_no_file(client: Any, kind: Any, tmp_path: Path) -> None:
    name = f"file-{kind.__name__}"
    ids = [client.predict({"x0": number, "x1": 0}, entity=name).id for number in range(3)]
    stored(client, 3, entity=name)
    size = client.export(tmp_path / "h.jsonl", entity=name)
    client.export(tmp_path / "h.csv", "csv", entity=name)

    lines = (tmp_path / "h.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids[::-1]
    assert size == (tmp_path / "h.jsonl").stat().st_size
    assert len((tmp_path / "h.csv").read_text().splitlines()) == 4
    with pytest.raises(errors.ErrorReply) as failed:
        client.export(tmp_path / "no.jsonl", since="yesterday")
    assert failed.value.slug == "bad-option"
    with pytest.raises(errors.BadCall):
        client.export(tmp_path / "no" / "h.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.csv", "h.jsonl"]


def test_each_kind_of_failure_raises_a_specific_error_class(client: Any, kind: Any, server: servers.Server) -> None:
    with pytest.raises(errors.ResourceNotFound) as missing:
        client.predict(ROW, "none")
    with pytest.raises(errors.ResourceNotFound):
        client.prediction("01890a5d-ac96-774b-8bce-b302099a8057")
    with kind(server.address, "rk_wrong_key") as unauthorized, pytest.raises(errors.AccessDenied) as unknown:
        unauthorized.predict(ROW)
    with kind(server.address, access.secret("few")) as limited, pytest.raises(errors.AccessDenied) as forbidden:
        next(iter(limited.history()))
    with pytest.raises(errors.ErrorReply) as bad:
        client.predict(ROW, entity="é")

    assert (missing.value.status, missing.value.slug) == (404, "model-not-found")
    assert missing.value.request_id in str(missing.value)
    assert (unknown.value.status, forbidden.value.status) == (401, 403)
    assert (bad.value.status, bad.value.slug) == (400, "bad-option")


def test_the_client_does_not_wait_for_quota_if_the_wait_would_exceed_its_timeout(
    kind: Any, server: servers.Server
) -> None:
    with kind(server.address, access.secret(kind.__name__), timeout=5) as limited:
        with pytest.raises(errors.QuotaExceeded) as never:
            limited.predict_many([ROW] * 4)
        with pytest.raises(errors.QuotaExceeded) as later:
            [limited.predict(ROW) for _ in range(4)]

    assert never.value.retry_after is None
    assert (later.value.retry_after or 0) > 5


def test_a_timeout_raises_an_error(client: Any) -> None:
    with pytest.raises((errors.DeadlineExceeded, errors.Unreachable)):
        client.predict(ROW, timeout=0.000_001)


def test_the_error_for_an_unreachable_server_does_not_contain_the_password(kind: Any) -> None:
    with kind("http://me:hunter2@127.0.0.1:9/api", "rk_secret_key", retries=1) as unconnected:
        with pytest.raises(errors.Unreachable) as failed:
            unconnected.predict(ROW)
        shown = f"{failed.value} {failed.value!r} {unconnected!r}"

    assert "http://127.0.0.1:9/api: connection refused" in shown
    assert failed.value.sent is False
    assert "hunter2" not in shown
    assert "rk_secret" not in shown


def test_no_error_message_contains_a_value_or_an_api_key(client: Any) -> None:
    for row in ({"x0": "top-secret", "x1": 1}, {"x0": 1e300, "x1": 1}, {**ROW, "x2": "top-secret"}):
        with pytest.raises(errors.RowsRejected) as rejected:
            client.predict(row)
        shown = f"{rejected.value} {rejected.value!r}".replace(
            rejected.value.request_id, "ID"
        )  # a request ID can contain the digits 300
        assert "top-secret" not in shown
        assert "300" not in shown
        assert access.secret("boss") not in shown


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.predict({"rows": [ROW]}),
        lambda client: client.predict({"x0": object()}),
        lambda client: client.predict_many([ROW, {"x0": object()}]),
        lambda client: client.predict_many(ROW),
        lambda client: client.predict_many("rows"),
        lambda client: client.predict_many(pd.DataFrame([[1, 2]], columns=["x0", "x0"])),
        lambda client: client.predict(ROW, "sum@champion"),
        lambda client: client.predict(ROW, "../sum"),
        lambda client: client.predict(ROW, idempotency_key="a b"),
        lambda client: client.predict(ROW, request_id="a b"),
        lambda client: client.prediction(""),
        lambda client: list(client.history(colour="red")),
        lambda client: list(client.history(since=datetime(2026, 1, 1))),  # noqa: DTZ001 - the test passes a naive datetime
    ],
)
def test_a_call_with_invalid_arguments_sends_no_request(client: Any, call: Any) -> None:
    with pytest.raises(errors.BadCall):
        call(client)


@pytest.mark.parametrize("url", ["", "loans", "ftp://host", "http://", "http://h:x", "http://h/?a=1", "http://[::1"])
def test_an_invalid_url_is_rejected(kind: Any, url: str) -> None:
    with pytest.raises(errors.BadCall):
        kind(url)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("inf")}, {"retries": -1}, {"api_key": "a\nb"}])
def test_invalid_client_options_are_rejected(kind: Any, options: Any) -> None:
    with pytest.raises(errors.BadCall):
        kind("http://127.0.0.1:9", **options)


def test_the_url_can_have_a_path_prefix(kind: Any, server: servers.Server) -> None:
    prefixed = servers.running(server.home, "--root-path", "/api", "--default-model", "sum", name="prefixed")
    with prefixed as running, kind(f"{running.address.removesuffix('/api')}/api/", access.secret("boss")) as below:
        assert below.predict(ROW, "sum").prediction == 3.5
        assert below.model("sum").name == "sum"


def test_threads_can_share_a_client(server: servers.Server) -> None:
    with Client(server.address, access.secret("boss")) as shared, ThreadPoolExecutor(8) as threads:
        rows = [{"x0": number, "x1": 0} for number in range(80)]
        predictions = list(threads.map(shared.predict, rows))

    assert [prediction.prediction for prediction in predictions] == list(range(80))


async def test_the_client_can_call_an_app_in_the_same_process_without_a_socket(
    server: servers.Server, tmp_path: Path
) -> None:
    models.publish(FolderRegistry(tmp_path / "models"), "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    app = server_app.build_server(settings.load(home=tmp_path, root_path="/api")).app
    transport = httpx.ASGITransport(app, root_path="/api")
    async with apps.lifespan(app), AsyncClient("http://localhost/api", transport=transport) as client:
        prediction = await client.predict(ROW, "sum")

        assert prediction.prediction == 3.5
        assert (await client.prediction(prediction.id)).row == ROW
        with pytest.raises(errors.ResourceNotFound):
            await client.model("none")
