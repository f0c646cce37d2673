"""Documents are parsed into JSON values; recursive documents and values that JSON cannot represent are rejected."""

from __future__ import annotations

import pytest

from rowcast.errors import DocumentError
from rowcast.wire.document import parse_document

NESTED_ALIASES = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
"""A YAML document whose aliases expand to more than 9^11 values."""


@pytest.mark.parametrize(
    ("suffix", "text", "slug"),
    [
        (".yaml", NESTED_ALIASES, "too-many-values"),
        (".yaml", "reply: &a {x: *a}", "too-deep"),
        (".json", '{"reply": ' + "[" * 900 + "]" * 900 + "}", "too-deep"),
        (".json", r'{"reply": {"x": "\ud800"}}', "not-unicode"),
        (".json", r'{"reply": {"\ud800": 1}}', "not-unicode"),
        (".yaml", "labels: {1: yes}", "bad-key"),
        (".json", '{"class_index": {"a": ' + "9" * 400 + "}}", "integer-too-large"),
        (".toml", "[reply]\nx = 1979-05-27", "unsupported-type"),
        (".yaml", "reply: !!set {a}", "unsupported-type"),
        (".yaml", "a: [", "syntax-error"),
        (".yaml", "a: !!python/name:os.system x", "syntax-error"),
        (".json", "[1]", "not-a-mapping"),
        (".toml", "a = = b", "syntax-error"),
    ],
)
def test_an_invalid_document_is_rejected(suffix: str, text: str, slug: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(text, suffix, "w")

    assert caught.value.slug == slug
    assert str(caught.value).startswith("w: ")


@pytest.mark.parametrize(("suffix", "text"), [(".yaml", "\na: ["), (".toml", "\na = = b")])
def test_a_syntax_error_names_the_line(suffix: str, text: str) -> None:
    with pytest.raises(DocumentError, match="line 2"):
        parse_document(text, suffix, "w")


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "labels: {no: 0, yes: off, '1': '007'}\nreply: {a: [1, 1.5, null, true, $label, 0420]}"),
        (
            ".json",
            '{"labels": {"no": 0, "yes": "off", "1": "007"}, "reply": {"a": [1, 1.5, null, true, "$label", "0420"]}}',
        ),
    ],
)
def test_scalars_have_the_same_types_as_in_json(suffix: str, text: str) -> None:
    assert parse_document(text, suffix, "w") == {
        "labels": {"no": 0, "yes": "off", "1": "007"},
        "reply": {"a": [1, 1.5, None, True, "$label", "0420"]},
    }


def test_an_alias_without_recursion_is_expanded() -> None:
    document = parse_document("reply: &a {label: $label}\nbatch_reply: [*a, *a]\n", ".yaml", "w")

    assert document["batch_reply"] == [{"label": "$label"}] * 2
