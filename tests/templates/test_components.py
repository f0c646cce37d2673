"""The shared templates escape all values and reject undefined names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from rowcast import templates

HOSTILE = '<script>alert("1")</script> & \''


def render(source: str, **context: Any) -> str:
    """Render a template string in the report's environment."""
    return templates.environment("rowcast.training.report").from_string(source).render(context)


def test_the_table_component_escapes_cells_and_aligns_numbers() -> None:
    html = render(
        '{% from "components.html" import table %}'
        '{% call table(text, (text, "rows"), ("rows",)) %}<tr><th scope="row">{{ text }}</th></tr>{% endcall %}',
        text=HOSTILE,
    )

    assert "<script" not in html
    assert html.count('scope="row"') == 1
    assert html.count('class="n"') == 1


def test_the_facts_component_escapes_names_values_and_notes() -> None:
    fact = {"name": HOSTILE, "value": HOSTILE, "note": HOSTILE}

    html = render('{% from "components.html" import facts %}{{ facts(items) }}', items=[fact])

    assert "<script" not in html
    assert html.count("alert") == 3


def test_an_undefined_name_raises_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("{{ missing }}")
    with pytest.raises(UndefinedError):
        render("{{ page.missing }}", page=Path())


def test_special_characters_do_not_split_a_cell_of_a_markdown_table() -> None:
    assert render("{{ text | table_cell }}", text="a|b\nc") == "a\\|b c"
