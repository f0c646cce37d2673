"""Placeholders in a reply template are checked against the model and filled from native replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rowcast.errors import DocumentError
from rowcast.wire.reply import NativeReplies
from support.wire import REGRESSION, compiled

NATIVE = (
    b'{"id":"i","model":"m","version":1,"prediction":"yes","probability":0.75,"score":0.75,'
    b'"probabilities":{"no":0.25,"yes":0.75},"warnings":[],"cached":true}'
)
MATRIX = {"form": "matrix", "path": "d"}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"reply": "$lable"}, "reply"),
        ({"reply": {"a": [1, {"b": "$x"}]}}, "reply.a[1].b"),
        ({"reply": {"a": {"$rows": "$rows"}}}, "reply.a.$rows"),
        ({"reply": {"a": {"$rows": {"$rows": 1}}}}, "reply.a.$rows"),
        ({"reply": {"$rows": 1, "b": 2}}, "reply"),
        ({"reply": {"$requests": 1}}, "reply"),
        ({"reply": {1: 2}}, "reply"),
        ({"batch_reply": "$label"}, "batch_reply"),
        ({"root": {"a": "$label"}}, "root.a"),
        ({"root": {"a": {"$rows": 1}}}, "root.a"),
        ({"request": MATRIX, "reply": "$label"}, "reply"),
    ],
)
def test_a_placeholder_that_is_not_available_is_rejected(document: Any, place: str) -> None:
    with pytest.raises(DocumentError) as caught:
        compiled(document)

    assert caught.value.place == place


def test_the_error_lists_the_available_placeholders() -> None:
    with pytest.raises(DocumentError) as caught:
        compiled({"root": "$label"})

    assert str(caught.value) == (
        "wire template: root: unknown placeholder $label; available here: $boolean_count, $category_count, "
        "$column_count, $columns, $model, $model_loaded, $version (to start text with $, write $$)"
    )


@pytest.mark.parametrize("placeholder", ["$probability", "$probabilities", "$score", "$class_index"])
def test_class_and_probability_placeholders_are_rejected_for_a_regression_model(placeholder: str) -> None:
    with pytest.raises(DocumentError):
        compiled({"reply": placeholder}, REGRESSION)


def test_the_probability_placeholder_is_rejected_for_a_model_that_returns_only_labels() -> None:
    with pytest.raises(DocumentError):
        compiled({"reply": "$probability"}, has_probabilities=False)


@pytest.mark.parametrize(
    ("tree", "reply"),
    [
        ("$label", "JA"),
        ("$class_index", 1),
        ("$prediction", "yes"),
        ("$probabilities", [0.25, 0.75]),
        ("$probabilities_by_label", {"no": 0.25, "JA": 0.75}),
        ("$native", json.loads(NATIVE)),
        ({"$$100 %": ["$$x", "$version", None]}, {"$100 %": ["$x", 1, None]}),
    ],
)
def test_a_placeholder_is_filled_from_the_native_reply(tree: Any, reply: Any) -> None:
    codec = compiled({"reply": tree, "labels": {"yes": "JA"}})

    assert json.loads(codec.render(NativeReplies([NATIVE], 0.5))) == reply
    if codec.render_row is not None:
        assert json.loads(codec.render_row(NATIVE)) == reply


@pytest.mark.parametrize("placeholder", ["$latency_seconds", "$input_shape", "$native"])
def test_a_reply_that_needs_more_than_the_decoded_prediction_has_no_row_renderer(placeholder: str) -> None:
    assert compiled({"reply": placeholder}).render_row is None


def test_a_batch_reply_contains_the_reply_to_each_request() -> None:
    codec = compiled({"reply": "$label", "batch_reply": {"all": {"$requests": "$reply"}, "hit": "$cached"}})
    requests = [NativeReplies([NATIVE], 0.1), NativeReplies([NATIVE], 0.2)]

    assert json.loads(codec.render_batch(requests, 0.3)) == {"all": ["yes", "yes"], "hit": True}


def test_the_root_reply_is_rendered_at_compile_time() -> None:
    root = compiled({"root": {"n": "$column_count", "b": "$boolean_count", "%": "$columns"}}).root

    assert root is not None
    assert json.loads(root) == {"n": 4, "b": 1, "%": ["income", "since", "owner", "town"]}
