"""The presets trade quality against the time that the model needs to score a row. A preset limits the estimated time.
The estimate depends only on the sizes of the trees, so the same search chooses the same model on every machine.
The measured time is reported with the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

PresetName = Literal["fast", "balanced", "best"]
GRAPH_MICROSECONDS: Final = 6.0
"""The estimated cost of an empty graph."""
MEMBER_MICROSECONDS: Final = 5.0
"""The estimated cost of each member of an average, excluding its trees."""
TREE_NANOSECONDS, LEVEL_NANOSECONDS = 20.0, 1.6
"""A tree with n leaves takes about 20 + 1.6 * log2(n)^2 ns: large trees do not fit into the CPU's caches.

Measured with ONNX Runtime on one core: 31 ns with 8 leaves, 49 ns with 31 leaves and 175 to 240 ns with 2,000 to 6,000
leaves.
"""


@dataclass(frozen=True)
class Preset:
    """The limits of a served model."""

    microseconds: float
    """The maximum estimated cost of scoring a row."""
    is_bagged: bool
    """Whether to serve the average of all fold models instead of one model fitted to all rows."""
    members: int
    """The maximum number of configurations in the average."""
    forest_trees: int
    """The maximum number of trees in a forest."""
    nodes: int
    """The maximum number of tree nodes. A million nodes need about 35 MB in the bundle."""

    def allows(self, sizes: Sequence[Size]) -> bool:
        """Return whether an average of models with these sizes is within the limits."""
        cost = GRAPH_MICROSECONDS + sum(MEMBER_MICROSECONDS + size.microseconds for size in sizes)
        nodes = sum(size.nodes for size in sizes)
        return len(sizes) <= self.members and cost <= self.microseconds and nodes <= self.nodes

    def allows_member(self, size: Size) -> bool:
        """Return whether one configuration of this size is within its share of the limits."""
        return size.microseconds <= self._member_microseconds and size.nodes <= self.nodes * MEMBER_SHARE

    def trees_within(self, leaves: int) -> int:
        """Return the maximum number of trees for one configuration."""
        by_time = self._member_microseconds * 1000 / tree_nanoseconds(leaves)
        return max(1, int(min(by_time, self.nodes * MEMBER_SHARE / (2 * leaves))))

    @property
    def _member_microseconds(self) -> float:
        share = MEMBER_SHARE if self.members > 1 else 1.0
        return (self.microseconds - GRAPH_MICROSECONDS - MEMBER_MICROSECONDS) * share


MEMBER_SHARE: Final = 0.7
"""The share of a preset's limits available to one configuration."""
PRESETS: Final[dict[PresetName, Preset]] = {
    "fast": Preset(25.0, False, 1, 100, 300_000),
    "balanced": Preset(65.0, True, 4, 150, 500_000),
    "best": Preset(650.0, True, 8, 400, 1_000_000),
}
"""The limits leave a margin for slower machines. Measured on one core, scoring a row takes about 20 µs with `fast`, at
most 100 µs with `balanced` and at most 1,000 µs with `best`.
"""


@dataclass(frozen=True)
class Size:
    """The number of trees and nodes of a model."""

    trees: int = 0
    nodes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.trees + other.trees, self.nodes + other.nodes)

    @property
    def microseconds(self) -> float:
        """The estimated cost of scoring a row, excluding the cost of an empty graph."""
        leaves = self.nodes / max(self.trees, 1) / 2 + 0.5
        return self.trees * tree_nanoseconds(leaves) / 1000


NO_TREES: Final = Size()


def tree_nanoseconds(leaves: float) -> float:
    """Return the estimated time to find a row's leaf in a tree with this number of leaves."""
    return float(TREE_NANOSECONDS + LEVEL_NANOSECONDS * np.log2(max(leaves, 1.0)) ** 2)


def fold_count(preset: Preset, rows: int) -> int:
    """Return the default number of folds.

    In a small table, each fold model needs as many rows as possible; in a large table, three folds are almost as good
    as a larger number of folds.
    """
    if not preset.is_bagged:
        return 3
    return 8 if rows < 2000 else 5 if rows < 50_000 else 3
