"""How often and how long models were asked through the Open Inference Protocol, added up over all workers."""

from __future__ import annotations

import time
from typing import Any

from rowcast.adapters.files.shared_counters import CounterCells, Counters

FAMILY = "inferences"
REQUESTS, ROWS, NANOSECONDS, FAILED, FAILED_NANOSECONDS, LAST = range(6)


class Tally:
    """Counts, and tells in the protocol's own shape."""

    def __init__(self, counts: Counters) -> None:
        self._counts = counts
        self._cells: dict[tuple[str, int], CounterCells] = {}

    def count(self, model: str, version: int, rows: int, nanoseconds: int) -> None:
        """One request; without rows, it was refused."""
        key = model, version
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = self._counts.cells((FAMILY, model, str(version)), 6)
        if rows:
            cells[REQUESTS] += 1
            cells[ROWS] += rows
            cells[NANOSECONDS] += nanoseconds
            cells[LAST] = time.time_ns() // 1_000_000
        else:
            cells[FAILED] += 1
            cells[FAILED_NANOSECONDS] += nanoseconds

    def of(self, model: str, version: int) -> dict[str, Any]:
        """One entry of `model_stats`; what is not measured apart is counted and takes no time."""
        wanted = (FAMILY, model, str(version))
        each = [cells for labels, cells in self._counts.each() if labels == wanted] or [[0.0] * 6]
        requests, rows, taken, failed, failing, _ = (int(sum(cells)) for cells in zip(*each, strict=True))
        idle = {"count": requests, "ns": 0}
        return {
            "name": model,
            "version": str(version),
            "last_inference": int(max(cells[LAST] for cells in each)),
            "inference_count": rows,
            "execution_count": requests,
            "inference_stats": {
                "success": {"count": requests, "ns": taken},
                "fail": {"count": failed, "ns": failing},
                "queue": idle,
                "compute_input": idle,
                "compute_infer": {"count": requests, "ns": taken},
                "compute_output": idle,
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": [],
        }
