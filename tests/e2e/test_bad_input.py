"""Invalid and unusual requests, sent to a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from support.models import loan_rows
from support.waiting import eventually

ROW = loan_rows(1)[0]
MISSING = object()
DEEP = 100_000
JSON = {"content-type": "application/json"}


def row(**changes: Any) -> dict[str, Any]:
    """Return a valid row with some cells changed or added; cells set to `MISSING` are removed."""
    return {name: cell for name, cell in {**ROW, **changes}.items() if cell is not MISSING}


def raw(**tokens: str) -> bytes:
    """Return a valid row as JSON, with some cells replaced by raw JSON."""
    cells = {name: json.dumps(cell) for name, cell in ROW.items()} | tokens
    return b"{%s}" % ",".join(f'"{name}":{token}' for name, token in cells.items()).encode()


def rows(*items: Any) -> dict[str, Any]:
    return {"rows": list(items)}


class Case(NamedTuple):
    """An invalid request and its expected problem: the status, the slug, and the column and code of each error."""

    name: str
    body: Any
    status: int
    slug: str
    errors: tuple[tuple[str, str], ...] = ()
    path: str = "/predict"
    method: str = "POST"
    headers: dict[str, str] = JSON


def chunks(size: int) -> Iterator[bytes]:
    """Yield a body in chunks, so that it is sent without a Content-Length header."""
    yield b'{"annual_income":"'
    for _ in range(size // 65_536):
        yield b"x" * 65_536
    yield b'"}'


MALFORMED = [
    Case("an empty body", b"", 400, "empty-body"),
    Case("only whitespace", b" \r\n\t ", 400, "empty-body"),
    Case("not JSON", b"annual_income=1", 400, "malformed-body"),
    Case("truncated", raw()[:-7], 400, "malformed-body"),
    Case("truncated in a number", b'{"annual_income": 12', 400, "malformed-body"),
    Case("truncated after a huge number", b'{"annual_income":1e400,', 400, "malformed-body"),
    Case("trailing data", raw() + b"{}", 400, "malformed-body"),
    Case("single quotes", b"{'annual_income': 1}", 400, "malformed-body"),
    Case("a comment", b"/* hello */" + raw(), 400, "malformed-body"),
    Case("a trailing comma", raw()[:-1] + b",}", 400, "malformed-body"),
    Case("a byte order mark", b"\xef\xbb\xbf" + raw(), 400, "malformed-body"),
    Case("UTF-16", raw().decode().encode("utf-16"), 400, "malformed-body"),
    Case("bytes that are not UTF-8", raw(education='"')[:-1] + b'\xff"}', 400, "malformed-body"),
    Case("Latin-1", '{"education":"université"}'.encode("latin-1"), 400, "malformed-body"),
    Case("not UTF-8 after a huge number", b'{"annual_income":1e400,"purpose":"\xff"}', 400, "malformed-body"),
    Case("half a surrogate pair", raw(education='"\\ud800"'), 400, "malformed-body"),
    Case(
        "half a surrogate pair after a huge number",
        raw(annual_income="1e400", purpose='"\\ud800"'),
        400,
        "malformed-body",
    ),
    Case("NaN", raw(annual_income="NaN"), 400, "malformed-body"),
    Case("Infinity", raw(annual_income="Infinity"), 400, "malformed-body"),
    Case("-Infinity", raw(annual_income="-Infinity"), 400, "malformed-body"),
    Case("NaN after a huge number", raw(annual_income="1e400", bank_assets="NaN"), 400, "malformed-body"),
    Case("a leading zero", raw(annual_income="0123"), 400, "malformed-body"),
    Case("a control character in a string", raw(education='"a\nb"'), 400, "malformed-body"),
    Case("endless brackets", b"[" * DEEP, 400, "too-deep"),
    Case("deeply nested lists", b"[" * DEEP + b"]" * DEEP, 400, "too-deep"),
    Case("deeply nested objects", b'{"a":' * 40_000 + b"1" + b"}" * 40_000, 400, "too-deep"),
    Case("deeply nested lists in a cell", raw(annual_income="[" * DEEP + "]" * DEEP), 400, "too-deep"),
    Case("endless brackets after a huge number", raw(annual_income="1e400", purpose="[" * DEEP), 400, "too-deep"),
    Case("deeply nested lists in a batch", b'{"rows":[' + b"[" * DEEP + b"]" * DEEP + b"]}", 400, "too-deep"),
    Case(
        "deeply nested lists in a row of a batch",
        b'{"rows":[' + raw(purpose="[" * DEEP + "]" * DEEP) + b"]}",
        400,
        "too-deep",
    ),
    Case("10 MB", b'{"annual_income":"' + b"x" * 10_000_000 + b'"}', 413, "body-too-large"),
    Case("10 MB in chunks", chunks(10_000_000), 413, "body-too-large"),
    Case("a form", b"annual_income=1", 415, "unsupported-media-type", headers={"content-type": "text/plain"}),
    Case("CSV", b"a,b\n1,2\n", 415, "unsupported-media-type", headers={"content-type": "text/csv"}),
]
NOT_A_ROW = [
    Case("a list", [ROW], 422, "not-an-object"),
    Case("a number", b"17", 422, "not-an-object"),
    Case("a huge number", b"1e400", 422, "not-an-object"),
    Case("null", b"null", 422, "not-an-object"),
    Case("a string", b'"annual_income"', 422, "not-an-object"),
    Case("true", b"true", 422, "not-an-object"),
]
INVALID = "invalid-row"
BAD_CELLS = [
    Case("a number as a string", row(annual_income="615000"), 422, INVALID, (("annual_income", "wrong-type"),)),
    Case("a word for a number", row(annual_income="much"), 422, INVALID, (("annual_income", "wrong-type"),)),
    Case("true for a number", row(annual_income=True), 422, INVALID, (("annual_income", "wrong-type"),)),
    Case("a list for a number", row(annual_income=[1]), 422, INVALID, (("annual_income", "wrong-type"),)),
    Case("an object for a number", row(annual_income={"eur": 1}), 422, INVALID, (("annual_income", "wrong-type"),)),
    Case("a fraction for an integer", row(dependents=1.5), 422, INVALID, (("dependents", "not-integer"),)),
    Case("1e400", raw(annual_income="1e400"), 422, INVALID, (("annual_income", "too-large"),)),
    Case("-1e400", raw(annual_income="-1e400"), 422, INVALID, (("annual_income", "too-large"),)),
    Case("more than float32", row(annual_income=4e38), 422, INVALID, (("annual_income", "too-large"),)),
    Case("40 digits", row(annual_income=10**39), 422, INVALID, (("annual_income", "too-large"),)),
    Case("400 digits", row(annual_income=10**399), 422, INVALID, (("annual_income", "too-large"),)),
    Case("5,000 digits", raw(annual_income="9" * 5000), 422, INVALID, (("annual_income", "too-large"),)),
    Case("-5,000 digits", raw(annual_income="-" + "9" * 5000), 422, INVALID, (("annual_income", "too-large"),)),
    Case("a word for a boolean", row(self_employed="maybe"), 422, INVALID, (("self_employed", "wrong-type"),)),
    Case("2 for a boolean", row(self_employed=2), 422, INVALID, (("self_employed", "wrong-type"),)),
    Case("a list for a category", row(education=["master"]), 422, INVALID, (("education", "wrong-type"),)),
    Case("an object for a category", row(education={}), 422, INVALID, (("education", "wrong-type"),)),
    Case("null for a category", row(education=None), 422, INVALID, (("education", "missing"),)),
    Case("null for a number", row(annual_income=None), 422, INVALID, (("annual_income", "missing"),)),
    Case("an empty string for a number", row(annual_income=""), 422, INVALID, (("annual_income", "missing"),)),
    Case("? for a category", row(education=" ? "), 422, INVALID, (("education", "missing"),)),
    Case("a missing column", row(loan_term=MISSING), 422, INVALID, (("loan_term", "missing"),)),
    Case("an extra column", row(nickname="Jo"), 422, INVALID, (("nickname", "unknown-column"),)),
    Case(
        "three extra columns",
        row(a=1, b=2, Annual_income=3),
        422,
        INVALID,
        (("a", "unknown-column"), ("b", "unknown-column"), ("Annual_income", "unknown-column")),
    ),
    Case("the target", row(loan_status="Approved"), 422, INVALID, (("loan_status", "unknown-column"),)),
    Case(
        "everything at once",
        row(annual_income="x", loan_term=MISSING, dependents=0.5, education=[], self_employed="no way", extra=1),
        422,
        INVALID,
        (
            ("annual_income", "wrong-type"),
            ("loan_term", "missing"),
            ("education", "wrong-type"),
            ("self_employed", "wrong-type"),
            ("dependents", "not-integer"),
            ("extra", "unknown-column"),
        ),
    ),
    Case(
        "a duplicate key",
        raw()[:-1] + b',"dependents":null}',
        422,
        INVALID,
        (("dependents", "duplicate-key"),),
    ),
    Case("rows next to a column", {"rows": [ROW], "annual_income": "x"}, 422, INVALID),
    Case(
        "an empty object",
        {},
        422,
        INVALID,
        tuple((name, "missing") for name in ROW if name != "commercial_assets"),
    ),
]
BATCHES = [
    Case("no rows", rows(), 422, "no-rows"),
    Case("rows that are not a list", {"rows": ROW}, 400, "malformed-body"),
    Case("rows that are null", {"rows": None}, 400, "malformed-body"),
    Case("a row that is a list", rows(ROW, [1]), 422, "not-an-object"),
    Case("a row that is null", rows(None), 422, "not-an-object"),
    Case("too many rows", rows(*[ROW] * 41), 422, "too-many-rows"),
]
ELSEWHERE = [
    Case("an unknown model", ROW, 404, "model-not-found", path="/models/nope/predict"),
    Case("an unknown path", ROW, 404, "not-found", path="/predicts"),
    Case("an unknown subpath", ROW, 404, "not-found", path="/predict/batch/of/mine"),
    Case("an unknown prediction", None, 404, "not-found", path="/predictions/nope", method="GET"),
    Case("GET instead of POST", None, 405, "method-not-allowed", method="GET"),
    Case("PUT instead of POST", ROW, 405, "method-not-allowed", method="PUT", path="/models/loans/predict"),
    Case("POST instead of GET", ROW, 405, "method-not-allowed", path="/health"),
    Case("an unknown option", ROW, 400, "bad-option", path="/predict?verbose=1"),
    Case("an invalid option", ROW, 400, "bad-option", path="/predict?partial=perhaps"),
    Case("an option without a value", ROW, 400, "bad-option", path="/predict?partial"),
    Case("an entity with a line break", ROW, 400, "bad-option", path="/predict?entity=a%0Ab"),
    Case("an empty page", None, 400, "bad-option", path="/predictions?limit=0", method="GET"),
    Case("a page that is too large", None, 400, "bad-option", path="/predictions?limit=1000000", method="GET"),
]
CASES = [*MALFORMED, *NOT_A_ROW, *BAD_CELLS, *BATCHES, *ELSEWHERE]


def send(client: httpx.Client, case: Case, request_id: str) -> httpx.Response:
    body = case.body
    if case.name == "10 MB in chunks":
        body = chunks(10_000_000)  # a generator can be read only once
    elif not isinstance(body, bytes):
        body = None if body is None else json.dumps(body).encode()
    headers = {**case.headers, "x-request-id": request_id}
    return client.request(case.method, case.path, content=body, headers=headers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_invalid_request_is_answered_with_the_documented_problem(client: httpx.Client, case: Case) -> None:
    reply = send(client, case, "bad-one")

    problem = reply.json()
    assert (reply.status_code, problem["type"]) == (case.status, f"urn:rowcast:error:{case.slug}"), problem
    assert problem["status"] == case.status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == "bad-one"
    assert problem["instance"] == "urn:rowcast:request:bad-one"
    assert problem["title"]
    assert problem["detail"]
    errors = [(error["column"], error["code"]) for error in problem.get("errors", [])]
    if case.errors or case.slug != INVALID:
        assert errors == list(case.errors)
    assert all(error["message"] for error in problem.get("errors", []))


@pytest.mark.parametrize("case", [case for case in ELSEWHERE if case.status == 405], ids=lambda case: case.name)
def test_a_405_reply_lists_the_allowed_methods(client: httpx.Client, case: Case) -> None:
    reply = send(client, case, "bad-method")

    assert reply.headers["allow"] in ("POST", "GET", "GET, HEAD")


def test_invalid_requests_are_not_recorded(client: httpx.Client) -> None:
    for number, case in enumerate(CASES):
        send(client, case, f"invalid-{number}")
    good = client.post("/predict", json=ROW, headers={"x-request-id": "valid"})

    # A writer's entries are stored in order, so entries for invalid requests would be stored before the valid entry.
    listed = eventually(lambda: _listed(client, good.json()["id"]))

    assert [entry["request_id"] for entry in listed if entry["request_id"].startswith("invalid-")] == []
    assert next(entry for entry in listed if entry["id"] == good.json()["id"])["request_id"] == "valid"


def _listed(client: httpx.Client, prediction_id: str) -> list[dict[str, Any]]:
    entries = client.get("/predictions", params={"limit": 1000}).json()["predictions"]
    return entries if any(entry["id"] == prediction_id for entry in entries) else []


def test_the_server_is_healthy_after_invalid_requests(client: httpx.Client) -> None:
    for case in CASES[::3]:
        send(client, case, "again")

    assert client.post("/predict", json=ROW).status_code == 200
    assert client.get("/health/ready").json() == {"ready": True}


@pytest.mark.parametrize(
    ("column", "cell", "got"),
    [
        ("weight", "heavy", "heavy"),
        ("weight", 4e38, 4e38),
        ("weight", [1, 2], "list"),
        ("weight", "x" * 500, "x" * 120 + "…"),
    ],
)
def test_an_error_describes_the_invalid_value(client: httpx.Client, column: str, cell: Any, got: Any) -> None:
    sent = {"age": 30, "born": "2000-01-31", "weight": 70.5, column: cell}

    (error,) = client.post("/models/people/predict", json=sent).json()["errors"]

    assert (error["column"], error["got"]) == (column, got)


def test_an_error_never_contains_a_sensitive_value(client: httpx.Client) -> None:
    reply = client.post("/models/people/predict", json={"age": "1234567", "born": "31 of January 1987", "weight": "w"})

    assert [(error["column"], "got" in error) for error in reply.json()["errors"]] == [
        ("age", False),
        ("born", False),
        ("weight", True),
    ]
    text = reply.text.replace(reply.headers["x-request-id"], "ID")  # the request ID can contain these digits by chance
    assert "1234567" not in text
    assert "1987" not in text


def test_every_problem_in_a_batch_is_reported_with_its_row_number(client: httpx.Client) -> None:
    batch = rows(row(loan_term="x", dependents=None), ROW, row(nickname=1))

    reply = client.post("/predict", json=batch)

    assert reply.status_code == 422
    errors = [(error["row"], error["column"], error["code"]) for error in reply.json()["errors"]]
    assert errors == [(0, "loan_term", "wrong-type"), (0, "dependents", "missing"), (2, "nickname", "unknown-column")]


def test_partial_mode_returns_predictions_for_valid_rows_and_errors_for_invalid_rows(client: httpx.Client) -> None:
    batch = rows(row(loan_term="x"), ROW, row(nickname=1), ROW)

    reply = client.post("/predict?partial=true", json=batch).json()

    assert [("errors" in answer, answer.get("prediction")) for answer in reply["predictions"]] == [
        (True, None),
        (False, reply["predictions"][3]["prediction"]),
        (True, None),
        (False, reply["predictions"][1]["prediction"]),
    ]
    assert reply["predictions"][2]["errors"][0]["row"] == 2


def test_partial_mode_returns_only_errors_if_all_rows_are_invalid(client: httpx.Client) -> None:
    reply = client.post("/predict?partial=true", json=rows(row(loan_term="x")))

    assert reply.status_code == 200
    assert [list(answer) for answer in reply.json()["predictions"]] == [["errors"]]


def test_the_number_of_reported_problems_is_limited(client: httpx.Client) -> None:
    wide = {f"column{number}": number for number in range(100_000)}

    reply = client.post("/predict", json=wide)

    assert reply.status_code == 422
    assert len(reply.content) < 1_000_000


def test_a_row_with_an_unseen_category_is_scored_with_a_warning(client: httpx.Client) -> None:
    reply = client.post("/predict", json=row(education="self-taught")).json()

    assert reply["prediction"] in ("Approved", "Rejected")
    assert [(warning["column"], warning["code"]) for warning in reply["warnings"]] == [("education", "unseen-category")]
    assert "self-taught" not in reply["warnings"][0]["message"]


@pytest.mark.parametrize(
    "same",
    [
        raw(dependents=f"{ROW['dependents']}.0"),
        raw(self_employed=json.dumps(ROW["self_employed"].upper())),
        raw(self_employed="true" if ROW["self_employed"] == "Yes" else "false"),
        raw(education=json.dumps(f" \u00a0{ROW['education']}\t")),
        json.dumps(dict(reversed(ROW.items()))).encode(),
    ],
    ids=[
        "15.0 for 15",
        "different letter case",
        "a boolean",
        "surrounding whitespace",
        "different column order",
    ],
)
def test_equivalent_rows_get_the_same_prediction(client: httpx.Client, same: bytes) -> None:
    expected = client.post("/predict", json=ROW).json()

    reply = client.post("/predict", content=same, headers=JSON)

    assert reply.status_code == 200, reply.text
    assert {**reply.json(), "id": ""} == {**expected, "id": ""}


@pytest.mark.parametrize(
    "content_type", [None, "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.loans+json"]
)
def test_every_json_content_type_is_accepted(client: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}

    assert client.post("/predict", content=raw(), headers=headers).status_code == 200


@pytest.mark.parametrize("request_id", ["a", "A-1_b.c", "x" * 128])
def test_a_valid_request_id_is_returned(client: httpx.Client, request_id: str) -> None:
    for path, method in (("/predict", "POST"), ("/health", "GET"), ("/nowhere", "GET")):
        reply = client.request(
            method, path, content=raw() if method == "POST" else None, headers={"x-request-id": request_id}
        )

        assert reply.headers.get_list("x-request-id") == [request_id]


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a;b", "a/b", '"a"', "{}"])
def test_an_invalid_request_id_is_replaced(client: httpx.Client, request_id: str) -> None:
    seen = set()
    for path, method in (("/predict", "POST"), ("/health", "GET")):
        reply = client.request(
            method, path, content=raw() if method == "POST" else None, headers={"x-request-id": request_id}
        )
        seen.update(reply.headers.get_list("x-request-id"))

    assert request_id not in seen
    assert len(seen) == 2
