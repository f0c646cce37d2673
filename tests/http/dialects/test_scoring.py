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
from rowcast.errors import BodyError, InvalidRows, NoAnswer
from rowcast.http import problems
from rowcast.http.dialects import mlflow
from rowcast.http.dialects.scoring import check_keys, check_names, only_key, read_object, summary, write_error
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.schema import Column, Schema
from support import access, apps, models, v2
from support.dialects import DialectFront
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
    """Return the path, body and headers of a request with these rows, for every request layout in every dialect."""
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


def row_problem(count: int) -> problems.Problem:
    return problems.problem(NoAnswer(list(range(count))), "r1")


async def test_the_summary_lists_at_most_twenty_problems() -> None:
    texts = [f"row {row}: the model has no valid output for this row" for row in range(21)]

    assert summary(row_problem(20)) == "; ".join(texts[:20])
    assert summary(row_problem(21)) == "; ".join([*texts[:20], "and 1 more"])
    assert summary(problems.problem(NoAnswer([0], alone=True), "r1")) == "the model has no valid output for this row"


async def test_v1_and_v2_send_400_instead_of_422() -> None:
    assert write_error(row_problem(1)) == (
        400,
        b'{"error":"row 0: the model has no valid output for this row"}',
    )
    assert write_error(problems.problem(BodyError("no", slug="body-too-large"), "r1")) == (413, b'{"error":"no"}')


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BAD_REQUEST"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "RESOURCE_DOES_NOT_EXIST"),
        (405, "BAD_REQUEST"),
        (409, "RESOURCE_CONFLICT"),
        (429, "REQUEST_LIMIT_EXCEEDED"),
        (499, "BAD_REQUEST"),
        (500, "INTERNAL_ERROR"),
        (501, "INTERNAL_ERROR"),
        (503, "TEMPORARILY_UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_mlflow_has_an_error_code_for_every_status(status: int, code: str) -> None:
    sent, body = mlflow.write_error(problems.Problem("", "", status, "no", ""))

    assert (sent, json.loads(body)) == (status, {"error_code": code, "message": "no"})


async def test_mlflow_sends_400_instead_of_422() -> None:
    assert mlflow.write_error(row_problem(2))[0] == 400


@pytest.mark.parametrize(
    ("body", "slug", "words"),
    [
        (b"[]", "not-an-object", "the body must be a JSON object"),
        (b'{"a":', "malformed-body", ""),
        (b'{"a":NaN,"b":Infinity}', "malformed-body", "Infinity is not a JSON number"),
        (b'{"a":NaN,"b":-Infinity}', "malformed-body", "-Infinity is not a JSON number"),
        (b'{"a":NaN,"b":', "malformed-body", "the body is not valid JSON: "),
        (b'{"a":NaN,"b":"\\ud800"}', "malformed-body", "the body is not valid JSON: "),
        (b'{"a":NaN,"b":' + b"[" * 200_000, "too-deep", "the JSON is nested too deeply"),
        (b"NaN", "not-an-object", "the body must be a JSON object"),
    ],
)
async def test_the_error_for_a_body_that_is_not_an_object_says_why(body: bytes, slug: str, words: str) -> None:
    with pytest.raises(BodyError) as refused:
        read_object(body)

    assert refused.value.slug == slug
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"a":1}', {"a": 1}),
        (b'{"a":NaN,"b":[NaN]}', {"a": None, "b": [None]}),
        (b'{"a":{"a":{"a":":"}},"b":[{"a":1},{"a":2}],"c":[1,{"a":1}],"d":[[{"a":1}]]}', None),
    ],
)
async def test_an_object_with_unique_keys_is_read(body: bytes, document: Any) -> None:
    assert read_object(body) == (document or json.loads(body))


@pytest.mark.parametrize(
    "body", [b'{"a":1,"a":2}', b'{"b":{"a":":","a":2}}', b'{"b":[{"a":1,"a":2}]}', b'{"a":NaN,"b":[[{"a":1,"a":2}]]}']
)
async def test_an_object_with_a_duplicate_key_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidRows) as refused:
        read_object(body)

    assert [(problem.column, problem.code) for problem in refused.value.problems] == [("a", "duplicate-key")]


async def test_a_request_must_have_exactly_one_layout() -> None:
    assert only_key({"b": 1, "c": 2}, ("a", "b")) == "b"
    for document, words in (({}, "got none"), ({"a": 1, "b": 2}, "got a, b")):
        with pytest.raises(BodyError) as refused:
            only_key(document, ("a", "b"))
        assert refused.value.message == f"send exactly one of a, b; {words}"


async def test_the_error_for_an_unknown_key_quotes_at_most_80_characters() -> None:
    check_keys({"a": 1}, ("a", "b"))
    with pytest.raises(BodyError) as refused:
        check_keys({"a": 1, "k" * 100: 2}, ("a", "b"))

    assert refused.value.message == f"unknown key {'k' * 80!r}; known keys: a, b"


async def test_the_error_for_a_duplicate_column_quotes_at_most_80_characters() -> None:
    check_names(["a", "b"])
    with pytest.raises(BodyError) as refused:
        check_names(["n" * 100, "a", "n" * 100])

    assert refused.value.message == f"column {'n' * 80!r} occurs twice"


TYPED = Schema(
    (
        Column(name="amount", kind="number", example=1.5, missing=True),
        Column(name="count", kind="integer", example=1),
        Column(name="paid", kind="boolean", example=True),
        Column(name="when", kind="datetime", example="2026-01-31T09:30:00Z", origin=1_600_000_000_000_000),
    )
)


async def test_csv_cells_are_stored_as_a_native_client_would_send_them(tmp_path: Path) -> None:
    graph = models.sum_graph(sum(spec.shape[0] for spec in own_plan(TYPED)))
    front = DialectFront(models.live(tmp_path, "m", graph, TYPED, models.REGRESSION, "values"))
    body = "count,when,amount,paid\n7,2026-01-31T09:30:00Z,2,true\n8,2026-01-31T09:30:00Z,1.50,false\n"
    async with apps.client(front.edge) as client:
        reply = await client.post("/invocations", content=body, headers={"content-type": "text/csv"})

    assert reply.status_code == 200, reply.text
    when = "2026-01-31T09:30:00Z"
    assert [json.loads(entry.row or b"") for entry in front.store.chain("w")] == [
        {"count": 7, "when": when, "amount": 2, "paid": True},
        {"count": 8, "when": when, "amount": 1.5, "paid": False},
    ]


async def test_a_model_with_one_column_accepts_single_values(tmp_path: Path) -> None:
    columns = models.number_columns(1)
    front = DialectFront(models.live(tmp_path, "m", models.sum_graph(1), columns, models.REGRESSION, "values"))
    async with apps.client(front.edge) as client:
        replies = [
            (await client.post("/v1/models/m:predict", json={"instances": instances})).json()
            for instances in ([1, 2], [[1], [2]], [{"x0": 1}, {"x0": 2}])
        ]

    assert replies == [{"predictions": [1.0, 2.0]}] * 3
