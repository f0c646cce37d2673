"""With any template, a row is scored and recorded exactly like the same row in the native dialect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowcast.errors import InvalidRows, RowcastError
from rowcast.schema.encoding import NO_WARNINGS, EncodedRow, RowEncoder, own_plan
from rowcast.schema.prediction import Decision, Prediction
from rowcast.schema.schema import Column, Schema
from rowcast.wire.codec import WireCodec, compile_template
from rowcast.wire.reply import NativeReplies

SCHEMA = Schema(
    (
        Column(name="income", kind="number", forms=("currency",)),
        Column(name='the "%s" age', kind="integer", missing=True),
        Column(name="town", kind="category", levels=("Bonn", "Köln", "5")),
        Column(name="owner", kind="boolean", words={"yes": True, "no": False}),
    )
)
NAMES = SCHEMA.names()
ENCODER = RowEncoder(SCHEMA, own_plan(SCHEMA))
DECISION = Decision(task="binary", classes=("no %", "yes"))
MOST = 100
CELLS = (
    st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.sampled_from(["$1,250.00", "7", "x"])),
    st.one_of(st.integers(-1000, 1000), st.none(), st.just(2.0), st.just("NA")),
    st.one_of(st.sampled_from(["Bonn", "Köln", " Bonn", "nowhere", "5"]), st.just(5)),
    st.one_of(st.booleans(), st.sampled_from(["yes", "No", "perhaps"])),
)
ROWS = st.tuples(*CELLS).map(lambda cells: dict(zip(NAMES, cells, strict=True)))
CLIENT = st.permutations(["a", "b %d", 'c"', "income"]).map(lambda names: dict(zip(names, NAMES, strict=True)))
PATHS = st.sampled_from(["", "data", "in.put"])
TREES = st.recursive(
    st.one_of(
        st.sampled_from(["$label", "$class_index", "$prediction", "$probability", "$score", "$probabilities", "$id"]),
        st.sampled_from(["$probabilities_by_label", "$warnings", "$native", "$cached", "$model", "$columns"]),
        st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["100 %", "$$x", 'quo"te', "%b"]),
    ),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["a", "b%", 'c"', "$$d"]), below),
    max_leaves=8,
)
LABELS = {"yes": "Ja %b", "no %": 0}


def compiled(template: dict[str, Any]) -> WireCodec:
    return compile_template(template, model="m", version=3, schema=SCHEMA, decision=DECISION, parse_row=ENCODER.read)


def native(row: dict[str, Any]) -> EncodedRow | set[tuple[str, str]]:
    """Return the encoded row, or the columns and codes of its problems."""
    try:
        return ENCODER.read(msgspec.json.encode(row))
    except InvalidRows as invalid:
        return {(problem.column, problem.code) for problem in invalid.problems}


def nested(path: str, value: Any) -> Any:
    """Nest a value in objects so that it is found at the path."""
    for name in reversed(path.split(".") if path else []):
        value = {name: value}
    return value


@given(ROWS, CLIENT, PATHS)
def test_an_object_is_parsed_like_a_native_row(row: dict[str, Any], names: dict[str, str], path: str) -> None:
    codec = compiled({"request": {"rename": names, "path": path}})
    sent = {client: row[column] for client, column in names.items()}
    expected = native(row)

    try:
        ((encoded, text),) = codec.read(msgspec.json.encode(nested(path, sent)), MOST).rows
    except InvalidRows as invalid:
        problems = {(names[problem.column], problem.code) for problem in invalid.problems}
        assert problems == expected
    else:
        assert encoded == expected
        assert msgspec.json.decode(text) == row
        assert ENCODER.read(text) == encoded  # a replay reads this text


@given(st.lists(ROWS, min_size=1, max_size=4), PATHS.filter(bool), st.booleans(), st.integers(1, 86_400))
def test_a_matrix_is_parsed_like_native_rows(rows: list[dict[str, Any]], path: str, use_cache: bool, ttl: int) -> None:
    codec = compiled({"request": {"form": "matrix", "path": path, "use_cache": "o.cache", "cache_ttl": "o.ttl"}})
    body = {**nested(path, [list(row.values()) for row in rows]), "o": {"cache": use_cache, "ttl": ttl}}
    expected = [native(row) for row in rows]

    try:
        request = codec.read(msgspec.json.encode(body), MOST)
    except InvalidRows as invalid:
        problems: dict[Any, set[tuple[str, str]]] = {}
        for problem in invalid.problems:
            problems.setdefault(problem.row, set()).add((problem.column, problem.code))
        assert problems == {number: each for number, each in enumerate(expected) if isinstance(each, set)}
    else:
        assert [encoded for encoded, _ in request.rows] == expected
        assert [msgspec.json.decode(text) for _, text in request.rows] == rows
        assert (request.use_cache, request.ttl) == (use_cache, ttl)


@given(ROWS, st.sets(st.sampled_from(NAMES)), st.dictionaries(st.sampled_from(["x", "income "]), st.integers()))
def test_a_row_completed_with_fill_values_is_parsed_like_a_complete_row(
    row: dict[str, Any], absent: set[str], unknown: dict[str, Any]
) -> None:
    fills: dict[str, Any] = {"income": 0, "town": "Bonn", "owner": False}
    codec = compiled({"request": {"on_missing": fills, "on_unknown": "ignore"}})
    sent = {name: cell for name, cell in row.items() if name not in absent} | unknown
    complete = {name: sent.get(name, fills.get(name)) for name in NAMES if name in sent or name in fills}
    expected = native(complete)

    if isinstance(expected, set):
        with pytest.raises(InvalidRows) as refused:
            codec.read(msgspec.json.encode(sent), MOST)
        assert {(problem.column, problem.code) for problem in refused.value.problems} == expected
    else:
        request = codec.read(msgspec.json.encode(sent), MOST)
        assert request.rows[0][0] == expected
        assert msgspec.json.decode(request.rows[0][1]) == complete
        assert (request.filled, request.ignored) == (len(absent & fills.keys()), len(unknown))


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["data", "income", "town"]), below),
    ).map(msgspec.json.encode)
)
@settings(max_examples=300)
def test_an_arbitrary_body_causes_only_request_errors(body: bytes) -> None:
    for template in (
        {"request": {"path": "data", "rename": {"i": "income"}}},
        {"request": {"rename": {"i": "income"}, "on_unknown": "ignore", "on_missing": {"town": "x"}}},
        {"request": {"form": "matrix", "path": "data", "on_unknown": "ignore"}},
    ):
        codec = compiled(template)
        for read in (codec.read, codec.read_batch):
            with pytest.raises(RowcastError):
                read(body, MOST)


@given(TREES, st.floats(0, 1), st.booleans())
@settings(max_examples=300)
def test_a_reply_is_the_template_tree_with_its_placeholders_filled(tree: Any, score: float, cached: bool) -> None:
    label = "yes" if score >= 0.5 else "no %"
    probabilities = {"no %": 1 - score, "yes": score}
    prediction = Prediction("id", "m", 3, label, probabilities[label], score, probabilities, NO_WARNINGS, cached)
    native_reply = msgspec.json.encode(prediction)
    values = {
        "$label": LABELS[label],
        "$class_index": ["no %", "yes"].index(label),
        "$prediction": label,
        "$probability": probabilities[label],
        "$score": score,
        "$probabilities": list(probabilities.values()),
        "$probabilities_by_label": {"0": probabilities["no %"], "Ja %b": score},
        "$id": "id",
        "$warnings": [],
        "$native": msgspec.json.decode(native_reply),
        "$cached": cached,
        "$model": "m",
        "$columns": NAMES,
    }

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            return {fill(key): fill(below) for key, below in node.items()}
        if isinstance(node, list):
            return [fill(below) for below in node]
        if isinstance(node, str):
            return values.get(node, node.removeprefix("$") if node.startswith("$$") else node)
        return node

    codec = compiled({"reply": tree, "labels": LABELS})
    assert msgspec.json.decode(codec.render(NativeReplies([native_reply], 0.5))) == fill(tree)
    if not uses(tree, "$cached"):
        codec = compiled({"reply": {"all": {"$rows": tree}}, "labels": LABELS})
        replies = NativeReplies([native_reply] * 2, 0.5)
        assert msgspec.json.decode(codec.render(replies)) == {"all": [fill(tree)] * 2}


def uses(tree: Any, placeholder: str) -> bool:
    return placeholder in str(tree)
