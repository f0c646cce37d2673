"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
from functools import lru_cache

CLOSE = 0.65
"""How similar a name must be to be suggested, from 0 to 1. A poor suggestion is worse than none."""
MAX_NAMES, MAX_CHARACTERS = 500, 100
"""Longer lists and names get no suggestion, so that requests cannot make the search slow."""


@lru_cache(1024)
def did_you_mean(name: str, known: tuple[str, ...], count: int = 1) -> str:
    """Return a question such as "did you mean 'age'?", or an empty string if no known name is close."""
    if len(known) > MAX_NAMES or len(name) > MAX_CHARACTERS:
        return ""
    folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.strip().casefold(), list(folded), count, CLOSE)
    return f"did you mean {' or '.join(repr(folded[match]) for match in near)}?" if near else ""
