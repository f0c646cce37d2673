"""Behavior that V1, V2 and MLflow have in common: predictions, history, errors and access rules."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BodyError, NoAnswer
from rowcast.http import problems
from rowcast.http.dialects.scoring import check_names, summary
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.schema import Column, Schema
from support import access, apps, models, v2
from support.waiting import eventually_async

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")
ROWS = 1000
JSON = {"content-type": "application/json"}
INFER, PREDICT = "/v2/models/loans/infer", "/v1/models/loans:predict"
ERRORS = {
    "/v2/models/nobody/infer": (404, "error"),
    "/v2/models/loans/versions/9/infer": (404, "error"),
    "/v2/nowhere": (405, "error"),
    "/v1/models/nobody:predict": (404, "error"),
    "/v1/models/loans/versions/9:predict": (404, "error"),
    "/v1/models/loans/labels/canary:predict": (404, "error"),
    "/v1/models/loans:explain": (501, "error"),
    "/invocations": (400, "error_code"),
    INFER: (400, "error"),
    PREDICT: (400, "error"),
}
COMPARED = ("prediction", "probability", "score", "probabilities", "warnings", "cached")


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def requests(rows: list[dict[str, Any]]) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Return the path, body and headers of a request with these rows, for each request layout of each dialect."""
    binary, headers = v2.as_binary(v2.columns(rows), parameters={"binary_data_output": True})
    lists = [list(row.values()) for row in rows]

    def body(document: Any) -> bytes:
        return json.dumps(document).encode()

    return {
        "v2 json": (INFER, v2.as_json(v2.columns(rows)), JSON),
        "v2 binary": (INFER, binary, headers),
        "v2 gzip": (INFER, gzip.compress(binary), {**headers, "content-encoding": "gzip"}),
        "v2 deflate": (INFER, zlib.compress(binary), {**headers, "content-encoding": "deflate"}),
        "mlflow split": ("/invocations", body({"dataframe_split": {"columns": list(rows[0]), "data": lists}}), JSON),
        "mlflow records": ("/invocations", body({"dataframe_records": rows}), JSON),
        "mlflow instances": ("/invocations", body({"instances": rows}), JSON),
        "mlflow inputs": ("/invocations", body({"inputs": v2.columns(rows)}), JSON),
        "mlflow csv": ("/invocations", as_csv(rows).encode(), {"content-type": "text/csv"}),
        "v1 instances": (PREDICT, body({"instances": rows}), JSON),
        "v1 lists": (PREDICT, body({"instances": lists}), JSON),
        "v1 inputs": (PREDICT, body({"inputs": v2.columns(rows)}), JSON),
    }


def labels(layout: str, reply: httpx.Response) -> list[Any]:
    if layout.startswith("v2"):
        return v2.outputs(reply.content, reply.headers)["prediction"]
    predictions: list[Any] = next(iter(reply.json().values()))
    return predictions


