"""A small table with a random target, and the findings of its data check."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Finding
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem, build_problem

ROWS: Final = 600
RNG: Final = np.random.default_rng(0)
LABELS: Final = RNG.permutation(np.arange(ROWS) % 4 == 0)
NOISE: Final = RNG.normal(size=ROWS)


def problem_of(columns: dict[str, Any], target: Any = LABELS, **options: Any) -> LearningProblem:
    """Return a learning problem with the column `noise`, the given columns and the target `y`."""
    cells = {name: list(values) for name, values in {"noise": NOISE, **columns, "y": target}.items()}
    return build_problem(table_from_memory(cells, "loans"), TrainingOptions(target="y", name="loans", **options))


def findings_of(code: str, columns: dict[str, Any], target: Any = LABELS, **options: Any) -> list[Finding]:
    """Return the findings with this code."""
    return [finding for finding in problem_of(columns, target, **options).findings if finding.code == code]
