"""The JSON Schemas of a template's replies are derived from its trees."""

from __future__ import annotations

from rowcast.wire.json_schema import PROBABILITY, any_of
from support.wire import REGRESSION, compiled


def test_the_schema_of_an_object_allows_exactly_the_keys_of_its_tree() -> None:
    codec = compiled({"reply": {"label": "$label", "$$p": "$probability", "fixed": 3}, "labels": {"yes": True}})

    reply, _ = codec.reply_schemas({}, {})

    assert reply == {
        "type": "object",
        "properties": {"label": {"enum": ["no", True]}, "$p": PROBABILITY, "fixed": {"const": 3}},
        "required": ["label", "$p", "fixed"],
        "additionalProperties": False,
    }


def test_a_loop_is_described_as_an_array_and_a_list_as_an_array_of_fixed_length() -> None:
    codec = compiled({"reply": ["$cached", {"$rows": "$id"}]})

    reply, _ = codec.reply_schemas({}, {})

    rows = {"type": "array", "items": {"type": "string", "format": "uuid"}}
    assert reply == {
        "type": "array",
        "items": {"anyOf": [{"type": "boolean"}, rows]},
        "minItems": 2,
        "maxItems": 2,
    }


def test_the_schemas_of_the_default_replies_refer_to_the_native_prediction() -> None:
    native = {"$ref": "#/prediction"}

    reply, batch_reply = compiled({}).reply_schemas(native, {})

    assert reply == native
    assert batch_reply["properties"]["predictions"] == {"type": "array", "items": native}


def test_the_label_of_a_regression_model_is_a_number() -> None:
    reply, _ = compiled({"reply": "$label"}, REGRESSION).reply_schemas({}, {})

    assert reply == {"type": "number"}


def test_only_identical_schemas_are_merged() -> None:
    assert any_of([]) == {}
    assert any_of([{"const": 1}, {"const": 1}]) == {"const": 1}
    assert any_of([{"const": 1}, {"const": 2}]) == {"anyOf": [{"const": 1}, {"const": 2}]}
