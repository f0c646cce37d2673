"""HTML from text: tables, groups of figures and numbers as people read them. Every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np


def number(value: float) -> str:
    """A number as people read it; a dash where there is none."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else f"{value:,.5g}" if abs(value) < 1e6 else f"{value:.5g}"


def table(says: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0, start: int = 1) -> str:
    """A table with a caption; the first cell names its row, `numbers` cells from `start` are set as numbers."""
    numeric = range(start, start + numbers)
    head = "".join(
        f'<th scope="col"{_aligned(index in numeric)}>{escape(text)}</th>' for index, text in enumerate(heads)
    )
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td{_aligned(index in numeric)}>{escape(text)}</td>" for index, text in enumerate(rest, 1))
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    return scrolling(
        says,
        f"<table><caption>{escape(says)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
    )


def _aligned(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def scrolling(name: str, content: str) -> str:
    """A region that scrolls by itself on a narrow screen, with the keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">{content}</div>'


def figures(*drawn: str) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(drawn)}</div>'
