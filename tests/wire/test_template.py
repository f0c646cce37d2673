"""Wire templates that cannot be: one sentence names the key and what may stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BodyError, BundleError, InvalidRows, SettingsError
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.wire import load as template
from rowcast.wire.template import Wire, compile_wire
from support import models

SCHEMA = Schema(
    (
        Column(name="income", kind="number"),
        Column(name="since", kind="datetime"),
        Column(name="owner", kind="boolean"),
        Column(name="town", kind="category", levels=("Bonn",)),
    )
)
BINARY = Decision(task="binary", classes=("no", "yes"))
VALUE = Decision(task="regression")


def wire(document: Any, decision: Decision = BINARY, schema: Schema = SCHEMA, **more: Any) -> Wire:
    return compile_wire(document, ("m", 1), schema, decision, RowEncoder(schema, own_plan(schema)).read, **more)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "must be a mapping"),
        ({"replies": {}}, "unknown field `replies`"),
        ({"request": {"shape": "object"}}, r"unknown field `shape` - at `\$.request`"),
        ({"request": {"form": "table"}}, r"'table' - at `\$.request.form`"),
        ({"request": {"on_unknown": "drop"}}, "'drop'"),
        ({"request": {"rename": {"a": "b"}}}, "rename gives 'a' to the column 'b'; the model's columns are income"),
        ({"request": {"rename": {"a": "town", "b": "town"}}}, "gives the column 'town' two names"),
        ({"request": {"rename": {"income": "town"}}}, "uses a name that another column has already"),
        ({"request": {"form": "matrix", "path": "d", "rename": {"a": "town"}}}, "rename is for objects"),
        ({"request": {"form": "matrix", "path": "d", "on_missing": 0}}, "on_missing is for objects"),
        ({"request": {"form": "matrix"}}, "path must say where the matrix lies"),
        ({"request": {"path": "a..b"}}, "request.path is 'a..b'"),
        ({"request": {"path": "a[0]"}}, r"request.path is 'a\[0\]'"),
        ({"request": {"path": "a", "use_cache": "a.b"}}, "two things lie at 'a.b', or one below"),
        ({"request": {"path": "a", "use_cache": "a"}}, "two things lie at 'a'|or one below"),
        ({"request": {"path": "a", "use_cache": "b", "cache_ttl": "b"}}, "two things lie at 'b'"),
        ({"request": {"use_cache": "b"}}, "the row needs a place of its own; set request.path"),
        ({"request": {"path": "data", "batch": "requests"}}, r"request.batch is 'requests'; write such as"),
        ({"request": {"path": "data", "batch": "requests[].rows"}}, r"`requests\[\]\.data`"),
        ({"request": {"on_missing": 0}}, "on_missing cannot stand for 'since'"),
        ({"request": {"on_missing": None}}, "on_missing must be error, a value, or a value by column"),
        ({"request": {"on_missing": {"age": 0}}}, "on_missing names 'age'"),
        ({"request": {"on_missing": {"owner": 7}}}, "on_missing cannot stand for 'owner'"),
        ({"request": {"on_missing": {"income": "NA"}}}, "'income', which is required"),
        ({"labels": {"maybe": "x"}}, "labels names 'maybe'; the classes are no, yes"),
        ({"class_index": {"yes": "1"}}, "Expected `int`"),
        ({"reply": "$lable"}, r"reply: there is no \$lable here; known are"),
        ({"reply": {"a": [1, {"b": "$x"}]}}, r"reply\.a\[1\]\.b: there is no \$x"),
        ({"reply": {"a": {"$rows": "$rows"}}}, r"reply\.a\.\$rows: there is no \$rows"),
        ({"reply": {"a": {"$rows": {"$rows": 1}}}}, r"\$rows cannot stand here"),
        ({"reply": {"$rows": 1, "b": 2}}, r"\$rows must be the only name of its object"),
        ({"reply": {"$requests": 1}}, r"\$requests cannot stand here"),
        ({"batch_reply": "$label"}, r"\$label belongs to a row; put it below \$rows"),
        ({"root": {"a": "$label"}}, r"root\.a: there is no \$label here"),
        ({"root": {"a": {"$rows": 1}}}, r"\$rows cannot stand here"),
        ({"request": {"form": "matrix", "path": "d"}, "reply": "$label"}, r"\$label belongs to a row; put it below"),
    ],
)
def test_a_template_that_cannot_be_is_named(document: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        wire(document)

    assert str(caught.value).startswith("the wire template")


@pytest.mark.parametrize("word", ["$probability", "$probabilities", "$score", "$class_index"])
def test_a_regression_has_no_classes(word: str) -> None:
    with pytest.raises(SettingsError, match=rf"\{word} is not known"):
        wire({"reply": word}, VALUE)
    with pytest.raises(SettingsError, match="a regression has no classes"):
        wire({"labels": {"a": "b"}}, VALUE)


def test_a_graph_that_gives_labels_alone_has_no_probabilities() -> None:
    with pytest.raises(SettingsError, match="gives labels alone"):
        wire({"reply": "$probability"}, probabilities=False)


def test_a_value_stands_for_every_column_that_can_take_it() -> None:
    without = Schema(tuple(column for column in SCHEMA.columns if column.kind != "datetime"))

    ((_, kept),) = wire({"request": {"on_missing": 0}}, schema=without).read(b"{}", 1).rows
    assert json.loads(kept) == {"income": 0, "owner": False, "town": "0"}


SWAPPED = Schema(
    (
        Column(name="a", kind="number", missing=True),
        Column(name="b", kind="number", missing=True),
        Column(name="c", kind="category", levels=("x",), missing=True),
    )
)


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ('{"a":1,"b":2,"c":"x"}', {"b": 1, "a": 2, "c": "x"}),
        ('{"a" : 1, "b": 2}', {"b": 1, "a": 2}),
        ('{"b":2}', {"a": 2}),
        ('{"a":1,"a":3,"b":2}', {"b": 3, "a": 2}),
        (r'{"a":1,"b":2,"c":"\"a\":5"}', {"b": 1, "a": 2, "c": '"a":5'}),
        (r'{"\u0061":1,"b":2}', {"b": 1, "a": 2}),
    ],
)
def test_a_renamed_key_is_one_however_it_is_written(body: str, row: dict[str, Any]) -> None:
    made = wire({"request": {"rename": {"a": "b", "b": "a"}}}, schema=SWAPPED)

    assert json.loads(made.read_row(body.encode())[1]) == row


def test_the_tail_of_another_name_is_no_key() -> None:
    made = wire({"request": {"rename": {"a": "b", "b": "a"}}}, schema=SWAPPED)

    with pytest.raises(InvalidRows) as refused:
        made.read_row(rb'{"z\"a":1,"b":2}')

    assert [problem.column for problem in refused.value.problems] == ['z"a']


def test_more_rows_than_may_be_are_refused() -> None:
    made = wire({"request": {"form": "matrix", "path": "d"}})
    row = [1, "2020-01-01", True, "Bonn"]

    for read, body in ((made.read, {"d": [row] * 3}), (made.read_batch, {"requests": [{"d": [row] * 2}] * 2})):
        with pytest.raises(BodyError) as caught:
            read(json.dumps(body).encode(), 2)
        assert caught.value.slug == "too-many-rows"


def test_a_bundle_with_a_template_that_does_not_fit_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"sum@1 cannot be served: the wire template: reply: \$probability"):
        models.live(
            tmp_path, "sum", models.sum_graph(2), models.number_columns(2), VALUE, "values", {"reply": "$probability"}
        )


def test_the_digest_covers_the_template(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path)
    arguments = ("sum", models.sum_graph(2), models.number_columns(2), VALUE, "values")
    folders = [
        registry.folder(models.publish(registry, *arguments, wire=given))
        for given in (None, {"reply": "$label"}, {"reply": "$prediction"})
    ]

    assert len({json.loads((folder / "bundle.json").read_text())["digest"] for folder in folders}) == 3


# As people write them.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.yaml", "labels: {no: 0, yes: off, '1': '007'}\nreply: {a: [1, 1.5, null, true, $label, 0420]}"),
        (
            "w.json",
            '{"labels": {"no": 0, "yes": "off", "1": "007"}, "reply": {"a": [1, 1.5, null, true, "$label", "0420"]}}',
        ),
    ],
)
def test_scalars_are_what_json_means(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")

    assert template.read(path) == {
        "labels": {"no": 0, "yes": "off", "1": "007"},
        "reply": {"a": [1, 1.5, None, True, "$label", "0420"]},
    }


def test_a_template_may_be_text_or_in_memory() -> None:
    assert template.read('{"reply": 1}') == template.read({"reply": 1}) == {"reply": 1}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("w.txt", "", "must end in .yaml, .yml, .toml, .json"),
        ("w.yaml", "a: [", "line 1"),
        ("w.yaml", "a: !!python/name:os.system x", "could not determine a constructor"),
        ("w.json", "[1]", "must be a mapping"),
        ("w.toml", "a = = b", "line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError, match=said):
        template.read(path)
    with pytest.raises(SettingsError, match="No such file"):
        template.read(tmp_path / "none.json")


def test_every_template_of_the_reference_fits_a_model() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text(encoding="utf-8")
    found = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    schema = Schema(tuple(Column(name=name, kind="number") for name in ("annual_income", "loan_amount")))
    decision = Decision(task="binary", classes=("Approved", "Rejected"))
    words = re.findall(r"`(\$[a-z_]+)`", page)

    assert len(found) == 5
    for text in found:
        made = wire(template.READERS[".yaml"](text), decision, schema)
        body = made.example({"annual_income": 1.0, "loan_amount": 2.0})
        assert len(made.read(json.dumps(body).encode(), 10).rows) == 1
    for word in set(words) - {"$rows", "$requests", "$reply"}:
        wire({"reply": word}, decision, schema)
