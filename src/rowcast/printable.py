"""Makes text from data safe for terminals and Markdown."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal interprets instead of displaying: control codes, and characters that reverse the text
direction."""


def printable(text: str) -> str:
    """Return the text with control characters replaced with escapes such as `\\x1b`; tabs and line breaks remain."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def markdown_text(text: str) -> str:
    """Return the text on one line, without characters that begin HTML, end a code span or make a link in Markdown."""
    line = " ".join(printable(text).splitlines())
    return line.replace("<", "&lt;").replace("`", "'").replace("](", "]\\(")
