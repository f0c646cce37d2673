"""Stack encoded rows into the graph's input tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.encoding import EncodedRow, Plan


def stack_rows(plan: Plan, rows: Sequence[EncodedRow]) -> dict[str, NDArray[Any]]:
    """Return the input tensors; the order of the rows is preserved. Hot path."""
    tensors: dict[str, NDArray[Any]] = {}
    count = len(rows)
    for index, spec in enumerate(plan):
        inputs = [row.inputs[index] for row in rows]
        if spec.dtype == "string":
            texts = np.array(inputs, object)  # [N, k], because the input of a row is a tuple of k strings
            tensors[spec.name] = texts if spec.shape else texts.reshape(count)
        else:
            tensors[spec.name] = np.ndarray((count, *spec.shape), spec.dtype, b"".join(inputs))
    return tensors
