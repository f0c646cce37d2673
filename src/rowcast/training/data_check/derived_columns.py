"""Check derived columns: report each definition, and columns that are constant or mostly missing."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.derived import DerivedColumn
from rowcast.tables.table import Finding
from rowcast.training.derivation import Derivation

MOSTLY_MISSING: Final = 0.5
CHECK: Final = "used; check the expression"


def check_derived_columns(derivation: Derivation, numbers: NDArray[np.float32]) -> list[Finding]:
    """Return one finding for each derived column. The findings contain no values from the table."""
    if not derivation.columns:
        return []
    values = derivation.append(numbers)[:, numbers.shape[1] :]
    return [_finding(column, cells) for column, cells in zip(derivation.columns, values.T, strict=True)]


def _finding(column: DerivedColumn, cells: NDArray[np.float32]) -> Finding:
    missing = np.isnan(cells)
    count, rows = int(missing.sum()), len(cells)
    about = f"number, computed as {column.text}; missing in {count} of {rows} rows"
    if count > MOSTLY_MISSING * rows:
        return Finding("derived-missing", column.name, about, CHECK)
    if len(np.unique(cells[~missing])) == 1:
        return Finding("derived-constant", column.name, f"{about}; all values are equal", CHECK)
    return Finding("derived", column.name, about, "used as a feature")
