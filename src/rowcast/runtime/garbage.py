"""How often the garbage collector runs."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""The number of new objects after which the garbage collector runs. Python's default is 700. Almost every object
that is created during startup is permanent, and almost every object of a request is deleted without the collector."""


def collect_less_often() -> None:
    """Let the garbage collector run only after many new objects."""
    gc.set_threshold(YOUNG_OBJECTS)
