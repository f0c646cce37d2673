"""The comparison of the output shown in the documentation with the actual output."""

from __future__ import annotations

import pytest

from support import shown_output

TABLE = """
┏━━━━━━━━━┳━━━━━━━┳━━━━━━━━━┓
┃ model   ┃ score ┃ seconds ┃
┡━━━━━━━━━╇━━━━━━━╇━━━━━━━━━┩
│ a large │ 0.970 │ 3.1     │
│ forest  │       │         │
└─────────┴───────┴─────────┘
"""
NARROW = """
┏━━━━━━━━┳━━━━━━━┳━━━━━━━━━┓
┃ model  ┃ score ┃ seconds ┃
┡━━━━━━━━╇━━━━━━━╇━━━━━━━━━┩
│ a      │ 0.971 │ 12.0    │
│ large  │       │         │
│ forest │       │         │
└────────┴───────┴─────────┘
"""
PAGE = """
```sh
rowcast serve
```

```text
ready
```

{note}```text{tag}
running
```

## Formats

```text
a diagram
```
"""


@pytest.mark.parametrize(
    ("shown", "actual"),
    [
        ("scored 5000 rows in 0.1 s (61,782 rows/s)", "scored 5000 rows in 12.3 s (1,000 rows/s)"),
        ("score 0.9700", "score  0.9752\n"),
        ('{"at": 1795255535509149}', '{"at": 1795255530000000}'),
        ('{"score": 0.5}', '{\n    "score": 0.5001\n}'.replace("\n", "").replace("    ", "")),
        ("at 2026-11-21T10:05:16+00:00 as rb1-0123", "at 2026-12-24T00:00:00.123Z as rb1-abcd"),
        ("largest difference 3.3e-07", "largest difference 1.0e-08"),
        ("serving … on :8000", "serving loans@1 on :8000"),
        (TABLE, NARROW),
    ],
)
def test_variable_values_and_small_differences_are_accepted(shown: str, actual: str) -> None:
    assert shown_output.difference(shown, actual) == ""


@pytest.mark.parametrize(
    ("shown", "actual"),
    [
        ("3 entries of 1 writer", "4 entries of 1 writer"),
        ("score 0.9657", "score 0.9300"),
        ("score 0.97", "score 0"),
        ("loans@1", "loans@2"),
        ("Approved 0.97", "Rejected 0.97"),
        ("one line", "one line\nanother line"),
        ("serving … on :8000", "serving loans@1 on :9000"),
        ("Python 3.11.2", "Python 3.11.5"),
        (TABLE, TABLE.replace("0.970", "0.990")),
        (TABLE, TABLE.replace("forest", "tree  ")),
        (TABLE, TABLE.replace("seconds", "minutes")),
    ],
)
def test_other_differences_are_reported(shown: str, actual: str) -> None:
    assert shown_output.difference(shown, actual) != ""


def test_a_comment_before_a_block_changes_the_tolerance() -> None:
    [block] = shown_output.blocks("<!-- tolerance: 0.1 -->\n```text shows\nscore 0.5\n```\n")

    assert shown_output.difference(block.text, "score 0.58", block.tolerance) == ""
    assert (
        shown_output.difference(block.text, "score 0.62", block.tolerance) == "expected 'score 0.5', got 'score 0.62'"
    )


def test_output_after_a_command_must_be_compared_or_say_why_not() -> None:
    reason = "<!-- not compared: the text depends on the machine -->\n"

    assert shown_output.unchecked(PAGE.format(note="", tag="")) == ["ready\n", "running\n"]
    assert shown_output.unchecked(PAGE.format(note=reason, tag="")) == ["ready\n"]
    assert shown_output.unchecked(PAGE.format(note="", tag=" shows")) == ["ready\n"]


def test_outdated_output_is_replaced_unless_it_is_shortened() -> None:
    document = "```text shows\nold\n```\n\n```text shows\nlong…\n```\n"
    first, second = shown_output.blocks(document)

    replaced = shown_output.replaced(document, [(first, "new  \nlines\n"), (second, "long text")])

    assert replaced == "```text shows\nnew\nlines\n```\n\n```text shows\nlong…\n```\n"
