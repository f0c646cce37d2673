"""Whatever the template, a row gets the prediction of the native dialect and is kept as the native dialect keeps it."""

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


def wire(template: dict[str, Any]) -> WireCodec:
    return compile_template(template, model="m", version=3, schema=SCHEMA, decision=DECISION, parse_row=ENCODER.read)


def native(row: dict[str, Any]) -> EncodedRow | set[tuple[str, str]]:
    """The encoded row, or the problems it has."""
    try:
        return ENCODER.read(msgspec.json.encode(row))
    except InvalidRows as invalid:
        return {(problem.column, problem.code) for problem in invalid.problems}


def nested(path: str, what: Any) -> Any:
    for name in reversed(path.split(".") if path else []):
        what = {name: what}
    return what


@given(ROWS, CLIENT, PATHS)
def test_an_object_is_read_as_the_native_dialect_reads_it(
    row: dict[str, Any], names: dict[str, str], path: str
) -> None:
    made = wire({"request": {"rename": names, "path": path}})
    sent = {client: row[column] for client, column in names.items()}
    expected = native(row)

    try:
        ((encoded, kept),) = made.read(msgspec.json.encode(nested(path, sent)), MOST).rows
    except InvalidRows as invalid:
        found = {(names[problem.column], problem.code) for problem in invalid.problems}
        assert found == expected
    else:
        assert encoded == expected
        assert msgspec.json.decode(kept) == row
        assert ENCODER.read(kept) == encoded  # replay


@given(st.lists(ROWS, min_size=1, max_size=4), PATHS.filter(bool), st.booleans(), st.integers(1, 86_400))
def test_a_matrix_is_read_as_the_native_dialect_reads_its_rows(
    rows: list[dict[str, Any]], path: str, use_cache: bool, ttl: int
) -> None:
    made = wire({"request": {"form": "matrix", "path": path, "use_cache": "o.cache", "cache_ttl": "o.ttl"}})
    body = {**nested(path, [list(row.values()) for row in rows]), "o": {"cache": use_cache, "ttl": ttl}}
    expected = [native(row) for row in rows]

    try:
        asked = made.read(msgspec.json.encode(body), MOST)
    except InvalidRows as invalid:
        found: dict[Any, set[tuple[str, str]]] = {}
        for problem in invalid.problems:
            found.setdefault(problem.row, set()).add((problem.column, problem.code))
        assert found == {number: each for number, each in enumerate(expected) if isinstance(each, set)}
    else:
        assert [encoded for encoded, _ in asked.rows] == expected
        assert [msgspec.json.decode(kept) for _, kept in asked.rows] == rows
        assert (asked.use_cache, asked.ttl) == (use_cache, ttl)


@given(ROWS, st.sets(st.sampled_from(NAMES)), st.dictionaries(st.sampled_from(["x", "income "]), st.integers()))
def test_a_mended_row_is_the_row_that_was_meant(row: dict[str, Any], absent: set[str], more: dict[str, Any]) -> None:
    fills: dict[str, Any] = {"income": 0, "town": "Bonn", "owner": False}
    made = wire({"request": {"on_missing": fills, "on_unknown": "ignore"}})
    sent = {name: cell for name, cell in row.items() if name not in absent} | more
    meant = {name: sent.get(name, fills.get(name)) for name in NAMES if name in sent or name in fills}
    expected = native(meant)

    if isinstance(expected, set):
        with pytest.raises(InvalidRows) as refused:
            made.read(msgspec.json.encode(sent), MOST)
        assert {(problem.column, problem.code) for problem in refused.value.problems} == expected
    else:
        asked = made.read(msgspec.json.encode(sent), MOST)
        assert asked.rows[0][0] == expected
        assert msgspec.json.decode(asked.rows[0][1]) == meant
        assert (asked.filled, asked.ignored) == (len(absent & fills.keys()), len(more))


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["data", "income", "town"]), below),
    ).map(msgspec.json.encode)
)
@settings(max_examples=300)
def test_no_body_is_answered_with_anything_but_a_refusal(body: bytes) -> None:
    for template in (
        {"request": {"path": "data", "rename": {"i": "income"}}},
        {"request": {"rename": {"i": "income"}, "on_unknown": "ignore", "on_missing": {"town": "x"}}},
        {"request": {"form": "matrix", "path": "data", "on_unknown": "ignore"}},
    ):
        made = wire(template)
        for read in (made.read, made.read_batch):
            with pytest.raises(RowcastError):
                read(body, MOST)


@given(TREES, st.floats(0, 1), st.booleans())
@settings(max_examples=300)
def test_a_reply_is_the_tree_with_its_blanks_filled(tree: Any, score: float, cached: bool) -> None:
    label = "yes" if score >= 0.5 else "no %"
    shares = {"no %": 1 - score, "yes": score}
    told = Prediction("id", "m", 3, label, shares[label], score, shares, NO_WARNINGS, cached)
    sent = msgspec.json.encode(told)
    known = {
        "$label": LABELS[label],
        "$class_index": ["no %", "yes"].index(label),
        "$prediction": label,
        "$probability": shares[label],
        "$score": score,
        "$probabilities": list(shares.values()),
        "$probabilities_by_label": {"0": shares["no %"], "Ja %b": score},
        "$id": "id",
        "$warnings": [],
        "$native": msgspec.json.decode(sent),
        "$cached": cached,
        "$model": "m",
        "$columns": NAMES,
    }

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {filled(key): filled(below) for key, below in node.items()}
        if isinstance(node, list):
            return [filled(below) for below in node]
        if isinstance(node, str):
            return known.get(node, node.removeprefix("$") if node.startswith("$$") else node)
        return node

    made = wire({"reply": tree, "labels": LABELS})
    assert msgspec.json.decode(made.render(NativeReplies([sent], 0.5))) == filled(tree)
    rows = wire({"reply": {"all": {"$rows": tree}}, "labels": LABELS}) if not uses(tree, "$cached") else None
    if rows is not None:
        assert msgspec.json.decode(rows.render(NativeReplies([sent, sent], 0.5))) == {"all": [filled(tree)] * 2}


def uses(tree: Any, word: str) -> bool:
    return word in str(tree)
