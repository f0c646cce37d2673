"""Encoded rows to the graph's input tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.encoding import EncodedRow, Plan


def stack_rows(plan: Plan, rows: Sequence[EncodedRow]) -> dict[str, NDArray[Any]]:
    """The input tensors of many encoded rows, in order."""
    tensors: dict[str, NDArray[Any]] = {}
    count = len(rows)
    for index, spec in enumerate(plan):
        pieces = [row.pieces[index] for row in rows]
        if spec.dtype == "string":
            stacked = np.array([text for piece in pieces for text in piece], object)
        else:
            stacked = np.frombuffer(b"".join(pieces), spec.dtype)
        tensors[spec.name] = stacked.reshape((count, *spec.shape))
    return tensors
