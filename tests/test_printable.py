"""Text from data, made safe for terminals and Markdown."""

from __future__ import annotations

import pytest

from rowcast.printable import markdown_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\x07b\x7fc\x9bd", "a\\x07b\\x7fc\\x9bd"),
        ("over\rwritten", "over\\rwritten"),
        ("\u202eevil", "\\u202eevil"),
        ("é 表\tand\nlines", "é 表\tand\nlines"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a`b", "a'b"),
        ("[click](https://example.com)", "[click]\\(https://example.com)"),
        ("one\n# two", "one # two"),
        ("loan_amount", "loan_amount"),
    ],
)
def test_markdown_contains_no_markup_from_data(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
