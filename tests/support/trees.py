"""Small trees for tests of the tree table."""

from __future__ import annotations

import numpy as np

from rowcast.training.onnx_graph import Tree


def stump(feature: int, threshold: float, true: float, false: float) -> Tree:
    """Return a tree with one split, and a leaf weight for each side."""
    return Tree(
        features=np.array([feature, 0, 0]),
        thresholds=np.array([threshold, 0.0, 0.0]),
        true=np.array([1, -1, -1]),
        false=np.array([2, -1, -1]),
        weights=np.array([[0.0], [true], [false]]),
    )
