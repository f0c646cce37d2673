"""The base templates for all HTML pages, and the environment that renders templates.

`base.html` contains the page layout, `components.html` the macros and `base.css` the styles. A package that renders
pages keeps its own templates in its `templates` folder. The prediction path never imports this package.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from rowcast.printable import markdown_text, printable
from rowcast.templates.numbers import format_number


def render(package: str, template: str, **context: Any) -> str:
    """Render a template from the package's `templates` folder; it can extend and import the base templates."""
    found = markdown_environment(package) if template.endswith(".md") else environment(package)
    return found.get_template(template).render(context)


@cache
def environment(package: str) -> Environment:
    """Return the template environment of a package. Undefined names are errors; HTML templates escape every value."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("rowcast")]),
        # Values are escaped as HTML in all templates except Markdown, which `markdown_environment` renders.
        autoescape=select_autoescape(enabled_extensions=(), disabled_extensions=("md",), default=True),
        undefined=StrictUndefined,
        finalize=_without_controls,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["coordinate"] = "{:.1f}".format
    environment.filters["table_cell"] = _escape_table_cell
    return environment


@cache
def markdown_environment(package: str) -> Environment:
    """Return the template environment for Markdown, in which no value can add markup."""
    return environment(package).overlay(finalize=_as_markdown)


def _without_controls(value: Any) -> Any:
    return type(value)(printable(value)) if isinstance(value, str) else value  # keeps text that is already escaped


def _as_markdown(value: Any) -> Any:
    return markdown_text(value) if isinstance(value, str) else value


def _escape_table_cell(text: str) -> str:
    """Escape the characters that would end a cell in a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