async def stored_entries(client: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    """Wait until the store has this many entries, then return the entries."""

    async def read_all() -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (
                await client.get("/predictions", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
            ).json()
            entries += page["predictions"]
            cursor = page["next"]
        return entries if len(entries) == count else []

    entries: list[dict[str, Any]] = await eventually_async(read_all, seconds=20)
    return entries


@pytest.mark.slow
async def test_predictions_and_history_are_the_same_in_every_dialect(home: Path) -> None:
    rows = models.loan_rows(ROWS)
    async with apps.serving(home=home) as client:
        columns = (await client.get("/models/loans")).json()["columns"]
        native = (await client.post("/predict", json={"rows": rows})).json()["predictions"]
        for layout, (path, body, headers) in requests(rows).items():
            request_id = layout.replace(" ", "-")
            reply = await client.post(path, content=body, headers={**headers, "x-request-id": request_id})

            assert reply.status_code == 200, (layout, reply.text[:500])
            assert labels(layout, reply) == [prediction["prediction"] for prediction in native], layout
        entries = await stored_entries(client, ROWS * (len(requests(rows)) + 1))

    schema = Schema(tuple(msgspec.convert(column, Column) for column in columns))
    encoder = RowEncoder(schema, own_plan(schema))
    for layout in requests(rows):
        own = [entry for entry in entries if entry["request_id"] == layout.replace(" ", "-")]
        by_row = {encoder.parse(entry["row"]).inputs: entry for entry in own}
        assert len(own) == ROWS
        assert {entry["source"] for entry in own} == {layout.split()[0]}
        for row, prediction in zip(rows, native, strict=True):
            recorded = by_row[encoder.parse(row).inputs]["prediction"]
            assert [recorded[name] for name in COMPARED] == [prediction[name] for name in COMPARED]


@pytest.mark.parametrize("path", ERRORS)
async def test_errors_use_the_format_of_the_dialect_unless_the_client_accepts_problem_details(
    client: httpx.AsyncClient, path: str
) -> None:
    status, key = ERRORS[path]

    reply = await client.post(path, json={})
    problem = await client.post(path, json={}, headers={"accept": "application/problem+json"})

    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert key in reply.json()
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["type"].startswith("urn:rowcast:error:")


async def test_every_dialect_enforces_scopes_and_quotas_and_supports_idempotency_keys(tmp_path: Path) -> None:
    home = tmp_path / "home"
    models.publish(
        FolderRegistry(home / "models"),
        "sum",
        models.sum_graph(2),
        models.number_columns(2),
        models.REGRESSION,
        "values",
    )
    access.add(home, "predicts", "predict", quota="10/3600s")
    access.add(home, "reads", "read")
    access.add(home, "boss", "admin", "predict", "read")
    body = {"instances": [[1.0, 2.0]] * 4}
    predicts, reads, boss = access.headers("predicts"), access.headers("reads"), access.headers("boss")
    async with apps.serving(home=home) as client:
        anonymous = await client.post("/v1/models/sum:predict", json=body)
        unscoped = await client.post("/invocations", json=body, headers=reads)
        admin = await client.post("/v2/repository/index", headers=predicts)
        index = await client.post("/v2/repository/index", headers=boss)
        charged = [await client.post(path, json=body, headers=predicts) for path in ["/invocations"] * 3]
        repeated = [
            await client.post(
                "/v2/models/sum/infer",
                content=v2.as_json({"x0": [1.0], "x1": [2.0]}, outputs=[{"name": "id"}, {"name": "prediction"}]),
                headers={**boss, **JSON, "idempotency-key": "k1"},
            )
            for _ in range(2)
        ]
        public = [await client.get(path) for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/ping")]

    assert (anonymous.status_code, unscoped.status_code, admin.status_code) == (401, 403, 403)
    assert list(anonymous.json()) == list(admin.json()) == ["error"]
    assert unscoped.json()["error_code"] == "PERMISSION_DENIED"
    assert index.json() == [{"name": "sum", "version": "1", "state": "READY", "reason": ""}]
    assert [reply.status_code for reply in charged] == [200, 200, 429]
    assert charged[2].json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert charged[2].headers["ratelimit-policy"]
    assert repeated[0].content == repeated[1].content
    assert [reply.headers["idempotency-replayed"] for reply in repeated] == ["false", "true"]
    assert [reply.status_code for reply in public] == [200] * 4


class CountingName(str):
    """A string that counts equality comparisons."""

    __slots__ = ()
    __hash__ = str.__hash__
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountingName.comparisons += 1
        return super().__eq__(other)


async def test_finding_a_duplicate_column_takes_linear_time() -> None:
    names = [CountingName(f"c{number}") for number in range(2000)]
    CountingName.comparisons = 0

    with pytest.raises(BodyError):
        check_names([*names, CountingName("c1999")])

    assert CountingName.comparisons <= len(names)


async def test_the_summary_lists_every_problem_with_its_row() -> None:
    assert summary(problems.problem(NoAnswer([2, 5]), "r1")) == (
        "row 2: the model has no valid output for this row; row 5: the model has no valid output for this row"
    )


@pytest.mark.parametrize("count", [20, 21])
async def test_every_layout_accepts_exactly_the_maximum_number_of_rows(home: Path, count: int) -> None:
    rows = models.loan_rows(count)
    layouts = {**requests(rows), "native": ("/predict", json.dumps({"rows": rows}).encode(), JSON)}
    answers = {}
    async with apps.serving(home=home, max_rows=20) as client:
        for layout, (path, body, headers) in layouts.items():
            reply = await client.post(path, content=body, headers={**headers, "accept": "application/problem+json"})
            answers[layout] = 200 if reply.status_code == 200 else reply.json()["type"]

    assert set(answers.values()) == ({200} if count == 20 else {"urn:rowcast:error:too-many-rows"}), answers


async def test_blocks_are_subject_to_quotas_and_deadlines(tmp_path: Path) -> None:
    home, tight = tmp_path / "home", {"x-request-timeout": "0.000000001"}
    models.publish(
        FolderRegistry(home / "models"),
        "sum",
        models.sum_graph(2),
        models.number_columns(2),
        models.REGRESSION,
        "values",
    )
    access.add(home, "predicts", "predict", quota="40/3600s")
    access.add(home, "boss", "admin", "predict", "read")
    body, headers = v2.as_binary({"x0": [1.5] * 16, "x1": [2.5] * 16})
    async with apps.serving(home=home, durability="store") as client:
        late = await client.post(
            "/v2/models/sum/infer", content=body, headers={**headers, **access.headers("boss"), **tight}
        )
        charged = [
            await client.post("/v2/models/sum/infer", content=body, headers={**headers, **access.headers("predicts")})
            for _ in range(3)
        ]
        stored = (await client.get("/predictions", params={"limit": 100}, headers=access.headers("boss"))).json()

    assert late.status_code == 504
    assert [reply.status_code for reply in charged] == [200, 200, 429]
    assert len(stored["predictions"]) == 32  # without waiting, because the replies waited for the store
